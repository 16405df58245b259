"""Ask what the prediction for one picture rests on: exchange its surroundings, and frame it otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from klarsicht.audit.results.checked_picture import PictureQuestion
from klarsicht.audit.results.words import SURROUNDINGS
from klarsicht.audit.verdicts.interventions.experiment import Predict
from klarsicht.audit.verdicts.interventions.framings import FRAMINGS, WHOLE_PICTURE, resample
from klarsicht.audit.verdicts.interventions.image_parts import REGION_OUTSIDE, PartImages
from klarsicht.audit.verdicts.quantification.picture_surroundings import PictureSurroundings
from klarsicht.audit.verdicts.quantification.sufficiency_units import FILL_IMAGES, PartReader
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.arrays import Floats, Pixels, Rows
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import difference_interval

ASKED_PARTS: Final = ("border", REGION_OUTSIDE, "spectrum")  # the outside where images of the run are aligned
ASKED_DONORS: Final = 6  # images of other classes, and as many of the predicted class, whose parts a picture gets


@dataclass(frozen=True)
class PictureQuestions:
    """Images of a run whose parts single pictures get.

    Attributes:
        work: store, corpus, settings and groups.
        names: of the outputs.
        carrying: rows of images with a known artifact, which give no part.
    """

    work: DetectionUnits
    names: tuple[str, ...]
    carrying: Rows

    @cached_property
    def reader(self) -> PartReader:
        return PartReader(self.work, FILL_IMAGES)

    def ask(self, image: Pixels, target: int, predict: Predict) -> tuple[PictureQuestion, ...]:
        """Exchange parts of an image (H, W, C) that is predicted as the target, and frame it otherwise.

        Parts are only exchanged where the run has two images of the class and two of others without known artifacts.
        """
        own, others = self.draw_donors(target)
        asked = [part for part in ASKED_PARTS if part in self.reader.parts and min(len(own), len(others)) > 1]
        of_parts = [
            self._compare(part, target, self._give(part, image, others), self._give(part, image, own), predict)
            for part in asked
        ]
        return *self._exchange_surroundings(image, target, predict), *of_parts, *self._frame(image, target, predict)

    def draw_donors(self, target: int) -> tuple[Rows, Rows]:
        """Draw rows of images of a class, and as many of others in turn of each class; ASKED_DONORS at most."""
        rng = generator(self.work.settings.seed, "donors of parts", target)
        rows = {group.target: rng.permutation(np.setdiff1d(group.rows, self.carrying)) for group in self.work.groups}
        own = rows.pop(target, np.array([], np.intp))
        turns = [of[i] for i in range(ASKED_DONORS) for of in rows.values() if i < len(of)]
        count = min(ASKED_DONORS, len(own), len(turns))
        return own[:count], np.array(turns[:count], np.intp)

    @cached_property
    def surroundings(self) -> PictureSurroundings | None:
        """Images of the run on which own places of a picture are laid; None where no shortcut was found in theirs."""
        return PictureSurroundings.of(self.work)

    def _exchange_surroundings(self, image: Pixels, target: int, predict: Predict) -> Iterator[PictureQuestion]:
        """Lay own places of an image on images with surroundings of other classes, and on others of the target; nothing
        where the picture has no own places that can be laid, or too few images are there."""
        if self.surroundings is None:
            return
        own, others = self.surroundings.draw_donors(target, ASKED_DONORS)
        if len(own) < 2 or (places := self.surroundings.own_places(image)) is None:
            return
        with_others, with_own = (self.surroundings.give(image, places, rows) for rows in (others, own))
        yield self._compare(SURROUNDINGS, target, with_others, with_own, predict)

    def _compare(
        self, part: str, target: int, with_others: Pixels, with_own: Pixels, predict: Predict
    ) -> PictureQuestion:
        """Compare what is predicted with a part of other classes (n, H, W, C), and with that of the target."""
        logits, control = (self._logits(levels, predict) for levels in (with_others, with_own))
        scale = self.work.scale
        fall = difference_interval(scale.score(control, target), scale.score(logits, target))
        stays, stays_control = (int(scale.predicts(y, target).sum()) for y in (logits, control))
        name, becomes = self._commonest(logits)
        return PictureQuestion(
            part, len(with_own), stays, stays_control, name, fall.value, fall.low, fall.high, becomes
        )

    def _give(self, part: str, image: Pixels, rows: Rows) -> Pixels:
        masks = None if self.reader.masks is None else self.reader.masks(rows)
        mine = PartImages(np.repeat(image[None], len(rows), 0), inside=masks)
        return self.reader.parts[part].exchange(mine, PartImages(self.work.input_images(rows), inside=masks))

    def _frame(self, image: Pixels, target: int, predict: Predict) -> list[PictureQuestion]:
        windows = [WHOLE_PICTURE, *(framing.window for framing in FRAMINGS.values())]
        logits = self._logits(np.concatenate([resample(image[None], window) for window in windows]), predict)
        scores, stays = self.work.scale.score(logits, target), self.work.scale.predicts(logits, target)
        return [
            PictureQuestion(
                name,
                1,
                int(stays[i]),
                None,
                self._commonest(logits[i : i + 1])[0],
                float(scores[0] - scores[i]),
                None,
                None,
            )
            for i, name in enumerate(FRAMINGS, 1)
        ]

    def _logits(self, levels: Pixels, predict: Predict) -> Floats:
        return predict(self.work.input_images.pixel_scale.inputs(levels))

    def _commonest(self, logits: Floats) -> tuple[str, int]:
        """Return the class that is predicted most often, and how often."""
        counts = np.bincount(logits.argmax(1))
        return self.names[int(counts.argmax())], int(counts.max())
