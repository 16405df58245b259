"""A store for workers that do not see the run. Oracle: the run itself, by `RunStore`."""

import numpy as np
import pyarrow as pa
import pytest

from klarsicht.ground.run_folder.remote_store import Read, ReadMissing, RemoteStore, keep_files, list_forms
from klarsicht.ground.run_folder.store import RunStore

ROWS = np.arange(24, dtype=np.float32).reshape(8, 3)


@pytest.fixture
def run(tmp_path):
    """A run with an array of two units of four rows, of which the first is done, and a table."""
    store = RunStore.create(tmp_path / "run", settings={}, identity={})
    store.create_array("values", ROWS.shape, ROWS.dtype, 4, "made")
    store.mark_done("made", 0, store.write_rows("values", 0, ROWS[:4]))
    store.write_table("names", {"name": ["a", "b"]})
    return store


def answered(run, remote, work):
    """What the work returns once every read it asked for is answered, and how many it asked for."""
    answers = {}
    while True:
        with remote.with_answers(answers):
            try:
                return work(remote), remote.take_files(), len(answers)
            except ReadMissing as missing:
                assert missing.read.key not in answers
                answers[missing.read.key] = missing.read.answer(run)


READS = {
    "rows by numbers": lambda store: store.array("values")[np.array([3, 1])].tolist(),
    "rows of a slice": lambda store: store.array("values")[:2].tolist(),
    "form": lambda store: (store.array("values").shape, store.array("values").dtype, len(store.array("values"))),
    "table": lambda store: store.table("names", columns=["name"]).to_pylist(),
    "manifest": lambda store: store.manifest["steps"],
    "what is there": lambda store: (store.has_array("values"), store.has_array("other"), store.is_done("made", 1)),
}


@pytest.mark.parametrize("name", READS)
def test_a_worker_reads_what_the_run_holds(run, tmp_path, name):
    read, files, _ = answered(run, RemoteStore(tmp_path / "worker"), READS[name])
    assert (read, files) == (READS[name](run), {})


@pytest.mark.parametrize("rows", [np.array([6, 1, 1]), np.array([], np.intp), slice(5, 7), 6, -2])
def test_any_of_the_rows_that_came_are_read(run, tmp_path, rows):
    """Oracle: numpy."""
    reads = [*list_forms(run), Read.of_rows("values", [0]), Read.of_rows("values", [6, 1, 5])]
    run.mark_done("made", 1, run.write_rows("values", 4, ROWS[4:]))
    remote = RemoteStore(tmp_path / "worker", {read.key: read.answer(run) for read in reads})
    np.testing.assert_array_equal(remote.array("values")[rows], ROWS[rows])
    with pytest.raises(ReadMissing) as missing:
        remote.array("values")[np.array([6, 3])]
    np.testing.assert_array_equal(missing.value.read.answer(run).values, ROWS[[3, 6]])


def test_forms_tell_which_arrays_are_there_and_not(run, tmp_path):
    remote = RemoteStore(tmp_path / "worker", {read.key: read.answer(run) for read in list_forms(run)})
    assert remote.has_array("values")
    assert remote.is_created("values")
    assert not remote.has_array("other")
    assert not remote.is_created("other")
    assert remote.array("values").shape == ROWS.shape
    assert remote.write_rows("values", 4, ROWS[4:]) == run.write_rows("values", 4, ROWS[4:])


def write(store):
    return (
        store.write_rows("values", 4, ROWS[4:])
        | store.write_part("parts", 1, pa.table({"row": [1, 2]}))
        | store.write_unit_file("pictures/x.jpg", b"pixels")
    )


def test_what_a_worker_writes_is_to_the_byte_what_the_run_would_have_written(run, tmp_path):
    written, files, _ = answered(run, RemoteStore(tmp_path / "worker"), write)
    assert not [path for path in (tmp_path / "worker").rglob("*") if path.is_file() and path.name != "zarr.json"]
    keep_files(run, files)
    run.mark_done("made", 1, written)
    here = {name: run.inside(name).read_bytes() for name in written}
    assert write(run) == written
    assert {name: run.inside(name).read_bytes() for name in written} == here
    np.testing.assert_array_equal(run.array("values")[:], ROWS)


def test_a_shard_of_zeros_is_no_file_here_either(run, tmp_path):
    run.write_rows("values", 4, ROWS[4:])  # of a unit that is done again
    zeros = np.zeros((4, 3), np.float32)
    written, files, _ = answered(
        run, RemoteStore(tmp_path / "worker"), lambda store: store.write_rows("values", 4, zeros)
    )
    assert list(files.values()) == [None]
    keep_files(run, files)
    assert not run.inside(next(iter(files))).exists()
    assert written == run.write_rows("values", 4, zeros)


def test_answers_for_one_unit_are_gone_after_it(run, tmp_path):
    remote, read = RemoteStore(tmp_path / "worker"), Read("has_file", ("report.html",))
    with remote.with_answers({read.key: True}):
        assert remote.has_file("report.html")
    with pytest.raises(ReadMissing):
        remote.has_file("report.html")


def test_no_handler_of_errors_stops_a_missing_answer(tmp_path):
    remote = RemoteStore(tmp_path / "worker")
    with pytest.raises(ReadMissing):
        try:
            remote.table("names")
        except Exception:
            pytest.fail("the work went on without the answer")
