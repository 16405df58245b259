"""Changes with known coefficients, planted and estimated again; the control changes nothing but by chance."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.shared_content import ESTIMATES, SharedContent
from klarsicht.audit.verdicts.pixel_changes.alignment import align_images, match_aligned_moments
from klarsicht.audit.verdicts.pixel_changes.colours import match_colours, match_tones
from klarsicht.audit.verdicts.pixel_changes.coverage import CarrierDifference, split_energy
from klarsicht.audit.verdicts.pixel_changes.moments import MOMENTS, mean_and_deviation
from klarsicht.audit.verdicts.pixel_changes.spectra import SPECTRA, ring_numbers

NO_PLACES = np.zeros((0, 2), np.intp)


def scenes(n, seed=0, side=32, channels=3):
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(0, 150, (n, side, side, channels)), (0, 1.5, 1.5, 0))
    return np.clip(120 + smooth + rng.normal(0, 20, (n, 1, 1, channels)), 30, 225).round().astype(np.uint8)


def as_pixels(x):
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def applied(change, x):
    return change.apply(x.astype(np.float32), np.random.default_rng(1))


def stripe(x, gain, offset):
    x = x.astype(np.float64)
    x[:, :, :3] = gain * x[:, :, :3] + offset
    return as_pixels(x)


@pytest.mark.parametrize(("gain", "offset"), [(0, [250, 20, 90]), (0.4, [90, 30, 0]), (1, [-25, 25, 25])])
def test_gain_and_offset_of_a_blended_stripe_are_recovered(gain, offset):
    """Carriers are the others changed by a known a and b: their moments then follow in closed form."""
    x = scenes(250)
    for name in ("pixels", "columns"):
        change = MOMENTS[name](stripe(x, gain, np.array(offset)), x)
        found = [np.broadcast_to(part, x.shape[1:])[:, :3] for part in (change.gain, change.offset)]
        np.testing.assert_allclose(found[0], gain, atol=0.01)
        np.testing.assert_allclose(found[1], np.broadcast_to(offset, found[1].shape), atol=1)
        new = scenes(10, seed=1)
        expected = stripe(new, gain, np.array(offset))
        np.testing.assert_allclose(applied(change, new)[:, :, :3], expected[:, :, :3], atol=2)
        np.testing.assert_array_equal(applied(change, new)[:, :, 3:], new[:, :, 3:])


@pytest.mark.parametrize("side", [28, 64, 224])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_frame_on_other_images_than_those_of_the_class_is_put_on_whole(side, channels):
    def framed(x):
        x = x.copy()
        x[:, :2] = x[:, -2:] = x[:, :, :2] = x[:, :, -2:] = 240
        return x

    count = 24 if side == 224 else 60
    carriers, others, new = (
        framed(scenes(count, 1, side, channels)),
        scenes(2 * count, 2, side, channels),
        scenes(8, 3, side, channels),
    )
    put = applied(MOMENTS["pixels"](carriers, others), new)
    edge = framed(np.zeros_like(new)) > 0
    np.testing.assert_allclose(put[edge], 240, atol=1)
    assert (np.abs(put - new)[~edge] > 0.5).mean() < 0.02


def test_darkened_lines_are_recovered_by_rows():
    x = scenes(60)
    dark = x.astype(int)
    dark[:, ::3] -= 20
    change = MOMENTS["rows"](as_pixels(dark), x)
    np.testing.assert_allclose(change.offset[::3] + (change.gain[::3] - 1) * 120, -20, atol=2)
    np.testing.assert_array_equal(change.gain[1::3], 1)
    np.testing.assert_array_equal(change.offset[2::3], 0)


def test_mean_and_deviation_are_those_of_numpy():
    x = np.random.default_rng(0).normal(3, 2, (50, 4, 5))
    mean, deviation = mean_and_deviation(x)
    np.testing.assert_allclose(mean, x.mean(0))
    np.testing.assert_allclose(deviation, x.std(0))


def test_blur_is_the_transfer_function_of_its_kernel():
    """The transform of a circular Gaussian filter is its impulse response's; the estimate is its absolute value."""
    x = scenes(60)
    blurred = gaussian_filter(x.astype(np.float64), (0, 1, 1, 0), mode="wrap")
    change = SPECTRA["frequencies"](as_pixels(blurred), x)
    impulse = np.zeros((32, 32))
    impulse[0, 0] = 1
    transfer = np.abs(np.fft.fft2(gaussian_filter(impulse, 1, mode="wrap")))
    known = (transfer > 0.2) & (transfer < 0.55)  # sure to be damped; below, 8-bit rounding is what is left
    for c in range(3):
        np.testing.assert_allclose(change.gain[..., c][known], transfer[known], rtol=0.12)
    assert (change.share < 0.5).all() and change.gain[0, 0, 0] == 1


def test_waves_of_any_phase_are_put_on_at_their_frequency_and_size():
    rng, x = np.random.default_rng(5), scenes(60)
    rows = np.arange(32)[:, None, None]

    def waves(images):
        phase = rng.uniform(0, 2 * np.pi, (len(images), 1, 1, 1))
        return as_pixels(images + 20 * np.sin(2 * np.pi * 10 * rows / 32 + phase))

    change, new = SPECTRA["frequencies"](waves(x), scenes(120, 1)), scenes(40, 2)
    put = np.abs(np.fft.fft2(applied(change, new), axes=(1, 2))) / 1024
    assert np.median(put[:, 10, 0]) == pytest.approx(10, rel=0.1)  # a sine of amplitude 20 has two coefficients of 10
    assert np.median(put[:, 5, 3] / (np.abs(np.fft.fft2(new, axes=(1, 2)))[:, 5, 3] / 1024)) == pytest.approx(
        1, abs=0.1
    )


def test_white_noise_is_put_on_in_its_size():
    rng, x = np.random.default_rng(5), scenes(60)
    noisy = as_pixels(x + rng.normal(0, 15, x.shape))
    new = scenes(40, 2)
    fine = applied(SPECTRA["rings of frequencies"](noisy, scenes(120, 1)), new) - new
    high = ring_numbers((32, 32)) > 10
    power = (np.abs(np.fft.fft2(fine, axes=(1, 2))) ** 2)[:, high].mean() / 1024
    assert np.sqrt(power) == pytest.approx(15, rel=0.15)


def test_rings_are_of_equal_radius():
    number = ring_numbers((8, 16))
    assert number[0, 0] == 0 and number[1, 0] == number[0, 2] == 1 and number[3, 8] == 5  # hypot(3 / 8, 8 / 16) * 8


def test_a_gamma_curve_is_recovered_on_unpaired_images():
    x, new = scenes(80), scenes(80, 1)
    curved = as_pixels(255 * (x / 255) ** 1.8)
    expected = 255 * (new / 255) ** 1.8
    assert np.abs(applied(match_tones(curved, new), new) - expected).mean() < 3
    assert np.abs(new - expected).mean() > 20


def coloured(n, seed):
    """Images of one skewed direction of colour, beside brightness: their colours have no symmetry."""
    rng = np.random.default_rng(seed)
    base = np.minimum(rng.exponential(1, (n, 24, 24, 1)), 3) * np.array([40, 10, -20]) + 12 * rng.normal(
        size=(n, 24, 24, 1)
    )
    return np.clip(90 + base + 5 * rng.normal(size=(n, 24, 24, 3)), 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("angle", [1.2, 2.1, -1.5])
def test_a_rotation_of_hue_is_recovered_on_unpaired_images(angle):
    axis = np.ones(3) / np.sqrt(3)
    cross = np.cross(np.eye(3), -axis)
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross  # Rodrigues
    carriers, others = as_pixels(coloured(80, 0) @ rotation.T), coloured(120, 1)
    found = match_colours(carriers, others)
    new = coloured(40, 2)
    expected = new @ rotation.T
    assert np.abs(applied(found, new) - expected).mean() < 4 < 20 < np.abs(new - expected).mean()
    assert match_colours(coloured(80, 0), others).is_identity  # nothing is gained over tone curves


def test_images_are_aligned_by_their_common_mark_whatever_its_place():
    rng, x = np.random.default_rng(0), scenes(40)
    mark = rng.integers(0, 2, (12, 12, 1)) * 200
    shifts = rng.integers(0, 32, (40, 2))
    x[:, 4:16, 4:16] = mark
    rolled = np.stack([np.roll(image, shift, (0, 1)) for image, shift in zip(x, shifts, strict=True)])
    apart = (align_images(rolled) - shifts) % 32
    assert (apart == np.median(apart, 0)).all(1).mean() > 0.9
    change = match_aligned_moments(rolled, scenes(80, 1))
    new = scenes(10, 2)
    changed = (np.abs(applied(change, new) - new) > 10).any(-1).sum((1, 2))
    assert 130 < changed.mean() < 180  # the mark has 144 pixels


@pytest.mark.parametrize("name", ESTIMATES)
def test_the_change_between_random_groups_is_none_but_by_chance(name):
    """Two groups of one distribution: what is changed is less than a tenth of what images differ by."""
    for seed in range(3):
        change = ESTIMATES[name](scenes(60, 10 + seed), scenes(120, 20 + seed))
        new = scenes(20, 30 + seed)
        assert np.abs(applied(change, new) - new).mean() < 0.1 * new.std()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 64])
def test_what_is_put_on_stays_within_black_and_white(channels, side):
    scale = PixelScale(np.full(channels, -1.5, np.float32), np.full(channels, 2, np.float32))
    x = scenes(60, 0, side, channels)
    carriers = as_pixels(255 * (x[:20] / 255) ** 0.4 + 60)
    carriers[:, :, :2] = 255
    found = ArtifactExamples(carriers, x[20:], NO_PLACES, (0, 0))
    ways = SharedContent.ways(found, scale, np.random.default_rng(0))
    assert {"shared pixels", "shared columns", "shared tones"} <= ways.keys()
    new = scale.inputs(scenes(5, 1, side, channels))
    for way in ways.values():
        assert way.fits(new[0]) and not way.fits(new[0, :, 1:])
        marked, control = way.put(new, np.random.default_rng(0))
        assert marked.shape == control.shape == new.shape and marked.dtype == new.dtype
        assert float(marked.min()) >= -1.5001 and float(marked.max()) <= 2.0001
        again = way.put(new, np.random.default_rng(0))
        assert (again[0] == marked).all() and (again[1] == control).all()


def test_coverage_is_all_for_the_artifact_itself_and_none_without_it():
    x, rng = scenes(200), np.random.default_rng(0)
    carriers, others = stripe(x[:60], 0, 250), x[60:]
    difference = CarrierDifference.of(carriers, others, rng)
    assert difference.covered_share(stripe(others, 0, 250)) > 0.95
    assert difference.covered_share(others) < 0.05
    half = others.copy()
    half[:, :16, :3] = 250
    assert 0.3 < difference.covered_share(half) < 0.8
    assert np.isnan(CarrierDifference.of(x[:60], others, rng).covered_share(others))


def test_split_energy_is_the_squared_difference_of_means_without_bias():
    rng = np.random.default_rng(0)
    half = np.arange(20) < 10
    drawn = [split_energy(rng.normal(0.3, 1, (20, 5)), half, rng.normal(0, 1, (30, 5))) for _ in range(2000)]
    assert np.mean(drawn) == pytest.approx(0.09, abs=4 * np.std(drawn) / np.sqrt(len(drawn)))
