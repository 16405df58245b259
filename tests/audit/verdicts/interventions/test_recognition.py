"""Recognition of an artifact on other images: an embedding moves them as it sets carriers apart."""

import numpy as np
import pytest

from klarsicht.audit.verdicts.interventions.recognition import recognised_share


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


def test_half_of_the_images_may_be_missed():
    rng = np.random.default_rng(0)
    other, step = rng.normal(0, 0.3, (64, 6)), np.array([3.0, 0, 0, 0, 0, 0])
    marked = other + step * (np.arange(64) % 4 < 1)[:, None]
    assert recognised_share(rng.normal(0, 0.3, (20, 6)) + step, other, marked) == 0.25
