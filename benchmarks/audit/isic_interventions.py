"""Does a network for moles follow the marks that others found on their pictures? Measured by nothing of klarsicht.

    export PYTHONPATH=NETWORKS MOLES=moles
    python benchmarks/audit/isic_interventions.py ISIC2017 --run run
    python benchmarks/audit/isic_interventions.py ISIC2017 --cleaned cleaned
    python benchmarks/audit/isic_interventions.py ISIC2017 --traps

Everything is measured on the half of ISIC2017 that trained nothing (see isic.py); marks come from the other half.
Logits are those of melanoma less benign, intervals of 95 % by a bootstrap over pictures. A mark is *exchanged*: each
picture gets the surroundings (outside an ellipse of 0.7 of the frame, a soft edge) of a benign picture with the mark,
and of one without any mark; the effect is the difference. Patches are cut out by their colour and put on pictures,
against the same region of benign pictures without a patch. With --run, the members of
each cluster, verdict and seen group of a quantified run are compared with the marks.
A *trap set* of a mark reverses what the training half teaches of it: where more melanomas than benign pictures have the
mark there, it holds the melanomas without and the benign pictures with it; the *easy set* holds the others. With
--traps only these are measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from isic import CLASSES, MARKS, SIDE, Row, melanoma_logits, network, read_images, read_rows, split_rows

RECIPIENTS, RESAMPLES = 60, 2000
CHROMA, PATCH_PIXELS = 32, 500  # distance from the skin in Lab; a smaller region is no patch


def bounds(values: NDArray[np.floating], rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the mean of values (n,) with its 95 % interval."""
    means = values[rng.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    return float(values.mean()), *np.quantile(means, [0.025, 0.975]).tolist()


def area(own: NDArray[np.bool_], logits: NDArray[np.floating], rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the AUC of melanoma with its 95 % interval."""
    draws = [rng.integers(len(own), size=len(own)) for _ in range(RESAMPLES // 4)]
    areas = [roc_auc_score(own[draw], logits[draw]) for draw in draws if 0 < own[draw].sum() < len(own)]
    return float(roc_auc_score(own, logits)), *np.quantile(areas, [0.025, 0.975]).tolist()


def say(values: tuple[float, float, float], digits: int = 2) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{mean} ({low} to {high})"


def patch_of(image: Tensor) -> NDArray[np.bool_]:
    """Find the patch on a picture (3, H, W): what touches the frame and has another colour than the middle."""
    colours = rgb2lab((image.permute(1, 2, 0).numpy() + 1) / 2)[..., 1:]
    a, b = SIDE // 4, SIDE - SIDE // 4
    far = np.linalg.norm(colours - np.median(colours[a:b, a:b].reshape(-1, 2), 0), axis=2) > CHROMA
    parts, n = ndimage.label(ndimage.binary_opening(far, iterations=2))
    frame = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    kept = [k for k in range(1, n + 1) if (parts == k).sum() > PATCH_PIXELS and k in frame]
    mask = np.isin(parts, kept) if kept else np.zeros(parts.shape, bool)
    return ndimage.binary_dilation(ndimage.binary_fill_holes(mask), iterations=3)


def surroundings() -> Tensor:
    """Return the weights (H, W) of what lies outside an ellipse: 0 in the middle, 1 outside, over a tenth between."""
    y, x = np.mgrid[:SIDE, :SIDE] / (SIDE - 1) * 2 - 1
    return torch.tensor(np.clip((np.hypot(x, y) - 0.7) / 0.1, 0, 1), dtype=torch.float32)


def exchange_surroundings(images: Tensor, donors: Tensor, rng: np.random.Generator) -> Tensor:
    """Give each picture the surroundings of a donor that is drawn for it."""
    weight = surroundings()
    return images * (1 - weight) + donors[rng.integers(len(donors), size=len(images))] * weight


def put_patches(
    images: Tensor, donors: Tensor, masks: NDArray[np.bool_], plain: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Put a drawn patch on each picture, and the same region of a picture without any."""
    chosen, other = rng.integers(len(donors), size=len(images)), rng.integers(len(plain), size=len(images))
    mask = torch.from_numpy(masks[chosen])[:, None]
    return torch.where(mask, donors[chosen], images), torch.where(mask, plain[other], images)


def mean_cut(values: Sequence[float]) -> str:
    return f"{np.mean(values):+.2f}" if len(values) else "none"


def select(rows: list[Row], images: Tensor, **marks: str) -> Tensor:
    return images[[i for i, row in enumerate(rows) if all(row[key] == value for key, value in marks.items())]]


def measure(net: nn.Module, halves: dict[str, list[Row]], images: dict[str, Tensor], seed: int, alone: bool) -> None:
    """Print what the network does with every mark of the half that is measured; `alone`: only of trap sets."""
    rng = np.random.default_rng(seed)
    rows, shown = halves["held"], images["held"]
    own = np.array([row["melanoma"] == "1" for row in rows])
    logits = melanoma_logits(net, shown)
    print(f"\nAUC of melanoma on {len(rows)} pictures: {say(area(own, logits, rng), 3)}")
    apart = np.random.default_rng(seed)  # the figures after these keep their draws
    for name, some in zip(CLASSES, (~own, own), strict=True):
        print(f"  called {name}, of {some.sum()}: {say(bounds((logits[some] > 0) == own[some], apart))}")
    measure_traps(logits, halves, apart)
    if alone:
        return
    patched = np.array([row["patches"] == "1" for row in rows])
    print(f"  without the {patched.sum()} with patches: {say(area(own[~patched], logits[~patched], rng), 3)}")
    print("\nmark, pictures with and without, mean logit of benign with and without, of melanoma; AUC with and without")
    for mark in MARKS:
        has, lacks = (np.array([row[mark] == value for row in rows]) for value in ("1", "0"))
        means = [mean_cut(logits[some & kind]) for kind in (~own, own) for some in (has, lacks)]
        mixed = [some for some in (has, lacks) if 0 < own[some].sum() < some.sum()]
        areas = [f"{roc_auc_score(own[some], logits[some]):.3f}" for some in mixed]
        print(f"{mark:12} {has.sum():5} {lacks.sum():5}   {'  '.join(means)}   {'  '.join(areas)}")
    measure_surroundings(net, halves, images, rng)
    measure_patches(net, halves, images, rng)


def measure_traps(logits: NDArray[np.floating], halves: dict[str, list[Row]], rng: np.random.Generator) -> None:
    """Print the AUC of melanoma on the easy and on the trap set of every mark, and recalls at threshold 0."""
    print("\nmark: share of benign and of melanomas with it in training; AUC on the easy set, on the trap set")
    rows, own = halves["held"], np.array([row["melanoma"] == "1" for row in halves["held"]])
    for mark in MARKS:
        known = [row for row in halves["train"] if row[mark] != ""]
        kinds = ([row[mark] == "1" for row in known if row["melanoma"] == str(k)] for k in range(2))
        benign, melanoma = (float(np.mean(some)) for some in kinds)
        has, lacks = (np.array([row[mark] == value for row in rows]) for value in ("1", "0"))
        sides = (np.where(own == (melanoma > benign), one, other) for one, other in ((has, lacks), (lacks, has)))
        cells = []
        for some in sides:
            k, n = int(own[some].sum()), int(some.sum())
            mixed = 0 < k < n
            right = [np.mean(logits[some & kind] > 0) if (some & kind).any() else np.nan for kind in (own, ~own)]
            auc = say(area(own[some], logits[some], rng)) if mixed else "none"
            cells.append(f"{auc} ({k} of {n} melanomas; called {right[0]:.0%} and {right[1]:.0%} of benign)")
        print(f"{mark:12} {benign:.0%} {melanoma:.0%}   {'   '.join(cells)}", flush=True)


def measure_surroundings(
    net: nn.Module, halves: dict[str, list[Row]], images: dict[str, Tensor], rng: np.random.Generator
) -> None:
    """Print what surroundings with each mark do to pictures of either class."""
    print("\nsurroundings with the mark, less surroundings without any mark: logits of melanoma")
    own = np.array([row["melanoma"] == "1" for row in halves["held"]])
    drawn = rng.permutation(len(own))
    recipients = {CLASSES[k]: images["held"][[i for i in drawn if own[i] == bool(k)][:RECIPIENTS]] for k in range(2)}
    first, many = halves["train"], images["train"]
    none = select(first, many, melanoma="0", **dict.fromkeys(MARKS, "0"))
    for mark in MARKS:
        donors = select(first, many, melanoma="0", **{mark: "1"})
        cells = []
        for name, x in recipients.items():
            with_mark = melanoma_logits(net, exchange_surroundings(x, donors, rng))
            effect = with_mark - melanoma_logits(net, exchange_surroundings(x, none, rng))
            cells.append(f"on {len(x)} {name} {say(bounds(effect, rng))}")
        print(f"{mark:12} {len(donors):4} donors   {'   '.join(cells)}", flush=True)


def measure_patches(
    net: nn.Module, halves: dict[str, list[Row]], images: dict[str, Tensor], rng: np.random.Generator
) -> None:
    """Print what patches that were cut out do to pictures of either class, and to the AUC."""
    rows, first, many = halves["held"], halves["train"], images["train"]
    donors = select(first, many, patches="1")
    masks = np.stack([patch_of(x) for x in donors])
    donors, masks = donors[masks.any((1, 2))], masks[masks.any((1, 2))]
    plain = select(first, many, melanoma="0", patches="0")
    known = [i for i, row in enumerate(rows) if row["patches"] == "0"]
    x, own = images["held"][known], np.array([rows[i]["melanoma"] == "1" for i in known])
    before = melanoma_logits(net, x)
    given, control = (melanoma_logits(net, y) for y in put_patches(x, donors, masks, plain, rng))
    print(f"\na patch ({len(donors)} cut out, {masks.mean():.0%} of the frame), less the same region without one")
    for name, some in zip(CLASSES, (~own, own), strict=True):
        called = [f"{np.mean(values[some] > 0):.0%}" for values in (before, control, given)]
        print(f"on {some.sum()} {name} {say(bounds((given - control)[some], rng))} logits")
        print(f"  called melanoma as they are, with the region, with a patch: {', '.join(called)}")
        print(f"  turned to benign by it: {say(bounds((given[some] <= 0) & (control[some] > 0), rng))}")
    pairs = {"none": (before, before), "melanomas": (given, before), "benign": (before, given), "all": (given, given)}
    for name, (on_melanoma, on_benign) in pairs.items():
        print(f"AUC with a patch on {name}: {say(area(own, np.where(own, on_melanoma, on_benign), rng), 3)}")


def compare_members(run: Path, rows: list[Row]) -> None:
    """Print recall, precision and F1 of every named group against every mark, in pictures of its class: of suspect
    clusters, of verdicts, and of what `audit quantify` has seen and not tested."""
    marks = {row["path"]: row for row in rows}
    lists = {"cluster": json.loads((run / "ranking.json").read_text())}
    lists["verdict"] = json.loads((run / "quantification.json").read_text())["classes"]
    lists["seen"] = json.loads((run / "seen.json").read_text())["groups"]
    for source, one in ((source, one) for source, groups in lists.items() for one in groups if one["members"]):
        kind = str(CLASSES.index(one["class"]))
        pool = {path for path, row in marks.items() if row["melanoma"] == kind and row["patches"] != ""}
        members = {Path(path).name for path in one["members"]} & pool
        print(f"\n{one['class']}, {source}: {len(one['members'])} members, {len(members)} with marks")
        for mark in MARKS:
            truth = {path for path in pool if marks[path][mark] == "1"}
            hits, f1 = len(members & truth), 2 * len(members & truth) / max(1, len(members) + len(truth))
            precision = hits / max(1, len(members))
            print(f"  {mark:12} {hits:3} of {len(truth):3} recalled, precision {precision:.2f}, F1 {f1:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--cleaned", type=Path, help="a correction, in place of the network as it was trained")
    parser.add_argument("--traps", action="store_true", help="only trap sets")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    halves = split_rows(read_rows(given.data))
    if given.run:
        compare_members(given.run, halves["train"])
    read = {"held": halves["held"]} if given.traps else halves
    images = {half: read_images(given.data, rows) for half, rows in read.items()}
    net = torch.export.load(given.cleaned / "model.pt2").module() if given.cleaned else network()[0]
    measure(net, halves, images, given.seed, given.traps)


if __name__ == "__main__":
    main()
