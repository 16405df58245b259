"""Part of an image file that a model sees after its preprocessing, as a rectangle that follows from the file's size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from klarsicht.ground.errors import StoreError

SIDE, SHORTER, LONGER, PIXELS = EXTENT_UNITS = ("side", "shorter", "longer", "pixels")
"""Units of an extent: the side of the file along the same axis, its shorter or its longer side, or one pixel."""
CENTRE: Final = 0.5
Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of a file; it may reach beyond the file."""


@dataclass(frozen=True)
class SeenArea:
    """Rectangle of an image file that a model sees; it reaches beyond the file where the preprocessing pads.

        preprocessing                               unit       height, width   top, left
        resize both sides                           side       1, 1            0.5, 0.5
        resize the shorter side, crop the centre    shorter    0.875, 0.875    0.5, 0.5
        resize the longer side, pad to a square     longer     1, 1            0.5, 0.5
        crop the centre                             pixels     224, 224        0.5, 0.5

    Attributes:
        unit: one of EXTENT_UNITS.
        height, width: extents of the rectangle in this unit.
        top, left: share of the margin, the file's side less the extent, that lies before the rectangle. A margin is
            negative where the file is padded.
    """

    unit: str = SIDE
    height: float = 1.0
    width: float = 1.0
    top: float = CENTRE
    left: float = CENTRE

    def __post_init__(self) -> None:
        if self.unit not in EXTENT_UNITS or not (0 < self.height < 1e6 and 0 < self.width < 1e6):
            raise ValueError(f"not a seen area: {self}")

    def extents(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the height and width of the rectangle in pixels of a file of `size` (w, h)."""
        of = {SIDE: (size[1], size[0]), SHORTER: (min(size),) * 2, LONGER: (max(size),) * 2, PIXELS: (1, 1)}[self.unit]
        return self.height * of[0], self.width * of[1]

    def starts(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return where the rectangle begins, top and left, in pixels of a file of `size` (w, h)."""
        height, width = self.extents(size)
        return self.top * (size[1] - height), self.left * (size[0] - width)

    def box(self, size: tuple[int, int]) -> Box:
        """Return the rectangle in whole pixels of a file of `size` (w, h), one at least."""
        height, width = (max(1, round(extent)) for extent in self.extents(size))
        top, left = int(self.top * (size[1] - height) // 1), int(self.left * (size[0] - width) // 1)
        return left, top, left + width, top + height

    def overlap(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the share of a file of `size` (w, h) inside the rectangle, and the share of the rectangle that the
        file fills."""
        extents, starts, file = self.extents(size), self.starts(size), (size[1], size[0])
        shown = [min(a + extent, n) - max(a, 0.0) for a, extent, n in zip(starts, extents, file, strict=True)]
        area = max(shown[0], 0.0) * max(shown[1], 0.0)
        return area / (file[0] * file[1]), area / (extents[0] * extents[1])

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> SeenArea:
        """Read what `to_json` returned. Raises ValueError: it is something else."""
        try:
            lengths = {name: float(content[name]) for name in ("height", "width", "top", "left")}
            return cls(unit=content["unit"], **lengths)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a seen area: {content!r}") from error


def read_seen_area(manifest: Mapping[str, Any]) -> SeenArea | None:
    """Read the part of a file that the model of a run sees, if the manifest tells it. Raises StoreError: it is another
    thing."""
    try:
        return SeenArea.from_json(manifest["seen"]) if "seen" in manifest else None
    except ValueError as error:
        raise StoreError("the seen area in manifest.json cannot be used", got=error) from error
