"""Pictures of strategies: colours by kind and reach, legends whose shares add up, maps that stand upright."""

import numpy as np
import pytest

from klarsicht.bridge.measured_burst import MeasuredBurst
from klarsicht.bridge.strategies import AVERAGE, COPIES, EDGE, Strategy, StrategyMaps
from klarsicht.bridge.strategy_pictures import COLOURS, LINE, choose_colours, colour_map, draw_strategies, list_legend


def strategy(kind, reach):
    return Strategy(f"{kind} {reach}", kind, 0.25, {"reach": reach}, 0.0, 0.0, 1.0)


STRATEGIES = (strategy(AVERAGE, 4.0), strategy(EDGE, 2.0), strategy(AVERAGE, 1.0), strategy(COPIES, 3.0))
LABELS = np.array([[0, 0, 1], [2, 2, 2]])


def burst(orientation=1):
    size = (8, 12) if orientation == 1 else (12, 8)
    return MeasuredBurst(
        "a", 4, np.zeros((2, 3, 12)), np.ones((2, 3)), np.zeros((*size, 3), np.uint8), True, orientation
    )


def test_a_kind_has_its_colours_from_the_shortest_reach_to_the_longest():
    colours = choose_colours(STRATEGIES)
    assert colours[2] == COLOURS[AVERAGE][0] and colours[0] == COLOURS[AVERAGE][1]
    assert colours[1] == COLOURS[EDGE][0] and len(set(colours)) == 4


def test_the_legend_names_what_the_map_shows():
    legend = list_legend(StrategyMaps(STRATEGIES, (LABELS,), None, np.arange(0)), 0)
    assert [(one.name, one.share) for one in legend] == [
        (STRATEGIES[0].name, pytest.approx(1 / 3)), (STRATEGIES[1].name, pytest.approx(1 / 6)),
        (STRATEGIES[2].name, pytest.approx(1 / 2)),
    ]  # fmt: skip


def test_a_map_is_turned_as_the_picture_is():
    """Orientation 6 of EXIF: the first row of the file is the right side of the picture."""
    maps = StrategyMaps(STRATEGIES, (LABELS,), None, np.arange(0))
    as_stored, turned = (colour_map(burst(k), maps, 0) for k in (1, 6))
    np.testing.assert_array_equal(turned, np.rot90(as_stored, -1))


def test_the_drawing_is_the_enlarged_map_over_grey_with_a_line_for_each_strategy():
    maps = StrategyMaps(STRATEGIES, (LABELS,), None, np.arange(0))
    drawn = draw_strategies(burst(), maps, 0)
    factor = 360 // 8
    assert drawn.shape == (8 * factor + 3 * LINE + LINE // 2, 12 * factor, 3)
    corner = 0.6 * np.array(choose_colours(STRATEGIES)[0])  # over black
    np.testing.assert_allclose(drawn[0, 0], corner, atol=1)
