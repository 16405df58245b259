"""Tiles: they cover a picture once, hold what they need, and are not done twice."""

import re

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from klarsicht.burst.align.warp_tiles import STEP
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.merging import tiles
from klarsicht.burst.merging.tiles import Grid
from klarsicht.ground.errors import StoreError, UsageError


@pytest.mark.parametrize(("size", "sides"), [((100, 70), (64, 32)), ((257, 640), (96, 160)), ((64, 64), (2048, 2048))])
def test_tiles_cover_once_and_windows_begin_at_steps(size, sides):
    grid, seen = Grid(size, sides, halo=45, margin=10), np.zeros(size, int)
    for tile in grid:
        seen[tile.core.y0 : tile.core.y1, tile.core.x0 : tile.core.x1] += 1
        w, o, n = tile.window, tile.core, tile.context
        assert n.clip_to(size) == n == Window(max(w.y0, n.y0), min(w.y1, n.y1), max(w.x0, n.x0), min(w.x1, n.x1))
        assert all(a == 0 or 10 <= b - a < 10 + STEP for a, b in ((n.y0, o.y0), (n.x0, o.x0)))
        assert w.y0 % STEP == w.x0 % STEP == 0
        assert all(a == 0 or b - a >= 45 for a, b in ((w.y0, o.y0), (w.x0, o.x0)))
        assert (w.y1 == size[0] or w.y1 - o.y1 >= 45) and (w.x1 == size[1] or w.x1 - o.x1 >= 45)
    assert (seen == 1).all() and len(grid) == sum(1 for _ in grid)
    areas = np.array([[np.prod(w.size) for w in (tile.context, tile.window)] for tile in grid])
    assert grid.largest == tuple(areas.max(0)) and grid.total_window_area == areas[:, 1].sum()


def test_tiles_fit_and_there_is_no_less_to_do():
    def need(near, window):
        return 100.0 * window

    grid = tiles.choose_grid((2000, 3000), 32, 0, need, 100 * 512**2)
    assert max(t.window.size[0] * t.window.size[1] for t in grid) <= 512**2
    assert sum(t.window.size[0] * t.window.size[1] for t in grid) < (512 / 448) ** 2 * 2000 * 3000
    whole = tiles.choose_grid((1500, 2000), 205, 50, need, 100 * 1500 * 2000)
    assert len(whole) == 1


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_memory_that_the_error_names_suffices(share):
    def choose(memory):
        return tiles.choose_grid((400, 600), 200, 50, lambda near, window: 1e9 + 1000.0 * window, memory, share)

    with pytest.raises(UsageError, match="memory") as error:
        choose(1e9)
    named = float(re.search(r"Give --memory ([\d.]+), or more", str(error.value))[1])
    assert len(choose(named * 1e9)) >= 1
    with pytest.raises(UsageError):
        choose((named - 0.2) * 1e9)


def test_a_stopped_run_goes_on(tmp_path):
    grid, done = Grid((300, 300), (96, 96), 10), []

    def work(tile):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(tile.number)
        return {"number": tile.number}

    with pytest.raises(KeyboardInterrupt):
        tiles.process_tiles(grid, tmp_path, work, "work")
    with (tmp_path / tiles.LOG).open("ab") as file:
        file.write(b'{"tile": 5, "to')  # a kill in the middle of a line
    first, done = done, []
    told = [
        t["number"]
        for t in tiles.process_tiles(grid, tmp_path, lambda t: done.append(t.number) or {"number": t.number}, "work")
    ]
    assert first + done == told == list(range(16))
    assert tiles.process_tiles(grid, tmp_path, work, "work") == [{"number": n} for n in range(16)]


@pytest.mark.parametrize("seed", range(3))
def test_marked_pixels_are_covered_with_their_margin(seed):
    rng, marked = np.random.default_rng(seed), np.zeros((500, 700), bool)
    for y, x in zip(rng.integers(0, 500, 5), rng.integers(0, 700, 5), strict=True):
        marked[y : y + 40, x : x + 40] = True
    covered = np.zeros((500 + 400, 700 + 400), bool)
    for window in tiles.cover_marked(marked, 50, 96):
        assert window.y0 % STEP == window.x0 % STEP == 0
        covered[200 + window.y0 : 200 + window.y1, 200 + window.x0 : 200 + window.x1] = True
    wanted = maximum_filter(np.pad(marked, 200), 101, mode="constant")
    assert covered[wanted].all()


def test_windows_are_divided_where_that_is_less_to_do():
    """Of two marks far apart, one window has (640 + 2 h) x (32 + 2 h) pixels with a halo h, two have 2 (32 + 2 h)^2."""
    marked = np.zeros((32, 640), bool)
    marked[0, 0] = marked[0, -1] = True
    assert [len(tiles.cover_marked(marked, 0, halo)) for halo in (0, 128, 320)] == [2, 2, 1]
    assert tiles.cover_marked(np.zeros((64, 64), bool), 0, 0) == []


def test_what_lies_outside_costs_nothing():
    """Two marks in corners of a tile that is all there is, with a halo h: one window is 320^2 pixels, two are 2 (32 +
    h)^2 up to h = 288, and twice the tile beyond. Were there more around it, two would be less at h = 320: 2 x 672^2 in
    place of 960^2."""
    marked = np.zeros((320, 320), bool)
    marked[0, 0] = marked[-1, -1] = True
    here = Window(0, 320, 0, 320)
    assert [len(tiles.cover_marked(marked, 0, halo, here)) for halo in (0, 160, 320)] == [2, 2, 1]
    assert len(tiles.cover_marked(marked, 0, 320)) == 2


def test_a_damaged_log_of_tiles_is_named(tmp_path):
    (tmp_path / tiles.LOG).write_text('{"tile": 0, "told": {}}\n{"tile": \x00\n')
    with pytest.raises(StoreError, match=rf"{tiles.LOG} is damaged.*Remove it"):
        tiles.read_log(tmp_path)
    (tmp_path / tiles.GRID).write_text('{"memory": null}')
    with pytest.raises(StoreError, match=rf"{tiles.GRID} is damaged"):
        tiles.restore_grid(Grid((64, 64), (64, 64), halo=4, margin=1), tmp_path, 2.0)
