"""Losses by corrections at the head of an ImageNet network: on photographs fitted on, chosen on, and others.

    PYTHONPATH=NETWORKS python benchmarks/audit/imagenet_head_losses.py PHOTOGRAPHS --network SqueezeNet --out OUT

PHOTOGRAPHS, NETWORKS and the half of the photographs as in `imagenet_carton.py`; the other half is not looked at. Every
setting that `audit clean --class carton --kind glyphs` tries at the head is measured on the clean photographs that it
was fitted on, on those to choose on, and on those that the command shows it on: the fall of the right label's
probability, answers lost, and the share of carton's rise that is taken away. Then: how well the order of falls on the
first two kinds is that on the third (Spearman).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent))
import imagenet_carton
from imagenet_artifacts import NETWORKS, halves
from klarsicht.audit.cleaning.corrections import setting_search
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest
from klarsicht.audit.cleaning.models import correction_choice
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.settings import AuditSettings

KINDS = ("fitted on", "chosen on", "others")


def measure(network: str, photographs: Path, out: Path) -> list[dict]:
    classifier, known = imagenet_carton.named(network), imagenet_carton.CHARACTERS
    run = out / network / "run"
    if not (run / "ranking.json").exists():
        files = imagenet_carton.write_manifest(halves(photographs)[0], out / "photographs.csv")
        asked = AuditSettings(
            model=network, data=str(files), target=known.target, method="GradientTimesInput", metric=("euclidean",)
        )
        pipeline.run(asked, run, classifier=classifier)
    artifact, audited = AuditedRun.of(run, classifier=classifier).known_artifact(known.target, known.kind)
    case, settings = artifact.case(audited), CleanSettings(layer=classifier.head)
    data, chosen_on = correction_choice.prepare_data(case, artifact, settings)
    bounds, grid = correction_choice.make_bounds(settings), correction_choice.make_grid(settings)
    found = setting_search.try_settings(correction_choice.CANDIDATES, data, chosen_on, bounds, grid)
    fitted_on = CorrectionTest(classifier, data.fit.select(~data.fit.member), case.target, None)
    sample = correction_choice.draw_shown(case, settings.images, settings.seed)
    others = correction_choice.make_test(case, artifact, sample, settings)
    answers = [others.compute_logits_jointly([one.correction for one in found])]
    answers.insert(0, fitted_on.compute_logits_jointly([one.correction for one in found]))
    lines = []
    for one, fitted, shown in zip(found, *answers, strict=True):
        effect, gain = others.evaluate_logits(shown), others.gain(shown).share
        falls = (fitted_on.fall(fitted), one.fall, others.fall(shown))
        lines.append(
            {"setting": str(one), "method": one.method, "gained, chosen on": one.gained.low}
            | {f"fall, {kind}": fall.value for kind, fall in zip(KINDS, falls, strict=True)}
            | {"lost": effect.harm.value, "changed": effect.harm.changed, "n": effect.harm.n}
            | {"gained": gain.value, "gained at least": gain.low}
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--network", choices=list(NETWORKS), default="SqueezeNet")
    parser.add_argument("--out", type=Path, default=Path("imagenet-carton"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = measure(given.network, given.photographs, given.out)
    (given.out / f"head-losses-{given.network}.json").write_text(json.dumps(lines, indent=1))
    for line in lines:
        print(" ".join(f"{v:.4f}" if isinstance(v, float) else str(v) for v in line.values()))
    whole = [line for line in lines if line["method"] != "reactive-class"]  # which changes next to nothing
    for kind in KINDS[:2]:
        falls = np.array([[line[f"fall, {kind}"], line["fall, others"]] for line in whole])
        print(f"{kind}: Spearman {spearmanr(*falls.T)[0]:.2f}, mean fall {falls.mean(0)}, {len(whole)} settings")


if __name__ == "__main__":
    main()
