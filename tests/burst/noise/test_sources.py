"""Sources of a burst's noise in their order, and the content of a saved calibration."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from skimage import data
from tests.burst.conftest import X_TRANS

from klarsicht.burst.align import tiled
from klarsicht.burst.align.camera_motion import CameraMotion
from klarsicht.burst.data.photograph import ReadSettings
from klarsicht.burst.files.loading import load_frames
from klarsicht.burst.noise import estimation, sources
from klarsicht.burst.noise.calibration import calibrate
from klarsicht.cli.app import run
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.01, 1e-3)
ISO = [(34855, 3, 1, 800, True)]


@pytest.fixture(autouse=True)
def settings_of_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def ramp(seed):
    light = np.broadcast_to(np.linspace(0, 0.9, 256, dtype=np.float32), (256, 256))
    return np.clip(np.rint(LEVEL.sample(light, np.random.default_rng(seed)) * 15783 + 600), 0, 16383)


def wound(dng, folder, count=3, **made):
    folder.mkdir(exist_ok=True)
    files = [dng(folder / f"{i}.dng", ramp(i), **made) for i in range(count)]
    (folder / "work").mkdir(exist_ok=True)
    return load_frames(files, folder / "work")


def test_typed_then_profile_then_calibration_then_the_frames(dng, tmp_path, monkeypatch):
    file = tmp_path / "noise.json"
    sources.write_calibration(file, "Example One", 800, NoiseLevel(0.03, 3e-3), 4)
    profiled = wound(dng, tmp_path / "a", profile=(2e-3, 4e-4), extra=ISO)
    bare = wound(dng, tmp_path / "b", profile=None, extra=ISO)
    typed = sources.find_noise(profiled, "0.05,0.006", file)
    assert typed.mean == NoiseLevel(0.05, 0.006) and typed.source == "as typed"
    found = sources.find_noise(profiled, None, file)
    assert found.mean.profile == pytest.approx((2e-3, 4e-4)) and "NoiseProfile" in found.summary
    found = sources.find_noise(bare, None, file)
    assert found.mean.profile == pytest.approx((3e-3, 9e-4)) and "ISO 800" in found.summary
    steps = []
    monkeypatch.setattr(estimation, "track", lambda items, total, label: steps.append((label, total)) or items)
    found = sources.find_noise(bare)
    assert steps == [("noise of the frames", len(sources.sample_windows(bare.spool.size)))]
    light = np.linspace(0.05, 0.9, 20)
    np.testing.assert_allclose(found.mean.variance(light), LEVEL.variance(light), rtol=0.1)
    assert "estimated from the frames" in found.summary


def test_read_noise_of_8_bit_files_is_no_less_than_their_rounding_at_black(tmp_path):
    """sRGB is linear near black (IEC 61966-2-1: code / 12.92), so light rounded to a code is uniform over one step of
    1 / 255 / 12.92. No dark part is flat here, and without a floor a black pixel would have no noise at all."""
    light = np.random.default_rng(0).uniform(0, 9 / 255 / 12.92, 100_000)  # codes 0 to 9
    error = np.rint(light * 12.92 * 255) / 255 / 12.92 - light
    for i in range(3):
        bright = np.random.default_rng(i).normal(150, 6, (64, 64, 3)).clip(90, 255)
        bright[::2, ::7] = 0
        Image.fromarray(bright.astype(np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "work").mkdir()
    burst = load_frames(sorted(tmp_path.glob("*.png")), tmp_path / "work")
    assert burst.header.quantisation == pytest.approx(error.std(), rel=0.03)  # the curve's line is 1.6 % less steep
    assert sources.find_noise(burst).mean.read >= 0.97 * error.std()


def test_levels_of_an_x_trans_sensor_are_those_of_its_samples_times_their_density(dng, tmp_path):
    """36 pixels for 20 samples of green; the estimate is of samples, though what it sees was interpolated."""
    burst = wound(dng, tmp_path / "a", pattern=X_TRANS, profile=None)
    assert sources.find_noise(burst, "0.05,0.006").mean.profile == pytest.approx((1.8 * 0.006, 1.8 * 0.05**2))
    light = np.linspace(0.05, 0.9, 20)
    np.testing.assert_allclose(
        sources.estimate_from_frames(burst).noise.variance(light), LEVEL.variance(light), rtol=0.15
    )
    np.testing.assert_allclose(sources.find_noise(burst).mean.variance(light), 1.8 * LEVEL.variance(light), rtol=0.15)


@pytest.mark.parametrize(
    ("made", "entry", "typed", "told"),
    [
        (
            {"extra": ISO},
            ("Example One", 100),
            None,
            "it has no entry for Example One, ISO 800: give --noise READ,SHOT",
        ),
        ({}, ("Example One", 800), None, "the frames name no ISO: give --noise READ,SHOT"),
        ({"extra": ISO}, ("Example One", 800), "0.05,0.006", "--noise is given: leave one of them out"),
        ({"extra": ISO, "profile": (2e-3, 4e-4)}, ("Example One", 800), None, "the file states its noise itself"),
    ],
)
def test_a_calibration_that_has_no_part_is_said(dng, tmp_path, made, entry, typed, told):
    file = tmp_path / "noise.json"
    sources.write_calibration(file, *entry, LEVEL, 4)
    loaded = wound(dng, tmp_path / "a", **({"profile": None} | made))
    found = sources.find_noise(loaded, typed, file)
    assert f"noise.json was not used, as {told}" in found.summary
    assert "was not used" not in sources.find_noise(loaded, typed).summary


def test_frames_without_a_camera_take_the_only_entry_of_a_calibration(tmp_path):
    file = tmp_path / "noise.json"
    sources.write_calibration(file, "Example One", 800, LEVEL, 4)
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{i}.tif" for i in range(2)]
    for one in files:
        tifffile.imwrite(one, LEVEL.sample(np.full((128, 128), 0.3, np.float32), rng))
    (tmp_path / "work").mkdir()
    burst = load_frames(files, tmp_path / "work")
    found = sources.find_noise(burst, None, file)  # the one entry of a file that a person names
    assert found.levels[0] == LEVEL and "Example One, ISO 800; the frames name no camera" in found.summary
    sources.write_calibration(file, "Example One", 1600, LEVEL, 4)  # nobody knows which of two
    found = sources.find_noise(burst, None, file)
    assert "noise.json was not used, as the frames name no camera: give --noise" in found.summary


def test_a_calibration_that_is_not_there_is_an_error(dng, tmp_path):
    with pytest.raises(InputError, match=r"no calibration: .*none\.json.*klarsicht burst calibrate"):
        sources.find_noise(wound(dng, tmp_path / "a", profile=None, extra=ISO), None, tmp_path / "none.json")


def test_a_calibration_is_saved_by_camera_and_iso_and_used(dng, tmp_path, capsys):
    folder = tmp_path / "frames"
    wound(dng, folder, profile=None, extra=ISO)
    file = sources.default_file()
    sources.write_calibration(file, "Another", 100, LEVEL, 1)
    assert run(["burst", "calibrate", str(folder)]) == 0
    assert "Example One, ISO 800" in capsys.readouterr().out
    saved = json.loads(file.read_text())
    assert sorted(saved) == ["Another", "Example One"]
    level = sources.read_calibration(file, "Example One", 800)
    np.testing.assert_allclose(level.variance(0.5), LEVEL.variance(0.5), rtol=0.1)
    assert sources.read_calibration(file, "Example One", 1600) is None


def test_a_camera_that_is_not_named_must_be(dng, tmp_path):
    wound(dng, tmp_path / "a", profile=None)
    with pytest.raises(InputError, match="--iso"):
        list(calibrate([tmp_path / "a"], tmp_path / "c.json"))
    lines = list(calibrate([tmp_path / "a"], tmp_path / "c.json", camera="Mine", iso=400))
    assert lines[0].startswith("Mine, ISO 400")


@pytest.mark.parametrize("typed", ["0.1", "a,b", "0,0", "-1,0.1", "nan,1"])
def test_typed_noise_must_be_noise(typed):
    with pytest.raises(UsageError, match="noise"):
        sources.parse_noise(typed)


@pytest.mark.parametrize("content", ["{", '{"a": {"100": {"read": -1, "shot": 0}}}', '{"a": 3}', "[]"])
def test_a_file_that_is_no_calibration_is_named(tmp_path, content):
    (tmp_path / "noise.json").write_text(content)
    with pytest.raises(InputError, match=r"noise\.json is no calibration.*--calibration"):
        sources.read_calibration(tmp_path / "noise.json", "a", 100)


def test_the_noise_of_turned_frames_is_found_where_their_motion_has_them(tmp_path):
    """Grass behind a camera that turns by up to a degree; the noise is known. By shifts of tiles, texture counts as
    noise."""
    rng, (H, W), middle = np.random.default_rng(0), (256, 320), np.array([127.5, 159.5])
    scene, level = gaussian_filter((data.grass() / 255.0) ** 2.2, 1.0), NoiseLevel(0.006, 2e-4)
    motion = CameraMotion.from_shifts(torch.from_numpy(np.vstack([(0, 0), rng.uniform(-3, 3, (7, 2))])), (H, W))
    for k, angle in enumerate([0, *np.radians(rng.uniform(-1, 1, 7))]):
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        motion.numbers[k, [1, 2, 4, 5]] = torch.from_numpy((turn - np.eye(2)).ravel())
        shift = motion.numbers[k, [0, 3]].numpy() * motion.unit
        q = np.moveaxis(np.indices((H, W)), 0, -1) - middle - shift
        place = np.moveaxis(q @ turn + middle + 90, -1, 0)  # the inverse of a turn is its transpose
        light = map_coordinates(scene, place, order=3).astype(np.float32)
        tifffile.imwrite(tmp_path / f"{k}.tif", level.sample(light, rng))
    burst = load_frames(sorted(tmp_path.glob("*.tif")), tmp_path, "1", ReadSettings(linear=True))
    placed = tiled._place_by_motion(motion, (H, W)).select(burst.order)
    light = np.linspace(0.1, 0.4, 20)
    by_motion, by_shifts = (
        sources.estimate_from_frames(burst, known).noise.variance(light) / level.variance(light)
        for known in (placed, None)
    )
    np.testing.assert_allclose(by_motion, 1, atol=0.2)
    assert by_shifts.mean() > 1.4
