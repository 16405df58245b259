"""Synthetic bursts: misaligned noisy frames with their ground truth, from clean photographs (KPN, arXiv 1712.02327):
photograph -> linear light -> crop -> shifted and rotated frames -> box mean -> exposure -> noise. Nothing is clipped or
rounded. The same generator gives the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import Burst
from klarsicht.burst.data.cokriging import interpolate_mosaic, take_samples, white_variance
from klarsicht.burst.synthesis import motion, scenes
from klarsicht.burst.synthesis.motion import MOTIONS, Flags, Motion, Vectors
from klarsicht.burst.synthesis.scenes import KPN, Geometry, Light, Photograph
from klarsicht.burst.synthesis.unprocessing import camera_noise, draw_camera
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

MOST_MIXED = 1.5  # of the mixing of colours by a measured camera; what is above 1 is 1
CANDIDATES = 4  # crops of which a textured burst takes one
View = Callable[[Light], Light]
DrawNoise = Callable[[np.random.Generator], NoiseLevel]


class CameraView(NamedTuple):
    """View of a scene by a camera. expose: converts linear frames (N, C, H, W) to the sensor's channels. balance: the
    gains of R, G and B with which a grey surface has equal samples."""

    expose: View
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Kind:
    """A kind of frames. light: decodes a photograph to its scene, once. camera: drawn once a burst."""

    light: Callable[[Photograph], Light]
    camera: Callable[[np.random.Generator], CameraView]


def identity_camera(rng: np.random.Generator) -> CameraView:
    """Return a camera that leaves the light unchanged."""
    return CameraView(lambda frames: frames)


def planes_camera(rng: np.random.Generator) -> CameraView:
    """Draw a camera that records the planes R, G, G, B."""
    camera = draw_camera(rng)
    return CameraView(camera.expose, camera.balance)


def colours_camera(rng: np.random.Generator) -> CameraView:
    """Draw a camera, and record its colours at every pixel. A third of the cameras mix colours as measured ones do, the
    others less, down to not at all, so that saturated scenes are seen, too."""
    camera = draw_camera(rng).separate_colours(max(0.0, 1 - rng.uniform(0, MOST_MIXED)))
    return CameraView(camera.record, camera.balance)


KINDS = {
    "grey": Kind(scenes.grey_light, identity_camera),
    "rgb": Kind(scenes.rgb_light, identity_camera),
    "mosaic": Kind(scenes.untoned_light, planes_camera),
}
GREY_FROM_RGB = Kind(scenes.rgb_light, lambda rng: CameraView(lambda frames: frames.mean(-3, keepdims=True)))
"""Grey frames rendered from scenes that are kept in colour."""
CAMERA_COLOURS = Kind(scenes.untoned_light, colours_camera)
"""RGB frames in the colours of a camera, without white balance."""


def kpn_noise(rng: np.random.Generator) -> NoiseLevel:
    """Draw sigma_read = 10^U(-3, -1.5), sigma_shot = 10^U(-2, -1)."""
    return NoiseLevel(read=10 ** rng.uniform(-3, -1.5), shot=10 ** (2 * rng.uniform(-2, -1)))


def wide_noise(rng: np.random.Generator) -> NoiseLevel:
    """Draw sigma_read = 10^U(-3, -1), sigma_shot = 10^U(-2, -.7): gains 4 and 8 of the protocol lie inside."""
    return NoiseLevel(read=10 ** rng.uniform(-3, -1), shot=10 ** (2 * rng.uniform(-2, -0.7)))


def raw_noise(rng: np.random.Generator) -> NoiseLevel:
    """Draw the noise of cameras, or of the wide range, with probability 1/2 each."""
    return (camera_noise if rng.random() < 0.5 else wide_noise)(rng)


NOISES: dict[str, DrawNoise] = {"kpn": kpn_noise, "wide": wide_noise, "camera": camera_noise, "raw": raw_noise}


@dataclass(frozen=True)
class Recipe:
    """The distribution of synthetic bursts. exposures: the range of log10 w. min_frames: the least number of valid
    frames (missing ones are zero, the last ones). orientations: 8 turns and mirrors the crop at random. smallest_scale:
    scenes too small for the geometry are used at the largest scale from this one on at which they fit. textured: share
    of the bursts whose crop is the most textured of CANDIDATES. mosaic: the cell of the colour filter behind which the
    noisy RGB frames are sampled, and from which they are interpolated; None: each pixel has all colours."""

    kind: Kind = KINDS["grey"]
    motion: Motion = MOTIONS["still"]
    noise: DrawNoise = kpn_noise
    geometry: Geometry = KPN
    frames: int = 8
    min_frames: int = 8
    exposures: tuple[float, float] = (-1.0, 0.0)
    orientations: int = 1
    smallest_scale: int | None = None
    textured: float = 0.0
    mosaic: str | None = None

    def __post_init__(self) -> None:
        if not (1 <= self.min_frames <= self.frames and 1 <= self.orientations <= 8):
            rule = "needs 1 <= min_frames <= frames and 1 <= orientations <= 8"
            raise UsageError("recipe of bursts", got=(self.min_frames, self.frames, self.orientations), rule=rule)


@dataclass(frozen=True, eq=False)
class CleanBurst:
    """The frames of a burst without noise, at exposure 1: (N, C, H, W), frame 0 the truth. displacements: (N, 2), the
    shift (y, x) in frame i of the content at the reference's centre, in pixels of the frame before any mosaic. angles:
    (N,), radians. path: (H, W), the pixels that a moving object covered, in the same pixels."""

    frames: Light
    displacements: Vectors
    angles: npt.NDArray[np.float64]
    path: Flags
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class SyntheticBurst:
    """A noisy burst, its clean reference (C, H, W) and exposure w, and the clean burst that it was made from."""

    burst: Burst
    truth: Light
    exposure: float
    clean: CleanBurst


class Batch(NamedTuple):
    """Bursts for training: frames (B, N, C, H, W), truth (B, C, H, W), exposure, read and shot (B,), valid (B, N)."""

    frames: Light
    truth: Light
    exposure: Light
    read: Light
    shot: Light
    valid: Flags


def clean_burst(crop: Light, other: Light, recipe: Recipe, rng: np.random.Generator) -> CleanBurst:
    """Render the frames of a crop (C, H, W) of `recipe.geometry.crop`; moving objects are cut from the other scene."""
    geometry, draw_visibility = recipe.geometry, recipe.motion.draw_visibility
    path = recipe.motion.draw_path(rng, recipe.frames, geometry)
    visibilities = () if draw_visibility is None else (draw_visibility(rng, recipe.frames),)
    movers = tuple(motion.draw_mover(rng, other, recipe.frames, geometry, visible) for visible in visibilities)
    view = recipe.kind.camera(rng)
    seen = (motion.composite_movers(crop, movers, i) if movers else crop for i in range(recipe.frames))
    frames = np.stack([motion.render_frame(scene, path, i, geometry) for i, scene in enumerate(seen)])
    mask = motion.path_mask(movers, geometry)
    return CleanBurst(view.expose(frames), path.displacements(geometry.scale), path.angles, mask, view.balance)


def random_crop(scene: Light, recipe: Recipe, rng: np.random.Generator) -> Light:
    """Draw a crop of the recipe's size, in a random orientation if the recipe has several."""
    turn = int(rng.integers(recipe.orientations))
    size = recipe.geometry.crop[::-1] if turn & 4 else recipe.geometry.crop
    y, x = (int(rng.integers(room - need + 1)) for room, need in zip(scene.shape[-2:], size, strict=True))
    return scenes.orient_crop(scene[:, y : y + size[0], x : x + size[1]], turn)


def measure_texture(crop: Light, geometry: Geometry) -> float:
    """Compute the mean absolute difference of neighbouring pixels in the reference frame of a crop (C, H, W), in square
    roots of light: dark and bright texture count alike."""
    m = geometry.margin
    reference = scenes.box_mean(crop[:, m : crop.shape[1] - m, m : crop.shape[2] - m], geometry.scale).mean(0)
    seen = np.sqrt(reference)
    return float(np.abs(np.diff(seen, axis=0)).mean() + np.abs(np.diff(seen, axis=1)).mean())


def draw_crop(library: tuple[Light, ...], index: int, recipe: Recipe, rng: np.random.Generator) -> tuple[Light, Recipe]:
    """Draw a crop of a scene of the library, and the recipe at the scale that fits. Raises ImageError if none does."""
    scene = library[index]
    own_recipe = recipe
    if recipe.smallest_scale is not None:
        own_recipe = replace(recipe, geometry=scenes.fit_scale(recipe.geometry, scene, recipe.smallest_scale))
    scenes.check_size(scene, own_recipe.geometry, index)
    return random_crop(scene, own_recipe, rng), own_recipe


def draw_burst(library: tuple[Light, ...], recipe: Recipe, rng: np.random.Generator) -> SyntheticBurst:
    """Draw one burst from a library of scenes. Raises ImageError where the drawn scene is smaller than the crop."""
    index, another = (int(rng.integers(len(library))) for _ in range(2))
    crop, own_recipe = draw_crop(library, index, recipe, rng)
    if recipe.textured and rng.random() < recipe.textured:
        others = [draw_crop(library, int(rng.integers(len(library))), recipe, rng) for _ in range(CANDIDATES - 1)]
        crop, own_recipe = max(
            [(crop, own_recipe), *others], key=lambda drawn: measure_texture(drawn[0], drawn[1].geometry)
        )
    clean = clean_burst(crop, library[another], own_recipe, rng)
    exposure = 10 ** rng.uniform(*recipe.exposures)
    level = recipe.noise(rng)
    light = clean.frames * np.float32(exposure)
    frames = level.sample(light, rng)
    if recipe.mosaic is not None:
        frames = interpolate_frames(frames, recipe.mosaic, clean.balance)
        level = level.scale_variance(white_variance(recipe.mosaic))
    valid = np.arange(recipe.frames) < rng.integers(recipe.min_frames, recipe.frames, endpoint=True)
    frames[~valid] = 0
    balance = (1.0, 1.0, 1.0) if recipe.mosaic is None else clean.balance
    burst = Burst(frames, level, valid, colour_filter=recipe.mosaic, balance=balance)
    return SyntheticBurst(burst, light[0], exposure, clean)


def interpolate_frames(frames: Light, cell: str, balance: tuple[float, float, float]) -> Light:
    """Sample frames (N, 3, H, W) behind the colour filter of that cell, and interpolate their colours again."""
    return np.stack([interpolate_mosaic(take_samples(frame, cell), cell, balance) for frame in frames])


def draw_batch(library: tuple[Light, ...], recipe: Recipe, rng: np.random.Generator, size: int) -> Batch:
    """Draw `size` bursts in the order of the generator."""
    drawn = [draw_burst(library, recipe, rng) for _ in range(size)]
    levels = [np.array([b.exposure, b.burst.noise.read, b.burst.noise.shot], np.float32) for b in drawn]
    rows = [(b.burst.frames, b.truth, *three, b.burst.valid) for b, three in zip(drawn, levels, strict=True)]
    return Batch(*(np.stack(column) for column in zip(*rows, strict=True)))
