"""Ghosts without ground truth: which measure of a pixel's kernels finds what a denoiser copied from moved objects?

    python benchmarks/bridge/ghosts.py KODAK24 --seed 7 --first 4 --count 4

Bursts of eight frames (160 x 224 pixels, RGB) of a photograph, in front of which three ellipses of the next photograph
move: seen in all frames (moving), or only before or after some frame (occluded). Frames are shifted as in the protocol,
at two gains. Two truths, both of the planting and of clean frames, which no measure sees:

    ghost   the output of the burst's own kernels on clean frames, less that on clean frames in which the objects were
            held still where the reference shows them, is above a quarter of a deviation of the reference's noise
    moved   clean frames, aligned alike, differ from those by more than a deviation in any frame

For each measure the average precision over all points of a grid, of all bursts together, in the better direction for
entropy, sum and share. Of the points that the audit calls copies the share that are ghosts, that of the ghosts that
are called, and that of points far from any motion that are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score

from klarsicht.bridge.kernel_measures import MEASURES, mark_copies, measure_pixels, weigh_burst
from klarsicht.burst.align.alignment import align
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.burst.network.unet import Network
from klarsicht.burst.synthesis import motion, scenes
from klarsicht.burst.synthesis.scenes import Geometry, Light
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel, noise_level

GEOMETRY = Geometry(scale=2, height=160, width=224, reach=16)
FRAMES, OBJECTS, STEP = 8, 3, 4
GAINS = (1, 4)
VISIBLE = {"moving": motion.always_visible, "occluded": motion.partly_visible}
GHOST, MOVED, STILL = 0.25, 1.0, 0.05
SHOWN = ("copied light", "change", "disagreement", "reference share", "entropy", "sum")


def middle(scene: Light) -> Light:
    """The central crop of a scene, upright scenes turned on their side."""
    wide = scene if scene.shape[1] < scene.shape[2] else scene.swapaxes(1, 2)
    height, width = GEOMETRY.crop
    y, x = (wide.shape[1] - height) // 2, (wide.shape[2] - width) // 2
    return np.ascontiguousarray(wide[:, y : y + height, x : x + width])


def burst_rows(network: Network, scene: Light, other: Light, kind: str, level: NoiseLevel, rng: np.random.Generator):
    """Measures (G, m), and per point the size of the ghost and of the motion, in deviations of noise."""
    path = motion.protocol_camera(rng, FRAMES, GEOMETRY)
    movers = tuple(motion.draw_mover(rng, other, FRAMES, GEOMETRY, VISIBLE[kind](rng, FRAMES)) for _ in range(OBJECTS))
    clean, held = (
        np.stack([
            motion.render_frame(motion.composite_movers(scene, movers, i if moves else 0), path, i, GEOMETRY)
            for i in range(FRAMES)
        ])
        for moves in (True, False)
    )  # fmt: skip
    burst = Burst(level.sample(clean, rng), level)
    frames = torch.from_numpy(burst.frames)[None]
    read, shot = (torch.tensor([one]) for one in (level.read, level.shot))
    alignment = align(frames, read, shot, torch.ones(1, FRAMES, dtype=torch.bool))
    still, seen = (alignment.apply(torch.from_numpy(one)[None])[0].numpy() for one in (held, clean))
    weights = weigh_burst(network, burst)
    deviation = level.deviation(clean[0])
    ghost = np.sqrt(np.square((weights(seen) - weights(still)) / deviation).mean(0))
    moved = np.sqrt(np.square((seen - still) / deviation).mean(1).max(0))
    rows, columns = (range(STEP, side, STEP) for side in (GEOMETRY.height, GEOMETRY.width))
    y, x = (axis.ravel().tolist() for axis in np.meshgrid(rows, columns, indexing="ij"))
    return measure_pixels(weights, y, x), ghost[y, x], moved[y, x]


def precision(truth: NDArray[np.bool_], name: str, rows: NDArray[np.float64]) -> float:
    """Average precision of a measure; of what has no direction that of the better one."""
    values = rows[:, MEASURES.index(name)]
    found = [average_precision_score(truth, sign * values) for sign in (1, -1)]
    return max(found) if name in ("entropy", "sum", "reference share") else found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--checkpoint", default="swift")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=1, help="number of the first photograph")
    parser.add_argument("--count", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(asked.photographs.glob("*.png"))[asked.first - 1 : asked.first - 1 + asked.count]
    light = [scenes.rgb_light(np.asarray(Image.open(file).convert("RGB"))) for file in files]
    network, print_header = load_network(asked.checkpoint), True
    everything = []
    for kind in VISIBLE:
        for gain in GAINS:
            parts = []
            for k, scene in enumerate(light):
                rng = np.random.default_rng([asked.seed, k])
                other = light[(k + 1) % len(light)]
                parts.append(burst_rows(network, middle(scene), other, kind, noise_level(gain), rng))
            everything.append(parts)
            print_header = report(f"{kind}, gain {gain}", parts, print_header)
    report("all", [part for parts in everything for part in parts], print_header)


def report(name: str, parts: list, header: bool) -> bool:
    """Print one row for each truth; the header first, where it is wanted."""
    rows, ghost, moved = (np.concatenate([part[i] for part in parts]) for i in range(3))
    if header:
        print(f"| bursts | truth | points | {' | '.join(SHOWN)} | called | found | still |")
        print("|---" * (len(SHOWN) + 6) + "|")
    still = (moved < STILL) & (ghost < STILL)
    called = mark_copies(rows)
    for truth, marked in (("ghost", ghost > GHOST), ("moved", moved > MOVED)):
        cells = " | ".join(f"{precision(marked, one, rows):.2f}" for one in SHOWN)
        test = f"{marked[called].mean():.2f} | {called[marked].mean():.2f} | {called[still].mean():.5f}"
        print(f"| {name} | {truth} | {marked.mean():.3f} | {cells} | {test} |", flush=True)
    return False


if __name__ == "__main__":
    main()
