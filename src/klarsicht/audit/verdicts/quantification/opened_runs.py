"""Open finished runs whose classes are compared, with their model, data and groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.relevance import attribution
from klarsicht.audit.explanation.settings import ANY_DEVICE, LOCAL_ENGINE
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.explanation.steps.relevance_step import model_to_send
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.errors import UsageError
from klarsicht.ground.ranges import P_LEVEL, WORKERS
from klarsicht.ground.run_folder.shards import Shard
from klarsicht.ground.run_folder.store import RunStore


def class_groups(audit: Audit, store: RunStore) -> tuple[Group, ...]:
    """Return the classes of a run with their own images; raises UsageError of a screening, or of a single class."""
    if audit.settings.target not in ("label", "predicted"):
        raise UsageError(
            "this run compares no classes",
            got=f"target {audit.settings.target}",
            rule="artifacts of a class are what other classes do not share",
            remedy="Audit with --target label or --target predicted.",
        )
    found = usable_groups(audit, store)
    if len(found) < 2:
        raise UsageError("nothing to compare with", got=f"{len(found)} class", rule="at least 2, better 20 and more")
    return found


def usable_groups(audit: Audit, store: RunStore) -> tuple[Group, ...]:
    """Return the non-empty groups of usable images that the run analysed."""
    return tuple(group for group in audit.groups(*attribution.read_predictions(store)) if len(group))


@contextmanager
def open_run(
    run: str | Path | RunStore, *, level: float, workers: int, data: Any, classifier: Classifier | None,
    grouped: Callable[[Audit, RunStore], tuple[Group, ...]] = class_groups, shard: str | None = None,
    device: str = ANY_DEVICE, engine: str = LOCAL_ENGINE,
) -> Iterator[tuple[Audit, DetectionUnits]]:  # fmt: skip
    """Open a finished run with its model, data and groups, which `grouped` returns, and lock it.

    Raises:
        UsageError: the level is out of range, or the run cannot be grouped.
        RunMismatch: model or data differ from those of the run.
        CorpusError, StoreError: the run is not finished, see `pipeline.require_ranked`.
    """
    P_LEVEL.require("level", level)
    WORKERS.require("workers", workers)
    store = RunStore.open(run)
    audit = Audit.of_run(store, data, classifier, device).on_engine(engine)
    pipeline.check_unchanged(audit, store)
    pipeline.require_ranked(store)
    with store.share(None if shard is None else Shard.parse(shard)) as sharing:
        here = model_to_send(audit, classifier is not None, workers)
        yield (
            replace(audit, sharing=sharing),
            DetectionUnits(store, audit.corpus, audit.settings, grouped(audit, store), audit.classifier.identity, here),
        )
