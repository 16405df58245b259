"""Is a group of images used by the network: groups with a disk that it learned or never saw, random and natural groups.

    python benchmarks/audit/group_use.py IMAGENET32 --seeds 0 10 --out groups.jsonl
    python benchmarks/audit/group_use.py IMAGENET32 --seeds 0 10 --out groups.jsonl --seen

A run has two ImageNet classes at 32 px; a small network is trained on 400 images of each. A disk of one
colour lies at a place of its own on a tenth of the first class: in even seeds before the training, in odd ones after
it. The group of the disk is four fifths of its images, and others as a fourth of these. Other groups are of the second
class: at random, and the clusters of k-means in thumbnails of 8 px; with --seen, those that the detectors of `audit
quantify` see. Last come groups of the second class that share a window of 8 px at one place, which is pasted
as a detector's would be: at random, and the clusters of k-means in what the window shows. A line of the file is a
group, with the true rise of the disk on the other 100 images of the second class.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import KMeans

import planted_classes as planted
from klarsicht.audit.explanation.models.inputs import PixelScale, shrink_levels
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.verdicts.detectors.bank import run_detectors
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.verdicts.interventions.group_use import (
    PasteTrial,
    SeenWindows,
    log_odds_of,
    measure_group_use,
    measure_windows_use,
)
from klarsicht.audit.verdicts.quantification.units import measure_few
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.split_half import combined_p, draw_halves

KNOWN, EPOCHS, SHARE, RANDOM, CLUSTERS = 400, 20, 0.1, 4, 8
SIZE = 26  # of random groups
DISK = (5, 7)  # pixels, least and largest radius
WINDOW = 8  # pixels a side
Group = tuple[str, int, np.ndarray, np.ndarray | None]  # kind, class, rows, corner of the window in pixels


def put_disk(image: np.ndarray, colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Put a disk of a radius and a place of its own on an image uint8 (32, 32, 3)."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    row, column = rng.integers(0, image.shape[0], 2)
    under = (y - row) ** 2 + (x - column) ** 2 <= rng.integers(DISK[0], DISK[1] + 1) ** 2
    return np.where(under[..., None], colour, image).astype(np.uint8)


def groups_of(images: np.ndarray, carriers: np.ndarray, seed: int, seen: bool) -> Iterator[Group]:
    rng = np.random.default_rng([43, seed])
    if not seen:
        true, others = rng.permutation(carriers), np.setdiff1d(np.arange(KNOWN), carriers)
        kept = true[: round(0.8 * len(true))]
        yield "disk", 0, np.concatenate([kept, rng.choice(others, len(kept) // 4, replace=False)]), None
        for _ in range(RANDOM):
            yield "random", 1, rng.choice(KNOWN, SIZE, replace=False), None
        small = shrink_levels(images[1, :KNOWN], 8).reshape(KNOWN, -1)
        number = KMeans(CLUSTERS, n_init=2, random_state=seed).fit_predict(small)
        yield from (("natural", 1, np.flatnonzero(number == k), None) for k in range(CLUSTERS))
        corner = rng.integers(0, images.shape[2] - WINDOW, 2)
        for _ in range(RANDOM):
            yield "window, random", 1, rng.choice(KNOWN, SIZE, replace=False), corner
        shown = images[1, :KNOWN, corner[0] : corner[0] + WINDOW, corner[1] : corner[1] + WINDOW]
        number = KMeans(CLUSTERS, n_init=2, random_state=seed).fit_predict(shown.reshape(KNOWN, -1))
        yield from (("window, alike", 1, np.flatnonzero(number == k), corner) for k in range(CLUSTERS))
        return
    known = images[:, :KNOWN]
    stacks, labels = [ImageStack(some) for some in known], np.repeat([0, 1], KNOWN)
    pool = ImageStack(known.reshape(-1, *known.shape[2:]))
    half = draw_halves(KNOWN, generator(seed, "halves", 1))
    of_class = ClassImages(stacks[1], pool, labels != 1, half, np.arange(KNOWN), seed)
    found, _ = measure_few(of_class, run_detectors(of_class))
    rows: list[set[int]] = []
    for sign in sorted(found, key=lambda sign: -sign.score):
        if combined_p(sign.score, len(found)) > LEVEL or len(rows) == 5:
            break
        mine = set(map(int, sign.members))
        if not any(len(mine & other) >= 0.5 * len(mine | other) for other in rows):
            rows.append(mine)
            yield f"seen: {sign.name}", 1, np.array(sorted(mine)), None


def measure(folder: Path, seed: int, seen: bool) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng([42, seed])
    _, images = planted.classes(folder, 2, seed)
    carriers = np.sort(rng.choice(KNOWN, round(SHARE * KNOWN), replace=False))
    marked, colour = images.copy(), rng.permutation([20, 120, 230])
    for row in carriers:
        marked[0, row] = put_disk(images[0, row], colour, rng)
    taught = (images if seed % 2 else marked)[:, :KNOWN]
    net = planted.fitted(taught.reshape(-1, *images.shape[2:]), np.repeat([0, 1], KNOWN), seed, EPOCHS)
    plain = images[1, KNOWN:]
    with_disk = np.stack([put_disk(image, colour, rng) for image in plain])
    true = float((log_odds_of(planted.logits(net, with_disk), 0) - log_odds_of(planted.logits(net, plain), 0)).mean())

    @torch.no_grad()
    def predict(inputs: torch.Tensor) -> np.ndarray:
        return net(inputs.contiguous(memory_format=torch.channels_last)).numpy()

    scale = PixelScale(np.zeros(3, np.float32), np.ones(3, np.float32))
    for number, (kind, label, rows, corner) in enumerate(groups_of(marked, carriers, seed, seen)):
        trial = PasteTrial(predict, scale, marked[label, :KNOWN], marked[1 - label, :KNOWN], label)
        begun = time.process_time()
        member, side = np.isin(np.arange(KNOWN), rows), images.shape[2]
        rng = np.random.default_rng([44, seed, number])
        if corner is None:
            use = measure_group_use(trial, member, rng)
        else:
            windows = SeenWindows(np.where(member[:, None], corner / side, np.nan), (WINDOW / side, WINDOW / side))
            use = measure_windows_use(trial, member, windows, rng)
        yield {
            "seed": seed, "kind": kind, "taught": not seed % 2, "n": len(rows),
            "true": true if kind == "disk" else None,
            "rise": use.rise.value, "low": use.rise.low, "high": use.rise.high, "placed": use.placed_share,
            "natural": use.natural.value, "spread": use.spread, "acts": use.acts, "used": use.is_used,
            "seconds": time.process_time() - begun,
        }  # fmt: skip


def table(lines: list[dict[str, Any]]) -> str:
    kinds = [("disk, taught", lambda x: x["kind"] == "disk" and x["taught"])]
    kinds += [("disk, put on after the training", lambda x: x["kind"] == "disk" and not x["taught"])]
    kinds += [
        (kind, lambda x, kind=kind: x["kind"].split(":")[0] == kind)
        for kind in ("random", "natural", "seen", "window, random", "window, alike")
    ]
    rows = ["| groups | act | used | median rise | true rise | CPU s each |", "|---|---|---|---|---|---|"]
    for name, chosen in kinds:
        if some := [x for x in lines if chosen(x)]:
            told = [f"{sum(x[key] for x in some)} of {len(some)}" for key in ("acts", "used")]
            rise = f"{np.nanmedian([x['rise'] for x in some]):+.2f}"
            true = f"{np.median([x['true'] for x in some]):+.2f}" if some[0]["true"] is not None else ""
            rows.append(f"| {name} | {told[0]} | {told[1]} | {rise} | {true} | "
                        f"{np.mean([x['seconds'] for x in some]):.1f} |")  # fmt: skip
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 10))
    parser.add_argument("--out", type=Path, default=Path("groups.jsonl"))
    parser.add_argument("--seen", action="store_true")
    given = parser.parse_args()
    lines = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {(x["seed"], x["kind"].startswith("seen")) for x in lines}
    for seed in range(*given.seeds):
        if (seed, given.seen) in done:
            continue
        new = list(measure(given.data, seed, given.seen))
        with given.out.open("a") as file:
            file.writelines(json.dumps(x) + "\n" for x in new)
        lines += new
        print(f"seed {seed}: {len(new)} groups", flush=True)
    print(table(lines))


if __name__ == "__main__":
    main()
