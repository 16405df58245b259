"""DNGs as other programs open them: ExifTool's validation, dcraw and LibRaw, without a warning, and their pictures."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header
from klarsicht.burst.files.dng import write as write_dng
from klarsicht.burst.files.reading import read
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.tiff_tags import Tags, numbers, rationals, text
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

pytestmark = pytest.mark.nightly
SIZE = (96, 128)


def needs(program):
    if shutil.which(program) is None:
        pytest.skip(f"no {program}, which .ci/nightly installs")
    return program


def spooled(planes, path):
    light = np.concatenate([planes, np.ones_like(planes[:1])])[None].astype(np.float32)
    spool = FrameStore(path, light.shape)
    spool.allocate()
    spool.write_frame(0, light[0])
    return spool


@pytest.fixture(params=["of a DNG", "of a TIFF"])
def written(request, dng, tmp_path):
    """A smooth picture as the DNG that is written for frames of that kind, its spool and its header."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] / np.array(SIZE)[:, None, None]
    if request.param == "of a TIFF":
        light = np.stack([0.2 + 0.5 * x, 0.3 + 0.4 * y, 0.6 - 0.3 * x * y])
        tags = Tags({271: text("Example"), 272: text("Example Two")}, {33434: rationals(0.02)}, {})
        header = Header(tmp_path / "a.tif", "rgb", SIZE, 65535, "srgb", tags=tags)
        noise = [NoiseLevel(1e-3, 1e-5)] * 3
    else:
        scene = 0.1 + 0.3 * x + 0.2 * y
        counts = np.rint(600 + scene * (16383 - 600))
        header = read(dng(tmp_path / "in.dng", counts, extra=[(50735, 2, 0, "SN-123", True)])).header
        exif = {33434: rationals(0.02), 34855: numbers(3, 800)}
        header = replace(header, tags=replace(header.tags, exif=exif))
        light = np.stack([scene[a::2, b::2] for a in (0, 1) for b in (0, 1)])
        noise = [NoiseLevel(1e-3, 1e-5)] * 4
    spool = spooled(light, tmp_path / "s")
    write_dng(spool, header, noise, tmp_path / "out.dng")
    return tmp_path / "out.dng", spool, header


def test_exiftool_finds_nothing_to_warn_of(written):
    told = subprocess.run(
        [needs("exiftool"), "-validate", "-warning", "-error", "-a", "-s3", written[0]], capture_output=True, text=True
    )
    assert (told.stdout.split("\n")[0], told.stderr) == ("OK", "")


def test_dcraw_opens_it_without_a_word(written):
    told = subprocess.run([needs("dcraw"), "-i", "-v", written[0]], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")
    assert re.search(rf"Image size: +{SIZE[1]} x {SIZE[0]}\n", told.stdout)


def test_libraw_develops_the_picture_that_we_develop(written):
    """Both linear, with the camera's white balance and matrix: smooth light is the same to a hundredth of white."""
    rawpy = pytest.importorskip("rawpy")
    path, spool, header = written
    with rawpy.imread(str(path)) as raw:
        theirs = raw.postprocess(gamma=(1, 1), no_auto_bright=True, output_bps=16, use_camera_wb=True) / 65535
    shown = Renderer(spool, header).render_window(Window(0, SIZE[0], 0, SIZE[1])).astype(float)
    ours = np.where(shown <= 0.04045, shown / 12.92, ((shown + 0.055) / 1.055) ** 2.4)
    inside = (slice(8, -8), slice(8, -8))
    assert np.abs(theirs - ours)[inside].max() < 0.01
