"""Find the content of other things that classes of a run lean on, and show that it acts on other pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from klarsicht.audit.explanation.data import groups
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results.content_groups import (
    CONTENT_FILE,
    ContentEffect,
    ContentGroup,
    ContentGroups,
    ContentPicture,
)
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.verdicts.content.acting_regions import LastGrid
from klarsicht.audit.verdicts.content.content_page import write_content_page
from klarsicht.audit.verdicts.content.content_search import MOST_LIKED, PicturePile
from klarsicht.audit.verdicts.content.region_transfers import Frame, Trial, cut_region, frame_of, transfer_regions
from klarsicht.audit.verdicts.interventions.experiment import Predict
from klarsicht.audit.verdicts.quantification.opened_runs import open_run, usable_groups
from klarsicht.audit.verdicts.quantification.units import DetectionUnits, predictor
from klarsicht.ground.arrays import Bools, Floats, Pixels, Rows
from klarsicht.ground.progress import track
from klarsicht.ground.ranges import SHOWN_IMAGES
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.ground.user_arguments import check_arguments

CONTENT_IMAGES: Final = 100  # pictures that get the content of a group, by default


@check_arguments
def find_content(
    run: str | Path | RunStore, *, classes: Sequence[str] | None = None, images: int = CONTENT_IMAGES,
    level: float = LEVEL, data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> ContentGroups:  # fmt: skip
    """Find for classes the pictures of other things that they like and that share content; write JSON and a page.

    Args:
        classes: names of outputs, or numbers. By default those of the run: its labels, the class that it screens for,
            or where it screens for all, all.
        images: most pictures that get the content of a group; each is shown with it and with other content.
        level: of p, below which a group is more alike than random groups.
        run, data, classifier, device: see quantification.quantify.

    Raises:
        UsageError: an unknown class, or a number out of range.
        ModelError: the network has no place where content has positions, or its transform is not linear.
        RunMismatch: model or data differ from those of the run.
    """
    SHOWN_IMAGES.require("images", images)
    with open_run(
        run, level=level, workers=1, data=data, classifier=classifier, grouped=usable_groups, device=device
    ) as (audit, work):
        targets = [groups.find_output(name, audit.names, audit.index) for name in classes or ()]
        targets = targets or [group.target for group in work.groups]
        search = ContentSearch(audit, work, images, level)
        with predictor(work) as predict:
            examined = [search.examine(one, predict) for one in track(targets, len(targets), "content of other things")]
        result = ContentGroups.of(one for one, _ in examined)
        regions = {one.target: cut for one, cut in examined}
        audit.sharing.once("content.written", lambda: write_content(work, result, regions))
    return result


def write_content(work: DetectionUnits, found: ContentGroups, regions: Mapping[int, Bools]) -> None:
    """Write groups as JSON, and as a page with their regions (m, H, W) by class."""
    work.store.write_json(CONTENT_FILE, found.to_json())
    write_content_page(work, found, regions)


@dataclass(frozen=True)
class ContentSearch:
    """Search for content in the pictures of a run.

    Attributes:
        audit, work: the run.
        images: most pictures that get the content of a group.
        level: of p.
    """

    audit: Audit
    work: DetectionUnits
    images: int
    level: float

    @cached_property
    def rows(self) -> Rows:
        """Rows of usable images, each image once."""
        rows = np.unique(np.concatenate([group.rows for group in self.work.groups]))
        return rows[np.sort(np.unique(self.work.corpus.image_numbers[rows], return_index=True)[1])]

    @cached_property
    def pile(self) -> PicturePile:
        """Logits and features of these images, as the run stored them."""
        logits, features = (np.asarray(self.work.store.array(name)[self.rows]) for name in ("logits", "features"))
        return PicturePile(logits, features, self.work.scale)

    @cached_property
    def grid(self) -> LastGrid:
        """Place of the network that regions are of."""
        return LastGrid.of(self.work.input_images.classifier)

    def list_others(self, target: int) -> Rows:
        """List the positions in the pile of images that do not carry the label of a class."""
        corpus = self.work.corpus
        own = np.array([self.audit.index.get(label, -1) == target for label in corpus.labels], bool)
        return np.flatnonzero(~np.isin(corpus.image_numbers[self.rows], corpus.image_numbers[own]))

    def list_candidates(self, target: int, others: Rows) -> Rows:
        """List the first pictures by the liking of a class without copies of others, MOST_LIKED or half of them."""
        count = min(MOST_LIKED, len(others) // 2)
        first = self.pile.order(target, others)[: 2 * count]
        kept, _ = self.work.drop_repeats(self.rows[first])
        return first[np.isin(self.rows[first], kept)][:count]

    def examine(self, target: int, predict: Predict) -> tuple[ContentGroup, Bools]:
        """Find the group of a class and, where it stands out, measure its content; return it with its regions
        (m, H, W)."""
        others = self.list_others(target)
        rng = generator(self.work.settings.seed, "content", target)
        similar = self.pile.find_group(target, self.list_candidates(target, others), others, rng)
        group = ContentGroup(self.audit.names[target], target, len(others), level=self.level)
        if similar is None:
            return group, np.zeros((0, *self.work.input_images.shape), bool)
        shape = self.work.input_images.shape
        relevance = self.find_relevance(self.rows[similar.rows], target)
        regions = np.stack([cut_region(one, shape) for one in relevance])
        places = [frame_of(one, shape) for one in relevance]
        pictures = self.describe_pictures(similar.rows, places, target)
        group = replace(group, p=similar.p, likings=similar.likings, pictures=pictures)
        if not group.stands_out:
            return group, regions
        return self.measure(group, similar.rows, regions, np.setdiff1d(others, similar.rows), predict, rng), regions

    def find_relevance(self, rows: Rows, target: int) -> Floats:
        """Compute the relevance of the positions of images of the run for a class: (m, h, w)."""
        images = self.work.input_images
        return self.grid.find_regions(images.classifier, images.as_inputs(rows), (target,))[target].relevance

    def describe_pictures(self, positions: Rows, places: Sequence[Frame], target: int) -> tuple[ContentPicture, ...]:
        """Describe the pictures at positions of the pile, and where they act."""
        corpus, probability = self.work.corpus, np.exp(self.pile.scale.log_probability(self.pile.logits, target))
        return tuple(
            ContentPicture(corpus.keys[row], corpus.labels[row], int(row), float(probability[i]), place)
            for i, row, place in zip(positions, self.rows[positions], places, strict=True)
        )

    def measure(
        self, group: ContentGroup, members: Rows, regions: Bools, others: Rows, predict: Predict,
        rng: np.random.Generator,
    ) -> ContentGroup:  # fmt: skip
        """Lay the regions of a group on other pictures that are not predicted as the class, and regions of random other
        pictures, equally large and at the same places.

        Args:
            members: positions of the group in the pile.
            others: positions of pictures that are neither of the class nor of the group.
        """
        images, scale, target = self.work.input_images, self.work.scale, group.target
        free = others[~scale.predicts(self.pile.logits[others], target)]
        trial = Trial.draw(self.rows[free], self.rows[others], self.images, rng)

        def show(levels: Pixels) -> Floats:
            return predict(images.pixel_scale.inputs(levels))

        own, control = transfer_regions(images, show, self.rows[members], regions, trial)
        return replace(group, effect=ContentEffect.of_logits(own, control, target, scale, rng))
