"""The easy door: from a model and images to a ranked report. Every step resumes where it was stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.corrections import corrected_model
from klarsicht.audit.data import class_map, groups
from klarsicht.audit.data.corpus import Corpus, open_corpus
from klarsicht.audit.data.groups import Group
from klarsicht.audit.data.label_order import Order
from klarsicht.audit.executor import partition, run_units
from klarsicht.audit.models.classifier import Classifier, best_device, label_indices
from klarsicht.audit.models.forward import Observation
from klarsicht.audit.relevance import attribution
from klarsicht.audit.relevance.attribution import Attribution
from klarsicht.audit.relevance.explainer import METHODS, Relevance
from klarsicht.audit.report import page
from klarsicht.audit.report.figures import Illustrator
from klarsicht.audit.results import ranking
from klarsicht.audit.results.ranking import Ranking
from klarsicht.audit.settings import HEAD_RELEVANCE, AuditSettings
from klarsicht.audit.spray.analysis import METRICS, Analysis, head_weight, head_weight_or_refusal
from klarsicht.ground.errors import CorpusError, ModelError, RunMismatch, UsageError, unknown_name
from klarsicht.ground.store import RunStore

SCREENED = 25  # targets in a work unit of a screening


@dataclass(frozen=True)
class Audit:
    """A model, a corpus and settings, checked against each other."""

    settings: AuditSettings
    corpus: Corpus
    classifier: Classifier

    @classmethod
    def of(cls, settings: AuditSettings, classifier: Classifier | None = None) -> Audit:
        """Opens what the settings name.

        Raises:
            UsageError: unknown metric, method or class, or a metric that the target does not allow.
            CorpusError, ModelError: see audit.data.corpus and audit.models.classifier.
        """
        check_names(settings)
        corpus = open_corpus(settings.data)
        chosen = corpus.select(split=settings.split) if settings.split else corpus
        audit = cls(
            settings, chosen, classifier or corrected_model.load_corrected(settings.model, device=best_device())
        )
        if "concept" in settings.metric and not settings.maps:
            head_weight_or_refusal(head_weight(audit.classifier))
        return audit

    @cached_property
    def index(self) -> dict[str, int]:
        """Output of the model for each label; where labels do not choose the target, the model need not know them."""
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
        """What each output is called: the label that maps to it, else the model's own name, else its number."""
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
        fixed = -1 if target in ("predicted", "all") else groups.output_named(target, self.names, self.index)
        return np.full(len(self.corpus), fixed, np.int64)

    def groups(self, predicted: NDArray[Any], usable: NDArray[np.bool_]) -> list[Group]:
        """What is analysed together, by target."""
        target = self.settings.target
        if target == "label":
            return groups.by_label(self.targets, self.names, usable)
        if target == "predicted":
            return groups.by_prediction(predicted, self.names, usable)
        if target == "all":
            return groups.screening(range(self.classifier.n_classes), self.names, usable)
        return groups.screening([int(self.targets[0])], self.names, usable)


def check_names(settings: AuditSettings) -> None:
    """Metrics and method are known, and maps exist for what is asked."""
    for metric in settings.metric:
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
    if settings.method not in (*METHODS, HEAD_RELEVANCE):
        raise unknown_name("relevance method", settings.method, (*METHODS, HEAD_RELEVANCE))
    propagated = [metric for metric in settings.metric if METRICS[metric].propagated]
    if propagated and not settings.maps:
        raise UsageError(
            f"the metric {propagated[0]} compares propagated relevance",
            got=f"target {settings.target}, method {settings.method}",
            rule="maps explain one class for each image, by a method that makes maps",
            remedy="Use --metric concept, or name one class as --target and another --method.",
        )
    if settings.parts and not any(METRICS[metric].cut for metric in settings.metric):
        raise UsageError(
            "no metric that compares parts",
            got=", ".join(settings.metric),
            rule="parts are cut out of relevance maps",
            remedy="Add --metric euclidean, or leave --parts out.",
        )


def run(
    settings: AuditSettings, out: str | Path, *, classifier: Classifier | None = None, workers: int = 1
) -> RunStore:
    """Audits a model: attributions, clusters, ranking, report. Run it again to resume.

    Args:
        settings: see audit.settings.
        out: the run folder; a new one, or one begun with the same settings, data and model.
        classifier: a model built in Python, in place of the one that the settings name; needs workers=1.
        workers: processes; results do not depend on it.

    Returns:
        The run, complete: `ranking.json`, `ranking.parquet` and `report.html` are in it.

    Raises:
        UsageError, InputError, ModelError, StoreError: see ground.errors.
    """
    audit = Audit.of(settings, classifier)
    if classifier is not None and workers > 1:
        raise UsageError("a model built in Python stays in this process", got=f"{workers} workers", rule="workers=1")
    store = opened(audit, out)
    with store.lock():
        attribute(audit, store, workers, own=classifier)
        order(audit, store)
        analyse(audit, store, workers)
        analyse(audit, store, workers, (ranking.PLAIN,))  # which stands beside what is named
        illustrate(audit, store, rank(audit, store))
        page.write_report(store)
    return store


def opened(audit: Audit, out: str | Path) -> RunStore:
    """The run folder, new or begun before; refuses one made with other settings, data or model."""
    settings = audit.settings.model_dump(mode="json", exclude={"data"})
    identity = {"corpus": audit.corpus.hash, "model": audit.classifier.identity}
    device = audit.classifier.device.type
    return RunStore.create(out, settings=settings, identity=identity, index=audit.index, device=device)


def attribute(audit: Audit, store: RunStore, workers: int, own: Classifier | None = None) -> None:
    """The relevance of every image, unit by unit."""
    here = audit.classifier if own is not None or workers == 1 else None
    work = Attribution(store, audit.corpus, audit.settings, audit.targets, audit.classifier.identity, loaded, here)
    units = partition(len(audit.corpus), audit.settings.unit)
    if not store.has_array("logits"):
        prepare(audit, store, work)
    store.update_manifest(data=str(Path(audit.settings.data).resolve()), names=list(audit.names))
    store.write_table("corpus", audit.corpus.to_table())
    through(audit, store, work, attribution.STEP, units, workers, "relevance")


@lru_cache(maxsize=1)
def loaded(spec: str, identity: str) -> Classifier:
    """The model in a worker process, once."""
    classifier = corrected_model.load_corrected(spec, device=best_device())
    if classifier.identity != identity:
        raise ModelError(
            "a worker loaded another model than this run is of",
            got=spec,
            rule="the same weights each time it is built",
            remedy="Load them from a file, or use --workers 1.",
        )
    return classifier


def prepare(audit: Audit, store: RunStore, work: Attribution) -> None:
    """Tries one image before hours are spent, and makes the arrays; logits last, for they say that all are there.

    Raises:
        ModelError: one output only, or a last layer that does not give the logits.
    """
    n, unit = len(audit.corpus), audit.settings.unit
    if audit.settings.maps and (middle := attribution.middle_layer(work, range(n))):
        store.update_manifest(middle=middle)
    tried = attribution.probe(work, range(n))
    check_logits(audit.classifier, tried)
    arrays = attribution.stored(tried, audit.settings.parts)
    store.update_manifest(left_out=audit.corpus.left_out)
    for name in sorted(arrays, key=lambda name: name == "logits"):
        store.create_array(name, (n, *arrays[name].shape[1:]), arrays[name].dtype, unit)


def check_logits(classifier: Classifier, tried: Relevance | Observation) -> None:
    """Refuses a network whose logits are not what an audit takes them for."""
    outputs, weight = tried.logits.shape[1], head_weight(classifier)
    if outputs < 2:
        raise ModelError(
            "a network with one output", got=f"logits of shape (B, {outputs})", rule="one logit for each class",
            remedy="Return two logits: (-y, y) for a single logit y.",
        )  # fmt: skip
    if weight is not None and (len(weight) != outputs or weight.shape[1] != tried.features.shape[1]):
        raise ModelError(
            f"the last fully connected layer, {classifier.head}, does not give the logits",
            got=f"weights {weight.shape} and {outputs} logits",
            rule="logits = features @ weights.T + bias",
        )


def order(audit: Audit, store: RunStore) -> None:
    """Notes how many images are predicted as their label, where labels are audited."""
    if audit.settings.target == "label":
        images = store.table(attribution.IMAGES, attribution.STEP)
        used = np.array([reason == "" for reason in images["skipped"].to_pylist()])
        labels, predicted = np.asarray(audit.targets)[used], images["predicted"].to_numpy()[used]
        store.update_manifest(order=Order.of(labels, predicted, audit.classifier.n_classes).to_json())


def analyse(audit: Audit, store: RunStore, workers: int, metrics: Sequence[str] = ()) -> None:
    """The suspect cluster of every class under every metric, by default those of the run; groups are units, in blocks
    when all are screened."""
    for work in analyses(audit, store, metrics).values():
        units = partition(len(work.groups), work.size)
        through(audit, store, work, work.step, units, workers, f"clusters ({work.metric})")


def analyses(audit: Audit, store: RunStore, metrics: Sequence[str] = ()) -> dict[str, Analysis]:
    """The analysis under each metric, by default those of the run."""
    images = store.table(attribution.IMAGES, attribution.STEP)
    usable = np.array([reason == "" for reason in images["skipped"].to_pylist()])
    found = tuple(audit.groups(images["predicted"].to_numpy(), usable))
    head = head_weight(audit.classifier)
    size = SCREENED if audit.settings.screens else 1
    return {
        metric: Analysis(store, audit.settings, metric, found, head, size)
        for metric in metrics or audit.settings.metric
    }


def through(audit: Audit, store: RunStore, work: Any, step: str, units: list[range], workers: int, label: str) -> None:
    """The units of a step that are not done yet; each is marked when its results are on disk."""
    store.update_manifest(steps=store.manifest.get("steps", {}) | {step: len(units)})
    number = {unit.start: i for i, unit in enumerate(units)}
    run_units(
        work,
        [unit for i, unit in enumerate(units) if not store.is_done(step, i)],
        workers=workers,
        threads=audit.settings.threads,
        label=label,
        on_done=lambda unit, _: store.mark_done(step, number[unit.start]),
    )


def rank(audit: Audit, store: RunStore) -> Ranking:
    """All classes, most suspect first, as JSON and as a table."""
    tables = [store.table(f"suspects-{metric}", f"spray-{metric}").to_pylist() for metric in audit.settings.metric]
    paths = store.table("corpus")["path"].to_pylist()
    entries = [ranking.entry_of(line, paths) for table in tables for line in table if line["rows"]]
    ordered = ranking.ranked(ranking.with_plain(entries, ranking.plain_suspects(store)))
    store.write_json("ranking.json", ordered.to_json())
    store.write_table("ranking", ordered.to_table())
    return ordered


def illustrate(audit: Audit, store: RunStore, ordered: Ranking) -> None:
    """Pictures of the first suspects, once."""
    if store.has_table("views"):
        return
    works = tuple(analyses(audit, store).values())
    Illustrator(store, audit.settings, audit.corpus, audit.classifier, works).draw(ordered.entries)


def unchanged(audit: Audit, store: RunStore) -> None:
    """Refuses data or a model that changed since the run."""
    now = {"corpus": audit.corpus.hash, "model": audit.classifier.identity}
    for what, then in store.manifest["identity"].items():
        if now[what] != then:
            raise RunMismatch(
                f"the {what} changed since the run", got=now[what][:12], rule=f"the run has {then[:12]}",
                remedy="Audit again into another folder.",
            )  # fmt: skip
