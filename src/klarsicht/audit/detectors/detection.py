"""What a detector is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.models.inputs import shrunk
from klarsicht.ground.arrays import Floats, Pixels

T = TypeVar("T")


@dataclass(frozen=True)
class ImageStack:
    """A stack of images and what was computed of them, once.

    Attributes:
        levels: uint8 (n, H, W, C).
        evidence: float (n, G, G), relevance maps; or None.
    """

    levels: Pixels
    evidence: Floats | None = None
    kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.levels)

    def keep(self, name: str, make: Callable[[], T]) -> T:
        if name not in self.kept:
            self.kept[name] = make()
        value: T = self.kept[name]
        return value

    def at(self, side: int) -> NDArray[np.float32]:
        """Grey levels with the shorter side at `side`."""
        return self.keep(f"side {side}", lambda: shrunk(self.levels, side))


@dataclass(frozen=True)
class ClassImages:
    """One class, and images of other classes to compare it with.

    Attributes:
        own: its n photographs.
        pool: m photographs of any class.
        others: bool (m,), those of the pool that are of other classes.
        half: bool (n,), the half on which a choice is made.
        sources: int (n,), images of one source are not compared with each other.
        seed: chooses which images are seeds where a class has very many.
    """

    own: ImageStack
    pool: ImageStack
    others: NDArray[np.bool_]
    half: NDArray[np.bool_]
    sources: NDArray[np.integer[Any]]
    seed: int = 0

    @cached_property
    def sizes(self) -> tuple[int, int]:
        return int(self.half.sum()), int((~self.half).sum())


@dataclass(frozen=True)
class Detection:
    """What one detector saw in one class at one setting.

    Attributes:
        name: the detector and its setting.
        score: surprise in nats, where it was not chosen.
        members: int (m,), images that carry it, ascending.
        places: float (m, 2), upper left corners in shares of height and width; empty for what has no place.
        extent: (height, width) of the window in such shares; nought for what has no place.
    """

    name: str
    score: float
    members: NDArray[np.intp]
    places: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2)))
    extent: tuple[float, float] = (0.0, 0.0)
