"""Is a network better than the best classical method? Photograph by photograph, with intervals.

    python benchmarks/burst/classical_peer.py --photos KODAK --out peer.jsonl [--set grey-still] [--checkpoint swift]
        [--row align+mean ...] [--gain 1 ...] [--kinds second]

The protocol of `klarsicht burst evaluate`, exposure drawn, networks in float32. A cell that is in the file is not
measured again, so rows that take hours (bm3d: 73 CPU seconds a megapixel) can be added. The peer at a gain is the
classical row with the highest mean; the interval is of the mean difference over photographs (Student's t, 95 %).
--kinds: of DATA/imagenet-sample, a group of photographs_by_kind.GROUPS, frames of 144 x 192 pixels; then the network
less the peer by kind, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch

from further_peers import PEERS
from klarsicht.burst.evaluation.classical import CLASSICAL, Denoise
from klarsicht.burst.evaluation.comparison import SEED
from klarsicht.burst.evaluation.protocol import run_trial
from klarsicht.burst.network import checkpoints
from klarsicht.burst.network.inference import denoise_burst
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.photographs import read_folder
from klarsicht.numerics.imaging.sensor_noise import GAINS, noise_level
from klarsicht.numerics.statistics.intervals import mean_interval
from photographs_by_kind import GROUPS, read_group

ALL = CLASSICAL | PEERS
ROWS = ("single", "align+mean", "hdr+", "nlm", "bm3d", "align+mean+bm3d", "hdr++bm3d")
Cells = dict[tuple[str, str, int, int], dict]  # set, row, gain, photograph


def measured(made: BenchmarkSet, methods: dict[str, Denoise], gains: list[int], known: Cells) -> Iterator[dict]:
    for gain in gains:
        for row, denoise in methods.items():
            for k in range(len(made)):
                if (made.name, row, gain, k) not in known:
                    found = run_trial(denoise, made, k, noise_level(gain), random_exposure=True)
                    quality = {
                        "psnr": found.quality.psnr,
                        "path": found.quality.on_path,
                        "rest": found.quality.off_path,
                    }
                    yield {"set": made.name, "row": row, "gain": gain, "photograph": k, **quality}


def report(cells: Cells, network: str) -> None:
    for name in dict.fromkeys(key[0] for key in cells):
        for figure in ("psnr", "path", "rest"):
            for gain in sorted({key[2] for key in cells if key[0] == name}):
                rows = of_gain(cells, name, gain, figure)
                if network in rows and len(rows) > 1:
                    print(
                        f"{name}, {figure}, gain {gain}: {network} {rows[network].mean():.2f}; {against(rows, network)}"
                    )


def report_kinds(cells: Cells, network: str, kinds: list[str]) -> None:
    """Print the network less the peer of all photographs at a gain, for each kind of photograph."""
    for name, gain in sorted({(key[0], key[2]) for key in cells}):
        rows = of_gain(cells, name, gain, "psnr")
        peer = max((row for row in rows if row != network), key=lambda row: rows[row].mean())
        apart = rows[network] - rows[peer]
        for kind, part in zip(kinds, np.split(apart, len(kinds)), strict=True):
            over = mean_interval(part)
            figures = f"{over.value:+.2f} ({over.low:+.2f}, {over.high:+.2f}), least {part.min():+.2f}"
            print(f"{name}, gain {gain}, {kind}: over {peer} {figures}")


def of_gain(cells: Cells, name: str, gain: int, figure: str) -> dict[str, np.ndarray]:
    """By row, the figure of each photograph; of rows that have them all."""
    own = {key: cell[figure] for key, cell in cells.items() if (key[0], key[2]) == (name, gain)}
    photographs = sorted({key[3] for key in own})
    rows = {row: [own.get((name, row, gain, k)) for k in photographs] for row in dict.fromkeys(key[1] for key in own)}
    return {row: np.array(values) for row, values in rows.items() if None not in values}


def against(rows: dict[str, np.ndarray], network: str) -> str:
    """The best classical row, and how far above it the network is."""
    peer = max((row for row in rows if row != network), key=lambda row: rows[row].mean())
    cells = []
    for row in rows:
        if row != network:
            apart = mean_interval(rows[network] - rows[row])
            best = "best: " if row == peer else ""
            cells.append(
                f"{best}{row} {rows[row].mean():.2f}, {apart.value:+.2f} ({apart.low:+.2f}, {apart.high:+.2f})"
            )
    return "; ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", default="grey-still")
    parser.add_argument("--checkpoint", type=Path, default=Path("swift"))
    parser.add_argument("--row", action="append", choices=ALL)
    parser.add_argument("--gain", action="append", type=int, choices=list(GAINS))
    parser.add_argument("--kinds", choices=list(GROUPS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    cells: Cells = {(x["set"], x["row"], x["gain"], x["photograph"]): x for x in lines}
    shown = read_group(given.photos, given.kinds) if given.kinds else read_folder(given.photos)
    made = benchmark_set(given.set, shown.photographs, SEED, shown.geometry)
    network = partial(denoise_burst, checkpoints.load_network(given.checkpoint), exact=True)
    methods = {given.checkpoint.stem: network} | {row: ALL[row] for row in given.row or ROWS}
    with given.out.open("a") as file:
        for line in measured(made, methods, given.gain or list(GAINS), cells):
            cells[line["set"], line["row"], line["gain"], line["photograph"]] = line
            file.write(json.dumps(line) + "\n")
            file.flush()
    report(cells, given.checkpoint.stem)
    if given.kinds:
        report_kinds(cells, given.checkpoint.stem, list(GROUPS[given.kinds]))


if __name__ == "__main__":
    main()
