"""A smooth sky at gain 8 does not show where tiles meet."""

import numpy as np
import pytest
import tifffile

from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.merging import tiles
from klarsicht.numerics.imaging.sensor_noise import GAINS

SIDE = 128


def gradient_ratio(picture):
    """The mean magnitude of the gradient across borders of tiles, over the gradient elsewhere, both ways."""
    across, elsewhere = [], []
    for values in (picture, picture.T):
        step = np.abs(np.diff(values, axis=0))
        borders = np.arange(SIDE - 1, len(step), SIDE)
        across.append(step[borders].ravel())
        elsewhere.append(np.delete(step, borders, 0).ravel())
    return np.concatenate(across).mean() / np.concatenate(elsewhere).mean()


@pytest.mark.nightly
def test_the_gradient_across_borders_of_tiles_is_that_of_the_picture_made_at_once(tmp_path, monkeypatch):
    """Oracle: the picture made in one tile. In float32: bfloat16 rounds otherwise in tiles of another size."""
    y, x = np.mgrid[-1:1:256j, -1:1:384j]
    sky = ((0.25 + 0.12 * y) * (1 - 0.15 * (x**2 + y**2))).astype(np.float32)
    for i in range(8):
        tifffile.imwrite(tmp_path / f"{i}.tif", GAINS[8].sample(sky, np.random.default_rng(i)))
    files, pictures = sorted(tmp_path.glob("*.tif")), []
    noise = f"{GAINS[8].read},{GAINS[8].shot}"
    for side in (SIDE, 1024):
        monkeypatch.setattr(
            tiles, "choose_grid", lambda size, halo, margin, *_, s=side: tiles.Grid(size, (s, s), halo, margin)
        )
        settings = DenoiseSettings(noise=noise, reference="1", threads=1, exact=True)
        with denoise_frames(files, tmp_path / f"{side}.dng", settings) as found:
            pictures.append(found.spool.read_window(0, Window(0, 256, 0, 384))[0])
    in_tiles, whole = pictures
    np.testing.assert_allclose(in_tiles, whole, atol=1e-5)
    assert gradient_ratio(in_tiles) <= 1.02
    assert gradient_ratio(in_tiles) == pytest.approx(gradient_ratio(whole), rel=1e-3)
