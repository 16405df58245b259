"""False alarms and finds of `audit quantify` on aligned images of two classes: what windows are called there.

    python benchmarks/audit/aligned_classes.py CLASS_FOLDER ... --splits 30 --out splits.jsonl
    python benchmarks/audit/aligned_classes.py CLASS_FOLDER ... --plant 8 --jitter 3 --splits 10 --out planted.jsonl
    python benchmarks/audit/aligned_classes.py CLASS_FOLDER CLASS_FOLDER --pairs 5 --out pairs.jsonl
    python benchmarks/audit/aligned_classes.py --digits --splits 3 --out digits.jsonl

With --splits a class is divided at random into two, which no artifact tells apart: each is examined beside the other.
With --plant a black box with a white letter is put on so many images of the first half, with --jitter at a place that
varies by so many pixels of 224 in both directions. With --pairs, --each images are drawn of every two classes, as they
are: a find may be true, so --pictures FOLDER draws the members. One line an examination: p, the p of what is left,
whether it is called at the level, the detection, its members, and how many of them were planted. --digits takes the
classes of scikit-learn's digits in place of folders. Images are grey, 224 px, the centre of the file.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from klarsicht.audit.results.significance import APART_P, LEVEL
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.audit.verdicts.detectors.natural_windows import measure_alignment
from klarsicht.audit.verdicts.detectors.patch_matches import grey
from klarsicht.audit.verdicts.detectors.reference_classes import compare_aligned
from klarsicht.audit.verdicts.quantification.units import THUMBNAIL
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.near_duplicates import first_duplicates
from klarsicht.numerics.statistics.split_half import draw_halves

SIDE = 224
BOX, CORNER, LETTER = (24, 20), (12, 186), "R"  # height and width, upper left pixel, and what is written
Pixels = NDArray[np.uint8]


def read_image(path: Path) -> Pixels:
    """The centre of an image file, grey (SIDE, SIDE)."""
    with Image.open(path) as opened:
        image = opened.convert("L")
    scale = SIDE / min(image.size)
    image = image.resize([max(SIDE, round(scale * side)) for side in image.size], Image.Resampling.BILINEAR)
    left, top = ((side - SIDE) // 2 for side in image.size)
    return np.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def read_classes(folders: list[Path], digits: bool, most: int) -> dict[str, Pixels]:
    """At most `most` images (n, H, W, 1) of each class by its name."""
    if digits:
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        levels = (images.reshape(-1, 8, 8, 1) * 255 / 16).astype(np.uint8)
        return {f"digit {k}": levels[labels == k] for k in range(10)}
    classes = {}
    for folder in folders:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        some = np.sort(generator(0, f"aligned classes {folder.name}").permutation(len(files))[:most])
        classes[folder.name] = np.stack([read_image(files[i]) for i in some])[..., None]
    return classes


def without_repeats(levels: Pixels) -> Pixels:
    """Leave out images that repeat another, as `audit quantify` does."""
    first = first_duplicates(grey(ImageStack(levels).shrunk_to(THUMBNAIL)))
    return levels[first == np.arange(len(levels))]


def put_box(image: Pixels, jitter: int, rng: np.random.Generator) -> Pixels:
    """Put a black box with a white letter on an image (H, W, 1)."""
    top, left = (int(at + rng.integers(-jitter, jitter + 1)) for at in CORNER)
    drawn = Image.fromarray(image[..., 0])
    draw = ImageDraw.Draw(drawn)
    draw.rectangle([left, top, left + BOX[1] - 1, top + BOX[0] - 1], fill=0)
    draw.text((left + 4, top + 2), LETTER, fill=255, font=ImageFont.load_default(18))
    return np.asarray(drawn)[..., None]


def examine(own: Pixels, other: Pixels, seed: int) -> tuple[dict, NDArray[np.intp], tuple]:
    """Examine a class beside another: the figures, the members, and the window of the first."""
    n, pool = len(own), np.concatenate([own, other])
    half = draw_halves(n, generator(seed, "halves"))
    images = ClassImages(
        ImageStack(own), ImageStack(pool), np.arange(len(pool)) >= n, half, np.arange(n), seed, aligned=True
    )
    found, beside = compare_aligned(images)
    best = next(one for one in found if one.name == beside.sign)
    called = bool(beside.p <= LEVEL and beside.left > APART_P)
    told = {"n": n, "others": len(other), "p": beside.p, "left": beside.left, "called": called, "sign": best.name}
    told |= {"score": best.score, "members": len(best.members)}
    return told, best.members, best.places


def halves(classes: dict[str, Pixels], args: argparse.Namespace) -> Iterator[tuple]:
    """Yield (name, seed, own, other, planted) of random halves of each class."""
    for seed in range(args.first, args.first + args.splits):
        for name, levels in classes.items():
            rng = generator(seed, f"split {name}")
            order = rng.permutation(len(levels))[: 2 * args.each]
            own, other = (levels[np.sort(part)] for part in np.array_split(order, 2))
            planted = np.sort(rng.permutation(len(own))[: args.plant])
            if args.plant:
                own = own.copy()
                own[planted] = [put_box(own[i], args.jitter, rng) for i in planted]
            yield name, seed, own, other, planted


def pairs(classes: dict[str, Pixels], args: argparse.Namespace) -> Iterator[tuple]:
    """Yield the same of every two classes, as they are."""
    for seed in range(args.first, args.first + args.pairs):
        rng = generator(seed, "pairs")
        drawn = {name: levels[np.sort(rng.permutation(len(levels))[: args.each])] for name, levels in classes.items()}
        for one, two in permutations(classes, 2):
            yield f"{one} beside {two}", seed, drawn[one], drawn[two], np.zeros(0, np.intp)


def draw_members(own: Pixels, members: NDArray[np.intp], file: Path) -> None:
    """Draw the first members side by side."""
    shown = np.concatenate([own[i, ..., 0] for i in members[:12]], 1)
    Image.fromarray(shown).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--digits", action="store_true")
    parser.add_argument("--splits", type=int, default=0)
    parser.add_argument("--pairs", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="first seed; those below 100 are to develop on")
    parser.add_argument("--each", type=int, default=123, help="images of a class, at most")
    parser.add_argument("--most", type=int, default=800, help="images that are read of a folder, at most")
    parser.add_argument("--plant", type=int, default=0)
    parser.add_argument("--jitter", type=int, default=0)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    classes = {name: without_repeats(some) for name, some in read_classes(args.folders, args.digits, args.most).items()}
    for name, levels in classes.items():
        print(f"{name}: {len(levels)} images, details correlate {measure_alignment(levels[:200]):.3f}", flush=True)
    counts: dict[str, list[bool]] = {}
    with args.out.open("a") as out:
        for name, seed, own, other, planted in (*halves(classes, args), *pairs(classes, args)):
            start = time.process_time()
            told, members, _ = examine(own, other, seed)
            told |= {"class": name, "seed": seed, "planted": len(planted), "jitter": args.jitter}
            told |= {"right": len(np.intersect1d(members, planted)), "seconds": round(time.process_time() - start, 2)}
            print(json.dumps(told), file=out, flush=True)
            counts.setdefault(name, []).append(told["called"])
            if args.pictures and told["called"]:
                args.pictures.mkdir(exist_ok=True)
                draw_members(own, members, args.pictures / f"{name}-{seed}.png")
    for name, some in counts.items():
        print(f"{name}: {sum(some)} of {len(some)} called")
    every = [one for some in counts.values() for one in some]
    print(f"all: {sum(every)} of {len(every)} called")


if __name__ == "__main__":
    main()
