"""Find the images that do not follow a shortcut of nearly their whole class, and the places that are a class's own.

Only images and labels are read; nobody says which images are exceptions, nor where anything lies.

1. A network tells the label at every place (`place_network`). An image is on the *side* of the class for which its mean
   place speaks; an image on another side than its label is an *exception*.
2. Own places are told in two ways. *By agreement*: in an exception, places that speak for the label are its own. *By
   side*: places that tell exceptions from other images of their class are the shortcut's, all others are its own.
   That way is taken under which composites follow their donors.
3. Own places are learned again on composites, of which they are known, and found in images that missed them, by that
   least log-odds under which most composites follow: places that hold too much take the surroundings along.
4. Where composites follow more than by chance, own places are learned on and outlined by the colours of each image
   (`colour_outlines`), and composites are asked again: both answers are joined, since each is uncertain. Outlines are
   kept where a shortcut is found, as far as composites follow then as well.

Places that lie at the same spot with the same pixels in most images of a class are no image's own: they are a mark, or
an empty margin. A mark that nearly a whole class carries tells the class as an object does, and what surrounds it would
then seem to be the shortcut.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import label as label_parts
from scipy.ndimage import uniform_filter
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from klarsicht.audit.verdicts.own_places.colour_outlines import outline_by_colours
from klarsicht.audit.verdicts.own_places.composites import draw_pairs, lay_on_others, usable_places
from klarsicht.audit.verdicts.own_places.place_network import (
    STRIDE,
    WIDTH,
    PlaceNetwork,
    answer_places,
    ask_classes,
    margin,
    train_places,
)
from klarsicht.ground.arrays import Bools, Doubles, Floats, Ints, Pixels
from klarsicht.ground.seeding import generator

SAME_SPOT, SAME_LEVELS, SAME_SHARE = 0.5, 8, 0.5  # of images, grey levels, and of own pixels, in a mark
MOST_COMPARED = 64  # images of a class in which pixels are held against one another
PLACE_EPOCHS, AGAIN_EPOCHS, TOLD_EPOCHS = 24, 4, 12  # of training on labels, on own places, on what these tell
TAUGHT_AGAIN, TAUGHT_OUTLINES = 2, 2  # times that own places are learned again, and then with outlines
LEAST_ODDS = (0.0, 0.5, 1.0, 1.5)  # of an own place, in nats, that are tried each time
TAUGHT_COMPOSITES = 1600  # of the latter two trainings
TRIED_COMPOSITES, JUDGED_COMPOSITES = 100, 800  # of each class, to choose places by; of all, to judge classes by
TOLD_WEIGHT = 2.0  # 13 px tell little of classes that are alike, such as shirt and coat, so this share counts twice
SPEAKS_FOR, SPEAKS_AGAINST = 1.0, 0.3  # nats; softly against: where a side holds both classes, it speaks softly
TELLS_SIDE = 2.0  # nats above which a place is the shortcut's
MOST_PLACES, MOST_SAMPLED = 4000, 300  # places and images of a kind on which the ways are fitted
MOST_FITTED_PLACES = 40_000  # places of all kinds together: of ten classes a hundred kinds may occur
AGREEMENT_PENALTY, SIDE_PENALTY = 1.0, 0.1  # inverse strength of the ridge of the logistic regressions


@dataclass(frozen=True)
class OwnPlaces:
    """Own places of the images of some classes, and the sides on which images are.

    Attributes:
        labels, side: int (n,), the class of each image, and the class for which its mean place speaks.
        margin: float (n,), log-odds of the label by the mean place; negative in exceptions.
        own: bool (n, H, W).
        followed: share of composites on the side of their donor, times that of images with usable own places; of the
            half of the classes where it is least, so of the lesser of two; the mean of before and after own places are
            outlined, where they were.
        told: share of composites of other images whose class is told by the own places of their source, above chance:
            0 where own places say nothing of the class, 1 where they tell it always; None where that was not asked.
        way: `agreement` or `side`.
    """

    labels: Ints
    side: Ints
    margin: Doubles
    own: Bools
    followed: float
    told: float | None
    way: str

    @property
    def separate(self) -> float:
        """The lesser of both shares, each above chance, the second times TOLD_WEIGHT: own places and surroundings tell
        the classes apart, each alone. Above chance, so that classes of any number are held against each other; the
        lesser, since a mark among own places is told and not followed, and a colour of the object is followed and not
        told. Where the second was not asked, the first, which it is at most."""
        followed = share_above_chance(self.followed, self.labels)
        return max(0.0, followed if self.told is None else min(followed, TOLD_WEIGHT * self.told))

    @cached_property
    def exceptional(self) -> Bools:
        """Images on another side than their label, bool (n,)."""
        return np.asarray(self.side != self.labels)

    @cached_property
    def usable(self) -> Bools:
        """Images whose own places can be laid on others, bool (n,)."""
        return usable_places(self.own, self.exceptional)


@dataclass(frozen=True)
class PlaceAnswers:
    """Answers of the places of all images.

    Attributes:
        network: that answers.
        images: uint8 (n, H, W, C).
        labels: int (n,).
        side: int (n,), class for which the mean place speaks.
        image_margin, margins: log-odds of the label, (n,) of the mean place and (n, h, w) of each.
    """

    network: PlaceNetwork
    images: Pixels
    labels: Ints
    side: Ints
    image_margin: Doubles
    margins: Floats

    @classmethod
    def of(cls, network: PlaceNetwork, images: Pixels, labels: Ints) -> PlaceAnswers:
        """Ask all places of all images."""
        means, margins, done = [], [], 0
        for _, logits in answer_places(network, images):
            own = labels[done : done + len(logits)]
            means.append(logits.mean((2, 3)))
            margins.append(margin(logits, own).astype(np.float32))
            done += len(logits)
        mean = np.concatenate(means)
        return cls(network, images, labels, mean.argmax(1), margin(mean, labels), np.concatenate(margins))

    @property
    def exceptional(self) -> Bools:
        """Images on another side than their label, bool (n,)."""
        return np.asarray(self.side != self.labels)

    def features(self, rows: Ints, places: Ints) -> Floats:
        """Compute the features (m, D) of places (m,), counted through the images of some rows in order. Features of all
        places of an image are held only while it is read: 400 kB for 64 px."""
        order = np.argsort(places, kind="stable")
        of_place = np.empty((len(places), 3 * WIDTH), np.float32)
        first = done = 0
        for features, _ in answer_places(self.network, self.images[rows]):
            block = features.reshape(-1, 3 * WIDTH)
            ends = int(np.searchsorted(places[order], first + len(block)))
            of_place[order[done:ends]] = block[places[order[done:ends]] - first]
            first, done = first + len(block), ends
        return of_place

    def score_all(self, regression: PlaceRegression, chosen: Ints) -> Floats:
        """Compute at all places the log-odds of a chosen kind (n,) by a regression on features: (n, h, w)."""
        found, done = [], 0
        for features, _ in answer_places(self.network, self.images):
            found.append(margin(regression.logits(features), chosen[done : done + len(features)]))
            done += len(features)
        return np.concatenate(found)


@dataclass(frozen=True)
class PlaceRegression:
    """Logistic regression on the features of places.

    Attributes:
        middle, spread: float (D,), by which features are standardised.
        weights, offsets: float (K, D) and (K,).
    """

    middle: Floats
    spread: Floats
    weights: Floats
    offsets: Floats

    @classmethod
    def fit(cls, rows: Floats, kinds: Ints, count: int, weights: Doubles | None, penalty: float) -> PlaceRegression:
        """Fit kinds 0 to `count` - 1 of rows (m, D); kinds that do not occur are never told."""
        middle, spread = rows.mean(0), rows.std(0) + 1e-3
        model = LogisticRegression(C=penalty, max_iter=500).fit((rows - middle) / spread, kinds, weights)
        of_kind, offsets = np.zeros((count, rows.shape[1])), np.full(count, -1e3)
        if len(model.classes_) == 2:
            offsets[model.classes_[0]] = 0
            of_kind[model.classes_[1]], offsets[model.classes_[1]] = model.coef_[0], model.intercept_[0]
        else:
            of_kind[model.classes_], offsets[model.classes_] = model.coef_, model.intercept_
        return cls(middle, spread, of_kind, offsets)

    def logits(self, features: Floats) -> Floats:
        """Compute logits (b, K, h, w) of features (b, h, w, D), in one pass over them at their own precision."""
        weights = self.weights / self.spread
        found = features @ weights.T.astype(features.dtype) + (self.offsets - weights @ self.middle)
        return np.asarray(np.moveaxis(found, -1, 1))


def places_by_agreement(answers: PlaceAnswers, seed: int) -> Bools:
    """Mark places (n, h, w) of the kind that speaks for the label in exceptions; none where no exception has both
    kinds."""
    rng = generator(seed, "agreement")
    rows: list[Floats] = []
    kinds: list[Ints] = []
    weights: list[Doubles] = []
    for label in np.unique(answers.labels):
        odd = sample(np.flatnonzero(answers.exceptional & (answers.labels == label)), MOST_SAMPLED, rng)
        if not len(odd):
            continue
        says = answers.margins[odd]
        told = {1: says > SPEAKS_FOR, 0: says < -SPEAKS_AGAINST}
        drawn = {kind: sample(np.flatnonzero(chosen), MOST_PLACES, rng) for kind, chosen in told.items()}
        rows.append(answers.features(odd, np.concatenate([*drawn.values()])))
        for kind, of_kind in drawn.items():
            kinds.append(np.full(len(of_kind), kind))
            weights.append(np.full(len(of_kind), 1 / max(1, len(of_kind))))
    told_kinds = np.concatenate([*kinds, np.zeros(0, int)])
    if len(np.unique(told_kinds)) < 2:
        return np.zeros(answers.margins.shape, bool)
    weight = np.concatenate(weights)
    regression = PlaceRegression.fit(
        np.concatenate(rows), told_kinds, 2, weight * len(weight) / weight.sum(), AGREEMENT_PENALTY
    )
    return np.asarray(answers.score_all(regression, np.ones(len(answers.labels), int)) > 0)


def places_by_side(answers: PlaceAnswers, seed: int) -> Bools:
    """Mark places (n, h, w) that do not tell exceptions from other images of their class; none where no image is an
    exception, or all images are on one side."""
    rng = generator(seed, "side")
    rows: list[Floats] = []
    if not answers.exceptional.any() or len(np.unique(answers.side)) < 2:
        return np.zeros(answers.margins.shape, bool)
    kinds = np.unique(np.stack([answers.labels, answers.side], 1), axis=0)
    each = min(MOST_PLACES, MOST_FITTED_PLACES // len(kinds))
    for label, of_side in kinds:
        some = sample(np.flatnonzero((answers.labels == label) & (answers.side == of_side)), MOST_SAMPLED, rng)
        rows.append(answers.features(some, rng.integers(len(some) * answers.margins[0].size, size=each)))
    side = np.repeat(kinds[:, 1], each)
    count = int(max(answers.side.max(), answers.labels.max())) + 1
    odds = answers.score_all(PlaceRegression.fit(np.concatenate(rows), side, count, None, SIDE_PENALTY), answers.side)
    return np.asarray(uniform_filter(odds, (0, 3, 3)) < TELLS_SIDE)


WAYS: dict[str, Callable[[PlaceAnswers, int], Bools]] = {"agreement": places_by_agreement, "side": places_by_side}


def find_own_places(images: Pixels, labels: Ints, seed: int = 0, least: float = 0.0) -> OwnPlaces:
    """Find exceptions and own places of images.

    Args:
        images: uint8 (n, H, W, C); some 32 to 64 pixels a side.
        labels: int (n,), 0 to K - 1.
        least: a value of `OwnPlaces.separate` that says nothing. Where what follows is not above it, `told` is not
            asked, for the lesser of both is not, either; where the lesser is not, outlines are not kept.
    """
    answers = PlaceAnswers.of(train_places(images, labels, PLACE_EPOCHS, seed), images, labels)
    parts = {name: enlarge(largest_parts(way(answers, seed)), images.shape[1:3], 1) for name, way in WAYS.items()}
    tried = {name: without_marks(images, own, labels) for name, own in parts.items()}
    shares = {name: share_that_follows(answers, own, seed) for name, own in tried.items()}
    best = max(shares, key=lambda name: shares[name])
    own = tried[best]
    for turn in range(TAUGHT_AGAIN if shares[best] > 0 else 0):
        own = learn_again(answers, own, seed + turn)
    follow, outlines = [share_that_follows(answers, own, seed, JUDGED_COMPOSITES)], own
    if share_above_chance(follow[0], labels) > 0:
        for turn in range(TAUGHT_OUTLINES):
            outlines = learn_again(answers, outlines, seed + TAUGHT_AGAIN + turn, by_colours=True)
        follow.append(share_that_follows(answers, outlines, seed, JUDGED_COMPOSITES))
    followed = float(np.mean(follow))
    asks = share_above_chance(followed, labels) > least
    told = share_told_by_own_places(answers, own, seed) if asks else None
    places = OwnPlaces(labels, answers.side, answers.image_margin, own, followed, told, best)
    keeps = places.separate > least and share_above_chance(follow[-1], labels) > least
    return replace(places, own=outlines) if keeps else places


def share_above_chance(share: float, labels: Ints) -> float:
    """Rescale a share of right answers so that chance among the classes is 0, and 1 stays 1."""
    chance = 1 / len(np.unique(labels))
    return (share - chance) / (1 - chance)


def share_that_follows(answers: PlaceAnswers, own: Bools, seed: int, count: int | None = None) -> float:
    """Compute the share of composites on the side of their donor, times that of usable images: the mean over that half
    of the classes in which it is least. Of so many composites, or of TRIED_COMPOSITES of each class."""
    usable, labels = usable_places(own, answers.exceptional), answers.labels
    if min(int((usable & (labels == label)).sum()) for label in np.unique(labels)) < 2:
        return 0.0
    rng = generator(seed, "follows")
    pairs = draw_pairs(labels, usable, count or TRIED_COMPOSITES * len(np.unique(labels)), rng)
    shown = lay_on_others(answers.images, own, pairs, rng)
    says = np.concatenate([logits.mean((2, 3)).argmax(1) for logits in ask_classes(answers.network, shown)])
    follows = says == answers.side[pairs.donors]
    of_source = labels[pairs.sources]
    shares = [follows[of_source == label].mean() * usable[labels == label].mean() for label in np.unique(labels)]
    return float(np.mean(sorted(shares)[: -(-len(shares) // 2)]))


def share_told_by_own_places(answers: PlaceAnswers, own: Bools, seed: int) -> float:
    """Compute how often own places tell the class of images that taught nothing, above chance.

    A network learns the class of the sources of composites, half of the images, and is asked at the own places of the
    other half on composites with surroundings of any class.
    """
    labels, usable = answers.labels, usable_places(own, answers.exceptional)
    rng = generator(seed, "told")
    taught = rng.random(len(labels)) < 0.5
    if min(int((usable & side & (labels == k)).sum()) for k in np.unique(labels) for side in (taught, ~taught)) < 2:
        return 0.0
    pairs, trials = (
        draw_pairs(labels, usable & side, n, rng)
        for side, n in ((taught, TAUGHT_COMPOSITES), (~taught, JUDGED_COMPOSITES))
    )
    shown = lay_on_others(answers.images, own, pairs, rng)
    network = train_places(shown, labels[pairs.sources], TOLD_EPOCHS, seed)
    at = own[trials.sources][:, ::STRIDE, ::STRIDE]
    logits = np.concatenate([*ask_classes(network, lay_on_others(answers.images, own, trials, rng))])
    says = np.where(at[:, None], logits, 0).sum((2, 3)).argmax(1)
    return max(0.0, share_above_chance(float((says == labels[trials.sources]).mean()), labels))


def learn_again(answers: PlaceAnswers, own: Bools, seed: int, by_colours: bool = False) -> Bools:
    """Learn own places on composites, and find them in all images by that of LEAST_ODDS under which most composites
    follow: bool (n, H, W); the same where too few are known. And outlined, `by_colours`."""
    images, labels, usable = answers.images, answers.labels, usable_places(own, answers.exceptional)
    if min(int((usable & (labels == label)).sum()) for label in np.unique(labels)) < 2:
        return own
    network = teach_own_places(images, own, labels, answers.exceptional, seed)
    odds = score_own_places(network, images)
    tried = [without_marks(images, places_above(odds, least, images.shape[1:3]), labels) for least in LEAST_ODDS]
    best = max(tried, key=lambda places: share_that_follows(answers, places, seed))
    return outline_places(images, best, odds, seed) if by_colours and best.any() else best


def without_marks(images: Pixels, own: Bools, labels: Ints) -> Bools:
    """Unmark all own places (n, H, W) where those of a class are a mark, see `is_mark`."""
    of_class = (np.flatnonzero(labels == label) for label in np.unique(labels))
    some = (rows[:: -(-len(rows) // MOST_COMPARED)] for rows in of_class)
    return np.zeros_like(own) if any(is_mark(images[rows], own[rows]) for rows in some) else own


def is_mark(images: Pixels, own: Bools) -> bool:
    """Test whether more than SAME_SHARE of own places (n, H, W) lie where most images (n, H, W, C) have theirs, with
    the levels that are usual there, within SAME_LEVELS in all channels."""
    spot = own.mean(0) > SAME_SPOT
    pixels = images[:, spot].astype(np.float32)
    usual = np.abs(pixels - np.median(pixels, 0)).max(-1, initial=0) <= SAME_LEVELS
    return bool((usual & own[:, spot]).sum() > SAME_SHARE * own.sum())


def outline_places(images: Pixels, own: Bools, odds: Floats, seed: int) -> Bools:
    """Outline own places (n, H, W) of images by their colours, and keep the largest part; odds: (n, h, w)."""
    return largest_parts(outline_by_colours(images, own, odds, seed))


def teach_own_places(images: Pixels, own: Bools, labels: Ints, exceptional: Bools, seed: int) -> PlaceNetwork:
    """Train a network to find own places, on composites of images of which they are known; of every class two are."""
    rng = generator(seed, "again")
    pairs = draw_pairs(labels, usable_places(own, exceptional), TAUGHT_COMPOSITES, rng, exceptional)
    wanted = own[pairs.sources][:, ::STRIDE, ::STRIDE]
    weight = torch.tensor([1.0, float((1 - wanted.mean()) / wanted.mean()) ** 0.5])
    return train_places(lay_on_others(images, own, pairs, rng), wanted, AGAIN_EPOCHS, seed, weight=weight)


def score_own_places(network: PlaceNetwork, images: Pixels) -> Floats:
    """Compute at all places of images (n, H, W, C) the log-odds of an own place, by a network that was taught them:
    float (n, h, w)."""
    return np.concatenate([logits[:, 1] - logits[:, 0] for logits in ask_classes(network, images)])


def places_above(odds: Floats, least: float, shape: tuple[int, ...]) -> Bools:
    """Mark the largest part of the places (n, h, w) whose log-odds are above the least, at a shape (H, W): bool
    (n, H, W)."""
    return enlarge(largest_parts(odds > least), (shape[0], shape[1]), 0)


def largest_parts(places: Bools) -> Bools:
    """Keep the largest connected part of the places (n, h, w) of each image."""
    out = np.zeros_like(places)
    for i, one in enumerate(places):
        parts, count = label_parts(one, np.ones((3, 3)))
        if count:
            out[i] = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return out


def enlarge(places: Bools, shape: tuple[int, int], grow: int) -> Bools:
    """Enlarge places (n, h, w), grown by `grow` of them, to images of a shape (H, W)."""
    grown = functional.max_pool2d(torch.from_numpy(places)[:, None].float(), 2 * grow + 1, 1, grow)
    return np.asarray(functional.interpolate(grown, size=shape).numpy()[:, 0] > 0.5)


def sample(rows: NDArray[Any], most: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw at most so many rows, in random order."""
    return rows[rng.permutation(len(rows))[:most]]
