"""The sweep under a bound on harm, on corrections whose effect and harm are known."""

from dataclasses import asdict, dataclass, field, replace

import numpy as np
import pytest
import torch
from tests.audit.shortcut import TARGET, Shortcut, classifier, place, sample
from torch import nn

from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.clean_losses import CleanLosses
from klarsicht.audit.cleaning.corrections.closed_form import (
    CLOSED,
    SWEPT,
    CorrectionMethod,
    CorrectionParameters,
    FittingData,
    JointCorrection,
)
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest, Gain, Outcome
from klarsicht.audit.cleaning.corrections.selection import (
    ALIKE,
    SettingOutcome,
    choose_best,
    choose_free,
    choose_least_loss,
    find_best,
    is_alike,
)
from klarsicht.audit.cleaning.corrections.setting_search import Grid, try_further_layers, try_settings
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.verdicts.interventions.insertion import put_on
from klarsicht.ground.errors import InputError
from klarsicht.numerics.erasure import Eraser
from klarsicht.numerics.statistics.intervals import Z95, Interval
from klarsicht.numerics.statistics.paired_loss import PairedLoss

OBLIQUE = {"oblique": CLOSED["oblique"]}
SURE = PairedLoss(0.0, -0.001, 0.001, 10_000)
EFFECT = Outcome(SURE, SURE, SURE, SURE, SURE, SURE, SURE, SURE)


def scene():
    bench = FittingData(classifier(), TARGET, sample(120), place())
    return bench, CorrectionTest(bench.classifier, sample(120, seed=1), TARGET, place())


def try_and_choose(*asked):
    return choose_best(try_settings(*asked))


def erases(channels, bench, setting):
    L = np.eye(4)[:, channels]
    return Erasure(setting.layer, Eraser(L, L.T, np.array([0.5, 0.5, 0.5, 0.1])), setting.strength)


def test_the_strongest_setting_within_the_bound_is_chosen():
    """At `last` the mark alone is erased; at `head` everything is, which no bound allows."""
    by_layer = {"last": [3], "head": [0, 1, 2, 3]}
    remedy = CorrectionMethod(lambda b, s: erases(by_layer[s.layer], b, s), frozenset({"layer", "strength"}))
    found = try_and_choose({"x": remedy}, *scene(), Bounds())
    assert found.chosen.setting == CorrectionParameters("last")
    assert found.chosen.remaining < 0.15  # the mark also covers what speaks for other classes
    tried = {(t.setting.layer, t.setting.strength): t for t in found.tried}
    assert tried["head", 1.0].lost > 0
    assert tried["last", 0.5].remaining > 0.4  # of the log-odds; of the probability nearly all


@pytest.mark.parametrize(("by_one", "best"), [(0.99, 1), (0.8, 4)])
def test_of_two_that_leave_nearly_as_much_the_one_with_fewer_directions_is_chosen(by_one, best):
    """Four directions erase the mark whole, one erases a share of it."""

    def make(bench, setting):
        whole = erases([3], bench, CorrectionParameters("last"))
        return replace(whole, strength=by_one if setting.directions == 1 else 1.0)

    bench, trial = scene()
    found = try_and_choose(
        {"x": CorrectionMethod(make, frozenset({"directions"}))}, bench, trial, Bounds(), Grid(directions=(1, 4))
    )
    assert found.chosen.setting.directions == best
    left = [1 - trial.gain(trial.compute_logits(make(bench, t.setting))).share.value for t in found.tried]
    assert [t.remaining for t in found.tried] == pytest.approx(left)
    assert left[0] - left[1] > 0.8 * (1 - by_one)


def marked_by(strength, seed, n=300):
    """The network and images of tests.audit.shortcut with a mark of that strength, beside twice their noise in its
    channel, and the weight of the mark so that it always speaks for the class as much."""
    net = Shortcut().eval()
    with torch.no_grad():
        net.head.weight[0, 3] = 16 / strength
    mark = replace(place(), colour=place().colour * strength / 4)
    noisy = sample(n, seed, members=0)
    rng = np.random.default_rng(seed)
    member = (noisy.labels == TARGET) & (rng.random(n) < 0.3)
    images = [image * torch.tensor([1.0, 1.0, 1.0, 2.0])[:, None, None] for image in noisy.images]
    images = [put_on(image, mark, rng) if m else image for image, m in zip(images, member, strict=True)]
    made = load_model((net, lambda image: image if isinstance(image, torch.Tensor) else torch.zeros(4, 8, 8)))
    return made, mark, replace(noisy, images=images, member=member)


@pytest.mark.parametrize(("strength", "best"), [(0.85, "reactive"), (3.0, "oblique")])
def test_the_better_of_two_methods_depends_on_the_artifact_and_is_found(strength, best):
    """Of a faint mark an erasure of every position costs the class its evidence, of a strong one the gate leaves more.
    By images that nothing was chosen on the chosen method leaves less than the best within the bounds by the other."""
    (net, mark, fit), (_, _, other), (_, _, fresh) = (marked_by(strength, seed) for seed in (0, 1, 2))
    methods = {name: CLOSED[name] for name in ("oblique", "reactive")}
    data, test = FittingData(net, TARGET, fit, mark), CorrectionTest(net, other, TARGET, mark)
    found = try_and_choose(methods, data, test, Bounds())
    assert found.chosen.method == best
    rivals = [one for one in found.tried if one.method != best and one.within_bounds]
    rival = max(rivals, key=lambda one: one.gained.low)
    unseen = CorrectionTest(net, fresh, TARGET, mark)
    theirs = methods[rival.method].make(data, rival.setting)
    gains = [unseen.gain(unseen.compute_logits(one)).share.value for one in (found.correction, theirs)]
    assert gains[0] > gains[1] + 0.03


def outcome(method, directions, gained, error, lost=-0.005):
    half = Z95 * error
    setting = CorrectionParameters("last", directions)
    return SettingOutcome(method, setting, Interval(gained, gained - half, gained + half, 100), lost, EFFECT)


@pytest.mark.parametrize(("error", "best"), [(0.01, 8), (0.05, 1)])
def test_what_few_images_cannot_tell_apart_counts_as_alike(error, best):
    """Of .28 and .2 left the smaller is better; where they are known to within .1 only, fewer directions are."""
    some = [outcome("x", 1, 0.72, error), outcome("x", 8, 0.8, error)]
    assert find_best(some).setting.directions == (8 if error < 0.08 else best)
    alike = [outcome("x", 1, 0.76, error), outcome("x", 8, 0.8, error)]
    assert find_best(alike).setting.directions == 1
    harmful = outcome("x", 2, 1.0, 0.01, 0.1)
    assert find_best([harmful, *some]) is find_best(some)


def test_a_setting_that_does_not_reach_members_comes_last():
    best, second = replace(outcome("a", 1, 0.99, 0.01), reaches_members=False), outcome("b", 8, 0.7, 0.01)
    assert find_best([best, second]) is second
    worse = replace(second, reaches_members=False)
    assert find_best([best, worse]) is best  # none does
    choice = choose_best([best, second])
    assert choice.chosen is second
    assert "1 of them hardly change the images with the artifact" in choice.reason


def test_a_gain_that_is_known_for_sure_is_better_than_a_larger_one_that_is_not():
    sure, unsure = outcome("a", 1, 0.9, 0.01), outcome("b", 1, 0.97, 0.2)
    assert find_best([unsure, sure]) is sure


def test_of_gains_alike_the_lesser_loss_then_fewer_directions_then_the_simpler_method_is_taken():
    best = outcome("b", 1, 0.95, 0.01)
    assert find_best([best, outcome("a", 1, 0.94, 0.01, 0.0)]) is best  # which loses half a point more
    assert find_best([outcome("a", 2, 0.94, 0.01), best]) is best
    simpler = outcome("a", 1, 0.94, 0.01)
    assert find_best([simpler, best]) is simpler


def test_methods_of_which_each_is_best_on_another_artifact_are_chosen_there():
    """As of a stripe (`oblique` left 29 %, `reactive` 2.7) and of a logo (the other way round)."""

    def gated(share):  # takes away this share of the mark on pasted images, by strength
        return CorrectionMethod(lambda b, s: replace(erases([3], b, s), strength=share), frozenset({"layer"}))

    for left, best in (((0.3, 1.0), "b"), ((1.0, 0.3), "a")):
        methods = {name: gated(share) for name, share in zip("ab", left, strict=True)}
        found = try_and_choose(methods, *scene(), Bounds(), Grid(("last",)))
        assert found.chosen.method == best
        assert {one.method for one in found.best_of_methods} == {"a", "b"}
        assert f"at least {100 * found.chosen.gained.low:.0f} %" in found.reason
        assert {one["method"] for one in found.to_json()["tried"]} == {"a", "b"}


@dataclass
class KnownLosses:
    """Clean images on which what each correction loses is known; it says which ones were asked for."""

    falls: dict[object, float]  # by number of directions, or another key
    asked: list = field(default_factory=list)
    key: object = staticmethod(lambda one: one.directions)

    def __len__(self):
        return 10_000

    def measure(self, correction):
        return self.compare([correction])[0]

    def compare(self, corrections, last=2):
        self.asked.append([self.key(one) for one in corrections])
        found = [self.falls[self.key(one)] for one in corrections]
        return [
            CleanLosses(
                *(PairedLoss(x, x - 0.001, x + 0.001, 10_000),) * 2, *(Interval(x, x - 0.001, x + 0.001, 10_000),) * 2
            )
            for x in found
        ]


@dataclass(frozen=True)
class Named:
    directions: int


def candidates(*gains, error=0.01):
    return [replace(outcome("x", k, gain, error), correction=Named(k)) for k, gain in gains]


def test_of_gains_alike_the_one_that_loses_least_on_many_images_is_chosen():
    found = candidates((1, 0.90), (2, 0.92), (3, 0.93), (4, 0.5))
    draw = KnownLosses({1: 0.004, 2: 0.0, 3: 0.004, 4: 0.0})
    choice = choose_least_loss(found, draw, Bounds())
    assert choice.chosen.setting.directions == 2
    assert [sorted(one) for one in draw.asked] == [[1, 2, 3]]  # .5 is shown to be less
    assert choice.correction is found[1].correction
    assert [one.losses is not None for one in choice.tried] == [True, True, True, False]
    assert choice.chosen in choice.tried
    assert choice.to_json()["tried"][1]["losses"]["fall"]["value"] == 0.0
    assert "compared with 2 others on up to 10,000 clean images, it loses 0.00 points" in choice.reason


@pytest.mark.parametrize(("images", "spread", "alike"), [(25, 0.5, True), (25, 0.2, False), (400, 0.5, False)])
def test_a_gain_is_alike_by_the_standard_error_of_the_difference_on_the_same_images(images, spread, alike):
    """.08 less, with intervals so wide that either gain by itself may be anything."""
    noise = np.resize((-spread, spread), images)  # its standard error is spread / sqrt(images)
    common = np.random.default_rng(0).normal(0, 5, images)
    left = [{"log-odds": common + mean + more} for mean, more in ((0.2, 0), (0.28, noise))]
    best, other = (
        replace(outcome("x", k, 1 - mean, 0.2), gain=Gain(Interval(1 - mean, 0, 1, images), "log-odds", one))
        for k, mean, one in zip((1, 2), (0.2, 0.28), left, strict=True)
    )
    assert is_alike(other, best) == alike


def test_what_is_shown_to_lose_too_much_gives_way_to_a_smaller_gain_and_only_where_there_is_one():
    found = candidates((1, 0.92), (2, 0.91), (3, 0.7), (4, 0.3))
    draw = KnownLosses({1: 0.02, 2: 0.01, 3: 0.004, 4: 0.0})
    choice = choose_least_loss(found, draw, Bounds())
    assert choice.chosen.setting.directions == 3
    assert [sorted(one) for one in draw.asked] == [[1, 2], [3]]
    assert choice.reason.endswith("; 2 of the others are shown to lose more than a bound")
    everything = KnownLosses(dict.fromkeys((1, 2, 3, 4), 0.05) | {2: 0.03})
    assert choose_least_loss(found, everything, Bounds()).chosen.setting.directions == 2
    assert choose_least_loss(found, everything, Bounds(0.1, 0.1)).chosen.setting.directions == 2


def test_settings_whose_fall_is_shown_on_the_part_to_choose_on_are_not_compared():
    found = candidates((1, 0.92), (2, 0.9))
    found[0] = replace(found[0], fall=Interval(0.02, 0.01, 0.03, 400))
    draw = KnownLosses({1: 0.0, 2: 0.0})
    assert choose_least_loss(found, draw, Bounds()).chosen.setting.directions == 2
    assert draw.asked == [[2]]


def test_of_what_costs_nothing_on_many_images_the_largest_gain_is_chosen_and_else_none():
    """Falls by .1, .3 and 0 points, each known to .1: the second is above a quarter of a point."""
    found = candidates((1, 0.8), (2, 0.95), (3, 0.6), (4, 0.45))
    changing = replace(EFFECT, harm=PairedLoss(0.0, -0.01, 0.01, 400, 3))  # of 400 answers two are half a point
    found.append(replace(outcome("x", 5, 0.99, 0.01), outcome=changing, correction=Named(5)))
    falls = {1: 0.001, 2: 0.003, 3: 0.0}
    draw = KnownLosses(falls)
    choice, tried = choose_free(found, draw, Bounds())
    assert choice.chosen.setting.directions == 1 and choice.correction is found[0].correction
    assert draw.asked == [[2, 1, 3]]  # .45 is too little, and of the fifth too many answers change
    assert [one.losses is not None for one in tried] == [True, True, True, False, False]
    assert choice.tried == tuple(tried)
    assert choice.reason.endswith(
        "of the effect and costs nothing (0 of 10,000 right answers changed; 3 settings compared)"
    )
    costly = KnownLosses(dict.fromkeys(falls, 0.003))
    none, tried = choose_free(found, costly, Bounds())
    assert none is None and len(tried) == 5


def test_without_more_images_the_part_to_choose_on_decides():
    found = candidates((1, 0.90), (2, 0.92))
    assert choose_least_loss(found, None, Bounds()) == choose_best(found)


class TwoWays(nn.Module):
    """Class c by channel c, class 0 also by the mark in channel 3, which both branches carry on."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        with torch.no_grad():
            for layer in (self.a, self.b):
                layer.weight.copy_(torch.eye(4)[:, :, None, None] / 2)
                layer.bias.zero_()
            self.head.weight.copy_(torch.tensor([[4.0, 0, 0, 8], [0, 4.0, 0, 0], [0, 0, 4.0, 0]]))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head((self.a(x) + self.b(x)).mean((2, 3)))


def two_ways():
    model = load_model((TwoWays().eval(), lambda image: image))
    data = FittingData(model, TARGET, sample(120), place())
    return data, CorrectionTest(model, sample(300, seed=1), TARGET, place())


MARK = {"mark": CorrectionMethod(lambda b, s: erases([3], b, s), SWEPT)}
WIDE = Bounds(0.05, 0.05)


def test_what_two_branches_carry_is_erased_in_their_sum_or_in_both():
    """Half of the mark's logits goes each way; at the sum all of it is erased by one layer, and one layer is enough."""
    data, trial = two_ways()
    assert data.layers == ("b", "head", ":sum1")
    branches = try_settings(MARK, data, trial, WIDE, Grid(("a", "b"), (1, 2, 4), (1.0, 0.75, 0.5)))
    further = try_further_layers(branches, MARK, data, trial, WIDE, Grid(("a", "b"), (1, 2, 4), (1.0, 0.75, 0.5)))
    alone, both = (choose_best(some).chosen for some in (branches, branches + further))
    at_sum = try_and_choose({**MARK}, data, trial, WIDE, Grid((":sum1",), (1,), (1.0,))).chosen
    assert alone.gained.value < 0.7
    assert {part.setting.layer for part in both.parts} == {"a", "b"}
    assert both.gained.value == pytest.approx(at_sum.gained.value, abs=1e-4)
    assert both.outcome.rise.value == pytest.approx(at_sum.outcome.rise.value, abs=1e-4)
    chosen = choose_best(branches + further)
    with chosen.correction.applied(data.classifier.module):
        expected = compute_logits(trial.classifier, trial.pasted_images)
    np.testing.assert_allclose(trial.compute_logits(chosen.correction).pasted, expected, atol=1e-5)
    told = chosen.to_json()
    assert told["chosen"]["beside"][0] == {"method": "mark"} | asdict(branches[0].setting)
    assert str(both) == "mark at a, 1 direction, strength 1 and mark at b, 1 direction, strength 1"
    whole = try_settings(MARK, data, trial, WIDE, Grid((":sum1", "a", "b"), (1,), (1.0,)))
    assert choose_best(whole).chosen.setting.layer == ":sum1"
    beyond = try_further_layers(whole, MARK, data, trial, WIDE, Grid(("a", "b"), (1,), (1.0,)))
    assert choose_best(whole + beyond).chosen.setting.layer == ":sum1"


def layers_of(correction):
    parts = correction.parts if isinstance(correction, JointCorrection) else (correction,)
    return "".join(part.layer for part in parts)


@pytest.mark.parametrize(
    ("falls", "start", "chosen"),
    [
        (
            {"a": 0.0, "b": 0.01, "ab": 0.0},
            "a",
            "ab",
        ),  # as much from either branch: the one that loses less comes first
        ({"a": 0.01, "b": 0.0, "ba": 0.002}, "b", "ba"),
        ({"a": 0.01, "b": 0.0, "ba": 0.004}, "b", "b"),  # within the bound, but a quarter point more than without it
        ({"a": 0.004, "b": 0.01, "ab": 0.004}, "a", "ab"),
    ],
)
def test_a_further_layer_loses_no_more_than_the_correction_beside_it_on_many_images(falls, start, chosen):
    data, trial = two_ways()
    grid, draw = Grid(("a", "b"), (1,), (1.0,)), KnownLosses(falls, key=layers_of)
    branches = try_settings(MARK, data, trial, WIDE, grid)
    further = try_further_layers(branches, MARK, data, trial, WIDE, grid, draw)
    assert choose_least_loss(branches, draw, WIDE).chosen.setting.layer == start
    assert layers_of(choose_least_loss(branches + further, draw, WIDE).correction) == chosen


def test_a_further_layer_that_loses_more_is_not_offered():
    """Beside the mark at one branch, the other branch speaks against every class: more of the effect goes."""
    data, trial = two_ways()
    everything = {"all": CorrectionMethod(lambda b, s: replace(erases([0, 1, 2, 3], b, s), strength=4), SWEPT)}
    mark = try_settings(MARK, data, trial, Bounds(1, 1), Grid(("a",), (1,), (1.0,)))
    assert not try_further_layers(mark, everything, data, trial, Bounds(1, 1), Grid(("a", "b"), (1,), (1.0,)))


def test_where_none_stays_within_the_least_harmful_is_chosen():
    remedy = CorrectionMethod(lambda b, s: erases([0, 1, 2], b, s), frozenset({"layer"}))
    found = try_and_choose({"x": remedy}, *scene(), Bounds(0.0, 0.0))
    assert found.chosen.lost == min(t.lost for t in found.tried) > 0


def test_a_setting_that_is_given_is_taken():
    found = try_and_choose(OBLIQUE, *scene(), Bounds(), Grid(("last",), (2,), (0.75,)))
    assert [t.setting for t in found.tried] == [CorrectionParameters("last", 2, 0.75)]


def test_layers_that_know_nothing_are_passed_over():
    def make(bench, setting):
        if setting.layer == "head":
            raise InputError("members do not differ from the others at this layer")
        return erases([3], bench, setting)

    found = try_and_choose({"x": CorrectionMethod(make, SWEPT)}, *scene(), Bounds(), Grid(("last", "head")))
    assert {t.setting.layer for t in found.tried} == {"last"}
    with pytest.raises(InputError, match="do not differ"):
        try_and_choose({"x": CorrectionMethod(make, SWEPT)}, *scene(), Bounds(), Grid(("head",)))


def test_the_record_of_a_choice_lists_what_was_tried():
    found = try_and_choose(OBLIQUE, *scene(), Bounds()).to_json()
    assert found["chosen"] in [{k: t[k] for k in ("method", "layer", "directions", "strength")} for t in found["tried"]]
    assert {t["layer"] for t in found["tried"]} == {"last", "head"}


def test_the_best_strength_of_each_layer_and_number_of_directions_is_listed():
    found = try_and_choose(OBLIQUE, *scene(), Bounds(), Grid(("last", "head"), (1, 2), (1.0, 0.5)))
    assert len(found.tried) == 8
    assert [(t.setting.layer, t.setting.directions) for t in found.best_settings] == [
        ("last", 1), ("last", 2), ("head", 1), ("head", 2),
    ]  # fmt: skip
    assert found.chosen in found.best_settings
    at_head = next(t for t in found.best_settings if t.setting.layer == "head" and t.setting.directions == 1)
    same = [t for t in found.tried if (t.setting.layer, t.setting.directions) == ("head", 1) and t.within_bounds]
    assert at_head.gained.low >= max(t.gained.low for t in same) - max(ALIKE, at_head.error)
