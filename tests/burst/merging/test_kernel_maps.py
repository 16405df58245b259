"""Kernels as they explain: weight times pixel adds up to the picture, the noise that is left is that of the mean of so
many pixels, and closed forms of plain kernels."""

import numpy as np
import pytest
import torch
from tests.marks import slow

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.merging import kernel_maps
from klarsicht.burst.merging.filters import MeanFilter, NetworkFilter, prepare_frames
from klarsicht.burst.merging.kernel_maps import (
    KernelGrid,
    KernelSamples,
    MapWriter,
    expand_kernels,
    interpolate_taps,
    sample_kernels,
)
from klarsicht.burst.merging.tiles import Grid
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

LEVEL = NoiseLevel(0.01, 1e-3)
SIZE = (64, 96)
Y, X = [0, 9, 30, 63, 41], [0, 95, 50, 20, 77]


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).random((3, 1, *SIZE), np.float32)


@pytest.fixture(scope="module")
def agreement():
    return np.concatenate([np.ones((1, *SIZE), np.float32), np.random.default_rng(1).random((2, *SIZE), np.float32)])


def weights(preset, frames, agreement, room=4):
    net = build_network(NetworkSettings(preset=preset, width=0.25, frames=room), seed=1).eval()
    with torch.no_grad():  # kernels that differ from pixel to pixel
        for parameter in net.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return NetworkFilter(net).compute_weights(frames, [LEVEL], agreement)


@pytest.mark.parametrize("preset", ["swift", "mkpn", slow("kpn"), slow("kpn-separable")])
def test_weight_times_pixel_adds_up_to_the_picture(preset, frames, agreement):
    """For three frames of four: the missing one has no part in it."""
    weighing = weights(preset, frames, agreement)
    picture, found = weighing(frames), sample_kernels(weighing, Y, X)
    R = found.kernels.shape[-1] // 2
    multiplied = prepare_frames(weighing.network, frames, agreement)[0, :, 0].numpy()  # swift's mean is the last
    wide = np.pad(multiplied, ((0, 0), (R, R), (R, R)))
    seen = [wide[:, y : y + 2 * R + 1, x : x + 2 * R + 1] for y, x in zip(Y, X, strict=True)]
    sums = [(k * pixels).sum() for k, pixels in zip(found.kernels, seen, strict=True)]
    np.testing.assert_allclose(sums, picture[0, Y, X], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.shares.sum(1), 1, rtol=1e-5)
    np.testing.assert_allclose(found.sizes.sum(1), 1, rtol=1e-4)


@pytest.mark.parametrize("preset", ["swift", "mkpn"])
def test_so_many_pixels_were_averaged_as_the_noise_says(preset, frames, agreement):
    """White noise through the same weights has variance (sum w)^2 / averaged; the mean frame is noise of the others."""
    # the mean frame's pixels have their own agreement each: an even one keeps that law exact
    weighing = weights(preset, frames, np.ones_like(agreement) if preset == "swift" else agreement)
    inner = [(y, x) for y, x in zip(Y, X, strict=True) if 8 <= y < SIZE[0] - 8 and 8 <= x < SIZE[1] - 8]
    y, x = zip(*inner, strict=True)
    found, rng = sample_kernels(weighing, y, x), np.random.default_rng(2)
    left = np.array([weighing(rng.standard_normal(frames.shape).astype(np.float32))[0, y, x] for _ in range(300)])
    wanted = found.kernels.sum((1, 2, 3)) ** 2 / found.effective_pixels
    np.testing.assert_allclose(left.var(0), wanted, rtol=0.35)
    assert np.mean(left.var(0) / wanted) == pytest.approx(1, abs=0.15)


def test_plain_kernels_have_closed_forms():
    N, K = 4, 5
    delta, box = np.zeros((1, N, K, K), np.float32), np.zeros((1, N, K, K), np.float32)
    delta[:, 0, 2, 2] = 1
    box[:, :, 1:4, 1:4] = 1 / 9 / N
    nothing = np.zeros((0, 0), np.float32)
    one, many = (KernelSamples(k, np.ones((1, 1), np.float32), nothing) for k in (delta, box))
    assert (one.effective_pixels[0], one.reach[0]) == (1, 0)
    np.testing.assert_array_equal(one.shares, [[1, 0, 0, 0]])
    assert many.effective_pixels[0] == pytest.approx(9 * N)
    assert many.reach[0] == pytest.approx(np.sqrt(4 / 3))  # mean of dy^2 + dx^2 over -1, 0, 1
    np.testing.assert_allclose(many.shares, np.full((1, N), 1 / N))


def test_the_mean_frame_is_handed_back():
    """A delta on the mean of two frames, three to one, is those two frames, three to one: (3 + 1)^2 / (9 + 1)."""
    kernels = np.zeros((1, 3, 3, 3), np.float32)
    kernels[0, 2, 1, 1] = 1
    found = KernelSamples(kernels, np.ones((1, 1), np.float32), np.array([[0.75, 0.25]], np.float32))
    np.testing.assert_allclose(found.shares, [[0.75, 0.25]])
    assert found.effective_pixels[0] == pytest.approx(1.6)


def test_the_mean_of_frames_explains_itself(frames, agreement):
    found = sample_kernels(MeanFilter().compute_weights(frames, [LEVEL], agreement), Y, X)
    wanted = agreement[:, Y, X] / agreement[:, Y, X].sum(0)
    np.testing.assert_allclose(found.shares, wanted.T, rtol=1e-6)
    np.testing.assert_allclose(found.effective_pixels, 1 / np.square(wanted).sum(0), rtol=1e-5)
    assert not found.reach.any()


def test_taps_between_taps_are_torch_s_bilinear():
    taps = torch.rand(6, 16, 24, generator=torch.Generator().manual_seed(1))
    whole = torch.nn.functional.interpolate(taps[None], scale_factor=2.0, mode="bilinear", align_corners=False)[0]
    y, x = torch.tensor([0, 31, 5, 12]), torch.tensor([47, 0, 6, 33])
    torch.testing.assert_close(interpolate_taps(taps, y, x, 2), whole[:, y, x].T)


def test_sizes_lie_centred_in_the_largest():
    spec = KernelSpec((1, 3), upscale=1)
    taps = torch.arange(1.0, 9.0)[None]  # columns of 1 and 3, rows of 1 and 3
    got = expand_kernels(taps, spec)[0, :, 0]
    small = torch.zeros(3, 3)
    small[1, 1] = 1 * 5
    torch.testing.assert_close(got[0], small / 2)
    torch.testing.assert_close(got[1], torch.outer(torch.tensor([2.0, 3, 4]), torch.tensor([6.0, 7, 8])) / 2)


def test_maps_of_tiles_are_that_of_the_whole(frames, agreement, tmp_path):
    weighing = weights("mkpn", frames, agreement)
    maps = FrameStore(tmp_path / "maps.f32", (1, 3 + 2 + 5, 8, 12))
    maps.allocate()
    whole = Grid(SIZE, (128, 128), 0)
    MapWriter(maps)(next(iter(whole)), weighing)
    got = maps.read_window(0, Window(0, 8, 0, 12))
    found = sample_kernels(weighing, [y for y in range(0, 64, 8) for _ in range(0, 96, 8)], list(range(0, 96, 8)) * 8)
    rows = [*found.shares.T, found.effective_pixels, found.reach, *found.sizes.T]
    np.testing.assert_allclose(got.reshape(10, -1), rows, rtol=1e-5)


def test_the_grid_covers_the_picture_and_every_point_is_told_once(frames, agreement):
    grid, weighing = KernelGrid(SIZE, count=20), MeanFilter().compute_weights(frames, [LEVEL], agreement)
    points = [p for tile in Grid(SIZE, (32, 32), 0) for p in grid(tile, _part(weighing, tile)).get("kernels", ())]
    assert sorted((p["y"], p["x"]) for p in points) == sorted(grid.points)
    assert len(points) == pytest.approx(20, abs=6)
    for p in points:
        wanted = agreement[:, p["y"], p["x"]] / agreement[:, p["y"], p["x"]].sum()
        np.testing.assert_allclose(np.ravel(p["k"]), wanted, atol=1e-4)


def _part(weighing, tile):
    w = tile.context
    here = (slice(w.y0, w.y1), slice(w.x0, w.x1))
    return kernel_maps.MeanWeights(weighing.share[:, *here], weighing.frames[:, :, *here])
