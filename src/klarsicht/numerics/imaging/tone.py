"""Tone curves between linear light and display or measurement scales: the tone curve, and the Anscombe transform. Every
curve takes and returns Values, a numpy array or a torch tensor, and can be differentiated."""

from __future__ import annotations

import sys
from typing import Any, TypeAlias

import numpy  # noqa: F401  _library looks it up in sys.modules

Values: TypeAlias = Any

GAMMA = 2.2

# The only free constants of G are its exponent and KNEE, where its linear part ends: value and slope are continuous.
POWER = 1 / 2.4
KNEE = 0.0031308
OFFSET = 1 / (1 / (KNEE**POWER * (1 - POWER)) - 1)  # a = .0557170
SLOPE_BELOW = (1 + OFFSET) * POWER * KNEE ** (POWER - 1)  # k0 = 12.71171
SLOPE_ABOVE = (1 + OFFSET) * POWER  # .439882

LEAST_STABILISED = 1.5**0.5  # the transform of zero light without read noise, 2 sqrt(3/8)


def tone_curve(x: Values) -> Values:
    """Apply the tone curve G of KPN (arXiv 1712.02327): k0 x below b, (1 + a) x^(1/2.4) - a up to 1, as sRGB, and a
    line of slope 0.439882 beyond. Value and slope are continuous."""
    xp = _library(x)
    power = (1 + OFFSET) * clip(x, KNEE, 1.0) ** POWER - OFFSET
    return xp.where(x < KNEE, SLOPE_BELOW * x, xp.where(x <= 1, power, 1 + SLOPE_ABOVE * (x - 1)))


def inverse_tone_curve(y: Values) -> Values:
    """Invert the tone curve: the x with G(x) = y, for every real y."""
    xp = _library(y)
    knee = SLOPE_BELOW * KNEE
    power = ((clip(y, knee, 1.0) + OFFSET) / (1 + OFFSET)) ** (1 / POWER)
    return xp.where(y < knee, y / SLOPE_BELOW, xp.where(y <= 1, power, 1 + (y - 1) / SLOPE_ABOVE))


def stabilise(x: Values, read: Any, shot: Any) -> Values:
    """Apply the generalised Anscombe transform, after which noise of variance read^2 + shot x, shot > 0, has variance
    about 1: f(x) = (2 / shot) sqrt(max(0, shot x + 3/8 shot^2 + read^2)), Starck, Murtagh and Bijaoui 1998."""
    return 2 / shot * clip(shot * x + 3 / 8 * shot**2 + read**2, 0.0) ** 0.5


def unstabilise(D: Values, read: Any, shot: Any) -> Values:
    """Apply the exact unbiased inverse of the Anscombe transform in closed form: the mean light y whose transform has
    mean D.

    With the light counted in electrons, z = y / shot (Makitalo and Foi 2013): z = D^2/4 - 1/8 - (read/shot)^2 +
    sqrt(3/2)/(4 D) - 11/(8 D^2) + 5 sqrt(3/2)/(8 D^3), within 0.06 electrons of the inverse by integration. D below
    f(0) of a sensor without read noise is clipped to it."""
    D = clip(D, LEAST_STABILISED)
    r = LEAST_STABILISED
    electrons = D * D / 4 - 1 / 8 - (read / shot) ** 2 + r / 4 / D - 11 / 8 / D**2 + 5 / 8 * r / D**3
    return electrons * shot


def _library(x: object) -> Any:
    """Return numpy or torch, according to the type of x; never imports torch itself."""
    return sys.modules["torch" if type(x).__module__.startswith("torch") else "numpy"]


def clip(x: Values, low: float | None, high: float | None = None) -> Values:
    return _library(x).clip(x, low, high)
