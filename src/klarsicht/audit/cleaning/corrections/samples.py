"""Draw images for one class: with the artifact, of the class without it, and a representative draw of clean images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.cleaning.corrections.class_recalls import weigh_classes
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.data.skipped_images import MOST_SKIPPED, most_skipped
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.verdicts.interventions.class_parts import ClassParts
from klarsicht.audit.verdicts.interventions.insertion import Insertion, put_on
from klarsicht.ground.arrays import Bools, Ints
from klarsicht.ground.errors import ImageError, TooManySkipped
from klarsicht.ground.progress import track

Images = Sequence[Tensor]
FEWEST_NOT_TRAINED_ON: Final = (
    10  # clean images, of the class too, from which those that a model was trained on are left out
)


@dataclass(frozen=True)
class Sample:
    """Sample of n images as model inputs (C, H, W). member: bool (n,), true for images with the artifact. sources: int
    (n,), see Corpus.source_numbers. labels: int (n,), the right output, or -1 where unknown. rows: int (n,), rows of
    the corpus; empty where the images come from elsewhere. fair: bool (n,), true for a representative draw of clean
    images; empty: all clean images. skipped: (path, reason) of images that could not be read. weight: float (n,),
    sampling weights in a training; empty: all the same. paired: whether the images with the artifact are copies of
    others of the sample, which have their sources."""

    images: Images
    member: Bools
    sources: Ints
    labels: Ints
    rows: Ints = field(default_factory=lambda: np.empty(0, np.intp))
    fair: Bools = field(default_factory=lambda: np.empty(0, bool))
    skipped: tuple[tuple[str, str], ...] = ()
    weight: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    paired: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def fair_draw(self) -> Bools:
        """The representative draw of clean images: bool (n,)."""
        return self.fair if len(self.fair) else ~self.member

    def select(self, chosen: Bools) -> Sample:
        """Return the sample of the chosen images, bool (n,), in their order."""
        at = np.flatnonzero(chosen)
        kept = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {k: v[at] if len(v) else v for k, v in kept.items() if isinstance(v, np.ndarray)}
        return Sample(**kept | arrays | {"images": [self.images[int(i)] for i in at]})

    def draw(self, most: int, target: int, rng: np.random.Generator) -> Sample:
        """Draw at most `most` members, clean images of the class `target`, and images of the representative draw."""
        own = ~self.member & (self.labels == target)
        kinds = (self.member, own, self.fair_draw)
        members, of_class, fair = (draw_rows(np.flatnonzero(which), most, rng) for which in kinds)
        at = np.arange(len(self))
        chosen = replace(self, fair=np.isin(at, fair))
        return chosen.select(np.isin(at, np.concatenate([members, of_class, fair])))

    def with_copies(self, insertion: Insertion, target: int, rng: np.random.Generator) -> Sample:
        """Return the sample and, as members, copies with an artifact of its representative draw of other classes."""
        copied = self.fair_draw & (self.labels != target) & [insertion.fits(image) for image in self.images]
        at = np.concatenate([np.arange(len(self)), np.flatnonzero(copied)])
        is_copy = np.arange(len(at)) >= len(self)
        copies = [put_on(self.images[i], insertion, rng) for i in at[is_copy]]
        arrays = {name: getattr(self, name)[at] for name in ("sources", "labels")}
        rows = self.rows[at] if len(self.rows) else self.rows
        weight = self.weight[at] if len(self.weight) else self.weight
        member, fair = self.member[at] | is_copy, self.fair_draw[at] & ~is_copy
        return Sample([*self.images, *copies], member, **arrays, rows=rows, fair=fair, skipped=self.skipped,
                      weight=weight, paired=True)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """Corpus of an audited model, split for the artifact of one class, the output `target`. labels: int (N,), the right
    output for each image of the corpus, -1 where unknown. part: int8 (N,), see audit.explanation.data.splits. member,
    clean: bool (N,), images that certainly carry the artifact, and that very likely do not. planted: a known artifact,
    or parts of the class's images, which are put on copies of the images to fit on; None: members show the artifact."""

    corpus: Corpus
    classifier: Classifier
    target: int
    labels: Ints
    part: NDArray[np.int8]
    member: Bools
    clean: Bools
    planted: Insertion | None = None

    @property
    def names(self) -> dict[int, str]:
        """Labels of the corpus by their output."""
        return {
            int(output): label for output, label in zip(self.labels, self.corpus.labels, strict=True) if output >= 0
        }

    @cached_property
    def class_weights(self) -> dict[int, float]:
        """Weights of images by their class, see weigh_classes."""
        return weigh_classes(self.labels)

    @property
    def example(self) -> Images:
        """The first clean image; empty where it cannot be read."""
        return self.read(np.flatnonzero(self.clean)[:1], np.ones(1, bool)).images

    @property
    def trained_on(self) -> Bools:
        """Images of a split of training images, by the manifest: bool (N,)."""
        names = self.corpus.splits or ("",) * len(self.corpus)
        return np.array([splits.is_training_split(name) for name in names])

    def prefer_held_out(self, clean: Bools) -> Bools:
        """Return those of some images, bool (N,), that the model was not trained on, by the manifest's split; all of
        them where too few are left, of the class too."""
        held_out = clean & ~self.trained_on
        enough = min(held_out.sum(), (held_out & (self.labels == self.target)).sum()) >= FEWEST_NOT_TRAINED_ON
        return held_out if enough else clean

    def sample(self, part: int, most: int, rng: np.random.Generator) -> Sample:
        """Draw at most `most` members of a part, clean images of the class, and clean images of any class, each: of
        other parts than TRAIN preferably such that the model was not trained on. With a known artifact, those of the
        part TRAIN have copies with it."""
        here = self.part == part
        clean = here & self.clean
        if part != splits.TRAIN:
            clean = self.prefer_held_out(clean)
        members, own, fair = (
            draw_rows(np.flatnonzero(which), most, rng)
            for which in (here & self.member, clean & (self.labels == self.target), clean)
        )
        rows = np.concatenate([members, np.union1d(own, fair)])
        sample = self.read(rows, np.isin(rows, fair))
        if self.planted is None or part != splits.TRAIN:
            return sample
        return sample.with_copies(self.planted, self.target, rng)

    def read(self, rows: Ints, fair: Bools) -> Sample:
        """Decode rows of the corpus; an image that can no longer be read is listed in `skipped`. Where the artifact is
        a part that every image of the class has, they get that of images of other classes."""
        images, kept, skipped = read_images(self.corpus, self.classifier, rows)
        rows, fair = rows[kept], fair[kept]
        if isinstance(self.planted, ClassParts):
            images = [
                self.planted.take_away(image, np.random.default_rng(row))
                if self.labels[row] == self.target and self.planted.fits(image)
                else image
                for image, row in zip(images, rows.tolist(), strict=True)
            ]
        sources = self.corpus.source_numbers[rows]
        weight = np.array([self.corpus.weights[row] for row in rows] if self.corpus.weights else [])
        return Sample(images, self.member[rows], sources, self.labels[rows], rows, fair, skipped, weight)


def read_images(
    corpus: Corpus, classifier: Classifier, rows: Ints
) -> tuple[list[Tensor], Ints, tuple[tuple[str, str], ...]]:
    """Read images of a corpus as model inputs: the images, their positions among the rows, and (path, reason) of the
    others. Raises TooManySkipped: these are more than a share of MOST_SKIPPED, and all could be used when the run was
    made; Unreachable, ProgramFailed: see `Corpus.decode` and `Classifier.image`."""
    images, kept, skipped = [], [], []
    decoded = decode_rows(corpus, [int(row) for row in rows])
    for i, (row, picture) in enumerate(track(decoded, len(rows), "images")):
        try:
            if isinstance(picture, ImageError):
                raise picture
            images.append(classifier.image(picture))
            kept.append(i)
        except ImageError as error:
            skipped.append((corpus.paths[row], str(error)))
    if len(skipped) > (most := most_skipped(len(rows), MOST_SKIPPED)):
        raise TooManySkipped(
            f"too many images cannot be used any more: {len(skipped)} of {len(rows)}", got=": ".join(skipped[0]),
            rule=f"at most {most} may be skipped", remedy="Restore them from a copy; the same command resumes.",
        )  # fmt: skip
    return images, np.array(kept, np.intp), tuple(skipped)


def draw_rows(rows: NDArray[Any], most: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw at most `most` rows at random, ascending."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))
