"""Costs of work whose cost is known."""

import time
from pathlib import Path

import numpy as np
import pytest

from klarsicht.ground.machine import operating_system
from klarsicht.ground.machine.stopwatch import Stopwatch


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a process again and again"
)
@pytest.mark.parametrize("mib", [64, 16])
def test_the_peak_is_what_was_held_even_if_it_is_freed(mib):
    """The smaller after the larger: a peak of before does not count."""
    watch = Stopwatch()
    assert np.ones(mib << 17).size == mib << 17
    cost = watch.cost
    assert cost.added_mib == pytest.approx(mib, abs=3)
    assert cost.peak > cost.added


def test_waiting_costs_no_processor_time():
    """A busy machine waits longer, and a wait of any length costs less processor time than it lasts."""
    watch = Stopwatch()
    time.sleep(0.2)
    assert watch.cost.wall >= 0.2 and watch.cost.cpu < watch.cost.wall / 2


def test_working_does():
    """Within the process's own reading before and after."""
    before = time.process_time()
    watch, end = Stopwatch(), time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert 0.09 <= watch.cost.cpu <= time.process_time() - before


def test_a_system_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(operating_system, "PROC", tmp_path / "none")
    assert Stopwatch().cost.peak is None and Stopwatch().cost.added_mib is None
