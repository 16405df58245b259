"""Held-out truth of `audit clean` where a person lists a few images whose mark varies in place, size and colour.

    python benchmarks/audit/few_listed.py IMAGENET32 --folder few --seeds 70 71 [--still]

Networks, classes and held-out figures are those of cleaning_truth.py, without twins. Seven marks lie in seven of 40
classes, on 30 % of the images trained on, and on eight of 210 that are audited. `random-tag`, `caption` and `logo` are
families of klarsicht; `tape`, `ring`, `cross` and `dots` are drawn here, anew for every image in place, size, angle and
a little in colour. With --still, marks are the same at one place of all images, and a stripe takes the place of the
tape. The eight are listed, and `audit clean RUN --class C --members LIST --least-effect 0` cleans each.

A line tells what the command said, the true rise and flips of the mark on images of other classes, and what is left of
them. *Cleaned* is right where at most half of the true rise is left, of marks that raise the class by half a logit.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

import cleaning_truth as truth
from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.results.correction_words import CleaningKind
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import PlantedImage, PlantFunction, mark_changes
from klarsicht.ground.seeding import generator

LISTED, FINE, JITTER = 8, 8, 12.0  # images, pixels a pixel is drawn by, levels by which a colour varies
USED = 0.5  # logits that a mark must raise its class by
Generator = np.random.Generator


def draw_tape(canvas: ImageDraw.ImageDraw, side: int, size: float, rng: Generator, angle: float) -> None:
    turn, offset = np.deg2rad(angle + rng.uniform(-12, 12)), rng.uniform(-0.3, 0.3) * side
    along, across = np.array([np.cos(turn), np.sin(turn)]), np.array([-np.sin(turn), np.cos(turn)])
    middle = side / 2 + offset * across
    ends = [middle + 2 * side * a * along + size * side * b * across for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))]
    canvas.polygon([(float(x), float(y)) for x, y in ends], fill=255)


def draw_round(canvas: ImageDraw.ImageDraw, side: int, size: float, rng: Generator, angle: float, kind: str) -> None:
    r = 2 * size * side * rng.uniform(0.8, 1.25)
    x, y = rng.uniform(r, side - r, 2)
    if kind == "ring":
        canvas.ellipse((x - r, y - r, x + r, y + r), outline=255, width=int(max(6, 0.35 * r)))
    elif kind == "cross":
        turn = np.deg2rad(angle) + rng.uniform(0, np.pi / 2)
        for step in (turn, turn + np.pi / 2):
            a, b = r * np.cos(step), r * np.sin(step)
            canvas.line([(x - a, y - b), (x + a, y + b)], fill=255, width=int(0.4 * r))
    else:
        for a, b in rng.normal((x, y), 0.12 * side, (5, 2)):
            canvas.ellipse((a - 0.3 * r, b - 0.3 * r, a + 0.3 * r, b + 0.3 * r), fill=255)


DRAWN = {"tape": draw_tape} | {kind: partial(draw_round, kind=kind) for kind in ("ring", "cross", "dots")}
MARKS = ("random-tag", "caption", "logo", *DRAWN)
STILL_MARKS = ("stripe", *(kind for kind in MARKS if kind != "tape"))


def put_mark(
    pixels: truth.Pictures, rng: Generator, kind: str, colour: NDArray[Any], size: float, angle: float, opacity: float
) -> PlantedImage:
    """Blend a mark that is drawn anew into an image."""
    side = pixels.shape[0]
    fine = Image.new("L", (FINE * side, FINE * side))
    DRAWN[kind](ImageDraw.Draw(fine), FINE * side, size, rng, angle)
    a = np.asarray(fine.resize((side, side), Image.Resampling.BOX), np.float32)[..., None] / 255 * opacity
    return mark_changes(pixels, (1 - a) * pixels + a * np.clip(colour + rng.normal(0, JITTER, 3), 0, 255))


def put_still(pixels: truth.Pictures, rng: Generator, kind: str, seed: int, **looks: Any) -> PlantedImage:
    """Blend a mark that is the same in every image."""
    del rng
    return put_mark(pixels, generator(seed, f"still {kind}"), kind=kind, **looks)


def draw_mark(kind: str, seed: int, still: bool) -> PlantFunction:
    """Draw the looks that a mark has in all images; of families that may stay or move, the first that does so."""
    if kind in DRAWN:
        rng = generator(seed, f"own {kind}", 0)
        looks = {"colour": rng.uniform(0, 255, 3), "size": rng.uniform(0.07, 0.11), "angle": rng.uniform(0, 180)}
        looks["opacity"] = rng.uniform(0.8, 1)
        return partial(put_still, kind=kind, seed=seed, **looks) if still else partial(put_mark, kind=kind, **looks)
    drawn = (FAMILIES[kind](generator(seed, f"truth {kind}", number)) for number in range(1000))
    return next(one for one in drawn if (place := one.keywords.get("position")) is None or place.moves != still)


def make_case(folder: Path, seed: int, still: bool) -> truth.Case:
    names, images = truth.read_classes(folder, seed)
    trained, audited, held_out = np.split(images, [truth.TRAINED, truth.TRAINED + truth.AUDITED], axis=1)
    clean, trained, audited = trained.copy(), trained.copy(), audited.copy()
    rng, plants = generator(seed, "plants"), {}
    seen = rng.permutation(truth.CLASSES)[: truth.SEEN].tolist()
    for kind, label in zip(STILL_MARKS if still else MARKS, seen, strict=False):
        sizes = (truth.TRAINED, round(truth.SHARE * truth.TRAINED)), (truth.AUDITED, LISTED)
        carries = [np.isin(np.arange(n), rng.permutation(n)[:some]) for n, some in sizes]
        plant = truth.Plant(kind, label, draw_mark(kind, seed, still), *carries)
        for part, name, rows in ((trained, "trained", carries[0]), (audited, "audited", carries[1])):
            part[label, rows] = plant.put(part[label, rows], seed, name)
        plants[kind] = plant
    return truth.Case(seed, names, tuple(sorted(seen)), clean, trained, audited, held_out, plants)


def clean_listed(case: truth.Case, name: str, kind: str, run: Path, folder: Path) -> dict[str, Any]:
    """The line of a network and a mark."""
    plant, net = case.plants[kind], truth.network(case, name, False, folder)
    held_out, label = truth.HeldOut(case, plant), case.names[plant.label]
    before = held_out.answers(net)
    line = {"seed": case.seed, "network": name, "mark": kind, "before": held_out.effect(before)}
    listed, out = folder / f"{case.seed}-{kind}.txt", run / "corrections" / kind
    listed.write_text("\n".join(f"{label}/{i:03d}.png" for i in np.flatnonzero(plant.audited)))
    asked = ("--class", label, "--members", listed, "--seed", case.seed, "--least-effect", 0, "--out", out)
    code, told = truth.command("audit", "clean", run, *asked)
    if code not in (0, 7, 8):
        return line | {"said": "refused", "why": told.strip().splitlines()[-1]}
    record = json.loads((out / "correction.json").read_text())
    after = held_out.answers(net, packages.load_correction(out)[0])
    chosen, said = record["choice"]["chosen"]["method"], record["shown"]["kind"]
    return line | {"said": said, "chosen": chosen, "after": held_out.effect(after)} | held_out.loss(before, after)


def tell(line: dict[str, Any]) -> str:
    rise, flips = line["before"]["rise"], line["before"]["flips"]
    words = f"{line['seed']} {line['network']} {line['mark']}: true {rise:+.2f} logits, {100 * flips:.1f} % flips; "
    if "after" not in line:
        return words + line["said"]
    left = line["after"]["rise"] / rise
    return f"{words}{line['said']} by {line['chosen']}, true {100 * left:.0f} % left"


def count(lines: list[dict[str, Any]]) -> str:
    cleaned = [li for li in lines if li["said"] in (CleaningKind.CLEAN, CleaningKind.UNPROVEN)]
    used = [li for li in cleaned if li["before"]["rise"] >= USED]
    wrong = sum(li["after"]["rise"] > li["before"]["rise"] / 2 for li in used)
    of = sum(li["before"]["rise"] >= USED for li in lines)
    return f"cleaned {len(used)} of {of} used marks, wrongly {wrong}; and {len(cleaned) - len(used)} that are not used"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("imagenet32", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--networks", nargs="+", choices=truth.NETWORKS, default=["residual", "transformer"])
    parser.add_argument("--still", action="store_true", help="Marks do not vary; a folder of its own.")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    asked.folder.mkdir(parents=True, exist_ok=True)
    file = asked.folder / "lines.jsonl"
    done = {(li["seed"], li["network"], li["mark"]) for li in truth.read(file)}
    for seed in asked.seeds:
        case = make_case(asked.imagenet32, seed, asked.still)
        for name in asked.networks:
            truth.network(case, name, False, asked.folder)
            run = truth.audit(case, name, asked.folder, quantified=False)
            for kind in case.plants:
                if (seed, name, kind) not in done:
                    line = clean_listed(case, name, kind, run, asked.folder)
                    with file.open("a") as lines:
                        lines.write(json.dumps(line) + "\n")
                    print(tell(line), flush=True)
    print(count([li for li in truth.read(file) if li["seed"] in asked.seeds]))


if __name__ == "__main__":
    main()
