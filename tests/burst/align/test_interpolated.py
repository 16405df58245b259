"""Alignment of frames interpolated from a mosaic: known motion behind noise, beside the alignment that takes the noise
to be white; and whole-cell shifts to the bit."""

from functools import partial

import numpy as np
import pytest
import torch
from skimage import data

from klarsicht.burst.align.alignment import align
from klarsicht.burst.align.interpolated import align_by_colour_filter
from klarsicht.burst.data.cokriging import MOSAICS, interpolate_mosaic, take_samples
from klarsicht.burst.synthesis.motion import MOTIONS
from klarsicht.burst.synthesis.scenes import Geometry, scenes
from klarsicht.burst.synthesis.synthesis import CAMERA_COLOURS, Recipe, draw_batch, draw_burst
from klarsicht.numerics.imaging.sensor_noise import GAINS

GEOMETRY = Geometry(scale=2, height=160, width=160, reach=6)


def always(level, rng):
    return level


def of_batch(made):
    return [torch.from_numpy(x) for x in (made.frames, made.read, made.shot, made.valid)]


@pytest.mark.parametrize("cell", MOSAICS.values(), ids=MOSAICS)
def test_known_motion_is_found_and_tiles_agree_behind_noise(cell):
    """At gain 4 of the protocol; as if the noise was white, tiles of a still scene are called different."""
    library = scenes([data.astronaut()], CAMERA_COLOURS.light)
    noise = partial(always, GAINS[4])
    recipe = Recipe(kind=CAMERA_COLOURS, geometry=GEOMETRY, motion=MOTIONS["still"], noise=noise, mosaic=cell)
    made = draw_batch(library, recipe, np.random.default_rng(4), 1)
    clean = draw_burst(library, recipe, np.random.default_rng(4)).clean
    found = align_by_colour_filter(*of_batch(made), cell)
    off = np.abs(np.median(found.fine[0].numpy(), (1, 2)) - clean.displacements).max(-1)
    assert (off < 0.5).all()
    assert found.agrees.float().mean() > 0.9
    assert found.apply(torch.from_numpy(made.frames)).shape == made.frames.shape
    as_white = align(*of_batch(made))
    assert as_white.agrees.float().mean() < found.agrees.float().mean() - 0.1


def test_frames_that_moved_by_whole_cells_are_laid_to_the_bit():
    """A sensor that moved by two pixels and by four sees the same samples elsewhere."""
    scene = np.random.default_rng(3).uniform(0.1, 0.9, (140, 140)).astype(np.float32)
    scene = (scene + np.roll(scene, 1, 0) + np.roll(scene, 1, 1)) / 3
    cell = MOSAICS["bayer"]
    rgb = np.stack([scene * g for g in (0.5, 1.0, 0.7)])
    places = [(0, 0), (2, -4), (-4, 2)]
    frames = np.stack(
        [
            interpolate_mosaic(take_samples(rgb[:, 6 + y : 134 + y, 6 + x : 134 + x], cell), cell, (2.0, 1.0, 1 / 0.7))
            for y, x in places
        ]
    )
    given = [
        torch.from_numpy(frames)[None],
        torch.tensor([1e-3]),
        torch.tensor([1e-5]),
        torch.ones(1, 3, dtype=torch.bool),
    ]
    found = align_by_colour_filter(*given, cell)
    shifts = found.shifts[0].numpy()
    assert (shifts == -np.array(places)[:, None, None]).all()
    laid = found.apply_whole_pixels(given[0])[0].numpy()[..., 16:-16, 16:-16]
    np.testing.assert_allclose(laid, np.broadcast_to(laid[:1], laid.shape), atol=1e-6)
    assert found.agrees.all()


def test_other_frames_are_aligned_as_they_are():
    frames = torch.rand(1, 3, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    given = [frames, torch.tensor([0.01]), torch.tensor([0.001]), torch.ones(1, 3, dtype=torch.bool)]
    assert torch.equal(align_by_colour_filter(*given, None).fine, align(*given).fine)
    planes = [frames.expand(1, 3, 4, 64, 64), *given[1:]]
    assert torch.equal(align_by_colour_filter(*planes, "RGGB").fine, align(*planes).fine)
