"""The run folder. Oracles: SIGKILL at random moments, an undisturbed run, zarr and pyarrow themselves."""

import errno
import json
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zarr
from pyarrow import parquet

from klarsicht.ground import disk, manifest
from klarsicht.ground.errors import DiskFull, InputError, RunDamaged, RunLocked, RunMismatch, StoreError
from klarsicht.ground.shards import Shard
from klarsicht.ground.store import RunStore

SETTINGS = {"top": 3, "metric": {"name": "sliced", "scales": (1, 2)}}
IDENTITY = {"corpus": "c0", "model": "m0"}


@pytest.fixture
def store(tmp_path):
    return RunStore.create(tmp_path / "run", settings=SETTINGS, identity=IDENTITY, partition=4, threads=1)


# Founding and opening


def test_manifest_says_what_made_the_run(store):
    told = json.loads((store.path / "manifest.json").read_text())
    assert told == store.manifest
    assert told["settings"] == {"top": 3, "metric": {"name": "sliced", "scales": [1, 2]}}
    assert told["identity"] == IDENTITY
    assert (told["partition"], told["threads"], told["libraries"]["zarr"]) == (4, 1, zarr.__version__)


def test_the_same_run_resumes_and_keeps_its_facts(store):
    store.update_manifest(classes=10)
    again = RunStore.create(store.path, settings=SETTINGS, identity=IDENTITY, partition=4, threads=1)
    assert again == store
    assert again.manifest["classes"] == 10


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"settings": SETTINGS | {"top": 4}}, "settings.top"),
        ({"identity": IDENTITY | {"model": "m1"}}, "identity.model"),
        ({"threads": 2}, "threads"),
    ],
)
def test_another_run_in_the_same_folder_is_refused(store, changed, key):
    before = store.manifest
    asked = {"settings": SETTINGS, "identity": IDENTITY, "partition": 4, "threads": 1} | changed
    with pytest.raises(RunMismatch, match=f"another {key};"):
        RunStore.create(store.path, **asked)
    assert store.manifest == before


def test_foreign_folder_is_refused_and_untouched(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"not empty.*thesis\.tex"):
        RunStore.create(tmp_path, settings={}, identity={})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


KILLED_AT_A_CALL = """
import os, sys
from klarsicht.ground.store import RunStore

calls, wanted = 0, int(sys.argv[2])

def killed_there(call):
    def counting(*args, **named):
        global calls
        calls += 1
        return os._exit(9) if calls == wanted else call(*args, **named)
    return counting

for name in ("mkdir", "open", "replace", "fsync", "write"):
    setattr(os, name, killed_there(getattr(os, name)))
RunStore.create(sys.argv[1], settings={}, identity={})
"""


def test_creation_that_was_killed_at_any_call_of_the_system_can_be_repeated(tmp_path):
    for call in range(1, 100):
        run = tmp_path / f"run{call}"
        ended = subprocess.run([sys.executable, "-c", KILLED_AT_A_CALL, run, str(call)]).returncode
        assert RunStore.create(run, settings={}, identity={}).manifest["settings"] == {}
        if ended == 0:
            break
    assert ended == 0
    assert call > 5  # of the system's calls some are in C and not counted


def test_folder_that_holds_a_checksum_and_more_is_refused(tmp_path):
    (tmp_path / "checksums").mkdir()
    (tmp_path / "checksums" / "thesis.json").write_text("{}")
    with pytest.raises(StoreError, match=r"not empty.*thesis\.json"):
        RunStore.create(tmp_path, settings={}, identity={})


def test_open_wants_a_run(tmp_path, store):
    assert RunStore.open(store.path).manifest == store.manifest
    with pytest.raises(InputError, match="no run"):
        RunStore.open(tmp_path)
    (store.path / "manifest.json").write_text("{torn")
    with pytest.raises(RunDamaged, match=r"manifest\.json: 5 bytes"):
        RunStore.open(store.path)


def test_open_migrates_in_memory_and_a_writer_saves_it(store, monkeypatch):
    now = manifest.STORE_VERSION
    monkeypatch.setattr(manifest, "STORE_VERSION", now + 1)
    monkeypatch.setitem(manifest.MIGRATIONS, now, lambda old: old | {"units": old["partition"]})
    assert RunStore.open(store.path).manifest["units"] == 4
    assert json.loads((store.path / "manifest.json").read_text())["store"] == now
    store.update_manifest(seen=True)
    assert json.loads((store.path / "manifest.json").read_text())["store"] == now + 1


def test_a_manifest_whose_writing_was_killed_admits_itself_alone_after_the_same_call(store, monkeypatch):
    admit, calls = RunStore._admit, []

    def killed(self, name, *checksums):
        calls.append(name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        admit(self, name, *checksums)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunStore, "_admit", killed)
        store.update_manifest(seen=True)
    assert store.manifest["seen"] is True
    store.update_manifest(seen=True)
    content = (store.path / "manifest.json").read_bytes()
    recorded = json.loads((store.path / "checksums" / "manifest.json.json").read_bytes())
    assert recorded == [{"size": len(content), "crc32": zlib.crc32(content)}]


def test_drift_names_the_libraries_that_changed(store):
    assert store.changed_libraries() == {}
    store.update_manifest(libraries=store.manifest["libraries"] | {"numpy": "0.1"})
    assert store.changed_libraries() == {"numpy": ("0.1", np.__version__)}


def test_lock_refuses_a_second_process(store):
    code = (
        "import sys; from klarsicht.ground.store import RunStore\n"
        "from klarsicht.ground.errors import RunLocked\n"
        "try:\n with RunStore.open(sys.argv[1]).lock(): print('got it')\n"
        "except RunLocked as error: print(error)"
    )
    ask = [sys.executable, "-c", code, str(store.path)]
    with store.lock():
        assert f"process {os.getpid()}" in subprocess.run(ask, capture_output=True, text=True).stdout
    assert subprocess.run(ask, capture_output=True, text=True).stdout == "got it\n"


def test_lock_of_a_run_that_is_being_founded(tmp_path):
    with RunStore(tmp_path).lock(), pytest.raises(RunLocked):
        RunStore.create(tmp_path, settings={}, identity={})


# Arrays


@pytest.mark.parametrize("rows", [0, 3, 4, 10])
@pytest.mark.parametrize("rest", [(), (2,), (3, 5)])
@pytest.mark.parametrize("dtype", ["float16", "int64", "bool"])
def test_rows_come_back(store, rows, rest, dtype):
    values = np.random.default_rng(0).normal(size=(rows, *rest)).astype(dtype)
    store.create_array("a", values.shape, dtype, 4)
    for start in range(0, rows, 4):
        store.write_rows("a", start, values[start : start + 4])
    read = zarr.open_array(store.path / "arrays.zarr" / "a", mode="r")
    np.testing.assert_array_equal(read[:], values)
    assert read.dtype == dtype
    assert len([p for p in (store.path / "arrays.zarr" / "a").iterdir() if p.name != "zarr.json"]) <= -(-rows // 4)


@pytest.mark.parametrize(
    "rows",
    [[9, 0, 5, 5, -1], np.array([], int), np.arange(10) % 3 == 1, 6, slice(2, 9, 3), slice(None)],
    ids=["numbers", "none", "mask", "one", "steps", "all"],
)
@pytest.mark.parametrize("axes", [(), (slice(1, 3),), (1,), (slice(None), np.array([4, 0]))], ids=len)
def test_rows_in_any_order_are_those_of_numpy(store, rows, axes):
    """Oracle: NumPy's indexing of the same array, axis by axis."""
    values = np.random.default_rng(0).normal(size=(10, 3, 5)).astype(np.float32)
    store.create_array("a", values.shape, "float32", 4)
    for start in range(0, 10, 4):
        store.write_rows("a", start, values[start : start + 4])
    wanted = values[rows if isinstance(rows, slice | int) else np.arange(10)[rows]]
    for axis, chosen in enumerate(axes):
        at = axis + wanted.ndim - values.ndim + 1
        wanted = wanted[(slice(None),) * at + (chosen,)]
    np.testing.assert_array_equal(store.array("a")[(rows, *axes)], wanted)


def test_missing_rows_read_as_zero(store):
    store.create_array("a", (8, 2), "float32", 4)
    store.write_rows("a", 4, np.ones((4, 2)))
    np.testing.assert_array_equal(store.array("a")[:], np.repeat([[0.0, 0.0], [1.0, 1.0]], 4, axis=0))


def test_rewriting_a_unit_with_zeros_leaves_zeros(store):
    store.create_array("a", (4,), "float32", 4)
    store.write_rows("a", 0, np.ones(4))
    store.write_rows("a", 0, np.zeros(4))
    np.testing.assert_array_equal(store.array("a")[:], 0)


def test_a_torn_shard_is_overwritten(store):
    store.create_array("a", (6, 2), "float32", 4)
    for start in (0, 4):
        store.write_rows("a", start, np.ones((min(4, 6 - start), 2)))
    for shard in (store.path / "arrays.zarr" / "a").glob("c.*"):
        shard.write_bytes(b"torn")
    for start in (0, 4):
        store.write_rows("a", start, np.full((min(4, 6 - start), 2), 3.0))
    np.testing.assert_array_equal(store.array("a")[:], 3)


def test_one_row_is_read_without_its_whole_unit(store):
    store.create_array("a", (256, 64, 64), "float32", 256)
    array = store.array("a")
    assert array.zarr.shards == (256, 64, 64)
    assert np.prod(array.zarr.chunks) * 4 <= 256 * 1024


def test_create_array_is_idempotent_and_refuses_another_layout(store):
    store.create_array("a", (8, 2), "float32", 4)
    store.write_rows("a", 0, np.ones((4, 2)))
    store.create_array("a", (8, 2), np.float32, 4)
    assert store.array("a")[0, 0] == 1
    for shape, dtype, unit in [((9, 2), "float32", 4), ((8, 2), "float16", 4), ((8, 2), "float32", 8)]:
        with pytest.raises(RunMismatch, match="another array 'a'"):
            store.create_array("a", shape, dtype, unit)


def test_create_array_after_a_kill_inside_it(store):
    (store.path / "arrays.zarr" / "a").mkdir(parents=True)
    store.create_array("a", (8,), "int32", 4)
    assert store.array("a").shape == (8,)


@pytest.mark.parametrize(("start", "rows"), [(1, 4), (0, 3), (4, 8), (8, 4)])
def test_only_whole_units_are_written(store, start, rows):
    store.create_array("a", (10,), "float32", 4)
    with pytest.raises(ValueError, match="whole units"):
        store.write_rows("a", start, np.ones(rows))


def test_several_units_at_once(store):
    store.create_array("a", (10,), "int16", 4)
    store.write_rows("a", 4, np.arange(6))
    np.testing.assert_array_equal(store.array("a")[:], [0] * 4 + list(range(6)))


def test_array_is_read_only(store):
    store.create_array("a", (4,), "float32", 4)
    with pytest.raises(TypeError, match="assignment"):
        store.array("a")[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        store.array("a").zarr[0] = 1


# Tables, markers, files


def test_parts_are_joined_in_the_order_of_units(store):
    for unit in (100_001, 2, 0):
        store.write_part("scores", unit, {"unit": np.array([unit, unit]), "key": ["a", "b"]})
    joined = store.table("scores")
    assert joined.column("unit").to_pylist() == [0, 0, 2, 2, 100_001, 100_001]
    assert parquet.read_table(store.path / "tables/scores/00002.parquet").column("key").to_pylist() == [
        "a",
        "b",
    ]


def test_a_step_takes_only_the_parts_it_marked(store):
    for unit in (0, 1):
        written = store.write_part("scores", unit, {"unit": [unit]})
    with pytest.raises(StoreError, match="no table"):
        store.table("scores", step="score")
    store.mark_done("score", 1, written)
    assert store.table("scores", step="score").column("unit").to_pylist() == [1]


def test_whole_table_stands_in_front_of_its_parts(store):
    assert not store.has_table("t")
    store.write_part("t", 0, {"a": [0]})
    assert store.has_table("t")
    store.write_table("t", pa.table({"a": [7]}, metadata={"root": "x"}))
    assert store.table("t", step="never run").column("a").to_pylist() == [7]
    assert store.table("t").schema.metadata[b"root"] == b"x"


def test_folders_named_like_partitions_add_no_columns(tmp_path):
    store = RunStore.create(tmp_path / "lr=3", settings={}, identity={})
    store.write_table("t", {"a": [1]})
    assert store.table("t").column_names == ["a"]


def test_markers(store):
    assert store.finished_units("relevance") == {}
    store.mark_done("relevance", 12, loss=np.float32(0.5))
    store.mark_done("relevance", 3, rows=[0, 4])
    assert store.is_done("relevance", 3)
    assert not store.is_done("relevance", 4)
    assert list(store.finished_units("relevance").items()) == [(3, {"rows": [0, 4]}), (12, {"loss": 0.5})]
    store.clear_markers("relevance")
    store.clear_markers("never_begun")
    assert store.finished_units("relevance") == {}


def test_files_inside_the_run(store):
    store.write_bytes("pictures/000.png", b"\x89PNG")
    store.write_json("ranking.json", [1, {"a": None}])
    assert (store.path / "pictures" / "000.png").read_bytes() == b"\x89PNG"
    assert store.read_json("ranking.json") == [1, {"a": None}]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a//b", ".hidden", "a\nb", "a/"])
def test_no_name_leads_out_of_the_run(store, name):
    for use in (
        lambda: store.write_bytes(name, b""),
        lambda: store.read_json(name),
        lambda: store.array(name),
        lambda: store.table(name),
        lambda: store.mark_done(name, 0),
    ):
        with pytest.raises(StoreError, match="not a name inside a run"):
            use()


def test_what_is_not_there_is_named(store):
    for read, kind in [(store.array, "array"), (store.table, "table"), (store.read_json, "file")]:
        with pytest.raises(StoreError, match=f"no {kind} 'nothing'"):
            read("nothing")
    assert not store.has_array("nothing")


def test_travels_to_worker_processes(store):
    assert pickle.loads(pickle.dumps(store)).manifest == store.manifest


# Full disk and sudden death


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_full_disk_leaves_no_marker(store, monkeypatch, call):
    store.create_array("a", (8,), "float32", 4)
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(DiskFull, match="resume"):
            store.write_rows("a", 0, np.ones(4))
        with pytest.raises(DiskFull):
            store.write_part("t", 0, {"a": [1]})
        with pytest.raises(DiskFull):
            store.mark_done("step", 0)
        with pytest.raises(DiskFull):
            store.create_array("b", (8,), "float32", 4)
    assert store.finished_units("step") == {}
    store.write_rows("a", 0, np.ones(4))
    assert store.array("a")[:4].tolist() == [1] * 4


def test_zarr_meeting_a_real_size_limit_is_disk_full(store):
    import resource

    noise = np.random.default_rng(0).normal(size=(4, 4096))
    store.create_array("a", (8, 4096), "float64", 4)
    store.write_rows("a", 0, noise)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(DiskFull):
            store.write_rows("a", 4, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(store.array("a")[:4], noise)


# One process forks a worker that writes units in a loop, kills it, and looks at what is left; many times.
KILLS = """
import os, random, signal, sys, time
import numpy as np, pyarrow, pyarrow.parquet, zarr
from klarsicht.ground.store import RunStore

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


def test_a_run_that_is_shared_is_refused_to_one_alone_and_the_last_one_tidies_up(tmp_path):
    store = RunStore.create(tmp_path / "run", settings={}, identity={})
    first, second = Shard(0, 2), Shard(1, 2)
    (store.path / ".left.json.1.tmp").touch()
    with store.share(first) as one:
        assert not (store.path / ".left.json.1.tmp").exists()
        with store.share(second) as other:
            assert (one.take("unit"), other.take("unit")) == (True, False)
            one.release("unit")
            assert other.take("unit")
            with pytest.raises(RunLocked, match=f"process {os.getpid()}"), store.lock():
                pass
        assert one.take("unit")
        assert (store.path / "claims" / "unit").exists()
    assert not (store.path / "claims").exists()
    with store.lock(), monkeypatched_join(0.3), pytest.raises(RunLocked), store.share(first):
        pass


@contextmanager
def monkeypatched_join(seconds):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "JOIN_SECONDS", seconds)
        yield


def test_a_manifest_that_another_process_replaces_is_read_whole(tmp_path):
    """Every read of some hundred replacements gives one of the contents that were written, in their order."""
    store = RunStore.create(tmp_path / "run", settings={}, identity={})
    ended, seen = threading.Event(), []

    def write():
        for turn in range(150):
            store.update_manifest(turn=turn, size="x" * (turn % 7))
        ended.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not ended.is_set():
        facts = store.manifest
        seen.append((facts.get("turn", -1), len(facts.get("size", ""))))
    thread.join()
    assert [turn for turn, _ in seen] == sorted(turn for turn, _ in seen)
    assert all(size == max(turn, 0) % 7 for turn, size in seen)
    assert len({turn for turn, _ in seen}) > 10


def test_a_shard_of_an_array_that_vanishes_as_it_is_written_is_no_shard_of_zeros(tmp_path, monkeypatch):
    store = RunStore.create(tmp_path / "run", settings={}, identity={})
    store.create_array("a", (8, 2), np.float32, 4, "step")
    assert store.write_rows("a", 0, np.zeros((4, 2))) == {"arrays.zarr/a/c.0.0": None}
    there = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "c.1.0" and there(path))
    with pytest.raises(StoreError, match="another process removed"):
        store.write_rows("a", 4, np.ones((4, 2)))
