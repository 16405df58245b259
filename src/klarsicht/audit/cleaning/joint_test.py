"""Test the corrections of several classes together: in which order they are applied, and what each does alone and
beside the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klarsicht.audit.artifacts.artifact import Artifact
from klarsicht.audit.cleaning import clean_model
from klarsicht.audit.cleaning.clean_settings import CleanSettings
from klarsicht.audit.cleaning.joint_judgement import ClassJudgement, JointJudgement, OrderOutcome
from klarsicht.audit.cleaning.judgement import Judgement
from klarsicht.audit.cleaning.shown_classes import ShownClasses
from klarsicht.audit.corrections.clarc import Erasure
from klarsicht.audit.corrections.closed_form import CorrectionParameters
from klarsicht.audit.corrections.joint_correction import JointCorrection
from klarsicht.audit.corrections.outcomes import CorrectionTest
from klarsicht.audit.corrections.samples import Case
from klarsicht.audit.corrections.selection import ALIKE, evaluate_setting
from klarsicht.audit.data import splits
from klarsicht.ground.progress import progress
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.paired_loss import paired_loss


@dataclass(frozen=True)
class FittedClass:
    """Correction of one class.

    Attributes:
        artifact: its artifact.
        case: its images; clean ones carry the artifact of no class.
        erasure: its correction.
        setting: the chosen setting, in words.
    """

    artifact: Artifact
    case: Case
    erasure: Erasure
    setting: str


def choose_order(
    fitted: Sequence[FittedClass], settings: CleanSettings
) -> tuple[JointCorrection, tuple[OrderOutcome, ...]]:
    """Choose the order of the corrections on the part `choose`: that of the verdicts, or the reverse where this takes
    away more, for sure and by more than ALIKE, of the artifact of which least is taken away.

    Returns:
        the corrections in that order, and the outcomes of both orders; none where no two are at one layer.
    """
    joint = JointCorrection(tuple(one.erasure for one in fitted))
    if not joint.is_ordered:
        return joint, ()
    names = tuple(one.artifact.name for one in fitted)
    bounds = clean_model.make_bounds(settings)
    rng = [generator(settings.seed, "order", one.artifact.target) for one in fitted]
    tests = [make_test(one, splits.VALIDATION, settings, r) for one, r in zip(fitted, rng, strict=True)]
    outcomes = []
    for correction, order in ((joint, names), (joint.reversed, names[::-1])):
        seen = {
            name: evaluate_setting(test, "together", CorrectionParameters(), test.compute_logits(correction), bounds)
            for name, test in zip(names, tests, strict=True)
        }
        by_class = tuple(seen[name] for name in order)
        outcomes.append(OrderOutcome(order, min(one.gained.low for one in by_class), by_class))
    first, second = outcomes
    return (joint.reversed if second.gained > first.gained + ALIKE else joint), (first, second)


def judge_together(
    fitted: Sequence[FittedClass], joint: JointCorrection, orders: tuple[OrderOutcome, ...],
    left_out: Sequence[tuple[str, str]], settings: CleanSettings,
) -> JointJudgement:  # fmt: skip
    """Judge each correction alone and all together on the part `show`."""
    bounds = clean_model.make_bounds(settings)
    judged: list[ClassJudgement] = []
    right: dict[int, tuple[bool, bool]] = {}  # of each clean image drawn: before, and together
    with progress("classes shown", len(fitted)) as advance:
        for one in fitted:
            shown = clean_model.draw_shown(one.case, settings.images, settings.seed)
            test = clean_model.make_test(one.case, one.artifact, shown, settings)
            origin = clean_model.find_origin(test, one.case)
            before, alone, found = test.evaluate(None), test.evaluate(one.erasure), test.compute_logits(joint)
            both = test.evaluate_logits(found)
            by_itself, together = (Judgement(before, after, bounds, origin) for after in (alone, both))
            name, n = one.artifact.name, len(test.sample)
            judged.append(ClassJudgement(name, one.artifact.target, one.setting, by_itself, together, n))
            was, is_now = (y.argmax(1) == test.truth for y in (test.plain, found.plain))
            fair = np.flatnonzero(test.sample.fair_draw)
            right |= {int(test.sample.rows[i]): (bool(was[i]), bool(is_now[i])) for i in fair}
            advance()
    answers = np.array(list(right.values()), bool).reshape(-1, 2)
    lost, classes = paired_loss(answers[:, 0], answers[:, 1]), ShownClasses.of(test, fitted[-1].case)
    return JointJudgement(tuple(judged), lost, tuple(left_out), orders, classes)


def make_test(one: FittedClass, part: int, settings: CleanSettings, rng: np.random.Generator) -> CorrectionTest:
    """Draw a sample of a part, on which corrections are compared for the artifact of a class."""
    artifact, case = one.artifact, one.case
    sample = case.sample(part, settings.images, rng)
    return CorrectionTest(case.classifier, sample, artifact.target, artifact.insertion, settings.seed)
