"""Seeds. Oracles: SHA-256's published test vector, numpy's SeedSequence, laws of independent streams."""

import subprocess
import sys

import numpy as np
import pytest

from klarsicht.ground.errors import UsageError
from klarsicht.ground.seeding import generator, integer

ABC = (0xBA7816BF, 0x8F01CFEA, 0x414140DE, 0x5DAE2223)  # SHA-256("abc"), FIPS 180-4, first 128 bits


def test_streams_are_numpys_own_under_the_published_hash():
    sequence = np.random.SeedSequence(7, spawn_key=(*ABC, 3))
    expected = np.random.Generator(np.random.PCG64(sequence)).random(5)
    np.testing.assert_array_equal(generator(7, "abc", 3).random(5), expected)
    assert integer(7, "abc", 3) == sequence.generate_state(1)[0]


def test_the_same_in_another_process():
    code = "from klarsicht.ground.seeding import *; print(generator(1, 'noise').random(), integer(1, 'noise'))"
    told = {subprocess.check_output([sys.executable, "-c", code], env={"PYTHONHASHSEED": s}) for s in ("1", "2")}
    assert told == {f"{generator(1, 'noise').random()} {integer(1, 'noise')}\n".encode()}


def test_roots_purposes_and_units_draw_apart():
    asked = [
        (root, word, *index) for root in (0, 1, 2**40) for word in ("data", "noise", "") for index in ((), (0,), (1,))
    ]
    draws = np.array([generator(*each).normal(size=4000) for each in asked])
    correlation = np.corrcoef(draws) - np.eye(len(draws))
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)
    assert len({integer(*each) for each in asked}) == len(asked)


def test_integers_fit_scikit_learn():
    seeds = [integer(0, "init", i) for i in range(200)]
    assert min(seeds) >= 0
    assert max(seeds) < 2**32
    np.random.RandomState(max(seeds))


def test_negative_root_is_refused():
    with pytest.raises(UsageError, match="got -1"):
        generator(-1, "data")
