"""Memory that is held: what is allocated counts, and what was freed does not."""

import numpy as np
import pytest

from klarsicht.ground.held import resident


def test_freed_memory_is_not_held():
    before = resident()
    kept = [np.ones(20_000) for _ in range(400)]  # 64 MB in pieces that the C library keeps for itself
    held = resident()
    assert held - before == pytest.approx(64e6, rel=0.1)
    last = kept[-1]
    del kept
    assert resident() - before < 10e6 and last.all()
