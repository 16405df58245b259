"""Content that a class leans on: groups of pictures of other things that share it, and its effect on other pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.results.words import ContentKind, format_count, format_p, format_share
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import StoreError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.bootstrap import bootstrap_mean_interval
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval, share_interval
from klarsicht.numerics.statistics.logits import LogitScale

CONTENT_FILE: Final = "content.json"
LEAST_CONTENT_RISE: Final = math.log(2)  # nats beyond other content, by the lower end: the class gets twice as probable
MOST_OF_PICTURE: Final = 0.6  # share of a picture from which a region has no place


@dataclass(frozen=True)
class ContentPicture:
    """Picture of a group.

    Attributes:
        path: name in the corpus, relative to it. label: its label.
        row: of the run.
        probability: of the class.
        place: top, left, height and width of the region that acts, as shares of the model's input.
    """

    path: str
    label: str
    row: int
    probability: float
    place: tuple[float, float, float, float]


@dataclass(frozen=True)
class ContentEffect:
    """Effect of content on other pictures.

    Attributes:
        rise: mean rise of the logarithm of the class's probability, in nats, beyond other content.
        turned: share that become the class with the content.
        turned_control: the same with a region of random pictures, equally large and at the same place.
    """

    rise: Interval = NO_INTERVAL
    turned: Interval = NO_INTERVAL
    turned_control: Interval = NO_INTERVAL

    @classmethod
    def of_logits(
        cls, own: Floats, control: Floats, target: int, scale: LogitScale, rng: np.random.Generator
    ) -> ContentEffect:
        """Compare logits (n, K) of pictures with the content and with other content in its place; the interval of the
        rise is a bootstrap over pictures."""
        rise = scale.log_probability(own, target) - scale.log_probability(control, target)
        shares = (share_interval(scale.predicts(logits, target)) for logits in (own, control))
        return cls(bootstrap_mean_interval(rise, rng), *shares)


@dataclass(frozen=True)
class ContentGroup:
    """Pictures of other things, alike where they act on a class, and the effect of that content on other pictures.

    Attributes:
        name, target: the class and its output.
        n: pictures of other things among which the group was looked for.
        pictures: of the group, those most like each other first; none where nothing could be compared.
        p: share of random groups of the pile, found in the same way, that are as much alike.
        likings: pictures of the group in which the class is among the first outputs.
        level: of p.
        effect: of their content; without values where it was not measured.
    """

    name: str
    target: int
    n: int
    pictures: tuple[ContentPicture, ...] = ()
    p: float = 1.0
    likings: int = 0
    level: float = LEVEL
    effect: ContentEffect = ContentEffect()

    def __repr__(self) -> str:
        pictures = f"{len(self.pictures)} of {format_count(self.n, 'picture')}"
        return f"ContentGroup({self.name!r}, {self.kind.value!r}, {pictures})"

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ContentGroup:
        """Read a record of `to_json`."""
        known = {name: record[name] for name in ("target", "n", "p", "likings", "level")}
        pictures = tuple(ContentPicture(**one | {"place": tuple(one["place"])}) for one in record["pictures"])
        effect = ContentEffect(**{name: Interval(**share) for name, share in (record["effect"] or {}).items()})
        return cls(record["class"], pictures=pictures, effect=effect, **known)

    def to_json(self) -> dict[str, Any]:
        """Return the group with its verdict, as JSON values."""
        record = asdict(self)
        effect = record["effect"] if self.effect.rise.n else None
        return {"class": record.pop("name"), **record, "effect": effect, "verdict": self.kind.value}

    @property
    def stands_out(self) -> bool:
        """Whether the pictures are more alike than random groups of the pile are, and the class is among the first
        outputs of most."""
        return self.p <= self.level and 2 * self.likings > len(self.pictures)

    @property
    def kind(self) -> ContentKind:
        """Kind of the verdict: a class relies on content that a group shares beyond chance and that raises it beyond
        other content, by the lower end of the interval."""
        if not self.stands_out:
            return ContentKind.NO_GROUP
        return ContentKind.RELIES if self.effect.rise.low >= LEAST_CONTENT_RISE else ContentKind.NO_RISE

    @property
    def effect_texts(self) -> tuple[str, str]:
        """Cells of a table: how many times as probable the class becomes, and the shares of pictures that become it;
        empty where that was not measured."""
        if not self.effect.rise.n:
            return "", ""
        return format_times(
            self.effect.rise
        ), f"{format_share(self.effect.turned.value)} ({format_share(self.effect.turned_control.value)})"

    @property
    def members(self) -> tuple[str, ...]:
        """Paths of the pictures."""
        return tuple(one.path for one in self.pictures)

    def describe(self) -> str:
        """Say in sentences what the group is, where it acts, and what its content does to other pictures."""
        if not self.pictures:
            return f"{self.name}: too few pictures of other things to compare ({self.n})."
        among = f"p {format_p(self.p)} among random groups of the pile"
        if not self.stands_out:
            liked = f"it is among the first outputs of {self.likings} of {len(self.pictures)}"
            return f"{self.name}: no group of pictures of other things stands out ({among}; {liked})."
        if not self.effect.rise.n:
            return (
                f"{self.name}: {len(self.pictures)} pictures of other things share content. What it does to other "
                "pictures was not measured."
            )
        turned, control = (round(100 * share.value) for share in (self.effect.turned, self.effect.turned_control))
        effect = (
            f"Put on other pictures it turns {turned} of 100 into {self.name} ({control} with other content), and "
            f"makes {self.name} {format_times(self.effect.rise)} as probable."
        )
        return (
            f"{self.name}: {format_count(len(self.pictures), 'picture')} of other things share content that acts at "
            f"{describe_place(self.pictures)} ({among}). {effect} {self.kind.words}"
        )


def format_times(rise: Interval) -> str:
    """Format a rise of log-probabilities, in nats, as a factor with its interval: "12 times (8.1 to 18)"."""
    value, low, high = (math.exp(end) for end in (rise.value, rise.low, rise.high))
    return f"{_two_digits(value)} times ({_two_digits(low)} to {_two_digits(high)})"


def _two_digits(value: float) -> str:
    """Format a number above 0 by two digits, without an exponent: "0.57", "8.1", "180"."""
    rounded = float(f"{value:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:g}"


def describe_place(pictures: Sequence[ContentPicture]) -> str:
    """Say where most regions lie: "their top right", "their middle", or "varying places"."""
    words = Counter(_place_in_words(one.place) for one in pictures)
    (word, count), *_ = words.most_common()
    return word if 2 * count > len(pictures) else "varying places"


def _place_in_words(place: tuple[float, float, float, float]) -> str:
    top, left, height, width = place
    if height * width >= MOST_OF_PICTURE:
        return "nearly the whole of each"
    down, across = (min(int(3 * middle), 2) for middle in (top + height / 2, left + width / 2))
    return "their " + (f"{('top', '', 'bottom')[down]} {('left', '', 'right')[across]}".strip() or "middle")


@dataclass(frozen=True)
class ContentGroups:
    """Groups of all classes that were asked for: those that a class relies on first, the largest rise first."""

    groups: tuple[ContentGroup, ...]

    def __repr__(self) -> str:
        count = sum(one.kind is ContentKind.RELIES for one in self)
        return f"ContentGroups({len(self)} classes, {count} that rely on content of other things)"

    @classmethod
    def of(cls, groups: Iterable[ContentGroup]) -> ContentGroups:
        """Put groups in their order."""
        order = list(ContentKind)

        def place(one: ContentGroup) -> tuple[int, float, float, int]:
            return order.index(one.kind), one.p, -np.nan_to_num(one.effect.rise.value), one.target

        return cls(tuple(sorted(groups, key=place)))

    def __iter__(self) -> Iterator[ContentGroup]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the content of content.json."""
        return [one.to_json() for one in self]


@check_arguments
def read_content(run: str | Path | RunStore) -> ContentGroups:
    """Read the content groups of a run.

    Raises:
        StoreError: none were looked for; `klarsicht audit content` does so.
        RunDamaged: the file is missing or altered.
    """
    store = RunStore.open(run)
    if not store.has_file(CONTENT_FILE):
        raise StoreError(
            "content was not looked for in this run", got=store.path,
            rule="a run that `audit content` has been through", remedy=f"Run `klarsicht audit content {store.path}`.",
        )  # fmt: skip
    content = store.read_json(CONTENT_FILE)
    with store.translate_parse_errors(CONTENT_FILE):
        return ContentGroups(tuple(map(ContentGroup.from_json, content)))
