"""Which classes of a run are artifactual, which are poisoned, and how sure is that?

Signs of artifacts in every class -> what stands out from clean classes -> the artifact put on other classes' images ->
verdicts. Every step resumes where it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from klarsicht.audit import pipeline
from klarsicht.audit.data.groups import Group
from klarsicht.audit.detectors.bank import change_of
from klarsicht.audit.executor import partition
from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.pipeline import Audit
from klarsicht.audit.quantify import figures
from klarsicht.audit.quantify.cluster_units import ClusterInterventionUnits, sources
from klarsicht.audit.quantify.units import DetectionUnits, InterventionUnits
from klarsicht.audit.relevance import attribution
from klarsicht.audit.report import page
from klarsicht.audit.report.figures import Illustrator
from klarsicht.audit.results import ranking, significance, verdicts
from klarsicht.audit.results.significance import SelectedDetections
from klarsicht.audit.results.verdicts import LEVEL, Quantification, Verdict
from klarsicht.audit.settings import AuditSettings
from klarsicht.ground.errors import UsageError
from klarsicht.ground.store import RunStore


def quantify(
    run: str | Path, *, level: float = LEVEL, workers: int = 1, data: str | None = None,
    classifier: Classifier | None = None,
) -> Quantification:  # fmt: skip
    """Verdicts on all classes of a finished run; written beside it as JSON, as a table and on its page.

    Args:
        level: of p, below which a class is called artifactual, and an artifact used.
        workers: processes; results do not depend on it.
        data: where the corpus is now, if it moved.
        classifier: a model built in Python, in place of the one that the run names; needs workers=1.

    Raises:
        UsageError: the run is no audit of classes on their own images, or there is but one class.
        RunMismatch: the model or the data are not those of the run any more.
    """
    with opened(run, level=level, workers=workers, data=data, classifier=classifier) as (audit, work):
        found, store = run_quantification(audit, work, level, workers), work.store
        store.write_json(verdicts.FILE, found.to_json())
        if store.has_array("maps"):
            follow(audit, work, workers)
        if len(found):
            store.write_table("quantification", found.to_table())
            store.write_table("ranking", ranking.read_ranking(store).to_table())
        figures.draw(work, found)
        page.write_report(store)
    return found


def classes(audit: Audit, store: RunStore) -> tuple[Group, ...]:
    """The classes of the run on their own images."""
    if audit.settings.target not in ("label", "predicted"):
        raise UsageError(
            "this run compares no classes",
            got=f"target {audit.settings.target}",
            rule="artifacts of a class are what other classes do not share",
            remedy="Quantify a run with --target label or --target predicted; one for a single class: audit.screening.",
        )
    found = groups_of(audit, store)
    if len(found) < 2:
        raise UsageError("nothing to compare with", got=f"{len(found)} class", rule="at least 2, better 20 and more")
    return found


def groups_of(audit: Audit, store: RunStore) -> tuple[Group, ...]:
    """What the run analysed together, of the images that it could use."""
    images = store.table(attribution.IMAGES, attribution.STEP)
    usable = np.array([reason == "" for reason in images["skipped"].to_pylist()])
    return tuple(group for group in audit.groups(images["predicted"].to_numpy(), usable) if len(group))


@contextmanager
def opened(
    run: str | Path, *, level: float, workers: int, data: str | None, classifier: Classifier | None,
    grouped: Callable[[Audit, RunStore], tuple[Group, ...]] = classes,
) -> Iterator[tuple[Audit, DetectionUnits]]:  # fmt: skip
    """A finished run and its groups, locked, with the model and the data that it was made of."""
    if not 0 < level < 1:
        raise UsageError("level out of range", got=level, rule="above 0, below 1")
    store = RunStore.open(run)
    settings = AuditSettings.model_validate(store.manifest["settings"] | {"data": data or store.manifest["data"]})
    audit = Audit.of(settings, classifier)
    pipeline.unchanged(audit, store)
    with store.lock():
        here = audit.classifier if classifier is not None or workers == 1 else None
        yield (
            audit,
            DetectionUnits(store, audit.corpus, settings, grouped(audit, store), audit.classifier.identity, here),
        )


def run_quantification(audit: Audit, work: DetectionUnits, level: float, workers: int) -> Quantification:
    """Examine, choose, try, judge."""
    units, store = partition(len(work.groups), 1), work.store
    pipeline.through(audit, store, work, work.step, units, workers, "signs of artifacts")
    described = {line["target"]: line for line in store.table("classes", work.step).to_pylist()}
    signs = signs_by_target(work)
    if not signs:
        return Quantification((), 1.0, level, skipped(described))
    choice = significance.chosen(list(signs.values()), change_of)
    trial = InterventionUnits(work, candidates(signs, choice, work.groups))
    pipeline.through(audit, store, trial, trial.step, units, workers, "artifacts on other images")
    effects = {line["target"]: line for line in store.table("effects", trial.step).to_pylist()}
    return concluded(store, choice, described, effects, level)


def follow(audit: Audit, work: DetectionUnits, workers: int) -> None:
    """Of the clusters of every class the one that the model follows, as a table and in pictures."""
    store, units = work.store, partition(len(work.groups), 1)
    analyses = sources(tuple(pipeline.analyses(audit, store).values()))
    trial = ClusterInterventionUnits(work, analyses)
    pipeline.through(audit, store, trial, trial.step, units, workers, "clusters on other images")
    tried = store.table(trial.step, trial.step)
    if not (store.has_table(ranking.FOLLOWED) and store.table(ranking.FOLLOWED).equals(tried)):
        store.write_table(ranking.FOLLOWED, tried)
        Illustrator(store, audit.settings, audit.corpus, audit.classifier, analyses).draw(
            ranking.read_ranking(store).entries
        )


def signs_by_target(work: DetectionUnits) -> dict[int, list[dict[str, Any]]]:
    """Lines of the table `signs` for each class that was examined."""
    signs: dict[int, list[dict[str, Any]]] = {}
    for line in work.store.table("signs", work.step).to_pylist():
        signs.setdefault(line["target"], []).append(line)
    return signs


NO_EFFECT: dict[str, Any] = {
    "sign": "", "how": "", "shift": 0.0, "low": 0.0, "high": 0.0, "z": float("nan"), "rank": -1,
    "flips": 0.0, "flips_control": 0.0, "flips_low": 0.0, "p_tiles": 1.0,
}  # fmt: skip


def candidates(
    signs: dict[int, list[dict[str, Any]]], choice: SelectedDetections, groups: Sequence[Group]
) -> tuple[tuple[dict[str, Any], ...], ...]:
    """For each class the signs that are put on other images."""
    by_target = dict(zip(signs, choice.candidates, strict=True))
    return tuple(tuple(line for line, _ in by_target.get(group.target, ())) for group in groups)


def skipped(described: dict[int, Any]) -> tuple[tuple[str, str], ...]:
    """(class, why) of those that could not be examined."""
    return tuple((line["class"], line["skipped"]) for line in described.values() if line["skipped"])


def concluded(
    store: RunStore, choice: SelectedDetections, described: dict[int, Any], effects: dict[int, Any], level: float
) -> Quantification:
    """Verdicts from what was chosen and what it did; lines of the tables `classes` and `effects` by target."""
    paths = store.table("corpus")["path"].to_pylist()
    found = _verdicts(choice, described, effects, paths, level, store.array("logits").shape[1])
    return Quantification(found, choice.found.floor, level, skipped(described))


def _verdicts(
    choice: SelectedDetections,
    described: dict[int, Any],
    effects: dict[int, Any],
    paths: list[str],
    level: float,
    outputs: int,
) -> tuple[Verdict, ...]:
    tried = [NO_EFFECT | effects.get(line["target"], {}) for line in choice.lines]
    artifactual, shared = ([bool(one) for one in some] for some in (choice.artifactual(level), choice.shared(level)))
    changes = [change_of(effect["sign"]) if effect["sign"] else "" for effect in tried]
    p_use = verdicts.use(tried, artifactual, changes, outputs, level)
    found = []
    for i, line in enumerate(choice.lines):
        one, effect = described[line["target"]], tried[i]
        large = verdicts.clears(effect["low"], effect["flips_low"])
        used = bool(p_use[i] <= level and large and choice.p_of(i, effect["sign"]) <= level)
        carried = next((c for c, _ in choice.candidates[i] if used and c["sign"] == effect["sign"]), line)
        found.append(
            Verdict(
                name=one["class"],
                target=line["target"],
                n=one["n"],
                repeats=len(one["repeats"]),
                sign=carried["sign"],
                score=carried["score"],
                level=float(choice.found.score[i]),
                p=float(choice.found.p[i]),
                extended=float(choice.found.extended[i]),
                q=float(choice.found.q[i]),
                p_own=float(choice.p_own[i]),
                rows=tuple(carried["rows"]),
                members=tuple(paths[row] for row in carried["rows"]),
                artifactual=artifactual[i],
                poisoned=artifactual[i] and used,
                shared=shared[i],
                used=used,
                p_use=p_use[i],
                tried=effect["sign"],
                **{name: effect[name] for name in NO_EFFECT.keys() - {"sign"}} | {"z": _finite(effect["z"])},
            )
        )
    return verdicts.ordered(found)


def _finite(value: float) -> float:
    """Nought where nothing was tried: JSON knows no other."""
    return value if np.isfinite(value) else 0.0
