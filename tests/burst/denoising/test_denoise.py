"""A burst of files to a photograph: tiles against the whole, stops and kills, noise that is left, mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter1d
from skimage import data
from tests.burst.conftest import X_TRANS

from klarsicht.burst.data.bayer import to_planes
from klarsicht.burst.data.frame_store import Window
from klarsicht.burst.denoising import pipeline, work_folder
from klarsicht.burst.denoising.denoise import denoise
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files import reading
from klarsicht.burst.merging import motion_check, tiles
from klarsicht.cli.app import run
from klarsicht.ground.errors import InputError, RunLocked, StoreError, UsageError
from klarsicht.ground.machine.operating_system import process_mark
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

LEVEL = NoiseLevel(0.02, 2e-3)
BLACK, WHITE = 600, 16383
SIZE = (320, 448)
TILED = (352, 464)
TILES = ((176, 232), (96, 160))  # four: on each side 64 pixels around one are not all there is, nor 128 on the left


@pytest.fixture(scope="module")
def scene():
    """A photograph as light; mosaics are cut from it at even places."""
    return (data.retina()[300:700, 300:820].mean(-1, dtype=np.float32) / 255) ** 2.2


def cut(scene, dy=0, dx=0, size=SIZE):
    return scene[20 + dy : 20 + dy + size[0], 20 + dx : 20 + dx + size[1]]


def counts(light, seed):
    noisy = LEVEL.sample(light, np.random.default_rng(seed))
    return np.clip(np.rint(noisy * (WHITE - BLACK) + BLACK), 0, WHITE)


@pytest.fixture
def burst(dng, scene, tmp_path):
    return shaken(dng, scene, tmp_path / "burst", SIZE)


@pytest.fixture
def tiled(dng, scene, tmp_path):
    return shaken(dng, scene, tmp_path / "burst", TILED)


def shaken(dng, scene, folder, size):
    """Five raw frames of a shaken camera."""
    folder.mkdir()
    for i, (dy, dx) in enumerate([(0, 0), (2, -4), (-6, 8), (4, 4), (-2, 0)]):
        dng(folder / f"{i}.dng", counts(cut(scene, dy, dx, size), i), profile=(LEVEL.shot, LEVEL.read**2))
    return folder


def picture(spool):
    return spool.read_window(0, Window(0, *spool.size[:1], 0, spool.size[1]))


def made(burst, out, threads=1, **settings):
    """One thread: with more, tests that run beside each other wait for each other's."""
    with denoise_frames(reading.list_frames([burst]), out, DenoiseSettings(threads=threads, **settings)) as found:
        return picture(found.spool), found


@pytest.fixture
def no_weights(monkeypatch):
    """The mean of the frames, whose answers are known, and not the network that comes along."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)


def error_of(picture, truth):
    return np.square(picture[:4] - truth)[:, 16:-16, 16:-16].mean()


@pytest.mark.slow
def test_a_burst_becomes_as_clean_as_a_mean_of_its_frames(burst, scene, tmp_path, no_weights):
    got, found = made(burst, tmp_path / "out.dng", reference="0.dng")
    truth = to_planes(cut(scene)[None])[0]
    error = error_of(got, truth)
    assert error < 1.15 * LEVEL.average_frames(5).variance(truth).mean()
    assert found.shares["burst"] > 0.97 and not found.rejections
    remaining = np.mean([level.variance(truth.mean()) for level in found.residual_levels])
    assert remaining == pytest.approx(error, rel=0.15)


@pytest.mark.slow
def test_the_network_that_comes_along_is_cleaner_than_the_mean_of_the_frames(burst, scene, tmp_path, monkeypatch):
    truth = to_planes(cut(scene)[None])[0]
    by_network, found = made(burst, tmp_path / "a.dng", threads=None, reference="0.dng", bayer="planes")
    assert "swift-raw" in found.filter.name
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    by_mean, _ = made(burst, tmp_path / "b.dng", reference="0.dng")
    assert error_of(by_network, truth) < 0.8 * error_of(by_mean, truth)


@pytest.mark.slow
@pytest.mark.parametrize("bayer", ["planes", "rgb"])
def test_what_is_left_of_noise_is_what_two_takes_differ_by(burst, dng, scene, tmp_path, bayer):
    """Of one scene with fresh noise: half the mean square of the difference, the network's own changes included."""
    first, found = made(burst, tmp_path / "a.dng", reference="0.dng", bayer=bayer)
    for i, (dy, dx) in enumerate([(0, 0), (2, -4), (-6, 8), (4, 4), (-2, 0)]):
        dng(burst / f"{i}.dng", counts(cut(scene, dy, dx), 50 + i), profile=(LEVEL.shot, LEVEL.read**2))
    second, _ = made(burst, tmp_path / "b.dng", reference="0.dng", bayer=bayer)
    left = np.square(first[:-1] - second[:-1])[:, 16:-16, 16:-16].mean() / 2
    told = np.mean([level.variance(x).mean() for level, x in zip(found.residual_levels, first[:-1], strict=True)])
    assert 0.7 < told / left < 1.3
    assert all(level.shot > 0 for level in found.residual_levels)


@pytest.mark.slow
def test_tiles_are_the_whole(tiled, tmp_path, monkeypatch):
    """With false alarms here and there, so that the burst is doubted, and other estimates are made."""
    monkeypatch.setattr(pipeline, "NOISE_AREA", 0)
    monkeypatch.setattr(motion_check, "FALSE_ALARMS", 3e-2)
    monkeypatch.setattr(motion_check, "LEAVE", 1.0)
    whole, found = made(tiled, tmp_path / "a.dng", reference="1", bayer="planes")
    few = tiles.Grid(*TILES, 162 + 43, 50)
    monkeypatch.setattr(tiles, "choose_grid", lambda *_: few)
    in_tiles, _ = made(tiled, tmp_path / "b.dng", reference="1", bayer="planes")
    np.testing.assert_allclose(in_tiles, whole, atol=2e-6)
    assert found.shares["burst"] < 0.995 and found.shares["alone"] > 0


@pytest.mark.slow
def test_a_stop_loses_nothing_and_changes_nothing(burst, tmp_path, monkeypatch):
    few = tiles.Grid((320, 448), (192, 256), 50, 50)
    monkeypatch.setattr(tiles, "choose_grid", lambda *_: few)
    whole, _ = made(burst, tmp_path / "a.dng")
    calls, real = [], pipeline.merge_tile.TileMerger.__call__

    def stopping(merge, tile):
        calls.append(tile.number)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(merge, tile)

    monkeypatch.setattr(pipeline.merge_tile.TileMerger, "__call__", stopping)
    with pytest.raises(KeyboardInterrupt):
        made(burst, tmp_path / "b.dng")
    more = tiles.Grid((320, 448), (256, 320), 50, 50)  # as more memory is free this time
    monkeypatch.setattr(tiles, "choose_grid", lambda *_: more)
    resumed, _ = made(burst, tmp_path / "b.dng")
    assert sorted(calls) == [*range(2), 2, *range(2, len(few))]
    np.testing.assert_array_equal(resumed, whole)
    assert not work_folder.work_folder_path(tmp_path / "b.dng").exists()


@pytest.mark.nightly
def test_kills_at_any_moment_leave_the_same_bytes(burst, tmp_path):
    words = [sys.executable, "-m", "klarsicht", "burst", "denoise", str(burst), "-o"]
    subprocess.run([*words, str(tmp_path / "a.dng")], check=True)
    for seconds in (1.5, 3, 4, 5, 6, 7):
        killed = subprocess.Popen([*words, str(tmp_path / "b.dng")])
        time.sleep(seconds)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    subprocess.run([*words, str(tmp_path / "b.dng")], check=True)
    assert (tmp_path / "b.dng").read_bytes() == (tmp_path / "a.dng").read_bytes()


def test_the_command_writes_what_is_asked_for(burst, tmp_path, capsys, no_weights):
    out = tmp_path / "out"
    before = {file: file.read_bytes() for file in burst.iterdir()}
    assert run(["burst", "denoise", str(burst), "-o", str(out), "--memory", "3", "--threads", "1"]) == 0
    told = capsys.readouterr().out
    assert "NoiseProfile" in told and "photograph.dng" in told
    report = json.loads((out / "report.json").read_text())
    assert report["dropped"] == [] and len(report["frames"]) == 5
    again = reading.read(out / "photograph.dng").header
    assert again.profile[0].shot == pytest.approx(LEVEL.shot / 5, rel=0.5)
    assert {file: file.read_bytes() for file in burst.iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith(".")) == []


@pytest.mark.slow
def test_strength_mixes_with_the_reference(burst, tmp_path, no_weights):
    none, found = made(burst, tmp_path / "a.dng", strength=0.0, reference="0.dng")
    reference = picture(found.burst.spool) if found.burst.spool.path.exists() else reading.read(burst / "0.dng").light
    np.testing.assert_allclose(none[:4], reference, atol=1e-6)
    half, all_ = (made(burst, tmp_path / "a.dng", strength=s, reference="0.dng")[0] for s in (0.5, 1.0))
    np.testing.assert_allclose(half[:4], (none + all_)[:4] / 2, atol=1e-6)


@pytest.mark.slow
def test_a_frame_of_another_scene_is_dropped_by_name(burst, dng, scene, tmp_path):
    other = np.rot90(cut(scene)[: SIZE[0], : SIZE[0]], 2)
    other = np.pad(other, ((0, 0), (0, SIZE[1] - SIZE[0])), "reflect")
    dng(burst / "9.dng", counts(other / other.mean() * cut(scene).mean(), 9))
    _, found = made(burst, tmp_path / "out.dng", reference="0.dng")
    assert [why.split()[0] for why in found.rejections] == ["9.dng"]
    assert found.shares["burst"] > 0.97


def in_colour(folder, blurs, seed=0):
    """RGB frames of a detailed photograph with weak noise, blurred along the rows by so many pixels, and the truth."""
    folder.mkdir()
    rng, light = np.random.default_rng(seed), (data.coffee()[100:292, 180:372] / 255) ** 2.2 * 0.6
    for i, blur in enumerate(blurs):
        seen = uniform_filter1d(light, blur, axis=1)
        tifffile.imwrite(
            folder / f"{i}.tif", NoiseLevel(0.004, 1e-3).sample(seen, rng).astype(np.float32), photometric="rgb"
        )
    return light.transpose(2, 0, 1)


def test_a_blurred_frame_is_dropped_by_name_and_the_photograph_keeps_its_detail(tmp_path, monkeypatch):
    truth = in_colour(tmp_path / "burst", (1, 1, 9, 1))
    got, found = made(tmp_path / "burst", tmp_path / "a.tif", reference="1")
    (dropped,) = found.rejections
    assert dropped.startswith("2.tif is blurred: it has ") and dropped.endswith(" % of the fine detail of 0.tif")
    assert f"dropped: {dropped}" in found.lines and len(found.frame_numbers) == 3
    monkeypatch.setattr(pipeline, "LEAST_SHARPNESS", 0.0)
    merged, every = made(tmp_path / "burst", tmp_path / "b.tif", reference="1")
    assert not every.rejections
    assert np.square(got[:3] - truth).mean() < 0.9 * np.square(merged[:3] - truth).mean()


def test_frames_that_are_blurrier_than_the_reference_are_named_where_they_are_most(tmp_path):
    in_colour(tmp_path / "burst", (1, 9, 9, 9))
    _, found = made(tmp_path / "burst", tmp_path / "a.tif", reference="1")
    assert not found.rejections and len(found.frame_numbers) == 4
    assert any("1.tif, 2.tif, 3.tif" in line and "blurred" in line for line in found.warnings)
    _, found = made(tmp_path / "burst", tmp_path / "b.tif", reference="2")  # sharper frames are no reason to complain
    assert not found.rejections and not any("blurred" in line for line in found.warnings)


def test_strong_noise_is_no_sharpness(burst, dng, scene, tmp_path):
    light = uniform_filter1d(cut(scene), 3, axis=1)  # its detail is weaker than the noise
    dng(burst / "9.dng", counts(light, 9), profile=(LEVEL.shot, LEVEL.read**2))
    _, found = made(burst, tmp_path / "out.dng", reference="0.dng")
    assert not found.rejections


@pytest.mark.slow
def test_drift_of_exposure_is_evened_out(burst, dng, scene, tmp_path):
    dng(burst / "4.dng", counts(0.85 * cut(scene, -2, 0), 4), profile=(LEVEL.shot, LEVEL.read**2))
    got, found = made(burst, tmp_path / "out.dng", reference="0.dng", bayer="planes")
    assert found.burst.frames[4].gain == pytest.approx(1 / 0.85, rel=0.01)
    assert found.shares["burst"] > 0.95
    truth = to_planes(cut(scene)[None])[0]
    assert np.square(got[:4] - truth).mean() < 1.2 * LEVEL.average_frames(5).variance(truth).mean()


@pytest.mark.slow
def test_one_frame_and_rgb_work(tmp_path, scene):
    rgb = np.repeat(cut(scene)[..., None], 3, 2)
    noisy = LEVEL.sample(rgb.astype(np.float32), np.random.default_rng(0))
    tifffile.imwrite(tmp_path / "a.tif", noisy, photometric="rgb")
    lines = list(denoise([tmp_path / "a.tif"], tmp_path / "out.tif"))
    assert any("estimated from the frames" in line for line in lines)
    picture = tifffile.imread(tmp_path / "out.tif") / 65535
    assert np.square(picture - rgb).mean() <= 1.02 * np.square(np.clip(noisy, 0, 1) - rgb).mean()


@pytest.mark.slow
def test_an_x_trans_burst_becomes_a_cleaner_linear_dng(dng, tmp_path, no_weights):
    """Red, green and blue are known; the mean of five frames has a fifth of the noise, and what is told to be left
    is as strong at low frequencies."""
    light = (data.astronaut()[60:276, 100:328] / 255.0) ** 2.2 * 0.8
    letters = np.array(["RGB".index(letter) for letter in X_TRANS]).reshape(6, 6)
    colours = np.tile(letters, (33, 36))[:192, :210]
    (tmp_path / "burst").mkdir()
    for i, (dy, dx) in enumerate([(0, 0), (2, -4), (-6, 8), (4, 5), (-3, 0)]):
        seen = light[12 + dy : 204 + dy, 10 + dx : 220 + dx].astype(np.float32)
        mosaic = np.take_along_axis(seen, colours[..., None], 2)[..., 0]
        dng(tmp_path / "burst" / f"{i}.dng", counts(mosaic, i), X_TRANS, profile=(LEVEL.shot, LEVEL.read**2))
    out = tmp_path / "out"
    lines = list(denoise([tmp_path / "burst"], out, DenoiseSettings(reference="0.dng", threads=1)))
    assert any("NoiseProfile of 0.dng, variance times 1.8" in line for line in lines)
    truth = np.moveaxis(light[12:204, 10:220], -1, 0)
    picture = np.moveaxis(tifffile.imread(out / "photograph.dng") / 65535, -1, 0)
    reference = reading.read(tmp_path / "burst" / "0.dng").light
    smooth = (slice(None), slice(8, 40), slice(150, 200))
    error, before = (np.square(x - truth)[:, 8:-8, 8:-8].mean() for x in (picture, reference))
    assert error < 0.5 * before
    noise = (picture - truth)[smooth].reshape(3, 4, 8, 5, 10).mean((2, 4))
    told = np.reshape(tifffile.TiffFile(out / "photograph.dng").pages[0].tags[51041].value, (3, 2))
    assert 1 / 3 < noise[1].var() * 80 / (told[1] @ [truth[smooth][1].mean(), 1]) < 3
    with Image.open(out / "preview.jpg") as preview:
        assert preview.size == (210, 192)


def test_two_outputs_of_one_name_are_refused_before_anything_is_written(burst, tmp_path):
    out = tmp_path / "shown.png"
    with pytest.raises(UsageError, match=r"shown\.png is wanted twice; got for the photograph and for the ghost map"):
        list(denoise([burst], out, ghost_map=out))
    assert not (tmp_path / "shown.png").exists()
    folder = tmp_path / "all"
    with pytest.raises(UsageError, match="for the photograph and for the preview"):
        list(denoise([burst], tmp_path / "a.jpg", preview=folder.parent / "all" / ".." / "a.jpg"))


@pytest.mark.slow
def test_a_level_by_which_nothing_can_be_checked_is_said(burst, tmp_path, no_weights):
    """Noise as large as the range leaves no pixel that is surely neither black nor white."""
    lines = list(denoise([burst], tmp_path / "a.png", DenoiseSettings(noise="0.5,0.5")))
    assert any(line.startswith("the noise could not be checked") for line in lines)
    lines = list(denoise([burst], tmp_path / "b.png"))
    assert not any("could not be checked" in line for line in lines)


@pytest.mark.slow
def test_two_small_pictures_of_other_scenes_keep_the_noise_of_each(tmp_path):
    """No block of one agrees with the other's: their noise is that of single frames."""
    rng = np.random.default_rng(9)
    for i in range(2):
        light = gaussian_filter(np.random.default_rng(i).random((96, 96, 3)), (3, 3, 0))
        codes = 20 + 200 * (light - light.min()) / np.ptp(light) + rng.normal(0, 4, light.shape)
        Image.fromarray(np.clip(codes, 0, 255).astype(np.uint8)).save(tmp_path / f"{i}.png")
    frames = [tmp_path / "0.png", tmp_path / "1.png"]
    lines = list(denoise(frames, tmp_path / "clean" / "out.tif", DenoiseSettings(fast=True, threads=1)))
    assert "shows something else" in "".join(lines)


def test_a_raw_file_under_the_ending_of_a_tiff_is_told_its_own(burst, tmp_path):
    (tmp_path / "a.tif").write_bytes((burst / "0.dng").read_bytes())
    with pytest.raises(InputError, match=r"Rename it to a\.dng"):
        list(denoise([tmp_path / "a.tif"], tmp_path / "b.png"))


def test_settings_take_paths_numbers_and_levels_of_noise(tmp_path):
    """Each is kept as the text that the command line has, so that a run resumes whichever way it is asked for."""
    level = NoiseLevel(np.float64(0.002), 0.0004)
    given = DenoiseSettings(noise=level, reference=2, calibration=tmp_path / "c.json", dark=(tmp_path,))
    text = str(tmp_path)
    assert given == DenoiseSettings(noise="0.002,0.0004", reference="2", calibration=f"{text}/c.json", dark=(text,))
    for wrong in ({"reference": True}, {"reference": 1.5}, {"noise": (0.1, 0.2)}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            DenoiseSettings(**wrong)


def test_mistakes_are_named_and_lose_nothing(burst, dng, scene, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="one of the frames"):
        list(denoise([burst], burst / "0.dng"))
    for out in (burst / "clean.dng", burst):
        with pytest.raises(UsageError, match="would lie among the frames"):
            list(denoise([burst], out))
    with pytest.raises(UsageError, match="ending"):
        list(denoise([burst], tmp_path / "out.heic"))
    with pytest.raises(UsageError, match="memory"):
        list(denoise([burst], tmp_path / "o.dng", DenoiseSettings(memory=0.01)))
    with pytest.raises(
        UsageError, match=r"no such frame; got 7\.dng; .*1 to 5\. Name another by `reference`, or leave it out"
    ):
        list(denoise([burst], tmp_path / "o.dng", DenoiseSettings(reference="7.dng")))
    with pytest.raises(UsageError, match=r"READ,SHOT"):
        list(denoise([burst], tmp_path / "o.dng", DenoiseSettings(noise="much")))
    with work_folder.open_work_folder(tmp_path / "o.dng", {}) as _, pytest.raises(RunLocked):
        list(denoise([burst], tmp_path / "o.dng"))
    assert denoise is denoise
    assert sorted(path.name for path in tmp_path.iterdir()) == ["burst"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(burst, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot write"):
        list(denoise([burst], tmp_path / "closed" / "o.dng"))


def test_a_folder_that_cannot_be_is_named(burst, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot write"):
        list(denoise([burst], tmp_path / "file" / "o.dng"))


@pytest.mark.parametrize("out", [".", "../here", "..", "clean.dng"])
def test_a_folder_that_exists_may_be_the_output(burst, tmp_path, monkeypatch, no_weights, capsys, out):
    """The current folder, one above it, and one whose name looks like a file's."""
    place = tmp_path / "above" / "here"
    (place / "clean.dng").mkdir(parents=True)
    monkeypatch.chdir(place)
    assert run(["burst", "denoise", *map(str, sorted(burst.iterdir())[:2]), "-o", out, "--threads", "1"]) == 0
    assert "photograph: " in capsys.readouterr().out
    assert {"photograph.dng", "preview.jpg", "page.html"} <= {p.name for p in (place / out).resolve().iterdir()}
    assert not list(tmp_path.rglob(".*.work"))


def test_an_output_that_exists_is_named_before_it_is_replaced(burst, tmp_path):
    """The first message comes before any frame is read; the file is as it was."""
    (tmp_path / "holiday.png").write_bytes(b"of somebody else")
    first = next(denoise([burst], tmp_path / "holiday.png", page=tmp_path / "page.html"))
    assert first == f"{tmp_path / 'holiday.png'} exists and will be replaced"
    assert (tmp_path / "holiday.png").read_bytes() == b"of somebody else"


def test_an_output_that_is_a_folder_is_refused_before_anything_is_done(burst, tmp_path, capsys):
    (tmp_path / "page.html").mkdir()
    told = ["burst", "denoise", str(burst), "-o", str(tmp_path / "a.dng"), "--page", str(tmp_path / "page.html")]
    assert run(told) == 2
    assert "page.html is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (["--checkpoint", "swfit"], "unknown network; got 'swfit'. Did you mean swift"),
        (["--bayer", "plane"], "unknown way to filter Bayer frames; got 'plane'. Did you mean planes?"),
        (["--page", "p.txt"], "unknown ending of --page; got '.txt'"),
        (["--preview", "p.png"], "unknown ending of --preview; got '.png'"),
        (["--ghost-map", "p.jpg"], "unknown ending of --ghost-map; got '.jpg'"),
    ],
)
def test_a_mistyped_name_is_refused_before_a_frame_is_read(burst, tmp_path, monkeypatch, capsys, told, message):
    monkeypatch.setattr(pipeline, "load_frames", None)
    assert run(["burst", "denoise", str(burst), "-o", str(tmp_path / "a.dng"), *told]) == 2
    assert message in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["burst"]


def test_a_network_for_other_colours_is_refused_before_frames_are_aligned(scene, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pipeline.hot_pixels, "replace_hot_pixels", None)
    for i in range(2):
        levels = np.uint8(255 * cut(scene, i, i, (64, 64)) ** (1 / 2.2))
        Image.fromarray(np.stack([levels] * 3, -1)).save(tmp_path / f"{i}.png")
    told = ["burst", "denoise", str(tmp_path), "-o", str(tmp_path.parent / "a.png"), "--checkpoint", "swift-raw"]
    assert run(told) == 2
    assert "a network for mosaic frames cannot filter rgb ones" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_done(burst, tmp_path, monkeypatch, capsys):
    """It used to be said after the whole burst was denoised."""
    closed, access = tmp_path / "closed", os.access
    closed.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))
    told = ["burst", "denoise", str(burst), "-o", str(tmp_path / "a.dng"), "--page", str(closed / "new" / "page.html")]
    assert run(told) == 5
    assert "cannot write" in (said := capsys.readouterr().err) and "closed is read-only" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["burst", "closed"]


def test_temporary_files_of_a_killed_command_are_removed_at_the_next_start(burst, tmp_path, no_weights):
    (tmp_path / f".clean.dng.{process_mark().partition('.')[0]}.99999999.tmp").touch()
    list(denoise(sorted(burst.iterdir())[:2], tmp_path / "clean.dng", DenoiseSettings(threads=1)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["burst", "clean.dng"]


@pytest.mark.parametrize("frames", [8, 4])
def test_darks_of_files_cut_off_at_black_are_as_dark_as_they_were(frames, tmp_path, no_weights):
    """Columns of light from 0 to 3 deviations of noise: the mean of clipped frames is too bright by up to .4."""
    level = NoiseLevel(0.03, 0.01)
    light = np.broadcast_to(np.linspace(0, 0.09, 8, dtype=np.float32).repeat(16), (128, 128))
    files = [tmp_path / "burst" / f"{i}.tif" for i in range(frames)]
    files[0].parent.mkdir()
    noisy = np.stack([np.clip(level.sample(light, np.random.default_rng(i)), 0, 1) for i in range(frames)])
    for file, frame in zip(files, noisy, strict=True):
        tifffile.imwrite(file, np.rint(frame * 65535).astype(np.uint16))
    told = {"noise": f"{level.read},{level.shot}", "linear": True}
    got, _ = made(files[0].parent, tmp_path / "out.tif", reference="0.tif", **told)

    def bias(picture):
        return (picture - light).mean(0).reshape(8, 16)[:, 2:-2].mean(1) / level.read

    assert bias(noisy.mean(0))[:2].min() > 0.2
    np.testing.assert_allclose(bias(got[0])[1:], 0, atol=0.1)
    assert 0 <= bias(got[0])[0] < 0.2


def test_one_jpeg_alone_says_no_factor_of_its_noise(scene, tmp_path):
    """JPEG removed what told noise from detail; with several frames the factor is said, up to ten."""
    codes = np.rint(255 * np.sqrt(np.clip(cut(scene), 0, 1))).astype(np.uint8)
    Image.fromarray(np.repeat(codes[..., None], 3, 2)).save(tmp_path / "a.jpg", quality=95)
    _, found = made(tmp_path / "a.jpg", tmp_path / "out.tif", noise="1e-5,0")
    assert found.residual > pipeline.TOO_LOUD
    assert "one frame alone" in found.lines[-1] and not any("times the noise" in line for line in found.lines)
    assert "more than 10 times" in replace(found, frame_numbers=(0, 0), residual=630.0).lines[-1]


@pytest.mark.parametrize("factor", [1.0, 5.0])
def test_a_level_far_too_high_is_said_and_a_right_one_is_not(tmp_path, monkeypatch, factor):
    """Frames of known noise, filtered by their mean: a deviation five times too large expects 25 times their noise."""
    monkeypatch.setattr("klarsicht.burst.network.pretrained.find_weights", lambda colour: None)
    light = np.broadcast_to(np.linspace(0.2, 0.8, 96, dtype=np.float32), (96, 96))
    for i in range(4):
        tifffile.imwrite(tmp_path / f"{i}.tif", LEVEL.sample(light, np.random.default_rng(i)))
    typed = f"{LEVEL.read * factor},{LEVEL.shot * factor**2}"
    _, found = made(tmp_path, tmp_path / "out.tif", noise=typed, reference="0.tif")
    assert found.residual / found.expected_residual == pytest.approx(1 / factor**2, rel=0.1)
    told = [line for line in found.lines if "too high" in line]
    assert [("0.04 times the expected noise" in line and "--noise" in line) for line in told] == [True] * (factor > 1)


@pytest.mark.slow
def test_exact_computes_in_float32_and_else_in_bfloat16_where_that_is_faster(burst, tmp_path, monkeypatch):
    monkeypatch.setattr("klarsicht.ground.machine.devices.bf16_is_faster", lambda device: True)
    monkeypatch.setattr("klarsicht.burst.merging.filters.bf16_is_faster", lambda device: True)
    halved, found = made(burst, tmp_path / "a.dng", reference="0.dng")
    exact, other = made(burst, tmp_path / "b.dng", reference="0.dng", exact=True)
    assert "bfloat16" in found.filter.name and "bfloat16" not in other.filter.name
    difference = np.abs(halved[:4] - exact[:4])
    assert 0 < difference.mean() < 0.05 * LEVEL.read
