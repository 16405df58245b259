"""Profile of each class of a run: the parts of an image that suffice a model to tell the class from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import inf, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.results.file_rules import FileRule
from klarsicht.audit.results.logit_effect import FLIPPED, FLOOR, LogitEffect, describe_floor, matters
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
from klarsicht.ground.arrays import Doubles
from klarsicht.ground.errors import unknown_name
from klarsicht.ground.pictures import notebook
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics import conformal
from klarsicht.numerics.statistics.intervals import Interval

if TYPE_CHECKING:
    import pyarrow as pa

SUFFICIENCY_FILE = "shortcuts.json"
CHANCE = 0.5  # area under the ROC curve without any information
FEWEST_SHOWN = 30  # images of a class, below which a part is no headline: an interval of so few says little
RANKED_CLASSES = 20  # with fewer no rank among them reaches 0.05, and classes of natural sets are the reference
LEAST_EXCESS = 0.25  # of scores of a part in natural classes, in units of `score_parts`
SURE_RANK = 0.05  # p-value of a rank among natural classes from which on the tail says how far out a class is
PAIR = 2  # classes that mirror each other: the one has a part where the other lacks it
NOTEBOOK_PARTS = 20  # lines in a notebook
WHOLES = ("target", "n", "whole", "whole_low", "whole_high")  # numbers of a profile
SHARE_UNIT = 0.1  # of the images that change sides, as half a logit is of a rise
EXTENTS = {
    "top left": 0, "top right": 0, "bottom left": 0, "bottom right": 0, "corners": 1, "border": 2, "colours": 3,
    "fine texture": 4,
}  # fmt: skip
"""Order of parts from the one that says most about where or what; all others are half of the picture, or everywhere."""
SAME_SIDES = 0.2  # share of the images that change sides by which two parts may differ and do the same
WHAT_IT_IS = {
    "fine texture": "So the model relies on noise, sharpness or compression of whole pictures, not on a place in them."
}
"""What a part that is followed says of the model, where its name does not."""
STAND_INS = {"inside": "background", "outside": "background", "fine texture": "spectrum"}
"""For parts that natural pairs were not asked for, the part of theirs that they are compared with: of a region half of
the picture, as it is; of the fine texture all frequencies, which differ more."""


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


@dataclass(frozen=True)
class NaturalParts:
    """Evidence on the parts of natural pairs of classes, beside which parts of few classes are judged.

    Attributes:
        parts: names, m of them.
        offer, rise, turned: float (r, m), of each pair the lower ends of the area (CHANCE of framings), of the rise
            and of the share that changes sides, for the class that the part moves more.
    """

    parts: tuple[str, ...]
    offer: Doubles
    rise: Doubles
    turned: Doubles

    def select(self, names: Sequence[str]) -> tuple[Doubles, Doubles, Doubles]:
        """Return the columns of these parts; of a region, which natural pairs have not, those of STAND_INS."""
        columns = _columns_of(names, self.parts)
        return self.offer[:, columns], self.rise[:, columns], self.turned[:, columns]

    def p_values(self, names: Sequence[str], offer: Doubles, rise: Doubles, turned: Doubles) -> Doubles:
        """Compute the p-value of each part (n, m) of n classes among the largest scores of the natural pairs.

        The score is the sum of -log(1 - offer), of the rise over FLOOR and of the share in tenths, each in units of its
        upper tail among the pairs (conformal.standardise).
        """
        natural = self.select(names)
        p = np.empty(offer.shape)
        for i in range(len(offer)):
            stacked = (np.vstack([own[i], others]) for own, others in zip((offer, rise, turned), natural, strict=True))
            offers, rises, shares = stacked
            columns = (-np.log(1 - offers), rises / FLOOR, shares / SHARE_UNIT)
            scores = np.sum([conformal.standardise(column) for column in columns], 0)
            largest = scores[1:].max(1)
            null = np.arange(len(largest) + len(names)) < len(largest)
            p[i] = conformal.tail_p_values(np.concatenate([largest, scores[0]]), null)[len(largest) :]
        return p


@dataclass(frozen=True)
class NaturalSets:
    """Scores of the parts of classes in natural sets of ten, beside which parts of 5 to 19 classes are judged.

    Attributes:
        parts: names, m of them.
        scores: float (r, m), of `score_parts` within the set of each class.
    """

    parts: tuple[str, ...]
    scores: Doubles

    def p_values(self, names: Sequence[str], scores: Doubles) -> Doubles:
        """Compute the p-value of each score (n, m) among the largest of each natural class under the same parts.

        Each part has the units of its own upper tail among natural classes, at least LEAST_EXCESS: so a part by which
        these hardly differ counts from a smaller score on. The rank decides down to SURE_RANK.
        """
        stacked = np.vstack([self.scores[:, _columns_of(names, self.parts)], scores])
        natural = np.arange(len(stacked)) < len(self.scores)
        levels = conformal.standardise(stacked, LEAST_EXCESS, ~natural)
        largest, own = levels[natural].max(1), levels[~natural]
        null = np.arange(len(largest) + own.size) < len(largest)
        p = conformal.tail_p_values(np.concatenate([largest, own.ravel()]), null, SURE_RANK)[len(largest) :]
        return np.asarray(p.reshape(scores.shape))


def _columns_of(names: Sequence[str], parts: Sequence[str]) -> list[int]:
    """Number the columns of parts; of those that were not asked for, the columns of their STAND_INS."""
    return [parts.index(name if name in parts else STAND_INS[name]) for name in names]


def score_parts(areas: Sequence[Sequence[Interval | None]], effects: Sequence[Sequence[LogitEffect]]) -> Doubles:
    """Score n classes under m parts and framings, (n, m), by their areas (None of a framing) and effects, n lists of m.

    The score is the sum of -log(1 - lower end of the area) and of the lower end of the rise over FLOOR, each in units
    of its upper tail among the classes (conformal.standardise).
    """
    low = _lower_areas(areas)
    rise = np.array([[effect.rise.low for effect in line] for line in effects])
    return np.asarray(conformal.standardise(-np.log(1 - low)) + conformal.standardise(rise / FLOOR))


def _lower_areas(areas: Sequence[Sequence[Interval | None]]) -> Doubles:
    return np.array([[CHANCE if area is None else area.low for area in line] for line in areas])


def compare_parts(
    names: Sequence[str], areas: Sequence[Sequence[Interval | None]], effects: Sequence[Sequence[LogitEffect]],
    level: float, pairs: NaturalParts, sets: NaturalSets,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:  # fmt: skip
    """Compare n classes under m parts and framings, by their areas (None of a framing) and effects, n lists of m.

    p is that of the score (`score_parts`) among the maxima of the other classes; of fewer than RANKED_CLASSES among
    those of classes in natural sets; with too few classes to be compared, of natural pairs.

    Returns:
        p-value of each class and part (n, m); and which parts are noted, bool (n, m).
    """
    offered = np.array([[area is None or area.low > CHANCE for area in line] for line in areas])
    sure = offered & np.array([[matters(effect) for effect in line] for line in effects])
    scores = score_parts(areas, effects)
    p = class_strategy(len(areas)).p_of_each(scores)
    if p is None:
        rise, share = (
            np.array([[getattr(effect, name).low for effect in line] for line in effects])
            for name in ("rise", "turned")
        )
        p = pairs.p_values(names, _lower_areas(areas), rise, share)
    elif len(areas) < RANKED_CLASSES:
        p = sets.p_values(names, scores)
    return p, (p <= level) & sure


def order_profiles(profiles: Sequence[ClassProfile]) -> tuple[ClassProfile, ...]:
    """Sort profiles: those with a noted part first, the heaviest first."""
    order = {one.target: (not one.noted, *(-size for size in one.strongest.weight), one.target) for one in profiles}
    return tuple(sorted(profiles, key=lambda one: order[one.target]))


def is_measured(run: RunStore) -> bool:
    """Say whether the profiles of the run were measured."""
    return run.has_file(SUFFICIENCY_FILE)
