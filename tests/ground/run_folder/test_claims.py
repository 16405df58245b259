"""Claims. Oracles: a law (each name has one holder), real processes that die, a forged claim of another machine."""

import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from klarsicht.ground.run_folder import claims
from klarsicht.ground.run_folder.claims import Claims

TAKE = """
import sys, time
from pathlib import Path
from klarsicht.ground.run_folder.claims import Claims
claims = Claims(Path(sys.argv[1]))
with claims.heartbeat():
    while not Path(sys.argv[2]).exists():
        time.sleep(.001)
    print(*[i for i in range(100) if claims.take(f"unit.{i}")], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def clock(monkeypatch):
    """Seconds of the clock by which claims expire, in a list."""
    now = [0.0]
    monkeypatch.setattr(claims, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def started(*arguments):
    command = [sys.executable, "-c", TAKE, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def forged(folder, name, token="other", machine="elsewhere", process=1):
    (folder / "pulses").mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"token": token, "machine": machine, "process": process}))
    return folder / "pulses" / token


def test_processes_that_race_take_every_unit_once_and_what_a_killed_one_held_is_free_at_once(tmp_path):
    processes = [started(tmp_path / "claims", tmp_path / "go") for _ in range(3)]
    (tmp_path / "go").touch()
    taken = [[int(word) for word in process.stdout.readline().split()] for process in processes]
    assert sorted(unit for some in taken for unit in some) == list(range(100))
    mine = Claims(tmp_path / "claims")
    with mine.heartbeat():
        assert not any(mine.take(f"unit.{i}") for i in range(100))
        most = max(range(3), key=lambda i: len(taken[i]))
        processes[most].kill()
        processes[most].wait()
        assert [i for i in range(100) if mine.take(f"unit.{i}")] == sorted(taken[most])
        for process in processes:
            process.communicate("")
        free = set(range(100)) - set(taken[most])  # others ended and gave theirs back
        assert {i for i in range(100) if i in free and mine.take(f"unit.{i}")} == free


def test_a_process_elsewhere_is_dead_when_its_count_stands_still(tmp_path, clock):
    mine = Claims(tmp_path, expiry=3)
    pulse = forged(tmp_path, "unit")
    for count in range(10):  # for longer than it takes to expire
        pulse.write_text(str(count))
        assert not mine.take("unit")
        clock[0] += 2
    assert not mine.take("unit")
    clock[0] += 2
    assert mine.take("unit")
    assert mine.holds("unit")


def test_a_claim_of_this_machine_whose_process_lives_expires_only_by_its_count(tmp_path, clock):
    from klarsicht.ground.machine.operating_system import machine_name

    mine = Claims(tmp_path, expiry=2)
    forged(tmp_path, "unit", machine=machine_name(), process=os.getpid()).write_text("7")
    assert not mine.take("unit")
    clock[0] += 2.5
    assert mine.take("unit")


def test_a_claim_that_was_not_written_to_its_end_expires(tmp_path, clock):
    mine = Claims(tmp_path, expiry=2)
    (tmp_path / "unit").touch()
    assert not mine.take("unit")
    clock[0] += 2.5
    assert mine.take("unit")


def test_of_many_that_take_over_one_succeeds(tmp_path):
    ended = subprocess.Popen(["true"])
    ended.wait()
    many = [Claims(tmp_path) for _ in range(8)]
    for turn in range(20):
        from klarsicht.ground.machine.operating_system import machine_name

        forged(tmp_path, f"unit.{turn}", machine=machine_name(), process=ended.pid)
        taken, together = [], threading.Barrier(8)

        def take(claims, name=f"unit.{turn}", taken=taken, together=together):
            together.wait()
            taken.append(claims.take(name))

        threads = [threading.Thread(target=take, args=(claims,)) for claims in many]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(taken) == 1


def test_who_was_taken_for_dead_holds_nothing_and_gives_nothing_of_another_back(tmp_path, clock):
    paused, other = Claims(tmp_path, expiry=1), Claims(tmp_path, expiry=1)
    (tmp_path / "pulses").mkdir()
    assert paused.take("unit")
    assert paused.holds("unit")
    assert not other.take("unit")
    clock[0] += 1.5  # the first one counts nothing
    assert other.take("unit")
    assert not paused.holds("unit")
    paused.release("unit")
    assert other.holds("unit")
    other.release("unit")
    assert paused.take("unit")


def test_a_living_process_counts_and_leaves_nothing(tmp_path):
    mine = Claims(tmp_path / "claims", expiry=0.2)
    with mine.heartbeat():
        (pulse,) = (tmp_path / "claims" / "pulses").iterdir()
        while not (pulse.read_text() or "0") > "0":  # empty while it is written
            time.sleep(0.01)
        mine.take("unit")
        mine.finish("whole")
    assert sorted(path.name for path in (tmp_path / "claims").rglob("*")) == ["pulses", "whole.done"]
    assert mine.is_finished("whole")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_a_damaged_claim_is_nobodys_proof_of_death(tmp_path, content):
    (tmp_path / "unit").write_bytes(content)
    assert not Claims(tmp_path).take("unit")
