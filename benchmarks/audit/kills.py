"""Disturb every long command, run it again, and compare every byte of its results with an undisturbed run.

python benchmarks/audit/kills.py kills --count 200     SIGKILL before and after fsync and rename, and at random moments
python benchmarks/audit/kills.py disk                  a disk that is full at ten points of each (mounts tmpfs: root)
python benchmarks/audit/kills.py memory                RLIMIT_AS of ten sizes on each command

Between a disturbance and the same command again, whatever a marker, a checksum or a name calls complete is compared,
too.

The undisturbed run is a process of its own. Disturbed ones are forks of this process, in which all libraries are
loaded already, so that hundreds fit into minutes; their workers are forks too, but in every fifth round, where they
are started anew as klarsicht does. Killed is the whole group, the command alone, or one of its two workers alone. A
worker's calls are counted as the command's are: the harness stands in for the function with which the executor starts
its workers.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import fnmatch
import functools
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from klarsicht.ground.errors import RunDamaged
from klarsicht.ground.machine.disk import UNFINISHED
from klarsicht.ground.run_folder.checksums import Checksum
from klarsicht.ground.run_folder.run_files import MANIFEST
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.verification import verify

HERE = Path(__file__).resolve().parent
DONE = (0, 7, 8)  # exit codes of a command that wrote all it had to; a correction that is no help is saved, too
SIDE, EACH, CLASSES = 12, 20, "ab"
WORKERS_GONE_S, GIVE_UP_S = 5.0, 180.0
MODEL = """
import torch
from torch import nn


def network():
    K = 2
    first, last, head = nn.Conv2d(3, K + 1, 1, bias=False), nn.Conv2d(K + 1, K + 1, 1, bias=False), nn.Linear(K + 1, K)
    with torch.no_grad():
        mix = torch.randn(K, 3, generator=torch.Generator().manual_seed(0))
        first.weight.copy_(torch.cat([mix, torch.ones(1, 3)])[:, :, None, None])
        last.weight.copy_(torch.eye(K + 1)[:, :, None, None])
        head.weight.copy_(torch.cat([torch.eye(K), torch.zeros(K, 1)], 1))
        head.weight[1, K] = 9.0  # class b also by white
        head.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
"""
MANY_TILES = """
from klarsicht.__main__ import main
from klarsicht.burst.merging import tiles

tiles.MOST = tiles.LEAST  # a small picture, yet of many tiles
main()
"""
TRAINING = "\n".join(
    ('preset = "kpn"', "width = 0.125", "frames = 2", "size = 32", "scale = 1", "batch = 1", "steps = 6", "every = 2",
     "uses = 1")
)  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command line whose results lie in the folder it runs in.

    Attributes:
        line: its words; paths are relative to the folder.
        after: the command whose results it needs.
        workers: whether it starts two worker processes.
    """

    line: str
    after: str = ""
    workers: bool = False


COMMANDS = {
    "audit run": Command(
        "audit run --model kills_model:network --data ../data --out run --metric euclidean --unit 20 --neighbours 6"
    ),
    "audit run --workers 2": Command(
        "audit run --model kills_model:network --data ../data --out run --metric euclidean --unit 20 --neighbours 6 "
        "--workers 2",
        workers=True,
    ),
    "audit quantify": Command("audit quantify run", after="audit run"),
    "audit quantify --workers 2": Command("audit quantify run --workers 2", after="audit run", workers=True),
    "audit clean": Command(
        "audit clean run --class b --method oblique --layer 2 --images 16 --found-by cluster --fewest-clean 3",
        after="audit run",
    ),
    "audit clean --method augment": Command(
        "audit clean run --class b --method augment --layer 2 --images 16 --steps 4 --batch 8 --found-by cluster "
        "--fewest-clean 3",
        after="audit run",
    ),
    "audit evaluate": Command("audit evaluate run --correction run/corrections/1-oblique --overall 1 --affected 1 "
                              "--images 16", after="audit clean"),
    "audit clean-data": Command(
        "audit clean-data run --class b --action inpaint --out cleaned --found-by cluster", after="audit run"
    ),
    "audit plant": Command("audit plant ../data --out planted --kind tag --share 0.3"),
    "burst train": Command("burst train --photos ../photographs --out net.safetensors --settings ../training.toml"),
    "burst denoise": Command("burst denoise ../frames -o out.tif --noise 0.02,0.001 --threads 1 --page page.html"),
    "burst explain": Command("burst explain ../frames -o shown --noise 0.02,0.001 --threads 1"),
    "burst synth": Command("burst synth ../photographs --out bursts --gain 1"),
}  # fmt: skip


# Inputs of the commands


def write_inputs(folder: Path) -> None:
    """Write a corpus of two classes with a mark on a third of one, its network, photographs and a burst."""
    from PIL import Image

    rng = np.random.default_rng(0)
    colours = rng.integers(40, 120, (len(CLASSES), 3))
    for label, name in enumerate(CLASSES):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(EACH):
            pixels = (rng.integers(0, 60, (SIDE, SIDE, 3)) + colours[label]).astype(np.uint8)
            if name == "b" and i % 3 == 0:
                pixels[:4, :4] = 255
            Image.fromarray(pixels).save(folder / "data" / name / f"{i:03d}.png")
    (folder / "kills_model.py").write_text(MODEL)
    (folder / "training.toml").write_text(TRAINING)
    (folder / "photographs").mkdir()
    for i in range(2):
        smooth = np.kron(rng.integers(0, 255, (32, 48, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        Image.fromarray(smooth).save(folder / "photographs" / f"{i}.png")
    (folder / "frames").mkdir()
    scene = np.kron(rng.integers(40, 200, (12, 16, 3)), np.ones((8, 8, 1)))
    for i in range(3):
        noisy = np.roll(scene, i, 1) + rng.normal(0, 4, scene.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / "frames" / f"{i}.png")


WRITTEN_ONCE = ("out.tif", "page.html", "shown/*", "planted/*", "bursts/*", "cleaned/*")  # never replaced
DATED = ("manifest.json", "report.html", "certificate.html")


def digest(folder: Path) -> dict[str, str]:
    """Hash every file below a folder, but for the date of a run and the locks, which name processes. Of a checksum of a
    file with a date, hashed is whether it admits this file alone."""
    found, dates = {}, [json.loads(file.read_bytes()).get("created", "") for file in folder.rglob("manifest.json")]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.parent.name == "checksums" and path.stem in DATED:
            file = path.parent.with_name(path.stem)
            content = repr(file.exists() and json.loads(content) == [Checksum.of_file(file).to_json()]).encode()
        if path.name in DATED:
            for date in filter(None, dates):
                content = content.replace(date.encode(), b"DATE").replace(date[:16].replace("T", " ").encode(), b"DATE")
        if path.name not in ("lock", ".lock"):
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


# Disturbances


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


# Runs


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


def differences(here: Mapping[str, str], whole: Mapping[str, str]) -> list[str]:
    """Files that one side alone has, or whose bytes differ."""
    return sorted(name for name in here.keys() | whole.keys() if here.get(name) != whole.get(name))


# Kills


def kill(bench: Bench, name: str, whom: str, aimed: bool, forks: bool, rng: random.Random) -> tuple[str, list[str]]:
    """Disturb a command once. Returns what was done, and what is wrong with it or with the result after it."""
    bench.reset(name)
    own, of_worker = bench.calls[name]
    calls = of_worker if whom == "worker" else own
    group, counts = whom == "group", str(bench.place / "counts")
    aim = Aim(rng.randint(1, max(calls, 1)), rng.random() < 0.5, group, counts)
    moment = rng.uniform(0.02, 0.98) * bench.seconds[name]
    if aimed and calls and whom != "worker":
        what = f"{'before' if aim.before else 'after'} call {aim.call} of {calls}"
        started = bench.start(name, aim.watch, forks)
    elif aimed and calls:
        what = f"worker {'before' if aim.before else 'after'} call {aim.call} of {calls}"
        started = bench.start(name, lambda: in_workers(aim), forks)
    else:
        what = f"at {moment:.2f} s"
        started = bench.start(name, forks=forks)
        if started.wait(moment) is not None:
            return f"{what}, too late", bench.resumed(name)
        victims = started.workers() if whom == "worker" else [started.pid]
        if not victims:
            started.wait()
            return f"{what}, no worker there", bench.resumed(name)
        os.killpg(started.pid, signal.SIGKILL) if group else os.kill(rng.choice(victims), signal.SIGKILL)
    ended = started.wait()
    wrong = [] if ended is not None else ["it does not end"]
    if (
        ended is not None
        and whom == "worker"
        and (ended.code not in (*DONE, 9) or len(ended.lines) != bool(ended.code))
    ):
        wrong.append(f"not one line and code 9: {ended}")
    if ended is not None and whom != "worker" and ended.code in DONE:
        what += ", not reached"
    began = time.monotonic()
    while (left := started.others()) and time.monotonic() - began < WORKERS_GONE_S:
        time.sleep(0.02)
    if left:
        wrong.append(f"left behind: {[command_line(pid)[:80] for pid in left]}")
        os.killpg(started.pid, signal.SIGKILL)
    if started.told.exists() and "Traceback" in started.told.read_text() and whom != "worker":
        wrong.append(started.told.read_text()[-600:])
    return what, wrong + bench.resumed(name)


def in_workers(aim: Aim) -> None:
    from kills import begin_worker as begin_counted
    from klarsicht.audit.explanation import executor

    executor.end_with_parent = functools.partial(begin_counted, aim, executor.end_with_parent)


def run_kills(bench: Bench, names: list[str], count: int, seed: int) -> int:
    rng, done, bad = random.Random(seed), Counter[str](), 0
    ways = {False: ["group"], True: ["group", "parent", "worker"]}
    for i in range(count):
        name = names[i % len(names)]
        turn = i // len(names)
        whom = ways[COMMANDS[name].workers][turn % len(ways[COMMANDS[name].workers])]
        aimed = turn % 4 != 3 if not COMMANDS[name].workers else turn // 3 % 2 == 0
        forks = not COMMANDS[name].workers or turn % 5 != 4
        what, wrong = kill(bench, name, whom, aimed, forks, rng)
        reached = not what.endswith(("too late", "not reached", "no worker there"))
        words = [name, whom, "aimed" if aimed else "random", *([] if forks else ["workers anew"])]
        done[", ".join(words if reached else [*words, "missed"])] += 1
        bad += bool(wrong)
        print(f"{i + 1}: {name}: {whom} {what}: {'; '.join(wrong) if wrong else 'identical'}", flush=True)
    for line, times in sorted(done.items()):
        print(f"{times:4} {line}")
    missed = sum(times for line, times in done.items() if line.endswith("missed"))
    print(f"{count - missed} kills, {missed} more missed; {count - bad} of {count} identical after the resume")
    return bad


# A full disk


def run_disk(bench: Bench, names: list[str], points: int) -> int:
    """Give each command disks of ten sizes too small for it; it ends with one line and code 5, and resumes on a larger
    one."""
    bad = 0
    for name in names:
        bench.reset(name)
        before = used(bench.here)
        need = used(bench.kept(name)) - before
        for point in range(points):
            bench.reset(name)
            shutil.move(bench.here, bench.place / "aside")
            bench.here.mkdir()
            room = max(before, 4096) + int(need * (point + 0.5) / (points + 1))
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}", "tmpfs", bench.here], check=True)
            try:
                shutil.copytree(bench.place / "aside", bench.here, dirs_exist_ok=True)
                ended = bench.start(name).wait()
                told = bench.place.joinpath("stderr").read_text()
                subprocess.run(["mount", "-o", "remount,size=1g", bench.here], check=True)
                told_of = ended is not None and ended.code == 5 and len(ended.lines) == 1 and "Traceback" not in told
                fits = ended is not None and ended.code in DONE and digest(bench.here) == bench.whole[name]
                wrong = [] if told_of or fits else [f"{ended} {told[-900:]}"]
                wrong += bench.resumed(name)
            finally:
                subprocess.run(["umount", "--lazy", bench.here], check=True)  # workers that end still stand in it
                shutil.rmtree(bench.place / "aside")
            bad += bool(wrong)
            shown = "; ".join(wrong) if wrong else f"code {ended.code}, then identical: {' '.join(ended.lines)}"
            print(f"{name}: {room / 1024:.0f} KiB of {(before + need) / 1024:.0f}: {shown}", flush=True)
    return bad


def used(folder: Path) -> int:
    """Bytes of the pages that the files of a folder take in a tmpfs."""
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


# Little memory


def run_memory(bench: Bench, names: list[str], points: int) -> int:
    """Limit the address space of each command to ten sizes above what the libraries take; it ends with its result, or
    with one line and an exit code, and resumes without the limit."""
    bad = 0
    for name in names:
        codes = Counter[int]()
        for point in range(points):
            bench.reset(name)
            more = int(2e6 * 2.2**point)
            started = bench.start(name, prepare=functools.partial(limit_memory, more))
            ended = started.wait()
            told = started.told.read_text()
            wrong = []
            if ended is None or ended.code not in (*DONE, 5, 9) or len(ended.lines) != bool(ended.code):
                wrong = [f"{ended} {told[-900:]}"]
            elif ended.code in DONE:
                wrong = differences(digest(bench.here), bench.whole[name])
            if ended is None:
                os.killpg(started.pid, signal.SIGKILL)
            if ended is not None:
                codes[ended.code] += 1
            wrong += bench.resumed(name)
            bad += bool(wrong)
            line = ended.lines[0] if ended and ended.lines else ""
            print(f"{name}: {more / 1e6:.0f} MB more: {'; '.join(wrong) if wrong else f'code {ended.code} {line}'}",
                  flush=True)  # fmt: skip
        print(f"{name}: exit codes {dict(codes)}", flush=True)
    return bad


def limit_memory(more: int) -> None:
    """Limit the address space to what is in use and so many bytes more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def write_imports_at_exit(file: Path) -> None:
    atexit.register(lambda: file.write_text("\n".join(sys.modules)))


def load_modules(names: list[str]) -> None:
    """Import what a command imported while it ran, so that the next fork has it."""
    for name in names:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def load_libraries() -> None:
    """Import whatever the commands import when they run, so that a fork has it."""
    import pkgutil

    import klarsicht

    for module in pkgutil.walk_packages(klarsicht.__path__, "klarsicht."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["kills", "disk", "memory"])
    parser.add_argument("--count", type=int, default=200, help="kills in all, over all commands")
    parser.add_argument("--points", type=int, default=10, help="sizes of disk or memory for each command")
    parser.add_argument("--only", action="append", choices=list(COMMANDS), help="a command; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", help="where to work; a folder in memory (/dev/shm) is several times faster")
    asked = parser.parse_args()
    names = asked.only or list(COMMANDS)
    load_libraries()
    place = Path(tempfile.mkdtemp(prefix="klarsicht-kills-", dir=asked.place))
    try:
        bench = Bench(place, names)
        alone, bad = asked.only or [name for name in names if not COMMANDS[name].workers], 0
        for what in asked.what:
            if what == "kills":
                bad += run_kills(bench, names, asked.count, asked.seed)
            else:
                bad += (run_disk if what == "disk" else run_memory)(bench, alone, asked.points)
        print(f"{bad} wrong")
    finally:
        shutil.rmtree(place)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
