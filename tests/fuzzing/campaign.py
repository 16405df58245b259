"""Long fuzzing of every reader: `python -m tests.fuzzing.campaign --minutes 60`, from the root of the repository.

Mutants are read in child processes of a few hundred each, so that a crash of a foreign decoder, or memory without
bound, ends one child and not the campaign. The seed of every child is printed with what it found, and repeats it:
`--seed S --mutants N --minutes 0`. Faults are kept in the folder that `--keep` names. Exits 1 where there was one.
"""

from __future__ import annotations

import argparse
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

MUTANTS = 400  # of a child
SECONDS = 20  # for one mutant
MEMORY = 4 << 30  # bytes of address space beyond what the child has after its imports
FAULT = 70  # exit code of a child that found one


class TooSlow(Exception):
    """A reader took longer than SECONDS."""


def strike_many(seed: int, count: int, kinds: list[str], keep: Path) -> int:
    """Read mutants in this process, and return the number of faults."""
    from tests.fuzzing.readers import chosen, targets

    def stop(*_: Any) -> None:
        raise TooSlow(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    rng, faults, counts = np.random.default_rng(seed), 0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix="fuzzing-") as folder:
        some = chosen(targets(Path(folder)), kinds)
        names = sorted({one.name for one in some})
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        for i in range(count):
            kind = [one for one in some if one.name == names[i % len(names)]]
            target, before = kind[int(rng.integers(len(kind)))], _peak()
            (keep / f"now-{seed}").write_text(f"{i} {target.name}")
            signal.alarm(SECONDS)
            fault = target.strike(rng)
            signal.alarm(0)
            counts[target.name] += 1
            if _peak() - before > 1e9:
                print(f"seed {seed}, mutant {i}: {target.name} took {(_peak() - before) / 1e9:.1f} GB", flush=True)
            if fault is not None:
                faults += 1
                path = keep / f"{seed}-{i}-{fault.file.name}"
                path.write_bytes(fault.mutant)
                last = traceback.extract_tb(fault.error.__traceback__)[-1]
                ours = [f for f in traceback.extract_tb(fault.error.__traceback__) if "klarsicht" in f.filename]
                at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
                told = f"{type(fault.error).__name__}: {fault.error}".replace("\n", " ")[:160]
                print(f"FAULT {fault.target} {path.name} at {at} ({Path(last.filename).name}): {told}", flush=True)
    (keep / f"now-{seed}").unlink(missing_ok=True)
    print("counted " + " ".join(f"{name}={n}" for name, n in sorted(counts.items())), flush=True)
    return faults


def _peak() -> float:
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def campaign(minutes: float, first: int, count: int, kinds: list[str], keep: Path) -> int:
    """Run children until the time is over, and at least one; return the number of those that failed."""
    end, seed, failed, total = time.monotonic() + 60 * minutes, first, 0, Counter[str]()
    while True:
        command = [
            sys.executable,
            "-m",
            "tests.fuzzing.campaign",
            "--child",
            "--seed",
            str(seed),
            "--mutants",
            str(count),
        ]
        ran = subprocess.run(
            [*command, "--keep", str(keep), *kinds], capture_output=True, text=True, errors="replace", check=False
        )
        for line in ran.stdout.splitlines():
            if line.startswith("counted "):
                total.update({k: int(v) for k, v in (pair.split("=") for pair in line.split()[1:])})
            else:
                print(line, flush=True)
        if ran.returncode not in (0, FAULT):
            place = keep / f"now-{seed}"
            where = place.read_text() if place.exists() else "?"
            tail = " | ".join(ran.stderr.strip().splitlines()[-3:])
            print(f"CRASH seed {seed}, mutant {where}: exit {ran.returncode}: {tail}", flush=True)
        failed += ran.returncode != 0
        seed += 1
        if time.monotonic() >= end:
            break
    shown = ", ".join(f"{name} {n}" for name, n in sorted(total.items()))
    print(f"seeds {first} to {seed - 1}: {sum(total.values())} mutants ({shown}); children that failed: {failed}")
    return failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", help="of readers.targets; all by default")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first child; by default a new one")
    parser.add_argument("--mutants", type=int, default=MUTANTS)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "klarsicht-faults")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    if given.child:
        return FAULT if strike_many(given.seed, given.mutants, given.kinds, given.keep) else 0
    seed = secrets.randbelow(10**9) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    return min(campaign(given.minutes, seed, given.mutants, given.kinds, given.keep), 1)


if __name__ == "__main__":
    sys.exit(main())
