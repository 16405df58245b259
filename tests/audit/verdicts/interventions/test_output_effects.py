"""Effects of all outputs against a loop, and first places of outputs that nothing raises."""

import numpy as np
import pytest

from klarsicht.audit.verdicts.interventions import output_effects

RNG = np.random.default_rng(0)


def one_by_one(owner, rises, share):
    found = []
    for k in range(rises.shape[2]):
        pairs = []
        for image in sorted(set(owner)):
            of_it = [(rises[0, r, k], rises[1, r, k]) for r in range(len(owner)) if owner[r] == image]
            pairs.append(max(of_it, key=lambda pair: pair[0]))
        pairs.sort(key=lambda pair: -pair[0])
        picked = round(share * len(pairs))
        found.append(np.mean([p[1] for p in pairs[:picked]]) - np.mean([p[1] for p in pairs[picked:]]))
    return found


def test_effects_are_what_a_loop_gives():
    owner = RNG.permutation(np.concatenate([np.arange(20), RNG.integers(0, 20, 30)]))
    rises = RNG.normal(size=(2, 50, 7))
    np.testing.assert_allclose(output_effects.search_effects(owner, rises, 0.25), one_by_one(owner, rises, 0.25))


def test_one_image_at_least_is_picked_and_one_is_not():
    owner, rises = np.arange(4), np.arange(8.0).reshape(2, 4, 1)
    assert output_effects.search_effects(owner, rises, 0.0) == pytest.approx(7 - 5)
    assert output_effects.search_effects(owner, rises, 1.0) == pytest.approx(6 - 4)
    assert (
        output_effects.search_effects(owner[:0], rises[:, :0], 0.25)
        == output_effects.search_effects(owner[:1], rises[:, :1], 0.25)
        == 0
    )


def test_picking_makes_no_effect_where_backgrounds_agree_in_nothing():
    effect = output_effects.search_effects(np.repeat(np.arange(60), 3), RNG.normal(size=(2, 180, 400)), 0.25)
    assert abs(effect.mean()) < 0.05  # the rise by which images are picked is up to 2 on its own backgrounds


def test_what_is_raised_for_sure_is_first():
    rises = RNG.normal(size=(2, 100, 50))
    rises[:, :20, 7] += 3
    assert output_effects.search_effects(np.arange(100), rises, 0.2).argmax() == 7
