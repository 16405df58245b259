"""Stability of the explanations of a run, by class: how alike relevance maps stay when noise is added and taken off."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from klarsicht.ground.errors import StoreError
from klarsicht.ground.pictures import notebook
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.intervals import Interval

STABILITY_FILE: Final = "stability.json"
STABILITY_TABLE: Final = "stability.csv"
PASSES_OF_IMAGE: Final = 3  # explained: the image as it is, with noise, and without
MEASURE: Final = "Spearman's rank correlation of relevance maps"


@dataclass(frozen=True)
class ClassStability:
    """Rank correlation of the relevance maps of sampled images of a class with those of the same images changed.

    Attributes:
        name, target: the class and its output; JSON calls the name `class`.
        grain: median deviation of the noise at middle grey, in grey levels of 8 bits.
        with_noise: with noise of the image's own estimated level added.
        without_noise: with that noise taken off.
        other: mean correlation of the maps of two different images of the class.
    """

    name: str
    target: int
    grain: float
    with_noise: Interval
    without_noise: Interval
    other: float

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> ClassStability:
        """Read a record of `to_json`."""
        ends = {name: Interval(**record[name]) for name in ("with_noise", "without_noise")}
        return cls(record["class"], record["target"], record["grain"], **ends, other=record["other"])

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        record = asdict(self)
        return {"class": record.pop("name"), **record}

    @property
    def texts(self) -> tuple[str, ...]:
        """The cells of all STABILITY_COLUMNS."""
        return tuple(text(self) for text in STABILITY_COLUMNS.values())


def format_correlation(value: Interval) -> str:
    """Format a correlation with its interval."""
    return f"{value.value:z.2f} ({value.low:z.2f} to {value.high:z.2f})"


STABILITY_COLUMNS: Final[dict[str, Callable[[ClassStability], str]]] = {
    "class": lambda one: one.name,
    "images": lambda one: str(one.with_noise.n),
    "noise (grey levels)": lambda one: f"{one.grain:.1f}",
    "map with noise (95 %)": lambda one: format_correlation(one.with_noise),
    "map denoised (95 %)": lambda one: format_correlation(one.without_noise),
    "map of another image": lambda one: f"{one.other:z.2f}",
}
"""The table of stability by the headings of its columns."""


@dataclass(frozen=True)
class Stability:
    """Stability of all classes, the least stable under noise first. method: of the relevance. denoiser: of the
    images."""

    classes: tuple[ClassStability, ...]
    method: str
    denoiser: str

    @property
    def passes(self) -> int:
        """Number of images that were explained for it."""
        return PASSES_OF_IMAGE * sum(one.with_noise.n for one in self)

    @property
    def cost(self) -> str:
        """The measure and its cost in a sentence."""
        return f"{MEASURE} ({self.method}); cost: {self.passes:,} explained passes, three an image."

    def of_target(self, target: int) -> ClassStability | None:
        """Return the stability of the class of an output; None where it was not measured."""
        return next((one for one in self if one.target == target), None)

    def __iter__(self) -> Iterator[ClassStability]:
        return iter(self.classes)

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"Stability({len(self)} classes, {self.passes:,} explained passes)"

    def _repr_html_(self) -> str:
        return notebook.table(list(STABILITY_COLUMNS), [one.texts for one in self])

    def to_json(self) -> dict[str, Any]:
        """Return the content of stability.json."""
        return {
            "measure": MEASURE, "method": self.method, "denoiser": self.denoiser, "passes": self.passes,
            "classes": [one.to_json() for one in self],
        }  # fmt: skip

    def to_csv(self) -> str:
        """List the classes as CSV: class, images, grain, and correlations with their ends."""
        out = io.StringIO()
        lines = csv.writer(out, lineterminator="\n")
        ends = ("value", "low", "high")
        lines.writerow(
            (
                "class",
                "images",
                "grain",
                *(f"{name}_{end}" for name in ("with_noise", "without_noise") for end in ends),
                "other",
            )
        )
        for one in self:
            values = (
                one.grain,
                *(getattr(correlation, end) for correlation in (one.with_noise, one.without_noise) for end in ends),
                one.other,
            )
            lines.writerow((one.name, one.with_noise.n, *(f"{value:.4f}" for value in values)))
        return out.getvalue()


def is_stability_measured(store: RunStore) -> bool:
    """Whether `audit stability` was run."""
    return store.has_file(STABILITY_FILE)


@check_arguments
def read_stability(run: str | Path | RunStore) -> Stability:
    """Read the stability of the explanations of a run.

    Raises:
        StoreError: it was not measured; `klarsicht audit stability` does so.
        RunDamaged: the file is missing or altered.
    """
    store = RunStore.open(run)
    if not is_stability_measured(store):
        raise StoreError(
            "the stability of explanations was not measured in this run", got=store.path,
            rule="a run that `audit stability` has been through",
            remedy=f"Run `klarsicht audit stability {store.path}`.",
        )  # fmt: skip
    content = store.read_json(STABILITY_FILE)
    with store.translate_parse_errors(STABILITY_FILE):
        classes = tuple(map(ClassStability.from_json, content["classes"]))
        return Stability(classes, content["method"], content["denoiser"])
