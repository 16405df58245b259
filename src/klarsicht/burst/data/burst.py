"""The burst: linear frames of one scene, the first of which is the reference that the others help to denoise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.bayer import cell_offsets, to_mosaic, to_planes
from klarsicht.burst.data.cokriging import is_x_trans
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.user_arguments import check_fields
from klarsicht.ground.user_arrays import as_numbers
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

Frames = npt.NDArray[np.float32]  # N C H W, linear: 0 the black level, 1 the white level
Flags = npt.NDArray[np.bool_]

REFERENCE = 0
RGB_CHANNELS, PLANES = 3, 4


@dataclass(frozen=True, eq=False)
class Burst:
    """N linear frames (N, C, H, W), float32, with 0 the black level and 1 the white level; frame 0 is the reference.

    C is 1 for grey frames, 3 for RGB, 4 for the half-resolution planes R, G, G, B of a mosaic. noise: of every frame.
    valid: (N,) bool, which frames exist (empty: all); the others are zero. black_level, white_level: the sensor's own.
    colour_filter: the cell of the mosaic that the planes came from, or from which RGB frames were interpolated (their
    noise is then told as that of white noise, cokriging.white_variance), or None. balance: the gains of R, G and B with
    which they were interpolated.

    Raises InputError for frames or flags of another shape or type, or a colour filter that does not fit them, and
    UsageError for another field of another kind.
    """

    MADE_BY: ClassVar = "burst.Burst(frames, burst.NoiseLevel(read, shot)) makes one."

    frames: Frames
    noise: NoiseLevel
    valid: Flags = field(default_factory=lambda: np.zeros(0, bool))
    black_level: float | tuple[float, ...] = 0.0
    white_level: float = 1.0
    colour_filter: str | None = None
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if hasattr(self.frames, "detach"):  # a tensor
            object.__setattr__(self, "frames", self.frames.detach().cpu().numpy())
        _check_frames(self.frames)
        check_fields(self)
        flags = as_numbers("validity of frames", self.valid)
        valid = flags if flags.shape != (0,) else np.ones(len(self.frames), bool)
        object.__setattr__(self, "valid", valid)
        if valid.dtype != bool or valid.shape != (len(self.frames),) or not valid[REFERENCE]:
            rule = f"one flag a frame ({len(self.frames)}), the reference among the valid ones"
            raise InputError("validity of frames", got=valid.tolist(), rule=rule)
        if self.colour_filter is not None:
            if not is_x_trans(self.colour_filter):
                cell_offsets(self.colour_filter)
            allowed = (RGB_CHANNELS,) if is_x_trans(self.colour_filter) else (RGB_CHANNELS, PLANES)
            if self.frames.shape[1] not in allowed:
                got = f"{self.frames.shape[1]} channels"
                rule = "needs the planes R G G B of a Bayer mosaic, or three interpolated colours"
                raise InputError("burst behind a colour filter", got=got, rule=rule)

    @classmethod
    def from_mosaic(cls, mosaic: npt.NDArray[np.float32], noise: NoiseLevel, pattern: str = "RGGB") -> Burst:
        """Build a burst from mosaics (N, H, W), as planes at half the resolution. Raises InputError for odd sides."""
        return cls(to_planes(mosaic, pattern), noise, colour_filter=pattern)

    @property
    def count(self) -> int:
        """The number of valid frames."""
        return int(np.count_nonzero(self.valid))

    @property
    def reference(self) -> Frames:
        """The reference frame (C, H, W)."""
        return self.frames[REFERENCE]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame (of its planes, for a mosaic)."""
        height, width = self.frames.shape[-2:]
        return height, width

    @property
    def mosaic(self) -> Frames:
        """The mosaics (N, 2 H, 2 W), interleaved from the planes. Raises UsageError where there are none."""
        if self.colour_filter is None or self.frames.shape[1] != PLANES:
            raise UsageError("this burst is not a mosaic", got=f"frames {self.frames.shape}")
        return to_mosaic(self.frames, self.colour_filter)

    def with_frames(self, frames: Frames) -> Burst:
        """Return the same burst with other frames (aligned, padded, scaled)."""
        return replace(self, frames=frames)


def _check_frames(frames: Frames) -> None:
    """Raise InputError unless the frames are non-empty float32 of shape (N, C, H, W)."""
    rule, remedy = "frames must be float32 of shape (N, C, H, W), none of them 0", "np.stack(frames).astype(np.float32)"
    if not isinstance(frames, np.ndarray):
        raise InputError("burst", got=type(frames).__name__, rule=rule, remedy=remedy)
    if frames.ndim != 4 or frames.dtype != np.float32 or 0 in frames.shape:
        remedy = remedy if frames.ndim == 4 and 0 not in frames.shape else ""
        if frames.ndim == 3 and 0 not in frames.shape:
            remedy = "Grey frames are frames[:, None]; one picture in colour is no burst."
        elif remedy and frames.dtype.kind in "ui":
            remedy = "(np.stack(frames) / white).astype(np.float32), where white is the code of white, such as 65535"
        raise InputError("burst", got=f"{frames.dtype} {frames.shape}", rule=rule, remedy=remedy)
