"""Classes to signs of artifacts, and artifacts to effects: the work units of a quantification."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from klarsicht.audit.data.corpus import Corpus
from klarsicht.audit.data.groups import Group
from klarsicht.audit.detectors.bank import change_of, examined
from klarsicht.audit.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.detectors.patch_matches import grey
from klarsicht.audit.interventions.effect import LogitEffect, Predict, among_rivals, effects
from klarsicht.audit.interventions.insertion import ArtifactExamples
from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.models.eval_mode import evaluation_mode
from klarsicht.audit.models.inputs import InputImages
from klarsicht.audit.pipeline import loaded
from klarsicht.audit.results.significance import FEWEST as FEWEST_OUTPUTS
from klarsicht.audit.settings import AuditSettings
from klarsicht.audit.spray.clustering import FEWEST
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.seeding import generator
from klarsicht.ground.store import RunStore
from klarsicht.numerics.imaging.near_duplicates import originals
from klarsicht.numerics.statistics.split_half import halves

POOL = 4000  # images of all classes that one class is compared with
POOL_BYTES, CLASS_BYTES = 300 * 2**20, 2**30  # what a pool and a class may take as grey levels
BACKGROUNDS = 64  # images of other classes that an artifact is put on
REHEARSED = 32  # further ones on which it is chosen what is put on those, and how
OTHERS = 200  # images of a class without its artifact: controls
RIVALS = 39  # other windows that a tile is compared with, where outputs are too few
THUMBNAIL = 24  # pixels a side by which repeats are known, in grey: re-encoding keeps that best

SIGNS = pa.schema(
    {"target": pa.int64(), "sign": pa.string(), "score": pa.float64(), "rows": pa.list_(pa.int64())}
    | {"places": pa.list_(pa.float64()), "height": pa.float64(), "width": pa.float64()}
)
CLASSES = pa.schema(
    {"class": pa.string(), "target": pa.int64(), "n": pa.int64(), "repeats": pa.list_(pa.int64())}
    | {"skipped": pa.string()}
)
EFFECTS = pa.schema(
    {"target": pa.int64(), "sign": pa.string(), "how": pa.string(), "rank": pa.int64(), "images": pa.int64()}
    | {name: pa.float64() for name in ("shift", "low", "high", "z", "flips", "flips_control", "flips_low", "p_tiles")}
)


@dataclass(frozen=True)
class DetectionUnits:
    """Looks for signs in every class; a unit is one class.

    Attributes:
        groups: the classes, each with its rows.
        classifier: None in worker processes, which load it again by its spec.
    """

    store: RunStore
    corpus: Corpus
    settings: AuditSettings
    groups: tuple[Group, ...]
    identity: str
    classifier: Classifier | None = None

    step = "signs"

    def __call__(self, unit: range) -> None:
        for number in unit:
            described, signs = self.examine(number)
            self.store.write_part("classes", number, pa.Table.from_pylist([described], CLASSES))
            self.store.write_part("signs", number, pa.Table.from_pylist(signs, SIGNS))

    def examine(self, number: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """What the tables say of a class: itself, and what each detector saw."""
        group = self.groups[number]
        rows, repeats = self.distinct(group.rows)
        few = len(rows) < FEWEST
        why = f"{len(rows)} different image(s); at least {FEWEST} are needed" if few else ""
        described = {"class": group.name, "target": group.target, "n": len(rows), "repeats": repeats, "skipped": why}
        return described, [] if few else [line(group.target, rows, sign) for sign in examined(self.scene(number, rows))]

    def distinct(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows without those that repeat another, and the repeats; a sample where there are too many to hold."""
        most = CLASS_BYTES // self.bytes
        if len(rows) > most:
            rows = np.sort(generator(self.settings.seed, "class", int(rows[0])).choice(rows, most, replace=False))
        first = originals(grey(self.photographs(rows).at(THUMBNAIL))) == np.arange(len(rows))
        return rows[first], rows[~first]

    def scene(self, number: int, rows: NDArray[np.intp]) -> ClassImages:
        rng = generator(self.settings.seed, "halves", number)
        return ClassImages(
            own=self.photographs(rows),
            pool=self.pool,
            others=self.pool_groups != number,
            half=halves(len(rows), rng),
            sources=self.corpus.source_numbers[rows],
            seed=self.settings.seed,
        )

    def photographs(self, rows: NDArray[np.intp]) -> ImageStack:
        maps = self.store.array("maps").oindex[rows] if self.store.has_array("maps") and len(rows) else None
        return ImageStack(self.gallery(rows), None if maps is None else np.asarray(maps, np.float32))

    @cached_property
    def gallery(self) -> InputImages:
        model = self.classifier or loaded(self.settings.model, self.identity)
        return InputImages.of(self.corpus, model)

    @property
    def bytes(self) -> int:
        """Of one image as grey levels."""
        height, width = self.gallery.shape
        return int(height * width * len(self.gallery.glass.black))

    @cached_property
    def _pooled(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows of the pool and the number of their group, as many of each class as there are, in random order."""
        rng = generator(self.settings.seed, "pool")
        each = -(-min(POOL, POOL_BYTES // self.bytes) // len(self.groups))
        some = [rng.permutation(group.rows)[:each] for group in self.groups]
        rows, numbers = np.concatenate(some), np.repeat(np.arange(len(some)), [len(r) for r in some])
        order = rng.permutation(len(rows))
        return rows[order], numbers[order]

    @cached_property
    def pool(self) -> ImageStack:
        return self.photographs(self.pool_rows)

    @property
    def outputs(self) -> int:
        return int(self.store.array("logits").shape[1])

    @property
    def pool_rows(self) -> NDArray[np.intp]:
        return self._pooled[0]

    @property
    def pool_groups(self) -> NDArray[np.intp]:
        return self._pooled[1]


def line(target: int, rows: NDArray[np.intp], sign: Detection) -> dict[str, Any]:
    """A sign as a line of the table `signs`, its members as rows of the run."""
    return {
        "target": target,
        "sign": sign.name,
        "score": sign.score,
        "rows": rows[sign.members],
        "places": sign.places.ravel(),
        "height": sign.extent[0],
        "width": sign.extent[1],
    }


@dataclass(frozen=True)
class InterventionUnits:
    """Puts what was found in every class on images of others; a unit is one class.

    The sign and the way that raise the class most are chosen on some images, and measured on others: those under which
    the fewest outputs rise more, and of these the one of the largest rise. z would prefer a small effect beside still
    others to a large one in a crowd.

    Attributes:
        signs: by number of the class the lines of the table `signs` that are tried.
    """

    examination: DetectionUnits
    signs: tuple[tuple[dict[str, Any], ...], ...]

    step = "effects"

    def __call__(self, unit: range) -> None:
        for number in unit:
            self.examination.store.write_part("effects", number, pa.Table.from_pylist(self.lines(number), EFFECTS))

    def lines(self, number: int) -> list[dict[str, Any]]:
        """What was put on other images, as lines of the table `effects`."""
        target = self.examination.groups[number].target
        return [asdict(effect) | {"target": target, "sign": sign} for sign, effect in self.try_on(number)]

    def try_on(self, number: int) -> list[tuple[str, LogitEffect]]:
        """The name of the sign and its effect; none where there is nothing to put, or nothing to put it on."""
        work, signs = self.examination, self.signs[number]
        rng = generator(work.settings.seed, "trial", number)
        others = rng.permutation(np.flatnonzero(work.pool_groups != number))[: REHEARSED + BACKGROUNDS]
        if not signs or len(others) < 2:
            return []
        few = min(REHEARSED, len(others) // 2)
        first, then = work.pool.levels[others[:few]], work.pool.levels[others[few:]]
        specimens = [self.specimen(number, sign, rng) for sign in signs]
        with predictor(work) as predict:

            def tried(x: Pixels, i: int) -> dict[str, LogitEffect]:
                return effects(predict, x, work.groups[number].target, change_of(signs[i]["sign"]), specimens[i], rng)

            rehearsed = [(-e.rank, e.low, i, how) for i in range(len(signs)) for how, e in tried(first, i).items()]
            _, _, best, how = max(rehearsed)
            found = tried(then, best)[how]
            if work.outputs < FEWEST_OUTPUTS and change_of(signs[best]["sign"]) == "tile":
                target, given = work.groups[number].target, specimens[best]
                found = replace(found, p_tiles=among_rivals(predict, then, target, given, how, rng, RIVALS))
            return [(signs[best]["sign"], found)]

    def specimen(self, number: int, sign: dict[str, Any], rng: np.random.Generator) -> ArtifactExamples:
        """Carriers beside images of the class without the sign; where nearly all carry it, images of other classes."""
        work, rows = self.examination, np.array(sign["rows"], np.intp)
        without = np.setdiff1d(work.groups[number].rows, rows)
        if len(without) < FEWEST:
            without = work.pool_rows[work.pool_groups != number]
        without = np.sort(rng.permutation(without)[:OTHERS])
        some = np.sort(rng.permutation(len(rows))[:OTHERS])
        levels = work.gallery(np.concatenate([rows[some], without]))
        places = np.array(sign["places"]).reshape(-1, 2)
        members, extent = np.arange(len(some)), (sign["height"], sign["width"])
        return ArtifactExamples.of(
            Detection(sign["sign"], sign["score"], members, places[some] if len(places) else places, extent), levels
        )


@contextmanager
def predictor(work: DetectionUnits) -> Iterator[Predict]:
    """Grey levels to logits, some at a time; the model is borrowed."""
    gallery, batch = work.gallery, work.settings.batch
    with evaluation_mode(gallery.classifier.module), torch.no_grad():

        def predict(levels: NDArray[Any]) -> NDArray[Any]:
            parts = [levels[a : a + batch] for a in range(0, len(levels), batch)]
            answers = [gallery.classifier.logits(gallery.glass.inputs(part)).float().cpu().numpy() for part in parts]
            return np.concatenate(answers).astype(np.float64)

        yield predict
