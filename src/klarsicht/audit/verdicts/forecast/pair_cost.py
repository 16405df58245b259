"""Cost of a pair of images in the search for neighbours, which grows with the square of a group."""

from __future__ import annotations

from typing import Final

import numpy as np

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.spectral.analysis import METRICS, Analysis
from klarsicht.audit.explanation.spectral.clustering import normalise_rows
from klarsicht.audit.verdicts.forecast.cost import Cost, measure_cost
from klarsicht.ground.arrays import Floats
from klarsicht.numerics import neighbours
from klarsicht.numerics.compiled.smallest import smallest_columns

TIMED_ROWS: Final = 8192  # with which a block of rows is compared
BLOCK_ROWS, BLOCKS = 256, 16  # rows of a block, as in a search, and blocks that are timed
LARGER: Final = 2  # times the size of a measured group from which pairs are worth a measurement
JITTER: Final = 0.05  # of the deviation of a column, by which repeated rows differ


def measure_pair_cost(analysis: Analysis, group: Group, largest: int) -> Cost:
    """Measure the seconds of each pair of a group under a metric of feature rows: to be estimated, and to be searched
    for the nearest.

    What each row costs besides, whose nearest are measured, is linear and not in it. Rows are drawn from those of the
    group, with some noise.

    Args:
        largest: images of the largest group; where it is hardly larger than this one, nothing is measured.

    Returns:
        Seconds of a pair; 0 under metrics that compare measures, whose bounds decide how many pairs are compared.
    """
    if largest < LARGER * len(group) or analysis.by_parts:
        return Cost()
    items = analysis.items(analysis.comparable(group))
    if not isinstance(items, np.ndarray) or len(items) < 2:
        return Cost()
    return _time_blocks(analysis, _draw_rows(items, TIMED_ROWS)).times(1 / (BLOCKS * BLOCK_ROWS * TIMED_ROWS))


def _draw_rows(items: Floats, n: int) -> Floats:
    """Draw n of the rows (m, D), with noise."""
    rng = np.random.default_rng(0)
    rows = items[rng.integers(len(items), size=n)].astype(np.float32)
    spread = JITTER * items.std(0, dtype=np.float32)
    return np.asarray(rows + spread * rng.standard_normal(rows.shape, np.float32))


def _time_blocks(analysis: Analysis, rows: Floats) -> Cost:
    """Measure BLOCKS blocks of rows against all, after one that is not counted."""
    metric = neighbours.METRICS[METRICS[analysis.metric].distance]
    items, some = metric.prepare(normalise_rows(rows, None)), slice(0, BLOCK_ROWS)
    smallest_columns(metric.estimates(items, some), analysis.settings.neighbours)
    with measure_cost() as watch:
        for _ in range(BLOCKS):
            smallest_columns(metric.estimates(items, some), analysis.settings.neighbours)
    return Cost(watch.cost.cpu, watch.cost.wall)
