"""Verdicts on runs of two and four classes, which no tail over classes judges: what is called, used, and named.

    python benchmarks/audit/few_classes.py IMAGENET32 --folder few --seeds 100 101 102
    python benchmarks/audit/few_classes.py IMAGENET32 --folder few --classes 2 --seeds 100 101 102
    python benchmarks/audit/few_classes.py IMAGENET32 --folder few --classes 2 --windows --seeds 121 122
    python benchmarks/audit/few_classes.py IMAGENET32 --folder few --classes 2 --taught --use --seeds 200 201
    python benchmarks/audit/few_classes.py IMAGENET32 --folder few --classes 2 --left-out E --seeds 142 143
    python benchmarks/audit/few_classes.py IMAGENET32 --folder few --classes 2 --left-out E --others --seeds 160

A run has real classes of 450 images at 32 px. In half of its classes artifacts of two families of one fold
(`left_out_cases.FOLDS`) are planted, on a tenth and on a fifth of the images; a small network is trained on them. It is
audited as `audit run` and `audit quantify` do; without --taught, the embedding is learned without the families of the
fold. The real artifact is put on 50 held-out images of each other class. One line a class goes to
FOLDER/few-CLASSES.jsonl,
with --taught to few-CLASSES-taught.jsonl. --windows trains no network and learns no embedding: what is called by
windows, and beside the reference classes that come along without those of the run, in few-CLASSES-windows.jsonl. Seeds
below 100 are to develop on.

With --use the kinds are opaque or frames, and are planted after the training in pairs of odd seeds and in the second
class of fours, so that the network cannot use them (few-CLASSES-taught-use.jsonl with --taught).

--left-out is the same for families that no embedding was taught: the families lie in three parts (LEFT_OUT), and
the folder E holds for each part k the network that ship_embedding.py taught without it, without-k.safetensors, and its
reference, without-k.json of reference_scores.py. The first class carries an opaque or a frame kind, or with --others
another one, each kind in its turn; the second of four carries one of the others of the same part. Beside it stand the
embedding that comes along, which was taught all families, and none at all, and the left-out one without the detectors
of spots of a colour (few-CLASSES-left-out.jsonl); with --variants some of these four alone.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from klarsicht.audit.results.rows import FewClassMeasures
from klarsicht.audit.results.significance import APART_P, LEVEL
from klarsicht.audit.results.words import VerdictKind
from klarsicht.audit.verdicts.detectors import artifact_embedding, reference_classes
from klarsicht.audit.verdicts.detectors.artifact_embedding import (
    ArtifactEmbedding,
    load_reference_embedding,
    load_shipped_embedding,
)
from klarsicht.audit.verdicts.detectors.bank import change_of, run_detectors
from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.verdicts.detectors.natural_windows import NaturalWindows, complete_strongest
from klarsicht.audit.verdicts.detectors.reference_classes import (
    ReferenceClasses,
    ReferenceTest,
    detect_shipped,
    read_reference,
    shipped_reference,
)
from klarsicht.audit.verdicts.quantification import embedding_units
from klarsicht.audit.verdicts.quantification.selected_detections import select_detections
from klarsicht.audit.verdicts.quantification.units import measure_few, sign_row
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.split_half import combined_p, draw_halves

sys.path.insert(0, str(Path(__file__).parent))
import left_out_cases as cases
import left_out_families as families
import planted_classes

SHARES = (0.1, 0.2)
LEFT_OUT = ((0,), (1,), (2, 3))  # folds of the families in a part that is left out
OPAQUE = (
    "random-tag", "caption", "logo", "date-stamp", "stripe", "two-stripes", "frame", "rounded-frame", "ruler",
)  # kinds that lie on the picture as a thing of their own  # fmt: skip
OTHERS = tuple(
    name for fold in cases.FOLDS for name in fold if name not in OPAQUE and name not in artifact_embedding.NOT_TAUGHT
)
APART = ("natural", "left", "apart", "apart_p", "apart_left")  # columns of the table `classes`
SPOTS = ("flat-colour", "one-sided-colour")  # detectors of decision 80
VARIANTS = ("left-out", "no-spots", "taught", "no-embedding")


def part_of(family: str) -> int:
    """Return the number of the part of LEFT_OUT that a family lies in."""
    return next(k for k, folds in enumerate(LEFT_OUT) if cases.fold_of(family) in folds)


def draw_left_out(seed: int, classes: int, others: bool) -> tuple[list[str], list[float]]:
    """Draw the families and shares of a run: the first kind and its share in their turn, the second of the same part at
    the other share."""
    kinds = OTHERS if others else OPAQUE
    first, share = kinds[seed % len(kinds)], seed // len(kinds)
    rest = [name for name in OTHERS if part_of(name) == part_of(first) and name != first]
    drawn = [first, str(generator(seed, "left-out families").choice(rest))]
    return drawn[: classes // 2], [SHARES[(share + label) % 2] for label in range(classes // 2)]


def plant(
    data: Path, seed: int, classes: int, drawn: list[str] | None = None, shares: list[float] | None = None
) -> tuple[list[str], np.ndarray, np.ndarray, list[cases.Plant]]:
    """Names of the classes, images (classes, 450, 32, 32, 3) with artifacts, clean held-out images, and the plants; of
    the seed's fold, if no families are given."""
    names, pictures = planted_classes.classes(data, classes, seed)
    fold, rng = cases.FOLDS[seed % len(cases.FOLDS)], generator(seed, "few classes")
    images, held_out = pictures[:, : planted_classes.TRAINED].copy(), pictures[:, planted_classes.TRAINED :]
    drawn = drawn or list(rng.permutation([name for name in fold if name not in artifact_embedding.NOT_TAUGHT]))
    plants = []
    for label in range(classes // 2):
        share = shares[label] if shares else SHARES[(seed // len(cases.FOLDS) + label) % 2]
        rows = np.sort(rng.choice(images.shape[1], round(share * images.shape[1]), replace=False))
        planted = cases.Plant(label, label, str(drawn[label]), share, True, tuple(rows.tolist()), "")
        images[label, rows] = cases.put(images[label, rows], planted, seed)
        plants.append(planted)
    return names, images, held_out, plants


def draw_for_use(seed: int, classes: int) -> tuple[list[str], list[float]]:
    """Draw opaque and frame kinds in their turn, at alternating shares."""
    labels = range(classes // 2)
    return [OPAQUE[(seed + 4 * k) % len(OPAQUE)] for k in labels], [SHARES[(seed // 2 + k) % 2] for k in labels]


def make(data: Path, seed: int, classes: int, epochs: int, use: bool = False) -> cases.Case:
    """Train the network of a run, and measure the true uses.

    Args:
        use: whether opaque and frame kinds are planted, the one of odd seeds' pairs and the second one of fours after
            the training.
    """
    names, images, held_out, plants = plant(data, seed, classes, *(draw_for_use(seed, classes) if use else ()))
    labels, taught = np.repeat(np.arange(classes), images.shape[1]), images
    if use:
        after = {0} if classes == 2 and seed % 2 else set(range(1, classes // 2))
        clean = planted_classes.classes(data, classes, seed)[1][:, : images.shape[1]]
        taught = np.stack([clean[k] if k in after else images[k] for k in range(classes)])
        plants = [replace(p, trained=p.label not in after) for p in plants]
    net = planted_classes.fitted(taught.reshape(-1, *images.shape[2:]), labels, seed, epochs)
    told = planted_classes.logits(net, held_out.reshape(-1, *held_out.shape[2:])).argmax(1)
    accuracy = float((told == np.repeat(np.arange(classes), held_out.shape[1])).mean())
    case = cases.Case(seed, tuple(names), images, held_out, {}, {}, net, accuracy)
    known = [replace(p, use=cases.measure_use(net, case.others(p.label), p, seed)) for p in plants]
    return replace(case, plants={p.label: p for p in known})


def classes_of(images: np.ndarray, seed: int) -> list[ClassImages]:
    """Collect the classes of a run (k, n, H, W, 3), each beside the others."""
    pool, labels = ImageStack(images.reshape(-1, *images.shape[2:])), np.repeat(np.arange(len(images)), images.shape[1])
    rows, halves = np.arange(images.shape[1]), [generator(seed, "halves", k) for k in range(len(images))]
    return [
        ClassImages(ImageStack(stack), pool, labels != k, draw_halves(len(rows), halves[k]), rows, seed)
        for k, stack in enumerate(images)
    ]


def called_by_windows(data: Path, seed: int, classes: int) -> list[families.Line]:
    """One line a class: what is called of a run without an embedding, by windows and beside reference classes."""
    names, images, _, plants = plant(data, seed, classes)
    known, described, signs = shipped_reference().without(names), [], []
    for k, of_class in enumerate(classes_of(images, seed)):
        found, measures = measure_few(of_class, run_detectors(of_class), known)
        described.append(measures)
        signs.append([sign_row(k, np.arange(len(of_class.own)), sign) for sign in found])
    choice = select_detections(signs, LEVEL, described)
    windows = called_alone(signs, described)
    called, p_own, lines = choice.significance.artifactual(LEVEL), choice.significance.p_own, []
    for k, row in enumerate(choice.rows):
        mine = next((p for p in plants if p.label == k), None)
        line = {"seed": seed, "label": k, "class": names[k], "family": mine.family if mine else ""}
        line |= {"share": mine.share if mine else 0.0, "artifactual": bool(called[k]), "noted": bool(p_own[k] <= LEVEL)}
        line |= {"sign": row["sign"], "p_own": float(p_own[k]), "windows": bool(windows[k]), **described[k]}
        line["f1"] = families.f1(row["rows"], mine.rows if mine else ())
        lines.append(line)
    return lines


def called_alone(signs: list, described: Sequence[FewClassMeasures]) -> np.ndarray:
    """Classes that are called by windows, without the reference classes: bool (n,)."""
    return select_detections(signs, LEVEL, [one | {"apart": ""} for one in described]).significance.artifactual(LEVEL)


def compared_by(
    images: ClassImages, found: list[Detection], network: ArtifactEmbedding | None, known: ReferenceClasses
) -> tuple[list[Detection], ReferenceTest]:
    """Compare a class with reference classes by some embedding, or by none."""
    if reference_classes.load_reference_embedding() is not network:
        for stack in (images.own, images.pool):  # what they hold by name is of another embedding
            for name in [name for name in stack.cache if name.endswith("shipped-embedding")]:
                del stack.cache[name]
    reference_classes.load_reference_embedding = lambda: network
    if network is None:
        learned = np.array([name.startswith("shipped-embedding") for name in known.signs])
        known = replace(known, scores=np.where(learned, 0.0, known.scores))
    every = [*found, *detect_shipped(images)]
    return every, ReferenceTest.of(images, every, known)


def without_detectors(known: ReferenceClasses, names: tuple[str, ...]) -> ReferenceClasses:
    """Leave the detections of some detectors out of a reference, so that they are not tested."""
    kept = [i for i, sign in enumerate(known.signs) if sign.split()[0] not in names]
    return replace(known, signs=tuple(known.signs[i] for i in kept), scores=known.scores[:, kept])


def called_left_out(
    data: Path, seed: int, classes: int, folder: Path, others: bool, variants: Sequence[str]
) -> list[families.Line]:
    """One line a class: what is called by windows and beside reference classes, in some of VARIANTS."""
    names, images, _, plants = plant(data, seed, classes, *draw_left_out(seed, classes, others))
    part = part_of(plants[0].family)
    without = load_shipped_embedding(folder / f"without-{part}.safetensors")
    reference = read_reference(folder / f"without-{part}.json")
    references = {"left-out": reference, "no-spots": without_detectors(reference, SPOTS)}
    networks = {"left-out": without, "taught": load_reference_embedding(), "no-embedding": None, "no-spots": without}
    described, signs = ({name: [] for name in variants} for _ in range(2))
    for k, of_class in enumerate(classes_of(images, seed)):
        found = complete_strongest(of_class, run_detectors(of_class))
        shared = NaturalWindows.of(of_class, found)
        for name in variants:
            known = references.get(name, shipped_reference()).without(names)
            every, beside = compared_by(of_class, found, networks[name], known)
            described[name].append(
                {"natural": shared.natural, "correlation": shared.correlation, "left": shared.left}
                | {"apart": beside.sign, "apart_p": beside.p, "apart_left": beside.left}
            )
            signs[name].append([sign_row(k, np.arange(len(of_class.own)), sign) for sign in every])
    windows = called_alone(signs[variants[0]], described[variants[0]])
    lines: list[families.Line] = []
    for k in range(classes):
        mine = next((p for p in plants if p.label == k), None)
        line = {"seed": seed, "label": k, "class": names[k], "family": mine.family if mine else "", "part": part}
        lines.append(line | {"share": mine.share if mine else 0.0, "windows": bool(windows[k])})
    for name in variants:
        choice = select_detections(signs[name], LEVEL, described[name])
        called, p_own = choice.significance.artifactual(LEVEL), choice.significance.p_own
        for k, row in enumerate(choice.rows):
            rows = next((p.rows for p in plants if p.label == k), ())
            lines[k][name] = {
                "artifactual": bool(called[k]), "sign": row["sign"], "p_own": float(p_own[k]),
                "f1": families.f1(row["rows"], rows), **described[name][k],
            }  # fmt: skip
    return lines


def table_left_out(lines: list[families.Line]) -> str:
    told = [f"{len(families.seeds(lines))} corpora, {len(lines)} classes"]
    for name in (name for name in VARIANTS if name in lines[0]):
        mine = [li | li[name] for li in lines]
        for li in mine:
            li["named"] = li["artifactual"] and li["f1"] >= families.NAMED
        told.append(f"{name}: clean {families.share([li for li in mine if not li['family']], 'artifactual')}")
        for share in SHARES:
            for kinds, of in (("opaque and frame", OPAQUE), ("other", OTHERS)):
                some = [li for li in mine if li["family"] in of and li["share"] == share]
                told.append(f"  {share:.0%}, {kinds} kinds: {families.share(some, 'artifactual')}")
                told.append(f"    and named {families.share(some, 'named')}; F1 {families.mean_f1(some)}")
                if name == "left-out":
                    told.append(f"    by windows alone {families.share(some, 'windows')}")
    return "\n".join([*told, *(f"  {li['seed']} {li['family']} {li['share']:.0%}: {words_of(li)}" for li in lines)])


def words_of(line: families.Line) -> str:
    """Tell what each embedding says of a class."""
    return "; ".join(
        f"{'called' if of['artifactual'] else 'not'}, F1 {of['f1']:.2f}, {of['sign']}, p {of['p_own']:.1e}, apart "
        f"{of['apart']} {of['apart_p']:.3f}, {of['apart_left']:.2f}"
        for of in (line[name] for name in VARIANTS if name in line)
    )


def table_of_windows(lines: list[families.Line]) -> str:
    plants, clean = [li for li in lines if li["family"]], [li for li in lines if not li["family"]]
    told = [f"{len(families.seeds(lines))} corpora, {len(plants)} plants, {len(clean)} clean classes"]
    for li in lines:
        li["named"] = li["artifactual"] and li["f1"] >= families.NAMED
    for share in SHARES:
        mine = [li for li in plants if li["share"] == share]
        told.append(f"{share:.0%}: artifactual {families.share(mine, 'artifactual')}")
        told.append(f"  and named {families.share(mine, 'named')}; by windows alone {families.share(mine, 'windows')}")
    told.append(f"clean: artifactual {families.share(clean, 'artifactual')}; noted {families.share(clean, 'noted')}")
    told.append(f"largest correlation {max(li['correlation'] for li in lines):.4f}")
    told += [
        f"  {li['seed']} {li['family']} {li['share']:.0%}: {'artifactual' if li['artifactual'] else 'not called'}, F1 "
        f"{li['f1']:.2f}, {li['sign']}, p {li['p_own']:.1e}, left {li['left']:.2f}; "
        f"{li['apart']} {li['apart_p']:.3f}, {li['apart_left']:.2f}"
        for li in lines
    ]
    return "\n".join(told)


def audited(case: cases.Case, folder: Path, taught: bool) -> list[families.Line]:
    """One line a class, of an audit whose embedding was learned without the families of the seed's fold, or was taught
    all."""
    others = shipped_reference().without(case.names)
    reference_classes.shipped_reference = lambda: others
    if taught:
        described = families.audited(case, folder)
        found = {row["target"]: row for row in RunStore.open(folder / "run").table("classes", "signs").to_pylist()}
        return [li | {name: found[li["label"]][name] for name in APART} for li in described]
    fold, known = cases.FOLDS[case.seed % len(cases.FOLDS)], artifact_embedding.drawn_in_training
    embedding_units.drawn_in_training = lambda channels: tuple(f for f in known(channels) if f not in fold)
    try:
        return families.audited(case, folder)
    finally:
        embedding_units.drawn_in_training = known


def table(lines: list[families.Line]) -> str:
    plants, clean = [li for li in lines if li["family"]], [li for li in lines if not li["family"]]
    told = [f"{len(families.seeds(lines))} networks, {len(plants)} plants, {len(clean)} clean classes"]
    for li in lines:
        li["noted"], li["named"] = (
            li["verdict"] != VerdictKind.NOTHING.words,
            li["artifactual"] and li["f1"] >= families.NAMED,
        )
    for share in SHARES:
        mine = [li for li in plants if li["share"] == share]
        told.append(f"{share:.0%}: artifactual {families.share(mine, 'artifactual')}; F1 {families.mean_f1(mine)}")
        told.append(
            f"  and named {families.share(mine, 'named')}; or windows of its own {families.share(mine, 'noted')}"
        )
    told.append(f"clean: artifactual {families.share(clean, 'artifactual')}; noted {families.share(clean, 'noted')}")
    for names, learned in (("learned on the run", True), ("that comes along, and descriptions", False)):
        some = [li for li in lines if "apart" in li]
        for li in some:
            of_run = max(score for name, score, _ in li["signs"] if name.startswith("embedding"))
            tests = len([name for name, *_ in li["signs"] if change_of(name) == "tile" or name.startswith("embedding")])
            beside = (li["apart_left"] or 0) > APART_P and li["apart_p"] <= LEVEL
            li["alone"] = bool(combined_p(of_run, tests) <= LEVEL) if learned else beside
        told.append(f"embedding {names}, alone: plants {families.share([li for li in some if li['family']], 'alone')}")
        told.append(f"  clean {families.share([li for li in some if not li['family']], 'alone')}")
    used = [li for li in plants if li["used"]]
    told.append(f"poisoned, of those used {families.share(used, 'poisoned')}")
    told.append(f"poisoned, of the others {families.share([li for li in plants if not li['used']], 'poisoned')}")
    told += [
        f"  {li['seed']} {li['family']} {li['share']:.0%}: {li['verdict']}, F1 {li['f1']:.2f}, {li['sign']}, p "
        f"{max(li['extended'], li['p_own']):.1e}; rise {li['true_rise']:+.2f}, {li['rise']:+.2f}, p {li['p_use']:.2f}"
        for li in plants
    ]
    return "\n".join(told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "few_classes")
    parser.add_argument("--classes", type=int, default=4, choices=(2, 4))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--taught", action="store_true", help="teach the embedding all families")
    parser.add_argument("--windows", action="store_true", help="by windows alone, without a network")
    parser.add_argument("--left-out", type=Path, metavar="E", help="families that no embedding was taught")
    parser.add_argument("--use", action="store_true", help="opaque and frame kinds, some planted after the training")
    parser.add_argument("--others", action="store_true", help="with --left-out: neither opaque nor frame kinds first")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS, help="with --left-out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    row = f"{given.classes}{'-taught' * given.taught}{'-windows' * given.windows}{'-use' * given.use}"
    file = given.folder / f"few-{row}.jsonl"
    if given.left_out:
        file = given.folder / f"few-{given.classes}-left-out.jsonl"
        given.folder.mkdir(parents=True, exist_ok=True)
        for seed in given.seeds:
            if seed not in families.measured(file):
                lines = called_left_out(given.data, seed, given.classes, given.left_out, given.others, given.variants)
                families.append(file, lines)
        print(table_left_out(families.read(file)))
        return
    if given.windows:
        given.folder.mkdir(parents=True, exist_ok=True)
        for seed in given.seeds:
            if seed not in families.measured(file):
                families.append(file, called_by_windows(given.data, seed, given.classes))
        print(table_of_windows(families.read(file)))
        return
    for seed in given.seeds:
        if seed not in families.measured(file):
            case = make(given.data, seed, given.classes, given.epochs, given.use)
            print(f"run {seed}: accuracy {case.accuracy:.2f}", file=sys.stderr, flush=True)
            families.append(file, audited(case, given.folder / "runs" / f"{row}-{seed}", given.taught))
    print(table(families.read(file)))


if __name__ == "__main__":
    main()
