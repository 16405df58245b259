"""Clean a model of the artifacts of several classes: a correction for each, composed into one corrected model.

    OUT/plan.json                               what is asked for; other contents of OUT are kept only if it is the same
    OUT/TARGET/                                 artifact and correction of one class, as of clean_model.clean
    OUT/TARGET-artifact-2/                      those of a further artifact of the class
    OUT/correction.json, erasure.npz, model.pt2 the corrections together
    OUT/certificate.json, certificate.html      effect and harm of each alone and of all together

All artifacts share one split into parts: what one correction is shown on, no other was fitted or chosen on. Clean
images carry the artifact of none of the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from klarsicht import __version__
from klarsicht.audit.cleaning.artifacts.artifact import Artifact, build_artifact, load_artifact
from klarsicht.audit.cleaning.artifacts.found_artifact import FoundArtifact
from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.closed_form import COMPOSED
from klarsicht.audit.cleaning.corrections.joint_correction import JointCorrection, LayerCorrection
from klarsicht.audit.cleaning.models import clean_model, joint_certificate
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import AUTOMATIC, CleanSettings
from klarsicht.audit.cleaning.models.joint_judgement import JointJudgement
from klarsicht.audit.cleaning.models.joint_test import FittedClass, choose_order, judge_together
from klarsicht.audit.explanation.data import groups, splits
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.results import verdicts
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.progress import note, progress
from klarsicht.ground.run_folder.decisions import DecisionLog
from klarsicht.ground.run_folder.manifest import to_json
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.ground.user_arguments import check_arguments

PLAN: Final = "plan.json"


@dataclass(frozen=True)
class CleanedClasses:
    """Corrections of several classes, composed, and their folder.

    Attributes:
        folder: where they are saved.
        correction: the corrections together.
        judgement: on images on which none was fitted or chosen.
        record: content of FOLDER/correction.json.
    """

    folder: Path
    correction: JointCorrection
    judgement: JointJudgement
    record: dict[str, Any]

    def check(self) -> None:
        """Check that the corrected model may be called clean; it is saved in any case.

        Raises:
            HarmExceeded, EffectRemains: see JointJudgement.check.
        """
        self.judgement.check()


@check_arguments
def clean_classes(
    run: str | Path | RunStore, names: Sequence[str] = (), settings: CleanSettings | None = None, *,
    out: str | Path | None = None, found_by: str | None = None, data: Any = None,
    classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> CleanedClasses:  # fmt: skip
    """Fit a correction for the artifact of each class, compose them into one corrected model, and save it with a
    certificate; resumes where it was stopped.

    Args:
        run: the run folder.
        names: the classes; empty: all that `audit quantify` called poisoned or a person decided to carry an artifact,
            without those decided to be legitimate.
        settings: see CleanSettings; by default its defaults.
        out: the folder of the corrections; by default RUN/corrections/all.
        found_by: see clean_model.clean.
        data: where the corpus is now, if it moved.
        classifier: a model built in Python, in place of the one that the run names.
        device: where the model runs, see ground.machine.devices.select_device.

    Raises:
        UsageError: no class is poisoned, an unknown class, or a method whose corrections cannot be composed.
        InputError, UsageError: no class has members that a correction can be fitted on.
        RunMismatch: model or data differ from those of the run.
    """
    settings = settings or CleanSettings()
    settings.require_known_names()
    check_composable(settings)
    audited_run = AuditedRun.of(run, data, classifier, device)
    folder = Path(out) if out else audited_run.store.path / "corrections" / "all"
    with audited_run.store.lock():
        names = names or find_classes_to_clean(audited_run)
        found, left_out = find_all_members(audited_run, names, found_by)
        make_plan(folder, audited_run, found, settings)
        fitted, refused = fit_classes(audited_run, found, folder, settings)
        left_out += refused
        joint, orders = choose_order(fitted, settings)
        judgement = judge_together(fitted, joint, orders, left_out, settings)
        case = fitted[0].case
        example = case.read(np.flatnonzero(case.clean)[:1], np.ones(1, bool)).images
        record = make_joint_record(audited_run, fitted, joint, settings, judgement)
        told = packages.save_correction(folder, joint, record, case.classifier, *example)
        joint_certificate.write_joint_certificate(judgement, folder)
    return CleanedClasses(folder, joint, judgement, told)


def check_composable(settings: CleanSettings) -> None:
    """Check that corrections by the method of the settings can be built into one model together.

    Raises:
        UsageError: otherwise.
    """
    if settings.train or settings.pooled or settings.method not in (AUTOMATIC, *COMPOSED):
        got = "--train" if settings.train else "--pooled" if settings.pooled else settings.method
        raise UsageError(
            "corrections that cannot be composed", got=got, rule=f"of several classes: {', '.join(COMPOSED)}",
            remedy="Clean one class by --class, audit the corrected model, and clean the next.",
        )  # fmt: skip


def find_classes_to_clean(run: AuditedRun) -> tuple[str, ...]:
    """Return the classes that `audit quantify` called poisoned, in the order of its verdicts, each with its further
    artifacts that the model uses, and those that a person decided to carry an artifact; without those that a person
    decided to be legitimate.

    Raises:
        UsageError: there is none, and the run is not quantified, or no class is poisoned.
    """
    decisions = DecisionLog(run.store.path).decisions()
    decided = {decision.name for decision in decisions.values() if decision.is_artifact}
    legitimate = {decision.name for decision in decisions.values() if decision.is_legitimate}
    quantified = verdicts.is_quantified(run.store)
    judged = verdicts.read_verdicts(run.store) if quantified else ()
    poisoned = {
        run.name_clearly(name, one.target, number): one.name
        for one in judged
        for number, (name, used) in enumerate(one.named_artifacts, 1)
        if used.poisoned
    }
    left = [name for name, of_class in poisoned.items() if of_class not in legitimate]
    if names := tuple(dict.fromkeys([*left, *sorted(decided)])):
        return names
    if not quantified:
        raise UsageError(
            "which class?", got="a run that is not quantified", rule="without --class all poisoned classes are cleaned",
            remedy="Run `klarsicht audit quantify` first, or name a --class.",
        )  # fmt: skip
    found = verdicts.read_verdicts(run.store)
    if poisoned:
        raise UsageError(
            "every poisoned class was decided to be legitimate", got=", ".join(poisoned),
            remedy="Decide again in `klarsicht audit explore`, or name a --class and --found-by.",
        )  # fmt: skip
    reviewed = [one.name for one in found if one.needs_review]
    raise UsageError(
        "no class is poisoned: there is nothing to clean",
        got=f"{len(found)} classes quantified" + (f", to be looked at: {', '.join(reviewed)}" if reviewed else ""),
        rule="without --class all poisoned classes are cleaned",
        remedy="Name a --class to clean it all the same.",
    )


def find_all_members(
    run: AuditedRun, names: Sequence[str], found_by: str | None
) -> tuple[list[FoundArtifact], list[tuple[str, str]]]:
    """Find the members of each artifact, each artifact once.

    Returns:
        what was found, and (class, reason) of those where nothing was.

    Raises:
        UsageError: an unknown class, or nothing was found in any class.
    """
    named = {groups.find_artifact(name, run.audit.names, run.audit.index): name for name in reversed(names)}
    found: list[FoundArtifact] = []
    left_out: list[tuple[str, str]] = []
    why = None
    for name in reversed(named.values()):
        try:
            found.append(run.find_members(name, found_by))
        except UsageError as error:
            left_out.append((name, str(error)))
            why = error
    if why is not None and not found:
        raise why
    return found, left_out


def make_plan(folder: Path, run: AuditedRun, found: Sequence[FoundArtifact], settings: CleanSettings) -> None:
    """Write what is asked for to the folder; where something else was asked for there before, what was made for it is
    removed."""
    asked = {
        "klarsicht": __version__,
        "identity": run.store.manifest["identity"],
        "settings": settings.model_dump(mode="json"),
        "classes": [[one.audited.group.target, one.origin, [int(row) for row in one.members]] for one in found],
    }
    content = to_json(asked)
    with translate_write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / PLAN).is_file() and (folder / PLAN).read_bytes() == content:
            return
        for one in found:
            for stale in (packages.RECORD, "artifact.json"):  # both are written last
                (folder / one.folder_name / stale).unlink(missing_ok=True)
    write_atomically(folder / PLAN, content)


def fit_classes(
    run: AuditedRun, found: Sequence[FoundArtifact], folder: Path, settings: CleanSettings
) -> tuple[list[FittedClass], list[tuple[str, str]]]:
    """Build the artifact of each class and fit its correction; what OUT/TARGET holds already is read.

    Returns:
        the corrections, and (class, reason) of those that were refused.

    Raises:
        InputError, UsageError: all were refused.
    """
    corpus = run.audit.corpus
    members = np.array([np.isin(np.arange(len(corpus)), one.members) for one in found])
    part = splits.split_by_source(corpus.source_numbers, members, generator(settings.seed, "parts of several classes"))
    refused: list[tuple[str, str]] = []
    why: InputError | UsageError | None = None
    known: list[tuple[FoundArtifact, Artifact]] = []
    fitted: list[FittedClass] = []
    with progress("artifacts and corrections", 2 * len(found)) as advance:
        for one in found:
            try:
                place = folder / one.folder_name
                known.append((one, read_or_build_artifact(one, place, part, settings)))
            except (InputError, UsageError) as error:
                refused.append((one.name, str(error)))
                why = error
            advance()
        clean = ~np.any([artifact.carries for _, artifact in known], axis=0) if known else np.zeros(0, bool)
        for one, artifact in known:
            try:
                fitted.append(read_or_fit_correction(run, one, artifact, clean, folder, settings))
                note(f"{artifact.name}: {fitted[-1].setting}")
            except (InputError, UsageError) as error:
                refused.append((artifact.name, str(error)))
                note(f"{artifact.name}: no correction: {error}")
                why = error
            advance()
    if why is not None and not fitted:
        raise why
    return fitted, refused


def read_or_build_artifact(found: FoundArtifact, place: Path, part: Any, settings: CleanSettings) -> Artifact:
    """Read the artifact that a folder holds, or build it and save it there."""
    if (place / "artifact.json").is_file():
        try:
            return load_artifact(place)
        except InputError:  # cut short or altered: it is built again
            (place / packages.RECORD).unlink(missing_ok=True)
    artifact = build_artifact(found, seed=settings.seed, part=part)
    with translate_write_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        (place / packages.RECORD).unlink(missing_ok=True)
    artifact.save(place, found.audited.corpus)
    return artifact


def read_or_fit_correction(
    run: AuditedRun, found: FoundArtifact, artifact: Artifact, clean: Bools, folder: Path, settings: CleanSettings
) -> FittedClass:
    """Read the correction of a class that a folder holds, or fit it, choose it and save it there."""
    place = folder / artifact.folder_name
    case = replace(artifact.case(found.audited), clean=clean)
    if (place / packages.RECORD).is_file():
        try:
            kept, record = packages.load_correction(place)
            if isinstance(kept, LayerCorrection):
                return FittedClass(artifact, case, kept, record["setting"])
        except InputError:  # cut short or altered: it is fitted again
            pass
    data, test = clean_model.prepare_data(case, artifact, settings)
    draw = clean_model.draw_clean(case, data, settings)
    chosen = clean_model.choose_correction(data, test, settings, COMPOSED, further=False, draw=draw)
    skipped = tuple(one for sample in (data.fit, test.sample) for one in sample.skipped)
    record = clean_model.make_record(run, artifact, settings, chosen, skipped)
    record |= {"setting": str(chosen.chosen), "use": clean_model.describe_missing_use(run, artifact)}
    packages.save_correction(place, chosen.correction, record)
    if not isinstance(chosen.correction, LayerCorrection):
        raise TypeError(f"{chosen.chosen.method} gave {type(chosen.correction).__name__}")
    return FittedClass(artifact, case, chosen.correction, str(chosen.chosen))


def make_joint_record(
    run: AuditedRun, fitted: Sequence[FittedClass], joint: JointCorrection, settings: CleanSettings,
    judgement: JointJudgement,
) -> dict[str, Any]:  # fmt: skip
    """Return the content of the record of corrections together."""
    ordered = [next(one for one in fitted if one.correction is part) for part in joint.parts]
    return {
        "klarsicht": __version__,
        "classes": [one.artifact.name for one in ordered],
        "targets": [one.artifact.target for one in ordered],
        "settings": settings.model_dump(mode="json"),
        "model": run.audit.settings.model,
        "code": run.store.manifest.get("code", {}),
        "identity": run.store.manifest["identity"],
        "corrections": [
            {"class": one.artifact.name, "folder": one.artifact.folder_name, "setting": one.setting} for one in ordered
        ],
        "shown": judgement.to_json(),
    }
