"""Loading of a burst: ratios of exposures known beforehand, and frames that do not belong, made by the test."""

import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from tests.burst.files.test_scene_majority import scene, shot

from klarsicht.burst.files.loading import Cells, brightness_ratio, load_frames, sharpness
from klarsicht.ground.errors import InputError


def test_brightness_is_compared_where_nothing_is_saturated():
    first = np.random.default_rng(0).uniform(0.05, 0.4, (3, 48, 64)).astype(np.float32)
    other = first * np.float32(0.8)
    first[:, :10], other[:, :10] = 1, 1
    assert brightness_ratio(Cells.measure(first), Cells.measure(other)) == pytest.approx(1.25, rel=1e-3)


def test_cells_with_a_pixel_cut_off_at_white_do_not_tell_the_exposure():
    """Small bright spots, a tenth of every second cell, are white in the longer of two exposures four times apart: the
    means of those cells lie up to 20 % off."""
    light = np.random.default_rng(0).uniform(0.02, 0.2, (1, 240, 240)).astype(np.float32)
    for y in range(0, 240, 20):
        light[:, y : y + 3, 0:240:3] = 0.6
    first, other = (np.minimum(light * np.float32(t), 1) for t in (1, 4))
    assert first[:, :10].mean() / other[:, :10].mean() > 1.1 * 0.25
    assert brightness_ratio(Cells.measure(first), Cells.measure(other)) == pytest.approx(0.25, rel=1e-3)
    white = Cells.measure(np.ones((1, 48, 48), np.float32))
    assert brightness_ratio(white, white) is None


def test_the_sharper_frame_is_sharper_at_any_brightness():
    sharp = np.random.default_rng(0).uniform(0.1, 0.9, (1, 64, 64)).astype(np.float32)
    blurred = gaussian_filter(sharp, (0, 1, 1))
    assert sharpness(sharp) > sharpness(blurred)
    assert sharpness(0.5 * sharp) == pytest.approx(sharpness(sharp), rel=1e-3)


def written(folder, exposures, seeds):
    """PNG files of noisy frames of the scenes with these seeds."""
    rng = np.random.default_rng(5)
    for i, (exposure, seed) in enumerate(zip(exposures, seeds, strict=True)):
        light = exposure * shot(scene(seed), *rng.integers(0, 8, 2), rng)[0]
        Image.fromarray(np.uint8(np.clip(light, 0, 1) ** (1 / 2.2) * 255)).save(folder / f"{i}.png")
    return sorted(folder.glob("*.png"))


def test_a_first_frame_of_another_scene_is_dropped_by_name_and_not_the_others(tmp_path):
    """The others were compared with it, and the second was blamed. What is stored has the exposure of the second."""
    files = written(tmp_path, (0.4, 1.0, 1.1, 1.0), (2, 1, 1, 1))
    burst = load_frames(files, tmp_path)
    assert [bool(frame.rejection) for frame in burst.frames] == [True, False, False, False]
    assert burst.frames[0].rejection.startswith("0.png is -1.") and "EV off 1.png" in burst.frames[0].rejection
    assert [frame.gain for frame in burst.frames[1:]] == pytest.approx([1, 1 / 1.1, 1], rel=0.02)
    kept = burst.spool.path.read_bytes()
    again = load_frames(files, tmp_path)
    assert again.frames == burst.frames and again.spool.path.read_bytes() == kept


def test_a_reference_exposed_otherwise_than_most_is_refused_by_name(tmp_path):
    """Every other frame would show something else, and the reference alone would be announced as the whole burst."""
    files = written(tmp_path, (1.0, 1.1, 1.0, 0.4), (1, 1, 1, 1))
    with pytest.raises(InputError, match=r"got 3\.png is -1\.\d EV off 0\.png.* exposed as most frames.*--reference"):
        load_frames(files, tmp_path, "3.png")
    assert load_frames(files, tmp_path, "2.png").reference == 2


def test_two_that_differ_are_both_named(tmp_path):
    with pytest.raises(InputError, match=r"1\.png is \+1\.\d EV off 0\.png: another exposure.* -o 'clean/\{\}"):
        load_frames(written(tmp_path, (0.4, 1.0), (2, 1)), tmp_path)


def test_copies_of_a_frame_are_dropped_by_name(tmp_path):
    """Copies have no noise of their own: their mean is the frame, however many they are."""
    files = written(tmp_path, (1.0, 1.0), (1, 1))
    for name in ("copy.png", "again.png"):
        shutil.copyfile(files[0], tmp_path / name)
    files = [*files, tmp_path / "copy.png", tmp_path / "again.png"]
    frames = load_frames(files, tmp_path).frames
    assert [frame.rejection for frame in frames[:2]] == ["", ""]
    assert [frame.rejection for frame in frames[2:]] == [f"{n}.png is a copy of 0.png" for n in ("copy", "again")]
    (tmp_path / "frames.json").unlink()
    named = load_frames(files, tmp_path, "copy.png")
    assert [bool(frame.rejection) for frame in named.frames] == [True, False, False, True]
