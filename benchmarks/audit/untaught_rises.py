"""Rise that the audit measures by putting on artifacts of kinds that no embedding was taught, beside the true one.

    python benchmarks/audit/untaught_rises.py IMAGENET32 --folder rises --seeds 0 1 --embedding 1500/stage-11.pt
    python benchmarks/audit/untaught_rises.py --folder rises --seeds 0 1 --embedding 1500/stage-11.pt --table

A run has 20 real classes of 240 images at 32 px. In 14 of them a kind of `untaught_kinds.py` lies on two images in
five, and a small network is trained on them. True carriers are given, so that only the insertion is measured: a way is
chosen on 32 held-out images of other classes and measured on 64 more, as `audit quantify` does, once with the ways
that know nothing of the embedding, and once with the pixels by which the embedding knows the carriers. *Use shown*: the
effect matters, is first of all outputs, and what was put on is recognised; *not tested*: less than half of it was put
on, or it is not recognised. The embedding is one that `untaught_classes.py` learned, or the one that comes along.

Clean classes get two groups of 48 images, a random one and one of images that the network's features put together. Runs
from 100 on have the other kinds, and are measured once.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from klarsicht.audit.results.class_verdict import UseResult
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.verdicts.detectors.artifact_embedding import (
    ArtifactEmbedding,
    load_embedding,
    load_shipped_embedding,
)
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.early_stopping import choose_way, measure_in_looks
from klarsicht.audit.verdicts.interventions.recognition import recognised_share
from klarsicht.audit.verdicts.quantification import intervention_units as units
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.logits import EXCLUSIVE, centre_logits

sys.path.insert(0, str(Path(__file__).parent))
import insertion_rises
import left_out_cases as cases
import planted_classes
import untaught_kinds

CLASSES, IMAGES, HELD_OUT, SHARE, EPOCHS, WIDTH = 20, 240, 60, 0.4, 30, 16
NAMES = tuple(map(str, range(CLASSES)))
GROUP = 48  # images of a group of a clean class
SCALE = insertion_rises.SCALE
SAID = ("use shown", "not tested", "no use shown")


def make(data: Path, place: Path, seed: int) -> cases.Case:
    """Plant the kinds, train the network and measure the true rises; read them where they are there."""
    if (place / "case.json").is_file():
        truth = json.loads((place / "case.json").read_text())
        net = planted_classes.Net(CLASSES, WIDTH)
        net.load_state_dict(torch.load(place / "net.pt"))
        plants = [cases.Plant(**p | {"rows": tuple(p["rows"]), "use": cases.Use(**p["use"])}) for p in truth["plants"]]
        images, held_out = (np.load(place / f"{name}.npy") for name in ("images", "held_out"))
        by_label = {p.label: p for p in plants}
        return cases.Case(seed, NAMES, images, held_out, {}, by_label, net.eval(), truth["accuracy"])
    every, rng = planted_classes.classes(data, CLASSES, seed)[1], generator(seed, "untaught rises")
    drawn = np.stack([x[rng.permutation(len(x))[: IMAGES + HELD_OUT]] for x in every])
    images, held_out, plants = drawn[:, :IMAGES].copy(), drawn[:, IMAGES:], []
    kinds, labels = rng.permutation(untaught_kinds.kinds_of(seed >= cases.FRESH)), rng.permutation(CLASSES)
    for i, (kind, label) in enumerate(zip(kinds.tolist(), labels.tolist(), strict=False)):
        rows = np.sort(rng.choice(IMAGES, round(SHARE * IMAGES), replace=False))
        images[label, rows] = untaught_kinds.put(images[label, rows], kind, seed, i)
        plants.append(cases.Plant(i, label, kind, SHARE, True, tuple(rows.tolist()), ""))
    answers = np.repeat(np.arange(CLASSES), IMAGES)
    net = planted_classes.fitted(images.reshape(-1, *images.shape[2:]), answers, seed, EPOCHS, WIDTH)
    told = planted_classes.logits(net, held_out.reshape(-1, *held_out.shape[2:])).argmax(1)
    accuracy = float((told == np.repeat(np.arange(CLASSES), HELD_OUT)).mean())
    case = cases.Case(seed, NAMES, images, held_out, {}, {}, net, accuracy)
    known = [replace(p, use=true_use(case, p)) for p in plants]
    place.mkdir(parents=True, exist_ok=True)
    np.save(place / "images.npy", images)
    np.save(place / "held_out.npy", held_out)
    torch.save(net.state_dict(), place / "net.pt")
    (place / "case.json").write_text(json.dumps({"accuracy": accuracy, "plants": [asdict(p) for p in known]}))
    return replace(case, plants={p.label: p for p in known})


def true_use(case: cases.Case, plant: cases.Plant) -> cases.Use:
    """Effect of the real artifact on every second held-out image of the other classes."""
    others = case.others(plant.label)[::2]
    put = untaught_kinds.put(others, plant.family, case.seed, plant.number)
    under, plain = (planted_classes.logits(case.net, x) for x in (put, others))
    shift = (centre_logits(under) - centre_logits(plain)).mean(0)
    taken = [float((answer.argmax(1) == plant.label).mean()) for answer in (under, plain)]
    return cases.Use(float(shift[plant.label]), int((shift > shift[plant.label]).sum()), taken[0] - taken[1])


def measure(case: cases.Case, label: int, rows: np.ndarray, embedding: ArtifactEmbedding, knows: bool) -> dict:
    """The chosen way for carriers at rows (m,) of a class, and what is said of it."""
    rng, images = generator(case.seed, "insertion", label, len(rows)), case.images[label]
    found = ArtifactExamples(images[rows], np.delete(images, rows, 0), np.zeros((0, 2), np.intp), (0, 0))
    sign = SignRow(target=label, sign="embedding", score=0.0, rows=rows.tolist(), places=[], height=0.0, width=0.0)
    network = embedding if knows else None
    trial = units.ArtifactTrial.of(sign, found, SCALE, True, rng, network=network)
    if not trial.ways:
        return {"how": "", "rise": 0.0, "low": 0.0, "says": "not tested"}
    x = rng.permutation(case.others(label))[: units.CHOICE_IMAGES + units.EFFECT_BACKGROUNDS]
    first, then = (SCALE.inputs(part) for part in np.split(x, [units.CHOICE_IMAGES]))

    def predict(inputs: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return case.net(inputs.contiguous(memory_format=torch.channels_last)).numpy().astype(np.float64)

    how = choose_way(predict, first, predict(first), label, trial.ways, rng)
    effect = measure_in_looks(predict, trial.ways[how], then, predict(then), label, rng)
    marked = trial.mark_others(trial.ways[how], SCALE)
    shown = found.carriers[: units.COMPARED], found.others[: units.COMPARED], marked
    scores = (EXCLUSIVE.scores(predict(SCALE.inputs(part)))[:, label] for part in shown)
    row = units.effect_row(
        label, trial, how, effect, 1.0, trial.covered_share(trial.ways[how], SCALE), units.share_of_evidence(*scores),
        recognised_share(*map(embedding.embed, shown)), float("nan"), float("nan"),
    )  # fmt: skip
    use = UseResult.of(row, 1.0)
    shows = use.matters and use.recognisable and effect.rank == 0
    says = "use shown" if shows else "no use shown" if use.tested else "not tested"
    line = {"how": how, "rise": effect.rise.value, "low": effect.rise.low, "says": says, "rank": effect.rank}
    return line | {"recognition": use.recognition, "flips": effect.flips - effect.flips_control}


def write_lines(case: cases.Case, embedding: ArtifactEmbedding, file: Path) -> None:
    """Write one line for each plant, and for each group of a clean class, with the ways before and now; what is there
    is kept."""
    groups: list[tuple[int, dict, np.ndarray]] = []
    for label, plant in sorted(case.plants.items()):
        known = {"kind": plant.family, "true": plant.use.rise, "more": plant.use.more, "used": plant.use.used}
        groups.append((label, known | {"true_flips": plant.use.flips}, np.array(plant.rows)))
    for label in case.clean:
        rng = generator(case.seed, "group", label)
        alike, drawn = insertion_rises.neighbours(case, label, rng), np.sort(rng.permutation(IMAGES)[:GROUP])
        groups += [(label, {"kind": "", "group": name}, rows) for name, rows in (("random", drawn), ("natural", alike))]
    known = len(file.read_text().splitlines()) if file.is_file() else 0
    for label, what, rows in groups[known:]:
        before, now = (measure(case, label, rows, embedding, knows) for knows in (False, True))
        with file.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"seed": case.seed, "label": label, **what, "before": before, "now": now}) + "\n")


def table(lines: list[dict]) -> Iterator[str]:
    yield "| kind | true rise (flips) | before: way | rise | says | now: way | rise | recognised | says |"
    yield "|---" * 9 + "|"
    plants = sorted((li for li in lines if li["kind"]), key=lambda li: -li["true"])
    for li in plants:
        before, now = li["before"], li["now"]
        known = "-" if now.get("recognition") is None else f"{now['recognition']:.2f}"
        unused = "" if li["used"] else " (unused)"
        cells = [f"{li['kind']}{unused}", f"{li['true']:+.2f} ({li['true_flips']:.0%})"]
        cells += [before["how"], f"{before['rise']:+.2f}", before["says"]]
        cells += [now["how"], f"{now['rise']:+.2f}", known, now["says"]]
        yield f"| {' | '.join(cells)} |"
    used = [li for li in plants if li["used"]]
    for when in ("before", "now"):
        half = sum(li[when]["rise"] >= li["true"] / 2 for li in used)
        says = {
            said: sum(li[when]["says"] == said for li in used) for said in ("use shown", "not tested", "no use shown")
        }
        wrong = sum(li[when]["says"] == "use shown" for li in plants if not li["used"])
        yield f"\n{when}: half of the true rise in {half} of {len(used)} used; of these {says}; unused claimed {wrong}"
        for group in ("random", "natural"):
            some = [li[when] for li in lines if li.get("group") == group]
            yield f"  {group} groups of clean classes: {sum(s['says'] == SAID[0] for s in some)} of {len(some)} claimed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--embedding", type=Path, help="state of a training; without it the one that comes along")
    parser.add_argument("--table", action="store_true", help="print what is there, and measure nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines: list[dict] = []
    for seed in given.seeds:
        place = given.folder / f"seed-{seed}"
        file = place / f"lines-{given.embedding.parent.name if given.embedding else 'shipped'}.jsonl"
        if not given.table:
            network = load_embedding(given.embedding.read_bytes()) if given.embedding else load_shipped_embedding()
            write_lines(make(given.data, place, seed), network, file)
        lines += [json.loads(line) for line in file.read_text().splitlines()]
    print("\n".join(table(lines)))


if __name__ == "__main__":
    main()
