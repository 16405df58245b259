"""Does a network for moles use each of seven marks? Each is cut out of pictures that show it, and put on others.

    export PYTHONPATH=NETWORKS MOLES=moles
    python benchmarks/audit/isic_marks.py ISIC2017 --choose
    python benchmarks/audit/isic_marks.py ISIC2017 [--cleaned cleaned]

Cut are the pixels of the mark alone, found by colour and fine structure; how well the number of such pixels tells the
pictures that people marked is printed as an AUC. Patches, ink and dark corners are put on as they are. Rulers, hair,
bubbles and borders are thin, so the *ratio* of their pixels to the median of the skin around goes on, and skin keeps
its tone. The control is the same place of a benign picture without the mark, put on in the same way. Nothing of
klarsicht is used. Marks come from benign pictures of the half that trains the network. Receivers are all pictures
without the mark: with --choose of that half too, on which thresholds were chosen, and without it of the other half.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import rgb2lab
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from isic import CLASSES, SIDE, Row, melanoma_logits, network, read_images, read_rows, split_rows
from isic_interventions import bounds, patch_of, say

Mask = NDArray[np.bool_]
LEAST_PIXELS = 30  # a smaller cut is no mark
AROUND = 21  # side of the square whose median is the skin around a pixel
MIDDLE = slice(SIDE // 4, SIDE - SIDE // 4)
DISC = np.hypot(*(np.mgrid[:SIDE, :SIDE] / (SIDE - 1) * 2 - 1)) < 0.45  # the lesion, which no mark is cut from


def lab_of(image: Tensor) -> NDArray[np.float64]:
    return rgb2lab((image.permute(1, 2, 0).numpy() + 1) / 2)


def keep_parts(mask: Mask, wanted: Callable[[float, float, int], bool]) -> Mask:
    """Keep the connected parts of a mask that `wanted` accepts: by length, width and number of pixels.

    Length is the diagonal of a part's box, and width four deviations across its main direction.
    """
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    kept = []
    for k, (y, x) in enumerate(ndimage.find_objects(parts), 1):
        points = np.argwhere(parts[y, x] == k)
        across = 4 * np.sqrt(max(np.linalg.eigvalsh(np.cov(points.T))[0], 0)) if len(points) > 2 else 0.0
        if wanted(float(np.hypot(y.stop - y.start, x.stop - x.start)), float(across), len(points)):
            kept.append(k)
    return np.isin(parts, kept)


def dark_frame(light: NDArray[np.float64]) -> Mask:
    """Find what is dark and touches the frame, and three pixels around it."""
    parts, _ = ndimage.label(ndimage.gaussian_filter(light, 2) < 0.55 * np.median(light[MIDDLE, MIDDLE]))
    frame = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return ndimage.binary_dilation(np.isin(parts, frame[frame > 0]), iterations=3)


def thin_dark(light: NDArray[np.float64], least: float) -> Mask:
    """Find dark lines outside the lesion, and inside a dark frame."""
    lines = ndimage.grey_closing(light, (9, 9), mode="nearest") - light > least
    lines[[0, 1, -2, -1]] = lines[:, [0, 1, -2, -1]] = False
    return lines & ~DISC & ~dark_frame(light)


def corner_of(image: Tensor) -> Mask:
    """Find what is dark and touches a corner of the frame."""
    light = ndimage.gaussian_filter(lab_of(image)[..., 0], 2)
    parts, _ = ndimage.label(light < 0.55 * np.median(light[MIDDLE, MIDDLE]))
    corners = {int(parts[y, x]) for y in (0, -1) for x in (0, -1)} - {0}
    return np.isin(parts, list(corners)) & ~DISC if corners else np.zeros(parts.shape, bool)


def hair_of(image: Tensor) -> Mask:
    """Find dark lines that are long for their number of pixels."""
    return keep_parts(thin_dark(lab_of(image)[..., 0], 7), lambda long, wide, n: long > 25 and n < 5 * long)


def ruler_of(image: Tensor) -> Mask:
    """Find dark straight lines: a ruler with its ticks, or three short ticks at least."""
    lines = thin_dark(lab_of(image)[..., 0], 6)
    whole = keep_parts(lines, lambda long, wide, n: long > 35 and wide < 12 and wide < long / 6)
    ticks = keep_parts(
        thin_dark(lab_of(image)[..., 0], 15), lambda long, wide, n: 7 < long <= 35 and wide < 4 and n < 3 * long
    )
    return ndimage.binary_dilation(ticks if not whole.any() and ndimage.label(ticks)[1] >= 3 else whole)


def ink_of(image: Tensor) -> Mask:
    """Find what is bluer than the skin around the lesion, and darker."""
    lab = lab_of(image)
    skin = np.median(lab[~DISC], 0)
    blue = (lab[..., 2] < skin[2] - 11) & (lab[..., 0] < skin[0] - 5) & ~DISC & ~dark_frame(lab[..., 0])
    return ndimage.binary_dilation(keep_parts(blue, lambda long, wide, n: n > 12))


def bubble_of(image: Tensor) -> Mask:
    """Find small bright parts: reflections of bubbles."""
    light = lab_of(image)[..., 0]
    bright = (light - ndimage.grey_opening(light, (9, 9)) > 9) & ~DISC & ~dark_frame(light)
    return ndimage.binary_dilation(keep_parts(bright, lambda long, wide, n: long < 20))


def border_of(image: Tensor) -> Mask:
    """Find long bright lines: the edge of gel reflects."""
    light = ndimage.gaussian_filter(lab_of(image)[..., 0], 1)
    bright = (light - ndimage.grey_opening(light, (13, 13)) > 4) & ~DISC & ~dark_frame(light)
    return ndimage.binary_dilation(keep_parts(bright, lambda long, wide, n: long > 50))


@dataclass(frozen=True)
class Cut:
    """Cut of a mark: its pixels, whether their ratio to the skin is put on, and what donors must not show."""

    mask: Callable[[Tensor], Mask]
    ratio: bool
    without: tuple[str, ...] = field(default=("patches",))


CUTS = {
    "dark_corner": Cut(corner_of, False),
    "hair": Cut(hair_of, True, ("ruler", "ink", "patches")),
    "gel_border": Cut(border_of, True, ("ink", "patches")),
    "gel_bubble": Cut(bubble_of, True),
    "ruler": Cut(ruler_of, True, ("hair", "ink", "patches")),
    "ink": Cut(ink_of, False),
    "patches": Cut(patch_of, False, ()),
}


def ratios(images: Tensor) -> Tensor:
    """Divide every pixel, of levels 0 to 1, by the median around it, at half the resolution: (n, 3, H, W)."""
    levels = (images + 1) / 2 + 0.02
    halved = nn.functional.avg_pool2d(levels, 2).numpy()
    skin = np.stack([ndimage.median_filter(x, (1, AROUND // 2, AROUND // 2)) for x in halved])
    return levels / nn.functional.interpolate(torch.from_numpy(skin), scale_factor=2, mode="bilinear")


def put_on(images: Tensor, material: Tensor, masks: Mask, ratio: bool) -> Tensor:
    """Put material, which are pixels or their ratios to the skin around, on pictures where masks (n, H, W) say."""
    given = (((images + 1) / 2 + 0.02) * material - 0.02).clamp(0, 1) * 2 - 1 if ratio else material
    return torch.where(torch.from_numpy(masks)[:, None], given, images)


def choose_donors(rows: list[Row], mark: str) -> list[int]:
    """Return benign pictures that show the mark and nothing that looks like it."""
    cut = CUTS[mark]
    return [
        i for i, row in enumerate(rows)
        if row["melanoma"] == "0" and row[mark] == "1" and all(row[other] == "0" for other in cut.without)
    ]  # fmt: skip


def measure(net: nn.Module, halves: dict[str, list[Row]], images: dict[str, Tensor], shown: str, seed: int) -> None:
    """Print, mark by mark, how well it is cut, and what it does to pictures of either class."""
    rows, first = halves[shown], halves["train"]
    print(
        "mark, AUC of cut pixels for it, share of the frame, donors; logits of melanoma by the mark, less the control"
    )
    for mark, cut in CUTS.items():
        began, rng = time.process_time(), np.random.default_rng(seed)
        wanted = set(choose_donors(first, mark))
        if shown == "train":
            wanted |= {i for i, row in enumerate(first) if row[mark] and all(row[k] == "0" for k in cut.without)}
        every = {i: cut.mask(images["train"][i]) for i in sorted(wanted)}
        marked_by_people = [first[i][mark] == "1" for i in every]
        told = roc_auc_score(marked_by_people, [m.sum() for m in every.values()]) if shown == "train" else np.nan
        donors = [i for i in choose_donors(first, mark) if every[i].sum() >= LEAST_PIXELS]
        plain = [
            i for i, row in enumerate(first)
            if row["melanoma"] == "0" and row[mark] == "0" and all(row[k] == "0" for k in cut.without)
        ]  # fmt: skip
        masks = np.stack([every[i] for i in donors])
        receivers = [i for i, row in enumerate(rows) if row[mark] == "0"]
        x, own = images[shown][receivers], np.array([rows[i]["melanoma"] == "1" for i in receivers])
        drawn, other = rng.integers(len(donors), size=len(x)), rng.choice(plain, len(x))
        used = np.unique([*donors, *plain])
        material = ratios(images["train"][used]) if cut.ratio else images["train"][used]
        marked, control = [], []
        for some in np.array_split(np.arange(len(x)), len(x) // 64 + 1):
            for source, out in ((np.array(donors)[drawn], marked), (other, control)):
                given = material[np.searchsorted(used, source[some])]
                out.append(melanoma_logits(net, put_on(x[some], given, masks[drawn[some]], cut.ratio)))
        effect = np.concatenate(marked) - np.concatenate(control)
        cells = [f"{name} {say(bounds(effect[some], rng))}" for name, some in zip(CLASSES, (~own, own), strict=True)]
        shares = [f"{np.mean(np.concatenate(z)[~own] > 0):.0%}" for z in (control, marked)]
        both = say(bounds(effect, rng))
        spent = time.process_time() - began
        print(
            f"{mark:12} {told:.2f} {masks.mean():5.1%} {len(donors):4}  all {both}  {'  '.join(cells)}  "
            f"benign called melanoma {' to '.join(shares)}; {len(x)} pictures, {spent:.0f} CPU s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--choose", action="store_true", help="receivers of the half that trains the network")
    parser.add_argument("--cleaned", type=Path, help="a correction, in place of the network as it was trained")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    halves = split_rows(read_rows(given.data))
    images = {half: read_images(given.data, rows) for half, rows in halves.items()}
    net = torch.export.load(given.cleaned / "model.pt2").module() if given.cleaned else network()[0]
    measure(net, halves, images, "train" if given.choose else "held", given.seed)


if __name__ == "__main__":
    main()
