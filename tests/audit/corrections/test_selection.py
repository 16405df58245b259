"""The sweep under a bound on harm, on corrections whose effect and harm are known."""

import numpy as np
import pytest
from tests.audit.shortcut import TARGET, classifier, place, sample

from klarsicht.audit.corrections.clarc import Erasure
from klarsicht.audit.corrections.closed_form import CLOSED, SWEPT, CorrectionMethod, CorrectionParameters, FittingData
from klarsicht.audit.corrections.harm import Bounds
from klarsicht.audit.corrections.outcomes import CorrectionTest
from klarsicht.audit.corrections.selection import ALIKE, Grid, SettingOutcome, choose, effect_tolerance
from klarsicht.ground.errors import InputError
from klarsicht.numerics.erasure import Eraser


def scene():
    bench = FittingData(classifier(), TARGET, sample(120), place())
    return bench, CorrectionTest(bench.classifier, sample(120, seed=1), TARGET, place())


def erases(channels, bench, setting):
    L = np.eye(4)[:, channels]
    return Erasure(setting.layer, Eraser(L, L.T, np.array([0.5, 0.5, 0.5, 0.1])), setting.strength)


def test_the_strongest_setting_within_the_bound_is_chosen():
    """At `last` the mark alone is erased; at `head` everything is, which no bound allows."""
    by_layer = {"last": [3], "head": [0, 1, 2, 3]}
    remedy = CorrectionMethod(lambda b, s: erases(by_layer[s.layer], b, s), frozenset({"layer", "strength"}))
    found = choose(remedy, *scene(), Bounds())
    assert found.chosen.setting == CorrectionParameters("last")
    assert found.chosen.remaining < 0.15  # the mark also covers what speaks for other classes
    tried = {(t.setting.layer, t.setting.strength): t for t in found.tried}
    assert tried["head", 1.0].lost > 0
    assert tried["last", 0.5].remaining == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("by_one", "best"), [(0.99, 1), (0.8, 4)])
def test_of_two_that_leave_nearly_as_much_the_one_with_fewer_directions_is_chosen(by_one, best):
    """Four directions erase the mark whole, one erases a share of it."""

    def make(bench, setting):
        whole = erases([3], bench, CorrectionParameters("last"))
        return whole.with_strength(by_one if setting.directions == 1 else 1.0)

    bench, trial = scene()
    found = choose(CorrectionMethod(make, frozenset({"directions"})), bench, trial, Bounds(), Grid(directions=(1, 4)))
    assert found.chosen.setting.directions == best
    left = [trial.remaining_effect(trial.compute_logits(make(bench, t.setting)))[0] for t in found.tried]
    assert [t.remaining for t in found.tried] == pytest.approx(left)
    assert left[0] - left[1] == pytest.approx(1 - by_one, abs=0.06)


@pytest.mark.parametrize(("error", "best"), [(0.01, 8), (0.2, 1)])
def test_what_few_images_cannot_tell_apart_counts_as_alike(error, best):
    """Of .28 and .2 left the smaller is better; where they are known to within .2 only, fewer directions are."""
    effect = scene()[1].evaluate(None)
    some = [
        SettingOutcome(CorrectionParameters("last", k), left, error, -0.01, effect) for k, left in ((1, 0.28), (8, 0.2))
    ]
    assert effect_tolerance(some) == max(ALIKE, error)
    assert min(some, key=lambda one: one.sort_key(effect_tolerance(some))).setting.directions == best
    harmful = SettingOutcome(CorrectionParameters("last", 2), 0.0, 0.9, 0.1, effect)
    assert effect_tolerance([*some, harmful]) == effect_tolerance(some)


def test_where_none_stays_within_the_least_harmful_is_chosen():
    remedy = CorrectionMethod(lambda b, s: erases([0, 1, 2], b, s), frozenset({"layer"}))
    found = choose(remedy, *scene(), Bounds(0.0, 0.0))
    assert found.chosen.lost == min(t.lost for t in found.tried) > 0


def test_a_setting_that_is_given_is_taken():
    found = choose(CLOSED["oblique"], *scene(), Bounds(), Grid(("last",), (2,), (0.75,)))
    assert [t.setting for t in found.tried] == [CorrectionParameters("last", 2, 0.75)]


def test_layers_that_know_nothing_are_passed_over():
    def make(bench, setting):
        if setting.layer == "head":
            raise InputError("members do not differ from the others at this layer")
        return erases([3], bench, setting)

    found = choose(CorrectionMethod(make, SWEPT), *scene(), Bounds(), Grid(("last", "head")))
    assert {t.setting.layer for t in found.tried} == {"last"}
    with pytest.raises(InputError, match="do not differ"):
        choose(CorrectionMethod(make, SWEPT), *scene(), Bounds(), Grid(("head",)))


def test_the_record_of_a_choice_lists_what_was_tried():
    found = choose(CLOSED["oblique"], *scene(), Bounds()).to_json()
    assert found["chosen"] in [{k: t[k] for k in ("layer", "directions", "strength")} for t in found["tried"]]
    assert {t["layer"] for t in found["tried"]} == {"last", "head"}


def test_the_best_strength_of_each_layer_and_number_of_directions_is_listed():
    found = choose(CLOSED["oblique"], *scene(), Bounds(), Grid(("last", "head"), (1, 2), (1.0, 0.5)))
    assert len(found.tried) == 8
    assert [(t.setting.layer, t.setting.directions) for t in found.best_settings] == [
        ("last", 1), ("last", 2), ("head", 1), ("head", 2),
    ]  # fmt: skip
    assert found.chosen in found.best_settings
    for one in found.best_settings:
        same = [
            t
            for t in found.tried
            if (t.setting.layer, t.setting.directions) == (one.setting.layer, one.setting.directions)
        ]
        assert one.sort_key(found.tolerance) == min(t.sort_key(found.tolerance) for t in same)
