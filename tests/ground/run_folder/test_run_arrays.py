"""Arrays of a run folder. Oracles: NumPy's indexing, zarr itself, a size limit of the system."""

from pathlib import Path

import numpy as np
import pytest
import zarr

from klarsicht.ground.errors import DiskFull, RunMismatch, StoreError
from klarsicht.ground.run_folder.store import RunStore

STEP, UNIT = "relevance", 4


def write(store, start, values):
    """Write whole units, and their markers."""
    written = store.write_rows("a", start, values)
    for unit in range(start // UNIT, -(-(start + len(values)) // UNIT)):
        store.mark_done(STEP, unit, written)


@pytest.mark.parametrize("rows", [0, 3, 4, 10])
@pytest.mark.parametrize("rest", [(), (2,), (3, 5)])
@pytest.mark.parametrize("dtype", ["float16", "int64", "bool"])
def test_rows_come_back(store, rows, rest, dtype):
    values = np.random.default_rng(0).normal(size=(rows, *rest)).astype(dtype)
    store.create_array("a", values.shape, dtype, 4, STEP)
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
    store.create_array("a", values.shape, "float32", 4, STEP)
    for start in range(0, 10, 4):
        write(store, start, values[start : start + 4])
    wanted = values[rows if isinstance(rows, slice | int) else np.arange(10)[rows]]
    for axis, chosen in enumerate(axes):
        at = axis + wanted.ndim - values.ndim + 1
        wanted = wanted[(slice(None),) * at + (chosen,)]
    np.testing.assert_array_equal(store.array("a")[(rows, *axes)], wanted)


def test_rewriting_a_unit_with_zeros_leaves_zeros(store):
    store.create_array("a", (4,), "float32", 4, STEP)
    write(store, 0, np.ones(4))
    write(store, 0, np.zeros(4))
    np.testing.assert_array_equal(store.array("a")[:], 0)


def test_a_torn_shard_is_overwritten(store):
    store.create_array("a", (6, 2), "float32", 4, STEP)
    for start in (0, 4):
        write(store, start, np.ones((min(4, 6 - start), 2)))
    for shard in (store.path / "arrays.zarr" / "a").glob("c.*"):
        shard.write_bytes(b"torn")
    for start in (0, 4):
        write(store, start, np.full((min(4, 6 - start), 2), 3.0))
    np.testing.assert_array_equal(store.array("a")[:], 3)


def test_one_row_is_read_without_its_whole_unit(store):
    store.create_array("a", (256, 64, 64), "float32", 256, STEP)
    array = store.array("a")
    assert array.zarr.shards == (256, 64, 64)
    assert np.prod(array.zarr.chunks) * 4 <= 256 * 1024


def test_create_array_is_idempotent_and_refuses_another_layout(store):
    store.create_array("a", (8, 2), "float32", 4, STEP)
    write(store, 0, np.ones((4, 2)))
    store.create_array("a", (8, 2), np.float32, 4, STEP)
    assert store.array("a")[0, 0] == 1
    for shape, dtype, unit in [((9, 2), "float32", 4), ((8, 2), "float16", 4), ((8, 2), "float32", 8)]:
        with pytest.raises(RunMismatch, match="another array 'a'"):
            store.create_array("a", shape, dtype, unit, STEP)


def test_create_array_after_a_kill_inside_it(store):
    (store.path / "arrays.zarr" / "a").mkdir(parents=True)
    store.create_array("a", (8,), "int32", 4, STEP)
    assert store.array("a").shape == (8,)


@pytest.mark.parametrize(("start", "rows"), [(1, 4), (0, 3), (4, 8), (8, 4)])
def test_only_whole_units_are_written(store, start, rows):
    store.create_array("a", (10,), "float32", 4, STEP)
    with pytest.raises(ValueError, match="whole units"):
        store.write_rows("a", start, np.ones(rows))


def test_several_units_at_once(store):
    store.create_array("a", (10,), "int16", 4, STEP)
    write(store, 4, np.arange(6))
    np.testing.assert_array_equal(store.array("a")[4:], range(6))
    with pytest.raises(StoreError, match="unit 0 of step relevance"):
        store.array("a")[3]


def test_array_is_read_only(store):
    store.create_array("a", (4,), "float32", 4, STEP)
    with pytest.raises(TypeError, match="assignment"):
        store.array("a")[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        store.array("a").zarr[0] = 1


def test_zarr_meeting_a_real_size_limit_is_disk_full(store):
    import resource

    noise = np.random.default_rng(0).normal(size=(4, 4096))
    store.create_array("a", (8, 4096), "float64", 4, STEP)
    write(store, 0, noise)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(DiskFull):
            store.write_rows("a", 4, noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    np.testing.assert_array_equal(store.array("a")[:4], noise)


def test_a_shard_of_an_array_that_vanishes_as_it_is_written_is_no_shard_of_zeros(tmp_path, monkeypatch):
    store = RunStore.create(tmp_path / "run", settings={}, identity={})
    store.create_array("a", (8, 2), np.float32, 4, STEP)
    assert store.write_rows("a", 0, np.zeros((4, 2))) == {"arrays.zarr/a/c.0.0": None}
    there = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "c.1.0" and there(path))
    with pytest.raises(StoreError, match="another process removed"):
        store.write_rows("a", 4, np.ones((4, 2)))
