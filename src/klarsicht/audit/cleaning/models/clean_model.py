"""Clean a model: build the artifact of a class from an audit, fit a correction and choose its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from klarsicht import __version__
from klarsicht.audit.cleaning.artifacts.artifact import Artifact
from klarsicht.audit.cleaning.corrections import packages, selection, setting_search
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clarc import find_layer
from klarsicht.audit.cleaning.corrections.clean_losses import CleanDraw
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, ERASING, CorrectionMethod, FittingData
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, Bounds
from klarsicht.audit.cleaning.corrections.outcomes import GROUP, CorrectionTest, Outcome
from klarsicht.audit.cleaning.corrections.retraining import RETRAINED
from klarsicht.audit.cleaning.corrections.samples import Case, Sample
from klarsicht.audit.cleaning.corrections.selection import Choice
from klarsicht.audit.cleaning.corrections.setting_outcomes import Grid
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import AUTOMATIC, CleanSettings
from klarsicht.audit.cleaning.models.judgement import BELOW, Judgement
from klarsicht.audit.cleaning.models.shown_classes import ShownClasses
from klarsicht.audit.cleaning.models.training_images import ImageOrigin, LabelledAnswers, recognise_training_images
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.correction_tensors import correction_layers
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.results import verdicts
from klarsicht.audit.results.logit_effect import is_raised, matters
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.ground.user_arguments import check_arguments

CORRECTION_METHODS: dict[str, CorrectionMethod] = CLOSED | RETRAINED
CANDIDATES = {name: method for name, method in CLOSED.items() if not method.baseline}
SELECTIVE = {name: CANDIDATES[name] for name in ("reactive", "reactive-class", "restore", "inpaint")}
"""Methods that act where they find the artifact, and may therefore cost nothing."""
MORE: Final = 10  # times as many images as are chosen on: to compare losses on, and to show
MOST_MEMORY: Final = 2**29  # bytes of images that are held at once to show a correction on
TRAINED_CANDIDATES = {name: method for name, method in RETRAINED.items() if not method.baseline}


@dataclass(frozen=True)
class CleanedModel:
    """Fitted correction and its folder.

    Attributes:
        folder: where the correction is saved.
        artifact: the artifact that it is fitted on.
        choice: the chosen correction and the tried settings.
        judgement: of the chosen correction, on images on which nothing was fitted or chosen.
        shown: number of these images.
        classes: number of classes of which there are clean images, beside that of the model's outputs.
        use: what `audit quantify` says of the class, if it says that the artifact is not shown to be used; else empty.
        record: content of FOLDER/correction.json.
    """

    folder: Path
    artifact: Artifact
    choice: Choice
    judgement: Judgement
    shown: int
    classes: ShownClasses
    use: str
    record: dict[str, Any]

    def __repr__(self) -> str:
        return f"CleanedModel({str(self.folder)!r}, class {self.artifact.name!r}, verdict {self.judgement.verdict!r})"

    def check(self) -> None:
        """Check that the corrected model may be called clean; the folder is written in any case.

        Raises:
            HarmExceeded, EffectRemains: see Judgement.check.
        """
        self.judgement.check()


@check_arguments
def clean(
    run: str | Path | RunStore, name: str, settings: CleanSettings | None = None, *, out: str | Path | None = None,
    found_by: str | None = None, members: Path | None = None, mask: Path | None = None, kind: str | None = None,
    part: Sequence[str] | None = None, data: Any = None, classifier: Classifier | None = None,
    device: str = ANY_DEVICE,
) -> CleanedModel:  # fmt: skip
    """Fit a correction of the audited model for the artifact of a class, choose it under the bounds, and save it.

    Args:
        run: the run folder.
        name: the class, or a further artifact of it: "carton (artifact 2)".
        settings: see CleanSettings; by default its defaults.
        out: the folder of the correction; by default RUN/corrections/TARGET-METHOD, or TARGET-artifact-2-METHOD.
        found_by: a name of audited_run.FINDERS; by default detectors where they called the class artifactual.
        members: a text file of images that carry the artifact, one path or key a line, in place of those found.
        mask: a picture, white where the artifact lies, in place of relevance.
        kind: a kind or family of `audit plant`: a known artifact, put on the images, in place of a found one.
        part: names of image_parts.IMAGE_PARTS: parts that every image of the class has and that tell it, in place of
            an artifact of some of them; empty: the strongest that `audit shortcuts` noted.
        data: where the corpus is now, if it moved.
        classifier: a model built in Python, in place of the one that the run names.
        device: where the model runs, see ground.machine.devices.select_device.

    Raises:
        UsageError: unknown class, method, direction, layer, kind or part, too few members, or two kinds of artifacts.
        InputError: members share no feature, or a list or mask cannot be used.
        RunMismatch: model or data differ from those of the run.
    """
    settings = settings or CleanSettings()
    settings.require_known_names()
    if kind is not None and (found_by or members or mask):
        raise UsageError(
            "a known artifact and a found one", got=f"{kind} and {found_by or members or mask}",
            rule="a known artifact has no members and no mask", remedy="Leave out --kind, or the others.",
        )  # fmt: skip
    if part is not None and (kind or found_by or members or mask):
        raise UsageError(
            "a part of every image and another artifact",
            got=f"{' and '.join(part) or 'noted parts'} and {kind or found_by or members or mask}",
            rule="all images of the class carry the part, none is a member", remedy="Leave out --part, or the others.",
        )  # fmt: skip
    audited_run = AuditedRun.of(run, data, classifier, device)
    with audited_run.store.lock():
        if part is not None:
            artifact, audited = audited_run.part_artifact(name, part, seed=settings.seed)
        elif kind is None:
            artifact, audited = audited_run.build_artifact(
                name, found_by=found_by, members=members, mask=mask, seed=settings.seed
            )
        else:
            artifact, audited = audited_run.known_artifact(name, kind, seed=settings.seed)
        folder = (
            Path(out) if out else audited_run.store.path / "corrections" / f"{artifact.folder_name}-{settings.method}"
        )
        case = artifact.case(audited)
        check_clean_images(case)
        trial = make_test(case, artifact, draw_shown(case, settings.images, settings.seed), settings)
        chosen, skipped = fit_and_choose(case, artifact, trial, settings)
        judgement, shown = judge(trial, case, chosen.correction, settings), len(trial.sample)
        if settings.method == AUTOMATIC and (why := find_reason_to_refuse(judgement, chosen)):
            chosen = selection.leave_unchanged(trial, make_bounds(settings), why, chosen.tried)
            judgement = replace(judge(trial, case, chosen.correction, settings), refused=judgement)
        use = "" if artifact.planted else describe_missing_use(audited_run, artifact)
        artifact.save(folder, audited.corpus)
        example = case.read(np.flatnonzero(case.clean)[:1], np.ones(1, bool)).images
        record = make_record(audited_run, artifact, settings, chosen, (*skipped, *trial.sample.skipped))
        record |= {"shown": judgement_json(judgement, shown), "use": use}
        record["shown"] |= (classes := ShownClasses.of(trial, case)).to_json()
        told = packages.save_correction(folder, chosen.correction, record, case.classifier, *example)
    return CleanedModel(folder, artifact, chosen, judgement, shown, classes, use, told)


def fit_and_choose(
    case: Case, artifact: Artifact, trial: CorrectionTest, settings: CleanSettings
) -> tuple[Choice, tuple[tuple[str, str], ...]]:
    """Fit corrections and choose one; by the automatic method, none where the artifact is not shown to be used, and
    only one that costs nothing where it is shown to do less than is worth a correction.

    Args:
        trial: images that the correction will be shown on, of which only the rise before it is looked at.

    Returns:
        the choice, and (path, reason) of images that could not be read.
    """
    check_layer(case.classifier, settings)
    before = trial.evaluate(None)
    why = find_reason_to_leave(before, settings) if settings.method == AUTOMATIC else ""
    if why and not is_raised(before.effect):
        return selection.leave_unchanged(trial, make_bounds(settings), why), ()
    data, test = prepare_data(case, artifact, settings)
    draw = draw_clean(case, data, settings)
    skipped = (*data.fit.skipped, *test.sample.skipped)
    if not why:
        return choose_correction(data, test, settings, draw=draw), skipped
    bounds = make_bounds(settings)
    found = setting_search.try_settings(SELECTIVE, data, test, bounds, make_grid(settings))
    chosen, tried = selection.choose_free(found, draw, bounds)
    none = f"{why}, and none of {len(tried)} settings tried takes away half of it for sure and costs nothing"
    return chosen or selection.leave_unchanged(trial, bounds, none, tried), skipped


def find_reason_to_leave(before: Outcome, settings: CleanSettings) -> str:
    """Say in words why an artifact with that effect on an unchanged model is worth no correction; empty where it is."""
    if not is_raised(before.effect):
        return "the artifact is not shown to be used"
    return "" if matters(before.effect, "high", settings.least_effect) else f"the artifact is {BELOW}"


def find_reason_to_refuse(judgement: Judgement, chosen: Choice) -> str:
    """Say in words why a chosen correction is not made, as it was judged on images on which nothing was chosen: it is
    no help, or was to cost nothing and harms; empty where it is made, or is none."""
    if chosen.chosen.method == selection.UNCHANGED:
        return ""
    if not judgement.helps:
        why = f"it {judgement.describe_effect_left()}"
    elif chosen.free and judgement.harm.answer == HARMFUL:
        why = f"it harms: {judgement.harm.reasons}"
    else:
        return ""
    return f"{chosen.chosen} is the best of {len(chosen.tried)} settings tried; on other images {why}"


def judge(test: CorrectionTest, case: Case, correction: Correction, settings: CleanSettings) -> Judgement:
    """Judge a correction on the images of a test."""
    before, after, origin = test.evaluate(None), test.evaluate(correction), find_origin(test, case)
    return Judgement(before, after, make_bounds(settings), origin, settings.least_effect)


def draw_shown(case: Case, images: int, seed: int, most: int | None = None) -> Sample:
    """Draw the images of the part `show` that a correction is shown on.

    Args:
        images: images of each kind that it is chosen on.
        seed: seed of the draw.
        most: images of each kind, at most; by default as many as `count_shown` says.
    """
    rng = generator(seed, "shown by clean", case.target)
    return case.sample(splits.TEST, count_shown(case, images) if most is None else most, rng)


def count_shown(case: Case, images: int) -> int:
    """Return how many images of each kind a correction is shown on, at most: MORE times as many as the `images` that it
    is chosen on, but no more than fit MOST_MEMORY where these are enough to choose on."""
    example = case.read(np.flatnonzero(case.clean)[:1], np.ones(1, bool)).images
    each = max((4 * image.numel() for image in example), default=1)
    return max(images, min(MORE * images, MOST_MEMORY // each))


def draw_clean(case: Case, data: FittingData, settings: CleanSettings) -> CleanDraw:
    """Draw the clean images on which the losses of the best corrections are compared: of the parts `choose` and `fit`,
    without the sources of images that were fitted on; MORE times as many as are chosen on, at most."""
    fitted = np.union1d(data.fit.sources, data.training_sample.sources)
    allowed = (case.part != splits.TEST) & ~np.isin(case.corpus.source_numbers, fitted)
    rng = generator(settings.seed, "losses", case.target)
    return CleanDraw.of(case, allowed, MORE * settings.images, rng)


def find_origin(test: CorrectionTest, case: Case, other: LabelledAnswers | None = None) -> ImageOrigin:
    """Find out whether the model was trained on the clean images of a test.

    Args:
        case: the case that they were drawn from.
        other: answers to the images of the run, where those of the test are of another corpus.
    """
    fair = test.sample.fair_draw
    names = [case.corpus.splits[row] for row in test.sample.rows[fair]] if case.corpus.splits else []
    return recognise_training_images(LabelledAnswers.of(test.plain[fair], test.truth[fair]), names, other)


def describe_missing_use(run: AuditedRun, artifact: Artifact) -> str:
    """Return the verdict of `audit quantify` on an artifact, where its class was quantified and the verdict is not
    that the model uses it; else an empty text."""
    if not verdicts.is_quantified(run.store):
        return ""
    of_class = verdicts.read_verdicts(run.store).of_target(artifact.target)
    if of_class is None:  # not examined
        return ""
    verdict = of_class.artifacts[artifact.number - 1]
    return "" if verdict.poisoned or verdict.followed or (verdict.shared and verdict.used) else verdict.verdict


def judgement_json(judgement: Judgement, shown: int) -> dict[str, Any]:
    """Return a judgement, with its outcomes, as JSON values."""
    outcomes = {"before": judgement.before.to_json(), "after": judgement.after.to_json()}
    return judgement.to_json() | outcomes | {"shown on": shown}


def make_bounds(settings: CleanSettings) -> Bounds:
    """Return the bounds of the settings."""
    return Bounds(settings.overall, settings.affected)


def make_grid(settings: CleanSettings) -> Grid:
    """Return the grid to try: given values, and the whole sweep of the others."""
    free = Grid()
    return Grid(
        () if settings.layer is None else (settings.layer,),
        free.directions if settings.directions is None else (settings.directions,),
        free.strengths if settings.strength is None else (settings.strength,),
    )


def check_layer(classifier: Classifier, settings: CleanSettings) -> None:
    """Check that the layer of the settings is one, and can be corrected by their method.

    Raises:
        UsageError: unknown layer, or a sum for a method that trains.
    """
    if settings.layer is not None:
        find_layer(classifier.module, settings.layer)
        if ResidualSum.parse(settings.layer) and (settings.train or settings.method in RETRAINED):
            raise UsageError(
                "training at a sum", got=settings.layer, rule="methods that train look at the input of a module",
                remedy="Name a module by --layer.",
            )  # fmt: skip


def prepare_data(case: Case, artifact: Artifact, settings: CleanSettings) -> tuple[FittingData, CorrectionTest]:
    """Draw the samples on which corrections of a case are fitted and chosen.

    Raises:
        InputError: see check_clean_images and check_compared.
    """
    check_clean_images(case)
    rng = generator(settings.seed, "samples", case.target)
    fit, choose = case.sample(splits.TRAIN, settings.images, rng), case.sample(splits.VALIDATION, settings.images, rng)
    if is_told_by_class(case):
        check_compared(fit, case.target, settings.fewest_clean)
    trains = settings.train or settings.method in RETRAINED
    more = case.sample(splits.TRAIN, settings.lessons, rng) if trains else None
    data = FittingData(
        case.classifier, case.target, fit, artifact.insertion, settings.direction, settings.pooled, settings.seed, more,
        settings.steps, settings.batch, settings.rate, settings.fewest_clean,
    )  # fmt: skip
    return data, make_test(case, artifact, choose, settings)


def make_test(case: Case, artifact: Artifact, sample: Sample, settings: CleanSettings) -> CorrectionTest:
    """Make the test of corrections on a sample of a case."""
    return CorrectionTest(case.classifier, sample, case.target, artifact.insertion, settings.seed, case.names)


def is_told_by_class(case: Case) -> bool:
    """Test whether members are told from clean images of their own class: unless the class has hardly any image, and
    members of other classes distinguish the artifact from it."""
    own = case.labels == case.target
    return bool(own.any() and (own.sum() >= GROUP or not (case.member & ~own).any()))


def check_clean_images(case: Case) -> None:
    """Check that the class has images without the artifact.

    Raises:
        InputError: every image of the class carries the feature that the members share: it may then be the class
            itself.
    """
    own = case.labels == case.target
    if is_told_by_class(case) and not (own & case.clean).any():
        raise InputError(
            "no image of the class without the artifact",
            got=f"{own.sum()} images, all of them members or taken for such by the detector",
            rule="without clean images of the class its harm cannot be measured",
            remedy="List fewer --members, or add images of the class without the artifact.",
        )


def check_compared(fit: Sample, target: int, fewest: int) -> None:
    """Check that members are compared with enough clean images of their class: with one alone, what that photograph
    shows would be taken for the lack of the artifact. Copies with the artifact are compared with what they are copies
    of.

    Raises:
        InputError: they are fewer.
    """
    compared = int((~fit.member & (fit.labels == target)).sum())
    if not fit.paired and compared < fewest:
        raise InputError(
            "too few clean images of the class to compare members with",
            got=f"{compared} among those to fit on",
            rule=f"at least {fewest}",
            remedy="Add images of the class without the artifact, list fewer --members, or ask for fewer: "
            "--fewest-clean.",
        )


def choose_correction(
    data: FittingData,
    test: CorrectionTest,
    settings: CleanSettings,
    candidates: setting_search.Methods = CANDIDATES,
    further: bool = True,
    draw: CleanDraw | None = None,
) -> Choice:
    """Fit corrections on the data, and choose one on the test.

    Args:
        candidates: methods in closed form that are tried where the settings name none.
        further: whether corrections at several layers together are tried then.
        draw: clean images on which the losses of the best are compared, see selection.choose_least_loss.

    Raises:
        UsageError: unknown layer, or a sum for a method that trains.
    """
    check_layer(data.classifier, settings)
    bounds, grid = make_bounds(settings), make_grid(settings)
    if settings.method == AUTOMATIC:
        found = setting_search.try_settings(candidates, data, test, bounds, grid)
        found += setting_search.try_further_layers(found, ERASING, data, test, bounds, grid, draw) if further else []
        if settings.train:
            layered = [one for one in found if not one.tried.beside and not ResidualSum.parse(one.tried.setting.layer)]
            best = selection.choose_least_loss(layered, draw, bounds).chosen.setting.layer
            found += setting_search.try_settings(TRAINED_CANDIDATES, data, test, bounds, replace(grid, layers=(best,)))
        return selection.choose_least_loss(found, draw, bounds)
    method = CORRECTION_METHODS[settings.method]
    # one training for each layer would be expensive
    if settings.method in RETRAINED and "layer" in method.sweeps and not grid.layers:
        oblique = {"oblique": CLOSED["oblique"]}
        layers = correction_layers(data.classifier.module, data.classifier.head)
        best = setting_search.try_and_choose(
            oblique, data, test, bounds, Grid(layers, (1,), (1.0,))
        ).chosen.setting.layer
        grid = replace(grid, layers=(best,))
    found = setting_search.try_settings({settings.method: method}, data, test, bounds, grid)
    return selection.choose_least_loss(found, draw, bounds)


def make_record(
    run: AuditedRun, artifact: Artifact, settings: CleanSettings, chosen: Choice, skipped: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """Return the content of a correction's record."""
    manifest = run.store.manifest
    return {
        "klarsicht": __version__,
        "class": artifact.name,
        "target": artifact.target,
        "settings": settings.model_dump(mode="json"),
        "model": run.audit.settings.model,
        "code": manifest.get("code", {}),
        "identity": manifest["identity"],
        "choice": chosen.to_json(),
        "artifact": artifact.to_json(),
        "layers": list(correction_layers(run.audit.classifier.module, run.audit.classifier.head)),
        "skipped": [list(one) for one in skipped],
    }


def require_members(artifact: Artifact) -> None:
    """Check that the part `show` has members, unless the artifact is a known one, which has none.

    Raises:
        UsageError: it has none.
    """
    if artifact.planted is None and not (artifact.part[artifact.members] == splits.TEST).any():
        raise UsageError("no members to show a correction on", got=f"{len(artifact.members)} members")
