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
import functools
import importlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from disturbed_commands import COMMANDS, differences, digest
from disturbed_runs import DONE, Aim, Bench, command_line, in_workers

WORKERS_GONE_S = 5.0


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
