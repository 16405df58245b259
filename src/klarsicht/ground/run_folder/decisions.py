"""Decisions of a person on the classes of a run: append-only records in RUN/decisions.jsonl, one a line.

    {"number": 0, "time": "2026-01-31T12:00:00+00:00", "author": "ada", "target": 478, "class": "carton",
     "decision": "artifact", "artifact": "watermark", "note": "lower left", "base": [3, 17, 20], "remove": [20]}
    {"number": 1, "time": ..., "author": ..., "target": 478, "class": "carton", "base": [3, 17, 20], "add": [5]}
    {"number": 2, "time": ..., "author": ..., "undo": 0}

Of the decision, the name and the note the last record counts that no later one undoes; rows are added and taken out in
the order of the records. Members start from the `base` of the first record that counts: the rows that the audit named
then.

A record is on the disk when `append` returns. A line without an end, of a killed process, counts for nothing."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from klarsicht.ground.errors import UsageError, unknown_name
from klarsicht.ground.machine.disk import hold_lock, read_regular_file, translate_write_errors
from klarsicht.ground.machine.operating_system import sync
from klarsicht.ground.run_folder.markers import damage_error

DECISIONS_FILE: Final = "decisions.jsonl"
DECISIONS_LOCK: Final = "decisions.lock"
ARTIFACT, LEGITIMATE, UNSURE, UNDECIDED = "artifact", "legitimate", "unsure", ""
KINDS: Final = (ARTIFACT, LEGITIMATE, UNSURE, UNDECIDED)
MAX_NAME, MAX_NOTE = 200, 4000  # characters
PATIENCE = 30.0  # seconds to wait for other processes that write records
ROWS: Final = ("base", "add", "remove")
TEXTS: Final = ("decision", "artifact", "note")
KEYS: Final = {"number", "time", "author", "undo", "target", "class", *TEXTS, *ROWS}
_writing = threading.Lock()


@dataclass(frozen=True)
class ClassDecision:
    """Decision on a class.

    Attributes:
        target, name: the class, and its output of the model.
        decision: one of KINDS; UNDECIDED where only a name, members or a note were given.
        artifact: name of the artifact, equal in all classes that carry the same one; empty without.
        members: rows of the run that carry it; None where nobody looked at them.
        removed: rows that the audit named and a person took out.
        author, time: of the last record.
    """

    target: int
    name: str
    decision: str = UNDECIDED
    artifact: str = ""
    members: tuple[int, ...] | None = None
    removed: tuple[int, ...] = ()
    note: str = ""
    author: str = ""
    time: str = ""

    @property
    def is_artifact(self) -> bool:
        return self.decision == ARTIFACT

    @property
    def is_legitimate(self) -> bool:
        return self.decision == LEGITIMATE

    def to_json(self) -> dict[str, Any]:
        members = None if self.members is None else list(self.members)
        return vars(self) | {"members": members, "removed": list(self.removed)}


@dataclass(frozen=True)
class Change:
    """Change of the decision on a class; None leaves a field as it is. target, name, decision, artifact, note: see
    ClassDecision. base: rows that the audit names now, from which members start; None: members are left alone. add,
    remove: rows that carry the artifact after all, or do not; they need a base."""

    target: int
    name: str
    decision: str | None = None
    artifact: str | None = None
    note: str | None = None
    base: tuple[int, ...] | None = None
    add: tuple[int, ...] = ()
    remove: tuple[int, ...] = ()

    def check(self) -> None:
        """Check that the change can be recorded. Raises UsageError: it says nothing, or what cannot be said."""
        if self.decision is not None and self.decision not in KINDS:
            raise unknown_name("decision", self.decision, [kind for kind in KINDS if kind])
        for what, text, most in (("name", self.artifact, MAX_NAME), ("note", self.note, MAX_NOTE)):
            if text is not None and len(text) > most:
                raise UsageError(f"the {what} is too long", got=f"{len(text)} characters", rule=f"at most {most}")
        if not self.fields():
            raise UsageError("nothing is decided", rule="a decision, a name, members or a note")
        if self.base is None and (self.add or self.remove):
            raise UsageError("rows are added or taken out without a base", rule="the rows that the audit names")

    def fields(self) -> dict[str, Any]:
        texts = {name: getattr(self, name) for name in TEXTS}
        rows = {"add": list(self.add) or None, "remove": list(self.remove) or None}
        base = None if self.base is None else list(self.base)
        return {name: value for name, value in (texts | {"base": base} | rows).items() if value is not None}


@dataclass(frozen=True)
class DecisionLog:
    """Records of decisions in a run folder. It holds only the folder's path."""

    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / DECISIONS_FILE

    def append(self, change: Change, author: str) -> int:
        """Record a change durably; returns the number of its record. Raises UsageError: see Change.check; RunLocked:
        another process writes a record, and does not end; RunDamaged; DiskFull, StoreError."""
        change.check()
        return self._append(lambda _: {"target": change.target, "class": change.name, **change.fields()}, author)

    def undo(self, number: int, author: str) -> int:
        """Record that a record does not count; returns the number of the new record. Raises UsageError: there is no
        such record that still counts; else as `append`."""

        def make_undo(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            undone = {record["undo"] for record in records if "undo" in record}
            if not 0 <= number < len(records) or "undo" in records[number] or number in undone:
                raise UsageError("this record cannot be undone", got=number, rule="a record that still counts")
            return {"undo": number}

        return self._append(make_undo, author)

    def records(self) -> list[dict[str, Any]]:
        """Read all records in order, without a line that has no end. Raises RunDamaged: a line is not a record."""
        return _parse(self._content())

    def decisions(self) -> dict[int, ClassDecision]:
        """Read the decision on each class that has one, by output of the model. Raises RunDamaged."""
        return fold(self.records())

    def _content(self) -> bytes:
        try:
            return read_regular_file(self.file)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise damage_error(DECISIONS_FILE, f"cannot be read: {error.strerror or error}") from error

    def _append(self, make_content: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]], author: str) -> int:
        """Append the record that is made of those before it, while nobody else writes one; returns its number."""
        lock = hold_lock(self.folder / DECISIONS_LOCK, PATIENCE)
        with _writing, lock, translate_write_errors(self.file):
            content_before = self._content()
            complete_lines = content_before[: content_before.rfind(b"\n") + 1]
            records = _parse(complete_lines)
            number = len(records)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            record = {"number": number, "time": now, "author": author, **make_content(records)}
            new = not self.file.exists()
            with self.file.open("r+b" if not new else "w+b") as file:
                file.truncate(len(complete_lines))
                file.seek(len(complete_lines))
                file.write(json.dumps(record).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if new:
                sync(self.folder)
            return number


def fold(records: Sequence[Mapping[str, Any]]) -> dict[int, ClassDecision]:
    """Apply records in their order, without those undone; returns the decision on each class, by output."""
    undone = {record["undo"] for record in records if "undo" in record}
    decisions: dict[int, ClassDecision] = {}
    for record in records:
        if "undo" not in record and record["number"] not in undone:
            target = record["target"]
            decisions[target] = _apply(record, decisions.get(target, ClassDecision(target, record["class"])))
    return decisions


def _apply(record: Mapping[str, Any], decision: ClassDecision) -> ClassDecision:
    """Apply a record to the decision before it."""
    fields = {name: record[name] for name in (*TEXTS, "author", "time") if name in record}
    if "base" in record:
        base, add, remove = (set(record.get(name, ())) for name in ("base", "add", "remove"))
        members = base if decision.members is None else set(decision.members)
        fields["members"] = tuple(sorted((members | add) - remove))
        fields["removed"] = tuple(sorted((set(decision.removed) | (remove & base)) - add))
    return replace(decision, **fields)


def _parse(content: bytes) -> list[dict[str, Any]]:
    """Parse whole lines; raises RunDamaged for one that is no record."""
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    records = []
    for number, line in enumerate(lines):
        try:
            record = json.loads(line)
            _check_record(record, number)
        except (ValueError, TypeError, KeyError) as error:
            raise damage_error(DECISIONS_FILE, f"line {number + 1} is not a record: {error}") from error
        records.append(record)
    return records


def _check_record(record: Any, number: int) -> None:
    """Check types of a record that is read. Raises ValueError, TypeError, KeyError: it is none."""
    if record["number"] != number:
        raise ValueError(f"its number is {record['number']}")
    if unknown := record.keys() - KEYS:
        raise KeyError(min(unknown))
    integers = ["undo"] if "undo" in record else ["target"]
    texts = ["time", "author", *(() if "undo" in record else ("class",))]
    texts += [name for name in TEXTS if name in record]
    if "base" not in record and ("add" in record or "remove" in record):
        raise KeyError("base")
    rows = [row for name in ROWS for row in record.get(name, ())]
    if not all(type(value) is int for value in [*(record[name] for name in integers), *rows]):
        raise TypeError("a number is none")
    if not all(isinstance(record[name], str) for name in texts):
        raise TypeError("a text is none")
