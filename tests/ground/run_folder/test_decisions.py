"""Decisions of a person: what is read is what was written, whoever writes and whenever a process dies."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.ground.errors import RunDamaged, UsageError
from klarsicht.ground.run_folder.decisions import DECISIONS_FILE, Change, ClassDecision, DecisionLog, fold
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.verification import verify


def test_of_each_field_the_last_record_counts(tmp_path):
    log = DecisionLog(tmp_path)
    assert log.decisions() == {}
    log.append(Change(3, "carton", "artifact", base=(1, 5)), "ada")
    log.append(Change(3, "carton", artifact="watermark"), "bo")
    log.append(Change(4, "crate", "legitimate"), "bo")
    log.append(Change(3, "carton", note="5 is clean", base=(1, 5), remove=(5,)), "ada")
    found = log.decisions()
    time = log.records()[-1]["time"]
    assert found[3] == ClassDecision(3, "carton", "artifact", "watermark", (1,), (5,), "5 is clean", "ada", time)
    assert found[3].is_artifact and found[4].is_legitimate and found[4].members is None
    assert [record["number"] for record in log.records()] == [0, 1, 2, 3]


def test_an_undone_record_does_not_count_and_stays_in_the_file(tmp_path):
    log = DecisionLog(tmp_path)
    first = log.append(Change(0, "a", "artifact"), "ada")
    second = log.append(Change(0, "a", "legitimate"), "ada")
    log.undo(second, "ada")
    assert log.decisions()[0].decision == "artifact"
    log.undo(first, "ada")
    assert log.decisions() == {}
    assert len(log.records()) == 4
    for number in (first, 2, 4, -1, 99):
        with pytest.raises(UsageError, match="this record cannot be undone"):
            log.undo(number, "ada")


rows = st.lists(st.integers(0, 5), max_size=3, unique=True).map(sorted)
fields = st.fixed_dictionaries(
    {},
    optional={
        "decision": st.sampled_from(["artifact", "legitimate", "unsure", ""]), "artifact": st.text(max_size=5),
        "note": st.text(max_size=5),
    },
)  # fmt: skip
changes = st.fixed_dictionaries({"base": rows}, optional={"add": rows, "remove": rows})
steps = st.lists(st.one_of(st.tuples(st.integers(0, 3), fields | changes), st.integers(0, 30)), max_size=30)


@given(steps)
def test_decisions_are_those_of_a_replay_without_what_was_undone(steps):
    """Against a literal rewrite: replay everything from the start, once for each class and field."""
    records, undone = [], set()
    for step in steps:
        if isinstance(step, int):
            if step < len(records) and "undo" not in records[step] and step not in undone:
                undone.add(step)
                records.append({"number": len(records), "time": "t", "author": "a", "undo": step})
        else:
            records.append(
                {"number": len(records), "time": "t", "author": "a", "target": step[0], "class": "c", **step[1]}
            )
    found = fold(records)
    for target in range(4):
        mine = [r for r in records if r.get("target") == target and r["number"] not in undone]
        assert (target in found) == bool(mine)
        for name in ("decision", "artifact", "note"):
            if mine:
                assert getattr(found[target], name) == ([r[name] for r in mine if name in r] or [""])[-1]
        if mine:
            assert (found[target].members, found[target].removed) == row_by_row(mine)


def row_by_row(records):
    """Members and removed rows, each row for itself: what the last record says that speaks of it."""
    bases = [r["base"] for r in records if "base" in r]
    members = tuple(row for row in range(10) if is_member(row, records[::-1], bases)) if bases else None
    return members, tuple(row for row in range(10) if is_removed(row, records[::-1]))


def is_member(row, latest_first, bases):
    for record in latest_first:
        if row in record.get("remove", ()):
            return False
        if row in record.get("add", ()):
            return True
    return row in bases[0]


def is_removed(row, latest_first):
    for record in latest_first:
        if row in record.get("add", ()):
            return False
        if row in record.get("remove", ()) and row in record["base"]:
            return True
    return False


def test_an_addition_is_undone_after_that_of_another(tmp_path):
    log = DecisionLog(tmp_path)
    mine = log.append(Change(0, "a", base=(1, 2), add=(7,)), "ada")
    log.append(Change(0, "a", base=(1, 2), add=(8,), remove=(2,)), "bo")
    log.append(Change(0, "a", base=(1, 2, 3), add=(7, 9)), "cy")
    log.undo(mine, "ada")
    assert log.decisions()[0].members == (1, 7, 8, 9) and log.decisions()[0].removed == (2,)  # cy added the 7, too


def together(act, arguments):
    """Call a function with each argument at the same moment, in threads; returns what they return or raise."""
    barrier = threading.Barrier(len(arguments))

    def call(argument):
        barrier.wait(60)
        try:
            return act(argument)
        except UsageError as error:
            return error

    with ThreadPoolExecutor(len(arguments)) as threads:
        return list(threads.map(call, arguments))


def test_of_simultaneous_undos_of_a_record_one_is_accepted(tmp_path):
    log = DecisionLog(tmp_path)
    number = log.append(Change(0, "a", "artifact"), "ada")
    answers = together(lambda author: log.undo(number, author), [f"{i}" for i in range(8)])
    assert sorted(map(type, answers), key=str) == [int] + [UsageError] * 7
    assert len(log.records()) == 2 and log.decisions() == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change(0, "a", "artefact"), "Did you mean artifact"),
        (Change(0, "a"), "nothing is decided"),
        (Change(0, "a", add=(1,)), "without a base"),
        (Change(0, "a", "artifact", remove=(1,)), "without a base"),
        (Change(0, "a", artifact="x" * 201), "at most 200"),
        (Change(0, "a", note="x" * 4001), "at most 4000"),
    ],
)
def test_what_cannot_be_recorded_is_said_and_not_written(tmp_path, change, told):
    with pytest.raises(UsageError, match=told):
        DecisionLog(tmp_path).append(change, "ada")
    assert not (tmp_path / DECISIONS_FILE).exists()


def test_a_line_without_an_end_is_no_record_and_the_next_one_replaces_it(tmp_path):
    log = DecisionLog(tmp_path)
    log.append(Change(0, "a", "artifact", note="line\nbreak"), "ada")
    with (tmp_path / DECISIONS_FILE).open("ab") as file:
        file.write(b'{"number": 1, "time": "2026')
    assert log.decisions()[0].note == "line\nbreak"
    assert log.append(Change(1, "b", "unsure"), "bo") == 1
    assert [json.loads(line)["number"] for line in (tmp_path / DECISIONS_FILE).read_text().splitlines()] == [0, 1]


@pytest.mark.parametrize(
    "line",
    [
        b"nothing\n", b"[]\n", b'{"number": 5, "time": "", "author": "", "target": 0, "class": ""}\n', b"\xff\xfe\n",
        b'{"number": 0, "time": "", "author": "", "target": "0", "class": ""}\n',
        b'{"number": 0, "time": "", "author": "", "target": 0, "class": "", "members": ["x"]}\n',
        b'{"number": 0, "time": "", "author": "", "target": 0, "class": "", "note": 1}\n',
        b'{"number": 0, "time": "", "author": "", "target": 0, "class": "", "members": 7}\n',
        b'{"number": 0, "time": "", "author": "", "target": 0, "class": "", "base": [1], "add": [true]}\n',
        b'{"number": 0, "time": "", "author": "", "target": 0, "class": "", "base": null}\n',
        b'{"number": 0, "time": "", "author": "", "target": 0, "class": "", "members": [1]}\n',
        b'{"number": 0, "time": "", "author": "", "target": 0, "class": "", "add": [1]}\n',
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / DECISIONS_FILE).write_bytes(line)
    with pytest.raises(RunDamaged, match="line 1 is not a record"):
        DecisionLog(tmp_path).decisions()


def test_decisions_are_no_foreign_files_of_a_run(tmp_path):
    store = RunStore.create(tmp_path / "run", settings={}, identity={})
    DecisionLog(store.path).append(Change(0, "a", "artifact"), "ada")
    assert verify(store).unverified == ()


def _write(folder, author, count):
    for i in range(count):
        DecisionLog(Path(folder)).append(Change(i, "c", "artifact"), author)


@pytest.mark.slow
def test_processes_that_write_at_once_lose_no_record(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(tmp_path), name, 8)) for name in ("ada", "bo")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    records = DecisionLog(tmp_path).records()
    assert [record["number"] for record in records] == list(range(16))
    assert sorted(record["author"] for record in records) == ["ada"] * 8 + ["bo"] * 8


WRITER = """
import sys
from pathlib import Path
from klarsicht.ground.run_folder.decisions import Change, DecisionLog
log = DecisionLog(Path(sys.argv[1]))
while True:
    print(log.append(Change(0, "c", "artifact", note="x" * 3000), "ada"), flush=True)
"""


def test_a_record_that_was_acknowledged_survives_a_kill(tmp_path):
    rng, last = random.Random(0), -1
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(rng.randint(2, 12)):
            last = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.stdout.read().split("\n")[:-1]
        last = int(rest[-1]) if rest else last
        writer.wait()
        writer.stdout.close()
        records = DecisionLog(tmp_path).records()
        assert len(records) > last
        assert all(len(record["note"]) == 3000 for record in records)
