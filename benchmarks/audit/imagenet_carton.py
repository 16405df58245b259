"""Three ImageNet networks take Chinese characters for a carton: `audit clean --kind glyphs`, and what it leaves.

    PYTHONPATH=NETWORKS python benchmarks/audit/imagenet_carton.py PHOTOGRAPHS --out OUT --develop
    PYTHONPATH=NETWORKS python benchmarks/audit/imagenet_carton.py PHOTOGRAPHS --out OUT

PHOTOGRAPHS is a folder of photographs of many classes (500 of ImageNet here), NETWORKS a folder with a module
`networks`. One half is audited for "carton", and the correction is fitted, chosen and shown on three parts of that
half: no photograph carries the mark; characters are put on copies. Measured once on the other half, with characters of
other components than those that were put on, each photograph with and without:

    uplift      median over photographs of P(carton | marked) / P(carton)
    any class   the same of the middle one of the other classes: a mark covers what a photograph shows
    ratio       of these two, with an interval over photographs (bootstrap)
    top-1, lost on the photographs as they are; against the model as it is, photograph by photograph
    under       top-1 with the mark

The correction is at the head: `audit clean` chooses method, directions and strength there. --develop measures on the
part of the first half that is shown, and was not fitted or chosen on, instead.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import special

sys.path.insert(0, str(Path(__file__).parent))
import imagenet_marks as marks
from carton import CARTON, label
from imagenet_artifacts import NAMES_FROM, NETWORKS, halves
from klarsicht.audit.cleaning.corrections.activations import Correction, compute_logits
from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.synthetic import artifacts, glyphs
from klarsicht.ground.errors import KlarsichtError
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.paired_loss import paired_loss

KIND = "glyphs"
UNSEEN: tuple[glyphs.Strokes, ...] = (
    glyphs.compose_left_right("王", "中"), glyphs.compose_left_right("口", "不"), glyphs.compose_left_right("米", "工"),
    glyphs.compose_left_right("目", "人"), glyphs.compose_above_below("口", "王"),
    glyphs.compose_above_below("中", "田"),
    glyphs.compose_above_below("工", "目"), glyphs.compose_above_below("米", "口"), glyphs.compose_enclosed("人"),
    glyphs.compose_enclosed("米"),
)  # fmt: skip
BLACK = marks.written("Chinese characters", "two rows of", marks.COLOURS["black"], 0.7)
LOOKS = {
    "white": lambda pixels, rng: artifacts.glyphs(pixels, rng, alphabet=UNSEEN).pixels,
    "black": BLACK,
}
"""Marks that are measured: white characters of other components; black ones, three tenths transparent."""
RESAMPLED = 300


@dataclass(frozen=True)
class KnownArtifact:
    """A kind or family of `audit plant` that raises a class, and the marks, by name, that are measured."""

    target: str
    kind: str
    looks: Mapping[str, marks.Mark]


CHARACTERS = KnownArtifact(CARTON, KIND, LOOKS)
HEAD, ANY = "head", "any"  # layers by these names: the network's last one, and that which the command chooses


def named(network: str) -> Classifier:
    """A network whose outputs have the names of ImageNet's classes."""
    names = list(load_model(NETWORKS[NAMES_FROM]).classes or ())
    if network == NAMES_FROM:
        return load_model(NETWORKS[network])
    import networks

    module, transform = getattr(networks, NETWORKS[network].partition(":")[2])()
    outputs = load_model((module, transform)).logits(torch.zeros(1, 3, 224, 224)).shape[1]
    return load_model((module, transform), classes=["background"] * (outputs - len(names)) + names)


def write_manifest(files: Sequence[Path], out: Path) -> Path:
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as handle:
        lines = csv.writer(handle)
        lines.writerow(["path", "label"])
        lines.writerows([path, label(path)] for path in files)
    return out


def uplifts(before: np.ndarray, after: np.ndarray, target: int) -> tuple[float, float, int]:
    """Uplift of the target, that of the middle one of the other classes, and the target's rank."""
    rises = np.median(special.log_softmax(after, 1) - special.log_softmax(before, 1), 0)
    middle = np.median(np.delete(rises, target))
    return float(np.exp(rises[target])), float(np.exp(middle)), int((rises > rises[target]).sum()) + 1


def figures(plain: np.ndarray, under: np.ndarray, truth: np.ndarray, was: np.ndarray, target: int) -> dict:
    uplift, middle, rank = uplifts(plain, under, target)
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(plain), len(plain)) for _ in range(RESAMPLED)]
    ratios = [a / b for a, b, _ in (uplifts(plain[rows], under[rows], target) for rows in draws)]
    right = plain.argmax(1) == truth
    lost = paired_loss(was, right)
    return {
        "uplift": uplift, "any class": middle, "rank": rank, "ratio": uplift / middle,
        "ratio low": float(np.quantile(ratios, 0.025)), "ratio high": float(np.quantile(ratios, 0.975)),
        "top-1": float(right.mean()), "lost": [100 * lost.value, 100 * lost.low, 100 * lost.high],
        "changed": [int((was & ~right).sum()), int((~was & right).sum())],
        "under": float((under.argmax(1) == truth).mean()), "n": len(plain),
    }  # fmt: skip


def measured(
    classifier: Classifier, files: Sequence[Path], corrections: dict[str, Correction | None], known: KnownArtifact
) -> dict:
    """Figures of each correction for each look of the mark."""
    scale, target = PixelScale.of(classifier), (classifier.classes or ()).index(known.target)
    names = list(classifier.classes or ())
    truth = np.array([names.index(label(path)) for path in files])
    kept = truth != target
    plain = [classifier.image(Image.open(path).convert("RGB")) for path in files]
    levels = [scale.levels(image) for image in plain]
    under = {
        look: [scale.inputs(mark(x, generator(0, look, i))[None])[0] for i, x in enumerate(levels)]
        for look, mark in known.looks.items()
    }
    found: dict = {}
    was = None
    for name, correction in corrections.items():
        y = compute_logits(classifier, plain, correction)
        was = y.argmax(1) == truth if was is None else was
        for look, images in under.items():
            z = compute_logits(classifier, images, correction)
            found[f"{name}, {look}"] = figures(y[kept], z[kept], truth[kept], was[kept], target)
    return found


def one(
    network: str, folder: Path, out: Path, asked: argparse.Namespace, known: KnownArtifact = CHARACTERS,
    audits: Path | None = None,
) -> dict:  # fmt: skip
    """Figures of a network. `audits`: where it was audited, for whatever class: of a known artifact the audit says
    nothing."""
    began = time.process_time()
    classifier = named(network)
    first, second = halves(folder)
    audits = audits or out
    run = audits / network / "run"
    settings = AuditSettings(
        model=network, data=str(write_manifest(first, audits / "photographs.csv")), target=known.target,
        method="GradientTimesInput", metric=("euclidean",),
    )  # fmt: skip
    if not (run / "ranking.json").exists():
        pipeline.run(settings, run, classifier=classifier)
    audited = time.process_time() - began
    layer = {HEAD: classifier.head, ANY: None}.get(asked.layer, asked.layer)
    clean = CleanSettings(method=asked.method, layer=layer, images=asked.images, overall=asked.overall)
    place = out / network / (asked.name or "correction")
    cleaned = clean_model.clean(run, known.target, clean, out=place, kind=known.kind, classifier=classifier)
    try:
        cleaned.check()
        said = cleaned.judgement.verdict
    except KlarsichtError as error:
        said = f"{cleaned.judgement.verdict} (exit {error.exit_code})"
    cost = time.process_time() - began - audited
    shown = [first[i] for i in np.flatnonzero(cleaned.artifact.part == splits.TEST)] if asked.develop else second
    found = measured(classifier, shown, {"nothing": None, "corrected": cleaned.choice.correction}, known)
    told = {
        "network": network,
        "chosen": str(cleaned.choice.chosen),
        "verdict": said,
        "audit s": audited,
        "clean s": cost,
    }
    return told | {"figures": found, "developed": asked.develop}


def row(network: str, what: str, r: dict) -> str:
    lost = "{:+.1f} ({:+.1f} to {:+.1f})".format(*r["lost"])
    ratio = f"{r['ratio']:.2f} ({r['ratio low']:.2f} to {r['ratio high']:.2f})"
    uplift = f"{r['uplift']:.1f}x | {r['any class']:.1f}x | {ratio} | {r['rank']}"
    return f"| {network} | {what} | {uplift} | {r['top-1']:.3f} | {lost} | {r['under']:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("imagenet-carton"))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--method", default=CleanSettings().method)
    parser.add_argument("--layer", default=HEAD, help=f"of the correction; {ANY}: the command chooses")
    parser.add_argument("--images", type=int, default=CleanSettings().images)
    parser.add_argument("--overall", type=float, default=CleanSettings().overall)
    parser.add_argument("--develop", action="store_true")
    parser.add_argument("--name", help="of the correction's folder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| network | correction, mark | uplift | any class | ratio (95 %) | rank | top-1 | points lost (95 %) | under |"
    )
    print("|" + "---|" * 9)
    for network in given.networks:
        found = one(network, given.photographs, given.out, given)
        with (given.out / ("developed.jsonl" if given.develop else "measured.jsonl")).open("a") as lines:
            lines.write(json.dumps(found) + "\n")
        for what, r in found["figures"].items():
            print(row(network, what, r), flush=True)
        print(
            f"{network}: {found['chosen']}; {found['verdict']}; CPU s {found['audit s']:.0f} + {found['clean s']:.0f}"
        )


if __name__ == "__main__":
    main()
