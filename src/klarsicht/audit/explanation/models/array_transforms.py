"""Transforms that take arrays instead of 8-bit pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.ground.pictures.array_images import ARRAY_TYPES, ArrayForm
from klarsicht.ground.user_arguments import check_fields

UNIT: Final = 1.0  # white of floats, where it is not said


@dataclass(frozen=True)
class ArrayTransform:
    """Transform of a model that takes images as arrays of numbers: 16 bits, floats, any number of channels.

    Given as the transform of a model, it says how the images of a corpus are decoded: to arrays (H, W, C) of `dtype`,
    checked to lie in `black` to `white`. These are also the ends of the grey levels of detectors, interventions and
    pictures.

    Attributes:
        function: from such an array to a model input, float32 (C', H', W'); affine in the numbers.
        channels: C.
        dtype: number type: uint8, uint16, uint32, int8, int16, int32, float16, float32 or float64.
        black: the least number of an image.
        white: the largest one; None: the largest integer of the type, 1 of floats.
        shown: three channels that stand for red, green and blue in pictures, or one that is shown in grey; empty: the
            first three, the mean of two, the only one.

    Raises:
        UsageError: a value of another kind, no channels, an unknown type, black not below white, numbers that the type
            cannot hold, or channels to show that do not exist.
    """

    function: Callable[[NDArray[Any]], Tensor]
    channels: int
    dtype: str
    black: float = 0.0
    white: float | None = None
    shown: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        _ = self.form

    def __call__(self, pixels: NDArray[Any]) -> Tensor:
        return self.function(pixels)

    @cached_property
    def form(self) -> ArrayForm:
        """Form of the arrays."""
        white = self.white
        if white is None:
            is_integer = self.dtype in ARRAY_TYPES and np.dtype(self.dtype).kind in "iu"
            white = float(np.iinfo(self.dtype).max) if is_integer else UNIT
        return ArrayForm(self.channels, self.dtype, self.black, white, tuple(self.shown))
