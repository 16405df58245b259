"""Lines of the classes of a run, from its ranking and its verdicts, which `audit.results` reads."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

import numpy as np

from klarsicht.audit.results import ranking
from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.detection_rows import read_detections, read_places
from klarsicht.audit.results.ranking import Entry
from klarsicht.audit.results.seen_groups import SEEN_FILE
from klarsicht.audit.results.sufficiency import SUFFICIENCY_FILE
from klarsicht.audit.results.verdict_lines import VerdictLine
from klarsicht.audit.results.verdicts import VERDICTS_FILE, Quantification, is_quantified, read_verdicts
from klarsicht.audit.results.words import VerdictKind, describe_detector
from klarsicht.explorer.run_reader import RunReader
from klarsicht.explorer.thumbnails import Window
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.store import RunStore

ILLUSTRATED = "views"  # the table of pictures of the first suspects, and its step
SKIPPED, OBSERVED = "skipped", "observed"
LABELS: Final[dict[str, str]] = {
    **{kind: kind.label for kind in VerdictKind},
    SKIPPED: "not examined",
    OBSERVED: "observed so far",
}
"""Kinds of lines with their labels, the most urgent first: those of verdicts, then of classes that have none, since
they were not examined or are not ranked yet."""
DRAWN_FIRST = 8  # members of a class whose thumbnails stand in its line, where the window is wide; three elsewhere


@dataclass(frozen=True)
class ClassLine:
    """One class in the list.

    Attributes:
        target, name: the class.
        kind: one of LABELS.
        words: sentences on each artifact of the class; before the quantification the words of the ranking, and of a
            class without a verdict the reason.
        entry: the cluster of the class; None where it was not ranked.
        verdict: that of the quantification; None before it, and where it did not examine the class.
        next_steps: of each artifact that a person should judge, advice and command.
    """

    target: int
    name: str
    kind: str
    words: str
    entry: Entry | None = None
    verdict: Verdict | None = None
    next_steps: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_entry(cls, entry: Entry) -> ClassLine:
        return cls(entry.target, entry.name, entry.kind, entry.verdict, entry)

    def with_verdict(self, artifacts: Sequence[tuple[VerdictLine, str]], run: str) -> ClassLine:
        """Add the verdict of the quantification, in place of what the ranking says.

        Args:
            artifacts: of the class, each with its place, see `detection_rows.read_places`.
            run: the run folder, for the commands.
        """
        verdict, steps = artifacts[0][0].verdict, (line.next_step(run) for line, _ in artifacts)
        words = " ".join(line.headline_at(place) for line, place in artifacts)
        next_steps = tuple((advice, command) for advice, command in steps if command)
        return replace(self, kind=verdict.kind_of_class, words=words, verdict=verdict, next_steps=next_steps)

    @property
    def by_detector(self) -> bool:
        """Whether the found members are those of a detection, not of a cluster."""
        return self.verdict is not None and (self.verdict.artifactual or self.verdict.shared)

    @property
    def detected(self) -> tuple[int, ...]:
        """Rows of the run that are members of the detection."""
        return self.verdict.rows if self.verdict is not None and self.by_detector else ()

    @property
    def cluster(self) -> tuple[int, ...]:
        """Rows of the run that are members of the cluster; of a followed group those that were judged."""
        if self.verdict is not None and self.verdict.followed:
            return self.verdict.rows
        return self.entry.rows if self.entry is not None else ()

    @property
    def found(self) -> tuple[int, ...]:
        """Rows of the members that the audit names: of the detection where there is one, else of the cluster."""
        return self.detected if self.by_detector else self.cluster

    @property
    def p(self) -> float | None:
        """p-value of the detection; None before `audit quantify`."""
        return self.verdict.detection.p if self.verdict is not None else None

    @property
    def z(self) -> float:
        """z of the cluster; 0 without one."""
        return self.entry.z if self.entry is not None else 0.0

    @property
    def metric(self) -> str:
        """Metric under which the cluster was found; empty without one."""
        return self.entry.metric if self.entry is not None else ""

    @property
    def further(self) -> tuple[tuple[int, ...], ...]:
        """Rows of the members of each further artifact of the class."""
        return tuple(one.rows for one in self.verdict.further) if self.verdict is not None else ()

    def to_json(self) -> dict[str, Any]:
        """Return the figures, and the rows of the first members; the other rows are read with the class."""
        entry, verdict = self.entry, self.verdict
        clean = self.kind == VerdictKind.NOTHING  # the effect of a chance detection is not shown
        tried = verdict is not None and self.by_detector and bool(verdict.use.tried)
        effect = verdict.use if verdict and tried else entry.effect if entry and not clean else None
        n = verdict.n if verdict else entry.n if entry else 0
        return {
            "target": self.target,
            "name": self.name,
            "kind": self.kind,
            "label": LABELS[self.kind],
            "verdict": self.words,
            "next_steps": [list(step) for step in self.next_steps],
            "p": self.p,
            "shift": effect.shift if effect else None,
            "low": effect.low if effect else None,
            "high": effect.high if effect else None,
            "n": n,
            "size": len(self.found),
            "z": entry.z if entry else None,
            "tau": entry.tau if entry else None,
            "metric": self.metric,
            "sign": describe_detector(verdict.detection.sign) if verdict and self.by_detector else "",
            "by_detector": self.by_detector,
            "resembles": list(verdict.resembles) if verdict else [],
            "prevalence": None if clean or not n else len(self.found) / n,
            "first": list(self.found[:DRAWN_FIRST]),
        }


@dataclass(frozen=True)
class ClassResults:
    """Rankings and verdicts of a run, or where it is not ranked yet, what is analysed."""

    reader: RunReader

    @property
    def stamp(self) -> tuple[Hashable, ...]:
        """Value that changes whenever results of the run change."""
        files = ranking.FILE, VERDICTS_FILE, SEEN_FILE, SUFFICIENCY_FILE
        return (*self.reader.stamp(*files), self._analysed_units)

    @property
    def revision(self) -> str:
        """The stamp as a text."""
        return "-".join(map(str, self.stamp))

    @property
    def _analysed_units(self) -> int:
        """Number of analysed units of a run that is not ranked yet; 0 afterwards."""
        if self.reader.store.has_file(ranking.FILE):
            return 0
        return sum(self.reader.store.count_units(f"spray-{metric}") for metric in self.reader.metrics)

    def lines(self) -> dict[int, ClassLine]:
        """Return the lines of all classes by output, most urgent first."""
        return self.reader.keep("lines", self.stamp, lambda: read_lines(self.reader))

    def line(self, target: int) -> ClassLine:
        """Return the line of a class.

        Raises:
            UsageError: the run has no such class.
        """
        if target not in self.lines():
            raise UsageError("the run has no such class", got=target, rule="the number of an output that was analysed")
        return self.lines()[target]

    def metrics(self, target: int) -> list[str]:
        """Return the metrics of the run, that of the class's cluster first; a cluster that the model follows may be of
        another metric, whose embedding is not stored."""
        own = self.line(target).metric
        return sorted(self.reader.metrics, key=lambda metric: metric != own)

    def drawn_overlays(self, target: int) -> dict[int, str]:
        """Return the file of the overlay that the audit drew of each row, where no map of the class is stored."""
        return self.reader.keep("drawn", (target, self.stamp), lambda: self._read_overlays(target))

    def _read_overlays(self, target: int) -> dict[int, str]:
        store = self.reader.store
        if store.has_array("maps") or not (store.has_table(ILLUSTRATED) and store.is_finished(ILLUSTRATED)):
            return {}
        views: list[Mapping[str, Any]] = store.table(ILLUSTRATED, columns=("target", "row", "picture")).to_pylist()
        own = (view for view in views if view["target"] == target and view["picture"])
        return {view["row"]: f"{view['picture']}-relevance.jpg" for view in own}

    def windows(self, target: int) -> dict[int, Window]:
        """Return the detected window of each row of the class's detection that has one."""
        return self.reader.keep("windows", (target, self.stamp), lambda: self._read_windows(target))

    def _read_windows(self, target: int) -> dict[int, Window]:
        line, store = self.line(target), self.reader.store
        if line.verdict is None or not line.by_detector:
            return {}
        found = self.reader.keep("detections", self.stamp, lambda: read_detections(store, read_verdicts(store)))
        for sign in found.get((target, 1), ()):
            if sign["sign"] == line.verdict.detection.sign and len(sign["places"]) == 2 * len(sign["rows"]):
                places = np.array(sign["places"], float).reshape(-1, 2)
                return {
                    int(row): (float(top), float(left), float(sign["height"]), float(sign["width"]))
                    for row, (top, left) in zip(sign["rows"], places, strict=True)
                }
        return {}


def read_lines(reader: RunReader) -> dict[int, ClassLine]:
    """Read the lines of all classes of a run by output, most urgent first; without a ranking, those analysed so far.

    Raises:
        RunDamaged: a file is missing or altered.
    """
    store = reader.store
    if not store.has_file(ranking.FILE):
        lines = _observed_lines(store, reader.metrics)
    else:
        lines = {entry.target: ClassLine.of_entry(entry) for entry in ranking.read_entries(store)}
        if is_quantified(store):
            quantification = read_verdicts(store)
            for one, artifacts in _artifacts_of_classes(store, quantification):
                known = lines.get(one.target, ClassLine(one.target, one.name, VerdictKind.NOTHING, ""))
                lines[one.target] = known.with_verdict(artifacts, str(store.path))
            for target, line in _skipped_lines(quantification, reader.names):
                lines.setdefault(target, line)
    return {line.target: line for line in sorted(lines.values(), key=_urgency)}


def _artifacts_of_classes(
    store: RunStore, found: Quantification
) -> Iterator[tuple[Verdict, list[tuple[VerdictLine, str]]]]:
    """Yield the verdict on each class, and the lines of its artifacts, each with its place."""
    places = read_places(store, found)
    for _, lines in groupby(found.lines, lambda line: line.position):
        artifacts = [(line, places[line.verdict.target, line.number]) for line in lines]
        yield artifacts[0][0].verdict, artifacts


def _skipped_lines(quantification: Quantification, names: list[str]) -> Iterator[tuple[int, ClassLine]]:
    """Make lines, by output, of the classes that were not examined."""
    targets = {name: target for target, name in enumerate(names)}
    for name, why in quantification.skipped:
        if name in targets:
            yield targets[name], ClassLine(targets[name], name, SKIPPED, f"not examined: {why}")


def _observed_lines(store: RunStore, metrics: list[str]) -> dict[int, ClassLine]:
    """Make lines of the classes analysed so far: of each the cluster of largest z under any metric of the run."""
    paths, best = store.texts("corpus", "path"), dict[int, ClassLine]()
    for metric in metrics:
        name = f"suspects-{metric}"
        records: list[Mapping[str, Any]] = store.table(name).to_pylist() if store.has_table(name) else []
        with store.translate_parse_errors(name):
            for record in records:
                entry, words = Entry.from_record(record, paths), record["skipped"] or "observed, not ranked yet"
                if entry.target not in best or entry.z > best[entry.target].z:
                    best[entry.target] = ClassLine(entry.target, entry.name, OBSERVED, words, entry)
    return best


def _urgency(line: ClassLine) -> tuple[int, float, float, int]:
    return list(LABELS).index(line.kind), 1.0 if line.p is None else line.p, -line.z, line.target
