"""Kernels of a burst, measured at the points of a grid, with the error there: of a burst in memory, of a file of
`klarsicht burst synth`, or of photographs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from klarsicht.bridge.kernel_measures import MEASURES, mark_copies, measure_pixels, weigh_burst
from klarsicht.burst.data.burst import RGB_CHANNELS, Burst, Frames
from klarsicht.burst.data.frame_store import FrameStore, Window
from klarsicht.burst.denoising.pipeline import DenoiseResult, DenoiseSettings, denoise_frames
from klarsicht.burst.files import reading
from klarsicht.burst.files.rendering import Renderer
from klarsicht.burst.merging.filters import NetworkFilter, NetworkWeights, PixelWeights
from klarsicht.burst.merging.kernel_maps import MAP_STEP
from klarsicht.burst.merging.tiles import Tile, TileRecord
from klarsicht.burst.network.unet import Network
from klarsicht.ground.arrays import Bools, Doubles
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.machine.disk import translate_read_errors
from klarsicht.ground.pictures.array_images import turn_upright
from klarsicht.ground.pictures.pixel_depths import to_uint8
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.imaging.tone import tone_curve

Picture = npt.NDArray[np.uint8]  # H W 3

SYNTHETIC = ".npz"
STEP_IN_MEMORY = 4  # pixels between the points of a burst in memory
POINTS_IN_TILE = 1024  # measured at most, so that a photograph of 12 megapixels takes seconds and not minutes
ERROR_SIDE = 9  # pixels, of the window in which the error of a point is averaged
SHOWN_SIDE = 1200  # pixels: largest side of the picture under a map
WHITE_SHARE = 0.995  # quantile of the light that is shown white


@dataclass(frozen=True, eq=False)
class MeasuredBurst:
    """Measures of a burst's kernels. measures: (h, w, m), in the order of MEASURES, of every `step`-th pixel. error:
    (h, w), root mean square difference around a point from the truth, or without one from the reference, over the
    deviation of the noise. picture: the denoised one, for display, upright. orientation: as EXIF names it, of the
    maps."""

    name: str
    step: int
    measures: Doubles
    error: Doubles
    picture: Picture
    has_truth: bool
    orientation: int = 1

    @property
    def copies(self) -> Bools:
        """Points that copy what moved, (h, w)."""
        return mark_copies(self.measures)

    def to_bytes(self) -> bytes:
        """Encode the burst, without any rounding, for `from_bytes`."""
        file = io.BytesIO()
        np.savez(file, **{one.name: getattr(self, one.name) for one in fields(self)})
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> MeasuredBurst:
        """Decode a burst of `to_bytes`."""
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            values = {name: one if one.ndim else one.item() for name, one in arrays.items()}
        return cls(**values)

    def turn_upright(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Turn a map (h, w) or (h, w, C) as the picture is turned."""
        return turn_upright(values, self.orientation)


def measure_burst(
    network: Network, burst: Burst, name: str, truth: Frames | None = None, step: int = STEP_IN_MEMORY
) -> MeasuredBurst:
    """Measure a burst in memory. truth: the clean reference (C, H, W). Raises InputError for one frame alone, whose
    kernels are no strategy, or a truth of another shape."""
    if burst.count < 2:
        raise InputError(
            "a burst of one frame", got=name, rule="a strategy weighs several frames", remedy="Leave it out."
        )
    if truth is not None and truth.shape != burst.reference.shape:
        raise InputError(f"{name}: truth of another shape", got=truth.shape, rule=f"{burst.reference.shape}")
    weights = weigh_burst(network, burst)
    (H, W), picture = burst.size, weights()
    rows, columns = range(0, H, step), range(0, W, step)
    y, x = ([int(v) for v in axis.ravel()] for axis in np.meshgrid(rows, columns, indexing="ij"))
    measures = measure_pixels(weights, y, x).reshape(len(rows), len(columns), -1)
    error = local_error(picture, burst.reference if truth is None else truth, weights.noise)[::step, ::step]
    return MeasuredBurst(name, step, measures, error, show_light(picture), truth is not None)


def local_error(picture: Frames, other: Frames, noise: Sequence[NoiseLevel]) -> Doubles:
    """Compute the root mean square difference of two pictures (C, H, W) around each pixel, (H, W), over the deviation
    of the noise, one level a channel."""
    variance = np.stack([level.variance(plane) for level, plane in zip(noise, picture, strict=True)])
    square = (np.square(picture - other) / np.maximum(variance, 1e-12)).mean(0, dtype=np.float64)
    return np.asarray(np.sqrt(uniform_filter(square, ERROR_SIDE, mode="nearest")))


def show_light(picture: Frames) -> Picture:
    """Show linear light (C, H, W) of grey, RGB or a mosaic's planes as a picture whose brightest parts are white."""
    colours = picture if len(picture) != 4 else np.stack([picture[0], picture[1:3].mean(0), picture[3]])
    white = max(float(np.quantile(colours, WHITE_SHARE)), 1e-6)
    shown = to_uint8(tone_curve(np.clip(colours / white, 0, 1)))
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(shown, (RGB_CHANNELS, *shown.shape[1:])), 0, -1))


def read_synthetic(path: Path) -> tuple[Burst, Frames]:
    """Read a burst and its truth from a file of `klarsicht burst synth`. Raises InputError for another file."""
    with translate_read_errors(path):
        try:
            with np.load(path, allow_pickle=False) as arrays:
                noise = NoiseLevel(float(arrays["read"]), float(arrays["shot"]))
                burst = Burst(arrays["frames"], noise)
                if "colour_filter" in arrays:
                    red, green, blue = arrays["balance"].tolist()
                    burst = replace(burst, colour_filter=str(arrays["colour_filter"]), balance=(red, green, blue))
                return burst, arrays["truth"]
        except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            rule = "a .npz file that `klarsicht burst synth` wrote"
            raise InputError(f"{path.name} holds no synthetic burst", got=error, rule=rule) from error


def measure_photographs(frames: Sequence[Path], out: Path, settings: DenoiseSettings, name: str) -> MeasuredBurst:
    """Measure a burst of photographs while it is denoised, tile by tile, in bounded memory; its error is the difference
    from the reference. out: where its work folder stands. Raises as `denoise`, and InputError for one frame alone."""
    files = reading.list_frames(frames)
    if len(files) < 2:
        raise InputError(
            "a burst of one frame", got=name, rule="a strategy weighs several frames", remedy="Leave it out."
        )
    with denoise_frames(files, out, settings, observe=observe_tile) as result:
        if not isinstance(result.filter, NetworkFilter):
            rule = "strategies are of a network's kernels"
            raise UsageError(f"{name} is merged without a network", got=result.filter.name, rule=rule)
        return collect_measures(result, name)


def observe_tile(tile: Tile, weights: PixelWeights) -> TileRecord:
    """Measure every MAP_STEP-th pixel of a tile, or of a large one every second, fourth ... of these, which stand for
    those around; nothing of a mean, which has no kernels."""
    if not isinstance(weights, NetworkWeights):
        return {}
    core, context = tile.core, tile.context
    rows, columns = range(core.y0, core.y1, MAP_STEP), range(core.x0, core.x1, MAP_STEP)
    every = 1
    while len(rows[::every]) * len(columns[::every]) > POINTS_IN_TILE:
        every *= 2
    places = [r - context.y0 for r in rows[::every]], [c - context.x0 for c in columns[::every]]
    y, x = np.meshgrid(*places, indexing="ij")
    measures = measure_pixels(weights, y.ravel().tolist(), x.ravel().tolist())
    return {
        "y": rows[0] // MAP_STEP, "x": columns[0] // MAP_STEP, "size": [len(rows), len(columns)], "every": every,
        "measures": [float(f"{value:.5g}") for value in measures.ravel()],
    }  # fmt: skip


def collect_measures(result: DenoiseResult, name: str) -> MeasuredBurst:
    """Collect the measures of all tiles of a denoised burst."""
    H, W = result.spool.size
    maps = np.zeros((-(-H // MAP_STEP), -(-W // MAP_STEP), len(MEASURES)))
    for part in result.observations:
        (h, w), every = part["size"], part["every"]
        coarse = np.reshape(part["measures"], (-(-h // every), -(-w // every), len(MEASURES)))
        fine = coarse.repeat(every, 0).repeat(every, 1)[:h, :w]
        maps[part["y"] : part["y"] + h, part["x"] : part["x"] + w] = fine
    header, number = result.burst.header, result.frame_numbers[0]
    gain = result.burst.frames[number].gain
    levels = [level.scale_by_gain(gain) for level in result.noise.levels]
    error = np.concatenate(
        [_strip_error(result.spool, result.burst.spool, number, y, levels, gain) for y in range(0, H, 64 * MAP_STEP)]
    )
    picture = to_uint8(Renderer.from_header(result.spool, header).for_display.thumbnail(SHOWN_SIDE))
    colours = np.ascontiguousarray(np.broadcast_to(picture, (*picture.shape[:2], RGB_CHANNELS)))
    return MeasuredBurst(name, MAP_STEP, maps, error, colours, False, header.orientation)


def _strip_error(
    picture: FrameStore, frames: FrameStore, number: int, y: int, levels: Sequence[NoiseLevel], gain: float
) -> Doubles:
    """Compute the error of every MAP_STEP-th pixel of a strip of rows from y on."""
    H, W = picture.size
    window = Window(max(y - MAP_STEP, 0), min(y + 65 * MAP_STEP, H), 0, W)
    after = picture.read_window(0, window)[:-1] * np.float32(gain)
    whole = local_error(after, frames.read_window(number, window), levels)
    last = min(y + 64 * MAP_STEP, H)
    return whole[y - window.y0 : last - window.y0 : MAP_STEP, ::MAP_STEP]
