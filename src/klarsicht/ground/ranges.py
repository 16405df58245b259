"""Ranges of numbers that a user may give; each stands once, and is told in the help and in the error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from klarsicht.ground.config import Settings
from klarsicht.ground.errors import UsageError


@dataclass(frozen=True)
class Range:
    """Interval from `least` to `most`; the ends belong to it but for `above` (the lower) and `below` (the upper)."""

    least: float
    most: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        lower = self.least < value if self.above else self.least <= value
        return lower and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        if not (self.above or self.below):
            return f"{self.least:.10g} to {self.most:.10g}"
        lower = f"above {self.least:.10g}" if self.above else f"{self.least:.10g} and more"
        return f"{lower}, {'below' if self.below else 'at most'} {self.most:.10g}"

    def field(self, default: float | None) -> Any:
        """Make the field of a setting with this range."""
        bounds: dict[str, Any] = {"gt" if self.above else "ge": self.least, "lt" if self.below else "le": self.most}
        return Field(default=default, **bounds)

    def require(self, name: str, value: float) -> None:
        """Check that a number, given under a name, is in the range; NaN is in none. Raises UsageError: it is not."""
        if value not in self:
            raise UsageError(f"{name} is out of range", got=value, rule=str(self), remedy=f"Give another {name}.")


def range_of(settings: type[Settings], name: str) -> Range | None:
    """Read the range of a setting from its field; None where it is no number, or has no range."""
    bounds: dict[str, float] = {}
    for part in settings.model_fields[name].metadata:
        bounds |= {bound: getattr(part, bound) for bound in ("ge", "gt", "le", "lt") if hasattr(part, bound)}
    if not bounds:
        return None
    least, most = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
    return None if least is None or most is None else Range(least, most, "gt" in bounds, "lt" in bounds)


def parse_digits(text: str) -> int | None:
    """Parse a number of up to 18 digits 0 to 9; None of another text, of which Python itself may raise ValueError."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


WORKERS = Range(1, 1024)
THREADS = Range(1, 1024)
SEED = Range(0, 2**32 - 1)
LINES = Range(1, 1_000_000)  # of a table that is printed
P_LEVEL = Range(0, 1, above=True, below=True)  # of a p-value
SHARE = Range(0, 1, above=True)  # of images, or a probability from which one counts
PREVALENCE = Range(0, 1, above=True, below=True)
IMAGE_WEIGHT = Range(0, 1e6, above=True)  # of an image in a training
LEARNING_RATE = Range(0, 1, above=True)
EPOCHS = Range(1, 1000)
PLANTED_CLASSES = Range(1, 1_000_000)
SHOWN_IMAGES = Range(8, 1_000_000)  # that a correction is shown on
DEMO_IMAGES = Range(60, 100_000)
DEMO_COUNT = 280  # its default: enough for the cluster, in about two minutes of two cores
DEMO_WORKERS = Range(0, 1024)  # 0: as many as there are cores
TRAINING_STEPS = Range(1, 100_000_000)
TRAINING_MINUTES = Range(0, 525_600, above=True)  # a year
NETWORK_WIDTH = Range(0, 4, above=True)
BURSTS_IN_STEP = Range(1, 4096)
STRENGTH = Range(0, 1)
SAMPLE_SECONDS = Range(1, 86_400)  # of a forecast
MEMORY_GB = Range(0, 65_536, above=True)
GAIN = Range(1, 8)  # of synthetic bursts; of these 1, 2, 4 and 8
ISO = Range(1, 100_000_000)
PAUSE = Range(0, 3600)  # seconds between frames of a burst
WHITE_LEVEL = Range(1, 65_535)  # code of white in 16-bit files
MEGAPIXELS = Range(0, 10_000, above=True)
STABILITY_IMAGES = Range(2, 1_000_000)  # of a class, whose explanations are compared
KERNEL_POINTS = Range(100, 1_000_000)  # drawn for the clusters of a denoiser's kernels
PORT = Range(0, 65_535)  # of a server; 0: any free one
