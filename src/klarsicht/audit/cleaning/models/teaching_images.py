"""Images that teach a model to do without a shortcut, and that show whether it does: images of the run with their own
places, balanced images that a person names, or both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from torch import Tensor

from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.retraining import RetrainedWeights
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.balanced_images import BalancedImages
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.composite_training import train_on_balanced, train_on_composites
from klarsicht.audit.cleaning.models.group_accuracy import (
    ANY_SIDE,
    SHOWN_COMPOSITES,
    GroupComparison,
    OwnImages,
    Sides,
    compare_groups,
    limit_groups,
)
from klarsicht.audit.cleaning.models.run_groups import compare_pictures, names_sides
from klarsicht.audit.results.surroundings import read_surroundings
from klarsicht.ground.errors import UsageError

RUN_PICTURES: Final = "images of the run"


@dataclass(frozen=True)
class TeachingImages:
    """Images that teach and show a correction of all classes of a run.

    Attributes:
        own_images: of the run, with their own places; None where balanced images teach alone.
        sides: true groups of all images of the run that a person names; None: the sides that were found.
        fair_images: balanced ones; None where there are none.
    """

    run: AuditedRun
    own_images: OwnImages | None
    sides: Sides | None
    fair_images: BalancedImages | None

    @classmethod
    def of(
        cls, run: AuditedRun, seed: int, sides: Sides | None, fair_data: Any = None, with_bound: bool = False,
        only_held_out: bool = False,
    ) -> TeachingImages:  # fmt: skip
        """Open images of a run, and balanced ones if there are any, which teach alone unless a shortcut was shown in
        the surroundings and own places can be laid on others.

        Args:
            fair_data: corpus of balanced images.
            with_bound, only_held_out: see `OwnImages.of`.

        Raises:
            StoreError: surroundings were not examined, and there are no balanced images.
            UsageError: too few own places, and there are no balanced images.
            InputError, CorpusError: see `BalancedImages.of`.
        """
        if fair_data is None:
            finding = read_surroundings(run.store).describe()[0]
            own_images = OwnImages.of(run, seed, sides, only_held_out=only_held_out, with_bound=with_bound)
            if not only_held_out:
                require_own_places(own_images, finding)
            return cls(run, own_images, sides, None)
        fair, composes = BalancedImages.of(run, fair_data, seed), False
        if names_sides(run):
            own_images = OwnImages.of(run, seed, sides)
            composes = count_own_places(own_images) >= 2
        return cls(run, own_images if composes else None, sides, fair)

    @property
    def example(self) -> Tensor:
        """One of the images, as a model input (1, C, H, W)."""
        if self.own_images is not None:
            return next(self.own_images.show(np.arange(1)))
        assert self.fair_images is not None
        return self.fair_images.show(np.arange(1))

    @property
    def targets(self) -> list[int]:
        """Outputs of all classes."""
        labels = self.run.labels if self.own_images is None else self.own_images.labels
        return [int(one) for one in np.unique(labels[labels >= 0])]

    def train(self, settings: CleanSettings) -> RetrainedWeights:
        """Train a copy of the model on them."""
        classifier = self.run.audit.classifier
        if self.own_images is not None:
            return train_on_composites(classifier, self.own_images, settings, self.fair_images)
        assert self.fair_images is not None
        return train_on_balanced(classifier, self.fair_images, settings)

    def compare(self, correction: Correction, seed: int, most: int | None = None) -> tuple[GroupComparison, ...]:
        """Compare groups of images that taught nothing; the last comparison decides. `seed` and `most` as in
        `compare_groups`."""
        fair = () if self.fair_images is None else (self.fair_images.compare(self.run, correction),)
        if self.own_images is None:
            return (self.compare_run(correction, seed, SHOWN_COMPOSITES if most is None else most), *fair)
        names: Mapping[int, str] = dict(enumerate(self.run.audit.names))
        on, classifier = names if self.sides is None else self.sides.names, self.run.audit.classifier
        *others, last = compare_groups(classifier, correction, self.own_images, on, names, seed, most=most)
        return (*others, *fair, last)

    def compare_run(self, correction: Correction, seed: int, most: int) -> GroupComparison:
        """Compare at most so many images of each group of the run, none of which taught; by default of each class."""
        labels = self.run.labels
        on = self.sides or Sides(np.where(labels < 0, -1, 0), {0: ANY_SIDE})
        return compare_pictures(self.run, correction, on, limit_groups(labels, on.numbers, most, seed), RUN_PICTURES)


def count_own_places(own_images: OwnImages) -> int:
    """Count images that teach own places that can be laid on others, of the class that has fewest."""
    one = own_images
    return min(int((one.usable & one.teaches & (one.labels == label)).sum()) for label in np.unique(one.labels))


def require_own_places(own_images: OwnImages, finding: str) -> None:
    """Check that two images of each class teach own places that can be laid on others; `finding` says what was found of
    surroundings. Raises UsageError."""
    if (fewest := count_own_places(own_images)) < 2:
        raise UsageError(
            "too few own places to train on other surroundings", got=finding,
            rule=f"2 images of each class; the fewest are {fewest}",
            remedy="Name images in which the shortcut says nothing: --balanced. Or clean a class: --class.",
        )  # fmt: skip
