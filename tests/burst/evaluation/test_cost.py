"""Costs of work whose cost is known."""

import time
from pathlib import Path

import numpy as np
import pytest

from klarsicht.burst.evaluation.cost import measure_cost
from klarsicht.ground.machine import operating_system


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a process again and again"
)
@pytest.mark.parametrize("mib", [64, 16])
def test_the_peak_is_what_was_held_even_if_it_is_freed(mib):
    """The smaller after the larger: a peak of before does not count."""
    held, cost = measure_cost(lambda: np.ones(mib << 17).size)
    assert held == mib << 17
    assert cost.peak_mib == pytest.approx(mib, abs=3)


def test_waiting_costs_no_processor_time():
    assert measure_cost(lambda: time.sleep(0.2))[1].cpu_s < 0.05


def test_working_does():
    def work():
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass

    assert 0.1 <= measure_cost(work)[1].cpu_s < 0.2


def test_a_system_that_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(operating_system, "PROC", tmp_path / "none")
    assert measure_cost(lambda: 3)[1].peak_mib is None
