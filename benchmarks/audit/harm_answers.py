"""Shares of right answers "proven harmless", "harmful" and "not proven", over hundreds of corrections, good and bad.

    python benchmarks/audit/harm_answers.py --seeds 10 11 12 --json harm.jsonl

Small networks on Fashion-MNIST of whose T-shirts 30 % carry an artifact: *held out*, trained on 20,000 pictures and
shown on others; and *by heart*, trained on 2,000 pictures until all are right, and shown on these. Every method
is fitted on the true carriers at every layer, with few and many directions, at whole and double strength, and some are
trained: most of these are bad, and nothing is chosen. The truth of a correction is its loss on the 10,000 test
pictures, beyond or within the bounds by its whole interval; where it is neither, no answer is right or wrong. Of the
pictures to show it on, 20 samples are drawn for each size. Answers are those of `audit.cleaning.corrections.harm`;
beside them *harmful* by the loss of all classes, which one of them may bear alone, as in the truth; and the rule of
before, by which a point estimate was harmful and a Wald interval proved (Agresti and Min 2005).

A seed's figures are one line of the JSON file; a seed that is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from klarsicht.audit.cleaning.corrections.activations import Correction, compute_logits, compute_logits_jointly
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, CorrectionParameters, FittingData
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, HARMLESS, NOT_PROVEN, Bounds, Harm, Loss
from klarsicht.audit.cleaning.corrections.outcomes import loss_elsewhere
from klarsicht.audit.cleaning.corrections.retraining import RETRAINED
from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.cleaning.models.training_images import LabelledAnswers, recognise_training_images
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.ground.errors import KlarsichtError
from klarsicht.numerics.statistics.intervals import Z95
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, paired_loss

sys.path.insert(0, str(Path(__file__).parent))
import fashion

TARGET, SHARE, BOUNDS = 0, 0.3, Bounds()
SIZES, SAMPLES = (100, 400, 1600), 20
DIRECTIONS, STRENGTHS = (1, 8), (1.0, 2.0)
METHODS = ("project", "oblique", "reactive", "random")  # and "reactive-class", which is answered by "oblique"
TRAINED = ("augment", "penalise", "fine-tune")
POOL = 3_000  # pictures that samples are drawn from


def striped(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = x.copy()
    out[..., :, 20:22] = 160
    return out


def stamped(x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A logo: a ring and a bar in the lower right corner."""
    out = x.copy()
    out[..., 20:27, 20:27] = 255 * LOGO + (1 - LOGO) * out[..., 20:27, 20:27]
    return out


LOGO = np.array([[c == "#" for c in row] for row in (
    ".#####.", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", ".#####.",
)]).astype(np.uint8)  # fmt: skip
KINDS = {"by heart": True, "held out": False}
PUT = {"tag": fashion.tagged, "stripe": striped, "logo": stamped}


def overlay(artifact: str) -> Overlay:
    """The artifact's true place and grey."""
    black, white = (PUT[artifact](np.full((28, 28), level, np.uint8)) for level in (0, 255))
    opaque = black == white
    return Overlay(opaque[None].astype(np.float32), (black / 255 * opaque)[None, None].astype(np.float32))


def inputs(x: NDArray[np.uint8]) -> list[torch.Tensor]:
    return list(torch.from_numpy(x)[:, None].float() / 255)


def network(x: NDArray, y: NDArray, seed: int, by_heart: bool) -> tuple[torch.nn.Module, int]:
    """A network, and how many of these pictures it was trained on."""
    n = 2000 if by_heart else 20_000
    return fashion.trained(x[:n], y[:n], seed, 120 if by_heart else 3), n


def corrections(data: FittingData) -> Iterator[tuple[str, str, list[tuple[str, Correction]]]]:
    """Corrections of one method at one layer, with their names."""
    for layer in data.layers:
        for method in METHODS:
            made = []
            for k in DIRECTIONS if "directions" in CLOSED[method].sweeps else DIRECTIONS[:1]:
                for s in STRENGTHS:
                    try:
                        made.append(
                            (
                                f"{method} {layer} {k} {s:g}",
                                CLOSED[method].make(data, CorrectionParameters(layer, k, s)),
                            )
                        )
                    except KlarsichtError:
                        continue
            yield method, layer, made
    for method in TRAINED:
        layer = data.layers[-1]
        yield method, layer, [(method, RETRAINED[method].make(data, CorrectionParameters(layer)))]


def answers(classifier: Classifier, images: list[torch.Tensor], some: list[tuple[str, Correction]]) -> list[NDArray]:
    erasures = [one for _, one in some]
    if all(isinstance(one, Erasure) for one in erasures) and len(erasures) > 1:
        return compute_logits_jointly(classifier, images, erasures)
    return [compute_logits(classifier, images, one) for one in erasures]


def harm(before: NDArray, after: NDArray, truth: NDArray, trained_on: bool = False) -> Harm:
    """The answer by logits of clean pictures."""
    was, right = (y.argmax(1) == truth for y in (before, after))
    own = truth == TARGET
    elsewhere, most = loss_elsewhere(was, right, truth, TARGET)
    most_lost = "" if most is None else fashion.CLASSES[most]
    overall = Loss("clean", paired_loss(was, right), BOUNDS.overall, trained_on, elsewhere, most_lost)
    return Harm((overall, Loss("class", paired_loss(was[own], right[own]), BOUNDS.affected, trained_on)))


def by_all_classes(found: Harm) -> str:
    """The answer that does not ask whether one class alone bears the loss."""
    return Harm(tuple(replace(loss, elsewhere=NO_LOSS) for loss in found.losses)).answer


def as_before(found: Harm) -> str:
    """The rule of before: harmful by a point estimate, proven by Agresti's and Min's interval."""
    high = []
    for loss in found.losses:
        one = loss.measured
        if one.n and one.value > loss.bound + 1e-12:
            return HARMFUL
        m, lost, won = (
            one.n + 2,
            (one.changed + one.value * one.n) / 2 + 0.5,
            (one.changed - one.value * one.n) / 2 + 0.5,
        )
        high.append((lost - won) / m + Z95 * np.sqrt(lost + won - (lost - won) ** 2 / m) / m <= loss.bound)
    return HARMLESS if all(high) else NOT_PROVEN


def one(seed: int, artifact: str, by_heart: bool) -> dict:
    start, rng = time.time(), np.random.default_rng(seed)
    x, y = fashion.pictures("train")
    shirts = np.flatnonzero(y == TARGET)
    carries = np.zeros(len(x), bool)
    carries[rng.choice(shirts, round(SHARE * len(shirts)), replace=False)] = True
    planted = np.where(carries[:, None, None], PUT[artifact](x), x)
    net, n = network(planted, y, seed, by_heart)
    classifier = load_model((net, lambda image: image), classes=fashion.CLASSES)
    fit = np.concatenate([np.flatnonzero(carries[:n])[:300], np.flatnonzero(~carries[:n])[:600]])
    sample = Sample(inputs(planted[fit]), carries[fit], fit, y[fit])
    data = FittingData(classifier, TARGET, sample, overlay(artifact), seed=seed, steps=100)
    pool = np.flatnonzero(~carries[:n])[600:] if by_heart else n + np.flatnonzero(~carries[n:])[:POOL]
    test, truth = fashion.pictures("t10k")
    shown, held_out = inputs(x[pool]), inputs(test)
    plain, true_plain = (compute_logits(classifier, images) for images in (shown, held_out))
    found = []
    for method, _, some in corrections(data):
        sides = [answers(classifier, images, some) for images in (shown, held_out)] if some else [[], []]
        named = [(name, *both) for (name, _), *both in zip(some, *sides, strict=True)]
        if method == "oblique":
            wheres = [(y.argmax(1) == TARGET)[:, None] for y in (plain, true_plain)]
            named += [
                (f"reactive-class {name}", np.where(wheres[0], y, plain), np.where(wheres[1], z, true_plain))
                for name, y, z in named
            ]
        for name, y_shown, y_test in named:
            true = harm(true_plain, y_test, truth)
            whole = harm(plain, y_shown, y[pool])
            line = {
                "name": name,
                "shown": [one.measured.value for one in whole.losses],
                "truth": by_all_classes(true),
                "lost": [one.measured.value for one in true.losses],
                "said": {},
            }
            for size in SIZES:
                if size > len(pool):
                    continue
                said: list[tuple[str, str, int, str]] = []
                for _ in range(SAMPLES):
                    at = rng.choice(len(pool), size, replace=False)
                    own = rng.permutation(np.flatnonzero(y[pool] == TARGET))[:size]
                    trained = recognise_training_images(LabelledAnswers.of(plain[at], y[pool][at])).trained_on
                    told = [harm(plain[some_], y_shown[some_], y[pool][some_], trained) for some_ in (at, own)]
                    both = Harm((told[0].losses[0], told[1].losses[1]))
                    said.append((both.answer, as_before(both), both.settled_by, by_all_classes(both)))
                line["said"][str(size)] = said
            found.append(line)
    right = [float((p.argmax(1) == t).mean()) for p, t in ((plain, y[pool]), (true_plain, truth))]
    return {
        "seed": seed, "artifact": artifact, "by heart": by_heart, "accuracy": right, "corrections": found,
        "seconds": time.time() - start,
    }  # fmt: skip


def table(runs: list[dict]) -> None:
    """For each size: how often each answer was given to corrections of each truth, in percent."""
    for by_heart in (False, True):
        lines = [line for run in runs if run["by heart"] == by_heart for line in run["corrections"]]
        if not lines:
            continue
        right = np.mean([run["accuracy"] for run in runs if run["by heart"] == by_heart], 0)
        count = Counter(line["truth"] for line in lines)
        kind = "by heart" if by_heart else "held out"
        print(
            f"\n{kind}: accuracy {right[0]:.3f} on what is shown, {right[1]:.3f} on test pictures; {len(lines)} ",
            end="",
        )
        print(f"corrections: {count[HARMLESS]} harmless, {count[HARMFUL]} harmful, {count[NOT_PROVEN]} on their bound")
        header = "proven harmless | harmful | not proven | harmful by all classes | of the rule before: proven, harmful"
        print(f"| images | truth | {header} |\n{'|---' * 7}|")
        for size in SIZES:
            for truth in (HARMLESS, HARMFUL):
                said = [s for line in lines if line["truth"] == truth for s in line["said"].get(str(size), [])]
                if not said:
                    continue
                shares = [100 * np.mean([s[0] == answer for s in said]) for answer in (HARMLESS, HARMFUL, NOT_PROVEN)]
                old = [100 * np.mean([s[1] == answer for s in said]) for answer in (HARMLESS, HARMFUL)]
                whole = 100 * np.mean([s[3] == HARMFUL for s in said])
                told = " | ".join(f"{v:.1f}" for v in (*shares, whole))
                print(f"| {size} | {truth} | {told} | {old[0]:.1f}, {old[1]:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--json", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = [json.loads(line) for line in asked.json.read_text().splitlines()] if asked.json.exists() else []
    done = {(run["seed"], run["by heart"]) for run in found}
    for seed in asked.seeds:
        for by_heart in (KINDS[kind] for kind in asked.kinds):
            if (seed, by_heart) not in done:
                found.append(one(seed, ("tag", "stripe")[seed % 2], by_heart))
                with asked.json.open("a") as lines:
                    lines.write(json.dumps(found[-1]) + "\n")
    table([run for run in found if run["seed"] in asked.seeds])


if __name__ == "__main__":
    main()
