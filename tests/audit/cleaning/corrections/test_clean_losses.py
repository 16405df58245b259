"""Losses on many clean images: against answers counted one by one, and how many images each correction is seen on."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.special import softmax
from tests.audit.shortcut import TARGET, classifier, sample

from klarsicht.audit.cleaning.corrections import clean_losses
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.clean_losses import CleanDraw, CleanLosses
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.numerics.erasure import Eraser
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval
from klarsicht.numerics.statistics.paired_loss import paired_loss


@dataclass
class ReadCase:
    """Images of the shortcut's network that are read by their rows, as of a corpus; it says what was read."""

    n: int
    target: int = TARGET
    read_rows: list = field(default_factory=list)
    names: dict = field(default_factory=dict)
    class_weights: dict = field(default_factory=dict)

    def __post_init__(self):
        self.whole, self.classifier = sample(self.n, members=0), classifier()
        self.labels, self.clean = self.whole.labels, np.arange(self.n) % 7 > 0

    def prefer_held_out(self, clean):
        return clean

    def read(self, rows, fair):
        self.read_rows += rows.tolist()
        found = self.whole.select(np.isin(np.arange(self.n), rows))
        order = np.argsort(np.argsort(rows))
        return type(found)(
            [found.images[i] for i in order], found.member[order], found.sources[order], found.labels[order], rows, fair
        )


def erases(channel, strength):
    e = np.eye(4)[:, [channel]]
    return Erasure("last", Eraser(e, e.T, np.array([0.5, 0.5, 0.5, 0.1])), strength)


def test_losses_are_those_of_answers_counted_one_by_one(monkeypatch):
    monkeypatch.setattr(clean_losses, "READ_BATCH", 50)
    case, correction = ReadCase(300), erases(1, 1.5)
    draw = CleanDraw.of(case, np.arange(300) >= 40, 120, np.random.default_rng(0))
    found = draw.measure(correction)
    assert sorted(case.read_rows) == sorted(set(case.read_rows)) == sorted(draw.rows)
    assert (draw.rows >= 40).all() and (draw.rows % 7 > 0).all()
    assert draw.fair.sum() == 120
    assert set(draw.rows[case.labels[draw.rows] == TARGET]) == {
        row for row in range(40, 300) if row % 7 and row % 3 == TARGET
    }
    lost, own, falls = [], [], []
    for row, fair in zip(draw.rows, draw.fair, strict=True):
        y, z = (compute_logits(case.classifier, [case.whole.images[row]], one)[0] for one in (None, correction))
        label = case.labels[row]
        one = int(y.argmax() == label) - int(z.argmax() == label)
        if fair:
            lost.append(one)
            falls.append(softmax(y)[label] - softmax(z)[label])
        if label == TARGET:
            own.append(one)
    assert np.mean(lost) > 0.1
    assert (found.overall.value, found.overall.n) == (pytest.approx(np.mean(lost)), 120)
    assert (found.affected.value, found.affected.n) == (pytest.approx(np.mean(own)), len(own))
    assert found.fall.value == pytest.approx(np.mean(falls), abs=1e-6)
    error = np.std(falls, ddof=1) / np.sqrt(120)
    assert found.fall.high - found.fall.value == pytest.approx(1.96 * error, rel=1e-3)


def test_the_better_half_is_seen_on_twice_as_many_images_and_the_last_two_on_all(monkeypatch):
    monkeypatch.setattr(clean_losses, "FIRST_IMAGES", 60)
    case = ReadCase(700)
    draw = CleanDraw.of(case, np.ones(700, bool), 700, np.random.default_rng(1))
    strengths = (1.5, 0.25, 2.0, 0.0, 1.0, 0.75, 3.0)
    found = draw.compare([erases(1, s) for s in strengths])
    seen = {s: one.overall.n for s, one in zip(strengths, found, strict=True)}
    assert len(draw) == 600
    assert (seen[0.0], seen[0.25]) == (600, 600)
    assert sorted(seen.values()) == [60, 60, 60, 120, 120, 600, 600]
    assert min(seen, key=seen.get) > 1  # what loses most is left behind first
    assert sorted(case.read_rows) == sorted(draw.rows)  # each image is read once
    alone = draw.measure(erases(1, 0.25))
    assert alone == found[1]


def test_what_was_measured_is_not_measured_again_and_is_compared_on_the_same_images(monkeypatch):
    monkeypatch.setattr(clean_losses, "FIRST_IMAGES", 60)
    case = ReadCase(700)
    draw = CleanDraw.of(case, np.ones(700, bool), 700, np.random.default_rng(1))
    kept = [erases(1, s) for s in (0.0, 3.0, 1.0, 0.5)]
    first = draw.compare(kept)
    whole, part = [one.overall.n for one in first].count(600), first[1].overall.n
    assert (whole, part) == (2, 60)
    case.read_rows.clear()
    assert draw.compare(kept) == first and not case.read_rows
    fresh = erases(1, 0.25)
    (*again, new) = draw.compare([*kept, fresh])
    assert again == first and sorted(case.read_rows) == sorted(draw.rows)  # for the new one alone
    assert new == CleanDraw(case, draw.rows, draw.fair, draw.targets).measure(fresh)
    assert draw.measure(kept[1]).overall.n == 600


def test_of_several_classes_the_loss_is_that_of_the_one_that_loses_most_for_sure():
    case = ReadCase(600)
    many = np.ones(600, bool)
    found = [
        CleanDraw.of(case, many, 50, np.random.default_rng(2), targets).measure(erases(1, 1.5))
        for targets in ((0, 1, 2), (0,), (1,), (2,))
    ]
    together, *alone = (one.affected for one in found)
    assert [round(one.value, 1) for one in alone] == [0.0, 1.0, 0.0]  # the evidence of class 1 is erased
    assert min(together.n, alone[1].n) >= 50
    assert together.value == pytest.approx(alone[1].value, abs=0.1)
    own = {label: set(np.flatnonzero(case.clean & (case.labels == label))) for label in range(3)}
    rows = set(CleanDraw.of(case, many, 50, np.random.default_rng(2), (0, 1, 2)).rows)
    assert all(len(rows & some) >= 50 for some in own.values()) and len(rows) <= 200


def test_an_empty_draw_measures_nothing():
    case = ReadCase(50)
    draw = CleanDraw.of(case, np.zeros(50, bool), 10, np.random.default_rng(0))
    assert not len(draw)
    assert not draw.measure(erases(1, 1.0)).overall.n


@pytest.mark.parametrize(
    ("lost", "fall", "fall_affected", "beyond"),
    [(0, 0.004, 0.0, False), (0, 0.02, 0.0, True), (60, 0.0, 0.0, True), (8, 0.0, 0.0, False), (0, 0.0, 0.04, True)],
)
def test_a_loss_is_beyond_a_bound_by_the_lower_end_of_its_interval(lost, fall, fall_affected, beyond):
    """8 of 1,000 lost are .8 points, from .35 by Tango's interval; falls here are known to a point."""
    before, after = np.ones(1000, bool), np.arange(1000) >= lost
    none = paired_loss(before, before)
    falls = (Interval(value, value - 0.01, value + 0.01, 1000) for value in (fall, fall_affected))
    assert CleanLosses(paired_loss(before, after), none, *falls).is_beyond(Bounds(0.005, 0.02)) == beyond


def test_the_price_is_the_fall_and_that_of_the_class_where_it_is_shown():
    none = paired_loss(np.ones(9, bool), np.ones(9, bool))

    def price(value, low):
        return CleanLosses(none, none, Interval(0.003, 0, 0.006, 9), Interval(value, low, 2 * value - low, 9)).price

    assert price(0.1, -0.02) == 0.003
    assert price(0.1, 0.08) == pytest.approx(0.02)
    assert CleanLosses(none, none, Interval(-0.01, -0.02, 0, 9), NO_INTERVAL).price == 0


@pytest.mark.parametrize(
    ("n", "changed", "fall", "own", "free"),
    [
        (765, 0, 0.001, 0.01, True),  # none of n changed: less than z^2 / (n + z^2), which is .005 of 765
        (764, 0, 0.001, 0.01, False),
        (2000, 3, 0.001, 0.01, True),  # at most .0044 by Wilson's interval
        (2000, 4, 0.001, 0.01, False),  # .0051
        (2000, 0, 0.0026, 0.01, False),
        (2000, 0, 0.001, 0.021, False),  # of the class
        (2000, 0, float("nan"), 0.01, False),
    ],
)
def test_a_correction_is_free_by_the_upper_ends_of_what_changes_either_way(n, changed, fall, own, free):
    """Lost and won ones count alike here: with as many won as lost nothing is lost."""
    before, after = np.ones(n, bool), np.ones(n, bool)
    before[: changed // 2] = after[changed // 2 : changed] = False
    overall, none = paired_loss(before, after), paired_loss(before, before)
    one = CleanLosses(overall, none, Interval(fall - 0.001, 0.0, fall, n), Interval(0.0, 0.0, own, 90))
    assert one.is_free(Bounds(0.005, 0.02)) == free
    assert not CleanLosses(overall, none, one.fall, NO_INTERVAL).is_free(Bounds(0.005, 0.02))  # none of the class
