"""Measures of kernels: weight times pixel is the picture, closed forms of plain kernels, the change by a slow loop."""

import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter
from scipy.stats import chi2
from tests.burst.merging.test_kernel_maps import weights

from klarsicht.bridge.kernel_measures import (
    MEASURES,
    PixelAttribution,
    attribute_pixels,
    compare_with_reference,
    cut_windows,
    find_repeated_borders,
    measure_attribution,
)
from klarsicht.burst.align.tile_grid import Mesh, warp
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

SIZE = (48, 64)
Y, X = [0, 9, 30, 47, 21], [0, 63, 50, 20, 7]
READ = [NoiseLevel(0.1, 0.0)]


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).random((3, 2, *SIZE), np.float32)


@pytest.fixture(scope="module")
def agreement():
    return np.concatenate([np.ones((1, *SIZE), np.float32), np.random.default_rng(1).random((2, *SIZE), np.float32)])


def measured(kernels, pixels=None, noise=READ):
    """Measures by name of one pixel's kernels (n, K, K) on pixels (n, C, K, K)."""
    kernels = np.asarray(kernels, np.float32)[None]
    pixels = np.zeros((len(kernels[0]), 1, *kernels.shape[2:])) if pixels is None else pixels
    everywhere = np.ones(kernels.shape, bool)
    row = measure_attribution(PixelAttribution(kernels, np.asarray(pixels, np.float32)[None], everywhere), noise)[0]
    return dict(zip(MEASURES, row, strict=True))


@pytest.mark.parametrize("preset", ["swift", "mkpn"])
def test_weight_times_pixel_of_the_frames_alone_is_the_picture(preset, frames, agreement, plain_kernels):
    """Swift's mean frame is resolved into the frames, so that no other pixel counts; borders included."""
    weighing = weights(preset, frames, agreement)
    found = attribute_pixels(weighing, Y, X, np.zeros((len(frames), *SIZE), bool))
    assert found.weights.shape[1] == len(frames)
    np.testing.assert_allclose(found.output, weighing(frames)[:, Y, X].T, rtol=2e-5, atol=2e-6)


def test_a_point_a_box_and_a_line_have_closed_forms():
    n, K = 4, 5
    point, box = np.zeros((n, K, K)), np.full((n, K, K), 1 / n / K**2)
    point[0, 2, 2] = 1
    alone, even = measured(point), measured(box)
    assert (alone["reference share"], alone["reach"], alone["elongation"], alone["entropy"]) == (1, 0, 0, 0)
    assert alone["evenness"] == pytest.approx(1 / n) and even["evenness"] == pytest.approx(1)
    assert even["entropy"] == pytest.approx(np.log(n * K**2))
    assert even["reach"] == pytest.approx(2) and even["elongation"] == pytest.approx(0, abs=1e-6)  # 2 + 2 = dy^2 + dx^2
    for axis, angle in ((1, 0), (0, np.pi / 2)):
        line = np.zeros((n, K, K))
        line[(slice(None), 2) if axis == 1 else (slice(None), slice(None), 2)] = 1
        found = measured(line)
        assert found["elongation"] == pytest.approx(1) and found["orientation"] == pytest.approx(angle)
    diagonal = np.tile(np.eye(K), (n, 1, 1))
    assert measured(diagonal)["orientation"] == pytest.approx(np.pi / 4)


def test_negative_weights_and_their_sum():
    kernels = np.zeros((2, 3, 3))
    kernels[0, 1, 1], kernels[1, 1, 2], kernels[1, 0, 1] = 1.5, -0.25, -0.25
    found = measured(kernels)
    assert found["sum"] == pytest.approx(1)
    assert found["negative share"] == pytest.approx(0.25)
    assert found["offset"] == pytest.approx(np.hypot(0.5, 0.5))


def test_change_is_what_a_slow_loop_finds():
    """The output less that of copies of the reference, over its deviation, of all channels."""
    rng = np.random.default_rng(3)
    w, X = rng.normal(0, 0.1, (3, 5, 5)), rng.random((3, 2, 5, 5))
    noise = [NoiseLevel(0.1, 0.02), NoiseLevel(0.2, 0.01)]
    total = 0.0
    for c in range(2):
        out = sum(float((w[i] * X[i, c]).sum()) for i in range(3))
        copies = sum(float((w[i] * X[0, c]).sum()) for i in range(3))
        variance = noise[c].read ** 2 + noise[c].shot * max(out, 0)
        factor = 0.0
        for a in range(5):
            for b in range(5):
                factor += w[1, a, b] ** 2 + w[2, a, b] ** 2 + (w[1, a, b] + w[2, a, b]) ** 2
        total += (out - copies) ** 2 / (factor * variance) / 2
    assert measured(w, X, noise)["change"] == pytest.approx(np.sqrt(total), rel=1e-5)


def test_frames_of_a_still_scene_change_and_disagree_by_their_noise_alone():
    rng = np.random.default_rng(4)
    w = rng.random((1, 4, 5, 5)).repeat(2000, 0) / 100
    X = 0.5 + 0.1 * rng.standard_normal((2000, 4, 1, 5, 5))
    rows = measure_attribution(
        PixelAttribution(w.astype(np.float32), X.astype(np.float32), np.ones(w.shape, bool)), READ
    )
    for name in ("change", "disagreement"):
        assert np.sqrt(np.square(rows[:, MEASURES.index(name)]).mean()) == pytest.approx(1, abs=0.06)
    X[:, 2] += 0.8  # an object that one frame shows
    moved = measure_attribution(
        PixelAttribution(w.astype(np.float32), X.astype(np.float32), np.ones(w.shape, bool)), READ
    )
    assert np.median(moved[:, MEASURES.index("change")]) > 5


def test_copied_light_is_the_change_by_what_differs_alone():
    """A slow loop over the pixels that are marked; none marked copy nothing."""
    rng = np.random.default_rng(5)
    w, X, differs = rng.normal(0, 0.1, (3, 5, 5)), rng.random((3, 2, 5, 5)), rng.random((3, 5, 5)) < 0.3
    noise, total = [NoiseLevel(0.1, 0.0), NoiseLevel(0.2, 0.0)], 0.0
    for c in range(2):
        copied = 0.0
        for i in (1, 2):
            for a, b in zip(*np.nonzero(differs[i]), strict=True):
                copied += w[i, a, b] * (X[i, c, a, b] - X[0, c, a, b])
        total += (copied / noise[c].read) ** 2 / 2
    one = [part[None].astype(np.float32) for part in (w, X)]
    for marks, wanted in ((differs, np.sqrt(total)), (np.zeros_like(differs), 0)):
        found = measure_attribution(PixelAttribution(*one, marks[None]), noise)[0, MEASURES.index("copied light")]
        assert found == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_frames_of_a_still_scene_differ_as_seldom_as_chi_squared_says(channels):
    """The mean difference of nine pixels has variance 2 sigma^2 / 9; over C channels its squares add to chi squared."""
    rng = np.random.default_rng(6)
    frames = (0.5 + 0.1 * rng.standard_normal((4, channels, 300, 300))).astype(np.float32)
    marks = compare_with_reference(frames, np.full((channels, 300, 300), 0.5, np.float32), READ * channels)
    assert not marks[0].any()
    assert marks[1:].mean() == pytest.approx(chi2.sf(9 * channels, channels), rel=0.3, abs=1e-4)
    frames[2, :, 100:140, 100:140] += 0.3
    found = compare_with_reference(frames, np.full((channels, 300, 300), 0.5, np.float32), READ * channels)
    assert found[2, 101:139, 101:139].mean() > 0.99


def test_a_slope_may_be_shifted_by_three_times_the_allowed_shift():
    slope = np.broadcast_to(np.arange(40, dtype=np.float32), (1, 30, 40))
    for shift, differs in ((0.4, False), (0.5, True)):  # 0.15 pixels times three deviations are 0.45
        marks = compare_with_reference(np.stack([slope, slope + shift]), slope, [NoiseLevel(1e-6, 0.0)])
        assert (marks[1, 2:-2, 2:-2] == differs).all()


def test_windows_hold_what_lies_around_their_pixel_and_nothing_outside():
    planes = np.arange(2 * 4 * 6, dtype=np.float32).reshape(2, 4, 6)
    found = cut_windows(planes, [0, 2], [0, 3], 1)
    np.testing.assert_array_equal(found[1], planes[:, 1:4, 2:5])
    assert not found[0, :, 0].any() and not found[0, :, :, 0].any()
    np.testing.assert_array_equal(found[0, :, 1:, 1:], planes[:, :2, :2])


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -5), (-2, 4), (7, 0), (0, -1)])
def test_pixels_beyond_the_border_of_an_aligned_frame_are_those_that_repeat_it(down, right):
    """Oracle: geometry. An aligned frame shows at p what it shows at p + shift; the last pixel that it has begins the
    run of those that repeat it."""
    size = (48, 64)
    frames = torch.from_numpy(np.random.default_rng(2).random((1, 1, 3, *size), np.float32))
    mesh = Mesh(*size, 16)
    shifts = torch.tensor([down, right]).expand(1, 1, *mesh.shape, 2)
    y, x = np.arange(size[0])[:, None] + down, np.arange(size[1]) + right
    beyond = (y < 0) | (y >= size[0]) | (x < 0) | (x >= size[1])
    first = maximum_filter(beyond, footprint=[[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    repeated = find_repeated_borders(warp(frames, shifts, mesh)[0].numpy())[0]
    assert repeated[beyond].all() and not repeated[~first].any()
