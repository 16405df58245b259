"""Images of the same classes in which a shortcut says nothing of the class: a person who has some names them.

Three fifths of them teach a correction, two fifths of other sources show what it gains. Their classes are the groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.group_accuracy import (
    ANY_SIDE,
    FEW_IN_GROUP,
    GroupComparison,
    Sides,
    compare,
    predict_classes,
)
from klarsicht.audit.cleaning.models.run_groups import BLOCK
from klarsicht.audit.explanation.data.locations import require_place
from klarsicht.audit.explanation.data.splits import TEST, split_by_source
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.results.correction_words import CleaningKind
from klarsicht.audit.results.words import format_count, join_words
from klarsicht.ground.arrays import Bools, Doubles, Ints, Pixels, Rows
from klarsicht.ground.errors import InputError, RunMismatch
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.paired_loss import MOST, items_to_settle

BALANCED_PICTURES: Final = "balanced images that taught nothing"
LEAST_BALANCED: Final = 10  # images of each class, of different sources


@dataclass(frozen=True)
class BalancedComparison(GroupComparison):
    """Comparison of balanced images. All of them together show a gain: a class has one group, and few images."""

    @property
    def may_object(self) -> bool:
        return True

    @property
    def gains(self) -> bool:
        return self.loss.high < 0

    @property
    def no_help(self) -> str:
        return "" if self.gains else f"no gain was shown; {self.describe()}"

    @property
    def failure(self) -> CleaningKind:
        return CleaningKind.UNSHOWN if self.loss.value < 0 else CleaningKind.REMAINS

    @property
    def effect_left(self) -> str:
        return self.describe()

    @property
    def advice(self) -> str:
        enough = items_to_settle(self.loss, 0.0)
        if self.loss.value >= 0 or enough >= MOST:
            return "Try another --steps or --rate, or name other images by --balanced."
        return (
            f"Name more images by --balanced: {self.loss.n} showed the result, and about {enough:,} would show such a "
            "gain. Two fifths of what you name show it, the others teach."
        )

    @property
    def few(self) -> str:
        count = self.fewest.right.n
        if count >= FEW_IN_GROUP:
            return ""
        return f"{self.kind}: {format_count(count, 'image')} of {self.fewest.label}, which prove little of it alone"

    def describe(self) -> str:
        average, worst = self.describe_average(), self.describe_worst()
        return f"{self.kind}: average of classes {average}; worst class {worst}"


@dataclass(frozen=True)
class BalancedImages:
    """Balanced images.

    Attributes:
        place: of their corpus; empty where it is a sequence or table in Python.
        identity: hash of the corpus.
        levels: uint8 (n, H, W, C), at the size of the model's input.
        labels: int (n,), outputs of the model.
        teaches: bool (n,), images that teach; the others, of other sources, show the result.
        images: the map between levels and inputs.
    """

    place: str
    identity: str
    levels: Pixels
    labels: Ints
    teaches: Bools
    images: InputImages

    @classmethod
    def of(cls, run: AuditedRun, data: Any, seed: int) -> BalancedImages:
        """Read the images of a corpus whose classes are those of a run, and deal them by source.

        Args:
            data: the corpus, a path or what it is in Python.

        Raises:
            InputError: fewer than LEAST_BALANCED images of a class of the run, of different sources.
            CorpusError: labels that the run does not know, or no corpus.
        """
        if isinstance(data, str | Path):
            require_place(data, "--balanced")
        other, classes = run.open_other(data), np.unique(run.labels[run.labels >= 0])
        rows = np.flatnonzero(np.isin(other.labels, classes))
        labels, sources = other.labels[rows], other.corpus.source_numbers[rows]
        counts = {int(one): len(np.unique(sources[labels == one])) for one in classes}
        if small := [one for one, count in counts.items() if count < LEAST_BALANCED]:
            texts = [f"{run.audit.names[one]} {counts[one]}" for one in small[:3]]
            raise InputError(
                "too few balanced images",
                got=join_words([*texts, f"{len(small) - 3} more classes"] if len(small) > 3 else texts),
                rule=f"{LEAST_BALANCED} of each class of the run, of different sources",
                remedy="Add images to --balanced.",
            )  # fmt: skip
        members = labels == classes[:, None]
        part = split_by_source(sources, members, generator(seed, "balanced images"))
        images = InputImages.of(other.corpus, run.audit.classifier)
        place = str(data) if isinstance(data, str | Path) else ""
        return cls(place, other.corpus.hash, images(rows), labels, np.asarray(part != TEST), images)

    @property
    def chances(self) -> Doubles:
        """Chance of each image to be drawn, float (n,): of images that teach, every class is as often drawn."""
        counts = np.bincount(self.labels[self.teaches], minlength=int(self.labels.max()) + 1)
        chances = self.teaches / np.maximum(counts[self.labels], 1)
        return np.asarray(chances / chances.sum())

    def draw(self, count: int, rng: np.random.Generator) -> Rows:
        """Draw images that teach, of every class about as many: rows (count,)."""
        return np.asarray(rng.choice(len(self.labels), count, p=self.chances))

    def show(self, rows: Rows) -> Tensor:
        """Return images as model inputs (m, C, H, W)."""
        return self.images.pixel_scale.inputs(self.levels[rows])

    def truth(self, rows: Rows) -> Tensor:
        """Return labels (m,)."""
        return torch.from_numpy(self.labels[rows])

    def compare(self, run: AuditedRun, correction: Correction) -> BalancedComparison:
        """Compare the classes of images that taught nothing, before and after a correction."""
        rows = np.flatnonzero(~self.teaches)

        def batches() -> Iterator[Tensor]:
            return (self.show(rows[a : a + BLOCK]) for a in range(0, len(rows), BLOCK))

        classes, classifier = np.unique(self.labels), run.audit.classifier
        answers = [predict_classes(classifier, one, batches(), classes) for one in (None, correction)]
        sides, names = Sides(np.zeros(len(rows), int), {0: ANY_SIDE}), dict(enumerate(run.audit.names))
        one = compare(BALANCED_PICTURES, answers, self.labels[rows], sides, names, np.ones(len(rows), bool))
        return BalancedComparison(one.kind, one.before, one.after, one.loss)

    def to_json(self) -> dict[str, Any]:
        """Return what tells which images these are, and how many taught and showed, as JSON values."""
        taught = int(self.teaches.sum())
        return {"data": self.place, "identity": self.identity, "taught": taught, "shown": len(self.labels) - taught}

    def require_same(self, record: dict[str, Any]) -> None:
        """Check that these are the images of a record of `to_json`: others were not dealt to teach or to show. Raises
        RunMismatch otherwise."""
        if self.identity != record["identity"]:
            raise RunMismatch(
                "these are not the balanced images of the correction", got=self.place or "data in Python",
                rule="images that taught it are not shown", remedy="Name the same ones: --balanced. Or show others by "
                "--test and --groups.",
            )  # fmt: skip
