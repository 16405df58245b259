"""Images of one class's case: with the artifact, of the class without it, and a fair draw of clean images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from klarsicht.audit.data.corpus import Corpus, decode_rows
from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.arrays import Bools, Ints
from klarsicht.ground.progress import track

Images = Sequence[Tensor]


@dataclass(frozen=True)
class Sample:
    """n images as the model takes them.

    Attributes:
        images: n tensors (C, H, W).
        member: bool (n,), true where the artifact is.
        sources: int (n,), see Corpus.source_numbers.
        labels: int (n,), the right output, or -1 where unknown.
        rows: int (n,), rows of the corpus; empty where the images come from elsewhere.
        fair: bool (n,), true for a draw of clean images that is representative of all clean ones; empty: all clean.
        skipped: (path, why) of images that could not be read.
        weight: float (n,), how much each counts in a training; empty: all the same.
    """

    images: Images
    member: Bools
    sources: Ints
    labels: Ints
    rows: Ints = field(default_factory=lambda: np.empty(0, np.intp))
    fair: Bools = field(default_factory=lambda: np.empty(0, bool))
    skipped: tuple[tuple[str, str], ...] = ()
    weight: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def drawn(self) -> Bools:
        """The fair draw (n,)."""
        return self.fair if len(self.fair) else ~self.member

    def of(self, chosen: Bools) -> Sample:
        """Those images, in their order."""
        at = np.flatnonzero(chosen)
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {k: v[at] if len(v) else v for k, v in kept.items() if isinstance(v, np.ndarray)}
        return Sample(**kept | arrays | {"images": [self.images[int(i)] for i in at]})


@dataclass(frozen=True)
class Case:
    """One class of an audited model and its corpus.

    Attributes:
        target: the class's output.
        labels: int (N,), the right output for each image of the corpus, -1 where unknown.
        part: int8 (N,), see audit.data.splits.
        member: bool (N,), images that carry the artifact for sure.
        clean: bool (N,), images that very likely do not.
    """

    corpus: Corpus
    classifier: Classifier
    target: int
    labels: Ints
    part: NDArray[np.int8]
    member: Bools
    clean: Bools

    def sample(self, part: int, most: int, rng: np.random.Generator) -> Sample:
        """At most `most` members, as many clean images of the class, and as many clean images of any class."""
        here = self.part == part
        own = np.flatnonzero(here & self.clean & (self.labels == self.target))
        members, own, fair = (
            _some(rows, most, rng)
            for rows in (np.flatnonzero(here & self.member), own, np.flatnonzero(here & self.clean))
        )
        rows = np.concatenate([members, np.union1d(own, fair)])
        return self.read(rows, np.isin(rows, fair))

    def read(self, rows: Ints, fair: Bools) -> Sample:
        """Rows of the corpus, decoded; one that cannot be read any more is named in `skipped`."""
        images, kept, skipped = read(self.corpus, self.classifier, rows)
        rows, fair = rows[kept], fair[kept]
        sources = self.corpus.source_numbers[rows]
        weight = np.array([self.corpus.weights[row] for row in rows] if self.corpus.weights else [])
        return Sample(images, self.member[rows], sources, self.labels[rows], rows, fair, skipped, weight)


def read(corpus: Corpus, classifier: Classifier, rows: Ints) -> tuple[list[Tensor], Ints, tuple[tuple[str, str], ...]]:
    """Images as the model takes them, which of the rows they are, and (path, why) of the others."""
    images, kept, skipped = [], [], []
    decoded = decode_rows(corpus, [int(row) for row in rows])
    for i, (row, picture) in enumerate(track(decoded, len(rows), "images")):
        if isinstance(picture, Image.Image):
            images.append(classifier.image(picture))
            kept.append(i)
        else:
            skipped.append((corpus.paths[row], str(picture)))
    return images, np.array(kept, np.intp), tuple(skipped)


def _some(rows: NDArray[Any], most: int, rng: np.random.Generator) -> NDArray[Any]:
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
