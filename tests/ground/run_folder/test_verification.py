"""Damage to a run. Oracles: the bytes that were written, and what was done to them."""

import json
import os
import shutil

import numpy as np
import pytest
from tests.vouched_files import vouched

from klarsicht.ground.errors import InputError, RunDamaged, StoreError
from klarsicht.ground.run_folder.checksums import Checksum
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.verification import forget_damaged, verify

ROWS, UNITS = 4, 3
VALUES = np.random.default_rng(0).normal(size=(ROWS * UNITS, 5)).astype("float32")
SHARD, PART = "arrays.zarr/head/c.1.0", "tables/images/00001.parquet"


def write_unit(store, unit):
    rows = slice(unit * ROWS, (unit + 1) * ROWS)
    written = store.write_rows("head", rows.start, VALUES[rows])
    store.mark_done("attribution", unit, written | store.write_part("images", unit, {"row": [unit]}))


@pytest.fixture
def store(tmp_path):
    store = RunStore.create(tmp_path / "run", settings={}, identity={})
    store.create_array("head", VALUES.shape, "float32", ROWS, "attribution")
    for unit in range(UNITS):
        write_unit(store, unit)
    store.finish_step("attribution", UNITS)
    store.mark_done("views", 0, store.write_unit_file("pictures/1.jpg", b"picture"))
    store.finish_step("views", 1)
    store.write_json("ranking.json", [{"z": 1.5}])
    store.write_table("corpus", {"path": ["a", "b"]})
    return store


def read_all(store):
    return [
        store.array("head")[:],
        store.table("images", "attribution"),
        store.table("corpus"),
        store.read_json("ranking.json"),
        store.read_unit_file("pictures/1.jpg", "views"),
    ]


def flip(file, position=0.5):
    content = bytearray(file.read_bytes())
    content[int(len(content) * position)] ^= 1
    file.write_bytes(content)


def as_folder(file):
    file.unlink()
    file.mkdir()


DAMAGES = {
    "gone": lambda file: file.unlink(),
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "longer": lambda file: file.write_bytes(file.read_bytes() + b"\0"),
    "one bit": flip,
    "first bit": lambda file: flip(file, 0),
    "folder": as_folder,
}
FILES = [
    SHARD, PART, "arrays.zarr/head/zarr.json", "tables/corpus.parquet", "ranking.json", "pictures/1.jpg",
    "done/attribution/00001.json", "done/views/00000.json",
]  # fmt: skip


def test_what_was_written_is_intact_and_read(store):
    found = verify(store)
    assert (found.damaged, found.unverified) == ((), ())
    on_disk = {str(p.relative_to(store.path)) for p in store.path.rglob("*") if p.is_file()}
    kept = {name for name in on_disk if not name.startswith(("done/", "checksums/")) and name not in ("lock",)}
    assert found.files == len(kept)
    np.testing.assert_array_equal(read_all(store)[0], VALUES)
    assert forget_damaged(store) == ()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_damage_is_named_before_anything_is_read(store, file, damage):
    DAMAGES[damage](store.path / file)
    with pytest.raises(RunDamaged) as caught:
        read_all(store)
    if not (
        file.startswith("done/") and damage in ("one bit", "longer")
    ):  # then another file may differ from its marker
        assert file in str(caught.value)
    assert caught.value.exit_code == 10
    assert any(file in (one.name, one.keeper) for one in verify(store).damaged)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_manifest_stops_everything(store, damage):
    DAMAGES[damage](store.path / "manifest.json")
    for use in (lambda: RunStore.open(store.path), lambda: verify(store), lambda: forget_damaged(store)):
        with pytest.raises(RunDamaged, match=r"manifest\.json: .*Restore it from a copy"):
            use()


@pytest.mark.parametrize("file", [name for name in FILES if "zarr.json" not in name])
@pytest.mark.parametrize("damage", ["gone", "empty", "one bit"])
def test_what_is_damaged_counts_as_never_written(store, file, damage):
    """And once it is written again, the run is as it was."""
    before = read_all(store)
    DAMAGES[damage](store.path / file)
    forgotten = forget_damaged(store)
    assert forgotten
    undone = [unit for unit in range(UNITS) if not store.is_done("attribution", unit)]
    assert undone == ([1] if "attribution" in file or file in (SHARD, PART) else [])
    if undone:
        with pytest.raises(StoreError, match=r"not finished.*unit 1 of step attribution"):
            store.array("head")[ROWS]
        np.testing.assert_array_equal(store.array("head")[0], VALUES[0])
        write_unit(store, 1)
    store.mark_done("views", 0, store.write_unit_file("pictures/1.jpg", b"picture"))
    store.write_json("ranking.json", [{"z": 1.5}])
    store.write_table("corpus", {"path": ["a", "b"]})
    for left, right in zip(before, read_all(store), strict=True):
        assert np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right
    assert verify(store).damaged == ()


@pytest.mark.parametrize("file", ["arrays.zarr/head/zarr.json", "arrays.zarr/zarr.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "one bit"])
def test_metadata_of_an_array_is_written_again_and_its_shards_are_kept(store, file, damage):
    DAMAGES[damage](store.path / file)
    assert [one.name for one in forget_damaged(store)] == [file]
    assert not store.has_array("head")
    store.create_array("head", VALUES.shape, "float32", ROWS, "attribution")
    np.testing.assert_array_equal(store.array("head")[:], VALUES)
    assert verify(store).damaged == ()


def test_two_shards_that_were_swapped_are_noticed(store):
    one, two = (store.path / f"arrays.zarr/head/c.{i}.0" for i in (0, 2))
    one.rename(one.with_name("other"))
    two.rename(one)
    one.with_name("other").rename(two)
    with pytest.raises(RunDamaged, match=r"head/c\.0\.0"):
        store.array("head")[0]
    with pytest.raises(RunDamaged, match=r"head/c\.2\.0"):
        store.array("head")[-1]
    np.testing.assert_array_equal(store.array("head")[ROWS : 2 * ROWS], VALUES[ROWS : 2 * ROWS])


def test_only_the_shards_that_are_read_are_compared(store):
    flip(store.path / SHARD)
    np.testing.assert_array_equal(store.array("head")[[0, 9]], VALUES[[0, 9]])
    with pytest.raises(RunDamaged):
        store.array("head")[np.array([0, 5])]


def test_a_shard_of_zeros_is_none_and_one_that_appears_is_noticed(store):
    store.mark_done("attribution", 1, store.write_rows("head", ROWS, np.zeros((ROWS, 5))))
    assert not (store.path / SHARD).exists()
    assert store.array("head")[ROWS:].tolist()[0] == [0] * 5
    shutil.copy(store.path / "arrays.zarr/head/c.0.0", store.path / SHARD)
    with pytest.raises(RunDamaged, match="a file where none was written"):
        store.array("head")[ROWS]


def test_the_marker_of_another_unit_is_none_of_this(store):
    folder = store.path / "done" / "attribution"
    shutil.copy(folder / "00000.json", folder / "00001.json")
    with pytest.raises(RunDamaged, match=r"00001\.json: .*of attribution, unit 0"):
        store.table("images", "attribution")
    shutil.copy(folder / "00000.json", folder / "00077.json")
    assert {one.name for one in verify(store).damaged} == {f"done/attribution/000{unit}.json" for unit in ("01", "77")}


def test_an_old_copy_of_a_file_is_noticed(store):
    old = (store.path / "ranking.json").read_bytes()
    store.write_json("ranking.json", [{"z": 2.5}])
    (store.path / "ranking.json").write_bytes(old)
    with pytest.raises(RunDamaged, match=r"ranking\.json: altered"):
        store.read_json("ranking.json")


@pytest.mark.parametrize("name", ["ranking.json", "manifest.json"])
def test_a_checksum_that_is_lost_or_damaged_is_noticed(store, name):
    record = store.path / "checksums" / f"{name}.json"
    record.write_bytes(b"{")
    with pytest.raises(RunDamaged, match=rf"checksums/{name}"):
        store.read_json(name) if name == "ranking.json" else store.manifest
    record.unlink()
    with pytest.raises(RunDamaged, match="its checksum is missing"):
        store.read_json(name) if name == "ranking.json" else store.manifest


def test_a_kill_between_a_file_and_its_checksum_leaves_a_run_that_is_read(store, monkeypatch):
    """The write is stopped before its first, second and third atomic write: the file is the old one or the new one."""
    from klarsicht.ground.run_folder import run_files as module

    def stopped_after(count):
        calls = iter(range(count))

        def write(path, content):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            write_atomically(path, content)

        return write

    write_atomically = module.write_atomically
    for new in (False, True):
        name = "new.json" if new else "ranking.json"
        for count in range(3):
            with monkeypatch.context() as patch:
                patch.setattr(module, "write_atomically", stopped_after(count))
                with pytest.raises(KeyboardInterrupt):
                    store.write_json(name, ["new"])
            assert verify(store).damaged == ()
            if store.has_file(name):
                assert store.read_json(name) in ([{"z": 1.5}], ["new"])


@pytest.mark.parametrize("file", [SHARD, PART, "arrays.zarr/head/zarr.json", "ranking.json", "tables/corpus.parquet"])
@pytest.mark.parametrize("content", [b"no such format", bytes(range(256)) * 4])
def test_what_cannot_be_decoded_is_named_where_its_checksum_is_right(store, file, content):
    (store.path / file).write_bytes(content)
    with vouched(store.path, store.path / file), pytest.raises(RunDamaged, match=file.rsplit("/", 1)[0]):
        read_all(store)


@pytest.mark.parametrize("manifest", [[], {}, {"format": "1"}, {"format": None}, {"store": 1}, "run", None])
def test_a_manifest_of_something_else_is_refused(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"manifest\.json has another format"):
        RunStore.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("settings", None), ("settings", []), ("identity", None), ("identity", {"corpus": 5}), ("libraries", []),
     ("created", None), ("steps", []), ("steps", {"attribution": None}), ("finished", None), ("finished", [5]),
     ("data", 5), ("names", "abc"), ("code", None), ("klarsicht", [])],
)  # fmt: skip
def test_a_manifest_with_a_fact_of_another_kind_is_damaged(store, name, value):
    """It was written so, by another program: its checksum is right."""
    facts = json.loads((store.path / "manifest.json").read_bytes())
    store.write_json("manifest.json", facts | {name: value})
    with pytest.raises(RunDamaged, match=rf"manifest\.json: cannot be read: ValueError: {name}"):
        _ = store.manifest


PIPES = [SHARD, PART, "ranking.json", "tables/corpus.parquet", "manifest.json", "checksums/ranking.json.json",
         "done/attribution/00000.json"]  # fmt: skip


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("file", PIPES)
def test_a_pipe_or_device_in_place_of_a_file_is_damage_and_is_not_read(store, file, kind):
    """Reading a pipe that nobody writes to, or an endless device, would never end."""
    (store.path / file).unlink()
    os.mkfifo(store.path / file) if kind == "pipe" else (store.path / file).symlink_to("/dev/zero")
    with pytest.raises(RunDamaged, match="not a regular file"):
        read_all(store)
    if file != "manifest.json":
        assert {file} <= {one for damage in verify(store).damaged for one in (damage.name, damage.keeper)}


def test_checksums_are_those_of_zlib(tmp_path):
    """CRC-32 of "123456789" is CBF43926, the check value of ISO 3309."""
    assert Checksum.of(b"123456789") == Checksum(9, 0xCBF43926)
    (tmp_path / "large").write_bytes(b"123456789" * 300_000)
    assert Checksum.of_file(tmp_path / "large") == Checksum.of(b"123456789" * 300_000)


def test_what_a_kill_left_of_a_checksum_says_nothing(store):
    undisturbed = verify(store)
    (store.path / "checksums" / ".ranking.json.json.17937.tmp").write_bytes(b"[{")
    assert verify(store) == undisturbed


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
@pytest.mark.parametrize("reader", ["zarr.open_array", "json.loads", "pyarrow.parquet.ParquetFile"])
def test_memory_that_runs_short_is_no_damage_and_nothing_is_removed(store, monkeypatch, error, reader):
    before = {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()}

    def run_short(*args, **kwargs):
        raise error

    with monkeypatch.context() as short:
        short.setattr(reader, run_short)
        with pytest.raises(type(error)):
            read_all(store)
        if reader == "json.loads":
            with pytest.raises(type(error)):
                forget_damaged(store)
    assert {file: file.read_bytes() for file in store.path.rglob("*") if file.is_file()} == before
