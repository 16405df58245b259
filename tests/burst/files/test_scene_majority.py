"""Frames of another scene: oracles are correlations of numpy on aligned cells, and which scene a frame was made of."""

import numpy as np
import pytest
from PIL import Image

from klarsicht.burst.files import loading, scene_majority


def scene(seed, size=(150, 200)):
    """Rectangles of random place, size and level: light (H, W) in [0.05, 0.6]."""
    rng = np.random.default_rng(seed)
    light = np.full(size, 0.3)
    for _ in range(60):
        y, x = rng.integers(0, size[0] - 10), rng.integers(0, size[1] - 10)
        light[y : y + rng.integers(5, 40), x : x + rng.integers(5, 40)] = rng.uniform(0.05, 0.6)
    return light


def shot(light, y, x, rng, read=0.01):
    crop = light[y : y + 120, x : x + 160]
    return (crop + rng.normal(size=crop.shape) * read)[None].astype(np.float32)


def test_correlation_of_a_thumbnail_moved_by_whole_cells_is_that_of_its_overlap():
    content = np.random.default_rng(0).normal(size=(40, 60))
    first, second = content[:30, :50], content[4:34, 7:57]
    found = scene_majority.scene_correlations([first, second])
    assert found[0, 1] == pytest.approx(1)  # shown alike where both are
    assert np.array_equal(found, found.T)
    unlike = scene_majority.scene_correlations([first, np.random.default_rng(1).normal(size=(30, 50))])[0, 1]
    over = [  # the slow way: every shift, on the cells where both are
        (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
        for dy in range(-12, 13)
        for dx in range(-12, 13)
        for a, b in [overlap(first, np.random.default_rng(1).normal(size=(30, 50)), dy, dx)]
    ]
    assert unlike == pytest.approx(max(over))


def overlap(first, second, dy, dx):
    H, W = first.shape
    y, x = max(0, -dy), max(0, -dx)
    h, w = H - abs(dy), W - abs(dx)
    return first[y : y + h, x : x + w], second[y + dy : y + dy + h, x + dx : x + dx + w]


def test_nothing_correlates_with_an_empty_thumbnail():
    empty = np.zeros((20, 30))
    assert scene_majority.scene_correlations([empty, scene(0, (20, 30))])[0, 1] == 0


@pytest.mark.parametrize("other", [0, 2, 4])
def test_the_frame_of_another_scene_is_told_wherever_it_stands(other):
    rng = np.random.default_rng(other)
    shots = [shot(scene(1 if k != other else 2), *rng.integers(0, 20, 2), rng) for k in range(5)]
    found = scene_majority.outliers(scene_majority.scene_correlations([scene_majority.thumbnail(s) for s in shots]))
    assert found == [other]


@pytest.mark.parametrize(("seeds", "read"), [((1, 2), 0.01), ((1, 1, 2, 2), 0.01), ((1, 1, 1, 2), 30.0), ((1,), 0.01)])
def test_none_is_told_without_a_majority_or_in_noise_that_hides_all(seeds, read):
    rng = np.random.default_rng(0)
    shots = [shot(scene(seed), 3, 5, rng, read) for seed in seeds]
    assert not scene_majority.outliers(scene_majority.scene_correlations([scene_majority.thumbnail(s) for s in shots]))


def test_a_camera_that_pans_has_one_scene():
    """Each frame shows half of what the one before showed; the first and the last share nothing."""
    wide = scene(3, (120, 400))
    cells = [scene_majority.thumbnail(wide[None, :, x : x + 160].astype(np.float32)) for x in range(0, 240, 16)]
    found = scene_majority.scene_correlations(cells)
    assert found[0, -1] < scene_majority.SAME_SCENE
    assert not scene_majority.outliers(found)


def test_the_sharpest_frame_is_no_reference_where_it_shows_another_scene(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(4):
        light = shot(scene(2 if k == 3 else 1), *rng.integers(0, 20, 2), rng, 0)[0]
        if k == 3:
            light *= np.where(np.indices(light.shape)[1] // 4 % 2, 0.85, 1.15)  # finer detail than any other frame's
        Image.fromarray(np.uint8(np.clip(light, 0, 1) ** (1 / 2.2) * 255)).save(tmp_path / f"{k}.png")
    paths = sorted(tmp_path.glob("*.png"))
    burst = loading.load_frames(paths, tmp_path)
    assert max(range(4), key=lambda i: burst.frames[i].sharpness) == 3
    assert burst.reference != 3 and burst.reference_reason == "the sharpest of 4"
    assert [frame.rejection for frame in burst.frames] == ["", "", "", "3.png shows another scene than most frames"]
    (tmp_path / loading.STATS).unlink()
    named = loading.load_frames(paths, tmp_path, str(2 if burst.reference == 0 else 1))
    assert named.reference_reason == "as asked for, of 4"  # it is not the sharpest
    (tmp_path / loading.STATS).unlink()
    assert loading.load_frames(paths, tmp_path, "4").reference == 3  # who names it gets it
