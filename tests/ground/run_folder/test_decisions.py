"""Decisions of a person: what is read is what was written, whoever writes and whenever a process dies."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
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
    log.append(Change(3, "carton", "artifact", members=(1, 5)), "ada")
    log.append(Change(3, "carton", artifact="watermark"), "bo")
    log.append(Change(4, "crate", "legitimate"), "bo")
    log.append(Change(3, "carton", members=(1,), removed=(5,), note="5 is clean"), "ada")
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
        with pytest.raises(UsageError, match="no record that can be undone"):
            log.undo(number, "ada")


fields = st.fixed_dictionaries(
    {},
    optional={
        "decision": st.sampled_from(["artifact", "legitimate", "unsure", ""]), "artifact": st.text(max_size=5),
        "members": st.lists(st.integers(0, 9)), "removed": st.lists(st.integers(0, 9)), "note": st.text(max_size=5),
    },
)  # fmt: skip
steps = st.lists(st.one_of(st.tuples(st.integers(0, 3), fields), st.integers(0, 30)), max_size=30)


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
        for name, default in (("decision", ""), ("artifact", ""), ("note", ""), ("members", None), ("removed", [])):
            values = [r[name] for r in mine if name in r]
            wanted = values[-1] if values else default
            if mine:
                assert getattr(found[target], name) == (tuple(wanted) if isinstance(wanted, list) else wanted)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (Change(0, "a", "artefact"), "Did you mean artifact"),
        (Change(0, "a"), "nothing is decided"),
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
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / DECISIONS_FILE).write_bytes(line)
    with pytest.raises(RunDamaged, match="line 1 is no record"):
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
