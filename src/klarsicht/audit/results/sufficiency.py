"""Profile of each class of a run: the parts of an image that suffice a model to tell the class from others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.results.logit_effect import FLOOR, LogitEffect, matters
from klarsicht.audit.results.resolution import describe_rank_limit
from klarsicht.audit.results.significance import FEW_CLASSES, class_strategy
from klarsicht.ground.errors import unknown_name
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.statistics import conformal
from klarsicht.numerics.statistics.intervals import Interval

if TYPE_CHECKING:
    import pyarrow as pa

SUFFICIENCY_FILE = "shortcuts.json"
CHANCE = 0.5  # area under the ROC curve without any information
KEPT_PART = {
    "border": "the border",
    "top left": "the top left corner",
    "top right": "the top right corner",
    "bottom left": "the bottom left corner",
    "bottom right": "the bottom right corner",
    "background": "the background",
    "colours": "the colours",
    "spectrum": "the spectrum",
    "resolution": "the lowest resolution",
}
"""For each part, its name in a sentence."""


@dataclass(frozen=True)
class PartEvidence:
    """Evidence that one part of its images tells a class: how well the model separates the class by it, and how much it
    raises the class on images of others.

    Attributes:
        part: a name of image_parts.IMAGE_PARTS.
        area, low, high: area under the ROC curve of the class's level, for images of the class of which only the part
            was kept against images of other classes treated alike, and its 95 % interval.
        others: median of that area over the other classes.
        recognised: share of these images predicted as the class.
        shift, shift_low, shift_high: mean rise of the class's level on images of other classes when they get the part
            of an image of the class, against that of another image of their own class; with its 95 % interval.
        taken, taken_control: share of these images predicted as the class, with either part.
        p: p-value of the part among the strongest parts of the other classes; None where classes are too few.
        noted: whether p is at most the level, the area exceeds CHANCE and the shift FLOOR, either by the lower end of
            its interval; with too few classes, whether the latter two hold.
    """

    part: str
    area: float
    low: float
    high: float
    others: float
    recognised: float
    shift: float
    shift_low: float
    shift_high: float
    taken: float
    taken_control: float
    p: float | None
    noted: bool

    def describe(self) -> str:
        """Say in words what was measured."""
        return (
            f"recognised by {KEPT_PART[self.part]} alone: AUC {self.area:.2f} ({self.low:.2f} to {self.high:.2f}), "
            f"other classes {self.others:.2f}; score change when transplanted: {self.shift:+z.2f} logits "
            f"({self.shift_low:+z.2f} to {self.shift_high:+z.2f})"
        )


@dataclass(frozen=True)
class ClassProfile:
    """Evidence of every part for one class.

    Attributes:
        name: the class; JSON calls it `class`.
        target: its output of the model.
        n: images of it that were shown.
        whole: area under the ROC curve for unchanged images.
        parts: in the order of image_parts.IMAGE_PARTS.
    """

    name: str
    target: int
    n: int
    whole: float
    parts: tuple[PartEvidence, ...]

    @property
    def noted(self) -> tuple[PartEvidence, ...]:
        """Parts that are noted, that of the largest shift first."""
        return tuple(sorted((part for part in self.parts if part.noted), key=lambda part: -part.shift))

    @property
    def strongest(self) -> PartEvidence:
        """The noted part of the largest shift; without any, the part of the largest area."""
        return (self.noted or tuple(sorted(self.parts, key=lambda part: -part.area)))[0]

    def to_json(self) -> dict[str, Any]:
        flat = asdict(self)
        return {"class": flat.pop("name"), **flat}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ClassProfile:
        """Read a record of `to_json`."""
        parts = tuple(PartEvidence(**part) for part in record["parts"])
        return cls(record["class"], record["target"], record["n"], record["whole"], parts)


@dataclass(frozen=True)
class Sufficiency:
    """Profiles of all classes: those with a noted part first.

    Attributes:
        profiles: in this order.
        level: of p, below which a part is noted.
        images: most images of a class that were shown.
    """

    profiles: tuple[ClassProfile, ...]
    level: float
    images: int

    def __repr__(self) -> str:
        flagged = sum(bool(one.noted) for one in self)
        return f"Sufficiency({len(self)} classes, {flagged} with a flagged part, level {self.level:g})"

    def __iter__(self) -> Iterator[ClassProfile]:
        return iter(self.profiles)

    def __len__(self) -> int:
        return len(self.profiles)

    def of(self, name: str) -> ClassProfile:
        """Return the profile of a class, by name or output.

        Raises:
            UsageError: the class was not examined; the message lists near matches.
        """
        for field in ("name", "target"):  # a class may be called as another's output
            for profile in self.profiles:
                if name == str(getattr(profile, field)):
                    return profile
        raise unknown_name("class in these profiles", name, [one.name for one in self.profiles])

    @property
    def compared(self) -> bool:
        """Whether classes were compared with each other."""
        return class_strategy(len(self)).compares_classes

    @property
    def floor(self) -> float:
        """Smallest p-value of a rank among so many classes; 1 where they were too few to be compared."""
        return 1 / len(self) if self.compared else 1.0

    @property
    def limits(self) -> str:
        """Noted parts in words, and whether so many classes can have anything noted."""
        if self.compared:
            noted = (
                f"Flagged: p at most {self.level:g} among the strongest parts of other classes, an AUC above chance, "
                f"and a score change of at least {FLOOR:g} logits. Look: the part may belong to the class."
            )
            limit = describe_rank_limit(self.floor, self.level)
            return f"{noted} {limit} With fewer, compare AUCs, score changes and their intervals." if limit else noted
        return (
            f"Flagged: an AUC above chance and a score change of at least {FLOOR:g} logits, both by their intervals. "
            f"With {FEW_CLASSES} only you can say whether such a part belongs to the class."
        )

    def to_table(self) -> pa.Table:
        """Return one row for each class and part."""
        import pyarrow as pa

        return pa.Table.from_pylist(
            [{"class": one.name, "target": one.target, **asdict(part)} for one in self.profiles for part in one.parts]
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "compared": self.compared,
            "images": self.images,
            "floor": self.floor,
            "limits": self.limits,
            "classes": [profile.to_json() for profile in self.profiles],
        }


def read_sufficiency(run: str | Path | RunStore) -> Sufficiency:
    """Read the profiles of a run.

    Raises:
        StoreError: they were not measured; `klarsicht audit shortcuts` does so.
        RunDamaged: they are missing or altered.
    """
    store = RunStore.open(run)
    content = store.read_json(SUFFICIENCY_FILE)
    with store.translate_parse_errors(SUFFICIENCY_FILE):
        profiles = tuple(ClassProfile.from_json(line) for line in content["classes"])
        return Sufficiency(profiles, content["level"], content["images"])


def compare_parts(
    areas: Sequence[Sequence[Interval]], rises: Sequence[Sequence[Interval]], level: float
) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
    """Compare n classes under m parts, by their areas and rises, n lists of m.

    The score of a class and part is the sum of -log(1 - lower end of the area) and of the lower end of the rise over
    FLOOR, each in units of its upper tail among the classes (conformal.standardise). p is that of the score among the
    maxima of the other classes.

    Returns:
        p-value of each class and part (n, m), or None with too few classes; and which parts are noted, bool (n, m).
    """
    low = np.array([[area.low for area in line] for line in areas])
    rise = np.array([[rise.low for rise in line] for line in rises])
    sure = (low > CHANCE) & np.array([[matters(LogitEffect(rise)) for rise in line] for line in rises])
    scores = conformal.standardise(-np.log(1 - low)) + conformal.standardise(rise / FLOOR)
    p = class_strategy(len(areas)).p_of_each(scores)
    return p, sure if p is None else (p <= level) & sure


def order_profiles(profiles: Sequence[ClassProfile]) -> tuple[ClassProfile, ...]:
    """Sort profiles: those with a noted part first, the largest shift first."""
    return tuple(sorted(profiles, key=lambda one: (not one.noted, -one.strongest.shift, one.target)))


def is_measured(run: RunStore) -> bool:
    """Say whether the profiles of the run were measured."""
    return run.has_file(SUFFICIENCY_FILE)
