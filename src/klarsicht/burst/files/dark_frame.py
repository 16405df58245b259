"""Dark frames of a sensor, taken with the lens covered: the light that it shows without any, and its hot pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.photograph import EXPOSURE_TIME, ISO, Header, Planes, ReadSettings
from klarsicht.burst.files import reading
from klarsicht.ground.errors import InputError, UsageError

LEAST_DARK_FRAMES = 2  # that tell offsets of pixels from noise
BRIGHTEST_MEDIAN = 0.02  # of white: a median above it is no darkness
SURE_OFFSET = 5.0  # deviations of the mean, beyond which an offset is surely one
HOT_EXCESS = 6.0  # deviations of one frame, beyond which a pixel is hot: its own noise is large, too
MOST_RATIO = 2 ** (1 / 3)  # of exposure time and of ISO
OF_MEDIAN = 1.4826  # of a normal variable, over the median of its magnitude
DARK_FILE = "dark.f32"


@dataclass(frozen=True, eq=False)
class DarkFrame:
    """Offsets of a sensor's pixels in a store of one frame. hot: places (n, 3): plane, row and column."""

    header: Header
    offsets: FrameStore
    hot: npt.NDArray[np.int64]

    @classmethod
    def read(cls, paths: Sequence[Path], folder: Path, settings: ReadSettings) -> DarkFrame:
        """Read dark frames of a Bayer sensor into folder/dark.f32. Raises InputError for files that do not fit together
        or are not dark, UsageError for less than two, or for files that are not of a Bayer sensor."""
        files = reading.list_frames(paths)
        if len(files) < LEAST_DARK_FRAMES:
            rule = f"{LEAST_DARK_FRAMES} or more tell offsets from noise"
            raise UsageError("too few dark frames", got=len(files), rule=rule, remedy="Give --dark a folder of them.")
        total: Planes | None = None
        before: Planes | None = None
        deviations, headers = [], []
        for path in files:
            photograph = reading.read(path, settings)
            headers.append(photograph.header)
            reading.check_alike(headers[0], photograph.header)
            _check_dark(photograph.light, photograph.header)
            if total is None or before is None:
                total, before = photograph.light.copy(), photograph.light
                continue
            total += photograph.light
            before -= photograph.light
            deviations.append([deviation_of_difference(plane, headers[0].quantisation) for plane in before])
            before = photograph.light
        assert total is not None
        mean, deviation = total / len(files), np.mean(deviations, 0)
        store = FrameStore(folder / DARK_FILE, (1, *mean.shape))
        store.allocate()
        offsets, hot = [], []
        for c, (plane, noise) in enumerate(zip(mean, deviation, strict=True)):
            offsets.append(sensor_offsets(plane, float(noise), len(files)))
            far = np.abs(plane - np.median(plane)) > HOT_EXCESS * max(float(noise), headers[0].quantisation)
            hot.append(np.insert(np.argwhere(far), 0, c, axis=1))
        store.write_frame(0, np.stack(offsets))
        return cls(headers[0], store, np.concatenate(hot))

    def subtract_from(self, light: Planes, header: Header) -> None:
        """Subtract the offsets from a frame (C, H, W), but for pixels that are white. Raises InputError, UsageError: it
        is of another sensor, exposure time or ISO."""
        reading.check_alike(self.header, header)
        for name, tag in (("exposure time", EXPOSURE_TIME), ("ISO", ISO)):
            ours, theirs = self.header.tags.number(tag), header.tags.number(tag)
            if ours and theirs and not 1 / MOST_RATIO <= ours / theirs <= MOST_RATIO:
                rule = f"dark frames have the {name} of the burst, {theirs:g}"
                raise UsageError(f"dark frames of another {name}", got=f"{ours:g}", rule=rule, remedy="Change --dark.")
        for y0, offsets in self.offsets.read_strips(0):
            part = light[:, y0 : y0 + offsets.shape[1]]
            part -= np.where(part < 1, offsets, 0)


def deviation_of_difference(difference: Planes, rounding: float) -> float:
    """Estimate the noise of one of two frames from their difference (H, W) without what is far out. Differences of
    counts are few numbers, of which a median is one. rounding: deviation of rounding to counts, the least."""
    scale = OF_MEDIAN * float(np.median(np.abs(difference)))
    near = difference[np.abs(difference) <= SURE_OFFSET * max(scale, 12**0.5 * rounding)]
    return max(float(np.sqrt(np.mean(np.square(near)))) / 2**0.5, rounding)


def sensor_offsets(mean: Planes, deviation: float, count: int) -> Planes:
    """Estimate the offsets (H, W) of a plane from the mean of `count` dark frames with noise of some deviation: level,
    rows and columns in full, as they average much; of single pixels the share that makes the error least, and in full
    where they are surely offsets."""
    level, of_mean = np.median(mean), deviation / count**0.5
    rest = mean - level

    def inner() -> Planes:
        return np.clip(rest, -SURE_OFFSET * of_mean, SURE_OFFSET * of_mean)

    rows = inner().mean(1, keepdims=True)
    rest -= rows
    columns = inner().mean(0, keepdims=True)
    rest -= columns
    near = np.abs(rest) <= SURE_OFFSET * of_mean
    spread = float(np.mean(np.square(rest[near]))) if near.any() else 0.0
    share = max(0.0, 1 - of_mean**2 / spread) if spread else 0.0
    return np.asarray(level + rows + columns + np.where(near, share * rest, rest), np.float32)


def _check_dark(light: Planes, header: Header) -> None:
    """Raise InputError or UsageError for a frame that is not of a Bayer sensor, or not dark."""
    if header.colour != "mosaic":
        rule = "dark frames are raw files of a Bayer sensor, as the frames are"
        raise UsageError(
            f"{header.path.name} is no dark frame", got=header.colour, rule=rule, remedy="Leave --dark out."
        )
    middle = float(np.median(light))
    if middle > BRIGHTEST_MEDIAN:
        rule, remedy = f"at most {BRIGHTEST_MEDIAN:.0%}", "Cover the lens, and take the dark frames again."
        raise InputError(f"{header.path.name} is not dark", got=f"{middle:.1%} of white", rule=rule, remedy=remedy)
