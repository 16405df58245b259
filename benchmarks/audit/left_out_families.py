"""Verdicts on artifacts of families that nothing was chosen on: what is called, used, named, and what it costs.

    python benchmarks/audit/left_out_families.py IMAGENET32 --folder cases --seeds 0 1 --row main
    python benchmarks/audit/left_out_families.py --table cases/main.jsonl
    python benchmarks/audit/left_out_families.py --table cases/main.jsonl --fold 2
    python benchmarks/audit/left_out_families.py --table cases/main.jsonl --plot calibration.png

Cases (networks, artifacts, true uses) are those of left_out_cases.py. Each is audited as `audit run` and `audit
quantify` do with --method, and one line a class goes to FOLDER/ROW.jsonl; cases that are there are not audited again,
and one that was killed goes on where it was. The default method makes no relevance maps, which are ten times as dear.
FOLDER/ROW-concept-z.jsonl, ROW-concept-d2.jsonl and ROW-features-z.jsonl are rows beside it: what the suspect cluster
of head relevance and that of plain features say alone.

Of four folds of the families each is left out in turn: the embedding is learned without the fold's families
(FOLDER/ROW-without-FOLD.jsonl), detectors that name no artifact of the other three folds are taken out before classes
are judged, and only plants of the fold are told; --fold tells one fold alone. Shares have
Wilson's interval over plants, and one from 2,000 draws of networks. An artifact is *used* where the real one, put on
592 held-out images of the other classes, raises its class most of all outputs, by half a logit or with two more of a
hundred images taken for it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest, kstest

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import HEAD_RELEVANCE, METHOD_NAMES, AuditSettings
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import VerdictKind
from klarsicht.audit.verdicts.detectors.artifact_embedding import (
    STAGES,
    EmbeddingTraining,
    drawn_in_training,
    load_embedding,
)
from klarsicht.audit.verdicts.detectors.bank import DETECTORS
from klarsicht.audit.verdicts.quantification import embedding_units
from klarsicht.audit.verdicts.quantification.class_verdicts import DetectedClasses
from klarsicht.audit.verdicts.quantification.intervention_units import InterventionUnits
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.quantification import quantify
from klarsicht.audit.verdicts.quantification.selected_detections import select_detections
from klarsicht.audit.verdicts.quantification.units import sign_row
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.statistics import conformal

sys.path.insert(0, str(Path(__file__).parent))
import left_out_cases as cases

Line = dict
LEARNED_SIGNS = ("embedding", "embedding-means", "altered")  # detections by the run's own network
NAMED = 0.5  # F1 from which an artifact counts as named


def f1(found: Iterable[int], carriers: Iterable[int]) -> float:
    found, carriers = set(found), set(carriers)
    return 2 * len(found & carriers) / max(len(found) + len(carriers), 1)


def truth(case: cases.Case, label: int) -> Line:
    """Collect the known facts of a class."""
    line: Line = {"seed": case.seed, "label": label, "class": case.names[label], "family": ""}
    if plant := case.plants.get(label):
        line |= {"family": plant.family, "share": plant.share, "trained": plant.trained, "used": plant.use.used}
        line |= {"true_rise": plant.use.rise, "true_more": plant.use.more, "true_flips": plant.use.flips}
    return line


def write_images(case: cases.Case, data: Path) -> None:
    """Write the images of a case that are not there yet, a folder a class."""
    for k, stack in enumerate(case.images):
        folder = data / f"{k:03d}"
        folder.mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(stack):
            if not (folder / f"{i:03d}.png").exists():
                Image.fromarray(image).save(folder / f"{i:03d}.png", compress_level=1)


def audited(case: cases.Case, folder: Path, method: str = HEAD_RELEVANCE) -> list[Line]:
    """One line a class from `audit run` and `audit quantify`; the folder is that of the run."""
    names, data, shown = [f"{k:03d}" for k in range(len(case.names))], folder / "data", [0]
    begun = (folder / "run").exists()
    write_images(case, data)
    case.net.register_forward_pre_hook(lambda net, given: shown.__setitem__(0, shown[0] + len(given[0])))
    classifier = load_model(case.net, classes=names)
    settings = AuditSettings(model="object", data=str(data), method=method, batch=64, unit=4096, seed=case.seed)
    clock = time.process_time()
    pipeline.run(settings, folder / "run", classifier=classifier)
    after_run, shown_by_run = time.process_time(), shown[0]
    found = quantify(folder / "run", classifier=classifier)
    cost = {"cpu_run": after_run - clock, "cpu": time.process_time() - after_run}
    cost |= {"shown_run": shown_by_run, "shown": shown[0] - shown_by_run}
    cost = {} if begun else {name: value / len(names) for name, value in cost.items()}
    store = RunStore.open(folder / "run")
    return lines_of(case, store, found, store.table("signs", "signs").to_pylist(), cost)


def lines_of(
    case: cases.Case, store: RunStore, found: Quantification, rows: Iterable[SignRow], more: Line
) -> list[Line]:
    """One line a class, of its truth, its verdict and its detections."""
    signs: dict[int, list[SignRow]] = {}
    paths = [int(Path(p).stem) for p in store.table("corpus")["path"].to_pylist()]
    for row in rows:
        signs.setdefault(row["target"], []).append(row)
    lines = []
    for v in found:
        carriers = case.plants[v.target].rows if v.target in case.plants else ()
        line = truth(case, v.target) | {"artifactual": v.artifactual, "poisoned": v.poisoned, "verdict": v.verdict}
        line |= {"sign": v.detection.sign, "p": v.detection.p_rank, "extended": v.detection.p_rank, "size": v.size}
        line |= {"p_own": v.detection.p_own, "tried": v.use.tried, "how": v.use.how, "rise": v.use.shift}
        line |= {"low": v.use.low, "flips": v.use.flips - v.use.flips_control, "p_use": v.use.p_use} | more
        line["f1"] = f1((int(Path(m).stem) for m in v.members), carriers)
        line["signs"] = [
            [row["sign"], round(row["score"], 4), round(f1((paths[r] for r in row["rows"]), carriers), 3)]
            for row in signs[v.target]
        ]
        lines.append(line)
    return lines


def audited_without(case: cases.Case, folder: Path, fold: int) -> list[Line]:
    """One line a class from an audited run, with an embedding that was learned without a fold's families.

    Detections by the embedding are replaced; where other detections are inserted then, effects are measured again.
    """
    classifier = load_model(case.net, classes=[f"{k:03d}" for k in range(len(case.names))])
    with open_run(folder / "run", level=LEVEL, workers=1, data=None, classifier=classifier) as (_, work):
        images = embedding_units.read_images(work, embedding_units.sample_rows(work))
        families = tuple(f for f in drawn_in_training(images.shape[-1]) if f not in cases.FOLDS[fold])
        training = EmbeddingTraining(images, families, case.seed)
        for stage in range(STAGES):
            training.run_stage(stage)
        work = replace(work)
        work.__dict__["embedding"] = load_embedding(training.state())  # in place of the cached one
        before = after = DetectedClasses.of(work, LEVEL)
        for number, group in enumerate(work.groups):
            rows, _ = work.drop_repeats(group.rows)
            images = work.class_images(number, rows)
            found = [sign for name in LEARNED_SIGNS for sign in DETECTORS[name](images, name)]
            anew = {sign.name: sign_row(group.target, rows, sign) for sign in found}
            after = after.replace_class([anew.get(row["sign"], row) for row in before.signs[group.target]])
        inserted, known = after.to_insert, before.to_insert
        effects = {row["target"]: row for row in work.store.table("effects", "effects").to_pylist()}
        trial = InterventionUnits(work, inserted)
        for number, group in enumerate(work.groups):
            if inserted[number] != known[number]:
                effects.pop(group.target, None)
                effects |= {row["target"]: row for row in trial.effects(number)}
        verdicts = after.judge(effects)
        every = [row for of_class in after.signs.values() for row in of_class]
        return lines_of(case, work.store, verdicts, every, {"fold": fold})


def suspects(case: cases.Case, folder: Path) -> Iterator[tuple[str, list[Line]]]:
    """Lines by the suspect cluster of a class alone: of head relevance by its z or its D2, of plain features by z."""
    store = RunStore.open(folder / "run")
    paths = [int(Path(p).stem) for p in store.table("corpus")["path"].to_pylist()]
    for metric, score in (("concept", "z"), ("concept", "d2"), ("features", "z")):
        found = store.table(f"suspects-{metric}", f"spray-{metric}").to_pylist()
        of_class = {row["target"]: row for row in found}
        scores = np.array([[of_class[k][score] if k in of_class else 0.0] for k in range(len(case.names))])
        judged = conformal.maximum_over_detectors(scores)
        lines = []
        for label in range(len(case.names)):
            members = [paths[r] for r in of_class[label]["rows"]] if label in of_class else []
            carriers = case.plants[label].rows if label in case.plants else ()
            called = bool(judged.extended[label] <= LEVEL and judged.null.any())
            line = truth(case, label) | {"artifactual": called, "f1": f1(members, carriers), "size": len(members)}
            line |= {"p": float(judged.p[label]), "extended": float(judged.extended[label])}
            line |= {"sign": metric, "score": float(scores[label, 0])}
            lines.append(line)
        yield f"{metric}-{score}", lines


def naming_detectors(lines: list[Line], fold: int) -> set[str]:
    """Select the detectors that, each by itself, call an artifact of another fold and name it at least half right."""
    names: set[str] = set()
    for seed in seeds(lines):
        mine = [li for li in lines if li["seed"] == seed]
        called = select_detections(sign_rows(mine), LEVEL).significance.p_each <= LEVEL
        for k, li in enumerate(mine):
            if li["family"] and cases.fold_of(li["family"]) != fold:
                names |= {n.split()[0] for (n, _, f), c in zip(li["signs"], called[k], strict=True) if c and f >= NAMED}
    return names


def sign_rows(lines: list[Line], names: set[str] | None = None) -> list[list[Line]]:
    """Rows of the table `signs` for each class, of some detectors."""
    return [
        [
            {"sign": n, "score": s, "f1": f, "rows": [0]}
            for n, s, f in li["signs"]
            if names is None or n.split()[0] in names
        ]
        for li in lines
    ]


def left_out(lines: list[Line], fold: int) -> list[Line]:
    """Lines of clean classes and of the fold's plants, judged by the detectors that name artifacts of other folds."""
    lines = [li for li in lines if li.get("fold", fold) == fold]
    kept = naming_detectors(lines, fold) if "signs" in lines[0] else None
    judged = []
    for seed in sorted({li["seed"] for li in lines}):
        mine = [li for li in lines if li["seed"] == seed]
        if kept is not None:
            signs = sign_rows(mine, kept)
            if not signs[0]:
                raise SystemExit(f"fold {fold}: no detector found an artifact of the other folds")
            found = select_detections(signs, LEVEL)
            called, largest = found.significance.artifactual(LEVEL), found.significance.largest
            mine = [
                li
                | {"artifactual": bool(called[k]), "poisoned": bool(called[k]) and li["poisoned"]}
                | {"p": float(largest.p[k]), "extended": float(largest.extended[k])}
                | ({} if called[k] else {"verdict": VerdictKind.NOTHING.words})
                | ({} if bool(called[k]) == li["artifactual"] else {"sign": row["sign"], "f1": row["f1"]})
                for k, (li, row) in enumerate(zip(mine, found.rows, strict=True))
            ]
        judged += [li for li in mine if not li["family"] or cases.fold_of(li["family"]) == fold]
    return judged


def share(lines: list[Line], name: str) -> str:
    """k/n, its share, Wilson's interval over lines and one over networks."""
    hits = [bool(li.get(name)) for li in lines]
    if not hits:
        return "0/0"
    found = binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    told = f"{sum(hits)}/{len(hits)} {np.mean(hits):.2f} ({found.low:.2f}-{found.high:.2f}"
    by_network = [np.array([h for h, li in zip(hits, lines, strict=True) if li["seed"] == s]) for s in seeds(lines)]
    if len(by_network) > 1:
        drawn = np.random.default_rng(0).integers(len(by_network), size=(2000, len(by_network)))
        k, n = (np.array([f(x) for x in by_network]) for f in (np.sum, len))
        low, high = np.quantile(k[drawn].sum(1) / n[drawn].sum(1), (0.025, 0.975))
        told += f"; networks {low:.2f}-{high:.2f}"
    return told + ")"


def seeds(lines: list[Line]) -> list[int]:
    return sorted({li["seed"] for li in lines})


def mean_f1(lines: list[Line]) -> str:
    called = [li["f1"] for li in lines if li["artifactual"]]
    return f"{np.mean(called):.2f}" if called else "-"


def table(lines: list[Line]) -> Iterator[str]:
    plants, clean = [li for li in lines if li["family"]], [li for li in lines if not li["family"]]
    yield f"{len(seeds(lines))} networks, {len(plants)} plants, {len(clean)} clean classes"
    for part in cases.SHARES:
        mine = [li for li in plants if li["share"] == part]
        yield f"artifactual at {part:.0%}: {share(mine, 'artifactual')}; F1 where called {mean_f1(mine)}"
        right = [{"seed": li["seed"], "right": li["artifactual"] and li["f1"] >= NAMED} for li in mine]
        yield f"  and named, F1 of {NAMED} at least: {share(right, 'right')}"
    yield f"clean classes called artifactual: {share(clean, 'artifactual')}"
    judged = [li for li in lines if "poisoned" in li]
    if judged:
        used = [li for li in judged if li.get("used")]
        yield f"called poisoned, of artifacts that are used: {share(used, 'poisoned')}"
        unused = [li for li in judged if li["family"] and not li["used"]]
        yield f"called poisoned, of those that are not used: {share(unused, 'poisoned')}"
        yield f"called poisoned, of clean classes: {share([li for li in judged if not li['family']], 'poisoned')}"
        words = Counter(li["verdict"] for li in used if not li["poisoned"])
        yield f"used and not called poisoned: {dict(words)}"
        rises = [(li["true_rise"], li["rise"]) for li in used if li["artifactual"]]
        half = [{"seed": li["seed"], "half": li["rise"] >= li["true_rise"] / 2} for li in used if li["artifactual"]]
        median = np.median(rises, 0) if rises else (0, 0)
        yield f"used and called: the audit's rise is at least half of the true one {share(half, 'half')}; "
        yield f"  medians of the true rise and of the audit's: {median[0]:+.2f}, {median[1]:+.2f}"
    p = np.array([li["p"] for li in clean])
    below = "  ".join(f"p <= {v}: {np.mean(p <= v):.3f}" for v in (0.05, 0.1, 0.2, 0.5))
    yield f"calibration of p on clean classes: {below}; Kolmogorov-Smirnov {kstest(p, 'uniform').statistic:.3f}"
    for name, words in (("cpu", "CPU s a class"), ("shown", "images shown to the network a class")):
        known = [li[name] for li in lines if name in li]
        if known:
            run = np.mean([li[f"{name}_run"] for li in lines if name in li])
            yield f"{words}: run {run:.1f}, quantify {np.mean(known):.1f}"


def by_family(lines: list[Line]) -> Iterator[str]:
    """Called of planted at each share, F1 where called; used, of these poisoned; the true rises and the audit's."""
    heads = [f"{part:.0%}" for part in cases.SHARES]
    yield f"| family | {' | '.join(heads)} | F1 | used: poisoned | rise: true, audit's |"
    yield "|---" * (len(heads) + 4) + "|"
    for family in FAMILIES:
        mine = [li for li in lines if li["family"] == family]
        if not mine:
            continue
        cells = []
        for part in cases.SHARES:
            some = [li["artifactual"] for li in mine if li["share"] == part]
            cells.append(f"{sum(some)}/{len(some)}")
        used = [li for li in mine if li["used"]]
        called = f"{sum(li.get('poisoned', False) for li in used)}/{len(used)}"
        rises = "; ".join(f"{li['true_rise']:+.1f}, {li.get('rise', 0):+.1f}" for li in used)
        yield f"| {family} | {' | '.join(cells)} | {mean_f1(mine)} | {called} | {rises} |"


def plot_calibration(file: Path, picture: Path) -> None:
    """Draw the shares of clean classes with a p as small, every detector and left out, with the band that a calibrated
    p leaves in a twentieth of such figures (Dvoretzky, Kiefer and Wolfowitz)."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    lines, folds = read(file), range(len(cases.FOLDS))
    without = [file.with_name(f"{file.stem}-without-{k}.jsonl") for k in folds]
    apart = [li for k in folds for li in left_out(read(without[k]), k) if li["label"] % len(folds) == k]
    figure, axes = pyplot.subplots(figsize=(4.6, 4.2), layout="constrained")
    for told, style, name in ((lines, "-", "every detector"), (apart, "--", "families left out")):
        p = np.sort([li["p"] for li in told if not li["family"]])
        axes.step([0, *p, 1], [0, *np.arange(1, len(p) + 1) / len(p), 1], style, where="post", label=name)
    even, band = np.linspace(0, 1, 200), np.sqrt(np.log(2 / 0.05) / (2 * len(p)))
    axes.plot(even, even, color="0.5", lw=0.8)
    axes.fill_between(even, np.clip(even - band, 0, 1), np.clip(even + band, 0, 1), color="0.5", alpha=0.15, lw=0)
    axes.axvline(LEVEL, color="0.5", lw=0.8, ls=":")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="p", ylabel=f"share of {len(p)} clean classes with at most this p")
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(picture, dpi=110)


def tables(file: Path, fold: int | None) -> str:
    lines = read(file)
    told = ["all families, every detector:", *table(lines), "", *by_family(lines)]
    folds = range(len(cases.FOLDS)) if fold is None else [fold]
    without = {k: file.with_name(f"{file.stem}-without-{k}.jsonl") for k in folds}
    judged = {k: left_out(read(without[k]) if without[k].is_file() else lines, k) for k in folds}
    alone = len(folds) == 1  # else each clean class is told of one fold, or it would count four times
    every = [li for k in folds for li in judged[k] if alone or li["family"] or li["label"] % len(folds) == k]
    told += ["", f"left out, fold {', '.join(map(str, folds))}:", *table(every), ""]
    return "\n".join([*told, *by_family(every)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "left_out")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--row", default="main", help="a name for what is measured, and for its file")
    parser.add_argument("--method", default=HEAD_RELEVANCE, choices=METHOD_NAMES, help="of `audit run`")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--table", type=Path, help="print the tables of a file of lines, and measure nothing")
    parser.add_argument("--fold", type=int, choices=range(len(cases.FOLDS)), help="families that are left out")
    parser.add_argument("--plot", type=Path, help="with --table, draw the calibration of p as a picture instead")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.table and given.plot:
        plot_calibration(given.table, given.plot)
        return
    if given.table:
        print(tables(given.table, given.fold))
        return
    for seed in given.seeds:
        case = cases.make(given.data, given.folder, seed, given.epochs)
        place = given.folder / "runs" / f"{given.row}-{seed}"
        if seed not in measured(given.folder / f"{given.row}.jsonl"):
            print(f"case {seed}: audit", file=sys.stderr, flush=True)
            append(given.folder / f"{given.row}.jsonl", audited(case, place, given.method))
            for name, lines in suspects(case, place):
                append(given.folder / f"{given.row}-{name}.jsonl", lines)
        for fold in range(len(cases.FOLDS)):
            file = given.folder / f"{given.row}-without-{fold}.jsonl"
            if seed not in measured(file):
                print(f"case {seed}: audit without fold {fold}", file=sys.stderr, flush=True)
                append(file, audited_without(case, place, fold))
    print(tables(given.folder / f"{given.row}.jsonl", given.fold))


def read(file: Path) -> list[Line]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def measured(file: Path) -> set[int]:
    return {line["seed"] for line in read(file)} if file.is_file() else set()


def append(file: Path, lines: list[Line]) -> None:
    """All lines of a case in one write, or none."""
    if not {li["seed"] for li in lines} & measured(file):
        with file.open("a", encoding="utf-8") as out:
            out.write("".join(json.dumps(li) + "\n" for li in lines))


if __name__ == "__main__":
    main()
