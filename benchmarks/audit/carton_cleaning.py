"""The network's own shortcut, taken away: EfficientNet-Lite0 takes Chinese characters for a carton; does it still?

    python benchmarks/audit/carton_cleaning.py PHOTOGRAPHS --seeds 0 1 2

PHOTOGRAPHS is a folder of photographs of many classes (500 of ImageNet here). 200 of them are held out; of the others a
seed draws 240 and draws characters on a quarter. The audit screens these for "carton"; its own cluster is the artifact,
and `audit.cleaning.models.correction_choice.choose_correction` chooses layer, directions and strength. Shown on the
photographs held out, each with and without a mark of characters that the audit never saw:

    uplift     median over photographs of P(carton | marked) / P(carton)
    any class  the same of the middle one of the 999 other classes: a mark covers what a photograph shows, so that all
               that it does not show rises; rank is that of carton among all 1,000 by uplift
    top-1      on the photographs as they are; lost: against the model as it is, photograph by photograph
    under      top-1 with the mark
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import special

from klarsicht.audit.cleaning.corrections.activations import Correction, compute_logits
from klarsicht.audit.cleaning.models import correction_choice
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.settings import HEAD_RELEVANCE, AuditSettings
from klarsicht.audit.results import ranking
from klarsicht.audit.verdicts.synthetic import artifacts, glyphs
from klarsicht.ground.errors import KlarsichtError
from klarsicht.numerics.statistics.intervals import share_interval
from klarsicht.numerics.statistics.paired_loss import paired_loss

sys.path.insert(0, str(Path(__file__).parent))
from carton import CARTON, MODEL, f1, label, of_rows, photographs, square, write

HELD = 200
SEEN, UNSEEN = glyphs.GLYPHS[:6], glyphs.GLYPHS[6:]
METHODS = ("oblique", "project", "reactive", "random")
Images = Sequence[torch.Tensor]


def parted(folder: Path) -> tuple[list[Path], list[Path]]:
    """Photographs to audit, and those held out, the same for every seed."""
    files = photographs(folder, 10**9, 0)
    order = np.random.default_rng(7).permutation(len(files))
    return [files[i] for i in order[HELD:]], [files[i] for i in order[:HELD]]


def shown(classifier: Classifier, files: list[Path], rng: np.random.Generator) -> tuple[Images, Images]:
    """Photographs as the model takes them, plain and marked."""
    plain = [square(path) for path in files]
    marked = [artifacts.glyphs(pixels, rng, alphabet=UNSEEN).pixels for pixels in plain]
    return tuple([classifier.image(Image.fromarray(pixels)) for pixels in side] for side in (plain, marked))


def figures(classifier: Classifier, plain: Images, marked: Images, truth, before, correction: Correction | None):
    target = classifier.classes.index(CARTON)
    y, under = (compute_logits(classifier, images, correction) for images in (plain, marked))
    rises = np.median(special.log_softmax(under, 1) - special.log_softmax(y, 1), 0)
    right = y.argmax(1) == truth
    lost = paired_loss(before, right)
    return {
        "uplift": float(np.exp(rises[target])),
        "any class": float(np.exp(np.median(np.delete(rises, target)))),
        "rank": int((rises > rises[target]).sum()) + 1,
        "top-1": float(right.mean()),
        "lost": [100 * lost.value, 100 * lost.low, 100 * lost.high],
        "under": share_interval(under.argmax(1) == truth).value,
    }


def audited(files: list[Path], seed: int, share: float, classifier: Classifier, out: Path):
    """A run screened for cartons, and which of its photographs are marked."""
    if (out / "run" / "ranking.json").exists():
        return out / "run", np.load(out / "marked.npy")
    out.mkdir(parents=True, exist_ok=True)
    marked = write(files, share, seed, out, SEEN)
    np.save(out / "marked.npy", marked)
    settings = AuditSettings(
        model=MODEL, data=str(out / "photographs.csv"), target=CARTON, method=HEAD_RELEVANCE, seed=seed
    )
    pipeline.run(settings, out / "run", classifier=classifier)
    return out / "run", marked


def one(folder: Path, seed: int, asked: argparse.Namespace) -> dict:
    classifier = load_model(MODEL)
    mine, held = parted(folder)
    chosen = np.sort(np.random.default_rng(1 + seed).choice(len(mine), asked.count, replace=False))
    run, marked = audited([mine[i] for i in chosen], seed, asked.share, classifier, asked.out / f"seed-{seed}")
    if asked.develop:
        held = [mine[i] for i in np.setdiff1d(np.arange(len(mine)), chosen)]
    rows = ranking.read_ranking(pipeline.RunStore.open(run)).of(CARTON).rows
    names = list(classifier.classes)
    truth = np.array([names.index(label(path)) for path in held])
    plain, under = shown(classifier, held, np.random.default_rng(2000 + seed))
    before = compute_logits(classifier, plain).argmax(1) == truth
    measure = partial(figures, classifier, plain, under, truth, before)
    found = {"seed": seed, "held": len(held), "f1": f1(of_rows(rows, len(marked)), marked), "nothing": measure(None)}
    patient = AuditedRun.of(run, classifier=classifier)
    artifact, audited_on = patient.build_artifact(CARTON, seed=seed)
    settings = CleanSettings(seed=seed, overall=asked.overall)
    if asked.layer:
        settings = settings.with_values(layer=asked.layer, directions=1, strength=1.0)
    bench, trial = correction_choice.prepare_data(artifact.case(audited_on), artifact, settings)
    for method in asked.methods:
        try:
            choice = correction_choice.choose_correction(bench, trial, settings.with_values(method=method))
        except KlarsichtError as error:
            found[method] = {"refused": str(error)}
            continue
        kept = {"within": choice.chosen.lost <= 1e-12, "tried": [one.to_json() for one in choice.best_settings]}
        found[method] = measure(choice.correction) | asdict(choice.chosen.setting) | kept
        print(json.dumps({method: {k: v for k, v in found[method].items() if k != "tried"}}), flush=True)
    return found


def row(name: str, r: dict) -> str:
    if "refused" in r:
        return f"{name}: refused: {r['refused']}"
    at = f"{r['layer']}, {r['directions']}, {r['strength']:g}" if "layer" in r else ""
    lost = "{:+.1f} ({:+.1f} to {:+.1f})".format(*r["lost"])
    uplift = f"{r['uplift']:.1f}x | {r['any class']:.1f}x | {r['rank']}"
    return f"{name} | {at} | {uplift} | {r['top-1']:.3f} | {lost} | {r['under']:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--overall", type=float, default=CleanSettings().overall)
    parser.add_argument("--layer", help="one direction there, whole, in place of the audit's choice")
    parser.add_argument(
        "--develop", action="store_true", help="show on photographs not drawn, in place of those held out"
    )
    parser.add_argument("--out", type=Path, default=Path("carton-cleaning"), help="runs and corrections")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| seed, F1 | correction | layer, directions, strength | uplift | of any class | rank", end=" | ")
    print("top-1 | points lost (95 %) | under |\n|---|---|---|---|---|---|---|---|---|")
    for seed in given.seeds:
        found = one(given.photographs, seed, given)
        file = given.out / f"seed-{seed}.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(known | found, indent=1))
        for name in ("nothing", *given.methods):
            print(f"| {seed}, {found['f1']:.2f} | {row(name, found[name])}", flush=True)


if __name__ == "__main__":
    main()
