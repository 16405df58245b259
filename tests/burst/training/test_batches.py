"""Batches by their number: what decides them, how often they come, and that turning them keeps them bursts."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.burst.synthesis.synthesis import Recipe, kpn_noise
from klarsicht.burst.training.batches import (
    POOL,
    BatchStream,
    SharedBatch,
    TrainingBatch,
    batch_number,
    typical_steps,
    vary_recipe,
)
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

GEOMETRY = Geometry(scale=1, height=64, width=64, reach=6)


def library(count=2, side=120):
    """Textured scenes: smooth noise at two scales, in linear light."""
    rng = np.random.default_rng(5)
    coarse = rng.uniform(0, 0.6, (count, 1, side // 8, side // 8)).repeat(8, -1).repeat(8, -2)
    return tuple((coarse + rng.uniform(0, 0.4, coarse.shape)).astype(np.float32))


def supply(seed=0, uses=2, noise=kpn_noise):
    recipes = vary_recipe(Recipe(noise=noise, geometry=GEOMETRY, frames=4, min_frames=4), ("still", "moving"))
    return BatchStream(library(), recipes, 2, seed, uses)


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_batch_depends_on_seed_step_and_rank_alone():
    ours = supply()
    forward = [ours.batch(step, 0) for step in range(3)]
    backward = [supply().batch(step, 0) for step in (2, 1, 0)]
    assert all(equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert not torch.equal(forward[0].frames, ours.batch(0, 1).frames)
    assert not torch.equal(forward[0].frames, supply(seed=1).batch(0, 0).frames)


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_each_batch_serves_its_steps_and_never_two_in_a_row(uses):
    numbers = [batch_number(step, uses) for step in range(2 * POOL * uses)]
    assert Counter(numbers) == dict.fromkeys(range(2 * POOL), uses)
    assert all(len(set(numbers[i : i + POOL])) == POOL for i in range(0, len(numbers), POOL))


@pytest.mark.parametrize("uses", [1, 2, 4])
def test_typical_steps_make_as_many_batches_as_a_long_run(uses):
    steps = typical_steps(uses)
    assert len({batch_number(step, uses) for step in steps}) / len(steps) == 1 / uses
    assert len(set(steps)) == len(steps)


def test_a_turned_batch_is_the_turned_picture_with_the_same_noise_levels():
    drawn = supply().draw(0, 0)
    oriented = [drawn.transform(turn) for turn in range(8)]
    first = drawn.truth[0, 0].numpy()
    eight = [np.rot90(x, k) for x in (first, first.T) for k in range(4)]
    for one in oriented:
        assert sum(np.array_equal(one.truth[0, 0].numpy(), picture) for picture in eight) == 1
        assert torch.equal(one.read, drawn.read)
    assert len({one.truth.numpy().tobytes() for one in oriented}) == 8
    inside = (slice(None), 0, slice(None), slice(8, -8), slice(8, -8))
    for one in oriented:  # frames and truth turn together
        assert (one.frames[inside] - one.truth[..., 8:-8, 8:-8]).std() < 0.2 * one.truth.std()


def test_frames_lie_on_the_reference():
    """Without noise, frames that agree with the reference show it, but for half a pixel."""
    still = vary_recipe(
        Recipe(noise=lambda rng: NoiseLevel(1e-4, 1e-6), geometry=GEOMETRY, frames=4, min_frames=4), ("still",)
    )
    drawn = BatchStream(library(), still[:1], 4, 3, 1).draw(0, 0)
    error = (drawn.frames - drawn.truth[:, None])[..., 8:-8, 8:-8].square().mean((-3, -2, -1))
    assert (error[:, 0] < 1e-6).all()
    assert error[drawn.agreement.mean((-1, -2)) > 0.99].median() < 1e-4


def test_missing_frames_come_in_half_of_the_recipes():
    recipes = vary_recipe(Recipe(geometry=GEOMETRY), ("still", "occluded"))
    assert sorted(recipe.min_frames for recipe in recipes) == [1, 1, 8, 8]
    assert {recipe.motion.draw_visibility is None for recipe in recipes} == {True, False}


def test_what_many_threads_want_is_made_once():
    made = []
    value = torch.zeros(1)

    def make():
        made.append(1)
        return TrainingBatch(*[value] * 7)

    shared = SharedBatch(make)
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda _: shared.value(), range(8)))
    assert len(made) == 1
    assert all(one.frames is value for one in values)
