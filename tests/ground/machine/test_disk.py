"""Atomic files and locks. Oracles: the operating system's own refusals (file-size limits, flock, SIGKILL)."""

import errno
import os
import resource
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from klarsicht.ground.errors import DiskFull, InputError, RunLocked, StoreError
from klarsicht.ground.machine import disk, operating_system
from klarsicht.ground.machine.disk import (
    UNFINISHED,
    fill_folder,
    hold_lock,
    is_fault_of_place,
    remove_leftovers,
    replace_atomically,
    require_regular_file,
    temporary_folder,
    translate_write_errors,
    write_atomically,
)
from klarsicht.ground.machine.operating_system import process_mark


def raising(code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return refuse


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_keeps_the_old_bytes_and_leaves_no_temporary_file(tmp_path, monkeypatch, call, code):
    file = tmp_path / "a.json"
    file.write_bytes(b"old")
    monkeypatch.setattr(os, call, raising(code))
    with pytest.raises(DiskFull, match=r"no space left.*resume"):
        write_atomically(file, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert file.read_bytes() == b"old"


def test_a_real_file_size_limit_is_disk_full(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(DiskFull):
            write_atomically(tmp_path / "a", bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_read_only_place_is_a_store_error(tmp_path, monkeypatch, code):
    monkeypatch.setattr(Path, "open", raising(code))
    with pytest.raises(StoreError, match="cannot write") as caught:
        write_atomically(tmp_path / "a", b"")
    assert not isinstance(caught.value, DiskFull)


def test_a_file_in_place_of_the_folder_is_a_store_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        write_atomically(tmp_path / "file" / "a", b"")


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(ValueError, match="mine"), translate_write_errors(tmp_path):
        raise ValueError("mine")


HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); f.write('4711'); f.flush(); "


def test_lock_of_a_second_process_is_refused_with_its_pid_and_freed_by_its_death(tmp_path):
    lock = tmp_path / "lock"
    code = HOLD + "print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(RunLocked, match="4711"), hold_lock(lock):
            pass
        other.kill()
    with hold_lock(lock):
        assert lock.read_text() == str(os.getpid())


def test_lock_is_given_back_when_its_body_fails(tmp_path):
    with pytest.raises(KeyError), hold_lock(tmp_path / "lock"):
        raise KeyError
    with hold_lock(tmp_path / "lock"), pytest.raises(RunLocked), hold_lock(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINTR, errno.EIO])
def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(StoreError, match=f"cannot lock files; got {os.strerror(code)}") as caught,
        hold_lock(tmp_path / "lock"),
    ):
        pass
    assert not isinstance(caught.value, RunLocked)


def test_sweep_keeps_what_a_living_process_is_writing(tmp_path):
    code = "import sys; from pathlib import Path; from klarsicht.ground.machine.disk import replace_atomically\n"
    code += "with replace_atomically(Path(sys.argv[1])) as file: print('open', flush=True); sys.stdin.read(); "
    code += "file.write(b'whole')"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "report.html")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"open\n"
        remove_leftovers(tmp_path)
        other.communicate()
    assert other.returncode == 0 and (tmp_path / "report.html").read_bytes() == b"whole"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "b.html")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"open\n"
        other.kill()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_sweep_takes_leftovers_and_nothing_else(tmp_path):
    for name in ["a/.x.json.12.tmp", "a/c.0.abc.partial", "a/mine.tmp", "b/x.json"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {"mine.tmp", "x.json"}


def test_a_leftover_that_cannot_be_removed_is_a_store_error(tmp_path):
    (tmp_path / ".x.json.12.tmp").mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        remove_leftovers(tmp_path)


def test_a_folder_that_was_left_unfinished_is_filled_anew_and_others_are_refused(tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(KeyError), fill_folder(folder):
        (folder / "part").mkdir()
        (folder / "part" / "old").touch()
        raise KeyError
    with fill_folder(folder):
        assert [path.name for path in folder.iterdir()] == [UNFINISHED]
        (folder / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    for taken in (folder, folder / "new"):
        with pytest.raises(InputError, match="not empty"), fill_folder(taken):
            pass
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_what_killed_processes_left_of_a_file_is_removed_when_it_is_written(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    machine = process_mark().partition(".")[0]
    gone, mine = (tmp_path / f".a[1].{machine}.{pid}.tmp" for pid in (ended.pid, os.getppid()))
    names = (f".b.{machine}.{ended.pid}.tmp", ".a[1].mine.tmp", f"a[1].{machine}.{ended.pid}.tmp",
             f".a[1].0123456789ab.{ended.pid}.tmp")  # fmt: skip
    others = [tmp_path / name for name in names]
    for file in (gone, mine, *others):
        file.touch()
    write_atomically(tmp_path / "a[1]", b"new")
    assert set(tmp_path.iterdir()) == {tmp_path / "a[1]", mine, *others}


def test_only_regular_files_pass(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    require_regular_file(tmp_path / "file")
    require_regular_file(tmp_path / "absent")
    for odd in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match=f"{odd.name} is not a regular file"):
            require_regular_file(odd)


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_temporary_folders_of_killed_processes_are_removed(tmp_path, monkeypatch, dead):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (machine, own), shared = process_mark().split("."), tmp_path / "shm"
    monkeypatch.setattr(disk, "SHARED_MEMORY", shared)
    gone = [f"klarsicht-{machine}.{dead}-abc", f"joblib_memmapping_folder_{dead}_a_b",
            f"shm/joblib_memmapping_folder_{dead}_c_d", f"shm/sem.loky-{dead}-xyz"]  # fmt: skip
    kept = [f"klarsicht-{machine}.{own}-abc", f"klarsicht-0123456789ab.{dead}-abc", "klarsicht-abc", "mine",
            f"shm/sem.loky-{dead}0-x", f"shm/sem.loky-{own}-x", f"shm/joblib_memmapping_folder_{own}_a"]  # fmt: skip
    for name in (*gone, *kept):
        (tmp_path / name / "in it").mkdir(parents=True)
    (shared / f"sem.loky-{dead}-file").touch()
    with temporary_folder() as folder:
        assert folder.is_dir()
        left = {str(p.relative_to(tmp_path)) for place in (tmp_path, shared) for p in place.iterdir()}
        assert left == {*kept, folder.name, "shm"}
    assert not folder.exists()


def test_errors_of_the_system_are_told_from_those_of_decoders(tmp_path):
    """The oracle for the first is the system itself; for the others, Pillow and HDF5 on damaged files."""
    with pytest.raises(OSError) as missing:
        (tmp_path / "nothing").open()
    with pytest.raises(OSError) as no_picture:
        Image.open(BytesIO(b"no picture"))
    damaged = BytesIO()
    Image.new("RGB", (40, 40), "red").save(damaged, "PNG")
    with pytest.raises(OSError) as truncated:
        Image.open(BytesIO(damaged.getvalue()[:60])).load()
    with pytest.raises(OSError) as before, (tmp_path / "some").open("w+b") as file:
        file.seek(-1)
    assert is_fault_of_place(missing.value)
    assert not any(is_fault_of_place(one.value) for one in (no_picture, truncated, before))
    told = (
        "Can't synchronously read data (file read failed: time = now, errno = 5, error message = 'Input/output error')"
    )
    assert is_fault_of_place(OSError(told))
    assert not is_fault_of_place(OSError("Can't synchronously read data (inflate() failed)"))
    assert not is_fault_of_place(KeyError(errno.EIO))


def test_workers_files_of_a_process_that_was_not_ours_stay(tmp_path, monkeypatch, dead):
    """Without a folder of ours nothing says that the process was: it may be any program that uses joblib."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(disk, "SHARED_MEMORY", tmp_path)
    (tmp_path / "tmp" / f"klarsicht-0123456789ab.{dead}-of another machine").mkdir(parents=True)
    (tmp_path / f"sem.loky-{dead}-x").touch()
    with temporary_folder():
        assert (tmp_path / f"sem.loky-{dead}-x").exists()


@pytest.fixture
def in_container(monkeypatch):
    """A function that puts this process into a container of a name: another machine, in which no process exists but
    this one, under the same number."""

    def enter(name):
        monkeypatch.setattr(operating_system, "machine_name", lambda: f"{name}/boot/pid:[1]")
        monkeypatch.setattr(operating_system, "process_exists", lambda pid: False)

    return enter


def test_two_containers_write_one_file_under_the_same_process_number(tmp_path, in_container):
    """Each sees the other's process as none: what it is writing must stay, and must not be written into."""
    file = tmp_path / "x.json"
    in_container("a")
    with replace_atomically(file) as of_a:
        of_a.write(b"from a")
        in_container("b")
        with replace_atomically(file) as of_b:
            of_b.write(b"b")
        assert file.read_bytes() == b"b"
        in_container("a")
    assert file.read_bytes() == b"from a"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_container_removes_what_its_own_killed_process_left_and_no_others(tmp_path, in_container):
    for name in ("a", "b"):
        in_container(name)
        (tmp_path / f".x.json.{process_mark()}.tmp").touch()
    of_a = next(p for p in tmp_path.iterdir() if process_mark() not in p.name)
    write_atomically(tmp_path / "x.json", b"1")
    assert {p.name for p in tmp_path.iterdir()} == {"x.json", of_a.name}


def test_two_containers_keep_their_temporary_folders(tmp_path, monkeypatch, in_container):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    in_container("a")
    with temporary_folder() as of_a:
        in_container("b")
        with temporary_folder() as of_b:
            assert of_a.is_dir() and of_b.is_dir()


def test_a_folder_without_a_name_is_named_by_its_path():
    with pytest.raises(InputError, match=r"^\. is not a regular file"):
        require_regular_file(Path())
