"""DNGs as other programs open them: ExifTool's validation, dcraw, LibRaw, darktable and RawTherapee, without a warning,
and their pictures."""

import os
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from tests.burst.conftest import X_TRANS
from tests.burst.opcodes import gain_map, packed, tag, vignette, warp

from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header
from klarsicht.burst.denoising.interpolated_frames import interpolate_window
from klarsicht.burst.files.dng import write as write_dng
from klarsicht.burst.files.reading import read
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.pictures.tiff_tags import Tags, numbers, rationals, text
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

pytestmark = pytest.mark.nightly
SIZE = (96, 128)
INSIDE = (slice(8, -8), slice(8, -8))
FALLOFF = [[[1.8], [1.2], [1.6]], [[1.1], [1.0], [1.2]], [[1.9], [1.3], [1.7]]]
MAPS = [gain_map((y, x, *SIZE), FALLOFF, pitch=(2, 2)) for y in (0, 1) for x in (0, 1)]
BULGE = (0.97, 0.03, 0.0, 0.0, 0.001, 0.0)


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


@pytest.fixture(params=["of a DNG", "of X-Trans", "of a TIFF", "behind a lens"])
def written(request, dng, tmp_path):
    """A smooth picture as the DNG that is written for frames of that kind, its spool and its header."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] / np.array(SIZE)[:, None, None]
    if request.param == "of a TIFF":
        light = np.stack([0.2 + 0.5 * x, 0.3 + 0.4 * y, 0.6 - 0.3 * x * y])
        tags = Tags({271: text("Example"), 272: text("Example Two")}, {33434: rationals(0.02)}, {})
        header = Header(tmp_path / "a.tif", "rgb", SIZE, 65535, "srgb", tags=tags)
        noise = [NoiseLevel(1e-3, 1e-5)] * 3
    else:
        pattern = X_TRANS if request.param == "of X-Trans" else "RGGB"
        counts = np.rint(600 + (0.05 + 0.25 * x + 0.15 * y) * (16383 - 600))  # no colour is white after its balance
        extra = [(50735, 2, 0, "SN-123", True)]
        if request.param == "behind a lens":
            extra += [tag(2, packed(*MAPS)), tag(3, packed(vignette((0.1, 0.1, 0, 0, 0)), warp([BULGE])))]
            counts = np.rint(600 + 0.5 * (counts - 600))
        taken = read(dng(tmp_path / "in.dng", counts, pattern, extra=extra))
        light, exif = taken.light, {33434: rationals(0.02), 34855: numbers(3, 800)}
        header = replace(taken.header, tags=replace(taken.header.tags, exif=exif))
        if request.param == "behind a lens":
            mosaic = FrameStore(tmp_path / "mosaic", (1, *light.shape))
            mosaic.allocate()
            mosaic.write_frame(0, light)
            light = interpolate_window(mosaic, 0, Window(0, SIZE[0] // 2, 0, SIZE[1] // 2), header)
            header = replace(header, colour="rgb")
        noise = [NoiseLevel(1e-3, 1e-5)] * len(light)
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
    assert np.abs(theirs - linear(shown(spool, header)))[INSIDE].max() < 0.01


def shown(spool, header):
    return Renderer(spool, header).render_window(Window(0, SIZE[0], 0, SIZE[1])).astype(float)


def linear(codes):
    """IEC 61966-2-1, of codes in [0, 1]."""
    return np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def difference(theirs, ours):
    """Largest difference in linear light of 16-bit sRGB codes, away from the border, from which either may have cut."""
    top, left = ((a - b) // 2 for a, b in zip(ours.shape[:2], theirs.shape[:2], strict=True))
    part = ours[top : top + theirs.shape[0], left : left + theirs.shape[1]]
    return np.abs(linear(theirs / 65535) - linear(part))[INSIDE].max()


def test_darktable_develops_the_picture_that_we_develop(written, tmp_path):
    """Without any module that darktable adds for looks, to sRGB: smooth light is the same to 2 thousandths of white."""
    path, spool, header = written
    command = [needs("darktable-cli"), path, tmp_path / "theirs.tif", "--apply-custom-presets", "false"]
    command += ["--icc-type", "SRGB", "--core", "--configdir", tmp_path / "settings", "--library", ":memory:"]
    command += ["--conf", "plugins/darkroom/workflow=none", "--conf", "plugins/imageio/format/tiff/bpp=16"]
    two_threads = {**os.environ, "OMP_NUM_THREADS": "2"}  # with one, darktable 5.0.1 leaves lower rows undeveloped
    told = subprocess.run(command, capture_output=True, text=True, env=two_threads)
    said = [line for line in (told.stdout + told.stderr).splitlines() if "exported to" not in line]
    assert [line for line in said if line and "as root" not in line] == []
    assert difference(tifffile.imread(tmp_path / "theirs.tif")[..., :3], shown(spool, header)) < 0.002


def test_rawtherapee_develops_the_picture_that_we_develop(written, tmp_path):
    """With its neutral profile: smooth light is the same to 2 thousandths of white."""
    path, spool, header = written
    command = [needs("rawtherapee-cli"), "-q", "-o", tmp_path / "theirs.tif", "-t", "-b16", "-Y", "-c", path]
    told = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HOME": str(tmp_path)})
    assert (told.returncode, told.stderr) == (0, "")
    assert not re.search("warning|error|unsupported|cannot", told.stdout, re.IGNORECASE)
    assert difference(tifffile.imread(tmp_path / "theirs.tif"), shown(spool, header)) < 0.002
