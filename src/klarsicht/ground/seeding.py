"""Random seeds: one root seed gives an independent random stream for each purpose.

A purpose is a word, followed by indices where units are drawn separately. Its stream is numpy's SeedSequence of the
root seed with the word's SHA-256 as spawn key, so it depends on no other stream, order of calls, process or
platform."""

from __future__ import annotations

import hashlib

import numpy as np

from klarsicht.ground.errors import UsageError


def generator(root: int, purpose: str, *index: int) -> np.random.Generator:
    """Return the random generator of a purpose, or of one of its units by an index. Raises UsageError: a negative
    root."""
    return np.random.Generator(np.random.PCG64(_sequence(root, purpose, index)))


def integer(root: int, purpose: str, *index: int) -> int:
    """Return an integer seed in 0 .. 2^32 - 1 for libraries that take a number, such as torch and scikit-learn."""
    return int(_sequence(root, purpose, index).generate_state(1)[0])


def _sequence(root: int, purpose: str, index: tuple[int, ...]) -> np.random.SeedSequence:
    if root < 0:
        raise UsageError("the seed must not be negative", got=root, remedy="Try 0.")
    word = np.frombuffer(hashlib.sha256(purpose.encode()).digest()[:16], ">u4").tolist()
    return np.random.SeedSequence(root, spawn_key=(*word, *index))
