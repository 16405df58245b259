"""A correction that only unlearns what a network knows by heart: lost on its own images, nothing lost on others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, NOT_PROVEN, Bounds, Loss
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest, Outcome
from klarsicht.audit.cleaning.corrections.retraining import RetrainedWeights
from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.correction_choice import find_reason_to_leave
from klarsicht.audit.cleaning.models.judgement import (
    ClassJudgement,
    JointJudgement,
    Judgement,
)
from klarsicht.audit.cleaning.models.training_images import LabelledAnswers, recognise_training_images
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.results.class_verdict import UseResult
from klarsicht.cli import cleaning_tables
from klarsicht.ground.errors import EffectRemains
from klarsicht.numerics.erasure import Eraser
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, PairedLoss

TRAINED = 400
OWN, OTHER = np.arange(TRAINED), np.arange(TRAINED, 1797)


@pytest.fixture(scope="module")
def by_heart():
    """Digits whose labels are wrong in one of eight, a network that learned the first 400 by heart, and its weights at
    the last steps."""
    rng, x, y = np.random.default_rng(0), *load_digits(return_X_y=True)
    order = rng.permutation(len(x))
    x, y = torch.from_numpy(x[order] / 16).float().reshape(-1, 1, 8, 8), y[order]
    y = np.where(rng.random(len(y)) < 0.125, rng.integers(0, 10, len(y)), y)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10)
        )
    optimiser, labels, weights = torch.optim.Adam(net.parameters(), 3e-3), torch.from_numpy(y), []
    for _ in range(200):
        weights.append({name: value.clone() for name, value in net.state_dict().items()})
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(x[:TRAINED]), labels[:TRAINED]).backward()
        optimiser.step()
    return load_model((net.eval(), lambda image: image)), x, y, weights


def judged(by_heart, rows, correction):
    classifier, x, y, _ = by_heart
    sample = Sample([x[i] for i in rows], np.zeros(len(rows), bool), rows, y[rows])
    test = CorrectionTest(classifier, sample, 0, None)
    origin = recognise_training_images(LabelledAnswers.of(test.plain, test.truth))
    return Judgement(test.evaluate(None), test.evaluate(correction), Bounds(), origin)


def test_a_loss_of_what_was_learned_by_heart_is_not_called_harm(by_heart):
    """As of a stripe's correction: 1.75 points lost on 400 images that the network was trained on, none on others.

    The correction is the network's own weights of some steps before, which had not learned the last wrong labels.
    """
    found = [RetrainedWeights(state) for state in by_heart[3]]
    losses = [judged(by_heart, OWN, one).after.harm.value for one in found[60::4]]
    at = min(range(len(losses)), key=lambda i: abs(losses[i] - 0.0175))
    there, elsewhere = (judged(by_heart, rows, found[60 + 4 * at]) for rows in (OWN, OTHER))
    assert there.after.harm.value == pytest.approx(0.0175, abs=0.005)
    assert there.after.harm.low > there.bounds.overall  # by labels alone it would be harm
    assert elsewhere.after.harm.value < elsewhere.bounds.overall
    assert there.origin.trained_on
    assert not elsewhere.origin.trained_on
    assert there.harm.losses[0].answer == NOT_PROVEN
    assert "the model was trained on these images" in there.harm.reasons


def test_real_harm_is_called_so_on_images_trained_on_too(by_heart):
    v = np.linalg.qr(np.random.default_rng(1).standard_normal((64, 8)))[0]
    broken = Erasure("5", Eraser(v, v.T, np.zeros(64)), 8.0)
    there, elsewhere = (judged(by_heart, rows, broken) for rows in (OWN, OTHER))
    assert there.origin.trained_on
    assert there.harm.answer == elsewhere.harm.answer == HARMFUL


class Lit:
    """Insertion that lights the first pixel."""

    def fits(self, image):
        return True

    def put(self, images, rng):
        lit = images.clone()
        lit[:, 0, 0, 0] = 1
        return lit, images

    def __str__(self):
        return "a lit pixel"


@pytest.mark.parametrize("insertion", [None, Lit()])
def test_a_correction_that_no_other_image_was_tried_on_is_called_clean_of_its_carriers_alone(insertion):
    """The first pixel alone says class 0, and is erased: nothing of the effect is left, whoever is asked."""
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.uniform(0, 0.2, (1200, 1, 2, 2))).float()
    labels, member = np.arange(1200) % 3, np.zeros(1200, bool)
    member[labels == 0] = np.arange(400) < 200
    for pixel in (1, 2):
        images[:, 0].flatten(1)[:, pixel] += torch.from_numpy(labels == pixel)
    images[member, 0, 0, 0] = 1
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    net[1].weight.data = torch.tensor([[4.0, -1, -1, 0], [0, 4, 0, 0], [0, 0, 4, 0]])
    v = np.eye(4)[:, :1]
    test = CorrectionTest(load_model((net.eval(), lambda image: image)),
                          Sample(list(images), member, np.arange(1200), labels), 0, insertion)  # fmt: skip
    found = Judgement(
        test.evaluate(None), test.evaluate(Erasure("1", Eraser(v, v.T, np.zeros(4)), 1.0)), Bounds(10, 10)
    )
    assert found.remaining < 0.1
    assert found.clean
    assert found.on_members_alone == (insertion is None)
    assert found.verdict.startswith("corrected, use not tested: " if insertion is None else "cleaned")
    assert ("the artifact could be inserted into no others" in found.verdict) == (insertion is None)
    assert found.to_json()["members alone"] == (insertion is None)


@pytest.mark.parametrize(
    ("rise", "said"),
    [
        (Interval(1.27, -0.02, 2.56, 30), "images with it score 1.27 logits more than clean images (-0.02 to 2.56)"),
        (Interval(-0.28, -0.9, 0.34, 30), "images with it score 0.28 logits less than clean images (-0.90 to 0.34)"),
    ],
)
def test_of_an_artifact_that_was_inserted_into_no_image_only_a_difference_between_images_is_told(rise, said):
    """What was measured: the mean logit of some images, less that of others. Nothing was changed in any of them."""
    before = Outcome(*[NO_INTERVAL] * 5, rise, NO_LOSS, NO_LOSS)
    change = Judgement(before, before, Bounds(1, 1)).no_help[1]
    assert said in change and "changes" not in change and "could be inserted into no other images" in change


@pytest.mark.parametrize(
    ("rise", "turned", "factor", "below"),
    [
        ((0.3, 0.2, 0.4), (0.01, 0.0, 0.019), 1.0, True),
        ((0.3, 0.2, 0.51), (0.01, 0.0, 0.019), 1.0, False),
        ((0.3, 0.2, 0.4), (0.01, 0.0, 0.021), 1.0, False),
        ((0.3, 0.2, 0.4), (0.01, 0.0, 0.019), 0.5, False),
        ((0.3, 0.2, 0.7), (0.01, 0.0, 0.025), 2.0, True),
        ((0.1, 0.01, 0.2), (0.0, 0.0, 0.0), 0.0, False),
    ],
)
def test_an_effect_is_less_than_matters_where_both_upper_ends_are_below_the_floor_of_poisoned(
    rise, turned, factor, below
):
    """Half a logit and two of a hundred images, times the factor."""
    nothing = Interval(0.0, 0.0, 0.0, 100)
    loss = PairedLoss(0.0, -0.001, 0.001, 100)
    before = Outcome(*[nothing] * 5, Interval(*rise, 100), loss, loss, Interval(*turned, 100))
    found = Judgement(before, before, Bounds(), least=factor)
    assert found.is_below_least == below
    assert found.verdict.startswith("effect too small") == below
    on_members = Outcome(*[nothing] * 5, Interval(*rise, 100), loss, loss)
    assert not Judgement(on_members, on_members, Bounds(), least=factor).is_below_least  # what it turns is not known


@pytest.mark.parametrize(("low", "small"), [(3.8, False), (0.4, True)])
def test_an_effect_that_quantify_measured_to_matter_is_never_less_than_matters(low, small, capsys):
    """Both figures are said."""
    nothing, loss = Interval(0.0, 0.0, 0.0, 100), PairedLoss(0.0, -0.001, 0.001, 100)
    rise, turned = Interval(0.406, 0.39, 0.42, 100), Interval(0.004, 0.0, 0.008, 100)
    before = Outcome(*[nothing] * 5, rise, loss, loss, turned)
    use = UseResult("spectrum", "shared tones", 4.12, low, 4.4, 9.0, 0.01, 0, 0.35, 0.01, 0.0, 1.0, "shared")
    found = Judgement(before, before, Bounds(), measured_use=use)
    assert found.is_below_least == found.verdict.startswith("effect too small") == small
    assert bool(find_reason_to_leave(before, CleanSettings(), use)) == small
    assert find_reason_to_leave(before, CleanSettings())
    cleaning_tables.judgement(found, Path("run"), Path("cleaned"))
    told = "measured +4.12 logits and 34.0 % of other images turned into the class by the shared tone curve; here,"
    assert (told in capsys.readouterr().out) == (not small)
    unused = replace(before, rise=Interval(0.1, -0.1, 0.3, 100))
    assert ("4.12 logits" in Judgement(unused, unused, Bounds(), measured_use=use).verdict) == (not small)


def test_flips_by_new_draws_stand_beside_those_by_the_draws_that_were_fitted_on(capsys):
    nothing, rise = Interval(0.0, 0.0, 0.0, 100), Interval(3.0, 2.5, 3.5, 100)
    none, after = PairedLoss(0.0, -0.001, 0.001, 100), Interval(0.1, 0.0, 0.2, 100)
    own, own_after, new, new_after = (
        Outcome(*[nothing] * 4, Interval(flips, 0, 1, 500), logits, none, none, Interval(flips, 0, 1, 500))
        for flips, logits in ((0.31, rise), (0.004, after), (0.358, rise), (0.018, after))
    )
    judged = Judgement(own, own_after, Bounds(), new_draws=(new, new_after))
    cleaning_tables.judgement(judged, Path("run"), Path("cleaned"))
    told = capsys.readouterr().out
    assert "nothing was fitted on, it turns 35.8 % before and 1.8 % after of other images into the class" in told
    assert "that the correction was fitted on, 31.0 % before and 0.4 % after" in told


@pytest.mark.parametrize(
    ("raised", "remaining", "clean"),
    [((2.0, 1.5, 2.5), (1.4, 1.1, 1.7), False), ((2.0, 1.5, 2.5), (1.4, 0.9, 1.9), True),
     ((2.0, 1.5, 2.5), (0.3, 0.1, 0.5), True), ((0.2, -0.1, 0.5), (0.2, 0.15, 0.25), True)],
)  # fmt: skip
def test_a_correction_that_misses_new_draws_is_no_help(raised, remaining, clean):
    """More than half of the two logits by new draws is left for sure: 1.1 of 2; not for sure: 0.9; little is; or new
    draws do nothing for sure. Of those that it was fitted on, one of thirty is left."""
    nothing, turned = Interval(0.0, 0.0, 0.0, 100), Interval(0.2, 0.1, 0.3, 100)
    none = PairedLoss(0.0, -0.001, 0.001, 100)
    own, own_after, new, new_after = (
        Outcome(*[nothing] * 5, Interval(*rise, 100), none, none, turned)
        for rise in ((3.0, 2.5, 3.5), (0.1, 0.0, 0.2), raised, remaining)
    )
    found = Judgement(own, own_after, Bounds(), new_draws=(new, new_after))
    assert found.clean == clean and found.remaining == pytest.approx(1 / 30)
    assert (
        "leaves 70 % of the artifact's effect as images have it that nothing was fitted on" in found.verdict
    ) != clean
    assert clean or "and 3 % as those have it" in found.verdict


@pytest.mark.parametrize(
    ("turned", "left", "clean"),
    [((0.07, 0.05, 0.09), (0.064, 0.045, 0.083), False), ((0.07, 0.05, 0.09), (0.04, 0.03, 0.05), True),
     ((0.015, 0.01, 0.02), (0.015, 0.01, 0.02), True), ((0.07, -0.01, 0.15), (0.07, 0.05, 0.09), True)],
)  # fmt: skip
def test_new_draws_that_still_turn_images_into_the_class_are_missed_though_their_logits_fall(turned, left, clean):
    """More than half of the seven in a hundred is left for sure: 4.5; not for sure: 3; or so few were turned that it
    does not matter, or none for sure."""
    nothing, gone = Interval(0.0, 0.0, 0.0, 100), Interval(-0.07, -0.2, 0.1, 100)
    none, rise = PairedLoss(0.0, -0.001, 0.001, 100), Interval(0.4, 0.2, 0.5, 100)
    own, own_after = (Outcome(*[nothing] * 5, one, none, none, Interval(0.1, 0.05, 0.15, 100)) for one in (rise, gone))
    new, new_after = (
        Outcome(*[nothing] * 5, one, none, none, Interval(*share, 500)) for one, share in ((rise, turned), (gone, left))
    )
    found = Judgement(own, own_after, Bounds(), new_draws=(new, new_after))
    assert found.clean == clean
    assert clean or "leaves 91 % of the artifact's effect as images have it that nothing was fitted on" in found.verdict


REACHED = [(2.9, 2.7, 3.1), (1.7, 1.2, 2.2)]
MISSED = [(1.1, 0.8, 1.4), (1.0, -1.0, 3.0)]


@pytest.mark.parametrize(("fall", "clean"), [(one, one in REACHED) for one in REACHED + MISSED])
def test_a_correction_is_clean_only_if_it_reaches_the_images_that_carry_the_artifact(fall, clean, capsys):
    """Three logits are taken from images with the artifact put on: half of that must be taken from members, and
    something is for sure."""
    nothing, rise, turned = Interval(0.0, 0.0, 0.0, 100), Interval(3.0, 2.5, 3.5, 100), Interval(0.2, 0.1, 0.3, 100)
    none = PairedLoss(0.0, -0.001, 0.001, 100)
    before = Outcome(*[nothing] * 5, rise, none, none, turned)
    after = Outcome(*[nothing] * 6, none, none, nothing, member_fall=Interval(*fall, 30))
    found = Judgement(before, after, Bounds())
    assert found.remaining == 0 and found.clean == clean == (
        found.verdict == "cleaned: 0 % of the artifact's effect is left"
    )
    cleaning_tables.judgement(found, Path("run"), Path("cleaned"))
    assert (
        f"changes by {-fall[0]:.2f} logits on images with the artifact, by -3.00 where it is inserted"
        in capsys.readouterr().out
    )
    if not clean:
        assert f"takes 3.00 logits from images with the artifact inserted, but {fall[0]:.2f} (" in found.verdict
        with pytest.raises(EffectRemains, match="from the images that carry it"):
            found.check()
    few = Judgement(before, replace(after, member_fall=Interval(*fall, 9)), Bounds())
    assert few.clean == (fall[2] >= 1.5)  # nine tell only what is shown to be too little


@pytest.mark.parametrize(("without", "answer"), [(0.0, NOT_PROVEN), (0.03, HARMFUL)])
def test_several_classes_are_judged_as_one_where_another_class_bears_the_loss_alone(without, answer):
    """Oracle: the judgement on one class with the same losses."""
    nothing, rise = Interval(0.0, 0.0, 0.0, 100), Interval(3.0, 2.5, 3.5, 100)
    none, lost = PairedLoss(0.0, -0.001, 0.001, 100), PairedLoss(0.04, 0.03, 0.05, 100)
    elsewhere = PairedLoss(without, without - 0.01, without + 0.01, 90)
    before = Outcome(*[nothing] * 5, rise, none, none, nothing)
    after = Outcome(*[nothing] * 6, lost, none, nothing, elsewhere, "hay")
    one = Judgement(before, after, Bounds())
    of_all = Loss("clean images", lost, Bounds().overall, False, elsewhere, "hay")
    joint = JointJudgement((ClassJudgement("a", 0, "", one, one),), of_all)
    assert joint.harm.answer == one.harm.answer == answer
    assert ("without hay" in joint.harm.reasons) == (answer == NOT_PROVEN)
