"""SIGKILL `audit run` at random moments, resume it, and compare every byte of the result with an undisturbed run.

python benchmarks/audit/kill_and_resume.py --kills 20
"""

from __future__ import annotations

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import zarr

sys.path.insert(0, str(Path(__file__).parent))

IMAGES = 2000
MODEL = """
import sys, torch
sys.path.insert(0, {here!r})
import fashion
def net():
    return fashion.network(0).eval()
"""


def prepare(folder: Path) -> None:
    import fashion

    x, y = fashion.pictures("train")
    fashion.write(folder / "data", x[:IMAGES], y[:IMAGES])
    (folder / "small.py").write_text(MODEL.format(here=str(Path(__file__).parent)))


def command(out: str, workers: int) -> list[str]:
    options = f"--model small:net --data data --out {out} --metric euclidean --metric concept --unit 100 --batch 20"
    return [sys.executable, "-m", "klarsicht", "audit", "run", *options.split(), "--workers", str(workers)]


def digest(run: Path) -> dict[str, str]:
    """A hash of every result: arrays by content, other files by bytes; manifest and marks hold dates."""
    found = {}
    for path in sorted((run / "arrays.zarr").iterdir()):
        if path.is_dir():
            found[path.name] = hashlib.sha256(np.asarray(zarr.open_array(path)[:]).tobytes()).hexdigest()
    for path in sorted([*run.glob("*.json"), *run.rglob("*.parquet"), *run.rglob("*.jpg")]):
        if path.name != "manifest.json":
            found[str(path.relative_to(run))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def kill_once(folder: Path, out: str, moment: float, workers: int) -> bool:
    """Starts the audit and kills its whole process group after `moment` seconds; False if it was done before."""
    process = subprocess.Popen(
        command(out, workers),
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(moment)
        return False
    except subprocess.TimeoutExpired:
        import os

        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        prepare(folder)
        began = time.monotonic()
        subprocess.run(command("whole", asked.workers), cwd=folder, check=True, stdout=subprocess.DEVNULL)
        length = time.monotonic() - began
        whole, same, killed = digest(folder / "whole"), 0, 0
        for i in range(asked.kills):
            out = f"killed{i}"
            killed += kill_once(folder, out, rng.uniform(0.1, 0.95) * length, asked.workers)
            subprocess.run(command(out, asked.workers), cwd=folder, check=True, stdout=subprocess.DEVNULL)
            same += digest(folder / out) == whole
            print(f"kill {i + 1}: {'identical' if digest(folder / out) == whole else 'DIFFERENT'}", flush=True)
    print(f"{killed} of {asked.kills} runs killed; {same} of {asked.kills} bit-identical ({len(whole)} results each)")
    sys.exit(same != asked.kills)


if __name__ == "__main__":
    main()
