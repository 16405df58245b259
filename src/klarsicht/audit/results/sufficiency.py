"""Profile of each class of a run: the parts of an image that suffice a model to tell the class from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from klarsicht.audit.results.file_rules import FileRule
from klarsicht.audit.results.logit_effect import FLIPPED, LogitEffect, describe_floor, matters
from klarsicht.audit.results.part_comparison import RANKED_CLASSES
from klarsicht.audit.results.resolution import describe_rank_limit
from klarsicht.audit.results.significance import FEW_CLASSES, class_strategy
from klarsicht.audit.results.words import (
    ESTIMATED_REGION,
    PART_NAMES,
    describe_framing,
    describe_stay,
    describe_taken,
    format_count,
    format_p,
    format_share,
)
from klarsicht.ground.errors import unknown_name
from klarsicht.ground.pictures import notebook
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.intervals import Interval

if TYPE_CHECKING:
    import pyarrow as pa

SUFFICIENCY_FILE = "shortcuts.json"
FEWEST_SHOWN = 30  # images of a class, below which a part is no headline: an interval of so few says little
PAIR = 2  # classes that mirror each other: the one has a part where the other lacks it
NOTEBOOK_PARTS = 20  # lines in a notebook
WHOLES = ("target", "n", "whole", "whole_low", "whole_high")  # numbers of a profile
EXTENTS = {
    "top left": 0, "top right": 0, "bottom left": 0, "bottom right": 0, "corners": 1, "border": 2, "colours": 3,
    "fine texture": 4,
}  # fmt: skip
"""Order of parts from the one that says most about where or what; all others are half of the picture, or everywhere."""
SAME_SIDES = 0.2  # share of the images that change sides by which two parts may differ and do the same
WHAT_IT_IS = {
    "fine texture": "So the model relies on noise, sharpness or compression of whole pictures, not on a place in them."
}
"""Meaning of a part that is followed, for the model, where its name does not say it."""


@dataclass(frozen=True)
class PartEvidence:
    """Evidence on one part of the images of a class, two numbers: how well the data tell the class by the part alone,
    and how far the network follows it.

    Areas are those under the ROC curve of a linear head that is fitted again on the network's features and scores
    images it was not fitted on, with sources kept together; each with its 95 % interval.

    Attributes:
        part: a name of image_parts.IMAGE_PARTS or REGION_PARTS, or of framings.FRAMINGS.
        area, low, high: area of the part alone; None of a framing, which is no part.
        rest, rest_low, rest_high: area of the images without it; None where that was not measured.
        others: median of `area` over the other classes; where these are too few, the largest of reference classes;
            None without any.
        shift, shift_low, shift_high: mean rise of the class's score on images of other classes when they get the part
            of an image of the class, against that of another image of their own class; with its 95 % interval.
        taken, taken_control: share of these images predicted as the class, with either part.
        taken_low: lower end of the interval of their difference.
        stays, stays_control: share of images of the class that are predicted as it with the part of an image of another
            class, and with that of another image of their own; None without such images.
        lost_low: lower end of the interval of the second less the first; None likewise.
        p: p-value of the part among the strongest parts of the other classes; with fewer than RANKED_CLASSES among
            those of classes of natural sets, with fewer than five of natural pairs.

    Of a framing, `taken_control` and `stays_control` are of the same images in another framing, as are the rises.
        noted: whether p is at most the level, the area exceeds CHANCE, and that of reference classes where these were
            measured, and the effect matters; all by the lower end of the interval.
    """

    part: str
    area: float | None
    low: float | None
    high: float | None
    rest: float | None
    rest_low: float | None
    rest_high: float | None
    others: float | None
    shift: float
    shift_low: float
    shift_high: float
    taken: float
    taken_control: float
    taken_low: float
    stays: float | None
    stays_control: float | None
    lost_low: float | None
    p: float
    noted: bool

    @property
    def lost(self) -> float:
        """Share of the class's images that the part of another class takes away; 0 where none was shown."""
        return 0.0 if self.stays is None or self.stays_control is None else self.stays_control - self.stays

    @property
    def effect(self) -> LogitEffect:
        """Effect of the exchange: the rise, and the larger share of images that change sides."""
        gained = Interval(self.taken - self.taken_control, self.taken_low, nan, 0)
        lost = Interval(self.lost, -inf if self.lost_low is None else self.lost_low, nan, 0)
        turned = max(gained, lost, key=lambda share: share.low)
        return LogitEffect(Interval(self.shift, self.shift_low, self.shift_high, 0), turned)

    @property
    def is_followed(self) -> bool:
        """Whether the network is shown to follow the part."""
        return matters(self.effect)

    @property
    def is_ordinary(self) -> bool:
        """Whether the part tells no more than it does of other classes, or of reference classes."""
        return self.others is not None and self.low is not None and self.low <= self.others

    @property
    def weight(self) -> tuple[float, float]:
        """Order of parts: the share of images that change sides, then the rise."""
        return max(self.taken - self.taken_control, self.lost), self.shift

    def describe(self, name: str, whole: float) -> str:
        """Say in two or three sentences what the data offer and what the network does.

        Args:
            name: of the class.
            whole: area of whole images.
        """
        size = f"{self.shift:+z.2f} logits ({self.shift_low:+z.2f} to {self.shift_high:+z.2f})"
        if self.area is None:
            taken, stays = (self.taken, self.taken_control), (self.stays, self.stays_control)
            few = "" if self.weight[0] > FLIPPED else f" The score of {name} changes by {size}."
            return describe_framing(name, self.part, taken, stays) + few
        part = PART_NAMES[self.part]
        without = "" if self.rest is None else f", without it {self.rest:.2f}"
        offer = (
            f"By {part} alone, {name} can be recognised with AUC {self.area:.2f} ({self.low:.2f} to {self.high:.2f}); "
            f"by whole images with {whole:.2f}{without}."
        )
        if not self.is_followed:
            return f"{offer} The network is not shown to follow it: exchanged, it changes the score by {size}."
        shares = [
            text
            for text, share in (
                (describe_stay(name, part, self.stays, self.stays_control), self.lost),
                (describe_taken(name, part, self.taken, self.taken_control), self.taken - self.taken_control),
            )
            if share > FLIPPED
        ]
        rise = f"exchanged, it changes the score by {self.shift:+z.2f} logits"
        first, *more = shares or [rise]
        cause = [WHAT_IT_IS[self.part]] if self.part in WHAT_IT_IS else []
        sentences = [f"{offer} The network follows it: {first}.", *(f"{one[0].upper()}{one[1:]}." for one in more)]
        return " ".join([*sentences, *cause])


@dataclass(frozen=True)
class ClassProfile:
    """Evidence of every part for one class.

    Attributes:
        name: the class; JSON calls it `class`.
        target: its output of the model.
        n: images of it that were shown.
        whole, whole_low, whole_high: area of whole images, as `PartEvidence.area`.
        parts: in the order of image_parts.IMAGE_PARTS.
    """

    name: str
    target: int
    n: int
    whole: float
    whole_low: float
    whole_high: float
    parts: tuple[PartEvidence, ...]

    def __repr__(self) -> str:
        parts = f"{len(self.noted)} of {len(self.parts)} parts flagged"
        return f"ClassProfile({self.name!r}, {format_count(self.n, 'image')}, {parts})"

    @property
    def ordered(self) -> tuple[PartEvidence, ...]:
        """All parts: those that are noted first, then by weight."""
        return tuple(sorted(self.parts, key=lambda part: (not part.noted, *(-size for size in part.weight))))

    @property
    def noted(self) -> tuple[PartEvidence, ...]:
        """Parts that are noted, the heaviest first."""
        return tuple(part for part in self.ordered if part.noted)

    @property
    def lines(self) -> tuple[PartLine, ...]:
        """The lines of the table of parts of this class, all of them."""
        return tuple(PartLine(self, part) for part in self.ordered)

    @property
    def strongest(self) -> PartEvidence:
        """The first part in order."""
        return self.ordered[0]

    def to_json(self) -> dict[str, Any]:
        flat = asdict(self)
        return {"class": flat.pop("name"), **flat}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ClassProfile:
        """Read a record of `to_json`."""
        parts = tuple(PartEvidence(**part) for part in record["parts"])
        return cls(parts=parts, name=record["class"], **{key: record[key] for key in WHOLES})


@dataclass(frozen=True)
class PartLine:
    """Line of the table of parts: a part, and the class that it was measured for."""

    profile: ClassProfile
    evidence: PartEvidence

    def __repr__(self) -> str:
        area = "" if self.evidence.area is None else f", AUC {self.evidence.area:.2f}"
        return (
            f"PartLine({self.profile.name!r}, {self.evidence.part!r}{area}{', flagged' if self.evidence.noted else ''})"
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """The cells of all PART_COLUMNS."""
        return tuple(column.text(self) for column in PART_COLUMNS.values())

    @property
    def headline(self) -> str:
        """The evidence in sentences, with the number of images that were shown."""
        shown = f"Shown were {format_count(self.profile.n, 'image')} of {self.profile.name}."
        return f"{self.evidence.describe(self.profile.name, self.profile.whole)} {shown}"

    @property
    def claim(self) -> str:
        """The headline without its figures, for a reader who sees these below."""
        one = self.evidence
        if one.area is None:
            return self.headline
        follows = "and the model does so." if one.is_followed else "which the model is not shown to do."
        cause = f" {WHAT_IT_IS[one.part]}" if one.is_followed and one.part in WHAT_IT_IS else ""
        return f"{self.profile.name} can be recognised by {PART_NAMES[one.part]} alone, {follows}{cause}"

    @property
    def is_headline(self) -> bool:
        """Whether the part stands above the table: it is noted, and FEWEST_SHOWN images were shown. A framing must
        also turn other images into the class, beyond its control by the 95 % interval: that only images of the class
        are no longer recognised is a weakness, and no shortcut."""
        one = self.evidence
        return one.noted and self.profile.n >= FEWEST_SHOWN and (one.area is not None or one.taken_low > 0)


@dataclass(frozen=True)
class PartColumn:
    """Column of the table of parts; `is_text` where its cells are words, which are aligned left."""

    heading: str
    text: Callable[[PartLine], str]
    is_text: bool = False


def _share_pair(share: float | None, control: float | None) -> str:
    return "" if share is None or control is None else f"{format_share(share)} ({format_share(control)})"


def _of_part(text: Callable[[PartEvidence], str]) -> Callable[[PartLine], str]:
    return lambda line: text(line.evidence)


PART_COLUMNS: Final[dict[str, PartColumn]] = {
    "class": PartColumn("class", lambda line: line.profile.name, is_text=True),
    "part": PartColumn("part", _of_part(lambda one: one.part), is_text=True),
    "area": PartColumn(
        "AUC, part alone (95 %)",
        _of_part(lambda one: "" if one.area is None else f"{one.area:.2f} ({one.low:.2f} to {one.high:.2f})"),
    ),
    "rest": PartColumn("without it", _of_part(lambda one: "" if one.rest is None else f"{one.rest:.2f}")),
    "whole": PartColumn("whole images", lambda line: "" if line.evidence.area is None else f"{line.profile.whole:.2f}"),
    "others": PartColumn(
        "other classes, or reference", _of_part(lambda one: "" if one.others is None else f"{one.others:.2f}")
    ),
    "stays": PartColumn("stay (control)", _of_part(lambda one: _share_pair(one.stays, one.stays_control))),
    "taken": PartColumn("become it (control)", _of_part(lambda one: _share_pair(one.taken, one.taken_control))),
    "shift": PartColumn(
        "score change (logits, 95 %)",
        _of_part(lambda one: f"{one.shift:+z.2f} ({one.shift_low:+z.2f} to {one.shift_high:+z.2f})"),
    ),
    "p": PartColumn("p", _of_part(lambda one: format_p(one.p))),
    "noted": PartColumn("flagged", _of_part(lambda one: "flagged" if one.noted else ""), is_text=True),
}
"""The table of parts, by the names of its columns: of the command line, the report and notebooks."""


@dataclass(frozen=True)
class Sufficiency:
    """Profiles of all classes: those with a noted part first.

    Attributes:
        profiles: in this order.
        level: of p, below which a part is noted.
        images: most images of a class that were shown.
        files: rules by which files alone tell a class, the best first; None where no file was read.
        region: whose inside and outside are parts, in words; empty without one.
    """

    profiles: tuple[ClassProfile, ...]
    level: float
    images: int
    files: tuple[FileRule, ...] | None = None
    region: str = ""

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
    def lines(self) -> tuple[PartLine, ...]:
        """The lines of the table of parts: of each class the noted ones, or the first; of two classes, which mirror
        each other, every part once, for the class that it moves more."""
        if len(self) != PAIR:
            return tuple(PartLine(one, part) for one in self for part in one.noted or (one.strongest,))
        first, second = self.profiles
        pairs = zip(first.parts, second.parts, strict=True)
        kept = [max((PartLine(first, a), PartLine(second, b)), key=_order_of_line) for a, b in pairs]
        return tuple(sorted(kept, key=_order_of_line, reverse=True))

    @property
    def headlines(self) -> tuple[PartLine, ...]:
        """The heaviest part of each class that may be a headline, or one that does the same and says more (EXTENTS),
        and the heaviest framing; of two classes, which mirror each other, of both together."""
        heads: dict[tuple[str, bool], list[PartLine]] = {}
        for line in filter(lambda line: line.is_headline, self.lines):
            name = "" if len(self) == PAIR else line.profile.name
            heads.setdefault((name, line.evidence.area is None), []).append(line)
        return tuple(map(_most_telling, heads.values()))

    def _repr_html_(self) -> str:
        headings = [column.heading for column in PART_COLUMNS.values()]
        return notebook.table(headings, [line.texts for line in self.lines[:NOTEBOOK_PARTS]])

    @property
    def compared(self) -> bool:
        """Whether classes were compared with each other."""
        return class_strategy(len(self)).compares_classes

    @property
    def floor(self) -> float:
        """Smallest p-value of a rank among the classes of the run; 1 where these are too few, and natural classes are
        the reference."""
        return 1 / len(self) if len(self) >= RANKED_CLASSES else 1.0

    @property
    def limits(self) -> str:
        """Noted parts in words, whether so many classes can have anything noted, and what the region is."""
        few = [one.name for one in self if one.noted and one.n < FEWEST_SHOWN]
        lacking = f"Of {', '.join(few)} fewer than {FEWEST_SHOWN} images were shown: too few for a headline."
        return " ".join(filter(None, (self._limits_of_p, self.describe_region(), lacking if few else "")))

    def describe_region(self) -> str:
        """Say what the region is whose inside and outside are parts; "" where there is none."""
        if not self.region:
            return ""
        advice = " It is estimated, and need not be the object: look at its picture, or give --region."
        return f"The region is {self.region}.{advice if self.region.startswith(ESTIMATED_REGION) else ''}"

    @property
    def _limits_of_p(self) -> str:
        if self.compared:
            among = (
                "classes of ordinary photographs in sets of ten"
                if len(self) < RANKED_CLASSES
                else "the strongest parts of other classes"
            )
            noted = (
                f"Flagged: p at most {self.level:g} among {among}, an AUC above chance, "
                f"and an exchange that moves {describe_floor()}. Look: the part may belong to the class."
            )
            if len(self) < RANKED_CLASSES:
                return noted
            limit = describe_rank_limit(self.floor, self.level)
            return f"{noted} {limit} With fewer, compare AUCs, score changes and their intervals." if limit else noted
        return (
            f"Flagged: p at most {self.level:g} among pairs of classes of ordinary photographs, an AUC above chance "
            f"and an exchange that moves {describe_floor()}, both by their intervals. With {FEW_CLASSES} only you "
            "can say whether such a part belongs to the class."
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
            "region": self.region,
            "files": None if self.files is None else [rule.to_json() for rule in self.files],
            "classes": [profile.to_json() for profile in self.profiles],
        }


@check_arguments
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
        lines = content["files"]
        files = None if lines is None else tuple(FileRule.from_json(line) for line in lines)
        return Sufficiency(profiles, content["level"], content["images"], files, content["region"])


def _most_telling(lines: Sequence[PartLine]) -> PartLine:
    """Return the first line, or one that does the same and says more about where or what."""
    first = lines[0].evidence
    alike = (
        line
        for line in lines
        if line.evidence.weight[0] >= first.weight[0] - SAME_SIDES and line.evidence.shift_high >= first.shift_low
    )
    return min(alike, key=lambda line: EXTENTS.get(line.evidence.part, len(EXTENTS)))


def _order_of_line(line: PartLine) -> tuple[bool, float, float]:
    return line.evidence.noted, *line.evidence.weight


def order_profiles(profiles: Sequence[ClassProfile]) -> tuple[ClassProfile, ...]:
    """Sort profiles: those with a noted part first, the heaviest first."""
    order = {one.target: (not one.noted, *(-size for size in one.strongest.weight), one.target) for one in profiles}
    return tuple(sorted(profiles, key=lambda one: order[one.target]))


def is_measured(run: RunStore) -> bool:
    """Say whether the profiles of the run were measured."""
    return run.has_file(SUFFICIENCY_FILE)
