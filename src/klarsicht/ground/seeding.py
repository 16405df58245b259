"""One root seed, one stream of random numbers for each purpose: drawing more data never moves the noise.

A purpose is a word (data, noise, init, sampling) and, where units are drawn apart, their indices. Its stream
is numpy's SeedSequence of the root with the word's SHA-256 as spawn key: independent of the other purposes, of
the order of the calls, of the process and of the platform.
"""

from __future__ import annotations

import hashlib

import numpy as np

from klarsicht.ground.errors import UsageError


def generator(root: int, purpose: str, *index: int) -> np.random.Generator:
    """The purpose's generator; with an index, that of one of its units.

    Raises:
        UsageError: a negative root.
    """
    return np.random.Generator(np.random.PCG64(_sequence(root, purpose, index)))


def integer(root: int, purpose: str, *index: int) -> int:
    """A seed in 0 .. 2^32 - 1 for libraries that want a number, as torch and scikit-learn do."""
    return int(_sequence(root, purpose, index).generate_state(1)[0])


def _sequence(root: int, purpose: str, index: tuple[int, ...]) -> np.random.SeedSequence:
    if root < 0:
        raise UsageError("the seed must not be negative", got=root, remedy="Try 0.")
    word = np.frombuffer(hashlib.sha256(purpose.encode()).digest()[:16], ">u4").tolist()
    return np.random.SeedSequence(root, spawn_key=(*word, *index))
