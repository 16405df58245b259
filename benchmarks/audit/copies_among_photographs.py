"""Recall and false pairs of `audit duplicates` on copies planted among ImageNet photographs of 32 px.

python benchmarks/audit/copies_among_photographs.py IMAGENET32 --images 20000 --copies 1500

Copies of three kinds: re-encoded as JPEG (quality 40 to 95), resized (.75 to 2.5, the sides by up to 5 % apart, JPEG
60 to 95), cropped (90 to 98.5 % of each side, anywhere, JPEG 60 to 95). All but an eighth of the copies are mirrored or
turned by quarter turns besides. Photographs begin at --first, so that others
than those that thresholds were chosen on can be taken. Pairs that nobody planted are written to --out as a picture.
"""

from __future__ import annotations

import argparse
import io
import tarfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from klarsicht.audit.explanation.duplicates import make_thumbnail
from klarsicht.numerics.imaging.copies import (
    COPY_CORRELATION,
    POSES,
    REGISTERED,
    TURNED_CORRELATION,
    UPRIGHT,
    Copies,
    correlate_details,
    find_candidates,
    lay,
)

KINDS = ("re-encoded", "resized", "cropped")
FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def photographs(folder: Path) -> list[Image.Image]:
    """Read all photographs, those of training first, by name."""
    found = []
    for name in ("train.tar", "val.tar"):
        with tarfile.open(folder / name) as archive:
            members = sorted((m for m in archive if m.isfile() and m.name.endswith(".JPEG")), key=lambda m: m.name)
            for member in members:
                content = archive.extractfile(member)
                assert content is not None
                found.append(Image.open(io.BytesIO(content.read())).convert("RGB"))
    return found


def encoded(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def copied(picture: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    width, height = picture.size
    if kind == "re-encoded":
        return encoded(picture, int(rng.integers(40, 96)))
    if kind == "resized":
        factor = rng.uniform(0.75, 2.5)
        size = (round(width * factor), round(height * factor * rng.uniform(0.95, 1.05)))
        return encoded(picture.resize(size, FILTERS[rng.integers(3)]), int(rng.integers(60, 96)))
    w, h = (max(1, round(side * share)) for side, share in zip(picture.size, rng.uniform(0.9, 0.985, 2), strict=True))
    x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    return encoded(picture.crop((x, y, x + w, y + h)), int(rng.integers(60, 96)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet32", type=Path)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--copies", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    pictures = photographs(asked.imagenet32)[asked.first : asked.first + asked.images]
    chosen = rng.permutation(len(pictures))[: asked.copies]
    copies = [copied(pictures[row], KINDS[i % 3], rng) for i, row in enumerate(chosen)]
    laid = rng.integers(0, POSES, len(copies))
    originals = np.stack([make_thumbnail(one) for one in pictures])
    n, thumbnails = len(pictures), np.concatenate([originals, lay(np.stack([make_thumbnail(c) for c in copies]), laid)])

    began = time.process_time()
    first, second, poses = find_candidates(thumbnails, range(len(thumbnails)))
    searched = time.process_time() - began
    parts = [slice(a, a + REGISTERED) for a in range(0, len(first), REGISTERED)]
    found = np.concatenate(
        [correlate_details(thumbnails[first[p]], lay(thumbnails[second[p]], poses[p])) for p in parts]
    )
    seconds = time.process_time() - began
    print(f"{len(thumbnails)} images: {len(first)} candidates in {searched:.0f} CPU s, all in {seconds:.0f} CPU s")

    bounds = COPY_CORRELATION, TURNED_CORRELATION
    best = Copies.of(np.stack([first, second], 1), found, poses).one_pose(bounds)
    called = {(int(i), int(j)) for i, j in best.select(best.reach(bounds)).pairs}
    value = dict(zip(map(tuple, best.pairs.tolist()), best.correlation.tolist(), strict=True))
    planted = {(int(row), n + i): KINDS[i % 3] for i, row in enumerate(chosen)}
    scores = {kind: np.array([value.get(p, 0.0) for p, k in planted.items() if k == kind]) for kind in KINDS}
    every = np.concatenate(list(scores.values()))
    for what, some in (("upright", laid == UPRIGHT), ("other", laid != UPRIGHT)):
        pairs = {(int(row), n + int(i)) for i, row in enumerate(chosen) if some[i]}
        print(f"called: {len(pairs & called)} of {len(pairs)} {what} copies")
    surprises = sorted(called - planted.keys())
    print(f"called, not planted: {sum(j < n for _, j in surprises)} pairs of originals, {len(surprises)} in all")
    for level in (0.75, 0.8, 0.85, 0.9):
        others = [pair for pair, v in value.items() if v >= level and pair not in planted]
        of_originals = [pair for pair in others if pair[1] < n]
        recall = ", ".join(f"{kind} {(some >= level).mean():.4f}" for kind, some in scores.items())
        print(f"at {level}: recall {(every >= level).mean():.4f} ({recall})")
        print(f"    not planted: {len(of_originals)} pairs of originals, {len(others) - len(of_originals)} with a copy")
    if asked.out:
        shown = sorted((pair for pair in value if pair[1] < n and value[pair] >= 0.6), key=lambda p: -value[p])[:60]
        rows = [np.hstack([np.asarray(pictures[i].resize((96, 96))) for i in pair]) for pair in shown]
        rows += [np.zeros((96, 192, 3), np.uint8)] * (-len(rows) % 6)
        Image.fromarray(np.vstack([np.hstack(rows[a : a + 6]) for a in range(0, len(rows), 6)])).save(asked.out)
        print([(pair, round(value[pair], 2)) for pair in shown])


if __name__ == "__main__":
    main()
