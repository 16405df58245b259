"""Motion during a burst: camera shake, and moving objects in front of the scene.

Scene coordinates are pixels of the crop; a frame has `scale` of them to a pixel. All shifts are (y, x).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from klarsicht.burst.synthesis.scenes import Geometry, Light, box_mean
from klarsicht.numerics.compiled.jit import compile_with

Vectors = npt.NDArray[np.float64]  # N 2
Flags = npt.NDArray[np.bool_]

SMALL_SHIFT = 2  # pixels: largest shift of most frames
MEAN_LARGE_SHIFTS = 1.5  # expected number of frames in eight with a large shift
FRAME_SHIFT, FRAME_TURN = 1.0, math.radians(0.08)  # deviation from frame to frame, hand-held: pixels and radians


@dataclass(frozen=True, eq=False)
class CameraPath:
    """The view of each frame: shifts (N, 2) of its centre in scene pixels, angles (N,) in radians about it, and zooms
    (N,), by which a frame shows more; None: all 1. Frame 0 is the reference, of shift and angle 0, zoom 1."""

    shifts: Vectors
    angles: npt.NDArray[np.float64]
    zooms: npt.NDArray[np.float64] | None = None

    def displacements(self, scale: int) -> Vectors:
        """Compute the shift (N, 2), in frame pixels, that the content at the reference's centre has in each frame."""
        return np.array([_rotate_back(-shift / scale, t) for shift, t in zip(self.shifts, self.angles, strict=True)])


@dataclass(frozen=True, eq=False)
class Mover:
    """A moving object: its light (C, h, w), its opacity `cover` (h, w) in [0, 1], and its top left corners (N, 2) in
    scene pixels. visible: (N,), the frames that show it."""

    light: Light
    cover: Light
    corners: npt.NDArray[np.int64]
    visible: Flags


DrawCameraPath = Callable[[np.random.Generator, int, Geometry], CameraPath]
DrawVisibility = Callable[[np.random.Generator, int], Flags]


@dataclass(frozen=True)
class Motion:
    """A motion model. draw_visibility: draws the frames that show a moving object, or None where no object moves."""

    draw_path: DrawCameraPath
    draw_visibility: DrawVisibility | None = None


def protocol_camera(rng: np.random.Generator, frames: int, geometry: Geometry) -> CameraPath:
    """Draw a camera path as KPN does: p = min(Poisson(1.5) / 8, 1) once a burst; a frame is shifted by up to `reach`
    pixels with probability p, else by up to 2, in whole scene pixels."""
    p = min(rng.poisson(MEAN_LARGE_SHIFTS) / 8, 1.0)
    shifts = np.zeros((frames, 2))
    for i in range(1, frames):
        pixels = geometry.reach if rng.random() < p else min(SMALL_SHIFT, geometry.reach)
        most = geometry.scale * pixels
        shifts[i] = rng.integers(-most, most + 1, 2)
    return CameraPath(shifts, np.zeros(frames))


def shaken_camera(rng: np.random.Generator, frames: int, geometry: Geometry) -> CameraPath:
    """Draw the path of a hand-held camera: a random walk of shifts and angles, clipped to stay within the crop."""
    angles = np.cumsum(FRAME_TURN * rng.standard_normal(frames))
    shifts = np.cumsum(FRAME_SHIFT * geometry.scale * rng.standard_normal((frames, 2)), 0)
    angles, shifts = angles - angles[0], shifts - shifts[0]
    swing = geometry.scale * math.hypot(geometry.height, geometry.width) / 2
    most = geometry.margin - 1
    angles = np.clip(angles, -most / swing, most / swing)
    room = np.maximum(0, most - np.abs(angles) * swing)[:, None]
    return CameraPath(np.clip(shifts, -room, room), angles)


def tripod_camera(rng: np.random.Generator, frames: int, geometry: Geometry) -> CameraPath:
    """Return the path of a camera that does not move: shifts and angles are 0."""
    return CameraPath(np.zeros((frames, 2)), np.zeros(frames))


def whole_pixel_camera(rng: np.random.Generator, frames: int, geometry: Geometry) -> CameraPath:
    """Draw a path as `protocol_camera` does, rounded to whole pixels of a frame."""
    path = protocol_camera(rng, frames, geometry)
    return CameraPath(np.rint(path.shifts / geometry.scale) * geometry.scale, path.angles)


def always_visible(rng: np.random.Generator, frames: int) -> Flags:
    """Return the visibility (N,) of an object that every frame shows."""
    return np.ones(frames, bool)


def partly_visible(rng: np.random.Generator, frames: int) -> Flags:
    """Draw the visibility (N,) of an object that appears or disappears between two frames."""
    change = rng.integers(1, max(2, frames))
    here = np.arange(frames) < change
    return here if rng.random() < 0.5 else ~here


MOTIONS = {
    "still": Motion(protocol_camera),
    "shaken": Motion(shaken_camera),
    "moving": Motion(protocol_camera, always_visible),
    "occluded": Motion(protocol_camera, partly_visible),
}
TRAINING_MOTIONS = {**MOTIONS, "tripod": Motion(tripod_camera), "whole": Motion(whole_pixel_camera)}
"""Motions of the evaluation, and those that are only taught."""


def draw_mover(rng: np.random.Generator, source: Light, frames: int, geometry: Geometry, visible: Flags) -> Mover:
    """Draw an ellipse cut from another scene that crosses the frame at 1 to 4 pixels a frame in a straight line."""
    side = geometry.scale * min(geometry.height, geometry.width)
    height, width = (int(side * share) for share in rng.uniform(0.12, 0.35, 2))
    y, x = (rng.integers(0, max(1, room - size)) for room, size in zip(source.shape[-2:], (height, width), strict=True))
    light = source[:, y : y + height, x : x + width]
    direction, speed = rng.uniform(0, 2 * math.pi), geometry.scale * rng.uniform(1, 4)
    centre = np.array(geometry.crop) / 2 + side * rng.uniform(-0.25, 0.25, 2)
    steps = np.arange(frames)[:, None] - rng.integers(0, frames)
    places = centre + steps * speed * np.array([math.sin(direction), math.cos(direction)])
    corners = np.rint(places - np.array(light.shape[-2:]) / 2).astype(np.int64)
    return Mover(light, ellipse(*light.shape[-2:]), corners, visible)


def ellipse(height: int, width: int) -> Light:
    """Compute the opacity (H, W) of the largest ellipse: 1 inside, 0 outside, with a slope of two pixels between."""
    y = (np.arange(height, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / height) - 1
    x = (np.arange(width, dtype=np.float32) + np.float32(0.5)) * np.float32(2 / width) - 1
    inside = 1 - np.sqrt(y[:, None] * y[:, None] + x * x)
    return np.clip(inside * np.float32(min(height, width) / 4), 0, 1)


def composite_movers(scene: Light, movers: tuple[Mover, ...], frame: int) -> Light:
    """Composite each mover over the scene (C, H, W): (1 - cover) scene + cover light. Returns a copy."""
    image = scene.copy()
    for mover in (m for m in movers if m.visible[frame]):
        there, here = _overlap(scene.shape[-2:], mover, frame)
        image[:, *there] += mover.cover[here] * (mover.light[:, *here] - image[:, *there])
    return image


def path_mask(movers: tuple[Mover, ...], geometry: Geometry) -> Flags:
    """Compute the mask (H, W) of the reference's pixels that a mover covers in any frame."""
    mask = np.zeros(geometry.crop, bool)
    for mover in movers:
        for frame in np.flatnonzero(mover.visible):
            there, here = _overlap(mask.shape, mover, int(frame))
            mask[there] |= mover.cover[here] > 0
    m, s = geometry.margin, geometry.scale
    window = mask[m : mask.shape[0] - m, m : mask.shape[1] - m]
    blocks = window.reshape(geometry.height, s, geometry.width, s)
    return np.asarray(blocks.any((1, 3)))


def render_frame(scene: Light, path: CameraPath, frame: int, geometry: Geometry) -> Light:
    """Render frame i of the scene (C, H, W): (C, height, width), each pixel a mean over scale x scale."""
    (dy, dx), angle = path.shifts[frame], float(path.angles[frame])
    s, m, zoom = geometry.scale, geometry.margin, 1.0 if path.zooms is None else float(path.zooms[frame])
    if angle == 0 and zoom == 1 and dy == int(dy) and dx == int(dx):
        y, x = m + int(dy), m + int(dx)
        return box_mean(scene[:, y : y + s * geometry.height, x : x + s * geometry.width], s)
    out = np.zeros((scene.shape[0], geometry.height, geometry.width), np.float32)
    _sample_rotated(scene, float(dy), float(dx), zoom * math.cos(angle), zoom * math.sin(angle), s, out)
    return out


@compile_with(set())
def _sample_rotated(scene: Light, dy: float, dx: float, cos: float, sin: float, scale: int, out: Light) -> None:
    """Add the mean of bilinear samples at centre + shift + R q, q in a frame pixel; cos and sin times the zoom."""
    C, H, W = scene.shape
    _, height, width = out.shape
    y_most, x_most, share = np.float32(H - 1.001), np.float32(W - 1.001), np.float32(1 / scale**2)
    for row in range(height * scale):
        v = row - (height * scale - 1) / 2
        y_0, x_0 = (H - 1) / 2 + dy + cos * v, (W - 1) / 2 + dx + sin * v
        for column in range(width * scale):
            u = column - (width * scale - 1) / 2
            y = min(max(np.float32(y_0 - sin * u), np.float32(0)), y_most)
            x = min(max(np.float32(x_0 + cos * u), np.float32(0)), x_most)
            a, b = np.int32(y), np.int32(x)
            fy, fx = y - np.float32(a), x - np.float32(b)
            i, j = row // scale, column // scale
            for c in range(C):
                top = scene[c, a, b] + fx * (scene[c, a, b + 1] - scene[c, a, b])
                low = scene[c, a + 1, b] + fx * (scene[c, a + 1, b + 1] - scene[c, a + 1, b])
                out[c, i, j] += share * (top + fy * (low - top))


def _rotate_back(vector: npt.NDArray[np.float64], angle: float) -> tuple[float, float]:
    """Rotate a vector (y, x) by minus the angle."""
    (y, x), cos, sin = vector.tolist(), math.cos(angle), math.sin(angle)
    return cos * y + sin * x + 0.0, cos * x - sin * y + 0.0


def _overlap(size: tuple[int, ...], mover: Mover, frame: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of the scene that a mover covers, and the slices of the mover that lie within the scene."""
    there, here = [], []
    for room, corner, extent in zip(size, mover.corners[frame].tolist(), mover.cover.shape, strict=True):
        start, stop = min(max(corner, 0), room), max(min(corner + extent, room), 0)
        there.append(slice(start, max(start, stop)))
        here.append(slice(start - corner, max(start, stop) - corner))
    return (there[0], there[1]), (here[0], here[1])
