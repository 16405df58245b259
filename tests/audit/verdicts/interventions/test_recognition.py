"""Recognition of an artifact on other images: an embedding moves them as it sets carriers apart."""

import numpy as np
import pytest
from scipy.stats import norm

from klarsicht.audit.verdicts.interventions.recognition import recognised_share, remaining_separation, separation
from klarsicht.numerics.statistics.logits import centre_logits


@pytest.mark.parametrize(("moved", "share"), [(1.0, 1.0), (0.5, 0.5), (0.2, 0.0), (0.0, 0.0)])
def test_images_count_that_are_moved_beyond_the_middle(moved, share):
    """Carriers lie eight deviations from others along one of six axes: beyond half of that, none is missed."""
    rng = np.random.default_rng(0)
    other, step = rng.normal(0, 0.3, (64, 6)), np.array([0, 8 * 0.3, 0, 0, 0, 0])
    own = rng.normal(0, 0.3, (14, 6)) + step
    found = recognised_share(own, other, other + moved * step)
    assert found == pytest.approx(share, abs=0.2 if share == 0.5 else 0.01)


def test_where_the_embedding_does_not_know_the_artifact_nothing_is_said():
    rng = np.random.default_rng(0)
    own, other = rng.normal(0, 1, (14, 6)), rng.normal(0, 1, (64, 6))
    assert np.isnan(recognised_share(own, other, other))


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
def test_separation_is_the_area_between_two_normal_distributions(distance):
    """Phi(d / sqrt(2)) of a distance of d deviations along the difference of the means (Green and Swets)."""
    rng = np.random.default_rng(0)
    own, other = rng.normal(0, 1, (2, 2000, 3)) + np.array([distance, 0])[:, None, None] * np.array([1, 0, 0])
    assert separation(own, other) == pytest.approx(norm.cdf(distance / np.sqrt(2)), abs=0.02)
    assert np.isnan(separation(own[:3], other))


def test_half_of_the_images_may_be_missed():
    rng = np.random.default_rng(0)
    other, step = rng.normal(0, 0.3, (64, 6)), np.array([3.0, 0, 0, 0, 0, 0])
    marked = other + step * (np.arange(64) % 4 < 1)[:, None]
    assert recognised_share(rng.normal(0, 0.3, (20, 6)) + step, other, marked) == 0.25


def groups(members, shift, step, seed=0, outputs=12):
    """Outputs of carriers, of others, and of others with an artifact that moves them by `step`; carriers differ from
    these by `shift` as well."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(0.5, 2, outputs)
    other = rng.normal(0, spread, (64, outputs))
    return rng.normal(0, spread, (members, outputs)) + step + shift, other, other + step


def test_where_the_artifact_is_all_that_carriers_share_they_are_told_apart_by_chance():
    """The standard error of an area by chance is sqrt((m + n + 1) / 12 m n) (Mann and Whitney)."""
    step = np.eye(12)[3] * 4
    areas = [remaining_separation(*groups(40, 0, step, seed)) for seed in range(12)]
    error = np.sqrt(105 / (12 * 40 * 64))
    assert abs(np.mean(areas) - 0.5) < 2 * error and np.max(areas) < 0.65 + error


@pytest.mark.parametrize("strength", [0.7, 1.3])
def test_an_artifact_that_is_put_on_weaker_or_stronger_is_still_the_same(strength):
    """Only its direction counts."""
    step = np.eye(12)[3] * 6
    own, other, _ = groups(40, 0, step)
    assert abs(remaining_separation(own, other, other + strength * step) - 0.5) < 0.15


def test_content_that_is_not_put_on_is_seen():
    """Groups a distance d apart, in deviations, have an area of Phi(d / sqrt(2)) along the best direction."""
    shift = np.eye(12)[5] * 3 * np.linspace(0.5, 2, 12)[5]
    assert remaining_separation(*groups(40, shift, np.eye(12)[3] * 4)) > 0.9


@pytest.mark.parametrize("seed", range(6))
def test_of_two_outputs_nothing_is_left_but_rounding(seed):
    """Centred, they are l and -l: taken out along one direction, all is gone, whatever the images show."""
    rng = np.random.default_rng(seed)
    logits = [rng.normal(mean, 3, (n, 1)).astype(np.float32) for mean, n in ((30, 20), (3, 40), (33, 40))]
    own, other, after = (centre_logits(np.concatenate([0.7 * x, -x], 1)) for x in logits)
    assert remaining_separation(own, other, after) == 0.5


def test_of_few_carriers_nothing_is_said_and_of_one_output_nothing_is_left():
    assert np.isnan(remaining_separation(*groups(19, 3, np.eye(12)[3])))
    assert remaining_separation(*groups(40, 3, np.ones(1), outputs=1)) == 0.5
    own, other, after = groups(40, np.eye(12)[5] * 6, np.eye(12)[3], outputs=12)
    wide = [np.concatenate([x, np.zeros((len(x), 300))], 1) for x in (own, other, after)]
    assert remaining_separation(*wide) == pytest.approx(remaining_separation(own, other, after), abs=0.02)
