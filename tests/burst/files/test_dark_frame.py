"""Dark frames: planted offsets and hot pixels are known."""

import numpy as np
import pytest
import tifffile

from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.photograph import AS_WRITTEN
from klarsicht.burst.denoising.hot_pixels import replace_hot_pixels
from klarsicht.burst.files.dark_frame import DarkFrame, deviation_of_difference, sensor_offsets
from klarsicht.burst.files.loading import load_frames
from klarsicht.burst.files.reading import read
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

BLACK, WHITE, READ = 600, 16383, 40.0  # counts
SIZE = (96, 128)
EXPOSED = [(33434, 5, 1, (1, 50), True), (34855, 3, 1, 800, True)]


@pytest.fixture
def planted():
    """Offsets of every row, of half of the pixels, and of three hot ones, in counts."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 60, (SIZE[0], 1)) + np.zeros(SIZE)
    hot = [(10, 20), (51, 33), (80, 101)]
    for place in hot:
        offsets[place] += 3000
    return offsets, hot


def write(dng, folder, offsets, light, count, seed, extra=EXPOSED):
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for i in range(count):
        counts = BLACK + light * (WHITE - BLACK) + offsets + rng.normal(0, READ, SIZE)
        dng(folder / f"{seed}-{i}.dng", np.clip(np.rint(counts), 0, WHITE), extra=extra)
    return folder


def test_offsets_are_subtracted_and_hot_pixels_are_replaced(dng, planted, tmp_path):
    """What is left of the offsets in the mean of many frames is the noise of four dark frames in rows, and of single
    pixels, which have no offset of their own, hardly any."""
    offsets, hot = planted
    dark = write(dng, tmp_path / "dark", offsets, 0.0, 4, 1)
    light = np.full(SIZE, 0.2)
    light[40:60, 40:60] = 1.5
    frames = sorted(write(dng, tmp_path / "frames", offsets, light, 6, 2).iterdir())
    burst = load_frames(frames, tmp_path, "1", dark=[dark])
    noise = [NoiseLevel(READ / (WHITE - BLACK), 0.0)] * 4
    corrected, count = replace_hot_pixels(burst, noise, tmp_path)
    assert count == len(hot) == len(burst.hot)
    window = Window(0, 48, 0, 64)
    mean = np.mean([corrected.spool.read_window(i, window) for i in range(6)], 0)
    truth = to_planes(np.minimum(light, 1), "RGGB")
    assert (mean[truth == 1] == 1).all()
    left = (mean - truth)[truth < 1] * (WHITE - BLACK)
    assert left.std() < 1.1 * READ / 6**0.5
    assert abs(left.mean()) < 2


@pytest.mark.parametrize("sigma", [0.6, 1.5, 2.4, 10.0])
def test_the_noise_of_whole_counts_is_estimated_between_them(sigma):
    """Against the deviation of what was drawn and rounded, without the thousandth that is hot."""
    rng, count = np.random.default_rng(0), 1 / 16000
    frames = np.rint(rng.normal(512, sigma, (2, 300, 400)))
    true = float(np.std(frames)) * count
    frames[1, rng.random((300, 400)) < 1e-3] += 900
    found = deviation_of_difference((frames[0] - frames[1]) * count, count / 12**0.5)
    assert found == pytest.approx(true, rel=0.02)


def test_offsets_of_single_pixels_are_shrunk_as_the_error_is_least():
    """Oracle: the error of any other share is larger."""
    rng, count = np.random.default_rng(3), 4
    truth = rng.normal(0, 0.5, (200, 200))
    mean = truth + rng.normal(0, 1 / count**0.5, truth.shape)
    error = np.square(sensor_offsets(mean, 1.0, count) - truth).mean()
    assert error < min(np.square(share * mean - truth).mean() for share in (0.3, 0.4, 0.6, 0.7, 1.0))
    assert error == pytest.approx(0.125, rel=0.05)


def test_mistakes_are_named(dng, planted, tmp_path):
    dark = write(dng, tmp_path / "dark", planted[0], 0.0, 2, 1)
    frame = read(next(write(dng, tmp_path / "frames", 0, 0.2, 1, 2).iterdir()))
    with pytest.raises(UsageError, match="too few dark frames; got 1"):
        DarkFrame.read([next(dark.iterdir())], tmp_path, AS_WRITTEN)
    with pytest.raises(InputError, match="is not dark"):
        DarkFrame.read([write(dng, tmp_path / "grey", 0, 0.1, 2, 3)], tmp_path, AS_WRITTEN)
    for i in range(2):
        tifffile.imwrite(tmp_path / f"{i}.tif", np.zeros(SIZE, np.uint16))
    with pytest.raises(UsageError, match="is no dark frame; got grey"):
        DarkFrame.read([tmp_path / "0.tif", tmp_path / "1.tif"], tmp_path, AS_WRITTEN)
    longer = [(33434, 5, 1, (1, 10), True), EXPOSED[1]]
    other = DarkFrame.read([write(dng, tmp_path / "long", 0, 0.0, 2, 4, longer)], tmp_path, AS_WRITTEN)
    with pytest.raises(UsageError, match=r"another exposure time; got 0\.1"):
        other.subtract_from(frame.light, frame.header)
