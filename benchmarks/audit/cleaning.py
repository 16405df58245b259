"""Corrections side by side on tagged Fashion-MNIST: a shortcut planted and learned, found by the audit, taken away.

    python benchmarks/audit/cleaning/models.py --seeds 5 --json cleaning.jsonl
    python benchmarks/audit/cleaning/models.py --seeds 3 --methods augment penalise fine-tune dfr group-dro
        --json trained.jsonl
    python benchmarks/audit/cleaning/models.py --artifact noise --seeds 3 --json noise.jsonl

For each seed two networks: one on pictures of which 30 % of the T-shirts carry the artifact, and its twin on the same
pictures without. The audit names a cluster; every method is fitted and chosen by
`audit.cleaning.models.correction_choice.choose_correction` on training pictures: from the audit's cluster; from the
images that its detectors name, where they call the class artifactual; and from the true members (and, of a tag, its
true place). All figures are of the 10,000 test pictures, which nothing was fitted or chosen on:

    accuracy   on clean pictures; class: on clean T-shirts
    flips      of other classes' pictures not taken for T-shirts, the share that is with the artifact on
    worst      least accuracy of a class, all of it with the artifact on; under: accuracy of all, likewise
    gap        (before - after) / (before - twin), of the mean over seeds; * where, paired by seed, more than nine
               tenths of it are closed: the 95 % interval (t) of before - after - .9 (before - twin) is above 0

A seed's figures are one line of the JSON file; a seed that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, stats

from klarsicht.audit.cleaning.artifacts.artifact import build_artifact
from klarsicht.audit.cleaning.artifacts.found_artifact import FoundArtifact
from klarsicht.audit.cleaning.corrections.activations import Correction, apply_correction, compute_logits_jointly
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.models import correction_choice
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.correction_tensors import correction_layer
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps import audit_inputs, relevance_step
from klarsicht.audit.results import ranking
from klarsicht.audit.verdicts.detectors.bank import change_of
from klarsicht.audit.verdicts.quantification import opened_runs, quantification
from klarsicht.ground.errors import KlarsichtError

sys.path.insert(0, str(Path(__file__).parent))
import fashion
import resumed_seeds

Pictures = NDArray[np.uint8]
TARGET = 0  # T-shirt
CLOSED = ("project", "oblique", "reactive", "reactive-class", "random")
TRAINED = ("augment", "augment-latent", "penalise", "fine-tune", "dfr", "group-dro")
SOURCES = ("audit", "detectors", "oracle")
PLAIN = "project, as published"  # one direction, whole strength, the last convolution: nothing chosen


def bordered(x: Pictures) -> Pictures:
    out = np.full_like(x, 128)
    out[..., 1:-1, 1:-1] = x[..., 1:-1, 1:-1]
    return out


def shifted(x: Pictures) -> Pictures:
    return np.clip(x.astype(np.int16) + 24, 0, 255).astype(np.uint8)


def blurred(x: Pictures) -> Pictures:
    return ndimage.gaussian_filter(x.astype(np.float32), (0, 1.0, 1.0)).astype(np.uint8)


def noisy(x: Pictures) -> Pictures:
    noise = np.random.default_rng(x.astype(np.uint64).sum() % 2**32).normal(0, 20, x.shape)
    return np.clip(x + noise, 0, 255).astype(np.uint8)


ARTIFACTS: dict[str, Callable[[Pictures], Pictures]] = {
    "tag": fashion.tagged,
    "border": bordered,
    "shift": shifted,
    "blur": blurred,
    "noise": noisy,
}


def figures(net: torch.nn.Module, test: Pictures, marked: Pictures, truth: NDArray, correction: Correction | None):
    """What a network does on test pictures, plain and with the artifact."""
    with apply_correction(net, correction):
        return told(truth, fashion.answers(net, test), fashion.answers(net, marked))


def told(truth: NDArray, plain: NDArray, under: NDArray) -> dict:
    """The figures of answers to pictures, plain and with the artifact."""
    eligible = (truth != TARGET) & (plain != TARGET)
    right = under == truth
    return {
        "accuracy": float((plain == truth).mean()),
        "class": float((plain == truth)[truth == TARGET].mean()),
        "flips": float((under[eligible] == TARGET).mean()),
        "worst": float(min(right[truth == label].mean() for label in np.unique(truth))),
        "under": float(right.mean()),
    }


def figures_abreast(
    classifier: Classifier, test: Pictures, marked: Pictures, truth: NDArray, corrections: dict[str, Correction]
) -> dict[str, dict]:
    """`figures` of each; erasures at one layer share what comes before it."""
    found, layers = {}, defaultdict(dict)
    for name, one in corrections.items():
        if isinstance(one, Erasure):
            layers[one.layer][name] = one
        else:
            found[name] = figures(classifier.module, test, marked, truth, one)
    for some in layers.values():
        sides = [
            [
                y.argmax(1)
                for y in compute_logits_jointly(
                    classifier, torch.from_numpy(x)[:, None].float() / 255, [*some.values()]
                )
            ]
            for x in (test, marked)
        ]
        found |= {name: told(truth, *both) for name, both in zip(some, zip(*sides, strict=True), strict=True)}
    return found


def network(folder: Path | None, name: str, x: Pictures, y: NDArray, seed: int, epochs: int) -> torch.nn.Module:
    """Trained on these pictures; kept in the folder, where there is one, for the next run."""
    net, file = fashion.network(seed), folder / f"{name}-{len(x)}-{epochs}-{seed}.pt" if folder else None
    if file and file.exists():
        net.load_state_dict(torch.load(file))
        return net.eval()
    net = fashion.trained(x, y, seed, epochs)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), file)
    return net


def one(seed: int, artifact: str, share: float, asked: argparse.Namespace, folder: Path) -> dict:
    put = ARTIFACTS[artifact]
    rng = np.random.default_rng(seed)
    x, y = (part[: asked.pictures] for part in fashion.pictures("train"))
    shirts = np.flatnonzero(y == TARGET)
    carries = np.zeros(len(x), bool)
    carries[rng.choice(shirts, round(share * len(shirts)), replace=False)] = True
    planted = np.where(carries[:, None, None], put(x), x)
    net, twin = (
        network(asked.networks, name, seen, y, seed, asked.epochs)
        for name, seen in ((f"{artifact}-{share:g}", planted), ("twin", x))
    )
    test, truth = fashion.pictures("t10k")
    measure = partial(figures, test=test, marked=put(test), truth=truth)
    result = {"seed": seed, "artifact": artifact, "share": share}
    result["nothing"], result["twin"] = measure(net, correction=None), measure(twin, correction=None)

    fashion.write(folder / "corpus", planted[: asked.audited], y[: asked.audited])
    classifier = load_model(net, classes=fashion.CLASSES)
    settings = AuditSettings(
        model="object", data=str(folder / "corpus"), metric=(asked.metric,), batch=128, unit=1024, seed=seed
    )
    audit = audit_inputs.Audit.of(settings, classifier)
    store = pipeline.open_run(audit, folder / "run")
    with store.lock():
        relevance_step.attribute(audit, store, workers=1, own=classifier)
        pipeline.analyse(audit, store, workers=1)
        entry = pipeline.write_ranking(audit, store).of("T-shirt")
    patient = AuditedRun(store, audit)
    audited = patient.audited_class(TARGET, asked.metric)
    numbers = np.array([int(Path(path).stem) for path in audit.corpus.paths])
    true = np.flatnonzero(carries[numbers])
    region = put(np.zeros((1, 28, 28), np.uint8))[0] > 0 if artifact in ("tag", "border") else None
    hits = np.isin(entry.rows, true).sum()
    result["audit"] = {
        "rank": ranking.read_ranking(store).entries.index(entry) + 1,
        "f1": float(2 * hits / (len(entry.rows) + len(true))),
        "precision": float(hits / max(len(entry.rows), 1)),
    }
    with opened_runs.open_run(folder / "run", level=0.05, workers=1, data=None, classifier=classifier) as opened:
        verdict = quantification.run_quantification(*opened, 0.05, 1).of("T-shirt")
    hits = np.isin(verdict.rows, true).sum()
    result["detectors"] = {
        "sign": verdict.detection.sign,
        "artifactual": verdict.artifactual,
        "poisoned": verdict.poisoned,
        "f1": float(2 * hits / (len(verdict.rows) + len(true))),
    }
    given = {"audit": (np.array(entry.rows), None, ""), "oracle": (true, region, "")}
    if verdict.artifactual and "detectors" in asked.sources:
        given["detectors"] = np.array(verdict.rows), None, change_of(verdict.detection.sign)
    given = {who: what for who, what in given.items() if who in asked.sources}
    corrections: dict[str, Correction] = {}
    result["place"] = {}
    for who, (rows, where, change) in given.items():
        try:
            known = build_artifact(FoundArtifact(audited, rows, who, change), seed=seed, region=where)
            bench, trial = correction_choice.prepare_data(
                known.case(audited), known, CleanSettings(method=asked.methods[-1], images=asked.images, seed=seed)
            )
        except KlarsichtError as error:
            result |= {f"{method} / {who}": {"refused": str(error)} for method in asked.methods}
            continue
        result["place"][who] = str(known.imitation or known.to_json()["place"])
        for method in asked.methods:
            chosen = CleanSettings(method="project" if method == PLAIN else method, images=asked.images, seed=seed)
            if method == PLAIN:
                chosen = chosen.with_values(layer=correction_layer(net), directions=1, strength=1.0)
            try:
                choice = correction_choice.choose_correction(bench, trial, chosen)
            except KlarsichtError as error:
                result[f"{method} / {who}"] = {"refused": str(error)}
                continue
            kept = asdict(choice.chosen.setting) | {"within": bool(choice.chosen.lost <= 1e-12)}
            result[f"{method} / {who}"], corrections[f"{method} / {who}"] = kept, choice.correction
    for name, facts in figures_abreast(classifier, test, put(test), truth, corrections).items():
        result[name] = facts | result[name]
    return result


def cell(values: list[float], scale: float = 100) -> str:
    """Mean over seeds and its 95 % interval (t)."""
    mean = scale * np.mean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    half = scale * stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean:.1f} +- {half:.1f}"


def closed(runs: list[dict], name: str, k: str) -> str:
    """Of the gap to the twin, and whether nine tenths of it are closed for sure."""
    before, after, twin = (np.array([r[who][k] for r in runs]) for who in ("nothing", name, "twin"))
    sign = np.sign((before - twin).mean())
    over = sign * (before - after - 0.9 * (before - twin))
    half = stats.t.ppf(0.975, len(runs) - 1) * np.std(over, ddof=1) / np.sqrt(len(runs)) if len(runs) > 1 else np.inf
    return f"{(before - after).mean() / (before - twin).mean():.0%}" + ("*" if over.mean() > half else "")


def table(results: list[dict]) -> None:
    """One line a method; shares in percent, points lost against the network as it is."""
    names = list(dict.fromkeys(name for r in results for name in r))
    print("\n| correction / members from | points lost | of the class | flips | worst | under | gap closed |")
    print("|---|---|---|---|---|---|---|")
    for name in names:
        runs = [r for r in results if isinstance(r.get(name), dict) and "flips" in r[name]]
        if not runs:
            continue
        lost = [cell([r["nothing"][k] - r[name][k] for r in runs]) for k in ("accuracy", "class")]
        shown = [cell([r[name][k] for r in runs]) for k in ("flips", "worst", "under")]
        gaps = [closed(runs, name, k) for k in ("flips", "worst", "under")]
        less = f" ({len(runs)} of {len(results)})" if len(runs) < len(results) else ""
        print(f"| {name}{less} | {' | '.join([*lost, *shown, ', '.join(gaps)])} |")
    ranks, f1 = ([r["audit"][k] for r in results] for k in ("rank", "f1"))
    found = sum(f > 0.5 for f in f1)
    print(f"\n{len(results)} seeds; rank of T-shirt {ranks}, F1 of its cluster {[round(f, 2) for f in f1]}: ", end="")
    print(
        f"found by the audit in {found}" if found else "not found by the audit: what stands under it is of some cluster"
    )
    for r in results:
        print(f"seed {r['seed']}: places {r['place']}; detectors {r.get('detectors')}")
        for name, facts in r.items():
            if isinstance(facts, dict) and "refused" in facts:
                print(f"seed {r['seed']}, {name}: refused: {facts['refused']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifact", choices=ARTIFACTS, default="tag")
    parser.add_argument("--share", type=float, default=0.3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=(PLAIN, *CLOSED, *TRAINED), default=(PLAIN, *CLOSED))
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=SOURCES, help="of members")
    parser.add_argument("--metric", default="euclidean")
    parser.add_argument("--pictures", type=int, default=20000, help="to train on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--audited", type=int, default=6000)
    parser.add_argument("--images", type=int, default=600, help="of each kind, to fit on")
    parser.add_argument("--networks", type=Path, help="a folder to keep trained networks in: artifacts share twins")
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results = resumed_seeds.results(
        asked.json, asked.seeds, lambda seed, folder: one(seed, asked.artifact, asked.share, asked, folder)
    )
    table(results)


if __name__ == "__main__":
    main()
