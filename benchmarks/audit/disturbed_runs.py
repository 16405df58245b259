"""Disturbed runs: a command in a fork that is killed at a chosen call, and the folder in which it runs again."""

from __future__ import annotations

import atexit
import contextlib
import fnmatch
import functools
import importlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disturbed_commands import COMMANDS, Command, differences, digest, write_inputs
from klarsicht.ground.errors import RunDamaged
from klarsicht.ground.machine.disk import UNFINISHED
from klarsicht.ground.run_folder.run_files import MANIFEST
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.verification import verify

HERE = Path(__file__).resolve().parent
DONE = (0, 7, 8)  # exit codes of a command that wrote all it had to; a correction that is no help is saved, too
GIVE_UP_S = 180.0
WRITTEN_ONCE = ("out.tif", "page.html", "shown/*", "planted/*", "bursts/*", "cleaned/*")  # never replaced
MANY_TILES = """
from klarsicht.__main__ import main
from klarsicht.burst.merging import tiles

tiles.MOST = tiles.LEAST  # a small picture, yet of many tiles
main()
"""


@dataclass(frozen=True)
class Aim:
    """Kill at one call of os.fsync or os.replace.

    Attributes:
        call: number of the call, from 1; 0 kills nothing and only counts.
        before: kill before the call, not after it.
        group: kill the whole process group, not the calling process alone.
        counts: file to which each call adds a byte; one for each process.
    """

    call: int
    before: bool
    group: bool
    counts: str

    def watch(self) -> None:
        """Replace os.fsync and os.replace in this process, not in its forks."""
        for name in ("fsync", "replace"):
            setattr(os, name, self._counted(getattr(os, name), os.getpid()))

    def _counted(self, function: Callable[..., Any], watched: int) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if os.getpid() != watched:
                return function(*args, **kwargs)
            file = Path(f"{self.counts}.{os.getpid()}")
            with file.open("ab") as counted:
                counted.write(b".")
            now = file.stat().st_size == self.call
            if now and self.before:
                self._kill()
            result = function(*args, **kwargs)
            if now:
                self._kill()
            return result

        return call

    def _kill(self) -> None:
        Path(f"{self.counts}.killed").touch()
        if self.group:
            os.killpg(os.getpgid(0), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def begin_worker(aim: Aim, begin: Callable[..., None], *args: Any) -> None:
    """Start a worker process as the executor does, and count its calls."""
    begin(*args)
    aim.watch()


@dataclass(frozen=True)
class Ended:
    """End of a command: exit code (negative: a signal), lines of standard error, seconds."""

    code: int
    lines: tuple[str, ...]
    seconds: float


class Started:
    """A command in a fork of this process, the leader of a process group."""

    def __init__(self, command: Command, folder: Path, prepare: Callable[[], None], forks: bool) -> None:
        self.told, self.began = folder.parent / "stderr", time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(command, folder, prepare, forks)
        while os.getpgid(self.pid) != self.pid:
            time.sleep(0.001)

    def _run(self, command: Command, folder: Path, prepare: Callable[[], None], forks: bool) -> None:
        code = 1
        try:
            os.setsid()
            out = os.open(self.told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.chdir(folder)
            from joblib.externals.loky.backend.context import set_start_method

            from klarsicht.burst.merging import tiles
            from klarsicht.cli.app import run
            from klarsicht.cli.limited_memory import run_limited
            from klarsicht.ground.errors import OutOfMemory

            tiles.MOST = tiles.LEAST  # a small picture, yet of many tiles
            if forks:
                set_start_method("fork")
            prepare()
            code = run_limited(lambda: run(command.line.split()))
            if code == OutOfMemory.exit_code:
                os._exit(code)  # as __main__ does
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self, seconds: float = GIVE_UP_S) -> Ended | None:
        """Wait for the end of the command; None where it has not ended after so many seconds."""
        while (found := os.waitpid(self.pid, os.WNOHANG))[0] == 0:
            if time.monotonic() - self.began > seconds:
                return None
            time.sleep(0.005)
        lines = [line for line in self.told.read_text().splitlines() if line.startswith(("klarsicht:", "Traceback"))]
        return Ended(os.waitstatus_to_exitcode(found[1]), tuple(lines), time.monotonic() - self.began)

    def others(self) -> list[int]:
        """Processes of the group beside the command itself: its workers, and what looks after their memory."""
        return [pid for pid, group, state in processes() if group == self.pid and pid != self.pid and state != "Z"]

    def workers(self) -> list[int]:
        """The worker processes of the command."""
        return [pid for pid in self.others() if b"resource_tracker" not in command_line(pid)]


def processes() -> Iterator[tuple[int, int, str]]:
    """Process, group and state of all processes."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, group = (entry / "stat").read_text().rsplit(")")[-1].split()[:3]
            except OSError:
                continue
            yield int(entry.name), int(group), state


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


class Bench:
    """A folder with inputs, the results of undisturbed runs, and the folder in which commands run."""

    def __init__(self, place: Path, names: list[str]) -> None:
        self.place, self.here = place, place / "here"
        write_inputs(place)
        sys.path[:0] = [str(place), str(HERE)]
        self.whole: dict[str, Mapping[str, str]] = {}
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, tuple[int, int]] = {}
        for name in COMMANDS:
            if name in names or any(COMMANDS[other].after == name for other in names):
                self._run_undisturbed(name)

    def _run_undisturbed(self, name: str) -> None:
        """Run a command as a process of its own, keep its results, and count its calls in a fork."""
        self.reset(name)
        python = [sys.executable, "-c", MANY_TILES, *COMMANDS[name].line.split()]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(self.place), *sys.path])}
        undisturbed = subprocess.run(python, cwd=self.here, env=environment, check=False, capture_output=True)
        if undisturbed.returncode not in DONE:
            raise SystemExit(f"{name}, undisturbed: {undisturbed.returncode} {undisturbed.stderr.decode()}")
        shutil.copytree(self.here, self.kept(name))
        self.whole[name] = digest(self.here)
        self.reset(name)
        aim, imported = Aim(0, True, True, str(self.place / "counts")), self.place / "imported"
        started = self.start(name, lambda: (aim.watch(), in_workers(aim), write_imports_at_exit(imported)))
        ended = started.wait()
        load_modules(imported.read_text().split())
        if ended is None or ended.code not in DONE or (apart := differences(digest(self.here), self.whole[name])):
            raise SystemExit(f"{name}, a fork and undisturbed: {ended}, {apart}")
        counts = {int(f.suffix[1:]): f.stat().st_size for f in self.place.glob("counts.*")}
        own = counts.pop(started.pid, 0)
        self.calls[name] = own, min(counts.values(), default=0)
        self.seconds[name] = ended.seconds
        print(f"{name}: {ended.seconds:.1f} s, {len(self.whole[name])} files, {own} calls, {counts} in workers",
              flush=True)  # fmt: skip

    def kept(self, name: str) -> Path:
        return self.place / "kept" / name.replace(" ", "_")

    def reset(self, name: str) -> None:
        """Empty the folder of the commands but for what the command needs."""
        shutil.rmtree(self.here, ignore_errors=True)
        if after := COMMANDS[name].after:
            shutil.copytree(self.kept(after), self.here)
        else:
            self.here.mkdir()
        for file in self.place.glob("counts.*"):
            file.unlink()

    def start(self, name: str, prepare: Callable[[], None] = lambda: None, forks: bool = True) -> Started:
        return Started(COMMANDS[name], self.here, prepare, forks)

    def half_done(self, name: str) -> list[str]:
        """Files that are called complete and are not: by a marker or checksum of a run, by the end of the mark of a
        folder that is being filled, or by the name of a picture."""
        wrong, here, whole = [], digest(self.here), self.whole[name]
        unfinished = [str(mark.parent.relative_to(self.here)) for mark in self.here.rglob(UNFINISHED)]
        for file in here.keys() & whole.keys():
            once = any(fnmatch.fnmatch(file, pattern) for pattern in WRITTEN_ONCE)
            if once and here[file] != whole[file] and not file.startswith(tuple(unfinished)):
                wrong.append(file)
        for manifest in self.here.rglob(MANIFEST):
            store = RunStore(manifest.parent)
            try:
                wrong += [str(one) for one in verify(store).damaged]
            except RunDamaged as error:
                wrong.append(str(error))
        return wrong

    def resumed(self, name: str) -> list[str]:
        """Run the command again; the files that differ from those of the undisturbed run, or how it failed."""
        half_done = self.half_done(name)
        ended = self.start(name).wait()
        if half_done:
            return [f"half done: {half_done}"]
        apart = differences(digest(self.here), self.whole[name])
        complete = not apart and ended is not None and ended.code == 3 and "not empty" in ended.lines[0]
        if ended is None or (
            ended.code not in DONE and not complete
        ):  # what fills a new folder refuses one that is complete
            return [f"resumed: {ended}"]
        return apart


def in_workers(aim: Aim) -> None:
    from disturbed_runs import begin_worker as begin_counted
    from klarsicht.audit.explanation import executor

    executor.end_with_parent = functools.partial(begin_counted, aim, executor.end_with_parent)


def write_imports_at_exit(file: Path) -> None:
    atexit.register(lambda: file.write_text("\n".join(sys.modules)))


def load_modules(names: list[str]) -> None:
    """Import what a command imported while it ran, so that the next fork has it."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
