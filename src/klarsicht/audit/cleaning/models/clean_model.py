"""Clean a model of the artifact of a class, or of those of several classes together: fit, choose, judge and save.

One artifact:

    OUT/artifact.json, artifact.npz             the artifact
    OUT/correction.json, erasure.npz, model.pt2 its correction

Several:

    OUT/plan.json                               what is asked for; other contents of OUT are kept only if it is the same
    OUT/TARGET/                                 artifact and correction of one class, as above
    OUT/TARGET-artifact-2/                      those of a further artifact of the class
    OUT/correction.json, erasure.npz, model.pt2 the corrections together
    OUT/certificate.json, certificate.html      effect and harm of each alone and of all together

Several artifacts share one split into parts, and clean images carry the artifact of none of the classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from klarsicht import __version__
from klarsicht.audit.cleaning.artifacts.artifact import Artifact, build_artifact, load_artifact
from klarsicht.audit.cleaning.artifacts.found_artifact import FoundArtifact, MemberList
from klarsicht.audit.cleaning.corrections import packages, selection
from klarsicht.audit.cleaning.corrections.closed_form import COMPOSED, JointCorrection, LayerCorrection
from klarsicht.audit.cleaning.corrections.selection import Choice
from klarsicht.audit.cleaning.models import certificate
from klarsicht.audit.cleaning.models.audited_run import AuditedRun, find_classes_to_clean, make_each
from klarsicht.audit.cleaning.models.clean_settings import AUTOMATIC, CleanSettings
from klarsicht.audit.cleaning.models.correction_choice import (
    FittedClass,
    check_clean_images,
    check_layer,
    choose_again,
    choose_order,
    draw_shown,
    find_reason_to_refuse,
    fit_and_choose,
    fit_composed,
    judge,
    judge_together,
    make_bounds,
    make_test,
)
from klarsicht.audit.cleaning.models.judgement import JointJudgement, Judgement
from klarsicht.audit.cleaning.models.run_groups import compare_class_groups, relies_on_sides
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.correction_tensors import correction_layers
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.results.measured_use import MeasuredUse, record_measured_use
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.pictures import notebook
from klarsicht.ground.progress import note, progress, whole_step
from klarsicht.ground.run_folder.manifest import to_json
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.ground.user_arguments import check_arguments

PLAN: Final = "plan.json"


@dataclass(frozen=True)
class CleanedModel:
    """Fitted correction and its folder.

    Attributes:
        choice: the chosen correction and the tried settings.
        judgement: of the chosen correction, on images on which nothing was fitted or chosen.
        use: the verdict of `audit quantify`, if it is that the artifact is not shown to be used; else empty.
        record: content of FOLDER/correction.json.
    """

    folder: Path
    artifact: Artifact
    choice: Choice
    judgement: Judgement
    use: str
    record: dict[str, Any]

    def __repr__(self) -> str:
        return f"CleanedModel({str(self.folder)!r}, class {self.artifact.name!r}, verdict {self.judgement.verdict!r})"

    def __fspath__(self) -> str:
        return str(self.folder)

    def _repr_html_(self) -> str:
        facts = notebook.facts([("class", self.artifact.name), ("folder", self.folder), ("chosen", self.choice.chosen)])
        return facts + self.judgement._repr_html_()

    def check(self) -> None:
        """Check that the corrected model may be called clean; it is saved in any case. Raises as Judgement.check."""
        self.judgement.check()


@dataclass(frozen=True)
class CleanedClasses:
    """Corrections of several classes, composed, and their folder; `record` is the content of FOLDER/correction.json."""

    folder: Path
    correction: JointCorrection
    judgement: JointJudgement
    record: dict[str, Any]

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in self.judgement.classes)
        return f"CleanedClasses({str(self.folder)!r}, {names}, verdict {self.judgement.kind.label!r})"

    def __fspath__(self) -> str:
        return str(self.folder)

    def _repr_html_(self) -> str:
        rows = ((one.name, one.setting, one.together.verdict) for one in self.judgement.classes)
        return notebook.table(("class", "correction", "together with the others"), rows)

    def check(self) -> None:
        """Check that the corrected model may be called clean; it is saved anyway. Raises as JointJudgement.check."""
        self.judgement.check()


@check_arguments
def clean(
    run: str | Path | RunStore, name: str, settings: CleanSettings | None = None, *, out: str | Path | None = None,
    found_by: str | None = None, members: MemberList | None = None, mask: Path | None = None, kind: str | None = None,
    part: Sequence[str] | None = None, data: Any = None, classifier: Classifier | None = None,
    device: str = ANY_DEVICE,
) -> CleanedModel:  # fmt: skip
    """Fit a correction of the audited model for the artifact of a class, choose it under the bounds, and save it.

    Args:
        name: the class, or a further artifact of it: "carton (artifact 2)".
        out: the folder of the correction; by default RUN/corrections/TARGET-METHOD, or TARGET-artifact-2-METHOD.
        found_by: "cluster" or "detector"; by default detectors where `audit quantify` named images of the class by one.
        members: images that carry the artifact, in place of those found: a list of paths, keys or rows of the run, or a
            text file with one path or key a line.
        mask: a picture, white where the artifact lies, in place of relevance.
        kind: a kind or family of `audit plant`: a known artifact, put on the images, in place of a found one.
        part: names of image_parts.IMAGE_PARTS that every image of the class has and that tell it, in place of an
            artifact of some of them; empty: the strongest that `audit shortcuts` noted.
        data: present place of the corpus, if it moved.
        classifier: a model built in Python, in place of the one that the run names.
        device: see ground.machine.devices.select_device.

    Raises:
        UsageError: unknown class, method, direction, layer, kind or part, too few members, or two kinds of artifacts.
        InputError: members share no feature, or a list or mask cannot be used.
        RunMismatch: model or data differ from those of the run.
    """
    settings = settings or CleanSettings()
    require_one_artifact(kind, part, found_by or members or mask)
    audited_run = AuditedRun.of(run, data, classifier, device)
    check_layer(audited_run.audit.classifier, settings)
    with audited_run.store.lock():
        with whole_step("artifact"):
            if part is not None:
                artifact, audited = audited_run.part_artifact(name, part, seed=settings.seed)
            elif kind is None:
                artifact, audited = audited_run.build_artifact(
                    name, found_by=found_by, members=members, mask=mask, seed=settings.seed
                )
            else:
                artifact, audited = audited_run.known_artifact(name, kind, seed=settings.seed)
        name_of_folder = f"{artifact.folder_name}-{settings.method}"
        folder = Path(out) if out else audited_run.store.path / "corrections" / name_of_folder
        case = artifact.case(audited)
        check_clean_images(case)
        trial = make_test(case, artifact, draw_shown(case, settings.images, settings.seed), settings)
        chosen, skipped = fit_and_choose(case, artifact, trial, settings)
        judgement = judge(trial, case, artifact, chosen.correction, settings)
        if (again := choose_again(case, artifact, settings, chosen, judgement)) is not chosen:
            chosen, judgement = again, judge(trial, case, artifact, again.correction, settings)
        if part is not None and relies_on_sides(audited_run):
            compared = compare_class_groups(audited_run, artifact, chosen.correction, settings.seed)
            judgement = replace(judgement, groups=compared[-1])
        if settings.method == AUTOMATIC and (why := find_reason_to_refuse(judgement, chosen)):
            chosen = selection.leave_unchanged(trial, make_bounds(settings), why, chosen.tried)
            judgement = replace(judgement, after=judgement.before, refused=judgement)
        use = "" if artifact.planted else describe_missing_use(audited_run, artifact)
        with whole_step("correction to save"):
            artifact.save(folder, audited.corpus)
            record = make_record(audited_run, artifact, settings, chosen, (*skipped, *trial.sample.skipped))
            record |= {"shown": judgement_json(judgement), "use": use}
            content = packages.save_correction(folder, chosen.correction, record, case.classifier, *case.example)
        if (turned := judgement.before.turned).n and not artifact.planted:
            ends = turned.n, float(turned.value), float(turned.low), float(turned.high)
            use_of = MeasuredUse(artifact.name, artifact.target, artifact.number, *ends, judgement.verdict)
            record_measured_use(audited_run.store, use_of)
    return CleanedModel(folder, artifact, chosen, judgement, use, content)


def require_one_artifact(kind: str | None, part: Sequence[str] | None, found: object) -> None:
    """Check that a known artifact, a part of every image, and options of a found artifact are not named together.
    Raises UsageError if two are."""
    if kind is not None and found:
        raise UsageError(
            "a known artifact and a found one", got=f"{kind} and {found}",
            rule="a known artifact needs no images and no mask", remedy="Leave out --kind, or the others.",
        )  # fmt: skip
    if part is not None and (kind or found):
        raise UsageError(
            "a part of every image and another artifact",
            got=f"{' and '.join(part) or 'noted parts'} and {kind or found}",
            rule="every image of the class has the part", remedy="Leave out --part, or the others.",
        )  # fmt: skip


@check_arguments
def clean_classes(
    run: str | Path | RunStore, names: Sequence[str] = (), settings: CleanSettings | None = None, *,
    out: str | Path | None = None, found_by: str | None = None, data: Any = None,
    classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> CleanedClasses:  # fmt: skip
    """Fit a correction for the artifact of each class, compose them into one corrected model, and save it with a
    certificate; resumes where it was stopped.

    Args:
        names: the classes; empty: all that `audit quantify` found to rely on an artifact or a person decided to carry
            one, without those decided to be legitimate.
        out: the folder of the corrections; by default RUN/corrections/all.
        found_by, data, classifier, device: see `clean`.

    Raises:
        UsageError: no class relies on an artifact, an unknown class, or a method whose corrections cannot be composed.
        InputError, UsageError: no class has members that a correction can be fitted on.
        RunMismatch: model or data differ from those of the run.
    """
    settings = settings or CleanSettings()
    check_composable(settings)
    audited_run = AuditedRun.of(run, data, classifier, device)
    check_layer(audited_run.audit.classifier, settings)
    folder = Path(out) if out else audited_run.store.path / "corrections" / "all"
    with audited_run.store.lock():
        names = names or find_classes_to_clean(audited_run)
        found, left_out = audited_run.find_all_members(names, found_by)
        make_plan(folder, audited_run, found, settings)
        fitted, refused = fit_classes(audited_run, found, folder, settings)
        left_out += refused
        joint, orders = choose_order(fitted, settings)
        judgement = judge_together(fitted, joint, orders, left_out, settings)
        case = fitted[0].case
        record = make_joint_record(audited_run, fitted, joint, settings, judgement)
        told = packages.save_correction(folder, joint, record, case.classifier, *case.example)
        page = certificate.render_joint_page(judgement)
        certificate.write_certificate(folder, page, {"klarsicht": __version__} | judgement.to_json())
    return CleanedClasses(folder, joint, judgement, told)


def check_composable(settings: CleanSettings) -> None:
    """Check that corrections by the method of the settings can be built into one model together. Raises UsageError
    otherwise."""
    if settings.train or settings.pooled or settings.method not in (AUTOMATIC, *COMPOSED):
        got = "--train" if settings.train else "--pooled" if settings.pooled else settings.method
        raise UsageError(
            "corrections that cannot be composed", got=got, rule=f"of several classes: {', '.join(COMPOSED)}",
            remedy="Clean one class by --class, audit the corrected model, and clean the next.",
        )  # fmt: skip


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
    """Build the artifact of each class and fit its correction, or read those that OUT/TARGET holds; and return (class,
    reason) of those that were refused. Raises InputError or UsageError if all were."""
    corpus = run.audit.corpus
    members = np.array([np.isin(np.arange(len(corpus)), one.members) for one in found])
    part = splits.split_by_source(corpus.source_numbers, members, generator(settings.seed, "parts of several classes"))
    with progress("artifacts and corrections", 2 * len(found)) as advance:

        def build(one: FoundArtifact) -> tuple[FoundArtifact, Artifact]:
            return one, read_or_build_artifact(one, folder / one.folder_name, part, settings)

        known, refused = make_each([(one.name, one) for one in found], build, advance)
        clean = ~np.any([artifact.carries for _, artifact in known], axis=0)

        def fit(pair: tuple[FoundArtifact, Artifact]) -> FittedClass:
            fitted = read_or_fit_correction(run, *pair, clean, folder, settings)
            note(f"{fitted.artifact.name}: {fitted.setting}")
            return fitted

        pairs = [(artifact.name, (one, artifact)) for one, artifact in known]
        fitted, also_refused = make_each(pairs, fit, advance, "correction")
    return fitted, refused + also_refused


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
    chosen, alone, skipped = fit_composed(case, artifact, settings)
    record = make_record(run, artifact, settings, chosen, skipped)
    record |= {"setting": str(chosen.chosen), "use": describe_missing_use(run, artifact)}
    packages.save_correction(place, chosen.correction, record)
    if not isinstance(chosen.correction, LayerCorrection):
        raise TypeError(f"{chosen.chosen.method} gave {type(chosen.correction).__name__}")
    return FittedClass(artifact, case, chosen.correction, str(chosen.chosen), alone)


def describe_missing_use(run: AuditedRun, artifact: Artifact) -> str:
    """Return the verdict of `audit quantify` on an artifact if it is not that the model uses it; else an empty text."""
    known = run.quantification
    of_class = None if known is None else known.of_target(artifact.target)
    if of_class is None:  # not examined
        return ""
    verdict = of_class.artifacts[artifact.number - 1]
    is_shown = verdict.poisoned or verdict.followed or (verdict.used and verdict.has_group)
    return "" if is_shown else verdict.verdict


def judgement_json(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement, with its outcomes and what it was made on, as JSON values."""
    outcomes = {"before": judgement.before.to_json(), "after": judgement.after.to_json()}
    groups = {"groups": None if judgement.groups is None else asdict(judgement.groups)}
    return judgement.to_json() | outcomes | groups | {"shown on": judgement.shown} | judgement.shown_classes.to_json()


def make_record(
    run: AuditedRun, artifact: Artifact, settings: CleanSettings, chosen: Choice, skipped: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """Return the content of a correction's record."""
    of_class = {"klarsicht": __version__, "class": artifact.name, "target": artifact.target}
    return of_class | describe_run(run, settings) | {
        "choice": chosen.to_json(),
        "artifact": artifact.to_json(),
        "layers": list(correction_layers(run.audit.classifier.module, run.audit.classifier.head)),
        "skipped": [list(one) for one in skipped],
    }  # fmt: skip


def make_joint_record(
    run: AuditedRun, fitted: Sequence[FittedClass], joint: JointCorrection, settings: CleanSettings,
    judgement: JointJudgement,
) -> dict[str, Any]:  # fmt: skip
    """Return the content of the record of corrections together."""
    ordered = [next(one for one in fitted if one.correction is part) for part in joint.parts]
    artifacts = [one.artifact for one in ordered]
    of_classes = {"classes": [one.name for one in artifacts], "targets": [one.target for one in artifacts]}
    return {"klarsicht": __version__} | of_classes | describe_run(run, settings) | {
        "corrections": [
            {"class": one.artifact.name, "folder": one.artifact.folder_name, "setting": one.setting} for one in ordered
        ],
        "shown": judgement.to_json(),
    }  # fmt: skip


def describe_run(run: AuditedRun, settings: CleanSettings) -> dict[str, Any]:
    """Return what a record says of the settings and of the run that it is made from."""
    manifest = run.store.manifest
    asked = {"settings": settings.model_dump(mode="json"), "model": run.audit.settings.model}
    return asked | {"code": manifest.get("code", {}), "identity": manifest["identity"]}
