"""Networks that are known in closed form, so that the rise by a square of one colour is, too."""

import numpy as np
import pytest
import torch
from scipy.special import logit, softmax

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.words import describe_group_use
from klarsicht.audit.verdicts.detectors.unusual_places import UnusualPlaces, describe_places
from klarsicht.audit.verdicts.interventions.group_use import (
    GroupUse,
    PasteTrial,
    SeenWindows,
    log_odds_of,
    measure_group_use,
    measure_windows_use,
)
from klarsicht.numerics.statistics.intervals import Interval

SIDE, SQUARE, RISE = 56, 14, 2.0
SCALE = PixelScale(np.zeros(3, np.float32), np.ones(3, np.float32))
MARKED = np.arange(120) < 24


def grey_images(count, rng):
    """Smooth grey noise: red, green and blue are equal in every pixel."""
    noise = np.kron(rng.integers(60, 200, (count, 14, 14)), np.ones((4, 4), int))
    return np.repeat(noise[..., None], 3, 3).astype(np.uint8)


def with_squares(images, rng):
    """A red square at a place of its own in every marked image, and where it lies."""
    out, where = images.copy(), np.zeros(images.shape[:3], bool)
    for i in np.flatnonzero(MARKED):
        row, column = rng.integers(0, SIDE - SQUARE, 2)
        where[i, row : row + SQUARE, column : column + SQUARE] = True
    out[where] = (200, 0, 0)
    return out, where


def network(weights):
    """Log odds of class 0: the weighted mean of red, green and blue."""

    def predict(inputs):
        score = (inputs.mean((2, 3)) * torch.tensor(weights)).sum(1)
        return torch.stack([score, torch.zeros(len(score))], 1).numpy()

    return predict


@pytest.fixture
def pictures():
    rng = np.random.default_rng(0)
    own, where = with_squares(grey_images(len(MARKED), rng), rng)
    return own, where, grey_images(60, rng)


def measure(predict, own, onto, member=MARKED, seed=1):
    return measure_group_use(PasteTrial(predict, SCALE, own, onto, 0), member, np.random.default_rng(seed))


def test_a_square_that_the_network_uses_raises_its_class_by_its_share_of_the_pixels(pictures):
    own, where, onto = pictures
    of_square = SQUARE**2 / SIDE**2 * 200 / 255  # of red beyond green; grey pixels have none, whoever lends them
    use = measure(network([RISE / of_square, -RISE / of_square, 0.0]), own, onto)
    assert use.is_used and use.onto == 60
    assert 0.8 * RISE < use.rise.value <= RISE + 1e-6  # all of it where the region covers the whole square
    assert (use.masks[MARKED] & where[MARKED]).sum() > 0.8 * where.sum()


def test_a_square_that_lowers_its_class_is_used_as_well(pictures):
    own, _, onto = pictures
    use = measure(network([-10.0, 10.0, 0.0]), own, onto)
    assert use.is_used and use.rise.high < 0


def test_a_square_that_the_network_is_blind_to_is_not_used(pictures):
    own, _, onto = pictures
    use = measure(network([0.0, 10.0, -10.0]), own, onto)  # neither green nor blue is in it, and grey has equal shares
    assert not use.is_used and use.rise.value == pytest.approx(0, abs=1e-6)


def test_a_clear_change_that_is_no_use_says_why():
    """The rule of each sentence, by hand: no doubt without a clear change, and none of what is used."""
    clear, small, open_ended = (
        Interval(0.41, 0.15, 0.68, 16),
        Interval(0.04, 0.01, 0.07, 16),
        Interval(0.4, -0.1, 0.9, 16),
    )
    natural = Interval(0.3, 0.2, 0.4, 6)
    assert GroupUse(clear, natural, 0.2, 136, 1.0).doubt == "and parts of other images of the class may do as much"
    assert GroupUse(small, natural, 0.2, 136, 1.0).doubt == "less than counts (0.1 logits)"
    assert GroupUse(open_ended, natural, 0.2, 136, 1.0).doubt == ""
    used = GroupUse(clear, Interval(0.0, -0.01, 0.01, 6), 0.01, 136, 1.0)
    assert used.is_used and used.doubt == ""
    words = describe_group_use(clear, "NORMAL", "136 images", False, GroupUse(clear, natural, 0.2, 136, 1.0).doubt)
    assert words.endswith(
        "by 0.41 logits (0.15 to 0.68), and parts of other images of the class may do as much: no use of it is shown"
    )


@pytest.fixture
def windows(pictures):
    where = pictures[1]
    corners = np.array([np.argwhere(one).min(0) / SIDE if one.any() else (np.nan, np.nan) for one in where])
    return SeenWindows(corners, (SQUARE / SIDE, SQUARE / SIDE))


def test_windows_cover_just_the_squares(pictures, windows):
    assert (windows.masks((SIDE, SIDE)) == pictures[1]).all()
    small = windows.masks((SIDE // 4, SIDE // 4))  # every place that they touch
    assert (small == pictures[1].reshape(len(MARKED), SIDE // 4, 4, SIDE // 4, 4).any((2, 4))).all()


def test_the_windows_of_a_square_raise_its_class_by_all_of_its_share(pictures, windows):
    own, _, onto = pictures
    of_square = SQUARE**2 / SIDE**2 * 200 / 255
    predict = network([-RISE / of_square, RISE / of_square, 0.0])
    use = measure_windows_use(PasteTrial(predict, SCALE, own, onto, 0), MARKED, windows, np.random.default_rng(1))
    assert use.is_used and use.rise.value == pytest.approx(-RISE, abs=1e-4)
    assert use.rise.high - use.rise.low < 1e-3  # of every image the same: grey has no red beyond green
    blind = measure_windows_use(
        PasteTrial(network([0.0, 9.0, -9.0]), SCALE, own, onto, 0), MARKED, windows, np.random.default_rng(1)
    )
    assert not blind.is_used and blind.rise.value == pytest.approx(0, abs=1e-6)


def test_windows_of_random_images_are_not_used(pictures):
    rng, predict = np.random.default_rng(9), network([10.0, 10.0, 10.0])
    own, told = grey_images(len(MARKED), rng), 0
    for seed in range(20):
        member = rng.permutation(MARKED)
        corners = np.where(member[:, None], rng.random(2) * 0.7, np.nan)
        trial = PasteTrial(predict, SCALE, own, pictures[2], 0)
        found = SeenWindows(corners, (SQUARE / SIDE, SQUARE / SIDE))
        told += measure_windows_use(trial, member, found, np.random.default_rng(seed)).is_used
    assert told <= 2


def test_one_of_many_groups_that_do_as_much_is_not_used(pictures):
    _, _, onto = pictures
    rng, kind = np.random.default_rng(3), np.arange(120) // 20
    tints = np.array([(40, 0, 0), (0, 40, 0), (0, 0, 40), (-40, 0, 0), (0, -40, 0), (0, 0, -40)])
    own = np.clip(grey_images(120, rng).astype(int) + tints[kind][:, None, None], 0, 255).astype(np.uint8)
    used = [measure(network([10.0, -10.0, 8.0]), own, onto, kind == one, one) for one in range(6)]
    assert all(use.acts for use in used) and sum(use.is_used for use in used) <= 1


def test_random_groups_are_not_used(pictures):
    _, _, onto = pictures
    rng = np.random.default_rng(5)
    own, predict = grey_images(120, rng), network([10.0, 10.0, 10.0])
    told = [measure(predict, own, onto, rng.permutation(MARKED), seed).is_used for seed in range(20)]
    assert sum(told) <= 1


def test_a_group_of_most_of_its_class_is_asked(pictures):
    """More images lie in it than outside: natural groups of the others are as small as these allow."""
    own, _, onto = pictures
    marked = np.concatenate([own[MARKED]] * 3)
    few = own[~MARKED][:20]
    use = measure(network([10.0, -10.0, 0.0]), np.concatenate([marked, few]), onto, np.arange(92) < 72)
    assert use.acts and use.rise.low > 0 and np.isfinite(use.spread)


def test_few_images_are_not_asked(pictures):
    own, _, onto = pictures
    predict = network([10.0, -10.0, 0.0])
    assert measure(predict, own, onto, np.arange(120) < 7).rise.n == 0
    assert measure(predict, own, onto[:0]).rise.n == 0
    assert measure(predict, own, onto, np.arange(120) < 110).rise.n == 0


def test_regions_are_learned_on_other_images(pictures):
    own, where, _ = pictures
    seen = describe_places(own)
    fit, other = np.arange(120) % 2 == 0, np.arange(120) % 2 == 1
    masks = UnusualPlaces.of(seen[fit & MARKED], seen[fit & ~MARKED]).masks(seen)
    assert (masks & where)[other & MARKED].sum() > 0.8 * where[other & MARKED].sum()
    assert masks[other & ~MARKED].mean() < 0.02


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_any_channels_and_size_are_described(channels):
    rng = np.random.default_rng(2)
    seen = describe_places(rng.integers(0, 256, (3, 40, 60, channels), np.uint8))
    assert seen.shape == (3, 15 if channels == 3 else 5, 40, 60) and np.isfinite(seen).all()


def test_log_odds_are_those_of_the_probability():
    y = np.random.default_rng(4).normal(size=(9, 5))
    assert log_odds_of(y, 3) == pytest.approx(logit(softmax(y, 1)[:, 3]))
