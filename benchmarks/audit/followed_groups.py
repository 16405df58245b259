"""Followed groups with every detector switched off: how often the third verdict is said of classes with an artifact,
and of clean ones.

    python benchmarks/audit/followed_groups.py --folder cases --seeds 120 121
    python benchmarks/audit/followed_groups.py --table cases/followed.jsonl

Cases (networks, artifacts, true uses) are those of left_out_cases.py and have to be there. Each is audited with
relevance maps, and the cluster that the model follows is searched in every class, as step 6 of `audit quantify` does;
no detector is run. Then classes are judged as step 7 does, as if none were called by a detector. Where main.jsonl of
left_out_families.py lies in FOLDER, it is told as well of how many classes the verdict would be said beside the
detectors. One line a class goes to FOLDER/followed.jsonl.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps import step_units
from klarsicht.audit.results.followed_groups import select_followed_groups
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.verdicts.quantification.cluster_units import ClusterInterventionUnits, candidate_analyses
from klarsicht.audit.verdicts.quantification.opened_runs import open_run

sys.path.insert(0, str(Path(__file__).parent))
import checked_pictures
import left_out_cases as cases
from left_out_families import NAMED, append, f1, measured, read, share, truth

KEPT = ("rank", "low", "effect", "d2", "metric", "follows", "images")  # columns of the table of followed clusters


def followed_clusters(case: cases.Case, folder: Path) -> list[dict]:
    """One line a class: its truth and the figures of its followed cluster, which may be none."""
    names, data, clock = [f"{k:03d}" for k in range(len(case.names))], folder / "data", time.process_time()
    for name, stack in zip(names, case.images, strict=True):
        (data / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(stack):
            if not (data / name / f"{i:03d}.png").exists():
                Image.fromarray(image).save(data / name / f"{i:03d}.png", compress_level=1)
    classifier = load_model(case.net, classes=names)
    settings = AuditSettings(model="object", data=str(data), batch=64, unit=4096, seed=case.seed)
    pipeline.run(settings, folder / "run", classifier=classifier)
    after_run = time.process_time()
    with open_run(folder / "run", level=LEVEL, workers=1, data=None, classifier=classifier) as (audit, work):
        analyses = candidate_analyses(tuple(pipeline.make_analyses(audit, work.store).values()))
        units = ClusterInterventionUnits(work, analyses)
        step_units.run_step(audit, work.store, units, units.step, partition(len(work.groups), 1), 1, "clusters")
        rows = {row["target"]: row for row in work.store.table(units.step, units.step).to_pylist()}
        paths = [int(Path(path).stem) for path in work.store.texts("corpus", "path")]
    cost = {"cpu_run": after_run - clock, "cpu": time.process_time() - after_run}
    lines = []
    for label in range(len(names)):
        line = truth(case, label) | {name: value / len(names) for name, value in cost.items()}
        if row := rows.get(label):
            carriers = case.plants[label].rows if label in case.plants else ()
            line |= {name: row[name] for name in KEPT} | {"size": len(row["rows"])}
            line["f1"] = f1((paths[i] for i in row["rows"]), carriers)
        lines.append(line)
    return lines


def judged(lines: list[dict], called: dict[tuple[int, int], bool]) -> list[dict]:
    """Add to lines whether the verdict is said with every detector switched off, and beside them where known."""
    told = []
    for seed in sorted({line["seed"] for line in lines}):
        mine = [line for line in lines if line["seed"] == seed]
        selected = select_followed_groups([line if "rank" in line else None for line in mine], LEVEL)
        for line, row in zip(mine, selected, strict=True):
            followed = row is not None
            beside = followed and not called.get((seed, line["label"]), True)
            named = followed and line["f1"] >= NAMED
            told.append(line | {"followed": followed, "named": named, "beside": beside})
    return told


def table(lines: list[dict]) -> str:
    kinds = {
        "artifact that is used": [li for li in lines if li.get("used")],
        "artifact, trained on, not used": [li for li in lines if li["family"] and li["trained"] and not li["used"]],
        "artifact, planted afterwards": [li for li in lines if li["family"] and not li["trained"]],
        "clean class": [li for li in lines if not li["family"]],
    }
    told = [f"{len({li['seed'] for li in lines})} networks"]
    for kind, mine in kinds.items():
        told.append(f"{kind}: followed {share(mine, 'followed')}; named {share(mine, 'named')}")
        told.append(f"  a cluster raises the class at all: {sum('rank' in li for li in mine)} of {len(mine)}")
        told.append(f"  its cluster has F1 of {NAMED} at least: {sum(li.get('f1', 0) >= NAMED for li in mine)}")
        told.append(f"  beside detectors: {sum(li['beside'] for li in mine)}")
    for li in lines:
        if li["followed"] or li.get("used"):
            figures = f"low {li.get('low', 0):+.1f}, D {li.get('d2', 0) ** 0.5:.1f}, F1 {li.get('f1', 0):.2f}"
            what = f"{li['family']} {li['share']:.0%}, true {li['true_rise']:+.1f}" if li["family"] else "clean"
            said = ("followed" if li["followed"] else "not followed") + ", beside detectors" * li["beside"]
            told.append(f"  {li['seed']} {what}: {figures}, rank {li.get('rank')}: {said}")
    return "\n".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "left_out", help="of the cases")
    parser.add_argument("--checked", action="store_true", help="cases are those of checked_pictures.py")
    parser.add_argument("--place", type=Path, help="folder of the runs (default: FOLDER/followed)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path, help="file of lines (default: FOLDER/followed.jsonl)")
    parser.add_argument("--table", type=Path, help="print the table of a file of lines, and measure nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = given.table or given.json or given.folder / "followed.jsonl"
    for seed in () if given.table else given.seeds:
        if seed not in measured(file):
            place = (given.place or given.folder / "followed") / f"{seed}"
            made = given.folder / f"seed-{seed}"
            case = checked_pictures.load_case(made, Path(), seed) if given.checked else cases.load(given.folder, seed)
            append(file, followed_clusters(case, place))
    beside = given.folder / "main.jsonl"
    called = {(li["seed"], li["label"]): li["artifactual"] for li in read(beside)} if beside.is_file() else {}
    print(table(judged(read(file), called)))


if __name__ == "__main__":
    main()
