"""Random faults in mid-run: each command ends as an undisturbed one, or with one line and an exit code other than 0.
The same command again, without the fault, ends as an undisturbed one, to the byte.

python benchmarks/audit/random_faults.py --count 300 --place /dev/shm

Faults: images that the disk does not give from a call on, or for some calls; a disk that refuses to write; a device
that fails, for good or once; short memory; SIGKILL; a clock that jumps. Commands are forks, see `disturbed_runs`.
"""

from __future__ import annotations

import argparse
import errno
import functools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from disturbed_commands import COMMANDS, Command, differences, digest
from disturbed_runs import DONE, Bench

AUDIT_RUN = COMMANDS["audit run"].line
NAMES = (
    "audit run", "audit run --target all", "audit doctor", "audit duplicates", "audit quantify", "audit shortcuts",
    "audit check", "audit power", "audit clean", "audit clean --method augment", "audit evaluate", "audit clean-data",
    "audit plant", "burst denoise",
)  # fmt: skip
COMMANDS |= {
    "audit run --target all": Command(AUDIT_RUN.replace("--metric euclidean", "--target all")),
    "audit doctor": Command("audit doctor --model kills_model:network --data ../data"),
    "audit duplicates": Command("audit duplicates run", after="audit run"),
    "audit shortcuts": Command("audit shortcuts run --images 8", after="audit run"),
    "audit check": Command("audit check ../data/b/000.png ../data/a/001.png --run run", after="audit quantify"),
    "audit power": Command("audit power run --kind tag --prevalence 0.2 --classes 1", after="audit quantify"),
}
READ = (errno.ENOENT, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.EACCES, errno.ENODEV, errno.ETIMEDOUT)
WRITTEN = (errno.EIO, errno.ENOSPC, errno.ESTALE, errno.EROFS)
DEVICE = "CUDA error: an illegal memory access was encountered"
JUMP_S = 400 * 86_400.0
ONCE, FOR_GOOD = 1, 1 << 30  # calls for which a fault goes on


@dataclass
class Calls:
    """Calls of the places of this process that may fail; from a call of one of them on, an error is raised.

    Attributes:
        place: read, write, device, or clock.
        first: number of the call, from 1; 0: none fails.
        length: for how many calls it fails.
        error: makes the error; None: the process kills itself.
    """

    place: str = ""
    first: int = 0
    length: int = FOR_GOOD
    error: Callable[[], BaseException] | None = None

    def __post_init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def count(self, place: str) -> bool:
        """Count a call, and raise the error where it fails; tell whether the clock is in its jump."""
        self.counts[place] += 1
        if place != self.place or not 0 <= self.counts[place] - self.first < self.length or not self.first:
            return False
        if place == "clock":
            return True
        if self.error is None:
            os.killpg(os.getpgid(0), signal.SIGKILL)
        raise self.error()  # type: ignore[misc]

    def watch(self, inputs: Path) -> None:
        """Let the calls of this process be counted: files below a folder, fsync, networks, the clock."""
        import torch

        folders = {str(inputs / name) for name in ("data", "frames")}

        def inside(path: Any) -> bool:
            return isinstance(path, str | Path) and str(Path(path).resolve()).startswith(tuple(folders))

        def counted(function: Callable[..., Any], place: str, of_inputs: bool) -> Callable[..., Any]:
            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                if not of_inputs or inside(args[0]):
                    self.count(place)
                return function(*args, **kwargs)

            return call

        Path.open = counted(Path.open, "read", of_inputs=True)  # type: ignore[method-assign]
        os.fsync = counted(os.fsync, "write", of_inputs=False)
        torch.nn.Sequential.forward = counted(torch.nn.Sequential.forward, "device", of_inputs=False)  # type: ignore[method-assign] - the fault is put in here
        now = time.time
        time.time = lambda: now() + (JUMP_S if self.count("clock") else 0.0)


def write_counts(calls: Calls, inputs: Path, file: Path) -> None:
    """Count the calls of a fork, and write their numbers when it ends."""
    import atexit

    calls.watch(inputs)
    atexit.register(lambda: file.write_text(json.dumps(calls.counts)))


def draw_fault(counts: dict[str, int], rng: random.Random) -> tuple[str, Calls]:
    """Draw a fault among those that a command can meet, and its moment."""
    kinds: dict[str, tuple[str, int, Callable[[], BaseException] | None]] = {}
    number, refusal = rng.choice(READ), rng.choice(WRITTEN)
    lasting = rng.choice((ONCE, 3, FOR_GOOD))
    kinds["disk, read"] = "read", lasting, lambda: OSError(number, os.strerror(number))
    kinds["disk, write"] = "write", lasting, lambda: OSError(refusal, os.strerror(refusal))
    kinds["device"] = "device", rng.choice((ONCE, 2, FOR_GOOD, FOR_GOOD)), lambda: RuntimeError(DEVICE)
    kinds["memory"] = (
        "read",
        lasting,
        MemoryError,
    )  # a network that runs short is given smaller batches: other last bits
    kinds["kill"] = rng.choice(("read", "write", "device")), ONCE, None
    kinds["clock"] = "clock", lasting, lambda: AssertionError()
    possible = [name for name, (place, *_) in kinds.items() if counts.get(place)]
    name = rng.choice(possible)
    place, length, error = kinds[name]
    first = rng.randint(1, counts[place])
    detail = {"disk, read": os.strerror(number), "disk, write": os.strerror(refusal)}.get(name, "")
    told = f"{name} {detail} at call {first} of {counts[place]} ({place}), {'for good' if length > 9 else f'{length}'}"
    return told, Calls(place, first, length, error)


def disturb(bench: Bench, name: str, counts: dict[str, int], rng: random.Random) -> tuple[str, list[str]]:
    """Disturb a command once, and give it again. Returns what was done, and what is wrong with it."""
    told, calls = draw_fault(counts, rng)
    bench.reset(name)
    ended = bench.start(name, lambda: calls.watch(bench.place)).wait()
    output = bench.place.joinpath("stderr").read_text()
    if ended is None:
        return told, ["it does not end"]
    wrong = ["a traceback: " + output[-900:]] if "Traceback" in output else []
    if ended.code in DONE and (apart := differences(digest(bench.here), bench.whole[name])):
        wrong.append(f"exit code {ended.code}, and other bytes: {apart[:5]}")
    elif ended.code not in (*DONE, -signal.SIGKILL) and not ended.lines:  # others say what a command is about to do
        wrong.append(f"no line: {ended}")
    return f"{told}: code {ended.code}", wrong + bench.resumed(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--only", nargs="*", default=[*NAMES], help="commands")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=options.place))
    rng, kinds, bad, began = random.Random(options.seed), Counter[str](), 0, 0.0
    try:
        bench = Bench(place, options.only)
        counts = {}
        for name in options.only:
            bench.reset(name)
            bench.start(name, lambda: write_counts(Calls(), place, place / "calls")).wait()
            counts[name] = json.loads((place / "calls").read_text())
        began = time.monotonic()
        for i in range(options.count):
            name = options.only[i % len(options.only)]
            told, wrong = disturb(bench, name, counts[name], rng)
            kinds[told.split(" ")[0].strip(",:")] += 1
            bad += bool(wrong)
            print(f"{i + 1}: {name}: {told}: {'; '.join(wrong) if wrong else 'as promised'}", flush=True)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    minutes = (time.monotonic() - began) / 60
    print(
        f"{dict(kinds)}; {options.count - bad} of {options.count} as promised, {options.count / minutes:.0f} a minute"
    )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
