"""Sensor noise model: independent, with mean 0 and variance sigma_read^2 + sigma_shot^2 x at linear light x, in units
of the white level. The functions take numpy arrays or torch tensors; `read` and `shot` broadcast against x."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from klarsicht.ground.errors import InputError, UsageError, unknown_name
from klarsicht.numerics.imaging.tone import Values, clip, stabilise, unstabilise

Array = npt.NDArray[np.float32]


def variance(x: Values, read: Any, shot: Any) -> Values:
    """Compute the noise variance read^2 + shot max(0, x)."""
    return read**2 + shot * clip(x, 0.0)


def deviation(x: Values, read: Any, shot: Any) -> Values:
    """Compute the deviation map of KPN (arXiv 1712.02327), sqrt(read^2 + shot max(0, x)), directly from a noisy x."""
    return variance(x, read, shot) ** 0.5


def add_noise(x: Values, z: Values, read: Any, shot: Any) -> Values:
    """Add noise: x + deviation(x) z for standard normal z, without clipping or rounding."""
    return x + deviation(x, read, shot) * z


@dataclass(frozen=True)
class NoiseLevel:
    """Noise parameters of one linear frame in units of its white level.

    Attributes:
        read: sigma_read, a standard deviation.
        shot: sigma_shot^2, the variance coefficient.

    Raises:
        UsageError: a value that is negative, not finite or no number.
    """

    MADE_BY: ClassVar = "burst.NoiseLevel(read=0.01, shot=0.002) makes one, in units of white."

    read: float
    shot: float

    def __post_init__(self) -> None:
        rule = "read and shot must be finite and not negative"
        try:
            usable = 0 <= self.read < math.inf and 0 <= self.shot < math.inf
        except (TypeError, ValueError, RuntimeError) as error:  # texts, None, arrays and tensors of several numbers
            raise UsageError("noise level", got=self, rule=f"{rule}, one number each") from error
        if not usable:
            raise UsageError("noise level", got=self, rule=rule)

    @classmethod
    def from_profile(cls, S: float, O: float) -> NoiseLevel:  # noqa: E741 - the letters of the standard
        """Convert one plane's pair of the DNG tag NoiseProfile (51041): variance S x + O. Raises InputError."""
        if not (0 <= S < math.inf and 0 <= O < math.inf):
            rule = "both numbers of a NoiseProfile must be finite and not negative"
            raise InputError("noise profile", got=(S, O), rule=rule, remedy="Give the noise level by hand.")
        return cls(math.sqrt(O), S)

    @property
    def profile(self) -> tuple[float, float]:
        """The pair (S, O) of the DNG tag NoiseProfile."""
        return self.shot, self.read**2

    @property
    def shot_deviation(self) -> float:
        """Standard deviation sigma_shot of shot noise at the white level."""
        return math.sqrt(self.shot)

    def variance(self, x: Values) -> Values:
        """Compute the noise variance at light x."""
        return variance(x, self.read, self.shot)

    def deviation(self, x: Values) -> Values:
        """Compute the noise deviation at light x."""
        return deviation(x, self.read, self.shot)

    def sample(self, x: Array, rng: np.random.Generator) -> Array:
        """Draw a noisy observation of the clean float32 light x, of any shape."""
        z = rng.standard_normal(x.shape, dtype=np.float32)
        noisy: Array = add_noise(x, z, np.float32(self.read), np.float32(self.shot))
        return noisy

    def stabilise(self, x: Values) -> Values:
        """Transform to a scale on which the noise has deviation 1 everywhere; without shot noise x / read."""
        return stabilise(x, self.read, self.shot) if self.shot else x / self.read

    def unstabilise(self, D: Values) -> Values:
        """Apply the unbiased inverse of `stabilise`; see `tone.unstabilise`."""
        return unstabilise(D, self.read, self.shot) if self.shot else D * self.read

    def scale_by_gain(self, gain: float) -> NoiseLevel:
        """Return the noise level of y = g x: variance g^2 read^2 + g shot y."""
        return NoiseLevel(gain * self.read, gain * self.shot)

    def scale_variance(self, factor: float) -> NoiseLevel:
        """Return the noise level of that many times the variance."""
        return NoiseLevel(math.sqrt(factor) * self.read, factor * self.shot)

    def average_frames(self, frames: int) -> NoiseLevel:
        """Return the noise level of the mean of this number of frames of the same scene."""
        return NoiseLevel(self.read / math.sqrt(frames), self.shot / frames)


GAINS = {
    1: NoiseLevel(read=10**-2.2, shot=10**-2.57),
    2: NoiseLevel(read=10**-1.8, shot=10**-2.21),
    4: NoiseLevel(read=10**-1.44, shot=10**-1.84),
    8: NoiseLevel(read=10**-1.07, shot=10**-1.48),
}
"""Gains of the synthetic test sets of KPN. (The paper of basis prediction networks, arXiv 1912.04421, prints
the two numbers of each pair in the other order, which does not fit the pictures that the authors of KPN
published.)"""


def noise_level(gain: int) -> NoiseLevel:
    """Return the noise level of a gain. Raises UsageError for a gain that is not among GAINS."""
    if gain not in GAINS:
        raise unknown_name("gain", str(gain), map(str, GAINS))
    return GAINS[gain]
