"""The truth-free check: bursts that are right, wrong noise levels, detail lost, frames that show other things."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy.ndimage import gaussian_filter
from skimage import data
from tests.burst.conftest import X_TRANS

from klarsicht.burst.denoising import held_out
from klarsicht.burst.denoising.held_out import autocorrelation, check_held_out
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 2e-3)
RIGHT = DenoiseSettings(noise=f"{LEVEL.read},{LEVEL.shot}")
SIZE = (256, 320)
LIKE_DARK = [(33434, 5, 1, (1, 50), True), (34855, 3, 1, 800, True)]  # exposure time and ISO


@pytest.fixture(autouse=True)
def no_weights(monkeypatch):
    """The mean of the frames, whose answers are known, and not the network that comes along."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)


@pytest.fixture(scope="module")
def scene():
    return (data.camera().astype(np.float32) / 255) ** 2.2


def written(scene, folder, moves, seed=0):
    """Float TIFFs of a scene that moved by so much (y, x), in pixels."""
    rng = np.random.default_rng(seed)
    for i, (dy, dx) in enumerate(moves):
        there = scene[60 + dy : 60 + dy + SIZE[0], 90 + dx : 90 + dx + SIZE[1]]
        tifffile.imwrite(folder / f"{i}.tif", LEVEL.sample(there, rng))
    return [folder]


def still(scene, folder, count=5):
    return written(scene, folder, [(0, 0), (2, -3), (-5, 4), (1, 1), (3, 6)][:count])


@pytest.mark.slow
def test_a_burst_that_is_right_differs_by_noise_alone(scene, tmp_path, monkeypatch):
    """Its noise is known: X_j - Y has its variance, and that of the mean of the four others."""
    steps = []
    monkeypatch.setattr(held_out, "track", lambda items, total, label: steps.append((label, total)) or items)
    told, verdict = check_held_out(still(scene, tmp_path), RIGHT, tmp_path / "work")
    assert steps == [("parts of the picture", len(held_out.choose_windows(SIZE)))]  # of which a user sees the count
    assert verdict.passes and verdict.variance == pytest.approx(1, abs=0.03)
    assert all(abs(value) < 0.02 for value in verdict.correlation.values())
    assert verdict.coverage > 0.8 and verdict.untrusted == 0
    assert [variance for _, variance in verdict.by_light] == pytest.approx([1] * held_out.BINS, abs=0.1)
    assert any("as typed" in line for line in told) and "noise as modelled" in "\n".join(verdict.lines)


def test_no_verdict_on_the_noise_rests_on_a_sliver_of_the_picture():
    found = held_out.HeldOutResult("a", 0.9, ((0.2, 0.9),), {(0, 1): 0.0}, 0.03, 0.0)
    assert not found.passes and not held_out.HeldOutResult("a", 1.0, ((0.2, 1.0),), {(0, 1): 0.0}, 0.03, 0.0).passes
    assert "too little of the picture can be judged" in found.conclusion and "--hold-out" in found.conclusion


def test_what_is_not_looked_at_is_put_down_to_its_causes():
    sliver = held_out.HeldOutResult("a", 0.9, ((0.2, 0.9),), {(0, 1): np.nan}, 0.01, 0.0, elsewhere=0.7, at_limit=0.29)
    told = "\n".join(sliver.lines)
    assert "not looked at: 70% is not surely aligned" in told and "29% is too near black or white" in told
    assert "nan" not in told
    enough = held_out.HeldOutResult("a", 0.9, ((0.2, 0.9),), {(0, 1): 0.0}, 0.9, 0.0, elsewhere=0.1)
    assert not any("not looked at" in line for line in enough.lines)


@pytest.mark.filterwarnings("error")
def test_no_pair_of_neighbours_has_no_correlation():
    lone = np.full((1, 5, 5), np.nan, np.float32)
    lone[0, 2, 2] = 1
    assert np.isnan(autocorrelation([lone], (0, 1)))


def test_a_difference_below_the_noise_is_never_put_down_to_detail():
    """Lost detail and frames that lie apart only add to the difference: a tenth of the noise is a level ten times too
    high, correlated or not."""
    for correlation in (0.0, 0.4):
        found = held_out.HeldOutResult("a", 0.1, ((0.2, 0.1),), {(0, 1): correlation}, 0.5, 0.0)
        assert "too high" in found.conclusion and "10 times" in found.conclusion and "detail" not in found.conclusion


def test_a_frame_to_hold_out_that_is_not_there_is_refused_before_frames_are_aligned(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(held_out.hot_pixels, "replace_hot_pixels", None)
    with pytest.raises(UsageError, match="no such frame; got nine"):
        check_held_out(still(scene, tmp_path), RIGHT, tmp_path / "work", "nine")


@pytest.mark.slow
def test_the_network_that_comes_along_is_checked_and_a_wrong_level_is_told(scene, tmp_path):
    """Detail that it loses adds to the difference, hardly correlated, and not in every light; half the noise, typed,
    makes four times of it everywhere."""
    burst, work = still(scene, tmp_path), tmp_path / "work"
    _, verdict = check_held_out(burst, RIGHT.model_copy(update={"checkpoint": "swift"}), work)
    assert 0.9 < verdict.variance < 1.25 and verdict.coverage > 0.5
    assert min(variance for _, variance in verdict.by_light) == pytest.approx(1, abs=0.1)
    assert all(abs(value) < held_out.CORRELATION_TOLERANCE for value in verdict.correlation.values())
    assert "too low" not in verdict.conclusion
    half = DenoiseSettings(noise=f"{LEVEL.read / 2},{LEVEL.shot / 4}", checkpoint="swift")
    _, verdict = check_held_out(burst, half, work)
    assert verdict.variance > 3.6 and "too low" in verdict.conclusion


@pytest.mark.slow
@pytest.mark.parametrize(("factor", "word"), [(0.5, "low"), (2.0, "high")])
def test_a_wrong_noise_level_is_told_and_how_wrong(scene, tmp_path, factor, word):
    settings = DenoiseSettings(noise=f"{LEVEL.read * factor},{LEVEL.shot * factor**2}")
    _, verdict = check_held_out(still(scene, tmp_path), settings, tmp_path / "work")
    assert not verdict.passes and f"too {word}" in verdict.conclusion
    assert verdict.variance == pytest.approx(1 / factor**2, rel=0.05)


@pytest.mark.slow
def test_a_filter_that_loses_detail_is_told(scene, tmp_path, monkeypatch):
    @dataclass(frozen=True)
    class Blur:
        frames: int = 8
        halo: int = 8
        name: str = "a blur"

        def compute_weights(self, frames, noise, agreement):
            return lambda others=frames: gaussian_filter(others.mean(0), (0, 1.0, 1.0)).astype(np.float32)

    monkeypatch.setattr(held_out, "select_filter", lambda *_: Blur())
    _, verdict = check_held_out(still(scene, tmp_path), RIGHT, tmp_path / "work")
    assert (
        verdict.untrusted > 0.4 and f"the {verdict.untrusted:.0%} where the burst is not trusted" in verdict.conclusion
    )


@pytest.mark.slow
def test_what_moved_is_not_held_against_the_filter(scene, tmp_path):
    folder = still(scene, tmp_path)
    for i in range(5):
        light = tifffile.imread(tmp_path / f"{i}.tif")
        light[100:150, 60 + 30 * i : 110 + 30 * i] += 0.3
        tifffile.imwrite(tmp_path / f"{i}.tif", light)
    _, verdict = check_held_out(folder, RIGHT, tmp_path / "work")
    assert verdict.passes and 0.3 < verdict.coverage < 0.9
    left_out = (verdict.elsewhere, verdict.unlike, verdict.untrusted, verdict.at_limit)
    assert verdict.coverage + sum(left_out) == pytest.approx(1, abs=1e-6)  # each pixel has one cause, or is used


def test_noise_cut_off_at_black_has_the_variance_of_simulated_pixels():
    light = np.array([0.0, 0.01, 0.03, 0.1], np.float32)
    rng = np.random.default_rng(8)
    pixels = np.maximum(light + LEVEL.deviation(light) * rng.standard_normal((400_000, 4)), 0)
    found = held_out.cut_off_noise(pixels.mean(0).astype(np.float32)[None], LEVEL, 0.0)
    np.testing.assert_allclose(found.light[0], light, atol=4e-4)
    np.testing.assert_allclose(found.variance[0], pixels.var(0), rtol=0.02)
    assert held_out.cut_off_noise(light[None], LEVEL, -np.inf).variance[0] == pytest.approx(LEVEL.variance(light))


def made_residuals(of):
    """Residuals of a smooth random picture, whose left third is flat: noise of variance 1, and beside it a function of
    slopes and curvature."""
    rng = np.random.default_rng(9)
    picture = 20 * gaussian_filter(rng.standard_normal((1, 256, 256)), (0, 2, 2))
    picture *= np.clip(np.linspace(-0.5, 1, 256), 0, 1)
    slopes = np.stack(np.gradient(picture, axis=(1, 2)))
    curvature = gaussian_filter(picture, (0, 1, 1)) - picture
    r = rng.standard_normal(picture.shape) + of(slopes, curvature)
    nowhere = np.zeros((256, 256), bool)
    return held_out.Residuals(r.astype(np.float32), picture.astype(np.float32), nowhere, slopes.astype(np.float32))


def drawn(like):
    return np.random.default_rng(1).standard_normal(like.shape)


CAUSES = {
    "do not lie on one another": lambda slopes, curvature: 1.5 * slopes[0] - 1.5 * slopes[1],
    "detail was lost": lambda slopes, curvature: 6 * curvature,
    "level is too low": lambda slopes, curvature: drawn(curvature),
    "is coloured": lambda slopes, curvature: gaussian_filter(2 * drawn(curvature), (0, 1, 1)),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_difference_that_is_not_noise_is_put_down_to_one_cause(cause):
    found = held_out.summarise_residuals("a", [made_residuals(CAUSES[cause])])
    assert not found.passes
    assert [other for other in CAUSES if other in found.conclusion] == [cause]


def test_correlation_is_that_of_an_autoregressive_noise():
    """x_t = a x_{t-1} + e: a at lag 1, a^2 at lag 2 along rows, none across them; gaps do not count."""
    rng, a = np.random.default_rng(1), 0.6
    x = np.zeros((1, 200, 600))
    for t in range(1, 600):
        x[..., t] = a * x[..., t - 1] + rng.standard_normal((1, 200))
    x[rng.random(x.shape) < 0.2] = np.nan
    got = [autocorrelation([x[..., 50:300], x[..., 300:]], lag) for lag in ((0, 1), (0, 2), (1, 0))]
    assert got == pytest.approx([a, a**2, 0], abs=0.02)


@pytest.mark.slow
def test_what_cannot_be_checked_is_refused(scene, tmp_path):
    folder = still(scene, tmp_path, 3)
    with pytest.raises(InputError, match=r"too few frames; got 2.*Give three"):
        check_held_out([tmp_path / "0.tif", tmp_path / "1.tif"], RIGHT, tmp_path / "work")
    (tmp_path / "copies").mkdir()
    copies = [shutil.copy(tmp_path / "0.tif", tmp_path / "copies" / f"{name}.tif") for name in "abc"]
    with pytest.raises(InputError, match=r"too few frames; got 1; b\.tif is a copy of a\.tif; c\.tif is a copy"):
        check_held_out([Path(file) for file in copies], RIGHT, tmp_path / "of copies")
    settings = RIGHT.model_copy(update={"reference": "1.tif"})
    with pytest.raises(InputError, match=r"frame to hold out is the reference; got 1\.tif"):
        check_held_out(folder, settings, tmp_path / "work", "1.tif")
    with pytest.raises(UsageError, match=r"no such frame; got 9\.tif.*1 to 3.*--hold-out"):
        check_held_out(folder, settings, tmp_path / "work", "9.tif")
    lines, verdict = check_held_out(folder, settings, tmp_path / "work", "3")  # by number, from 1
    assert verdict.held_out == "2.tif" and lines[0].startswith("reference: 1.tif")


def behind_mosaic(dng, folder, cell, offsets=0.0, least=0.0, extra=()):
    """Raw frames of a smooth photograph, whose colours interpolation keeps, of a shaken camera."""
    side = {36: 6, 4: 2}[len(cell)]
    letters = np.array(["RGB".index(letter) for letter in cell]).reshape(side, side)
    light = gaussian_filter((data.astronaut() / 255.0) ** 2.2 * 0.8, (2, 2, 0)).astype(np.float32) + np.float32(least)
    y, x = np.mgrid[:192, :208]
    for i, (dy, dx) in enumerate([(0, 0), (2, -3), (-5, 4), (1, 1)]):
        mosaic = light[y + 60 + dy, x + 130 + dx, letters[y % side, x % side]]
        noisy = LEVEL.sample(mosaic, np.random.default_rng(i)) + offsets
        dng(folder / f"{i}.dng", np.clip(np.rint(noisy * 15783 + 600), 0, 16383), cell, profile=None, extra=extra)
    return sorted(folder.glob("*.dng"))


@pytest.mark.parametrize("cell", [X_TRANS, "GRBG"])
def test_interpolated_colours_are_checked_at_the_samples(dng, tmp_path, cell):
    """Their noise is known: the difference has its variance where it was measured, and is white there, while
    interpolated noise is not."""
    files = behind_mosaic(dng, tmp_path, cell)
    told, verdict = check_held_out(files, RIGHT.model_copy(update={"bayer": "rgb", "threads": 1}), tmp_path / "work")
    assert any("variance times" in line for line in told)
    assert verdict.passes and verdict.variance == pytest.approx(1, abs=0.05) and verdict.coverage > 0.8
    assert all(abs(value) < 0.04 for value in verdict.correlation.values())


@pytest.mark.slow
def test_a_frame_that_shows_something_else_is_not_held_out(scene, tmp_path):
    """It is the least sharp one; held out, it would agree with the others nowhere."""
    still(scene, tmp_path)
    other = gaussian_filter(scene[::-1, ::-1], 3)[100 : 100 + SIZE[0], 60 : 60 + SIZE[1]]
    other *= scene[60 : 60 + SIZE[0], 90 : 90 + SIZE[1]].mean() / other.mean()
    tifffile.imwrite(tmp_path / "5.tif", LEVEL.sample(other, np.random.default_rng(9)))
    _, verdict = check_held_out([tmp_path], RIGHT, tmp_path / "work")
    assert verdict.held_out != "5.tif" and verdict.passes


def test_dark_frames_serve_the_check_as_they_serve_the_result(dng, tmp_path):
    """Two of five columns have an offset of four deviations of the read noise, and a pixel in two hundred is hot."""
    for name in ("frames", "dark"):
        (tmp_path / name).mkdir()
    rng = np.random.default_rng(3)
    offsets = rng.choice([0, 4 * LEVEL.read], 208, p=[0.6, 0.4]) + 0.5 * (rng.random((192, 208)) < 0.005)
    files = behind_mosaic(dng, tmp_path / "frames", "GRBG", offsets, 0.1, LIKE_DARK)
    for i in range(16):
        noisy = offsets + LEVEL.read * rng.standard_normal(offsets.shape)
        dng(
            tmp_path / "dark" / f"{i}.dng",
            np.clip(np.rint(noisy * 15783 + 600), 0, 16383),
            "GRBG",
            profile=None,
            extra=LIKE_DARK,
        )
    settings = RIGHT.model_copy(update={"bayer": "planes", "threads": 1})
    with pytest.raises(InputError, match="agrees with the others nowhere"):
        check_held_out(files, settings, tmp_path / "without")
    dark = settings.model_copy(update={"dark": (str(tmp_path / "dark"),)})
    verdict = check_held_out(files, dark, tmp_path / "with")[1]
    assert verdict.coverage > 0.3 and verdict.variance == pytest.approx(1, abs=0.1)
