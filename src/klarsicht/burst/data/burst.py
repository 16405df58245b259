"""The burst: linear frames of one scene, the first of which the others are to help."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.bayer import places, to_mosaic, to_planes
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.imaging.tone import Values

Frames = npt.NDArray[np.float32]  # N C H W, linear: 0 the black level, 1 the white level
Flags = npt.NDArray[np.bool_]

REFERENCE = 0
PLANES = 4


@dataclass(frozen=True, eq=False)
class Burst:
    """N linear frames (N, C, H, W), float32, 0 the black level and 1 the white level; frame 0 is the
    reference.

    C is 1 for grey frames, 3 for RGB, 4 for the half-resolution planes R, G, G, B of a mosaic.
    noise: of every frame, in the same units. valid: (N,) bool, which frames exist (empty, the default: all);
    the others are zero. black_level, white_level: the sensor's own numbers, to write photographs back;
    colour_filter: the pattern of the mosaic that the planes came from. Raises InputError.
    """

    frames: Frames
    noise: NoiseLevel
    valid: Flags = field(default_factory=lambda: np.zeros(0, bool))
    black_level: float | tuple[float, ...] = 0.0
    white_level: float = 1.0
    colour_filter: str | None = None

    def __post_init__(self) -> None:
        _check_frames(self.frames)
        valid = self.valid if self.valid.size else np.ones(len(self.frames), bool)
        object.__setattr__(self, "valid", valid)
        if valid.shape != (len(self.frames),) or not valid[REFERENCE]:
            rule = f"one flag a frame ({len(self.frames)}), the reference among the valid ones"
            raise InputError("validity of frames", got=valid.tolist(), rule=rule)
        if self.colour_filter is not None:
            places(self.colour_filter)
            if self.frames.shape[1] != PLANES:
                got = f"{self.frames.shape[1]} channels"
                raise InputError("burst behind a colour filter", got=got, rule="needs four planes, R G G B")

    @classmethod
    def from_mosaic(cls, mosaic: npt.NDArray[np.float32], noise: NoiseLevel, pattern: str = "RGGB") -> Burst:
        """From mosaics (N, H, W): planes at half the resolution. Raises InputError for odd sides."""
        return cls(to_planes(mosaic, pattern), noise, colour_filter=pattern)

    @property
    def count(self) -> int:
        """How many frames are valid."""
        return int(np.count_nonzero(self.valid))

    @property
    def reference(self) -> Frames:
        """(C, H, W)."""
        reference: Frames = self.frames[REFERENCE]
        return reference

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame (of its planes, for a mosaic)."""
        height, width = self.frames.shape[-2:]
        return height, width

    @property
    def deviation_map(self) -> Frames:
        """(C, H, W): sqrt(read^2 + shot max(0, X_1)), what a network is told about the noise."""
        map_: Frames = self.noise.deviation(self.reference)
        return map_

    @property
    def mosaic(self) -> Frames:
        """(N, 2 H, 2 W), back from the planes. Raises UsageError where there is no colour filter."""
        if self.colour_filter is None:
            raise UsageError("this burst is not a mosaic", got=f"frames {self.frames.shape}")
        full: Frames = to_mosaic(self.frames, self.colour_filter)
        return full

    def with_frames(self, frames: Frames) -> Burst:
        """The same burst with other frames (aligned, padded, scaled)."""
        return replace(self, frames=frames)

    def amplified(self, gain: float) -> Burst:
        """Every frame times g, with the noise that follows."""
        return replace(self, frames=self.frames * np.float32(gain), noise=self.noise.amplified(gain))

    def padded(self, stride: int) -> Burst:
        """Mirrored downwards and to the right until both sides are multiples of the stride; `cropped` undoes
        it."""
        below, right = (-side % stride for side in self.size)
        return self.with_frames(np.pad(self.frames, ((0, 0), (0, 0), (0, below), (0, right)), "symmetric"))

    def filled(self, count: int) -> Burst:
        """With zero frames marked invalid until there are `count`. Raises UsageError if there are more
        already."""
        missing = count - len(self.frames)
        if missing < 0:
            rule = f"a burst of {len(self.frames)} frames cannot be filled to fewer"
            raise UsageError("number of frames", got=count, rule=rule)
        zeros = np.zeros((missing, *self.frames.shape[1:]), np.float32)
        valid = np.concatenate([self.valid, np.zeros(missing, bool)])
        return replace(self, frames=np.concatenate([self.frames, zeros]), valid=valid)


def cropped(image: Values, size: tuple[int, int]) -> Values:
    """The top left (..., H, W) of an image or of any maps: what remains when the padding is taken off."""
    height, width = size
    return image[..., :height, :width]


def _check_frames(frames: Frames) -> None:
    if frames.ndim != 4 or frames.dtype != np.float32 or 0 in frames.shape:
        rule = "frames must be float32 of shape (N, C, H, W), none of them 0"
        raise InputError("burst", got=f"{frames.dtype} {frames.shape}", rule=rule)
