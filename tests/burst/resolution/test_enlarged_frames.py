"""Enlarged frames: against Pillow's Lanczos, and windows against the whole."""

import numpy as np
from PIL import Image

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.resolution.enlarged_frames import EnlargedFrames


def stored(tmp_path):
    light = np.random.default_rng(0).random((2, 3, 30, 46)).astype(np.float32)
    store = FrameStore(tmp_path / "f.f32", light.shape)
    store.allocate()
    for k, one in enumerate(light):
        store.write_frame(k, one)
    return light, EnlargedFrames.of(store)


def test_pillow_enlarges_alike(tmp_path):
    """Away from the border, where Pillow leaves out what lies beyond and we repeat the border."""
    light, frames = stored(tmp_path)
    assert frames.shape == (2, 3, 60, 92)
    found = frames.read_window(1, Window(0, 60, 0, 92))
    for plane, own in zip(light[1], found, strict=True):
        theirs = np.asarray(Image.fromarray(plane).resize((92, 60), Image.Resampling.LANCZOS))
        np.testing.assert_allclose(own[6:-6, 6:-6], theirs[6:-6, 6:-6], atol=1e-6)


def test_a_window_is_cut_from_the_whole(tmp_path):
    _, frames = stored(tmp_path)
    whole = frames.read_window(0, Window(0, 60, 0, 92))
    for window in (Window(7, 24, 3, 40), Window(0, 60, 91, 92), Window(59, 60, 0, 1)):
        np.testing.assert_array_equal(frames.read_window(0, window), whole[:, *window.slices_in(Window(0, 60, 0, 92))])
    beyond = frames.read_window(0, Window(-5, 2, 90, 96))
    np.testing.assert_array_equal(beyond, np.pad(whole[:, :2, 90:], ((0, 0), (5, 0), (0, 4)), mode="edge"))
