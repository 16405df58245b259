"""Which cluster does the model follow? What relevance points at is cut out and put on images of other classes.

Separability chooses the wrong cluster most of the time: natural groups are separable. So each image gives its heaviest
connected parts of relevance, and all that holds nine tenths of it: an artifact may be made of many strokes. Each is
pasted at its own place on a few images of other classes, and the rise of the class's logit is the effect of that image.
Natural content of a class raises it too; so among images of one class what counts is the rise beyond that of its other
images at the same places. The cluster that the model follows is the one that this sets apart most surely: a correlation
would punish a rare artifact. And what stands apart in what was compared counts for more. The cluster is chosen on one
half of the images; the other half says how well it does, and lends what is measured against a control: what relevance
points at in images that are no members. Every member brings content of its own along, so all of them are put on,
several on each image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.interventions.effect import LogitEffect, Predict, effect
from klarsicht.ground.arrays import Bools, Floats, Pixels
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.persistence import segment
from klarsicht.numerics.statistics.logits import centred, rounding

PARTS = 3  # of an image that are tried, the heaviest
WHOLE = 0.9  # of its positive relevance, which is tried at once
BACKGROUNDS = 5  # images that each is put on: five forward passes a region
CHOOSING = 2  # of these, by which every output picks images of its own; see audit.results.output_effects
GIVERS = 4  # members whose regions each image gets in turn when the effect is measured, and as many controls
BLOCK = 64  # regions pasted at a time
SURE = 1.645  # standard errors from a difference to the lower end of its interval: 95 %, one-sided
LEAST = 2  # members, and others, that either half must have
FLAT = 1e-9  # a deviation below is none


@dataclass(frozen=True)
class Backgrounds:
    """Images that parts are put on.

    Attributes:
        images: uint8 (B, H, W, C).
        before: float (B, K), centred logits of the images as they are.
        rounding: float, the difference of two logits up to which they are equal but for rounding.
    """

    predict: Predict
    images: Pixels
    before: Floats
    rounding: float

    @classmethod
    def of(cls, predict: Predict, images: Pixels) -> Backgrounds:
        answers = predict(images.astype(np.float32))
        return cls(predict, images, centred(answers), rounding(answers))

    def changes(
        self, levels: Pixels, givers: NDArray[np.intp], regions: Bools, label: str
    ) -> Iterator[tuple[slice, Floats]]:
        """By how much centred logits change, (r, B, K), when some of the regions (m, G, G), block by block, hold what
        the images of givers, (m, 1) or (m, B), have there."""
        shape = levels.shape[1:]
        for start in track(range(0, len(regions), BLOCK), -(-len(regions) // BLOCK), label):
            some = slice(start, start + BLOCK)
            masks = enlarged(regions[some], shape[:2])
            pasted = np.where(masks[:, None, ..., None], levels[givers[some]], self.images)
            after = centred(self.predict(pasted.reshape(-1, *shape).astype(np.float32)))
            yield some, after.reshape(len(masks), *self.before.shape) - self.before


@dataclass(frozen=True)
class RegionEffects:
    """n images, and what the region of each that raises the class most does on other images.

    Attributes:
        levels: uint8 (n, H, W, C).
        masks: bool (n, H, W), that region; empty where an image has no positive relevance.
        rise: float (n,), mean change of the class's centred logit, beyond that of its fellows; 0 without a region, and
            where it is no more than rounding.
        owner: int (m,), of all regions that were tried the image that each is of.
        rises: float (2, m, K), what each of them does to every output, on the first backgrounds and on the others.
    """

    levels: Pixels
    masks: Bools
    rise: Floats
    owner: NDArray[np.intp]
    rises: Floats

    @classmethod
    def of(
        cls, predict: Predict, levels: Pixels, maps: Floats, backgrounds: Pixels, target: int,
        fellows: Pixels | None = None,
    ) -> RegionEffects:  # fmt: skip
        """From images, their relevance maps (n, G, G) and images of other classes (B, H, W, C).

        Args:
            fellows: uint8 (n, H, W, C), the images themselves where they are of one class: what others of them do at
                the same places is no rise of this one. None for images of all classes, which have nothing in common.
        """
        owner, regions = tried(maps)
        put_on = Backgrounds.of(predict, backgrounds)
        rise, rises = np.empty(len(owner)), np.empty((2, len(owner), put_on.before.shape[1]), np.float32)
        for some, change in put_on.changes(levels, owner[:, None], regions, "parts on other images"):
            rise[some] = change[..., target].mean(1)
            rises[:, some] = change[:, :CHOOSING].mean(1), change[:, CHOOSING:].mean(1)
        if fellows is not None and len(fellows) > 1:
            rise -= usual(put_on, fellows, owner, regions, target)
        rise[np.abs(rise) <= put_on.rounding] = 0
        best, chosen = np.zeros(len(levels)), np.zeros((len(levels), *maps.shape[1:]), bool)
        for m in np.argsort(rise, kind="stable"):  # the largest comes last, and stays
            best[owner[m]], chosen[owner[m]] = rise[m], regions[m]
        return cls(levels, enlarged(chosen, levels.shape[1:3]), best, owner, rises)

    def chosen(self, members: Bools, half: Bools, distance: Floats | None = None) -> int | None:
        """Which of the clusters (m, n) the rise sets apart most surely, by images of the half (n,); None if none can.

        A cluster needs two members and two others in either half.

        Args:
            distance: (m,), how far each stands from the others in what it was found by (Mahalanobis's D), which counts
                as much as the effect; None where that is no sign of an artifact.
        """
        sizes = np.stack([members[:, side].sum(1) for side in (half, ~half)], 1)
        rest = np.array([half.sum(), (~half).sum()]) - sizes
        fit = ((sizes >= LEAST) & (rest >= LEAST)).all(1)
        if not fit.any():
            return None
        surely = np.full(len(members), -np.inf)
        surely[fit] = [apart(one[half], self.rise[half]) for one in members[fit]]
        far = np.ones(len(members)) if distance is None else distance
        return int(np.argmax(np.where(surely > 0, far * surely, surely)))

    def measured(
        self, predict: Predict, donors: Bools, blanks: Bools, x: Pixels, target: int, rng: np.random.Generator
    ) -> LogitEffect:
        """What the regions of the donors do on images x (B, H, W, C) of other classes; the regions of the blanks are
        the control: what relevance points at in images of the same kind. Both are bool (n,)."""
        before = predict(x.astype(np.float32))
        marked, control = (
            np.stack([predict(self.pasted(giver, x).astype(np.float32)) for giver in dealt(who, len(x), rng)])
            for who in (donors, blanks)
        )
        return effect("own place", before, marked, control, target)

    def pasted(self, giver: NDArray[np.intp], x: Pixels) -> Pixels:
        """Images (B, H, W, C) with the regions of givers (B,)."""
        return np.where(self.masks[giver][..., None], self.levels[giver], x)


def usual(put_on: Backgrounds, fellows: Pixels, owner: NDArray[np.intp], regions: Bools, target: int) -> Floats:
    """What the class does at a place by itself: mean change (m,) of its centred logit when regions (m, G, G) hold what
    other images of it have there, on each background those of another one."""
    givers, change = strangers(owner, len(fellows), len(put_on.images)), np.empty(len(owner))
    for some, of_these in put_on.changes(fellows, givers, regions, "other images at the same places"):
        change[some] = of_these[..., target].mean(1)
    return change


def strangers(owner: NDArray[np.intp], images: int, count: int) -> NDArray[np.intp]:
    """(m, count): for each of some images (m,) others of the same n, by a draw that is always the same."""
    steps = generator(0, "strangers", images).integers(1, images, (len(owner), count))
    return np.asarray((owner[:, None] + steps) % images)


def tried(maps: Floats) -> tuple[NDArray[np.intp], Bools]:
    """What is tried of images with maps (n, G, G): the image (m,) that each region (m, G, G) is of."""
    parts, whole = segment(maps, most=PARTS), holding(maps, WHOLE)
    single = parts.labels[parts.image] == parts.number[:, None, None]
    some = np.flatnonzero(whole.any((1, 2)))
    return np.concatenate([parts.image, some]), np.concatenate([single, whole[some]])


def holding(maps: Floats, share: float) -> Bools:
    """The smallest regions (n, G, G) of maps that hold a share of their positive relevance; empty without any."""
    mass = np.maximum(maps, 0).reshape(len(maps), -1).astype(np.float64)
    falling = -np.sort(-mass, axis=1)
    held = np.cumsum(falling, 1)
    last = np.minimum((held < share * held[:, -1:]).sum(1), mass.shape[1] - 1)
    least = falling[np.arange(len(mass)), last]
    return np.asarray(((mass >= least[:, None]) & (mass > 0)).reshape(maps.shape))


def dealt(who: Bools, images: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """(GIVERS, images) of those that hold (n,), in random order, each as often as the others to within one."""
    turns = np.resize(rng.permutation(np.flatnonzero(who)), GIVERS * images)
    return rng.permutation(turns).reshape(GIVERS, images)


def apart(member: Bools, value: Floats) -> float:
    """By how many standard deviations within either group the value (n,) of members lies above that of the others, at
    least: the lower end of a one-sided 95 % interval of Cohen's d. Both groups must hold an image, and one of them two.

    A difference of means is as large in a rare group as in a half; the interval keeps groups of two or three from being
    first by luck.
    """
    a, b = value[member], value[~member]
    within = math.sqrt((((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()) / (len(value) - 2))
    return float((a.mean() - b.mean()) / max(within, FLAT)) - SURE * math.sqrt(1 / len(a) + 1 / len(b))


def correlation(member: Bools, value: Floats) -> float:
    """Pearson's, of membership and a value (n,); 0 where either does not vary."""
    a, b = member - member.mean(), value - value.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else 0.0


def jaccard(a: Bools, b: Bools) -> float:
    """Members of both over members of either, of two clusters (n,) that are not empty."""
    return float((a & b).sum() / (a | b).sum())


def enlarged(masks: Bools, shape: tuple[int, int]) -> Bools:
    """Masks (n, G, G) as (n, H, W), cell by cell."""
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(shape, masks.shape[1:], strict=True))
    return np.asarray(masks[:, rows][:, :, columns])
