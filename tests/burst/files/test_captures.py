"""Bursts by time and exposure: oracles are hand-made tags, written by another library."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from klarsicht.burst.data.photograph import AS_WRITTEN
from klarsicht.burst.files.captures import Capture, group_captures, name_bursts, read_capture, select_raw_files
from klarsicht.ground.errors import InputError

NOON = datetime(2026, 11, 30, 12)


def capture(number, seconds_after_noon, exposure=0.01, iso=800.0, setting=("camera",)):
    begun = NOON + timedelta(seconds=seconds_after_noon)
    return Capture(Path(f"IMG_{number:04}.dng"), begun, exposure, iso, setting)


def numbers(groups):
    return [[int(one.path.stem[-4:]) for one in group] for group in groups]


def test_bursts_are_apart_by_more_than_the_pause():
    frames = [capture(i, t) for i, t in enumerate([0, 0.2, 0.4, 2.3, 5.0, 5.1])]
    assert numbers(group_captures(reversed(frames), 2.0)) == [[0, 1, 2, 3], [4, 5]]
    assert numbers(group_captures(frames, 0.5)) == [[0, 1, 2], [3], [4, 5]]


def test_a_long_exposure_and_the_dark_frame_after_it_are_no_pause():
    frames = [capture(i, 61 * i, exposure=30.0) for i in range(3)]
    assert numbers(group_captures(frames, 2.0)) == [[0, 1, 2]]
    assert numbers(group_captures(frames, 0.9)) == [[0], [1], [2]]


def test_another_exposure_or_iso_begins_another_burst_and_a_third_of_a_stop_does_not():
    frames = [capture(0, 0), capture(1, 0.1, 0.012), capture(2, 0.2, 0.02), capture(3, 0.3, 0.02)]
    assert numbers(group_captures(frames, 2.0)) == [[0, 1], [2, 3]]
    same_light = [capture(0, 0), capture(1, 0.1), capture(2, 0.2, 0.005, 1600.0), capture(3, 0.3, 0.005, 1600.0)]
    assert numbers(group_captures(same_light, 2.0)) == [[0, 1], [2, 3]]


def test_exposures_that_change_at_each_frame_are_brackets_which_begin_where_the_first_comes_again():
    frames = [capture(i, 0.1 * i, (0.01, 0.0025, 0.04)[i % 3]) for i in range(6)]
    assert numbers(group_captures(frames, 2.0)) == [[0, 1, 2], [3, 4, 5]]
    of_two_isos = [capture(0, 0, 0.01, 800.0), capture(1, 0.1, 0.02, 1600.0)]
    assert numbers(group_captures(of_two_isos, 2.0)) == [[0], [1]]


def test_two_cameras_at_once_are_two_bursts():
    frames = [capture(i, 0.1 * i, setting=("one", "other")[i % 2]) for i in range(4)]
    assert numbers(group_captures(frames, 2.0)) == [[0, 2], [1, 3]]


def test_a_burst_is_named_by_its_first_and_last_file():
    def burst(*stems):
        return [Capture(Path("a", f"{stem}.dng"), NOON, 0.0, 0.0, ()) for stem in stems]

    bursts = [burst("IMG_0098", "IMG_0102"), burst("dusk", "dawn"), burst("IMG_0098", "IMG_0102"), burst("a", "a")]
    assert name_bursts(bursts) == ["IMG_0098-0102", "dusk-awn", "IMG_0098-0102 (2)", "a"]


def test_pictures_beside_raw_files_of_the_same_name_are_left_out():
    files = [Path("a/1.NEF"), Path("a/1.jpg"), Path("b/1.jpg"), Path("a/2.jpg")]
    assert select_raw_files(files) == [Path("a/1.NEF"), Path("b/1.jpg"), Path("a/2.jpg")]


def test_tags_of_a_raw_file_and_of_a_format_that_is_no_tiff(dng, tmp_path):
    """The second has another magic number, as Olympus writes it, and is read by LibRaw, which looks for the time in
    the tag DateTime."""
    extra = [
        (306, 2, 0, "2026:11:30 12:00:04", True),
        (36867, 2, 0, "2026:11:30 12:00:04", True),
        (37521, 2, 0, "25", True),
        (33434, 5, 1, (1, 50), True),
        (33437, 5, 1, (28, 10), True),
        (34855, 3, 1, 800, True),
    ]
    file = dng(tmp_path / "a.dng", np.full((96, 128), 900), extra=extra)
    found = read_capture(file, AS_WRITTEN)
    assert (found.time, found.seconds, found.iso) == (NOON + timedelta(seconds=4.25), 0.02, 800)
    assert found.setting == (".dng", "Example", "Example One", 128, 96, 2.8, None)
    other = tmp_path / "a.orf"
    other.write_bytes(file.read_bytes()[:2] + b"RO" + file.read_bytes()[4:])
    assert read_capture(other, AS_WRITTEN).time == NOON + timedelta(seconds=4)
    assert read_capture(other, AS_WRITTEN).seconds == pytest.approx(0.02)


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_tags_of_a_developed_picture(tmp_path, ending):
    file = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[271] = "Example"
    inner = exif.get_ifd(0x8769)
    inner[36867], inner[37521], inner[33434] = "2026:11:30 12:00:07", "5", IFDRational(1, 8)
    if ending == "tif":
        extra = [(36867, 2, 0, inner[36867], True), (37521, 2, 0, "5", True), (33434, 5, 1, (1, 8), True)]
        tifffile.imwrite(file, np.zeros((30, 40), np.uint8), extratags=extra)
    else:
        Image.new("RGB", (40, 30)).save(file, exif=exif)
    found = read_capture(file, AS_WRITTEN)
    assert (found.time, found.seconds) == (NOON + timedelta(seconds=7.5), 0.125)
    assert found.setting[3:5] == (40, 30)


def test_a_file_without_a_time_or_without_sense_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(InputError, match=r"a\.tif does not say when it was captured"):
        read_capture(tmp_path / "a.tif", AS_WRITTEN)
    (tmp_path / "b.jpg").write_bytes(b"none")
    with pytest.raises(InputError, match=r"cannot read b\.jpg"):
        read_capture(tmp_path / "b.jpg", AS_WRITTEN)
