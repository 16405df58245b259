"""Every output of a network that reads a tag for one of them, searched for in the same images."""

import numpy as np
import pytest
from tests.audit.verdicts.interventions.test_experiment import SCALE, K, blind, on_inputs, reads_tag, scenes
from tests.audit.verdicts.interventions.test_regions import CARRIERS, CARRIES, PLACES, N, tagged

from klarsicht.audit.verdicts.interventions.output_effects import compare_outputs
from klarsicht.audit.verdicts.interventions.regions import RegionEffects


def stands(model, target, seed=0):
    """Of a class whose relevance lies on the tag of the carriers, and anywhere in the others."""
    levels, maps, rng = scenes(N, seed), np.zeros((N, 8, 8)), np.random.default_rng(seed)
    levels[:CARRIERS] = tagged(levels[:CARRIERS], PLACES[:CARRIERS])
    for of_one, (a, b) in zip(maps, PLACES // 4, strict=True):
        of_one[a : a + 2, b : b + 2] = 1
    x, predict = SCALE.inputs(scenes(37, seed + 100)), on_inputs(model)
    tried = RegionEffects.of(predict, levels, SCALE, maps, x[:5], target)
    effect = tried.measure_effect(predict, CARRIES, ~CARRIES, x[5:], target, rng)
    return compare_outputs(effect, tried, CARRIES.mean(), target, None)


@pytest.mark.slow
def test_the_class_that_the_tag_makes_is_first_and_any_other_is_behind_it():
    first = stands(reads_tag, 3)
    assert first.ahead == 0 and first.own > 3 * first.peer_effect and first.margin_low > 0
    for other in (0, 5):
        behind = stands(reads_tag, other)
        assert behind.ahead >= 1 and behind.peer == behind.runner == "3" and behind.margin_high < 0


def test_no_class_is_first_more_often_than_the_others_where_none_uses_the_tag():
    ranks = [stands(blind, 3, seed).ahead for seed in range(12)]
    assert min(ranks) < K / 2 < max(ranks) and np.mean(ranks) == pytest.approx((K - 1) / 2, abs=3)
