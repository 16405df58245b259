"""Run an audit from a model and images to a ranked report. Every step resumes where it was interrupted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.engines import parse_engine
from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.specifications import TIMM_PREFIX, TIMM_SIZE
from klarsicht.audit.explanation.relevance import attribution
from klarsicht.audit.explanation.report import page, views
from klarsicht.audit.explanation.report.figures import Illustrator
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.spectral.analysis import Analysis, head_weight
from klarsicht.audit.explanation.steps import step_units
from klarsicht.audit.explanation.steps.audit_inputs import Audit, record_own_code
from klarsicht.audit.explanation.steps.relevance_step import attribute, record_label_order, require_label_order
from klarsicht.audit.explanation.steps.skipped_images import require_readable
from klarsicht.audit.explanation.steps.unchanged_inputs import require_class_map, require_corpus, require_model
from klarsicht.audit.results import ranking, verdicts
from klarsicht.audit.results.questions import COPIES_FILE
from klarsicht.audit.results.ranking import Entry, Ranking
from klarsicht.ground.errors import RunLocked, StoreError, UsageError
from klarsicht.ground.progress import note
from klarsicht.ground.run_folder.shards import Shard
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.run_folder.verification import forget_damaged
from klarsicht.ground.user_arguments import check_arguments

CREATION_SECONDS = 60.0  # that a shard waits for another one to create the run
LOOK = 0.5  # seconds between two attempts
SCREENING_UNIT = 25  # targets in a work unit of a screening


@check_arguments
def run(
    settings: AuditSettings, out: str | Path, *, classifier: Classifier | None = None, corpus: Any = None,
    workers: int = 1, shard: str | None = None, accept_labels: bool = False,
) -> RunStore:  # fmt: skip
    """Audit a model: attributions, clusters, ranking, report. The same call resumes an interrupted run.

    Args:
        settings: see audit.explanation.settings.
        out: the run folder; a new one, or one begun with the same settings, data and model.
        classifier: a model built in Python, in place of the one that the settings name; needs workers=1, or an engine.
        corpus: a corpus opened in Python, or a sequence of (picture, label[, source[, weight]]) such as a dataset of
            torchvision, in place of the one that the settings name; workers get a copy.
        workers: processes; results do not depend on it.
        shard: "K/N" for the K-th of N calls that each make a share of the units in one folder, or "auto"; a call
            without it makes what is left.
        accept_labels: audit labels, too, that predictions match better in another order.

    Returns:
        The run, complete: `ranking.json`, `tables/ranking.parquet` and `report.html` are in it.

    What is damaged in a run begun before is named on standard error and computed again.

    Raises:
        CorpusError: predictions match the labels in another order; what was computed stays.
        ShareMade: the share of a shard is made, and others are missing.
        EngineFailed: a cluster does not answer, or no longer.
        UsageError, InputError, ModelError, StoreError: see ground.errors.
    """
    engine = parse_engine(settings.engine)
    audit = Audit.of(with_batch_of_run(settings, out), classifier, corpus).with_batch().on_engine(settings.engine)
    if classifier is not None and workers > 1 and engine is None:
        raise UsageError("a model built in Python stays in this process", got=f"{workers} workers", rule="workers=1")
    own_shard = None if shard is None else Shard.parse(shard)
    _ = audit.targets  # before a folder is made: an unknown target would keep its settings there
    require_apart(audit, Path(out))
    store = open_run(audit, out, wait=CREATION_SECONDS if own_shard else 0)
    if classifier is None:
        note_default_size(audit.settings.model)
    with store.share(own_shard) as sharing:
        run_steps(replace(audit, sharing=sharing), store, workers, classifier, accept_labels)
    return store


def require_apart(audit: Audit, out: Path) -> None:
    """Raise UsageError where a run would lie among the images of a class folder, and its pictures count as images."""
    data = Path(audit.settings.data)
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()) and Path(audit.corpus.paths[0]).is_file():
        raise UsageError(
            "the run would lie among the images", got=f"--out {out}", rule=f"sub-folders of {data} are classes",
            remedy="Choose another --out, outside of --data.",
        )  # fmt: skip


def run_steps(
    audit: Audit, store: RunStore, workers: int = 1, own: Classifier | None = None, accept_labels: bool = True
) -> None:
    """Run the steps of an audit in its run folder; `own` is the model, where it was built in Python, for the rest see
    `run`."""
    once = audit.sharing.once
    once("verified", lambda: note_damaged(store))
    once("splits", lambda: forget_copies(store, audit.corpus))
    once("code", lambda: record_own_code(store, audit.settings))
    attribute(audit, store, workers, own)
    once("label-order", lambda: record_label_order(audit, store))
    if not accept_labels:
        require_label_order(store)
    analyse(audit, store, workers)
    analyse(audit, store, workers, (ranking.PLAIN_METRIC,))  # the baseline of the ranking
    once("report", lambda: report(audit, store))


def forget_copies(store: RunStore, corpus: Corpus) -> None:
    """Forget the copies that were found under other splits, by which a gate would be open."""
    if not (store.has_file(COPIES_FILE) and store.has_table("corpus")):
        return
    if tuple(store.texts("corpus", "split")) != (tuple(corpus.splits) or ("",) * len(corpus)):
        store.remove_file(COPIES_FILE)
        note("splits changed since copies were looked for; `klarsicht audit duplicates` compares them again")


def with_batch_of_run(settings: AuditSettings, out: str | Path) -> AuditSettings:
    """Return the settings with the batch size of a run begun before, where they leave the choice."""
    if settings.batch or not (store := RunStore(Path(out))).exists:
        return settings
    return settings.with_values(batch=store.manifest["settings"]["batch"])


def note_default_size(spec: str) -> None:
    """Ask on standard error whether a network of timm was trained at the size of images that it gets."""
    if spec.startswith(TIMM_PREFIX):
        note(f"the model gets images of {TIMM_SIZE}; `klarsicht audit doctor` shows the size")


def note_damaged(store: RunStore) -> None:
    """Make damaged files of a run count as never written, and name them."""
    for damage in forget_damaged(store):
        note(f"damaged, and so not used: {damage}")


def report(audit: Audit, store: RunStore) -> None:
    """Rank, draw and write the report of a run whose clusters are known."""
    illustrate(audit, store, write_ranking(audit, store))
    page.write_report(store)


def open_run(audit: Audit, out: str | Path, wait: float = 0) -> RunStore:
    """Create the run folder, or open one begun before; wait some seconds for another process that is creating it.
    Raises RunLocked where it still is after that time, RunMismatch where the run was made with other settings, data or
    model, and TooManySkipped, and creates nothing, where more files cannot be read than may be skipped."""
    began = time.monotonic()
    while True:
        try:
            return _create_run(audit, out)
        except RunLocked:
            if time.monotonic() - began > wait:
                raise
            time.sleep(LOOK)


def _create_run(audit: Audit, out: str | Path) -> RunStore:
    identity = {"corpus": audit.corpus.hash, "model": audit.classifier.identity}
    require_readable(audit)
    device, settings = audit.classifier.device.type, audit.settings.to_record()
    if (store := RunStore(Path(out))).exists and store.manifest["settings"] == settings:
        check_unchanged(audit, store)  # says more of what changed
    return RunStore.create(
        out, settings=settings, identity=identity, index=audit.index, device=device,
        independent=audit.classifier.independent,
    )  # fmt: skip


def analyse(audit: Audit, store: RunStore, workers: int, metrics: Sequence[str] = ()) -> None:
    """Compute the suspect cluster of every class under every metric, by default those of the run. A unit is one group,
    or a block of groups where all classes are screened."""
    for work in make_analyses(audit, store, metrics).values():
        units = partition(len(work.groups), work.size)
        step_units.run_step(audit, store, work, work.step, units, workers, f"clusters ({work.metric})")


def make_analyses(audit: Audit, store: RunStore, metrics: Sequence[str] = ()) -> dict[str, Analysis]:
    """Return the analysis under each metric, by default those of the run."""
    groups = tuple(audit.groups(*attribution.read_predictions(store)))
    head = head_weight(audit.classifier)
    size = SCREENING_UNIT if audit.settings.screens else 1
    return {
        metric: Analysis(store, audit.settings, metric, groups, head, size)
        for metric in metrics or audit.settings.metric
    }


def write_ranking(audit: Audit, store: RunStore) -> Ranking:
    """Rank all classes, most suspect first, and write the ranking as JSON and as a table, which keeps what was measured
    on the run since."""
    tables = [store.table(f"suspects-{metric}", f"spray-{metric}").to_pylist() for metric in audit.settings.metric]
    entries = [Entry.from_record(line, audit.corpus.paths) for table in tables for line in table if line["rows"]]
    entries_by_z = ranking.rank_by_z(ranking.with_baseline(entries, ranking.plain_suspects(store)))
    store.write_json(ranking.FILE, entries_by_z.to_json())
    is_measured = verdicts.is_quantified(store) or store.has_table(ranking.FOLLOWED)
    store.write_table("ranking", (ranking.read_ranking(store) if is_measured else entries_by_z).to_table())
    return entries_by_z


def illustrate(audit: Audit, store: RunStore, order: Ranking) -> None:
    """Draw pictures of the first suspects, once; in a quantified run, `audit quantify` draws those of the clusters that
    the model follows."""
    drawn = store.has_table(views.VIEWS) and store.is_done(views.VIEWS, 0) and store.is_finished(views.VIEWS)
    if drawn or store.has_table(ranking.FOLLOWED):
        return
    works = tuple(make_analyses(audit, store).values())
    Illustrator(store, audit.settings, audit.corpus, audit.classifier, works).draw(order.entries)


def check_unchanged(audit: Audit, store: RunStore) -> None:
    """Check that data, model and a class map are those of the run; raises RunMismatch."""
    require_corpus(store, audit.corpus)
    require_model(store, audit.classifier)
    if audit.settings.class_map is not None:
        require_class_map(store, audit.index)


def require_ranked(store: RunStore) -> None:
    """Check that the run came to its end; raises CorpusError where it stopped at permuted labels, else StoreError."""
    if store.has_file(ranking.FILE):
        return
    require_label_order(store)
    raise StoreError(
        "the run is not finished", got=store.path, rule="it has no ranking",
        remedy="Repeat its `klarsicht audit run`: it resumes.",
    )  # fmt: skip
