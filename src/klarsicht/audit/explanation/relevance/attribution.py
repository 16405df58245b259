"""Attribution step of an audit: relevance, features and logits of all images, written to the run store by unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.forward import Observation, open_observer
from klarsicht.audit.explanation.networks import hooks
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.relevance.explainer import Explainer
from klarsicht.audit.explanation.relevance.image_batches import BatchReader, WaitingTime
from klarsicht.audit.explanation.relevance.part_features import parts_of
from klarsicht.audit.explanation.relevance.relevance import Relevance
from klarsicht.audit.explanation.settings import AuditSettings, counts_own_logits
from klarsicht.ground.errors import InputError, InputRefused, OutOfMemory, ProgramFailed, UsageError
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.progress import count_rows
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.store import RunStore

STEP = "attribution"
IMAGES = "images"
PREDICTIONS = ("predicted", "skipped")  # columns of that table by which rows are grouped
MAX_PROBED = 64  # images that the probe tries before it rejects the corpus or the model
Explain = Callable[[Tensor, Tensor], Relevance | Observation]


@dataclass(frozen=True)
class TimedUnit:
    """Checksums of what a unit wrote, how long its images were waited for, and why rows have no result."""

    checksums: Written
    time: WaitingTime
    reasons: dict[int, str]


@dataclass(frozen=True)
class Attribution:
    """Picklable work function of the attribution step: decode, explain, write arrays, write columns of the image table.
    Each row is explained for its own target, int64 (N,), -1 for the predicted output; an image of several rows is
    decoded once in a unit. A worker loads the model again by its spec, identity and device, and stops if its identity
    differs."""

    store: RunStore
    corpus: Corpus
    settings: AuditSettings
    targets: NDArray[np.int64]
    identity: str
    load: Callable[[str, str, str], Classifier]
    classifier: Classifier | None = None

    def __call__(self, unit: range) -> TimedUnit:
        """Explain the rows of a unit; for rows that fail, the reason is recorded and the arrays are zero. Raises
        Unreachable where a listed image is not given by its disk or store, and ProgramFailed where the model or its
        transform fails on an image that it took before."""
        facts: dict[int, dict[str, Any]] = {}
        blocks: dict[str, Any] = {}
        reader = self._reader(self.settings.readers)
        with open_explainer(self._classifier(), self.settings, self.side, self.middle) as explain:
            explain_with_witness = WitnessedExplainer(explain, partial(self._first_images, len(self.corpus)))
            for rows, batch in reader.batches(unit, facts):
                for some, found in self._explain_batch(explain_with_witness, rows, batch, facts):
                    _copy_rows(blocks, arrays_to_store(found, self.settings.parts), some, unit)
                    for row, fact in zip(some, facts_of(found), strict=True):
                        facts[row] = facts.get(row, {}) | fact
                    count_rows(len(some))
        lines = [FACTS | facts.get(row, {}) for row in unit]
        columns = {"row": list(unit)} | {name: [line[name] for line in lines] for name in FACTS}
        written = self.store.write_part(IMAGES, unit.start // self.settings.unit, columns)
        for name, values in blocks.items():
            written |= self.store.write_rows(name, unit.start, values)
        reasons = {row: fact["skipped"] for row, fact in facts.items() if "skipped" in fact}
        return TimedUnit(written, reader.time, reasons)

    def find_usable(self, rows: Sequence[int]) -> list[int]:
        """Try to explain rows, image by image; return those that can be."""
        usable: list[int] = []
        facts: dict[int, dict[str, Any]] = {}
        with open_explainer(self._classifier(), self.settings, self.side, self.middle) as explain:
            for row, image in self.images(rows, facts):
                usable += [row for _ in self._explain_batch(explain, [row], image, facts)]
        return usable

    def images(self, rows: Sequence[int], facts: dict[int, dict[str, Any]]) -> Iterator[tuple[int, Tensor]]:
        """Yield rows with their image (1, C, H, W), read when asked for; unreadable rows are added to `facts`."""
        for some, batch in self._reader().batches(rows, facts):
            yield from zip(some, batch[:, None], strict=True)

    def _first_images(self, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the first usable images of the corpus, one by one, with their targets."""
        for row, image in self.images(range(n)[:MAX_PROBED], {}):
            yield image, torch.as_tensor(self.targets[[row]])

    @property
    def side(self) -> int:
        """Least side of a map, G: that of the run's maps, set by the first image; 1 before that."""
        return int(self.store.array("maps").shape[1]) if self.store.is_created("maps") else 1

    @property
    def middle(self) -> str | None:
        """Name of the middle layer, which gives appearance and channel relevance; set from the first image."""
        name: str | None = self.store.manifest.get("middle")
        return name

    def _classifier(self) -> Classifier:
        model = self.classifier or self.load(self.settings.model, self.identity, self.settings.device)
        return model.with_outputs(counts_own_logits(self.store.manifest))

    def _reader(self, readers: int = 0) -> BatchReader:
        settings = self.settings
        return BatchReader(self.corpus, self._classifier(), settings.batch, readers, settings.threads)

    def _explain_batch(
        self, explain: Explain, rows: list[int], batch: Tensor, facts: dict[int, dict[str, Any]]
    ) -> Iterator[tuple[list[int], Relevance | Observation]]:
        """Explain a batch; where it fails, explain image by image, so that one image does not invalidate the others.
        Where memory runs short the batch is halved; raises OutOfMemory where it is short for a single image."""
        try:
            relevance = explain(batch, torch.as_tensor(self.targets[rows]))
        except (OutOfMemory, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise OutOfMemory(
                    "memory ran short while an image was explained", got=self.corpus.paths[rows[0]],
                    rule="its work unit is not marked done",
                    remedy="Free memory, or use fewer --workers or --threads; the same command resumes.",
                ) from error  # fmt: skip
            half = len(rows) // 2
            for some in (slice(half), slice(half, None)):
                yield from self._explain_batch(explain, rows[some], batch[some], facts)
            return
        except InputRefused as error:
            if len(rows) > 1:
                for row, image in zip(rows, batch, strict=True):
                    yield from self._explain_batch(explain, [row], image[None], facts)
            else:
                facts[rows[0]] = {"skipped": str(error)}
            return
        if reason := reason_unusable(relevance, self.side):
            facts |= {row: {"skipped": reason} for row in rows} if len(rows) == 1 else {}
            for row, image in zip(rows, batch, strict=True) if len(rows) > 1 else ():
                yield from self._explain_batch(explain, [row], image[None], facts)
        else:
            yield rows, relevance


class WitnessedExplainer:
    """Function (images, targets) -> relevance that checks, where the model fails on an image, that it still explains
    one that it explained before: the first image of a work unit, or before that one of the corpus, from `others`."""

    def __init__(self, explain: Explain, others: Callable[[], Iterator[tuple[Tensor, Tensor]]]) -> None:
        self._explain, self._others = explain, others
        self._witness: tuple[Tensor, Tensor] | None = None

    def __call__(self, batch: Tensor, targets: Tensor) -> Relevance | Observation:
        """Explain images (B, C, H, W) for target classes (B,); raises InputRefused where the model fails on them, and
        ProgramFailed where it fails on one image and on the witness."""
        try:
            relevance = self._explain(batch, targets)
        except InputRefused as error:
            if len(batch) == 1:
                self._require_witness(error)
            raise
        if self._witness is None:
            self._witness = batch[:1], targets[:1]
        return relevance

    def _require_witness(self, error: InputRefused) -> None:
        for image, target in [self._witness] if self._witness else self._others():
            with suppress(InputRefused):
                self._explain(image, target)
                return
        raise ProgramFailed(
            "the model now fails on an image that it accepted before", got=error.got,
            remedy="Repair it, or restart its device; the same command resumes.",
        ) from error  # fmt: skip


@contextmanager
def open_explainer(classifier: Classifier, settings: AuditSettings, side: int, middle: str | None) -> Iterator[Explain]:
    """Open a function (images, targets) -> Relevance; without maps it returns an Observation."""
    with ExitStack() as stack:
        observe = stack.enter_context(open_observer(classifier))
        if not settings.maps:
            yield lambda batch, _: observe(batch)
            return
        explain = stack.enter_context(Explainer(classifier, settings.method, side, seed=settings.seed, middle=middle))
        if settings.target == "predicted":
            yield lambda batch, _: explain(batch, torch.from_numpy(observe(batch).prediction))
        else:
            yield explain


def reason_unusable(relevance: Relevance | Observation, side: int) -> str:
    """Return the reason why the results of a batch cannot be stored; empty where they can."""
    arrays = arrays_of(relevance)
    middle = getattr(relevance, "middle", None)
    if not all(np.isfinite(values).all() for values in (*arrays.values(), *(() if middle is None else (middle,)))):
        return "the model answers with numbers that are not finite"
    if "maps" in arrays and arrays["maps"].shape[1] < side:
        return f"smaller than the {side} x {side} cells of this run's maps"
    return ""


def arrays_of(relevance: Relevance | Observation) -> dict[str, NDArray[Any]]:
    """Collect the arrays to store for every image: name -> (B, ...). Maps are divided by their largest absolute value,
    so that float16 keeps three digits of every map."""
    arrays = {"features": relevance.features, "logits": relevance.logits}
    if isinstance(relevance, Observation):
        return arrays
    largest = np.abs(relevance.maps).max((1, 2), keepdims=True)
    shares = (relevance.maps / np.where(largest > 0, largest, 1)).astype(np.float16)
    arrays |= {"head": relevance.head, "maps": shares, "concepts": relevance.concepts}
    return arrays if relevance.channels is None else arrays | {"channels": relevance.channels}


def arrays_to_store(relevance: Relevance | Observation, parts: bool) -> dict[str, NDArray[Any]]:
    """Collect the arrays of `arrays_of`, and the parts of the maps if requested and a middle layer was recorded."""
    if isinstance(relevance, Observation) or relevance.middle is None or not parts:
        return arrays_of(relevance)
    return arrays_of(relevance) | parts_of(relevance.maps, relevance.middle)


def facts_of(relevance: Relevance | Observation) -> list[dict[str, Any]]:
    """Collect the columns of the image table, one dictionary per image."""
    columns = {"predicted": relevance.prediction}
    if isinstance(relevance, Relevance):
        columns |= {"target": relevance.targets, **{name: getattr(relevance, name) for name in MEASURED}}
    return [{name: values[i].item() for name, values in columns.items()} for i in range(len(relevance.logits))]


MEASURED = ("score", "centred", "loss", "total", "residual", "absorbed", "noise")  # numbers of each image
FACTS: dict[str, Any] = {
    "target": -1, "predicted": -1, **dict.fromkeys(MEASURED, float("nan")), "skipped": "", "noted": "",
}  # fmt: skip


def read_predictions(store: RunStore) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Read the predicted output of every row of a run, int64 (N,), and whether the row is usable, bool (N,)."""
    from pyarrow import compute

    images = store.table(IMAGES, STEP, PREDICTIONS)
    return images["predicted"].to_numpy(), compute.equal(images["skipped"], "").to_numpy()


def _copy_rows(blocks: dict[str, Any], arrays: dict[str, NDArray[Any]], rows: Sequence[int], unit: range) -> None:
    """Copy the arrays of a batch into those of its unit."""
    for name, values in arrays.items():
        if name not in blocks:
            blocks[name] = np.zeros((len(unit), *values.shape[1:]), values.dtype)
        blocks[name][np.asarray(rows) - unit.start] = values


def middle_layer(attribution: Attribution, rows: range) -> str:
    """Choose the middle layer, which gives appearance and channel relevance: the one of the settings, else
    `hooks.middle_layer` on the first usable image; empty for a network without convolutions. Raises UsageError where
    the settings need one."""
    if attribution.settings.parts_layer is not None:
        return attribution.settings.parts_layer
    classifier = attribution._classifier()
    for _, image in attribution.images(rows[:MAX_PROBED], {}):
        with suppress(InputRefused), evaluation_mode(classifier.module) as module, torch.no_grad():
            layer = hooks.middle_layer(module, partial(classifier.logits, image))
            if not layer and (attribution.settings.parts or "channels" in attribution.settings.metric):
                got, rule = "a network without convolutions", "parts and channels are seen by a convolution"
                remedy = "Audit whole maps: --no-parts, --metric euclidean."
                raise UsageError("no middle layer", got=got, rule=rule, remedy=remedy)
            return layer
    return ""  # no usable image: `probe` raises the error


def probe(attribution: Attribution, rows: range) -> Relevance | Observation:
    """Explain the first usable image, to find the array shapes and to reject an unsuitable model early. Raises
    InputError where none of the first MAX_PROBED images can be used, and as `Explainer`."""
    settings = attribution.settings
    with open_explainer(attribution._classifier(), settings, settings.map_side, attribution.middle) as explain:
        facts: dict[int, dict[str, Any]] = {}
        for row, image in attribution.images(rows[:MAX_PROBED], facts):
            for _, found in attribution._explain_batch(explain, [row], image, facts):
                return found
    reasons = sorted({str(fact["skipped"]) for fact in facts.values() if "skipped" in fact})
    raise InputError(
        f"none of the first {len(facts)} images can be used", got=reasons[0], remedy="Check the data and the model."
    )
