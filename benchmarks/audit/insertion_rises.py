"""Rise that the audit measures by putting an artifact on other images, beside that of the real artifact.

    python benchmarks/audit/insertion_rises.py --folder cases --seeds 0 1 --json rises.jsonl
    python benchmarks/audit/insertion_rises.py --table rises.jsonl

Cases are those of left_out_cases.py. The carriers are the true ones, so that only the insertion is measured: what they
share is estimated, the way is chosen on 32 held-out images of other classes and measured on 64 more, as `audit
quantify` does. Clean classes get two groups: one of random images, and one of images that the network's features put
together (a fifth of the class, the nearest to a random one). What that finds is natural content.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.experiment import ComparedEffect, Experiment
from klarsicht.audit.verdicts.quantification import intervention_units as units
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.logits import EXCLUSIVE

sys.path.insert(0, str(Path(__file__).parent))
import left_out_cases as cases
import planted_classes

SCALE = PixelScale(np.zeros(3, np.float32), np.ones(3, np.float32))


def tried(case: cases.Case, label: int, rows: np.ndarray) -> dict:
    """The chosen way for carriers at rows (m,) of a class, and its effect."""
    rng = generator(case.seed, "insertion", label)
    images, began = case.images[label], time.process_time()
    others = rng.permutation(np.setdiff1d(np.arange(len(images)), rows))[: units.MAX_CONTROLS]
    found = ArtifactExamples(images[rows], images[others], np.zeros((0, 2), np.intp), (0, 0))
    sign = SignRow(target=label, sign="light", score=0.0, rows=rows.tolist(), places=[], height=0.0, width=0.0)
    trial = units.ArtifactTrial.of(sign, found, SCALE, True, rng, own=False)
    if not trial.ways:
        return {"how": "", "rise": 0.0, "z": 0.0, "rank": -1, "covered": None, "explained": None}
    x = rng.permutation(case.others(label))[: units.CHOICE_IMAGES + units.EFFECT_BACKGROUNDS]
    first, then = (SCALE.inputs(part) for part in np.split(x, [units.CHOICE_IMAGES]))

    def predict(inputs: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return case.net(inputs.contiguous(memory_format=torch.channels_last)).numpy().astype(np.float64)

    def measured(how: str, x: torch.Tensor, state: dict) -> ComparedEffect:
        rng.bit_generator.state = state
        return Experiment.run(predict, trial.ways[how], x, label, rng).effect(predict(x))

    start = rng.bit_generator.state
    rehearsed = {how: measured(how, first, start) for how in trial.ways}
    how = max(rehearsed, key=lambda name: (-rehearsed[name].rank, rehearsed[name].rise.low))
    effect = measured(how, then, rng.bit_generator.state)
    groups = found.carriers, found.others, trial.mark_others(trial.ways[how], SCALE)
    levels = [EXCLUSIVE.scores(predict(SCALE.inputs(group)))[:, label] for group in groups]
    shares = {"covered": trial.covered_share(trial.ways[how], SCALE), "explained": units.share_of_evidence(*levels)}
    line = {"how": how, "rise": effect.rise.value, "low": effect.rise.low, "z": effect.z, "rank": effect.rank}
    line |= {"flips": effect.flips - effect.flips_control, "tried": list(trial.ways)}
    line |= {name: None if np.isnan(value) else value for name, value in shares.items()}
    return line | {"cpu": time.process_time() - began}


def neighbours(case: cases.Case, label: int, rng: np.random.Generator) -> np.ndarray:
    """A fifth of a class: the images nearest to a random one by the network's last features."""
    with torch.no_grad():
        x = case.net.flatten(case.net.pool(case.net.features(planted_classes.prepared(case.images[label])))).numpy()
    far = np.linalg.norm(x - x[rng.integers(len(x))], axis=1)
    return np.sort(np.argsort(far)[: len(x) // 5])


def measured(case: cases.Case, families: list[str] | None, clean: int) -> list[dict]:
    lines = []
    for label, plant in sorted(case.plants.items()):
        if not families or plant.family in families:
            known = {"family": plant.family, "share": plant.share, "used": plant.use.used, "true": plant.use.rise}
            lines.append({"seed": case.seed, "label": label} | known | tried(case, label, np.array(plant.rows)))
            print(json.dumps(lines[-1]), file=sys.stderr, flush=True)
    for label in case.clean[:clean]:
        rng = generator(case.seed, "group", label)
        groups = {"random": rng.permutation(len(case.images[label]))[:28], "natural": neighbours(case, label, rng)}
        lines += [
            {"seed": case.seed, "label": label, "family": "", "group": name} | tried(case, label, np.sort(rows))
            for name, rows in groups.items()
        ]
    return lines


def table(lines: list[dict]) -> str:
    told = ["| family | share | true rise | the audit's | way | z | covered | explained |", "|---" * 8 + "|"]
    plants = [li for li in lines if li["family"]]
    for li in sorted(plants, key=lambda li: (li["family"], -li["share"])):
        shares = " | ".join("-" if li[name] is None else f"{li[name]:.2f}" for name in ("covered", "explained"))
        mark = "" if li["used"] else " (unused)"
        told.append(
            f"| {li['family']}{mark} | {li['share']:.0%} | {li['true']:+.2f} | {li['rise']:+.2f} | {li['how']} | "
            f"{li['z']:.1f} | {shares} |"
        )
    used = [li for li in plants if li["used"]]
    half = sum(li["rise"] >= li["true"] / 2 for li in used)
    told.append(f"\nused artifacts: at least half of the true rise in {half} of {len(used)}")
    tested = [min((s for s in (li["covered"], li["explained"]) if s is not None), default=1.0) >= 0.5 for li in plants]
    for name, wanted in (("used", True), ("not used", False)):
        mine = [(t, li["rise"] >= 0.5) for t, li in zip(tested, plants, strict=True) if li["used"] == wanted]
        told.append(
            f"{name}: {sum(r for _, r in mine)} rise by half a logit; of the others {sum(t for t, r in mine if not r)} "
            f"are called tested, {sum(not t for t, r in mine if not r)} not tested"
        )
    for group in ("random", "natural"):
        z = [li["z"] for li in lines if li.get("group") == group]
        if z:
            quantiles = ", ".join(f"{v:.1f}" for v in np.quantile(z, (0.5, 0.9, 0.95, 1)))
            told.append(f"z of {group} groups of {len(z)} clean classes (quantiles .5, .9, .95, 1): {quantiles}")
    cost = [li["cpu"] for li in lines if "cpu" in li]
    return "\n".join([*told, f"CPU s a class: {np.mean(cost):.1f}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "left_out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--families", nargs="+", help="only these")
    parser.add_argument("--clean", type=int, default=0, help="clean classes a case, each with two groups")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="print the table of such a file, and measure nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table:
        lines = [json.loads(line) for line in given.table.read_text().splitlines()]
    else:
        lines = [li for s in given.seeds for li in measured(cases.load(given.folder, s), given.families, given.clean)]
        if given.json:
            given.json.write_text("".join(json.dumps(li) + "\n" for li in lines))
    print(table(lines))


if __name__ == "__main__":
    main()
