"""Fit corrections on the part `fit` of a case, choose one on the part `choose` and judge it on `show`; of several
artifacts, choose the order of their corrections and judge these together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.cleaning.artifacts.artifact import Artifact
from klarsicht.audit.cleaning.corrections import selection, setting_search
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clarc import find_layer
from klarsicht.audit.cleaning.corrections.class_recalls import ClassRecalls
from klarsicht.audit.cleaning.corrections.clean_losses import CleanDraw
from klarsicht.audit.cleaning.corrections.closed_form import (
    CLOSED,
    COMPOSED,
    ERASING,
    CorrectionMethod,
    CorrectionParameters,
    FittingData,
    JointCorrection,
    LayerCorrection,
)
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, Bounds, Loss
from klarsicht.audit.cleaning.corrections.outcomes import GROUP, CorrectionTest, Outcome, loss_elsewhere
from klarsicht.audit.cleaning.corrections.retraining import RETRAINED
from klarsicht.audit.cleaning.corrections.samples import Case, Sample
from klarsicht.audit.cleaning.corrections.selection import Choice, SettingOutcome, evaluate_setting
from klarsicht.audit.cleaning.corrections.setting_search import MOST_SEARCHED, Grid
from klarsicht.audit.cleaning.models.clean_settings import AUTOMATIC, USUAL_RATE, CleanSettings
from klarsicht.audit.cleaning.models.judgement import (
    ClassJudgement,
    JointJudgement,
    Judgement,
    OrderOutcome,
    ShownClasses,
    is_worth,
)
from klarsicht.audit.cleaning.models.training_images import ImageOrigin, LabelledAnswers, recognise_training_images
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.correction_tensors import correction_layers
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum
from klarsicht.audit.results.class_verdict import UseResult
from klarsicht.audit.results.correction_words import CleaningKind
from klarsicht.audit.results.logit_effect import is_raised, matters
from klarsicht.audit.verdicts.interventions.insertion import Insertion
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.progress import note, progress, whole_step
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import NO_INTERVAL
from klarsicht.numerics.statistics.paired_loss import paired_loss

CORRECTION_METHODS: dict[str, CorrectionMethod] = CLOSED | RETRAINED
CANDIDATES = {name: method for name, method in CLOSED.items() if not method.baseline}
SELECTIVE = {name: CANDIDATES[name] for name in ("reactive", "reactive-class", "restore", "inpaint")}
"""Methods that act where they find the artifact, and may therefore cost nothing."""
TRAINED_CANDIDATES = {name: method for name, method in RETRAINED.items() if not method.baseline}
MORE: Final = 10  # times as many images as are chosen on: to compare losses on, and to show
MOST_MEMORY: Final = 2**29  # bytes of images that are held at once to show a correction on


def fit_and_choose(
    case: Case, artifact: Artifact, trial: CorrectionTest, settings: CleanSettings
) -> tuple[Choice, tuple[tuple[str, str], ...]]:
    """Fit corrections and choose one; by the automatic method, none where the artifact is not shown to be used, and
    only one that costs nothing where it is shown to do less than is worth a correction.

    Args:
        trial: images that the correction will be shown on, of which only the rise before it is read.

    Returns:
        the choice, and (path, reason) of images that could not be read.
    """
    with whole_step("the model as it is"):
        before = trial.evaluate(None)
    why = find_reason_to_leave(before, settings, artifact.measured_use) if settings.method == AUTOMATIC else ""
    if why and not is_raised(before.effect):
        return selection.leave_unchanged(trial, make_bounds(settings), why), ()
    if not why:
        return fit_correction(case, artifact, settings)
    data, test = prepare_data(case, artifact, settings)
    bounds = make_bounds(settings)
    found = setting_search.try_settings(SELECTIVE, data, test, bounds, make_grid(settings))
    chosen, tried = selection.choose_free(found, draw_clean(case, data, settings), bounds)
    none = f"{why}, and none of {len(tried)} tried settings is shown to take half of it away at no cost"
    skipped = (*data.fit.skipped, *test.sample.skipped)
    return chosen or selection.leave_unchanged(trial, bounds, none, tried), skipped


def fit_correction(
    case: Case, artifact: Artifact, settings: CleanSettings, candidates: setting_search.Methods | None = None,
    further: bool = True, draws: Insertion | None = None,
) -> tuple[Choice, tuple[tuple[str, str], ...]]:  # fmt: skip
    """Draw the images of a case to fit and to choose on, fit corrections and choose one, by the artifact as it is
    fitted or by other draws of it; see `choose_correction`."""
    data, test = prepare_data(case, artifact, settings)
    test = replace(test, insertion=draws) if draws is not None else test
    draw = draw_clean(case, data, settings)
    return choose_correction(data, test, settings, candidates, further, draw), (*data.fit.skipped, *test.sample.skipped)


def choose_again(
    case: Case, artifact: Artifact, settings: CleanSettings, first: Choice, judgement: Judgement,
    methods: setting_search.Methods = CANDIDATES, further: bool = True,
) -> Choice:  # fmt: skip
    """Choose another correction where images to show tell that the first misses new draws of the artifact, or the
    images that carry it: by the draws of those to choose on, and of methods that do not act where they find what was
    inserted, if it misses what carries it. Else, and where a method is named or the correction was to cost nothing,
    return the first."""
    reaches = judgement.reaches_members
    if settings.method != AUTOMATIC or first.free or not judgement.is_used or judgement.helps:
        return first
    if reaches and not (judgement.misses_new_draws and artifact.choice_draws):
        return first
    note(f"{first.chosen} {judgement.describe_effect_left()}; another correction is sought")
    candidates = methods if reaches else {name: method for name, method in methods.items() if name not in SELECTIVE}
    return fit_correction(case, artifact, settings, candidates, further, artifact.choice_draws)[0]


def fit_composed(
    case: Case, artifact: Artifact, settings: CleanSettings
) -> tuple[Choice, Judgement | None, tuple[tuple[str, str], ...]]:
    """Fit corrections of one class that can be composed with those of others, and choose one; and choose again as
    `choose_again` does, if the other one then helps.

    Returns:
        the choice, its judgement if one was made, and (path, reason) of images that could not be read.
    """
    first, unreadable = fit_correction(case, artifact, settings, COMPOSED, further=False)
    if settings.method != AUTOMATIC:
        return first, None, unreadable
    test = make_test(case, artifact, draw_shown(case, settings.images, settings.seed), settings)
    judgement = judge(test, case, artifact, first.correction, settings)
    again = choose_again(case, artifact, settings, first, judgement, COMPOSED, further=False)
    if again is not first:
        other = judge(test, case, artifact, again.correction, settings)
        if other.helps:
            return again, other, unreadable
    return first, judgement, unreadable


def find_reason_to_leave(before: Outcome, settings: CleanSettings, use: UseResult | None = None) -> str:
    """Say in words why an artifact with that effect on an unchanged model is worth no correction; empty where it is, or
    where the effect that `audit quantify` measured is."""
    if not is_raised(before.effect):
        return CleaningKind.UNUSED.claim
    least = settings.least_effect
    return "" if matters(before.effect, "high", least) or is_worth(use, least) else CleaningKind.SMALL.claim


def find_reason_to_refuse(judgement: Judgement, chosen: Choice) -> str:
    """Say in words why a chosen correction is not made, by images on which nothing was chosen: it is no help, or was to
    cost nothing and harms; empty where it is made, or is none."""
    if chosen.chosen.method == selection.UNCHANGED:
        return ""
    if not judgement.helps:
        why = f"it {judgement.describe_effect_left()}"
    elif chosen.free and judgement.harm.answer == HARMFUL:
        why = f"it harms: {judgement.harm.reasons}"
    else:
        return ""
    return f"{chosen.chosen} is the best of {len(chosen.tried)} tried settings; on other images {why}"


def choose_correction(
    data: FittingData, test: CorrectionTest, settings: CleanSettings,
    candidates: setting_search.Methods | None = None, further: bool = True, draw: CleanDraw | None = None,
) -> Choice:  # fmt: skip
    """Fit corrections on the data, and choose one on the test.

    Args:
        candidates: methods in closed form that are tried where the settings name none; by default CANDIDATES.
        further: whether corrections at several layers together are tried then, and thresholds set back by a bias.
        draw: clean images on which the losses of the best are compared, see selection.choose_least_loss.

    Raises:
        UsageError: unknown layer, or a sum for a method that trains.
    """
    check_layer(data.classifier, settings)
    bounds, grid = make_bounds(settings), make_grid(settings)
    if settings.method == AUTOMATIC:
        found = setting_search.try_settings(candidates or CANDIDATES, data, test, bounds, grid)
        found += setting_search.try_further_layers(found, ERASING, data, test, bounds, grid, draw) if further else []
        if settings.train:
            layered = [one for one in found if not one.beside and not ResidualSum.parse(one.setting.layer)]
            best = selection.choose_least_loss(layered, draw, bounds).chosen
            grid = replace(grid, layers=(best.setting.layer,))
            found += setting_search.try_settings(TRAINED_CANDIDATES, data, test, bounds, grid)
        return choose_among(found, further, draw, bounds)
    method = CORRECTION_METHODS[settings.method]
    # one training for each layer would be expensive
    if settings.method in RETRAINED and "layer" in method.sweeps and not grid.layers:
        oblique = {"oblique": CLOSED["oblique"]}
        layers = correction_layers(data.classifier.module, data.classifier.head)
        found = setting_search.try_settings(oblique, data, test, bounds, Grid(layers, (1,), (1.0,)))
        grid = replace(grid, layers=(selection.choose_best(found).chosen.setting.layer,))
    found = setting_search.try_settings({settings.method: method}, data, test, bounds, grid)
    return choose_among(found, further, draw, bounds)


def choose_among(settings: Sequence[SettingOutcome], further: bool, draw: CleanDraw | None, bounds: Bounds) -> Choice:
    """Choose one of the tried settings; further: also with its thresholds set back by a bias."""
    with whole_step("choice of a correction"):
        return selection.choose_least_loss(set_thresholds_back(settings) if further else list(settings), draw, bounds)


def set_thresholds_back(some: Sequence[SettingOutcome]) -> list[SettingOutcome]:
    """Return settings, those that shift the threshold with it set back."""
    return [one.with_bias or one for one in some]


def check_layer(classifier: Classifier, settings: CleanSettings) -> None:
    """Check that the layer of the settings is one, and can be corrected by their method; else raise UsageError."""
    if settings.layer is not None:
        find_layer(classifier.module, settings.layer)
        if ResidualSum.parse(settings.layer) and (settings.train or settings.method in RETRAINED):
            raise UsageError(
                "training at a sum", got=settings.layer, rule="methods that train look at the input of a module",
                remedy="Name a module by --layer.",
            )  # fmt: skip


def make_bounds(settings: CleanSettings) -> Bounds:
    """Return the bounds of the settings."""
    return Bounds(settings.overall, settings.affected)


def make_grid(settings: CleanSettings) -> Grid:
    """Return the grid to try: given values, and the whole sweep of the others, but for layers by the automatic
    method."""
    free, layers = Grid(), () if settings.layer is None else (settings.layer,)
    directions = free.directions if settings.directions is None else (settings.directions,)
    strengths = free.strengths if settings.strength is None else (settings.strength,)
    return Grid(layers, directions, strengths, MOST_SEARCHED if settings.method == AUTOMATIC else 0)


def prepare_data(case: Case, artifact: Artifact, settings: CleanSettings) -> tuple[FittingData, CorrectionTest]:
    """Draw the samples on which corrections of a case are fitted and chosen. Raises InputError as check_clean_images
    and check_compared do."""
    check_clean_images(case)
    rng = generator(settings.seed, "samples", case.target)
    fit, choose = case.sample(splits.TRAIN, settings.images, rng), case.sample(splits.VALIDATION, settings.images, rng)
    if is_told_by_class(case):
        check_compared(fit, case.target, settings.fewest_clean)
    trains = settings.train or settings.method in RETRAINED
    more = case.sample(splits.TRAIN, settings.lessons, rng) if trains else None
    data = FittingData(
        case.classifier, case.target, fit, artifact.insertion, settings.direction, settings.pooled, settings.seed, more,
        settings.steps, settings.batch, USUAL_RATE if settings.rate is None else settings.rate, settings.fewest_clean,
    )  # fmt: skip
    return data, make_test(case, artifact, choose, settings)


def make_test(case: Case, artifact: Artifact, sample: Sample, settings: CleanSettings) -> CorrectionTest:
    """Make the test of corrections on a sample of a case."""
    return CorrectionTest(
        case.classifier, sample, case.target, artifact.insertion, settings.seed, case.names, case.class_weights
    )


def is_told_by_class(case: Case) -> bool:
    """Test whether members are told from clean images of their own class: unless the class has hardly any image, and
    members of other classes distinguish the artifact from it."""
    own = case.labels == case.target
    return bool(own.any() and (own.sum() >= GROUP or not (case.member & ~own).any()))


def check_clean_images(case: Case) -> None:
    """Check that the class has images without the artifact. Raises InputError otherwise: the shared feature may then be
    the class itself."""
    own = case.labels == case.target
    if is_told_by_class(case) and not (own & case.clean).any():
        raise InputError(
            "no image of the class without the artifact",
            got=f"{own.sum()} images, all of them with the artifact by list or detector",
            rule="without clean images of the class its harm cannot be measured",
            remedy="List fewer --members, add images of the class without the artifact, or exchange the part of the "
            "image where it lies: --part.",
        )


def check_compared(fit: Sample, target: int, fewest: int) -> None:
    """Check that members are compared with enough clean images of their class: with one alone, any content of that
    photograph would stand for the lack of the artifact. Raises InputError if there are fewer."""
    compared = int((~fit.member & (fit.labels == target)).sum())
    if not fit.paired and compared < fewest:
        raise InputError(
            "too few clean images of the class to compare with those that carry the artifact",
            got=f"{compared} among those to fit on", rule=f"at least {fewest}",
            remedy="Add images of the class without the artifact, list fewer --members, or lower --fewest-clean. If "
            "hardly one is without it, exchange the part of the image where it lies: --part.",
        )  # fmt: skip


def draw_shown(case: Case, images: int, seed: int, most: int | None = None) -> Sample:
    """Draw the images of the part `show` that a correction is shown on: of each kind at most `most`, by default as
    `count_shown` says for the number `images` that it is chosen on."""
    rng = generator(seed, "shown by clean", case.target)
    return case.sample(splits.TEST, count_shown(case, images) if most is None else most, rng)


def count_shown(case: Case, images: int) -> int:
    """Return the most images of each kind that a correction is shown on: MORE times as many as it is chosen on, but no
    more than fit MOST_MEMORY where these are enough to choose on."""
    each = max((4 * image.numel() for image in case.example), default=1)
    return max(images, min(MORE * images, MOST_MEMORY // each))


def draw_clean(case: Case, data: FittingData, settings: CleanSettings) -> CleanDraw:
    """Draw the clean images on which the losses of the best corrections are compared: MORE times as many as are chosen
    on, of the parts `choose` and `fit`, without the sources of images that were fitted on."""
    fitted = np.union1d(data.fit.sources, data.training_sample.sources)
    allowed = (case.part != splits.TEST) & ~np.isin(case.corpus.source_numbers, fitted)
    rng = generator(settings.seed, "losses", case.target)
    return CleanDraw.of(case, allowed, MORE * settings.images, rng)


def draw_clean_together(case: Case, targets: Sequence[int], settings: CleanSettings) -> CleanDraw:
    """Draw the clean images of the part `choose` on which losses of corrections of several classes together are
    compared."""
    rng = generator(settings.seed, "losses together", case.target)
    return CleanDraw.of(case, case.part == splits.VALIDATION, MORE * settings.images, rng, targets)


def require_members(artifact: Artifact) -> None:
    """Check that the part `show` has members, unless the artifact is a known one. Raises UsageError otherwise."""
    if artifact.planted is None and not (artifact.part[artifact.members] == splits.TEST).any():
        raise UsageError("no image with the artifact to evaluate on", got=f"{len(artifact.members)} in the other parts")


def judge(
    test: CorrectionTest, case: Case, artifact: Artifact, correction: Correction, settings: CleanSettings
) -> Judgement:
    """Judge a correction of an artifact on the images of a test."""
    with whole_step("judgement"):
        before, after, origin = test.evaluate(None), test.evaluate(correction), find_origin(test, case)
        return Judgement(
            before, after, make_bounds(settings), origin, settings.least_effect, shown=len(test.sample),
            shown_classes=ShownClasses.of(test, case), measured_use=artifact.measured_use,
            new_draws=compare_new_draws(test, artifact, correction),
        )  # fmt: skip


def compare_new_draws(
    test: CorrectionTest, artifact: Artifact, correction: Correction
) -> tuple[Outcome, Outcome] | None:
    """Evaluate the model before and after a correction on the images of a test with new draws of the artifact, see
    `Artifact.new_draws`; None without any."""
    if artifact.new_draws is None:
        return None
    shown = replace(test, insertion=artifact.new_draws)
    return shown.evaluate(None), shown.evaluate(correction)


def find_origin(test: CorrectionTest, case: Case, other: LabelledAnswers | None = None) -> ImageOrigin:
    """Find out whether the model was trained on the clean images of a test, by the answers to `other` images of the run
    where those of the test are of another corpus."""
    fair = test.sample.fair_draw
    names = [case.corpus.splits[row] for row in test.sample.rows[fair]] if case.corpus.splits else []
    return recognise_training_images(LabelledAnswers.of(test.plain[fair], test.truth[fair]), names, other)


@dataclass(frozen=True)
class FittedClass:
    """Correction of one class, whose setting is given in words; clean images of its case carry the artifact of no
    class. alone: its judgement, where it was made when the correction was chosen."""

    artifact: Artifact
    case: Case
    correction: LayerCorrection
    setting: str
    alone: Judgement | None = None


def choose_order(
    fitted: Sequence[FittedClass], settings: CleanSettings
) -> tuple[JointCorrection, tuple[OrderOutcome, ...]]:
    """Choose the order of the corrections on the part `choose`, that of the verdicts or the reverse: by the share that
    is taken away of the artifact of which least is, and of orders that are as good by losses on many clean images.

    Returns:
        the corrections in that order, and the outcomes of both orders; none where no two are at one layer.
    """
    joint = JointCorrection(tuple(one.correction for one in fitted))
    if not joint.is_ordered:
        return joint, ()
    names, bounds = tuple(one.artifact.name for one in fitted), make_bounds(settings)
    rng = [generator(settings.seed, "order", one.artifact.target) for one in fitted]
    samples = [one.case.sample(splits.VALIDATION, settings.images, r) for one, r in zip(fitted, rng, strict=True)]
    tests = [make_test(one.case, one.artifact, some, settings) for one, some in zip(fitted, samples, strict=True)]
    orders = ((joint, names), (JointCorrection(joint.parts[::-1]), names[::-1]))
    found: list[SettingOutcome] = []
    outcomes: list[OrderOutcome] = []
    for correction, order in orders:
        seen = {
            name: evaluate_setting(
                test, "together", CorrectionParameters(), correction, test.compute_logits(correction), bounds
            )
            for name, test in zip(names, tests, strict=True)
        }
        by_class = tuple(seen[name] for name in order)
        outcomes.append(OrderOutcome(order, by_class))
        found.append(worst_of_classes(by_class))
    draw = draw_clean_together(fitted[0].case, [one.artifact.target for one in fitted], settings)
    chosen = selection.choose_least_loss(found, draw, bounds)
    told = (replace(one, losses=tried.losses) for one, tried in zip(outcomes, chosen.tried, strict=True))
    return next(correction for correction, _ in orders if correction is chosen.correction), tuple(told)


def worst_of_classes(by_class: Sequence[SettingOutcome]) -> SettingOutcome:
    """Return the outcome of the class of whose artifact least is taken away, with the largest loss beyond a bound and
    the largest fall of any class. Gains of classes are of different images: there is none image by image."""
    least = min(by_class, key=lambda one: one.gained.low)
    falls = [one.fall for one in by_class if one.fall.n]
    fall = max(falls, key=lambda one: one.value, default=NO_INTERVAL)
    return replace(least, lost=max(one.lost for one in by_class), fall=fall, gain=None)


def judge_together(
    fitted: Sequence[FittedClass], joint: JointCorrection, orders: tuple[OrderOutcome, ...],
    left_out: Sequence[tuple[str, str]], settings: CleanSettings,
) -> JointJudgement:  # fmt: skip
    """Judge each correction alone and all together on the part `show`."""
    judged: list[ClassJudgement] = []
    answers: list[NDArray[Any]] = []  # rows of clean images, predicted before, predicted together, labels
    with progress("classes shown", len(fitted)) as advance:
        for one in fitted:
            shown = draw_shown(one.case, settings.images, settings.seed)
            test = make_test(one.case, one.artifact, shown, settings)
            found = test.compute_logits(joint)
            alone = one.alone or judge(test, one.case, one.artifact, one.correction, settings)
            together = replace(
                alone, after=test.evaluate_logits(found), new_draws=compare_new_draws(test, one.artifact, joint)
            )
            judged.append(ClassJudgement(one.artifact.name, one.artifact.target, one.setting, alone, together))
            labels = (y.argmax(1) for y in (test.plain, found.plain))
            answers.append(np.stack([shown.rows, *labels, test.truth])[:, shown.fair_draw])
            advance()
    _, before, after, truth = np.unique(np.concatenate(answers, 1), axis=1)
    targets, was, is_now = tuple(one.artifact.target for one in fitted), before == truth, after == truth
    recalls = ClassRecalls(truth, before, after, targets, test.names)
    elsewhere, most = loss_elsewhere(was, is_now, truth, targets)
    lost = Loss(
        "clean images", paired_loss(was, is_now), settings.overall,
        any(one.together.origin.trained_on for one in judged), elsewhere, "" if most is None else recalls.name(most),
    )  # fmt: skip
    return JointJudgement(tuple(judged), lost, tuple(left_out), orders, recalls)
