"""Doubling of a denoised raw burst's resolution: what it refuses, its noise, and the tags of a picture of twice the
sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from klarsicht.burst.align.placement import Placement
from klarsicht.burst.data.cokriging import white_variance
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.data.photograph import Header
from klarsicht.burst.files.loading import LoadedBurst
from klarsicht.burst.merging.residual_noise import accumulate_moments, fit_noise_levels
from klarsicht.burst.merging.tiles import LOG, TileRecord, process_tiles
from klarsicht.burst.resolution.doubled_resolution import DetailCorrector, cut_tiles
from klarsicht.burst.resolution.enlarged_frames import FINE_PIXELS, EnlargedFrames
from klarsicht.burst.resolution.motion import refine_motion
from klarsicht.burst.resolution.sampled_burst import MosaicFrames, SampledBurst, neutral_colours
from klarsicht.ground.errors import UsageError
from klarsicht.ground.pictures.tiff_tags import LONG, Entry, Tags, numbers, rationals
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

DOUBLED, DOUBLED_LOG = "doubled.f32", f"doubled-{LOG}"
MOST_PIXELS = (1 << 32) // (FINE_PIXELS**2 * 3 * 2)  # of a sensor, whose doubled picture has three values of two bytes
CROP_TAGS, SIZE_TAGS, FOCAL_PLANE_TAGS = (50719, 50720), (40962, 40963), (41486, 41487)
"""Tags in pixels: origin and size of the default crop; width and height, and pixels a length of the sensor, of Exif."""


@dataclass(frozen=True, eq=False)
class DoubledPicture:
    """A picture of twice the resolution: its store, (1, 4, 2 H, 2 W), and the noise that is left. corrected_share: of
    the picture that shifted frames corrected; None: they do not shift by parts of a pixel."""

    spool: FrameStore
    noise: tuple[NoiseLevel, ...]
    corrected_share: float | None

    @property
    def line(self) -> str:
        """The line for the user."""
        height, width = self.spool.size
        size = f"resolution: {width} x {height} pixels as stored"
        if self.corrected_share is None:
            return f"{size}, enlarged alone: frames that do not shift by parts of a pixel have no more detail"
        return f"{size}; shifted frames add detail to {100 * self.corrected_share:.1f} % of them"


def check_settings(bayer: str | None, strength: float) -> None:
    """Check the settings beside --double. Raises UsageError."""
    if bayer not in (None, "rgb"):
        rule = "the resolution is doubled in RGB"
        raise UsageError("--double beside --bayer", got=bayer, rule=rule, remedy="Leave --bayer or --double out.")
    if strength != 1:
        rule = "samples correct the full result"
        raise UsageError(
            "--double beside --strength", got=f"{strength:g}", rule=rule, remedy="Leave --strength or --double out."
        )


def check_burst(burst: LoadedBurst) -> None:
    """Check that the resolution of a burst can be doubled. Raises UsageError."""
    header = burst.header
    if header.sensor is None or not header.sensor.pattern:
        got = "a picture" if header.sensor is None else "a linear DNG"
        rule = "it takes the samples of raw frames, Bayer or X-Trans"
    elif burst.is_bracket:
        got, rule = "an exposure bracket", "all frames have one exposure"
    elif header.lens.obstacle or header.lens.remains:
        left = header.lens.obstacle or ", ".join(opcode.name for opcode in header.lens.remains)
        got, rule = f"corrections of the lens that are not applied: {left}", "they are for pixels of the sensor"
    elif (pixels := header.size[0] * header.size[1]) > MOST_PIXELS:
        got, rule = f"{pixels / 1e6:.0f} megapixels", f"{MOST_PIXELS / 1e6:.0f} at most, as a TIFF or DNG holds 4 GB"
    else:
        return
    raise UsageError("--double is not possible", got=got, rule=rule, remedy="Leave --double out.")


def double_picture(
    result: FrameStore,
    mosaic: LoadedBurst,
    placement: Placement,
    frames: Sequence[int],
    frame_levels: Sequence[NoiseLevel],
    residual_levels: Sequence[NoiseLevel],
    folder: Path,
) -> DoubledPicture:
    """Double the resolution of a result (1, 4, H, W): R, G, B, and the trust in the burst. mosaic: the burst before its
    colours were interpolated, without hot pixels. placement: of the frames of these numbers. frame_levels: the noise of
    frames of gain 1, of interpolated colours. residual_levels: that of the result. Tiles that an
    interrupted run has doubled are kept. Raises DiskFull, StoreError."""
    sensor, gains = mosaic.header.sensor, [mosaic.frames[i].gain for i in frames]
    assert sensor is not None
    light = EnlargedFrames.of(result)
    sample_levels = [level.scale_variance(1 / white_variance(sensor.pattern)) for level in frame_levels]
    samples = MosaicFrames.of(mosaic.spool, sensor.pattern)
    burst = SampledBurst(samples, placement, frames, gains, sample_levels, neutral_colours(mosaic.header))
    burst = refine_motion(burst, light, gains[0])
    if not burst.shifts_by_parts:
        return DoubledPicture(light, tuple(residual_levels), None)
    spool = FrameStore(folder / DOUBLED, light.shape)
    spool.allocate()
    corrector = DetailCorrector(light, burst, gains[0])

    def double(tile: Window) -> TileRecord:
        picture = corrector.correct(tile)
        trust = np.clip(light.read_window(0, tile)[3:], 0, 1)
        spool.write_window(0, tile, np.concatenate([picture.light, trust]))
        before = np.stack([level.variance(x) for level, x in zip(residual_levels, picture.light, strict=True)])
        moments = accumulate_moments(np.sqrt(before + picture.added_variance), picture.light)
        return {"noise": moments.tolist(), "corrected": int(np.count_nonzero(picture.share))}

    records = process_tiles(cut_tiles(light.size), folder, double, "doubling", DOUBLED_LOG)
    noise = fit_noise_levels([np.array(one["noise"]) for one in records], residual_levels)
    return DoubledPicture(spool, noise, sum(one["corrected"] for one in records) / (light.size[0] * light.size[1]))


def double_burst(burst: LoadedBurst) -> LoadedBurst:
    """Return a burst whose frames are enlarged when they are read, which its headers say."""
    headers = tuple(double_header(header) for header in burst.headers)
    return replace(burst, headers=headers, spool=EnlargedFrames.of(burst.spool))


def double_header(header: Header) -> Header:
    """Return the header of the same photograph with twice the pixels along each side."""
    height, width = header.size
    lens = replace(header.lens, pixels=FINE_PIXELS * header.lens.pixels)
    return replace(header, size=(FINE_PIXELS * height, FINE_PIXELS * width), lens=lens, tags=_double_tags(header.tags))


def _double_tags(tags: Tags) -> Tags:
    """Double the tags that count pixels."""
    image, exif = (
        ifd | {tag: _double(ifd[tag], whole) for tag in ifd for known, whole in kinds if tag in known}
        for ifd, kinds in (
            (tags.image, ((CROP_TAGS, True),)),
            (tags.exif, ((SIZE_TAGS, True), (FOCAL_PLANE_TAGS, False))),
        )
    )
    return replace(tags, image=image, exif=exif)


def _double(entry: Entry, whole: bool) -> Entry:
    """Double the numbers of an entry; whole: as integers, where they are."""
    values = [FINE_PIXELS * value for value in entry.values]
    if whole and all(value == int(value) for value in values):
        return numbers(LONG, *map(int, values))
    return rationals(*values, denominator=1000)
