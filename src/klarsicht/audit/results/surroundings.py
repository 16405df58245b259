"""Shortcuts that nearly a whole class carries: who follows them, who does not, and whether the model does."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from klarsicht.audit.results.words import format_count, format_p
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import StoreError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.intervals import Interval

SURROUNDINGS_FILE, EXCEPTIONS_FILE = "surroundings.json", "exceptions.csv"
SURROUNDINGS_STEP, PLACES_TABLE = "surroundings", "places"
SURROUNDINGS_LEVEL = 0.05  # of p, up to which classes are said to have a shortcut in their surroundings
LEAST_EXCEPTIONAL = 0.005  # share of images that must be exceptions before a shortcut that others carry can be denied
LEAST_RISE = 0.1  # share of composites that the model must take for their donor's class beyond the control
LEAST_MAJORITY = 2 / 3  # of a class, below which its images are not said to share their surroundings
MOST_NAMED = 3  # classes that an error line names
MOST_OF_ALL = 99.9  # percent of a class that has an exception


class PlacesRow(TypedDict):
    """Row of the table `places`: an image of the run and its own places.

    `side` is the output of the class for which its mean place speaks, `margin` the log-odds of its label by it, in
    nats; `own` are the packed bits of own places (`height`, `width`), row after row.
    """

    row: int
    target: int
    side: int
    margin: float
    height: int
    width: int
    own: bytes


def unpack_places(row: PlacesRow) -> Bools:
    """Return the own places (h, w) of a row of the table `places`."""
    shape = row["height"], row["width"]
    return np.unpackbits(np.frombuffer(row["own"], np.uint8), count=shape[0] * shape[1]).reshape(shape).astype(bool)


class CompositeRow(TypedDict):
    """Row of the table `composites`: own places of an image on an image that shows the surroundings of another class.

    `side` is that class, `predicted` the class that the model gives it; `control` is an image with surroundings of the
    source's own class, `predicted_control` what the model says of the same own places on it.
    """

    source: int
    target: int
    donor: int
    side: int
    predicted: int
    control: int
    predicted_control: int


@dataclass(frozen=True)
class ClassSurroundings:
    """Surroundings that the images of a class share, exceptions, and whether the model follows them.

    Attributes:
        name, target: the class and its output.
        n: images that were examined.
        exceptions: those on the side of another class.
        other: name of the class on whose side most exceptions are; empty without exceptions.
        taken: composites of its images, on surroundings of other classes, that the model takes for that other class.
        taken_control: the same own places on surroundings of their own class, taken for that other class.
        stays: composites on surroundings of other classes that stay what they are.
    """

    name: str
    target: int
    n: int
    exceptions: int
    other: str
    taken: Interval
    taken_control: Interval
    stays: Interval

    def __repr__(self) -> str:
        exceptions = f"{self.exceptions} of {format_count(self.n, 'image')} do not follow them"
        return f"ClassSurroundings({self.name!r}, {exceptions}{', relied on' if self.relies else ''})"

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ClassSurroundings:
        """Read a record of `dataclasses.asdict`."""
        shares = {name: Interval(**record[name]) for name in ("taken", "taken_control", "stays")}
        return cls(**record | shares)

    @property
    def majority(self) -> float:
        """Share of the images that follow the surroundings of their class."""
        return 1 - self.exceptions / self.n

    @property
    def relies(self) -> bool:
        """Whether the model follows the surroundings, by the ends of both intervals."""
        rise = self.taken.value - self.taken_control.value
        return self.taken.low > self.taken_control.high and rise >= LEAST_RISE

    def describe(self) -> str:
        """Say in a sentence that can be mailed who follows the shortcut, and whether the model does."""
        if not self.exceptions:
            return f"{self.name}: all {self.n} images share their surroundings; without exceptions nothing can be told."
        if self.majority < LEAST_MAJORITY:
            exceptions = f"{self.name}: {self.exceptions} of {self.n} images show the surroundings of another class."
        else:
            count = format_count(self.exceptions, "exception")
            exceptions = (
                f"{self.name}: {self.n - self.exceptions} of {self.n} images share their surroundings; {count}."
            )
        if not self.taken.n:
            return f"{exceptions} Whether the model uses them was not tested."
        verdict = "the model relies on them" if self.relies else "no use of them was shown"
        return (
            f"{exceptions} With surroundings of another class, {_percent(self.taken)} of images are predicted as that "
            f"class, and {_percent(self.taken_control)} with other surroundings of their own class: {verdict}."
        )


@dataclass(frozen=True)
class ExceptionalImage:
    """Image that does not follow the shortcut of its class."""

    path: str
    label: str
    side: str
    margin: float


@dataclass(frozen=True)
class Surroundings:
    """Whether classes can be told by what surrounds the images' own places.

    Attributes:
        classes: in the order of the run.
        exceptions: images on another side than their label, the clearest first.
        separate: how well what is the images' own and what surrounds it tell the classes apart, each alone, 0 to 1.
        p: rank of `separate` among pairs of natural classes.
    """

    classes: tuple[ClassSurroundings, ...]
    exceptions: tuple[ExceptionalImage, ...]
    separate: float
    p: float

    def __repr__(self) -> str:
        exceptions = format_count(len(self.exceptions), "exception")
        return f"Surroundings({len(self.classes)} classes, {exceptions}, {len(self.relied_on)} relied on)"

    def __iter__(self) -> Iterator[ClassSurroundings]:
        return iter(self.classes)

    @property
    def found(self) -> bool:
        """Whether the classes have a shortcut in their surroundings."""
        return self.p <= SURROUNDINGS_LEVEL

    @property
    def relied_on(self) -> tuple[ClassSurroundings, ...]:
        """Classes of which the model follows the surroundings."""
        return tuple(one for one in self if self.found and one.relies)

    def describe_use(self) -> str:
        """Say in a clause of which classes the model follows the surroundings; empty where of none."""
        shares = [f"{min(100 * one.majority, MOST_OF_ALL):.3g} % of {one.name}" for one in self.relied_on]
        if (more := len(shares) - MOST_NAMED) > 0:
            shares[MOST_NAMED:] = [f"most images of {more} more"]
        listed = " and ".join(filter(None, [", ".join(shares[:-1]), *shares[-1:]]))
        return f"{listed} share their surroundings, and the model relies on them" if listed else ""

    def describe(self) -> tuple[str, ...]:
        """Say in sentences what was found."""
        images = sum(one.n for one in self)
        if not self.found and len(self.exceptions) < LEAST_EXCEPTIONAL * images:
            return (
                f"surroundings: {format_count(len(self.exceptions), 'exception')} among {images} images. Where every "
                "image of a class shares its surroundings, no exception exists, and nothing can be told of them.",
            )
        if not self.found:
            return (
                "surroundings: no shortcut was shown that nearly a whole class carries in its surroundings "
                f"(p {format_p(self.p)} among natural classes). Shortcuts on the object itself, such as its colour, "
                "are asked for above.",
            )
        return (*(one.describe() for one in self), f"p {format_p(self.p)} among natural classes.")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "found": self.found, "relied_on": [one.name for one in self.relied_on]}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Surroundings:
        """Read what `to_json` wrote."""
        classes = tuple(ClassSurroundings.from_json(one) for one in content["classes"])
        exceptions = tuple(ExceptionalImage(**one) for one in content["exceptions"])
        return cls(classes, exceptions, content["separate"], content["p"])

    def to_csv(self) -> str:
        """List the exceptions as CSV: path, label, side, margin."""
        out = io.StringIO()
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(("path", "label", "side", "margin"))
        lines.writerows((one.path, one.label, one.side, f"{one.margin:.3f}") for one in self.exceptions)
        return out.getvalue()


def is_examined(run: RunStore) -> bool:
    """Say whether surroundings of the run were examined."""
    return run.has_file(SURROUNDINGS_FILE)


@check_arguments
def read_surroundings(run: str | Path | RunStore) -> Surroundings:
    """Read what was found of the surroundings in a run.

    Raises:
        StoreError: they were not examined; `klarsicht audit shortcuts` does so.
        RunDamaged: the file is missing or altered.
    """
    store = RunStore.open(run)
    if not is_examined(store):
        labels = Counter(store.texts("corpus", "label"))
        smallest = min(labels, key=lambda label: labels[label])
        raise StoreError(
            "the surroundings of this run were not examined",
            got=f"{store.path}, {len(labels)} classes; the smallest, {smallest}, has {labels[smallest]:,} images",
            rule="2 to 20 classes of 100 images of 24 x 24 pixels or more, and `klarsicht audit shortcuts`",
            remedy="Audit only classes that are large enough, and run `klarsicht audit shortcuts` on that run.",
        )  # fmt: skip
    content = store.read_json(SURROUNDINGS_FILE)
    with store.translate_parse_errors(SURROUNDINGS_FILE):
        return Surroundings.from_json(content)


def _percent(share: Interval) -> str:
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"
