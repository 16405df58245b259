"""The operating system's calls, and whole commands where there is no fcntl, no /proc and no folder to sync.

Oracles: the operating system itself, and the same command with all that Linux has.
"""

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.audit.conftest import write_corpus
from tests.ground.machine.elsewhere import locking

from klarsicht.cli.app import run
from klarsicht.ground.machine import operating_system
from klarsicht.ground.machine.operating_system import lock, memory_status, sync

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src" / "klarsicht"
ELSEWHERE = [sys.executable, str(Path(__file__).with_name("elsewhere.py"))]
HERE = [sys.executable, "-m", "klarsicht"]
OURS = {"cwd": ROOT, "env": os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}}


def test_no_other_module_asks_the_system_by_itself():
    for file in SOURCE.rglob("*.py"):
        if file.name != "operating_system.py":
            text = file.read_text()
            imported = {a.name for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import) for a in n.names}
            other_library = {"ctypes"} if file.name == "libtiff.py" else set()  # no call to the system
            assert not imported & ({"fcntl", "msvcrt", "resource", "pwd", "ctypes"} - other_library), file
            assert '"/proc' not in text, file


def test_a_system_without_proc_says_none(monkeypatch, tmp_path):
    monkeypatch.setattr(operating_system, "PROC", tmp_path)
    assert memory_status("VmRSS") is None
    assert operating_system.reset_memory_peak() is False
    assert operating_system.processor_flags() == frozenset()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux")
def test_resident_memory_is_that_of_the_other_file_of_the_kernel():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    assert memory_status("VmRSS") == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.02)


@pytest.mark.parametrize("hidden", [False, True])
def test_files_and_folders_are_synced_where_they_can_be(monkeypatch, tmp_path, hidden):
    """Windows refuses a descriptor that only reads, and opens no folder."""
    (tmp_path / "a").touch()
    flags = []
    with monkeypatch.context() as patch:
        if hidden:
            patch.setattr(operating_system, "fcntl", None)
        opened = os.open
        patch.setattr(os, "open", lambda path, flag: flags.append(flag) or opened(path, flag))
        sync(tmp_path)
        sync(tmp_path / "a")
    assert flags == ([os.O_RDWR] if hidden else [os.O_RDONLY, os.O_RDONLY])


def test_a_locked_file_is_refused_to_another_process(tmp_path):
    told = "from klarsicht.ground.machine.operating_system import lock; lock(open(__import__('sys').argv[1], 'a+'))"
    with (tmp_path / "lock").open("a+") as file:
        lock(file)
        refused = subprocess.run(
            [sys.executable, "-c", told, tmp_path / "lock"], capture_output=True, text=True, **OURS
        )
    assert "BlockingIOError" in refused.stderr
    assert subprocess.run([sys.executable, "-c", told, tmp_path / "lock"], **OURS).returncode == 0


def audit(folder, out, launch, *more):
    options = f"--model tests.audit.conftest:network --data {folder / 'data'} --out {folder / out} --unit 10"
    return [*launch, "audit", "run", *options.split(), "--neighbours", "6", *more]


def results(folder):
    kept = [*folder.rglob("*.parquet"), *folder.glob("ranking.json"), *(folder / "arrays.zarr").rglob("c.*")]
    assert len(kept) > 10
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(kept)}


@pytest.mark.slow
def test_an_audit_without_fcntl_and_proc_is_the_same_and_holds_its_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    write_corpus(tmp_path / "data", per_class=10)
    (tmp_path / "away").mkdir()
    with (tmp_path / "away" / "lock").open("w+") as other:
        other.write("4711")
        other.flush()
        os.lseek(other.fileno(), operating_system.LOCKED_BYTE, os.SEEK_SET)
        locking(other.fileno(), 2, 1)
        refused = subprocess.run(audit(tmp_path, "away", ELSEWHERE), capture_output=True, text=True, **OURS)
    assert (refused.returncode, refused.stdout) == (5, "")
    assert refused.stderr.count("\n") == 1 and "got process 4711 in" in refused.stderr
    ended = subprocess.run(audit(tmp_path, "away", ELSEWHERE), capture_output=True, text=True, **OURS)
    assert ended.returncode == 0, ended.stderr
    assert run(audit(tmp_path, "here", [])) == 0
    assert results(tmp_path / "away") == results(tmp_path / "here")


@pytest.mark.parametrize("verb", [["--help"], ["audit", "status", "nothing"]])
def test_commands_answer_without_fcntl(verb):
    away, here = (subprocess.run([*how, *verb], capture_output=True, text=True, **OURS) for how in (ELSEWHERE, HERE))
    assert (away.returncode, away.stderr) == (here.returncode, here.stderr)
