"""The run folder: made, opened, locked, shared. Oracles: the files themselves, processes killed at each call."""

import json
import os
import pickle
import subprocess
import sys
import threading
import zlib
from contextlib import contextmanager

import pytest
import zarr
from tests.ground.conftest import IDENTITY, SETTINGS

from klarsicht.ground.errors import InputError, RunDamaged, RunLocked, RunMismatch, StoreError
from klarsicht.ground.machine import disk
from klarsicht.ground.run_folder.shards import Shard
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.verification import verify

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
        ({"settings": SETTINGS | {"top": 4}}, "--top"),
        ({"identity": IDENTITY | {"model": "m1"}}, "model"),
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
from klarsicht.ground.run_folder.store import RunStore

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


@pytest.mark.slow
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


@pytest.mark.parametrize("facts", [{"format": 2}, {"store": 2}])
def test_a_run_of_another_format_is_refused_by_every_door_and_left_alone(store, facts):
    """The second is what runs had before there was a format."""
    held = {name: value for name, value in store.manifest.items() if name != "format"} | facts
    store.write_json("manifest.json", held)
    before = (store.path / "manifest.json").read_bytes()
    doors = [
        lambda: RunStore.open(store.path),
        lambda: RunStore.create(store.path, settings=SETTINGS, identity=IDENTITY, partition=4, threads=1),
        lambda: store.update_manifest(seen=True),
        lambda: verify(store),
    ]
    for door in doors:
        with pytest.raises(InputError, match=r"manifest\.json has another format; got format .*Make the run again"):
            door()
    assert (store.path / "manifest.json").read_bytes() == before


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


def test_lock_refuses_a_second_process(store):
    code = (
        "import sys; from klarsicht.ground.run_folder.store import RunStore\n"
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
        with pytest.raises(StoreError, match="not allowed inside a run"):
            use()


def test_what_is_not_there_is_named(store):
    for read, kind in [(store.array, "array"), (store.table, "table"), (store.read_json, "file")]:
        with pytest.raises(StoreError, match=f"no {kind} 'nothing'"):
            read("nothing")
    assert not store.has_array("nothing")


def test_travels_to_worker_processes(store):
    assert pickle.loads(pickle.dumps(store)).manifest == store.manifest


def test_two_processes_that_write_one_file_leave_what_one_of_them_wrote(store):
    """As two reports, or two certificates, which do not hold the lock of the run."""
    code = "import sys; from klarsicht.ground.run_folder.store import RunStore; run = RunStore.open(sys.argv[1])\n"
    code += "for n in range(60): run.write_json('certificate/c.json', {'by': sys.argv[2] * (1 + n % 7)})"
    words = [sys.executable, "-c", code, str(store.path)]
    writers = [subprocess.Popen([*words, letter]) for letter in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert set(store.read_json("certificate/c.json")["by"]) in ({"a"}, {"b"})


def test_a_run_that_is_shared_is_refused_to_one_alone_and_the_last_one_tidies_up(tmp_path):
    store = RunStore.create(tmp_path / "run", settings={}, identity={})
    first, second = Shard(0, 2), Shard(1, 2)
    (store.path / ".left.json.1.tmp").touch()
    with store.share(first):
        assert not (store.path / ".left.json.1.tmp").exists()
        with store.share(second) as other:
            other.once("a", lambda: None)
            with pytest.raises(RunLocked, match=f"process {os.getpid()}"), store.lock():
                pass
        assert (store.path / "turn").exists()
    assert not (store.path / "turn").exists()
    with store.lock(), monkeypatched_join(0.3), pytest.raises(RunLocked), store.share(first):
        pass


@contextmanager
def monkeypatched_join(seconds):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "JOIN_SECONDS", seconds)
        yield


@pytest.mark.slow
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
