"""Cost of a pair of images in the search for neighbours, which grows with the square of a group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from klarsicht.audit.data.groups import Group
from klarsicht.audit.forecast.cost import Cost, measure_cost
from klarsicht.audit.spectral.analysis import METRICS, Analysis
from klarsicht.audit.spectral.clustering import normalise_rows
from klarsicht.ground.arrays import Floats
from klarsicht.numerics.neighbours import neighbour_graph

TIMED_ROWS = 3000  # of one search, and twice as many of another
LEAST_PAIRS_SHARE = 2  # times the size of a measured group from which pairs are worth a measurement
JITTER = 0.05  # of the deviation of a column, by which repeated rows differ


def measure_pair_cost(analysis: Analysis, group: Group, largest: int) -> Cost:
    """Measure seconds for each pair of a group under a metric of feature rows, from searches of two sizes.

    Rows are drawn from those of the group, with some noise. T(2 m) - 2 T(m) = 2 c m^2 where all else is linear.

    Args:
        largest: images of the largest group; where it is hardly larger than this one, nothing is measured.

    Returns:
        Seconds of a pair; 0 under metrics that compare measures, whose bounds decide how many pairs are compared.
    """
    if largest < LEAST_PAIRS_SHARE * len(group) or largest < TIMED_ROWS or analysis.by_parts:
        return Cost()
    items = analysis.items(analysis.comparable(group))
    if not isinstance(items, np.ndarray) or len(items) < 2:
        return Cost()
    half, whole = (_time_search(analysis, _draw_rows(items, n)) for n in (TIMED_ROWS, 2 * TIMED_ROWS))
    return whole.beyond(half.times(2)).times(1 / (2 * TIMED_ROWS**2))


def _draw_rows(items: Floats, n: int) -> Floats:
    """Draw n of the rows (m, D), with noise."""
    rng = np.random.default_rng(0)
    rows = items[rng.integers(len(items), size=n)].astype(np.float32)
    spread = JITTER * items.std(0, dtype=np.float32)
    return np.asarray(rows + spread * rng.standard_normal(rows.shape, np.float32))


def _time_search(analysis: Analysis, rows: Floats) -> Cost:
    given = normalise_rows(rows, None)
    with measure_cost() as watch:
        neighbour_graph(given, METRICS[analysis.metric].distance, analysis.settings.neighbours)
    return replace(watch.cost, disk=0.0, added=0.0, peak=0.0)
