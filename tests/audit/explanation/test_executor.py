"""Work units. Oracles: the same units in a plain loop, threadpoolctl and torch asked directly, SIGINT, SIGKILL."""

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.marks import slow

from klarsicht.audit.explanation import executor
from klarsicht.audit.explanation.executor import limited_threads, partition, run_units
from klarsicht.ground.errors import DiskFull, ModelError, OutOfMemory, UsageError
from klarsicht.ground.machine.disk import temporary_folder
from klarsicht.ground.progress import count_rows, track

# Workers need not import this file: what it defines travels by value, as from a notebook.
pytest.importorskip("cloudpickle").register_pickle_by_value(sys.modules[__name__])
UNITS = partition(22, 4)


def collected(work, units=UNITS, **how):
    done = {}
    run_units(work, units, on_done=lambda unit, result: done.update({unit: result}), **how)
    return done


@given(st.integers(0, 500), st.integers(1, 60))
def test_partition_is_every_row_once_in_order(n, unit):
    parts = partition(n, unit)
    assert [row for part in parts for row in part] == list(range(n))
    assert all(part.start % unit == 0 and 0 < len(part) <= unit for part in parts)


def draws(unit):
    return np.random.default_rng(unit.start).normal(size=(len(unit), 3)) @ np.full((3, 3), 0.1)


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_results_are_those_of_a_plain_loop(workers):
    done = collected(draws, workers=workers)
    assert set(done) == set(UNITS)
    for unit in UNITS:
        np.testing.assert_array_equal(done[unit], draws(unit))


def counted_in_threes(unit):
    for start in range(0, len(unit) - 1, 3):  # the last row of a unit is skipped, and not counted
        count_rows(min(3, len(unit) - 1 - start))


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_rows_of_a_unit_are_shown_before_it_ends(workers, monkeypatch):
    """Law: what is shown sums to the rows, whoever counts; in this process by the batch, of workers by the unit."""
    shown = []

    @contextmanager
    def recorded(label, total):
        yield shown.append
        assert sum(shown) == total

    monkeypatch.setattr(executor, "progress", recorded)
    collected(counted_in_threes, workers=workers)
    # workers end their units in any order
    assert sorted(step for step in shown if step) == sorted([3, 1] * 5 + [1, 1] if workers == 1 else [4] * 5 + [2])


def steps_inside(unit):
    sys.modules[track.__module__].MIN_SECONDS = 0  # in a worker: every step writes a line at its end
    for _ in track(unit, len(unit), "inside"):
        time.sleep(0.01)


@pytest.mark.slow
def test_workers_write_no_lines_of_steps_inside_a_unit(capfd):
    collected(steps_inside, workers=2)
    assert "inside" not in capfd.readouterr().err


@pytest.mark.slow
def test_workers_work_in_the_folder_of_this_process_whenever_they_were_started(tmp_path, monkeypatch):
    """Workers are used again by later calls, and a relative path names a file of the folder that is current then."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert set(collected(lambda unit: Path.cwd(), workers=2).values()) == {tmp_path / name}


def test_nothing_to_do():
    assert collected(draws, [], workers=2) == {}


class Heavy:
    """Counts how often it is unpickled in the process that runs it."""

    opened = 0

    def __setstate__(self, state):
        type(self).opened += 1

    def __getstate__(self):
        return {"weight": bytes(1000)}

    def __call__(self, unit):
        return os.getpid(), type(self).opened


@pytest.mark.slow
def test_work_travels_once_to_each_worker():
    done = collected(Heavy(), partition(40, 2), workers=2)
    assert os.getpid() not in {pid for pid, _ in done.values()}
    assert {opened for _, opened in done.values()} == {1}


def failing(unit):
    if unit.start == 8:
        raise ModelError("layer", got="Attention", rule="has no rule", remedy="Use gradients.")
    return unit.start


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_an_error_comes_out_as_it_was_raised(workers):
    done = {}
    with pytest.raises(ModelError) as caught:
        run_units(failing, UNITS, workers=workers, on_done=lambda unit, result: done.update({unit: result}))
    assert str(caught.value) == "layer; got Attention; has no rule. Use gradients."
    assert range(8, 12) not in done


@pytest.mark.parametrize("workers", [1, slow(2)])
def test_an_error_while_keeping_a_result_stops_the_run(workers):
    told = []

    def keep(unit, result):
        told.append(unit)
        raise DiskFull("no space")

    with pytest.raises(DiskFull):
        run_units(draws, UNITS, workers=workers, on_done=keep)
    assert len(told) == 1


def dying(unit):
    if unit.start == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return unit.start


def test_no_space_to_send_the_work_is_disk_full(monkeypatch):
    def full(self, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DiskFull, match="resume"):
        run_units(len, partition(4, 1), workers=2, on_done=lambda unit, result: None)


@pytest.mark.slow
def test_a_worker_that_dies_is_an_error_with_a_remedy():
    with pytest.raises(OutOfMemory, match=r"worker process died.*fewer --workers"):
        collected(dying, workers=2)


KILLED = """
import os, signal, time
from klarsicht.audit.explanation.executor import partition, run_units
def work(unit):
    os.write(1, b"at work\\n")
    time.sleep(600)
run_units(work, partition(4, 1), workers=2, on_done=print)
"""


@pytest.mark.slow
def test_what_killed_workers_leave_is_removed_at_the_next_start(tmp_path, monkeypatch):
    """The group is killed, and with it joblib's own process that would tidy up."""
    place = {"env": {**os.environ, "TMPDIR": str(tmp_path)}, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    group = subprocess.Popen([sys.executable, "-c", KILLED], start_new_session=True, **place)
    assert group.stdout.readline() == b"at work\n"
    os.killpg(group.pid, signal.SIGKILL)
    group.communicate()

    def left():
        places = (tmp_path, Path("/dev/shm"))
        names = [p.name for place in places if place.is_dir() for p in place.iterdir()]
        return {name for name in names if re.search(rf"(?<!\d){group.pid}(?!\d)", name)}

    assert len(left()) > 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_folder():
        assert left() == set()


@pytest.mark.parametrize(("how", "match"), [({"workers": 0}, "1 to 1024"), ({"workers": 1025}, "1 to 1024")])
def test_wrong_arguments(how, match):
    with pytest.raises(UsageError, match=match):
        collected(draws, **how)


# Threads


def pools():
    return {pool["prefix"]: pool["num_threads"] for pool in threadpoolctl.threadpool_info()}


def test_threads_are_limited_and_given_back():
    before = torch.get_num_threads(), pools()
    with limited_threads(before[0] + 2):
        assert torch.get_num_threads() == before[0] + 2
        assert set(pools().values()) == {before[0] + 2}
    assert (torch.get_num_threads(), pools()) == before


def late_threads(unit):
    import torch

    return torch.get_num_threads(), max(pools().values()), os.environ["OMP_NUM_THREADS"]


@pytest.mark.slow
def test_a_library_imported_late_in_a_worker_is_limited_too():
    done = collected(late_threads, partition(2, 1), workers=2, threads=1)
    assert set(done.values()) == {(1, 1, "1")}


# The end of the parent

ORPHANS = """
    import os, sys, threading, time
    from klarsicht.audit.explanation.executor import partition, run_units

    def slow(unit):
        os.write(1, f"{os.getpid()}\\n".encode())  # at once: two workers write
        if sys.argv[1] == "main":
            sum(range(10**10))  # holds Python's lock, as a long call of a library may
        time.sleep(3600)

    def begin():
        run_units(slow, partition(4, 1), workers=2, on_done=print)

    if sys.argv[1] == "main":
        begin()
    else:
        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
"""


def running(pid):
    """Whether a process exists; one that ended and that nobody waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("thread", ["main", "other"])
def test_workers_end_with_a_parent_that_is_killed_alone(tmp_path, how, thread):
    told = tmp_path / "told"
    command = [sys.executable, "-c", textwrap.dedent(ORPHANS), thread]
    with told.open("w") as out, subprocess.Popen(command, stdout=out, start_new_session=True) as run:
        while len(pids := told.read_text().split()) < 2:
            assert run.poll() is None
            time.sleep(0.05)
        assert all(map(running, pids))
        run.send_signal(how)
        run.wait()
        began = time.monotonic()
        while (left := [pid for pid in pids if running(pid)]) and time.monotonic() - began < 300:
            time.sleep(0.05)
        for pid in left:
            os.kill(int(pid), signal.SIGKILL)
        assert left == []


EPHEMERAL = """
    import threading
    from klarsicht.audit.explanation.executor import partition, run_units

    def begin():
        run_units(abs_of_start, partition(4, 1), workers=2, on_done=lambda unit, result: done.append(result))

    def abs_of_start(unit):
        return abs(unit.start)

    done = []
    for _ in range(2):
        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
    begin()
    begin()
    print(sorted(done))
"""


@pytest.mark.slow
def test_workers_survive_the_thread_that_made_them():
    """The kernel tells the end of a thread like that of its process: the next run must find no dead workers."""
    told = subprocess.run([sys.executable, "-c", textwrap.dedent(EPHEMERAL)], capture_output=True, text=True)
    assert told.stdout.strip() == str(sorted([0, 1, 2, 3] * 4)), told.stderr


# Ctrl-C

SLOW = """
    import signal, sys, time
    from klarsicht.audit.explanation.executor import partition, run_units
    from klarsicht.ground.run_folder.store import RunStore

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may have it ignored

    def slow(unit):
        time.sleep(0.05 if unit.start < 6 else 3600)
        return unit.start

    def keep(unit, result):
        store.mark_done("slow", unit.start, result=result)
        print(unit.start, flush=True)

    store = RunStore.create(sys.argv[1], settings={}, identity={})
    with store.lock():
        run_units(slow, partition(20, 1), workers=int(sys.argv[2]), on_done=keep)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupt_is_prompt_keeps_finished_units_and_frees_the_lock(tmp_path, workers):
    from klarsicht.ground.run_folder.store import RunStore

    command = [sys.executable, "-c", textwrap.dedent(SLOW), str(tmp_path / "run"), str(workers)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(command, **pipes) as run:
        told = [int(run.stdout.readline()) for _ in range(5)]
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the workers too
        _, err = run.communicate(timeout=600)  # a unit takes an hour; unloaded this is 0.1 s
    assert "KeyboardInterrupt" in err
    assert run.returncode not in (0, None)
    store = RunStore.open(tmp_path / "run")
    assert set(told) <= set(store.finished_units("slow"))
    with store.lock():
        assert all(fact == {"result": unit} for unit, fact in store.finished_units("slow").items())
