"""Costs are added and extrapolated as their laws say."""

import numpy as np
import pytest

from klarsicht.audit.verdicts.forecast.cost import FILE_BLOCK, Cost, SizeLaw, disk_bytes, measure_cost


def law(n, a, b):
    return a + b * n * np.log(n)


def test_law_of_a_size_is_recovered_and_summed():
    """Oracle: the closed form that the costs were made with."""
    costs = [(n, Cost(law(n, 0.1, 2e-4), law(n, 0.3, 1e-3), law(n, 4096, 8.0), 100.0 * n, 1e9)) for n in (25, 50, 100)]
    fitted = SizeLaw.of(costs)
    sizes = np.array([30, 700, 1300])
    total = fitted.total(sizes)
    assert total.cpu == pytest.approx(sum(law(n, 0.1, 2e-4) for n in sizes), rel=1e-6)
    assert total.wall == pytest.approx(sum(law(n, 0.3, 1e-3) for n in sizes), rel=1e-6)
    assert total.disk == pytest.approx(sum(law(n, 4096, 8.0) for n in sizes), rel=1e-6)
    assert (total.added, total.peak) == (pytest.approx(130_000), 1e9)


def test_pairs_are_taken_out_of_the_fit_and_counted_in_the_sum():
    """Oracle: the closed form that the costs were made with."""
    pair = Cost(cpu=3e-6, wall=5e-6)
    costs = [(n, Cost(cpu=law(n, 0.1, 2e-4) + 3e-6 * n * n, wall=law(n, 0.3, 1e-3) + 5e-6 * n * n)) for n in (50, 400)]
    total = SizeLaw.of(costs, pair).total(np.array([60_000, 10]))
    assert total.cpu == pytest.approx(sum(law(n, 0.1, 2e-4) + 3e-6 * n * n for n in (60_000, 10)), rel=1e-6)
    assert total.wall == pytest.approx(sum(law(n, 0.3, 1e-3) + 5e-6 * n * n for n in (60_000, 10)), rel=1e-6)


def test_groups_of_one_size_cost_their_mean():
    """Some classes have no map that can be compared, and cost next to nothing."""
    costs = [(100, Cost(cpu=seconds, wall=seconds)) for seconds in (0.01, 1.99, 1.0)]
    assert SizeLaw.of(costs).total(np.full(7, 100)).cpu == pytest.approx(7, rel=1e-6)


def test_seconds_add_and_memory_does_not():
    both = Cost(1, 2, 3, 4, 5) + Cost(10, 20, 30, 1, 50)
    assert both == Cost(11, 22, 33, 4, 50)
    assert both.times(2) == Cost(22, 44, 66, 4, 50)
    assert both.beyond(Cost(1, 30, 3, 9, 9)) == Cost(10, 0, 30, 4, 50)


@pytest.mark.slow
def test_disk_is_what_was_written_and_memory_what_was_held(tmp_path):
    """Oracle: the bytes that are written and allocated here."""
    (tmp_path / "before").write_bytes(bytes(100_000))
    with measure_cost(tmp_path) as watch:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / "file").write_bytes(bytes(1_000_000))
        held = np.ones(8_000_000)
    assert 1_000_000 <= watch.cost.disk <= 1_000_000 + 64 * 1024
    assert watch.cost.peak == 0 or watch.cost.added >= 0.9 * held.nbytes
    assert disk_bytes(tmp_path) % FILE_BLOCK == 0
    assert disk_bytes(None) == 0
