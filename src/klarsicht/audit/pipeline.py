"""Run an audit from a model and images to a ranked report. Every step resumes where it was interrupted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from klarsicht.audit.corrections import corrected_model
from klarsicht.audit.data import class_map, groups
from klarsicht.audit.data.column_names import ColumnNames
from klarsicht.audit.data.corpus import Corpus
from klarsicht.audit.data.corpus_formats import open_corpus
from klarsicht.audit.data.groups import Group
from klarsicht.audit.data.label_cells import LabelCells
from klarsicht.audit.data.label_order import Order
from klarsicht.audit.data.locations import is_url
from klarsicht.audit.executor import partition, run_units
from klarsicht.audit.models.classifier import Classifier, label_indices
from klarsicht.audit.models.crop_geometry import measure_seen_area
from klarsicht.audit.models.forward import Observation
from klarsicht.audit.models.outputs import is_distribution
from klarsicht.audit.relevance import attribution
from klarsicht.audit.relevance.attribution import Attribution, TimedUnit
from klarsicht.audit.relevance.batch_size import choose_batch_size, first_image
from klarsicht.audit.relevance.explainer import METHODS, Relevance
from klarsicht.audit.relevance.image_batches import WaitingTime
from klarsicht.audit.report import page
from klarsicht.audit.report.figures import Illustrator
from klarsicht.audit.results import ranking
from klarsicht.audit.results.ranking import Entry, Ranking
from klarsicht.audit.settings import HEAD_RELEVANCE, AuditSettings
from klarsicht.audit.spectral.analysis import METRICS, Analysis, head_weight, require_head_weight
from klarsicht.ground.checksums import Written
from klarsicht.ground.devices import select_device
from klarsicht.ground.errors import CorpusError, ModelError, RunLocked, RunMismatch, UsageError, unknown_name
from klarsicht.ground.progress import MIN_SECONDS, note
from klarsicht.ground.run_files import MANIFEST
from klarsicht.ground.shards import LOOK, Shard, Sharing, Waiting
from klarsicht.ground.store import RunStore
from klarsicht.ground.verification import forget_damaged

WITH_TRANSFORM = "return (module, transform) with a transform that makes images of the right size"
CREATION_SECONDS = 60.0  # that a shard waits for another one to create the run
CERTAIN = 1e-5  # of a sum of probabilities in one answer
SCREENING_UNIT = 25  # targets in a work unit of a screening


@dataclass(frozen=True)
class Audit:
    """Model, corpus and settings, checked against each other.

    A row of the corpus is an (image, label) pair where the target is the label, else an image, whatever its labels.

    Attributes:
        sharing: how the work is shared with other processes.
    """

    settings: AuditSettings
    corpus: Corpus
    classifier: Classifier
    sharing: Sharing = field(default_factory=Sharing)

    @classmethod
    def of(cls, settings: AuditSettings, classifier: Classifier | None = None, corpus: Any = None) -> Audit:
        """Open model and corpus of the settings.

        Args:
            settings: of the audit.
            classifier: a model built in Python, in place of the one that the settings name.
            corpus: a corpus or a sequence in Python, in place of the one that the settings name.

        Raises:
            UsageError: unknown metric, method or class, a metric that the target does not allow, or several labels of a
                class folder.
            CorpusError, ModelError: see audit.data.corpus and audit.models.classifier.
        """
        check_names(settings)
        chosen = select_data(settings, corpus)
        model = classifier or corrected_model.load_corrected(settings.model, device=select_device(settings.device))
        audit = cls(settings, chosen.as_arrays(model.form), model.with_outputs(settings.independent_outputs))
        if "concept" in settings.metric and not settings.maps:
            require_head_weight(head_weight(audit.classifier))
        return audit

    def with_batch(self) -> Audit:
        """Return the audit with a batch size, chosen within the memory of the settings where they have none."""
        if self.settings.batch:
            return self
        image = first_image(self.corpus, self.classifier, attribution.MAX_PROBED)
        if image is None:  # the probe of the first images raises the error
            return replace(self, settings=self.settings.merged(batch=1))
        size = choose_batch_size(self.classifier, image, self.settings.batch_memory)
        return replace(self, settings=self.settings.merged(batch=size))

    @cached_property
    def index(self) -> dict[str, int]:
        """Output of the model for each label; labels unknown to the model are left out unless they determine the
        target."""
        labels = self.corpus.classes
        if self.settings.class_map is not None:
            return class_map.read(Path(self.settings.class_map), labels, self.classifier.n_classes)
        try:
            return label_indices(labels, self.classifier)
        except CorpusError:
            if self.settings.target == "label":
                raise
            known = {name: i for i, name in enumerate(self.classifier.classes or ())}
            return {label: known[label] for label in labels if label in known}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Name of each output: the label that maps to it, else the model's own name, else its number."""
        given = self.classifier.classes or tuple(str(i) for i in range(self.classifier.n_classes))
        by_output: dict[int, list[str]] = {}
        for label, output in sorted(self.index.items()):
            by_output.setdefault(output, []).append(label)
        return tuple(" / ".join(by_output.get(i, [name])) for i, name in enumerate(given))

    @property
    def targets(self) -> NDArray[np.int64]:
        """The output explained for each row; -1 for the predicted one, or where all are screened."""
        target = self.settings.target
        if target == "label":
            return np.array([self.index[label] for label in self.corpus.labels], np.int64)
        fixed = -1 if target in ("predicted", "all") else groups.find_output(target, self.names, self.index)
        return np.full(len(self.corpus), fixed, np.int64)

    def groups(self, predicted: NDArray[Any], usable: NDArray[np.bool_]) -> list[Group]:
        """Return the groups that are analysed together, by target."""
        target = self.settings.target
        if target == "label":
            first = groups.first_of_each(self.corpus.image_numbers, self.targets)
            return groups.group_by_label(self.targets, self.names, usable & first)
        if target == "predicted":
            return groups.group_by_prediction(predicted, self.names, usable)
        if target == "all":
            return groups.group_for_screening(range(self.classifier.n_classes), self.names, usable)
        return groups.group_for_screening([int(self.targets[0])], self.names, usable)


def open_data(settings: AuditSettings, data: Any) -> Corpus:
    """Open a corpus in the way of the settings; see audit.data.corpus_formats.

    Args:
        data: its path, or what it is in Python.
    """
    cells = LabelCells(settings.label_separator or "", settings.label_columns or ())
    names = ColumnNames(settings.path_column or "", settings.label_column or "", settings.source_column or "")
    opened = open_corpus(data, cells, names, settings.decode or "")
    return opened.reading(settings.white_level, settings.megapixels)


def open_for_model(data: str, model: str) -> Corpus:
    """Open a corpus whose images are decoded to arrays where a model takes arrays.

    Args:
        data: path of the corpus.
        model: specification of the model, see audit.models.classifier.load_model.
    """
    return open_corpus(data).as_arrays(corrected_model.load_corrected(model).form)


def select_data(settings: AuditSettings, corpus: Any = None) -> Corpus:
    """Open the rows that an audit works on: those of its split, and pairs of image and label where labels are audited.

    Args:
        corpus: a corpus or a sequence in Python, in place of the one that the settings name.
    """
    chosen = open_data(settings, settings.data if corpus is None else corpus)
    chosen = chosen.select(split=settings.split) if settings.split else chosen
    return chosen.pairs() if settings.target == "label" else chosen


def check_names(settings: AuditSettings) -> None:
    """Check that metrics and method are known, and that the metrics have the maps that they need.

    Raises:
        UsageError: otherwise.
    """
    for metric in settings.metric:
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
    if settings.method not in (*METHODS, HEAD_RELEVANCE):
        raise unknown_name("relevance method", settings.method, (*METHODS, HEAD_RELEVANCE))
    propagated = [metric for metric in settings.metric if METRICS[metric].needs_propagation]
    if propagated and not settings.maps:
        raise UsageError(
            f"the metric {propagated[0]} compares propagated relevance",
            got=f"target {settings.target}, method {settings.method}",
            rule="maps explain one class for each image, by a method that makes maps",
            remedy="Use --metric concept, or name one class as --target and another --method.",
        )
    if settings.parts and not any(METRICS[metric].part_input for metric in settings.metric):
        raise UsageError(
            "no metric that compares parts",
            got=", ".join(settings.metric),
            rule="parts are cut out of relevance maps",
            remedy="Add --metric euclidean, or leave --parts out.",
        )


def run(
    settings: AuditSettings, out: str | Path, *, classifier: Classifier | None = None, corpus: Any = None,
    workers: int = 1, shard: str | None = None,
) -> RunStore:  # fmt: skip
    """Audit a model: attributions, clusters, ranking, report. The same call resumes an interrupted run.

    Args:
        settings: see audit.settings.
        out: the run folder; a new one, or one begun with the same settings, data and model.
        classifier: a model built in Python, in place of the one that the settings name; needs workers=1.
        corpus: a corpus opened in Python, or a sequence of (picture, label[, source[, weight]]) such as a dataset of
            torchvision, in place of the one that the settings name; workers get a copy.
        workers: processes; results do not depend on it.
        shard: "K/N" for the K-th of N calls that share the run's folder, each on any machine, or "auto"; results do not
            depend on it. See ground.shards.

    Returns:
        The run, complete: `ranking.json`, `tables/ranking.parquet` and `report.html` are in it.

    What is damaged in a run begun before is named on standard error and computed again.

    Raises:
        UsageError, InputError, ModelError, StoreError: see ground.errors.
    """
    audit = Audit.of(with_batch_of_run(settings, out), classifier, corpus).with_batch()
    if classifier is not None and workers > 1:
        raise UsageError("a model built in Python stays in this process", got=f"{workers} workers", rule="workers=1")
    own_shard = None if shard is None else Shard.parse(shard)
    store = open_run(audit, out, wait=CREATION_SECONDS if own_shard else 0)
    with store.share(own_shard) as sharing:
        audit = replace(audit, sharing=sharing)
        sharing.once("verified", lambda: note_damaged(store))
        attribute(audit, store, workers, own=classifier)
        sharing.once("label-order", lambda: record_label_order(audit, store))
        analyse(audit, store, workers)
        analyse(audit, store, workers, (ranking.PLAIN_METRIC,))  # the baseline of the ranking
        sharing.once("report", lambda: report(audit, store))
    return store


def with_batch_of_run(settings: AuditSettings, out: str | Path) -> AuditSettings:
    """Return the settings with the batch size of a run begun before, where they leave the choice."""
    if settings.batch or not (store := RunStore(Path(out))).exists:
        return settings
    return settings.merged(batch=store.manifest["settings"].get("batch"))


def note_damaged(store: RunStore) -> None:
    """Make damaged files of a run count as never written, and name them."""
    for damage in forget_damaged(store):
        note(f"damaged, and so not used: {damage}")


def report(audit: Audit, store: RunStore) -> None:
    """Rank, draw and write the report of a run whose clusters are known."""
    illustrate(audit, store, write_ranking(audit, store))
    page.write_report(store)


def open_run(audit: Audit, out: str | Path, wait: float = 0) -> RunStore:
    """Create the run folder, or open one begun before.

    Args:
        wait: seconds to wait for another process that is creating it just now.

    Raises:
        RunLocked: another process is creating it, and still is after that time.
        RunMismatch: it was made with other settings, data or model.
    """
    began = time.monotonic()
    while True:
        try:
            return _create_run(audit, out)
        except RunLocked:
            if time.monotonic() - began > wait:
                raise
            time.sleep(LOOK)


def _create_run(audit: Audit, out: str | Path) -> RunStore:
    settings = audit.settings.recorded()
    if (begun := RunStore(Path(out))).exists:  # a setting that its version did not have was at its default
        known, fields = begun.manifest["settings"], AuditSettings.model_fields
        with begun.parsing(MANIFEST):
            settings = {k: v for k, v in settings.items() if k in known or v != fields[k].default}
    identity = {"corpus": audit.corpus.hash, "model": audit.classifier.identity}
    device = audit.classifier.device.type
    independent = True if audit.classifier.independent else None  # runs of older versions say nothing
    return RunStore.create(
        out, settings=settings, identity=identity, index=audit.index, device=device, independent=independent
    )


def attribute(audit: Audit, store: RunStore, workers: int, own: Classifier | None = None) -> None:
    """Compute the relevance of every image, unit by unit."""
    here = audit.classifier if own is not None or workers == 1 else None
    work = Attribution(
        store, audit.corpus, audit.settings, audit.targets, audit.classifier.identity, load_worker_model, here
    )
    units = partition(len(audit.corpus), audit.settings.unit)
    audit.sharing.once("corpus", lambda: begin_attribution(audit, store, work))
    times: list[WaitingTime] = []

    def note_time(done: TimedUnit) -> Written:
        times.append(done.time)
        return done.written

    run_step(audit, store, work, attribution.STEP, units, workers, "relevance", note_time)
    tell_waiting(sum(times, WaitingTime()), audit.classifier.device.type)


def tell_waiting(time: WaitingTime, device: str) -> None:
    """Print which share of the time the device waited for images; not of what took less than two seconds."""
    if time.seconds >= MIN_SECONDS:
        note(f"relevance: the {device} waited for images {time.share:.0%} of {time.seconds:.0f} s")


def locate(data: str) -> str:
    """Return the path of a corpus that holds from any folder; a URL as it is."""
    return data if is_url(data) else str(Path(data).resolve())


def begin_attribution(audit: Audit, store: RunStore, work: Attribution) -> None:
    """Create the arrays, and record the corpus and what is known of the model."""
    if not all(map(store.is_created, store.manifest.get("arrays", ["logits"]))):
        create_arrays(audit, store, work)
    store.update_manifest(data=locate(audit.settings.data), names=list(audit.names))
    if audit.classifier.notes:
        store.update_manifest(model_notes=list(audit.classifier.notes))
    store.write_table("corpus", audit.corpus.to_table())


@lru_cache(maxsize=1)
def load_worker_model(spec: str, identity: str, device: str) -> Classifier:
    """Load the model in a worker process, once.

    Raises:
        ModelError: its weights differ from those of the run.
    """
    classifier = corrected_model.load_corrected(spec, device=select_device(device))
    if classifier.identity != identity:
        raise ModelError(
            "a worker loaded another model than this run is of",
            got=spec,
            rule="the same weights each time it is built",
            remedy="Load them from a file, or use --workers 1.",
        )
    return classifier


def create_arrays(audit: Audit, store: RunStore, work: Attribution) -> None:
    """Attribute one image as a test, and create the arrays that are missing; the manifest lists them.

    Raises:
        ModelError: one output only, or a last layer that does not give the logits.
    """
    n, unit = len(audit.corpus), audit.settings.unit
    if audit.settings.maps and (middle := attribution.middle_layer(work, range(n))):
        store.update_manifest(middle=middle)
    tried = attribution.probe(work, range(n))
    check_logits(audit.classifier, tried)
    arrays = attribution.arrays_to_store(tried, audit.settings.parts)
    store.update_manifest(left_out=audit.corpus.left_out, arrays=sorted(arrays))
    if isinstance(tried, Relevance):
        store.update_manifest(method=tried.method)
    if audit.classifier.form is not None:
        store.update_manifest(array_form=audit.classifier.form.to_json())
    if (area := measure_seen_area(audit.classifier)) is not None:
        store.update_manifest(seen=area.to_json())
    for name in sorted(
        arrays, key=lambda name: name == "logits"
    ):  # last: of a run without the list, they stand for all
        store.create_array(name, (n, *arrays[name].shape[1:]), arrays[name].dtype, unit, attribution.STEP)


def check_logits(classifier: Classifier, tried: Relevance | Observation) -> None:
    """Check that the network has at least two logits, computed by its last layer.

    `load_model` makes logits of other answers, if it can run the network on test images.

    Raises:
        ModelError: otherwise.
    """
    outputs, weight = tried.logits.shape[1], head_weight(classifier)
    if outputs < 2:
        raise ModelError(
            "a network with one output", got=f"logits of shape (B, {outputs})", rule="one logit for each class",
            remedy=f"Return two logits, (-y/2, y/2) for a logit y, or {WITH_TRANSFORM}.",
        )  # fmt: skip
    if is_distribution(torch.from_numpy(tried.logits), CERTAIN):
        raise ModelError(
            "the model answers with probabilities", got="numbers above 0 that sum to 1", rule="logits are audited",
            remedy=f"Leave the softmax out, or {WITH_TRANSFORM}.",
        )  # fmt: skip
    if weight is not None and (len(weight) != outputs or weight.shape[1] != tried.features.shape[1]):
        raise ModelError(
            f"the last fully connected layer, {classifier.head}, does not give the logits",
            got=f"weights {weight.shape} and {outputs} logits",
            rule="logits = features @ weights.T + bias",
        )


def record_label_order(audit: Audit, store: RunStore) -> None:
    """Record how many images are predicted as their label, where labels are audited; images of several are left out."""
    if audit.settings.target == "label":
        images = store.table(attribution.IMAGES, attribution.STEP)
        used = np.array([reason == "" for reason in images["skipped"].to_pylist()])
        used &= np.bincount(audit.corpus.image_numbers)[audit.corpus.image_numbers] == 1
        labels, predicted = np.asarray(audit.targets)[used], images["predicted"].to_numpy()[used]
        store.update_manifest(order=Order.of(labels, predicted, audit.classifier.n_classes).to_json())


def analyse(audit: Audit, store: RunStore, workers: int, metrics: Sequence[str] = ()) -> None:
    """Compute the suspect cluster of every class under every metric, by default those of the run.

    A unit is one group, or a block of groups where all classes are screened.
    """
    for work in make_analyses(audit, store, metrics).values():
        units = partition(len(work.groups), work.size)
        run_step(audit, store, work, work.step, units, workers, f"clusters ({work.metric})")


def make_analyses(audit: Audit, store: RunStore, metrics: Sequence[str] = ()) -> dict[str, Analysis]:
    """Return the analysis under each metric, by default those of the run."""
    images = store.table(attribution.IMAGES, attribution.STEP)
    usable = np.array([reason == "" for reason in images["skipped"].to_pylist()])
    found = tuple(audit.groups(images["predicted"].to_numpy(), usable))
    head = head_weight(audit.classifier)
    size = SCREENING_UNIT if audit.settings.screens else 1
    return {
        metric: Analysis(store, audit.settings, metric, found, head, size)
        for metric in metrics or audit.settings.metric
    }


class SharedWork(Protocol):
    """Settings of work on a run, and how it is shared with other processes."""

    @property
    def settings(self) -> AuditSettings: ...

    @property
    def sharing(self) -> Sharing: ...


def run_step(
    audit: SharedWork, store: RunStore, work: Any, step: str, units: list[range], workers: int, label: str,
    checksums: Callable[[Any], Written] = lambda written: written,
) -> None:  # fmt: skip
    """Run the units of a step that are not done yet; each is marked when its results are on disk. Work units return the
    checksums of what they wrote.

    Args:
        checksums: function that takes them out of what a unit returns, where that is more.

    Of a shared run, units are taken one by one, those of this shard first, then those that no living process holds; the
    step ends when all units are done, whoever did them.
    """
    sharing, number = audit.sharing, {unit.start: i for i, unit in enumerate(units)}
    sharing.once(
        f"{step}.begun", lambda: store.update_manifest(steps=store.manifest.get("steps", {}) | {step: len(units)})
    )

    def claim(unit: range) -> str:
        return f"{step}.{number[unit.start]}"

    def take(unit: range) -> bool:
        if store.is_done(step, number[unit.start]) or not sharing.take(claim(unit)):
            return False
        if store.is_done(step, number[unit.start]):  # by a process that gave its claim back just now
            sharing.release(claim(unit))
            return False
        return True

    def mark(unit: range, result: Any) -> None:
        written = checksums(result)
        if sharing.holds(claim(unit)):  # else this process was taken for dead, and another one marks the unit
            store.mark_done(step, number[unit.start], written)
        sharing.release(claim(unit))

    waiting = Waiting(label)
    while left := sharing.order(sorted(set(range(len(units))) - store.done_units(step))):
        if (first := next((i for i in left if take(units[i])), None)) is None:
            waiting.look_later()
            continue
        run_units(
            work,
            [units[first], *(units[i] for i in left if i != first)],
            workers=workers,
            threads=audit.settings.threads,
            label=label,
            on_done=mark,
            admit=lambda unit, first=units[first]: unit == first or take(unit),  # type: ignore[misc]
        )
    sharing.once(f"{step}.finished", lambda: store.finish_step(step, len(units)))


def write_ranking(audit: Audit, store: RunStore) -> Ranking:
    """Rank all classes, most suspect first, and write the ranking as JSON and as a table."""
    tables = [store.table(f"suspects-{metric}", f"spray-{metric}").to_pylist() for metric in audit.settings.metric]
    paths = store.table("corpus")["path"].to_pylist()
    entries = [Entry.from_record(line, paths) for table in tables for line in table if line["rows"]]
    ordered = ranking.rank_by_z(ranking.with_baseline(entries, ranking.plain_suspects(store)))
    store.write_json(ranking.FILE, ordered.to_json())
    store.write_table("ranking", ordered.to_table())
    return ordered


def illustrate(audit: Audit, store: RunStore, ordered: Ranking) -> None:
    """Draw pictures of the first suspects, once; in a quantified run, `audit quantify` draws those of the clusters that
    the model follows."""
    drawn = store.has_table(page.VIEWS) and store.is_done(page.VIEWS, 0) and store.is_finished(page.VIEWS)
    if drawn or store.has_table(ranking.FOLLOWED):
        return
    works = tuple(make_analyses(audit, store).values())
    Illustrator(store, audit.settings, audit.corpus, audit.classifier, works).draw(ordered.entries)


def check_unchanged(audit: Audit, store: RunStore) -> None:
    """Check that data and model are those of the run.

    Raises:
        RunMismatch: they changed since.
    """
    require_identity(store, {"corpus": audit.corpus.hash, "model": audit.classifier.identity})


def require_identity(store: RunStore, now: Mapping[str, str]) -> None:
    """Check that what a run was made of is the same now.

    Args:
        now: content hashes, by their names in the run's identity.

    Raises:
        RunMismatch: one differs.
    """
    for what, then in store.manifest["identity"].items():
        if what in now and now[what] != then:
            raise RunMismatch(
                f"the {what} changed since the run", got=now[what][:12], rule=f"the run has {then[:12]}",
                remedy="Audit again into another folder.",
            )  # fmt: skip
