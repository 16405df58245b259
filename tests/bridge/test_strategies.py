"""Strategies: planted kinds of kernels are found and named, errors are compared as scipy does, shifts are a null."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import f_oneway

from klarsicht.bridge import strategies
from klarsicht.bridge.kernel_measures import MEASURES
from klarsicht.bridge.measured_burst import MeasuredBurst
from klarsicht.bridge.strategies import AVERAGE, COPIES, EDGE, REFERENCE, SOME, compare_errors, find_strategies
from klarsicht.ground.errors import InputError
from klarsicht.numerics.clustering.fisher import SHRINKAGE

PLAIN = {
    "reference share": 0.15, "evenness": 0.98, "entropy": 6, "sum": 1, "negative share": 0.02, "reach": 4,
    "elongation": 0.1, "orientation": 0, "offset": 0.1, "disagreement": 1, "change": 0.9, "copied light": 0,
}  # fmt: skip
PLANTED = {
    AVERAGE: {},
    EDGE: {"elongation": 0.8, "reach": 3},
    REFERENCE: {"reference share": 0.95, "evenness": 0.15, "disagreement": 12, "reach": 2},
}
SIDE = 24


def planted_burst(seed=0, copied=0):
    """A burst whose points have one of three kinds of kernels, and of which some copy; and the kind of each point."""
    rng = np.random.default_rng(seed)
    third = rng.integers(0, 3, (SIDE, SIDE))
    measures = np.zeros((SIDE, SIDE, len(MEASURES)))
    for number, values in enumerate(PLANTED.values()):
        row = np.array([(PLAIN | values)[name] for name in MEASURES])
        measures[third == number] = row
    measures *= 1 + 0.03 * rng.standard_normal(measures.shape)
    measures[0, :copied, MEASURES.index("change")] = 9
    measures[0, :copied, MEASURES.index("copied light")] = 1
    measures[1, :copied, MEASURES.index("change")] = 9  # noise that changes, but nothing that differs
    error = np.exp(0.1 * rng.standard_normal((SIDE, SIDE)) + (third == 1))
    picture = np.zeros((4 * SIDE, 4 * SIDE, 3), np.uint8)
    return MeasuredBurst("planted", 4, measures, error, picture, True), third


@pytest.mark.slow
def test_planted_kernels_are_named_and_lie_where_they_were_planted():
    burst, third = planted_burst(copied=5)
    found = find_strategies([burst], 300, 0)
    kinds = np.array([one.kind for one in found.strategies])[found.labels[0]]
    assert (kinds[0, :5] == COPIES).all()
    planted = np.array(list(PLANTED))[third]
    rest = kinds != COPIES
    assert rest.sum() == SIDE**2 - 5
    np.testing.assert_array_equal(kinds[rest], planted[rest])
    assert sum(one.share for one in found.strategies) == pytest.approx(1)
    worse = [one for one in found.strategies if one.p < 0.05]
    assert worse and {one.kind for one in worse} == {EDGE}


@pytest.mark.parametrize(
    ("changed", "kind"),
    [({}, AVERAGE), ({"elongation": 0.5}, EDGE), ({"reference share": 0.6}, REFERENCE), ({"evenness": 0.5}, SOME)],
)
def test_a_kind_is_named_by_its_medians(changed, kind):
    assert strategies.name_kind(PLAIN | changed) == kind


def test_every_strategy_has_a_name_of_its_own():
    names = strategies.name_strategies([AVERAGE, EDGE, AVERAGE, AVERAGE], [1.71, 3, 1.69, 4])
    assert names == [f"{AVERAGE}, reach 1.7 px", EDGE, f"{AVERAGE}, reach 1.7 px (2)", f"{AVERAGE}, reach 4.0 px"]


def test_too_few_pixels_are_refused():
    burst, _ = planted_burst()
    few = MeasuredBurst("few", 4, burst.measures[:5, :5], burst.error[:5, :5], burst.picture, True)
    with pytest.raises(InputError, match="too few pixels"):
        find_strategies([few], 100, 0)


def test_separability_of_errors_is_the_f_statistic():
    """tau without its regularisation is F / (n - 2)."""
    rng = np.random.default_rng(1)
    labels = (rng.random((20, 30)) < 0.3).astype(np.int64)
    error = rng.standard_normal((20, 30)) + 0.4 * labels
    found, p = compare_errors([labels], [error])
    F = f_oneway(error[labels == 1], error[labels == 0]).statistic
    plain = F / (error.size - 2)
    R2 = plain / (1 + plain)
    assert found[1] == pytest.approx(R2 / (1 + SHRINKAGE - R2), rel=1e-6)
    assert found[0] == 0 and p[0] == 1 and p[1] == pytest.approx(1 / (1 + strategies.ROLLS))


@pytest.mark.slow
def test_smooth_errors_that_lie_anywhere_are_no_finding():
    """Of 40 pairs of independent smooth maps hardly any has p below .05, where a test of single pixels finds most."""
    alarms = naive = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        one, two = (gaussian_filter(rng.standard_normal((32, 32)), 3, mode="wrap") for _ in range(2))
        labels = (one > 0).astype(np.int64)
        alarms += compare_errors([labels], [two])[1].min() < 0.05
        naive += f_oneway(two[labels == 1], two[labels == 0]).pvalue < 0.05
    assert alarms <= 6 and naive > 20


def test_rows_are_compared_by_ranges_and_have_the_same_sum():
    burst, _ = planted_burst()
    rows = strategies.scale_measures(burst.measures.reshape(-1, len(MEASURES)))
    np.testing.assert_allclose(rows.sum(1), rows.shape[1] / 2)
    assert rows.min() >= 0 and rows.max() <= 1


def test_the_largest_gap_of_the_eigenvalues_is_the_number_of_clusters():
    assert strategies.choose_count(np.array([0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.3, 0.31, 0.32])) == 7
    assert strategies.choose_count(np.array([0, 0.1, 0.2])) == 3
