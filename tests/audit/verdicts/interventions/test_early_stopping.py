"""Effects with few forward passes. Oracles: all ways on all images, simulated effects, counted images."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, sem
from tests.audit.verdicts.interventions.test_experiment import (
    SCALE,
    blind,
    measured,
    on_inputs,
    reads_tag,
    scenes,
    specimen,
)

from klarsicht.audit.verdicts.interventions.early_stopping import (
    LOOKS,
    choose_way,
    comparison_sizes,
    looks_at,
    measure_in_looks,
    most_images_compared,
)
from klarsicht.audit.verdicts.interventions.insertion import CHANGES


class Shift:
    """An `Insertion` that writes a number into the images, and none into the control."""

    def __init__(self, size):
        self.size = size

    def fits(self, image):
        return True

    def put(self, images, rng):
        return images + self.size, images.clone()


def noisy(rng, deviation, x):
    """Logits of six outputs, the first by far the largest; what was written raises the third."""
    answers = rng.normal(0, deviation, (len(x), 6))
    answers[:, 0] += 8
    answers[:, 2] += x.mean((1, 2, 3)).numpy()
    return answers


def counted(predict):
    """The function, and the number of images that it was shown."""
    shown = [0]

    def count(x):
        shown[0] += len(x)
        return predict(x)

    return count, shown


def test_the_way_of_all_images_is_chosen_with_fewer():
    """A tag at its own place and anywhere, a border, and blocks: a model reads the tag."""
    x, ways = SCALE.inputs(scenes(32, seed=7)), {}
    for change in ("tile", "border", "blur", "blocks"):
        ways |= {(change, how): way for how, way in CHANGES[change](specimen(), SCALE).items()}
    effects = measured(on_inputs(reads_tag), x, 3, ways)
    best = max(effects, key=lambda key: (-effects[key].rank, effects[key].rise.low))
    predict, shown = counted(on_inputs(reads_tag))
    chosen = choose_way(predict, x, on_inputs(reads_tag)(x), 3, ways, np.random.default_rng(0))
    assert chosen[0] == best[0] == "tile" and effects[chosen].rise.low > 0.8 * effects[best].rise.low
    assert shown[0] <= most_images_compared(len(ways)) < 0.7 * 2 * 32 * len(ways)
    assert choose_way(predict, x[:1].repeat(2, 1, 1, 1), blind(scenes(2)), 3, ways, np.random.default_rng(0)) in ways


def test_all_ways_get_common_random_numbers():
    """The control of both ways is cut out of the same images, and what follows sees a generator that ran once."""

    class Drawn:
        def put(self, images, rng):
            draws.append(rng.integers(1000))
            return images, images

    draws, rng, again = [], np.random.default_rng(0), np.random.default_rng(0)
    x = SCALE.inputs(scenes(4))
    choose_way(on_inputs(blind), x, blind(scenes(4)), 3, {"a": Drawn(), "b": Drawn()}, rng)
    assert draws == [again.integers(1000)] * 2 and rng.integers(1000) == again.integers(1000)


def test_few_ways_are_compared_once_and_many_three_times():
    assert [comparison_sizes(ways) for ways in (1, 2, 3, 4, 5, 16)] == [
        (),
        (16,),
        (8, 16),
        (8, 16),
        (8, 16, 32),
        (8, 16, 32),
    ]
    assert [most_images_compared(ways) for ways in (1, 2, 4, 16)] == [0, 64, 96, 256 + 128 + 128]


def test_what_cannot_matter_is_left_and_what_may_is_measured_on_all_images():
    x, before = torch.zeros(64, 3, 4, 4), np.zeros((64, 6))
    for size, images in ((0.0, LOOKS[0]), (5.0, 64)):
        predict, shown = counted(partial(noisy, np.random.default_rng(1), 0.1))
        effect = measure_in_looks(predict, Shift(size), x, before, 2, np.random.default_rng(0))
        assert effect.rise.n == images and shown[0] == 2 * images
    assert effect.rank == 0 and effect.rise.low > 3


def test_the_interval_is_longer_where_it_is_looked_at_more_than_once():
    rng, change = np.random.default_rng(4), []
    predict = partial(noisy, rng, 1.0)

    def remembered(x):
        change.append(predict(x))
        return change[-1]

    effect = measure_in_looks(remembered, Shift(3.0), torch.zeros(64, 3, 4, 4), np.zeros((64, 6)), 2, rng)
    marked, control = (np.concatenate(change[side::2])[:, 2] for side in (0, 1))
    means = [np.concatenate(change[side::2]).mean(1) for side in (0, 1)]
    values = (marked - means[0]) - (control - means[1])
    reach = (effect.rise.high - effect.rise.low) / 2 / sem(values)
    assert 2.0 < reach < 2.15  # 1.998 of Student's t for a single look
    assert [b for _, b, _ in looks_at(64)] == [*LOOKS, 64] and [b for _, b, _ in looks_at(9)] == [9]


@pytest.mark.parametrize("true", [0.0, 0.5])
def test_intervals_hold_whenever_the_effect_is_left(true):
    """Of 600 effects of a known size, at most one in twenty has an interval that misses it."""
    rng, missed, left = np.random.default_rng(5), 0, 0
    x, before = torch.zeros(64, 1, 1, 1), np.zeros((64, 6))
    for _ in range(600):
        effect = measure_in_looks(partial(noisy, rng, 1.0), Shift(true * 6 / 5), x, before, 2, rng)
        missed += not effect.rise.low <= true <= effect.rise.high
        left += effect.rise.n < 64
    assert binomtest(missed, 600, 0.05, alternative="greater").pvalue > 0.01
    assert (left > 150) == (true == 0)
