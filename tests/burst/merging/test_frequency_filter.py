"""The merge by frequency: a literal rewrite tile by tile, closed forms for frames that differ by one cosine, and the
spectrum of its noise against noise that was drawn."""

from itertools import product

import numpy as np
import pytest
from scipy.fft import dctn, idctn

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.align.tile_grid import Mesh
from klarsicht.burst.data.cokriging import MOSAICS
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.merging.filter_choice import check_names
from klarsicht.burst.merging.frequency_filter import MERGED_STEP, MERGED_TILE, SPATIAL, TEMPORAL, FrequencyFilter
from klarsicht.burst.merging.kernel_maps import sample_kernels
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

NOISE = (NoiseLevel(0.05, 1e-3), NoiseLevel(0.02, 4e-3))


def rewrite(frames, applied, agreement, spectrum):
    """Return the picture and the weights, literally: float64, scipy's transforms, frames padded by their edges."""
    N, C, H, W = frames.shape
    wide, given = (np.pad(x.astype(float), ((0, 0), (0, 0), (16, 32), (16, 32)), "edge") for x in (frames, applied))
    trust = np.pad(agreement.astype(float), ((0, 0), (16, 32), (16, 32)), "edge")
    fade = np.sin(np.pi * (np.arange(MERGED_TILE) + 0.5) / MERGED_TILE) ** 2
    out, shares = np.zeros(given.shape[1:]), np.zeros((N, *given.shape[2:]))
    for top, left in product(range(8, H + 16, MERGED_STEP), range(8, W + 16, MERGED_STEP)):
        here = (slice(top, top + MERGED_TILE), slice(left, left + MERGED_TILE))
        weights = np.zeros((N, C, MERGED_TILE, MERGED_TILE))
        for c in range(C):
            tile = wide[:, c, *here]
            own, moved = (NOISE[c].read ** 2 + NOISE[c].shot * max(tile[0].mean(), 0)) * spectrum[:, c]
            for z in range(1, N):
                D = dctn(tile[0] - tile[z], norm="ortho")
                V = TEMPORAL * (own + moved)
                weights[z, c] = trust[z, *here].mean() * V / (D**2 + V) / N
            weights[0, c] = 1 - weights[1:, c].sum(0)
            T = sum(w * dctn(x, norm="ortho") for w, x in zip(weights[:, c], tile, strict=True))
            U = own * weights[0, c] ** 2 + moved * (weights[1:, c] ** 2).sum(0)
            s = T**2 / (T**2 + SPATIAL * U)
            s[0, 0] = 1
            weights[:, c] *= s
            seen = sum(w * dctn(x, norm="ortho") for w, x in zip(weights[:, c], given[:, c, *here], strict=True))
            out[c, *here] += np.outer(fade, fade) * idctn(seen, norm="ortho")
        shares[:, *here] += np.outer(fade, fade) * weights.mean((1, 2, 3))[:, None, None]
    return out[:, 16 : 16 + H, 16 : 16 + W], shares[:, 16 : 16 + H, 16 : 16 + W]


@pytest.fixture
def frames():
    rng = np.random.default_rng(0)
    light = 0.3 + 0.2 * np.sin(np.arange(45) / 3)[:, None] * np.cos(np.arange(38) / 5)
    return (light + 0.05 * rng.standard_normal((3, 2, 45, 38))).astype(np.float32)


@pytest.mark.parametrize("drawn", [False, True])
def test_it_is_the_literal_one(frames, drawn):
    """Also of noise by the weights of other frames, and where frames agree in part."""
    rng = np.random.default_rng(1)
    agreement = rng.random((3, 45, 38)).astype(np.float32)
    agreement[0], agreement[2, :20] = 1, 0
    denoiser = FrequencyFilter.of(2, None)
    weights = denoiser.compute_weights(frames, NOISE, agreement)
    applied = rng.standard_normal(frames.shape).astype(np.float32) if drawn else frames
    picture, shares = rewrite(frames, applied, agreement, denoiser.spectrum)
    np.testing.assert_allclose(weights(applied if drawn else None), picture, atol=2e-5)
    np.testing.assert_allclose(weights.centre_weights([0, 2]), shares[[0, 2]], atol=2e-5)
    found = sample_kernels(weights, [7, 30], [9, 20])
    parts = (shares / shares.sum(0))[:, [7, 30], [9, 20]].T
    np.testing.assert_allclose(found.kernels[:, :, 0, 0], parts, atol=2e-5)


def test_static_frames_of_one_light_have_equal_shares_and_one_that_does_not_agree_has_none():
    """At a level of noise that shrinks nothing."""
    frames = np.repeat(np.random.default_rng(0).random((1, 2, 40, 48), np.float32), 4, 0)
    agreement = np.ones((4, 40, 48), np.float32)
    agreement[3] = 0
    weights = FrequencyFilter.of(2, None).compute_weights(frames, [NoiseLevel(1e-5, 0.0)] * 2, agreement)
    np.testing.assert_allclose(weights(), frames[0], atol=1e-6)
    np.testing.assert_allclose(weights.share_of_frames[:, 0, 0], [0.5, 0.25, 0.25, 0], atol=1e-6)


@pytest.mark.parametrize("step", [0.01, 0.1, 1.0])
def test_a_brighter_frame_counts_as_noise_explains_it(step):
    """It differs at one frequency, the mean, where D = n step: closed form."""
    frames = np.full((2, 1, 40, 48), 0.4, np.float32)
    frames[1] += np.float32(step)
    level, denoiser = NoiseLevel(0.05, 0.0), FrequencyFilter.of(1, None)
    V = TEMPORAL * level.read**2 * denoiser.spectrum[:, 0, 0, 0].sum()
    merged = denoiser.compute_weights(frames, [level], np.ones((2, 40, 48), np.float32))()
    np.testing.assert_allclose(merged - 0.4, step / 2 * V / ((MERGED_TILE * step) ** 2 + V), rtol=1e-3)


@pytest.mark.parametrize("mosaic", [None, "bayer"])
def test_the_spectrum_is_that_of_drawn_noise_at_fractions_of_a_pixel(mosaic):
    """Differences of white noise, or noise of interpolated colours, and such noise read between pixels."""
    rng, size = np.random.default_rng(0), 256
    interpolated = mosaic and InterpolatedNoise(MOSAICS[mosaic], (2.0, 1.0, 1.5))
    power = np.zeros((3, MERGED_TILE, MERGED_TILE))
    for _ in range(8):
        fine = np.tile(rng.random(2).astype(np.float32), (1, *Mesh(size, size, 64).shape, 1))
        turns = np.zeros((*fine.shape, 2), np.float32)
        placement = Placement(
            fine, np.rint(fine).astype(np.int64), np.ones(fine.shape[:3], bool), np.zeros((1, 2)), turns
        )
        a, b = rng.standard_normal((2, 3, size, size), np.float32)
        if interpolated is not None:
            a, b = interpolated(a), interpolated(b)
        difference = a - placement.interpolate_noise(b, 0, Window(0, size, 0, size))
        tiles = difference[:, 16:-16, 16:-16].reshape(3, 14, MERGED_TILE, 14, MERGED_TILE).swapaxes(2, 3)
        power += np.square(dctn(tiles, axes=(-2, -1), norm="ortho")).mean((1, 2)) / 8
    spectrum = FrequencyFilter.of(3, interpolated or None).spectrum
    bands = [one.reshape(3, 4, 4, 4, 4).mean((2, 4)) for one in (power, spectrum.sum(0))]
    np.testing.assert_allclose(*bands, rtol=0.15, atol=0.02)


def test_fast_and_a_network_exclude_each_other():
    with pytest.raises(UsageError, match=r"--fast.*--checkpoint swift.*without a network"):
        check_names("swift", None, fast=True)
