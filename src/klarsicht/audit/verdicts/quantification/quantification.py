"""Quantify a run: decide which classes have an artifact and which artifacts the model uses, with p-values.

Steps: detections in every class; selection of those that exceed the clean classes; insertion of the artifact into
images of other classes; verdicts; the same on what is left of called classes; the fine texture of whole classes. Every
step resumes where it was interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.executor import partition
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.report import page, views
from klarsicht.audit.explanation.report.figures import Illustrator
from klarsicht.audit.explanation.settings import ANY_DEVICE, LOCAL_ENGINE
from klarsicht.audit.explanation.steps import step_units
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results import ranking, seen_groups, verdicts
from klarsicht.audit.results.followed_groups import mark_followed_groups, mark_followed_textures
from klarsicht.audit.results.rows import FollowedRow
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.verdicts.interventions.regions import DONORS_PER_IMAGE, MAX_COMPONENTS, SEARCH_BACKGROUNDS
from klarsicht.audit.verdicts.quantification import figures
from klarsicht.audit.verdicts.quantification.class_verdicts import DetectedClasses
from klarsicht.audit.verdicts.quantification.cluster_search import most_images_shown
from klarsicht.audit.verdicts.quantification.cluster_units import (
    CLASS_IMAGES,
    ClusterInterventionUnits,
    candidate_analyses,
)
from klarsicht.audit.verdicts.quantification.embedding_units import learn_embedding
from klarsicht.audit.verdicts.quantification.further_artifacts import find_further_artifacts
from klarsicht.audit.verdicts.quantification.intervention_units import InterventionUnits, most_images_inserted
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.resemblances import name_resemblances
from klarsicht.audit.verdicts.quantification.seen_use import measure_seen_use, measure_untested_use
from klarsicht.audit.verdicts.quantification.units import EFFECT_BACKGROUNDS, DetectionUnits
from klarsicht.audit.verdicts.quantification.whole_textures import find_followed_textures
from klarsicht.ground.progress import note
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments

INSERTED_FILE: Final = "inserted.json"  # detections among which one was chosen and inserted, of all classes


@check_arguments
def quantify(
    run: str | Path | RunStore, *, level: float = LEVEL, workers: int = 1, data: Any = None,
    classifier: Classifier | None = None, shard: str | None = None, device: str = ANY_DEVICE,
    engine: str = LOCAL_ENGINE,
) -> Quantification:  # fmt: skip
    """Compute verdicts on all classes of a finished run, and write them as JSON, as a table and into its report.

    Args:
        run: the run folder.
        level: of p, below which a class is called artifactual, and an artifact used.
        workers: processes; results do not depend on it.
        data: where the corpus is now, if it moved, or the corpus or sequence of a run of one in Python.
        classifier: a model built in Python, in place of the one that the run names; needs workers=1, or an engine.
        shard: "K/N" for the K-th of N calls that each make a share of the units, or "auto"; see pipeline.run.
        device: where the model runs, see ground.machine.devices.select_device.
        engine: where units run, see AuditSettings; results do not depend on it.

    Raises:
        UsageError: the run does not audit classes on their own images, there is only one class, or the level is out of
            range.
        RunMismatch: model or data differ from those of the run.
    """
    with open_run(
        run, level=level, workers=workers, data=data, classifier=classifier, shard=shard, device=device, engine=engine
    ) as (audit, work):
        announce(work)
        return run_steps(audit, work, level, workers)


def run_steps(audit: Audit, work: DetectionUnits, level: float, workers: int = 1) -> Quantification:
    """Run the steps of a quantification, write its verdicts, and return them."""
    found, store, once = run_quantification(audit, work, level, workers), work.store, audit.sharing.once
    found = find_further_artifacts(audit, work, found, workers)
    once(f"verdicts.{level}", lambda: store.write_json(verdicts.VERDICTS_FILE, found.to_json()))
    marked = found
    if store.has_array("maps"):
        find_followed_clusters(audit, work, workers)
        clusters: list[FollowedRow] = store.table(ranking.FOLLOWED).to_pylist()
        marked = mark_followed_groups(found, clusters, store.texts("corpus", "path"))
    marked = mark_followed_textures(
        name_resemblances(work, marked), find_followed_textures(audit, work, level, workers)
    )
    marked = measure_untested_use(work, marked)
    once(f"quantified.{level}", lambda: write_quantification(work, marked))
    return marked


def write_quantification(work: DetectionUnits, found: Quantification) -> None:
    """Write verdicts as JSON, as a table and into the report."""
    store = work.store
    store.write_json(verdicts.VERDICTS_FILE, found.to_json())
    if len(found):
        store.write_table("quantification", found.to_table())
        store.write_table("ranking", ranking.read_ranking(store).to_table())
    figures.write_figures(work, found)
    groups = measure_seen_use(work, seen_groups.list_seen_groups(store, found))
    seen_groups.write_seen_groups(store, groups)
    figures.write_seen_figures(work, found, groups)
    page.write_report(store)


def announce(work: DetectionUnits) -> None:
    """Print a bound on the images that the steps to come show to the network, where they show any."""
    inserting, searching = (
        [len(group) for i, group in enumerate(work.groups) if not work.store.is_done(step, i)]
        for step in (InterventionUnits.step, ClusterInterventionUnits.step)
    )
    alone = len(work.groups) == 1
    searching = searching if alone or work.store.has_array("maps") else []
    bounds = [_most_images_screened(n) if alone else most_images_shown(min(n, CLASS_IMAGES)) for n in searching]
    inserted = 0 if alone else len(inserting) * most_images_inserted(work.outputs)
    first, most = (sum(bound[i] for bound in bounds) for i in (0, 1))
    left = f", {first:,} if no class shows any" if first < most else ""
    stages = [f"{inserted:,} with artifacts on them"] * bool(inserted)
    stages += [f"{most:,} with parts of clusters on them{left}"] * bool(most)
    if stages:
        note(f"at most {inserted + most:,} images will be shown to the network: {'; '.join(stages)}")


def _most_images_screened(images: int) -> tuple[int, int]:
    """Bound the images that a screening of a corpus of so many shows to the network, which leaves no class."""
    tried = min(images, CLASS_IMAGES) * (MAX_COMPONENTS + 1) * SEARCH_BACKGROUNDS
    most = tried + SEARCH_BACKGROUNDS + EFFECT_BACKGROUNDS * (1 + 2 * DONORS_PER_IMAGE)
    return most, most


def run_quantification(audit: Audit, work: DetectionUnits, level: float, workers: int) -> Quantification:
    """Run detection, selection, insertion and verdicts."""
    units, store = partition(len(work.groups), 1), work.store
    audit.sharing.once("embedding", lambda: learn_embedding(work))
    step_units.run_step(audit, store, work, work.step, units, workers, "detections of artifacts")
    classes = DetectedClasses.of(work, level)
    if not classes.signs:
        return Quantification((), 1.0, level, classes.skipped)
    interventions = InterventionUnits(work, classes.to_insert)
    audit.sharing.once("insertions", lambda: discard_other_insertions(store, interventions))
    step_units.run_step(audit, store, interventions, interventions.step, units, workers, "artifacts on other images")
    effects = {row["target"]: row for row in store.table("effects", interventions.step).to_pylist()}
    return classes.judge(effects)


def find_followed_clusters(audit: Audit, work: DetectionUnits, workers: int) -> None:
    """Find for every class the cluster that the model follows; write the table and pictures."""
    store, units = work.store, partition(len(work.groups), 1)
    analyses = candidate_analyses(tuple(pipeline.make_analyses(audit, store).values()))
    interventions = ClusterInterventionUnits(work, analyses)
    step_units.run_step(audit, store, interventions, interventions.step, units, workers, "clusters on other images")
    audit.sharing.once("followed", lambda: draw_followed_clusters(audit, interventions))


def draw_followed_clusters(audit: Audit, interventions: ClusterInterventionUnits) -> None:
    """Write the table of the clusters that the model follows, and draw them where they changed."""
    store, analyses = interventions.detection_units.store, interventions.analyses
    tried = store.table(interventions.step, interventions.step)
    drawn = store.has_table(views.VIEWS) and store.is_done(views.VIEWS, 0) and store.is_finished(views.VIEWS)
    if not (drawn and store.has_table(ranking.FOLLOWED) and store.table(ranking.FOLLOWED).equals(tried)):
        store.discard_step(views.VIEWS)
        store.write_table(ranking.FOLLOWED, tried)
        Illustrator(store, audit.settings, audit.corpus, audit.classifier, analyses).draw(
            ranking.read_ranking(store).entries
        )


def discard_other_insertions(store: RunStore, interventions: InterventionUnits) -> None:
    """Discard the effects of a run that were chosen among other detections, as few classes have at another level; note
    the present ones."""
    candidates = [[row["target"], row["sign"]] for rows in interventions.signs for row in rows]
    if store.has_file(INSERTED_FILE):
        is_other = store.read_json(INSERTED_FILE) != candidates
    else:  # of an earlier version, which told what was chosen alone
        has_effects = store.has_table("effects", interventions.step)
        rows = store.table("effects", columns=("target", "sign")).to_pylist() if has_effects else []
        is_other = any([row["target"], row["sign"]] not in candidates for row in rows)
    if is_other:
        store.discard_step(interventions.step)
    store.write_json(INSERTED_FILE, candidates)
