"""Artifacts of random families, as strong as a given change."""

import numpy as np
import pytest

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.random_artifacts import put_random_artifacts, strength_of

GLASS = PixelScale(np.full(3, -1, np.float32), np.full(3, 1, np.float32))


def grey(side, rng):
    """Images whose values leave room for a weak change, black and white apart."""
    return GLASS.inputs(rng.integers(90, 160, (4, side, side, 3)).astype(np.uint8))


@pytest.mark.parametrize("side", [9, 32])  # families are drawn from 28 pixels on
def test_random_artifacts_have_the_strength_that_is_asked_for_and_differ(side):
    x = grey(side, np.random.default_rng(0))
    drawn = [put.numpy() for put in put_random_artifacts(x, 2.0, GLASS, np.random.default_rng(1), 12)]
    apart = [np.sqrt(((put - x.numpy()) ** 2).mean()) * 255 / 2 for put in drawn]
    assert len(drawn) == 12 and len({put.tobytes() for put in drawn}) == 12
    assert np.median(apart) == pytest.approx(2.0, rel=1e-3)  # a flat mirror, say, may change nothing
    assert max(apart) < 2.001


def test_strength_is_that_of_a_known_change():
    x = grey(12, np.random.default_rng(0))
    assert strength_of(x + 3 * 2 / 255, x, GLASS) == pytest.approx(3.0, rel=1e-4)
