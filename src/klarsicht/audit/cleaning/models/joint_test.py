"""Test the corrections of several classes together: in which order they are applied, and what each does alone and
beside the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from klarsicht.audit.cleaning.artifacts.artifact import Artifact
from klarsicht.audit.cleaning.corrections import selection
from klarsicht.audit.cleaning.corrections.clean_losses import CleanDraw
from klarsicht.audit.cleaning.corrections.closed_form import CorrectionParameters
from klarsicht.audit.cleaning.corrections.joint_correction import JointCorrection, LayerCorrection
from klarsicht.audit.cleaning.corrections.outcomes import loss_elsewhere
from klarsicht.audit.cleaning.corrections.samples import Case
from klarsicht.audit.cleaning.corrections.setting_outcomes import Candidate, SettingOutcome, evaluate_setting
from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.joint_judgement import ClassJudgement, JointJudgement, OrderOutcome
from klarsicht.audit.cleaning.models.judgement import Judgement
from klarsicht.audit.cleaning.models.shown_classes import ShownClasses
from klarsicht.audit.explanation.data import splits
from klarsicht.ground.progress import progress
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import NO_INTERVAL
from klarsicht.numerics.statistics.paired_loss import paired_loss


@dataclass(frozen=True)
class FittedClass:
    """Correction of one class.

    Attributes:
        artifact: its artifact.
        case: its images; clean ones carry the artifact of no class.
        correction: its correction.
        setting: the chosen setting, in words.
    """

    artifact: Artifact
    case: Case
    correction: LayerCorrection
    setting: str


def choose_order(
    fitted: Sequence[FittedClass], settings: CleanSettings
) -> tuple[JointCorrection, tuple[OrderOutcome, ...]]:
    """Choose the order of the corrections on the part `choose`, that of the verdicts or the reverse, as settings are
    chosen: by what is taken away for sure of the artifact of which least is, and of orders that are as good by what is
    lost on many clean images.

    Returns:
        the corrections in that order, and the outcomes of both orders; none where no two are at one layer.
    """
    joint = JointCorrection(tuple(one.correction for one in fitted))
    if not joint.is_ordered:
        return joint, ()
    names = tuple(one.artifact.name for one in fitted)
    bounds = clean_model.make_bounds(settings)
    rng = [generator(settings.seed, "order", one.artifact.target) for one in fitted]
    samples = [one.case.sample(splits.VALIDATION, settings.images, r) for one, r in zip(fitted, rng, strict=True)]
    tests = [
        clean_model.make_test(one.case, one.artifact, some, settings) for one, some in zip(fitted, samples, strict=True)
    ]
    orders = ((joint, names), (joint.reversed, names[::-1]))
    found: list[Candidate] = []
    outcomes: list[OrderOutcome] = []
    for correction, order in orders:
        seen = {
            name: evaluate_setting(test, "together", CorrectionParameters(), test.compute_logits(correction), bounds)
            for name, test in zip(names, tests, strict=True)
        }
        by_class = tuple(seen[name] for name in order)
        outcomes.append(OrderOutcome(order, min(one.gained.low for one in by_class), by_class))
        found.append(Candidate(worst_of_classes(by_class), correction))
    chosen = selection.choose_least_loss(found, draw_clean(fitted, settings), bounds)
    told = (replace(one, losses=tried.losses) for one, tried in zip(outcomes, chosen.tried, strict=True))
    return next(correction for correction, _ in orders if correction is chosen.correction), tuple(told)


def worst_of_classes(by_class: Sequence[SettingOutcome]) -> SettingOutcome:
    """Return the outcome of the class of whose artifact least is taken away for sure, with the largest loss beyond a
    bound and the largest fall of any class. Gains of classes are of different images: there is none image by image."""
    least = min(by_class, key=lambda one: one.gained.low)
    falls = [one.fall for one in by_class if one.fall.n]
    fall = max(falls, key=lambda one: one.value, default=NO_INTERVAL)
    return replace(least, lost=max(one.lost for one in by_class), fall=fall, gain=None)


def draw_clean(fitted: Sequence[FittedClass], settings: CleanSettings) -> CleanDraw:
    """Draw the clean images of the part `choose` on which losses of corrections together are compared: nothing was
    fitted on them for any class."""
    case = fitted[0].case
    rng = generator(settings.seed, "losses together", case.target)
    targets = [one.artifact.target for one in fitted]
    return CleanDraw.of(case, case.part == splits.VALIDATION, clean_model.MORE * settings.images, rng, targets)


def judge_together(
    fitted: Sequence[FittedClass], joint: JointCorrection, orders: tuple[OrderOutcome, ...],
    left_out: Sequence[tuple[str, str]], settings: CleanSettings,
) -> JointJudgement:  # fmt: skip
    """Judge each correction alone and all together on the part `show`."""
    bounds, least = clean_model.make_bounds(settings), settings.least_effect
    judged: list[ClassJudgement] = []
    drawn: dict[int, tuple[bool, bool, int]] = {}  # clean images: right before, right together, label
    with progress("classes shown", len(fitted)) as advance:
        for one in fitted:
            shown = clean_model.draw_shown(one.case, settings.images, settings.seed)
            test = clean_model.make_test(one.case, one.artifact, shown, settings)
            origin = clean_model.find_origin(test, one.case)
            before, alone, found = test.evaluate(None), test.evaluate(one.correction), test.compute_logits(joint)
            both = test.evaluate_logits(found)
            by_itself, together = (Judgement(before, after, bounds, origin, least) for after in (alone, both))
            name, n = one.artifact.name, len(test.sample)
            judged.append(ClassJudgement(name, one.artifact.target, one.setting, by_itself, together, n))
            was, is_now = (y.argmax(1) == test.truth for y in (test.plain, found.plain))
            fair = np.flatnonzero(test.sample.fair_draw)
            drawn |= {int(test.sample.rows[i]): (bool(was[i]), bool(is_now[i]), int(test.truth[i])) for i in fair}
            advance()
    before_it, after_it, truth = np.array(list(drawn.values()), int).reshape(-1, 3).T
    was, is_now = before_it == 1, after_it == 1
    elsewhere, most = loss_elsewhere(was, is_now, truth, [one.artifact.target for one in fitted])
    return JointJudgement(
        tuple(judged), paired_loss(was, is_now), tuple(left_out), orders, ShownClasses.of(test, fitted[-1].case),
        elsewhere, "" if most is None else test.names.get(most, f"class {most}"),
    )  # fmt: skip
