"""A run folder after a full disk and sudden death. Oracles: SIGKILL at random moments, an undisturbed run."""

import errno
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from klarsicht.ground.errors import DiskFull


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_no_marker(store, monkeypatch, call):
    store.create_array("a", (8,), "float32", 4, "step")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(DiskFull, match="resume"):
            store.write_rows("a", 0, np.ones(4))
        with pytest.raises(DiskFull):
            store.write_part("t", 0, {"a": [1]})
        with pytest.raises(DiskFull):
            store.mark_done("step", 0)
        with pytest.raises(DiskFull):
            store.create_array("b", (8,), "float32", 4, "step")
    assert store.finished_units("step") == {}
    store.mark_done("step", 0, store.write_rows("a", 0, np.ones(4)))
    assert store.array("a")[:4].tolist() == [1] * 4


# One process forks a worker that writes units in a loop, kills it, and looks at what is left; many times.
KILLS = """
import os, random, signal, sys, time
import numpy as np, pyarrow, pyarrow.parquet, zarr
from klarsicht.ground.run_folder.store import RunStore

UNITS, ROWS, N = 25, 4, 98
def values(unit):
    return np.random.default_rng(unit).normal(size=(min(ROWS, N - unit * ROWS), 8, 8)).astype("float16")

def work(path):
    store = RunStore.create(path, settings={}, identity={"corpus": "c"}, partition=ROWS)
    with store.lock():
        store.create_array("maps", (N, 8, 8), "float16", ROWS, "relevance")
        for unit in range(UNITS):
            if not store.is_done("relevance", unit):
                written = store.write_rows("maps", unit * ROWS, values(unit))
                written |= store.write_part("scores", unit, {"unit": [unit], "total": [float(values(unit).sum())]})
                store.mark_done("relevance", unit, written, rows=len(values(unit)))

def in_child(task, *args, then=lambda pid: None):
    pid = os.fork()
    if pid == 0:
        task(*args)
        os._exit(0)
    then(pid)
    return os.waitpid(pid, 0)[1]

def check(path):
    store = RunStore.open(path)
    done = store.finished_units("relevance")
    for unit in done:
        start = unit * ROWS
        assert np.array_equal(store.array("maps")[start:start + ROWS], values(unit)), unit
    if done:
        assert store.table("scores", step="relevance").column("unit").to_pylist() == list(done)
    print(len(done), flush=True)

def kill(pid):
    time.sleep(random.uniform(0, whole / 4))
    os.kill(pid, signal.SIGKILL)

random.seed(int(sys.argv[3]))
began = time.monotonic()
assert in_child(work, sys.argv[2]) == 0
whole = time.monotonic() - began  # of an undisturbed run on this machine, as busy as it is
kills = 0
while kills < 20 and in_child(work, sys.argv[1], then=kill) != 0:
    kills += 1
    if os.path.exists(sys.argv[1] + "/manifest.json"):
        assert in_child(check, sys.argv[1]) == 0
assert in_child(work, sys.argv[1]) == 0
print("kills", kills)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, *(pytest.param(s, marks=pytest.mark.nightly) for s in range(2, 30))])
def test_killed_again_and_again_equals_undisturbed(tmp_path, seed):
    killed, calm = tmp_path / "killed", tmp_path / "calm"
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLS), killed, calm, str(seed)],
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    *counts, (_, kills) = [line.split() for line in ran.stdout.splitlines()]
    assert int(kills) >= 2
    assert [int(*count) for count in counts] == sorted(int(*count) for count in counts)

    def contents(run):
        return {p.relative_to(run): p.read_bytes() for p in run.rglob("*") if p.is_file()}

    left, right = contents(killed), contents(calm)
    assert left.keys() == right.keys()
    assert {p.name for p in left if left[p] != right[p]} <= {"lock", "manifest.json", "manifest.json.json"}
