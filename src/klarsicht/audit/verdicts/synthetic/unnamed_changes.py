"""Changes that have no name, to be taught beside the families: tones of the whole image, tones under a soft mask at any
place, and smooth warps. Each is drawn as a family is (see `families`), but two draws of one share nothing that a person
would name, so they are not planted by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter, map_coordinates

from klarsicht.audit.verdicts.synthetic.planted_image import (
    PlantedImage,
    PlantFunction,
    mark_changes,
    random_colour,
    shorter_side,
)
from klarsicht.ground.arrays import Floats, Pixels

Generator = np.random.Generator
ToneChange = Callable[[Floats], Floats]  # of levels (H, W, 3), beyond 0 to 255, too
EVERY_LEVEL = np.arange(256.0)
WAVES = 4  # of a field of waves
MOVING = 0.65  # share of the masks that lie elsewhere in every image
INVERSE = 0.25  # share of the masks that change all but the form
SOFTNESS = (0.1, 1.2)  # of a mask's edge, in standard deviations of its field
SHARE_COVERED = (0.12, 0.7)  # share of the image within a mask's middle line


def draw_curve(rng: Generator) -> Floats:
    """Draw a smooth curve of tones (256,) through three to six points: half of them rise, the others go anywhere."""
    knots = np.linspace(0, 255, int(rng.integers(3, 7)))
    if rng.random() < 0.5:
        through = np.cumsum(rng.dirichlet(np.full(len(knots), 2.0))) * 255
    else:
        through = knots + rng.normal(0, rng.uniform(25, 100), len(knots))
    return np.asarray(np.clip(PchipInterpolator(knots, through)(EVERY_LEVEL), 0, 255))


def draw_curves(rng: Generator) -> ToneChange:
    """Draw curves of the channels, half of the time one for all, after the channels were mixed half of the time."""
    curves = [draw_curve(rng)] * 3 if rng.random() < 0.5 else [draw_curve(rng) for _ in range(3)]
    matrix, kind = np.eye(3), rng.random()
    if kind < 0.25:
        matrix = matrix + rng.normal(0, 0.2, (3, 3))
    elif kind < 0.5:
        matrix = np.tile(rng.dirichlet(np.full(3, 2.0)), (3, 1))
    opacity = rng.uniform(0.5, 1)

    def change(x: Floats) -> Floats:
        source = np.clip(x @ matrix.T, 0, 255)
        target = np.stack([np.interp(source[..., c], EVERY_LEVEL, curve) for c, curve in enumerate(curves)], -1)
        return np.asarray(x + opacity * (target - x))

    return change


def draw_veil(rng: Generator) -> ToneChange:
    colour, opacity = np.array(random_colour(rng), float), rng.uniform(0.4, 1)
    return lambda x: x + opacity * (colour - x)


def draw_light(rng: Generator) -> ToneChange:
    opacity = rng.uniform(0.35, 0.9)
    return lambda x: x + opacity * (255 - x)


def draw_gain(rng: Generator) -> ToneChange:
    """Draw a factor, darker by up to six or brighter by up to 2.5 times, of a tint of its own in two of five draws."""
    much = -rng.uniform(0.5, 1.8) if rng.random() < 0.5 else rng.uniform(0.5, 0.9)
    gain = np.exp(much + rng.normal(0, 0.3, 3) * (rng.random() < 0.4))
    return lambda x: x * gain


def draw_local_contrast(rng: Generator) -> ToneChange:
    """Draw more or less difference to the surroundings, of 3 to 12 % of the side."""
    width, much = rng.uniform(0.03, 0.12), rng.uniform(0.5, 0.9) * rng.choice([-1, 1.5])

    def change(x: Floats) -> Floats:
        by = width * min(x.shape[:2])
        return np.asarray(x + much * (x - gaussian_filter(x, (by, by, 0))))

    return change


def pick(rng: Generator, draws: Sequence[Callable[[Generator], ToneChange]], shares: Sequence[float]) -> ToneChange:
    """Draw one of several changes of tones."""
    return draws[int(rng.choice(len(draws), p=shares))](rng)


def change_tones(pixels: Pixels, change: ToneChange, opacity: Floats | float = 1.0) -> PlantedImage:
    """Change the tones of an image under an opacity (H, W, 1) in [0, 1]; of a grey one, as of equal channels."""
    x = pixels.astype(float)
    if pixels.ndim == 2:
        x = np.repeat(x[..., None], 3, -1)
    out = x + opacity * (np.clip(change(x), 0, 255) - x)
    return mark_changes(pixels, out.mean(-1) if pixels.ndim == 2 else out)


def draw_tones(rng: Generator) -> PlantFunction:
    """Draw a change of the tones of the whole image."""
    change = pick(rng, (draw_curves, draw_veil, draw_gain, draw_local_contrast), (0.7, 0.1, 0.1, 0.1))
    return lambda pixels, _: change_tones(pixels, change)


def grid(shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Compute rows (H, 1) and columns (1, W) of the centres of pixels, from -0.5 to 0.5."""
    h, w = shape[:2]
    return (np.arange(h)[:, None] + 0.5) / h - 0.5, (np.arange(w)[None] + 0.5) / w - 0.5


def draw_slope(rng: Generator, shape: tuple[int, ...]) -> Floats:
    (y, x), angle = grid(shape), rng.uniform(0, 2 * np.pi)
    return np.asarray(np.cos(angle) * y + np.sin(angle) * x)


def draw_blob(rng: Generator, shape: tuple[int, ...]) -> Floats:
    """Draw minus the distance to a place in the image or a little beyond its edge, on an ellipse."""
    (y, x), angle = grid(shape), rng.uniform(0, 2 * np.pi)
    (a, b), ratio = rng.uniform(-0.65, 0.65, 2), rng.uniform(0.5, 1)
    along = (y - a) * np.cos(angle) + (x - b) * np.sin(angle)
    across = (x - b) * np.cos(angle) - (y - a) * np.sin(angle)
    return np.asarray(-np.hypot(along, ratio * across))


def draw_waves(rng: Generator, shape: tuple[int, ...]) -> Floats:
    """Draw WAVES random waves of about one cycle an image."""
    y, x = grid(shape)
    out = np.zeros(shape[:2])
    for _ in range(WAVES):
        down, along = rng.normal(0, 1, 2)
        out += rng.normal() * np.cos(2 * np.pi * (down * y + along * x) + rng.uniform(0, 2 * np.pi))
    return out


def draw_soft_light(rng: Generator) -> PlantFunction:
    """Draw a change of tones under a soft mask: beyond a line, in a blob, or in the level set of a random field."""
    draw_field = (draw_slope, draw_blob, draw_waves)[int(rng.integers(3))]
    moves, inverse, seed = rng.random() < MOVING, rng.random() < INVERSE, int(rng.integers(2**31))
    share, softness = rng.uniform(*SHARE_COVERED), np.exp(rng.uniform(*np.log(SOFTNESS)))
    draws = (draw_veil, draw_gain, draw_light, draw_curves, draw_local_contrast)
    change = pick(rng, draws, (0.3, 0.3, 0.15, 0.2, 0.05))

    def put(pixels: Pixels, rng: Generator) -> PlantedImage:
        field = draw_field(rng if moves else np.random.default_rng(seed), pixels.shape)
        inside = (field - np.quantile(field, 1 - share)) / (softness * field.std() + 1e-9)
        opacity = 1 / (1 + np.exp(np.clip(2 * inside, -30, 30) * (1 if inverse else -1)))
        return change_tones(pixels, change, opacity[..., None])

    return put


def draw_warp(rng: Generator) -> PlantFunction:
    """Draw a smooth warp: shifts by a polynomial of degree 2 or 3 in the place, 1.5 to 8 % of the side in the mean."""
    degree, size = int(rng.integers(2, 4)), rng.uniform(0.015, 0.08)
    powers = [(i, j) for i in range(degree + 1) for j in range(degree + 1 - i) if i + j]
    weights = rng.normal(0, 1, (2, len(powers)))

    def put(pixels: Pixels, _: Generator) -> PlantedImage:
        y, x = grid(pixels.shape)
        shift = np.einsum("ap,phw->ahw", weights, np.stack([(2 * y) ** i * (2 * x) ** j for i, j in powers]))
        shift *= size * shorter_side(pixels) / np.sqrt((shift**2).sum(0).mean())
        at = np.indices(pixels.shape[:2]) + shift
        planes = np.moveaxis(np.atleast_3d(pixels).astype(float), -1, 0)
        shifted_planes = [map_coordinates(plane, at, order=1, mode="nearest") for plane in planes]
        return mark_changes(pixels, np.stack(shifted_planes, -1).reshape(pixels.shape))

    return put


UNNAMED: dict[str, Callable[[Generator], PlantFunction]] = {
    "soft-light": draw_soft_light, "tones": draw_tones, "warp": draw_warp,
}  # fmt: skip
