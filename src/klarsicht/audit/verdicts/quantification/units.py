"""Work units that run the detectors on every class of a quantification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.explanation.networks.eval_mode import as_channels_last, channels_last, evaluation_mode
from klarsicht.audit.explanation.settings import AuditSettings, counts_own_logits
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES
from klarsicht.audit.explanation.steps.relevance_step import load_worker_model
from klarsicht.audit.results.rows import ClassRow, EffectRow, FewClassMeasures, SignRow
from klarsicht.audit.results.significance import ALIGNED, class_strategy
from klarsicht.audit.results.words import format_count
from klarsicht.audit.verdicts.detectors.artifact_embedding import STAGES, ArtifactEmbedding, load_embedding
from klarsicht.audit.verdicts.detectors.bank import bytes_of_image, run_detectors
from klarsicht.audit.verdicts.detectors.detection import ClassImages, Detection, ImageStack
from klarsicht.audit.verdicts.detectors.natural_windows import (
    ALIGNED_IMAGES,
    NaturalWindows,
    complete_strongest,
    measure_alignment,
)
from klarsicht.audit.verdicts.detectors.patch_matches import WINDOW_POOL, grey
from klarsicht.audit.verdicts.detectors.reference_classes import (
    ReferenceClasses,
    ReferenceTest,
    compare_aligned,
    detect_shipped,
)
from klarsicht.audit.verdicts.interventions.experiment import Predict
from klarsicht.ground.arrays import Doubles
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.remote_store import Read
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.numerics.imaging.near_duplicates import first_duplicates
from klarsicht.numerics.statistics.logits import LogitScale, logit_scale
from klarsicht.numerics.statistics.split_half import draw_halves

POOL = 4000  # images of all classes that one class is compared with
POOL_BYTES = 300 * 2**20  # largest size of a pool as 8-bit pixel values
CLASS_BYTES = 2**31  # of the images of a class, with what detectors hold of them
EFFECT_BACKGROUNDS = 64  # images of other classes into which an artifact is inserted
EMBEDDING_STEP = "embedding"
THUMBNAIL = 24  # pixels a side at which repeats are recognised, in grey: re-encoding preserves it best

SIGNS, CLASSES, EFFECTS = map(schema_of, (SignRow, ClassRow, EffectRow))


@dataclass(frozen=True)
class DetectionUnits:
    """Work units that run the detectors on every class; a unit is one class.

    Attributes:
        store, corpus, settings: of the run.
        groups: the classes, each with its rows.
        identity: hash of the model.
        classifier: None in worker processes, which load it again by its spec.
    """

    store: RunStore
    corpus: Corpus
    settings: AuditSettings
    groups: tuple[Group, ...]
    identity: str
    classifier: Classifier | None = None

    step = "signs"

    def __call__(self, unit: range) -> Written:
        written = Written()
        for number in unit:
            described, signs = self.examine(number)
            written |= self.store.write_part("classes", number, pa.Table.from_pylist([described], CLASSES))
            written |= self.store.write_part("signs", number, pa.Table.from_pylist(signs, SIGNS))
        return written

    def list_reads(self, unit: Sequence[int]) -> Iterator[Read]:
        """List what a unit reads of the run: what all units read, and the maps of its classes."""
        yield from self.list_shared_reads()
        yield from self.list_class_reads(unit, ("maps",))

    def list_shared_reads(self) -> Iterator[Read]:
        """List what units of all classes read: the learned embedding, and the maps of the pool."""
        last = STAGES - 1
        yield Read("is_done", (EMBEDDING_STEP, last))
        if self.store.is_done(EMBEDDING_STEP, last):
            yield Read("read_unit_file", (embedding_file(last), EMBEDDING_STEP, last))
        if self.store.has_array("maps"):
            yield Read.of_rows("maps", self.pool_rows)

    def list_class_reads(self, unit: Sequence[int], arrays: Sequence[str]) -> Iterator[Read]:
        """List the reads of some arrays, where the run has them, for the images of the classes of a unit."""
        for name in filter(self.store.has_array, arrays):
            yield from (Read.of_rows(name, self.groups[number].rows) for number in unit)

    def examine(self, number: int) -> tuple[ClassRow, list[SignRow]]:
        """Return the table lines of a class: one on the class, and one for each detection."""
        group = self.groups[number]
        rows, repeats = self.drop_repeats(group.rows)
        few = len(rows) < MIN_IMAGES
        why = f"{format_count(len(rows), 'different image')}; at least {MIN_IMAGES} are needed" if few else ""
        described: ClassRow = {
            "class": group.name, "target": group.target, "n": len(rows), "repeats": repeats.tolist(), "skipped": why,
            "natural": True, "correlation": float("nan"), "left": float("nan"), "apart": "", "apart_p": float("nan"),
            "apart_left": float("nan"),
        }  # fmt: skip
        if few:
            return described, []
        images = self.class_images(number, rows)
        found = run_detectors(images)
        if not class_strategy(len(self.groups)).compares_classes:
            found, measures = measure_few(images, found)
            described.update(measures)  # type: ignore[typeddict-item]
        return described, [sign_row(group.target, rows, sign) for sign in found]

    def drop_repeats(self, rows: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return the rows without repeats of another image, at most CLASS_BYTES of them, and the repeats."""
        most = self.most_images
        if len(rows) > most:
            rows = np.sort(generator(self.settings.seed, "class", int(rows[0])).choice(rows, most, replace=False))
        first = first_duplicates(grey(self.image_stack(rows).shrunk_to(THUMBNAIL))) == np.arange(len(rows))
        return rows[first], rows[~first]

    def class_images(self, number: int, rows: NDArray[np.intp]) -> ClassImages:
        """Collect the images of a class, and the pool."""
        rng = generator(self.settings.seed, "halves", number)
        return ClassImages(
            own=self.image_stack(rows), pool=self.pool, others=self.others(number), half=draw_halves(len(rows), rng),
            sources=self.corpus.source_numbers[rows], seed=self.settings.seed, embedding=self.embedding,
            compared=self.compared_images, aligned=self.aligned, pool_classes=self.pool_classes,
        )  # fmt: skip

    @cached_property
    def aligned(self) -> bool:
        """Whether images of any class are aligned, where classes are too few to be compared; of others it is not
        asked."""
        if class_strategy(len(self.groups)).compares_classes:
            return False
        shown = (np.flatnonzero(np.isin(self.pool_rows, group.rows))[:ALIGNED_IMAGES] for group in self.groups)
        return any(measure_alignment(self.pool.levels[some]) >= ALIGNED for some in shown)

    @cached_property
    def embedding(self) -> ArtifactEmbedding | None:
        """Embedding that was learned on the images of this run, if one was."""
        return read_embedding(self.store)

    def image_stack(self, rows: NDArray[np.intp]) -> ImageStack:
        """Read images and, where the run has them, relevance maps."""
        maps = self.store.array("maps")[rows] if self.store.has_array("maps") and len(rows) else None
        return ImageStack(self.input_images(rows), None if maps is None else np.asarray(maps, np.float32))

    @cached_property
    def input_images(self) -> InputImages:
        """Images of the corpus as model inputs; workers load the model once."""
        model = self.classifier or load_worker_model(self.settings.model, self.identity, self.settings.device)
        return InputImages.of(self.corpus, model.with_outputs(counts_own_logits(self.store.manifest)))

    @property
    def scale(self) -> LogitScale:
        """Scale on which the logits of this run count."""
        return logit_scale(counts_own_logits(self.store.manifest))

    @property
    def image_bytes(self) -> int:
        height, width = self.input_images.shape
        return int(height * width * len(self.input_images.pixel_scale.black))

    @property
    def most_images(self) -> int:
        """Images of a class that are examined, at most; of a larger one, a sample is."""
        height, width = self.input_images.shape
        return CLASS_BYTES // bytes_of_image((height, width, len(self.input_images.pixel_scale.black)))

    def others(self, number: int) -> NDArray[np.bool_]:
        """Mark the images of the pool that do not carry a class, bool (m,); an image carries each of its labels."""
        images = self.corpus.image_numbers
        return ~np.isin(images[self.pool_rows], images[self.groups[number].rows])

    @cached_property
    def compared_images(self) -> int:
        """Images at the beginning of the pool with, for each class, WINDOW_POOL images of other classes."""
        first = (np.flatnonzero(self.others(number))[:WINDOW_POOL] for number in range(len(self.groups)))
        return max(int(some[-1]) + 1 if len(some) else 0 for some in first)

    def other_rows(self, number: int) -> NDArray[np.intp]:
        """Return the rows of the pool whose images do not carry a class."""
        return self.pool_rows[self.others(number)]

    @cached_property
    def pool_rows(self) -> NDArray[np.intp]:
        """Rows of the pool: as many of each class as available, each image once, in random order."""
        rng = generator(self.settings.seed, "pool")
        each = -(-min(POOL, POOL_BYTES // self.image_bytes) // len(self.groups))
        some = [rng.permutation(group.rows)[:each] for group in self.groups]
        rows = np.concatenate(some)
        rows = rows[rng.permutation(len(rows))]
        first = np.unique(self.corpus.image_numbers[rows], return_index=True)[1]
        return rows[np.sort(first)]

    @cached_property
    def pool_classes(self) -> NDArray[np.intp]:
        """Number of the class of each image of the pool, int (m,); of one that carries several, the class by which it
        came in."""
        found = np.full(len(self.pool_rows), -1, np.intp)
        for number, group in enumerate(self.groups):
            found[np.isin(self.pool_rows, group.rows)] = number
        return found

    @cached_property
    def pool(self) -> ImageStack:
        return self.image_stack(self.pool_rows)

    @property
    def outputs(self) -> int:
        return int(self.store.array("logits").shape[1])

    def logits(self, rows: NDArray[np.intp], predict: Predict) -> Doubles:
        """Return the logits (n, K) of images as they are, without a forward pass; `predict` is for planted images."""
        return np.asarray(self.store.array("logits")[rows], np.float64)


def embedding_file(stage: int) -> str:
    """Name the file with the state of the embedding's training after a stage."""
    return f"embedding/stage-{stage}.pt"


def read_embedding(store: RunStore) -> ArtifactEmbedding | None:
    """Read the embedding that was learned on the images of a run; None where none was."""
    if not store.is_done(EMBEDDING_STEP, STAGES - 1):
        return None
    return load_embedding(store.read_unit_file(embedding_file(STAGES - 1), EMBEDDING_STEP, STAGES - 1))


def sign_row(target: int, rows: NDArray[np.intp], sign: Detection) -> SignRow:
    """Make a row of the table `signs` from a detection, with its members as rows of the run."""
    return {
        "target": target, "sign": sign.name, "score": sign.score, "rows": rows[sign.members].tolist(),
        "places": sign.places.ravel().tolist(), "height": sign.extent[0], "width": sign.extent[1],
    }  # fmt: skip


@contextmanager
def predictor(work: DetectionUnits) -> Iterator[Predict]:
    """Yield the function from model inputs to logits, in batches; the model's mode and weights are restored afterwards.
    Channels come last in memory, which makes forward passes cheaper and changes logits by rounding."""
    classifier = work.input_images.classifier
    with evaluation_mode(classifier.module), channels_last(classifier.module), torch.no_grad():

        def predict(inputs: Tensor) -> NDArray[Any]:
            parts = torch.split(inputs, work.settings.batch)
            answers = [classifier.logits(as_channels_last(part)).float().cpu().numpy() for part in parts]
            return np.concatenate(answers).astype(np.float64)

        yield predict


def measure_few(
    images: ClassImages, found: Sequence[Detection], reference: ReferenceClasses | None = None
) -> tuple[list[Detection], FewClassMeasures]:
    """Measure a class of a run with too few classes to be compared, beside a reference, by default the classes that
    come along, or where images are aligned random classes of the run; return the detections, the strongest window with
    all its members, and columns of the table `classes`."""
    detections = [*complete_strongest(images, found), *detect_shipped(images)]
    windows = NaturalWindows.of(images, detections)
    if images.aligned:
        of_aligned, beside = compare_aligned(images)
        detections += of_aligned
    else:
        beside = ReferenceTest.of(images, detections, reference)
    return detections, {
        "natural": windows.natural, "correlation": windows.correlation, "left": windows.left,
        "apart": beside.sign, "apart_p": beside.p, "apart_left": beside.left,
    }  # fmt: skip
