"""Images that look altered: more of them than other classes have, by the binomial law, whatever classes show."""

import numpy as np
import pytest
from scipy.stats import binom

from klarsicht.audit.verdicts.detectors.altered_images import subtract_medians
from klarsicht.audit.verdicts.detectors.artifact_embedding import ArtifactEmbedding
from klarsicht.audit.verdicts.detectors.bank import DETECTORS
from klarsicht.audit.verdicts.detectors.detection import ClassImages, ImageStack
from klarsicht.numerics.statistics.split_half import draw_halves

CLASSES, EACH = 20, 200


class Levels(ArtifactEmbedding):
    """Stands for a network that has learned: its log odds are the level of the first pixel."""

    def log_odds(self, levels, block=256):
        return levels[:, 0, 0, 0].astype(float)


def shown(first, classes=True, network=None, sources=None):
    """The first class beside the others, from the level of each image (CLASSES, EACH)."""
    images = np.broadcast_to(first[..., None, None, None], (*first.shape, 4, 4, 3)).astype(np.uint8)
    label = np.repeat(np.arange(CLASSES), EACH)
    half = draw_halves(EACH, np.random.default_rng(0))
    return ClassImages(
        ImageStack(images[0]), ImageStack(images.reshape(-1, 4, 4, 3)), label != 0, half,
        np.arange(EACH) if sources is None else sources, embedding=Levels() if network is None else network,
        pool_classes=label if classes else None,
    )  # fmt: skip


def altered(*given, **more):
    return list(DETECTORS["altered"](shown(*given, **more), "altered"))


@pytest.fixture
def levels():
    """Levels of a clean corpus: every class has the same values around a level of its own."""
    rng = np.random.default_rng(3)
    return np.stack([rng.permutation(EACH) // 4 + 2 * k for k in range(CLASSES)])


def test_the_score_is_the_binomial_surprisal_of_the_images_beyond_a_share_of_the_others(levels):
    levels[0, :12] = 150
    many, few = altered(levels)
    assert [many.name, few.name] == ["altered 0.02", "altered 0.005"]
    assert many.members.tolist() == few.members.tolist() == list(range(12))
    # of 200 equally spread values less their median, four lie at the top step, and the edge lies there
    beyond = 12 + (np.sort(levels[0] - np.median(levels[0]))[:-12] > 25).sum()
    for one, share in ((many, 0.02), (few, 0.005)):
        assert one.score == pytest.approx(-binom.logsf(beyond - 1, EACH, share), rel=1e-6)


def test_the_level_of_a_class_tells_nothing(levels):
    """A class of high log odds by nature has as little to say as any: only the excess within a class counts."""
    moved = levels.copy()
    moved[0] += 90
    assert [one.score for one in altered(moved)] == [one.score for one in altered(levels)]
    assert max(one.score for one in altered(levels)) < 6


def test_carriers_of_a_tenth_of_the_other_classes_do_not_hide_those_of_this_one(levels):
    levels -= 2 * np.arange(CLASSES)[:, None]
    levels[:3, :40] = 200
    together = altered(levels)[1].score
    assert together > -binom.logsf(39, EACH, 0.005) - 1e-6
    assert altered(levels, classes=False)[1].score < together / 3


def test_repeats_of_one_source_count_once(levels):
    levels[0, :12] = 150
    sources = np.arange(EACH)
    sources[:12] = 0
    (_, one), (_, twelve) = altered(levels, sources=sources), altered(levels)
    assert one.score < twelve.score / 3 and one.members.tolist() == twelve.members.tolist()


def test_a_network_that_does_not_judge_finds_nothing(levels):
    found = altered(levels, network=ArtifactEmbedding(judges=False))
    assert [(one.score, len(one.members)) for one in found] == [(0, 0), (0, 0)]


def test_medians_of_pairs_leave_the_spread_unbiased():
    """Of two values the median is the mean, and the squares of what is left, stretched, are the unbiased variance."""
    pairs = np.random.default_rng(0).normal(7, 3, (50, 2))
    left = subtract_medians(pairs.ravel(), np.repeat(np.arange(50), 2)).reshape(50, 2)
    np.testing.assert_allclose((left**2).mean(1), pairs.var(1, ddof=1))
    alone = subtract_medians(np.array([1.0, 2.0, 9.0]), np.array([0, 1, 2]))
    assert alone.tolist() == [-1, 0, 7]
