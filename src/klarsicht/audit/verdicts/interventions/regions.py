"""Find the cluster that the model follows: the regions of high relevance of its images are pasted into images of other
classes.

Each image yields its connected components of largest relevance, and the smallest region with nine tenths of its
relevance. Each is pasted at its own place into a few images of other classes; the effect is the rise of the class's
logit, among images of one class beyond that of its other images at the same places.

The followed cluster has the largest lower confidence bound of Cohen's d of this rise, times the distance of the cluster
in the compared features. It is chosen on one half of the images; the other half yields the measured effect against a
control, regions of high relevance of images that are no members. All members are used, several on each background
image, as each also shows content of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.logit_effect import is_futile
from klarsicht.audit.verdicts.interventions.early_stopping import measure_in_looks
from klarsicht.audit.verdicts.interventions.experiment import ComparedEffect, Predict
from klarsicht.ground.arrays import Bools, Floats, Pixels, Rows
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.persistence import segment
from klarsicht.numerics.imaging.relevance_masks import enlarge_masks
from klarsicht.numerics.statistics.logits import EXCLUSIVE, LogitScale, rounding_bound
from klarsicht.numerics.statistics.rising_groups import MIN_MEMBERS, weighted_bounds

MAX_COMPONENTS = 3  # components of an image that are tried, those of most relevance
WHOLE = 0.9  # share of its positive relevance in the region that is tried as one
SEARCH_BACKGROUNDS = 5  # images into which each is pasted: five forward passes a region
CHOOSING = 2  # of these, on which every output chooses its own images; see audit.verdicts.interventions.output_effects
DONORS_PER_IMAGE = 4  # members whose regions each image gets in turn for the effect, and as many controls
REGION_BLOCK = 64  # regions pasted at a time


@dataclass(frozen=True)
class Backgrounds:
    """Images (B, C, H, W) into which regions are pasted, as model inputs. predict: function from model inputs to
    logits. before: float (B, K), scores of the unchanged images on the scale. rounding: difference of two logits up to
    which they are equal but for rounding."""

    predict: Predict
    images: Tensor
    pixel_scale: PixelScale
    before: Floats
    rounding: float
    scale: LogitScale = EXCLUSIVE

    @classmethod
    def of(
        cls, predict: Predict, images: Tensor, pixel_scale: PixelScale, scale: LogitScale = EXCLUSIVE
    ) -> Backgrounds:
        answers = predict(images)
        return cls(predict, images, pixel_scale, scale.scores(answers), rounding_bound(answers), scale)

    def changes(
        self, levels: Pixels, givers: NDArray[np.intp], regions: Bools, label: str
    ) -> Iterator[tuple[slice, Floats]]:
        """Yield, in blocks of regions, the change (r, B, K) of the scores when pixels of a donor fill a region. levels:
        uint8 (n, H, W, C), images of the donors. givers: (m, 1) or (m, B), the donor of each region, for all background
        images or for each. regions: bool (m, G, G). label: name of the progress bar."""
        for start in track(range(0, len(regions), REGION_BLOCK), -(-len(regions) // REGION_BLOCK), label):
            some = slice(start, start + REGION_BLOCK)
            masks = torch.from_numpy(enlarge_masks(regions[some], levels.shape[1:3]))[:, None, None]
            given = self.pixel_scale.inputs(levels[givers[some].ravel()])
            given = given.reshape(*givers[some].shape, *given.shape[1:])
            after = self.scale.scores(self.predict(torch.where(masks, given, self.images).flatten(0, 1)))
            yield some, after.reshape(len(masks), *self.before.shape) - self.before


@dataclass(frozen=True)
class RegionEffects:
    """Images uint8 (n, H, W, C), and for each the region that raises the class most on other images. masks: bool (n, H,
    W), that region; empty without positive relevance. rise: float (n,), mean change of the class's score beyond the
    rise by other images of the class; 0 without a region, and within rounding. owner: int (m,), the image of each tried
    region. rises: float (2, m, K), mean change of every output by each tried region, on the first CHOOSING backgrounds
    and on the others; of none where fellows were given, as other outputs are searched in a screening only."""

    levels: Pixels
    pixel_scale: PixelScale
    masks: Bools
    rise: Floats
    owner: NDArray[np.intp]
    rises: Floats
    scale: LogitScale = EXCLUSIVE

    @classmethod
    def of(
        cls, predict: Predict, levels: Pixels, pixel_scale: PixelScale, maps: Floats, backgrounds: Tensor, target: int,
        fellows: Pixels | None = None, scale: LogitScale = EXCLUSIVE, places: Rows | None = None,
    ) -> RegionEffects:  # fmt: skip
        """Measure the regions of images uint8 (n, H, W, C) with relevance maps (n, G, G) on backgrounds (B, C, H, W) of
        other classes. target: output of the class. fellows: uint8 (k, H, W, C), all images of the class, whose rise at
        the same places is subtracted; None for images of all classes, which share no content. places: int (n,), which
        of the fellows the images are; by default the first ones."""
        owner, regions = select_regions(maps)
        put_on = Backgrounds.of(predict, backgrounds, pixel_scale, scale)
        count = 0 if fellows is not None else len(owner)
        rise, rises = np.empty(len(owner)), np.empty((2, count, put_on.before.shape[1]), np.float32)
        for some, change in put_on.changes(levels, owner[:, None], regions, "parts on other images"):
            rise[some] = change[..., target].mean(1)
            if count:
                rises[:, some] = change[:, :CHOOSING].mean(1), change[:, CHOOSING:].mean(1)
        if fellows is not None and len(fellows) > 1:
            among = owner if places is None else places[owner]
            rise -= baseline_rise(put_on, fellows, among, regions, target)
        rise[np.abs(rise) <= put_on.rounding] = 0
        best, chosen = np.zeros(len(levels)), np.zeros((len(levels), *maps.shape[1:]), bool)
        for m in np.argsort(rise, kind="stable"):  # the largest comes last, and stays
            best[owner[m]], chosen[owner[m]] = rise[m], regions[m]
        return cls(levels, pixel_scale, enlarge_masks(chosen, levels.shape[1:3]), best, owner, rises, scale)

    def join(self, more: RegionEffects) -> RegionEffects:
        """Append the images of further effects to these."""
        return RegionEffects(
            np.concatenate([self.levels, more.levels]),
            self.pixel_scale,
            np.concatenate([self.masks, more.masks]),
            np.concatenate([self.rise, more.rise]),
            np.concatenate([self.owner, more.owner + len(self.levels)]),
            np.concatenate([self.rises, more.rises], 1),
            self.scale,
        )

    def choose_cluster(self, members: Bools, half: Bools, distance: Floats | None = None) -> int | None:
        """Choose the cluster whose members' rise exceeds that of the others with the largest lower confidence bound;
        None where none has two members and two others in either half. members: bool (m, n), clusters. half: bool (n,),
        images on which the choice is made. distance: (m,), Mahalanobis distance of each cluster from the others in the
        compared features, by which a positive bound is multiplied; None: 1."""
        sizes = np.stack([members[:, side].sum(1) for side in (half, ~half)], 1)
        rest = np.array([half.sum(), (~half).sum()]) - sizes
        fit = ((sizes >= MIN_MEMBERS) & (rest >= MIN_MEMBERS)).all(1)
        if not fit.any():
            return None
        far = np.ones(len(members)) if distance is None else distance
        surely = weighted_bounds(members[:, half], self.rise[None, half], far)[:, 0]
        return int(np.argmax(np.where(fit, surely, -np.inf)))

    def measure_effect(
        self, predict: Predict, donors: Bools, blanks: Bools, x: Tensor, target: int, rng: np.random.Generator,
        in_looks: bool = False,
    ) -> ComparedEffect:  # fmt: skip
        """Measure the effect of the donors' regions on images x (B, C, H, W) of other classes; see `Regions`. in_looks:
        whether it is left at a look where more images are in vain, and settled where it is the largest of all outputs
        for sure; otherwise it is measured on all images at once."""
        return measure_in_looks(
            predict, Regions(self.levels, self.masks, donors, blanks, self.pixel_scale), x, predict(x), target, rng,
            self.scale, is_first_or_futile if in_looks else None, DONORS_PER_IMAGE,
        )  # fmt: skip


@dataclass(frozen=True)
class Regions:
    """Regions of an artifact's images; an `Insertion`, whose control pastes regions of images of the same kind. levels:
    uint8 (n, H, W, C). masks: bool (n, H, W). donors, blanks: bool (n,), images with the artifact, and those whose
    regions serve as the control."""

    levels: Pixels
    masks: Bools
    donors: Bools
    blanks: Bools
    pixel_scale: PixelScale

    def fits(self, image: Tensor) -> bool:
        """Say whether an image (C, H, W) has the shape of the donors."""
        return tuple(image.permute(1, 2, 0).shape) == self.levels.shape[1:]

    def put(self, images: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Paste the regions of donors into images (m, C, H, W), and those of blanks, each equally often to within
        one."""
        marked, control = (self.paste(draw_donors(who, len(images), rng), images) for who in (self.donors, self.blanks))
        return marked, control

    def paste(self, giver: NDArray[np.intp], images: Tensor) -> Tensor:
        """Paste the regions of given donors (m,) into images (m, C, H, W)."""
        masks = torch.from_numpy(self.masks[giver])[:, None]
        return torch.where(masks, self.pixel_scale.inputs(self.levels[giver]), images)


def is_first_or_futile(effect: ComparedEffect, reach: float) -> bool:
    """Say whether an effect is the largest of all outputs for sure, or more images are in vain."""
    return effect.is_surely_first or is_futile(effect, reach)


def baseline_rise(put_on: Backgrounds, fellows: Pixels, owner: NDArray[np.intp], regions: Bools, target: int) -> Floats:
    """Compute the rise of the class's score (m,) when other images of the class fill the same regions (m, G, G),
    another one on each background; see `draw_other_images`."""
    givers, change = draw_other_images(owner, len(fellows), len(put_on.images)), np.empty(len(owner))
    for some, of_these in put_on.changes(fellows, givers, regions, "other images at the same places"):
        change[some] = of_these[..., target].mean(1)
    return change


def draw_other_images(owner: NDArray[np.intp], images: int, count: int) -> NDArray[np.intp]:
    """Draw for each owner (m,) other images (m, count) of the same n, with a constant seed."""
    steps = generator(0, "strangers", images).integers(1, images, (len(owner), count))
    return np.asarray((owner[:, None] + steps) % images)


def select_regions(maps: Floats) -> tuple[NDArray[np.intp], Bools]:
    """Select the regions to try of images with relevance maps (n, G, G). Returns the image (m,) of each region, and the
    regions (m, G, G): the MAX_COMPONENTS largest components, and the region of WHOLE."""
    parts, whole = segment(maps, most=MAX_COMPONENTS), smallest_regions(maps, WHOLE)
    single = parts.labels[parts.image] == parts.number[:, None, None]
    some = np.flatnonzero(whole.any((1, 2)))
    return np.concatenate([parts.image, some]), np.concatenate([single, whole[some]])


def smallest_regions(maps: Floats, share: float) -> Bools:
    """Compute the smallest regions (n, G, G) that hold a share of the positive relevance; empty without any."""
    mass = np.maximum(maps, 0).reshape(len(maps), -1).astype(np.float64)
    falling = -np.sort(-mass, axis=1)
    held = np.cumsum(falling, 1)
    last = np.minimum((held < share * held[:, -1:]).sum(1), mass.shape[1] - 1)
    least = falling[np.arange(len(mass)), last]
    return np.asarray(((mass >= least[:, None]) & (mass > 0)).reshape(maps.shape))


def draw_donors(who: Bools, images: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw donors (images,) from those selected by `who` (n,), each equally often to within one."""
    return rng.permutation(np.resize(rng.permutation(np.flatnonzero(who)), images))


def correlation(member: Bools, value: Floats) -> float:
    """Compute Pearson's correlation of membership and a value (n,); 0 where either is constant."""
    a, b = member - member.mean(), value - value.mean()
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else 0.0


def jaccard(a: Bools, b: Bools) -> float:
    """Compute the Jaccard index of two non-empty clusters (n,)."""
    return float((a & b).sum() / (a | b).sum())
