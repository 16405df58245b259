"""Sentences on content, by hand; the verdict needs a group that stands out and a rise by its interval."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from klarsicht.audit.results.content_groups import (
    ContentEffect,
    ContentGroup,
    ContentGroups,
    ContentPicture,
    describe_place,
    format_times,
)
from klarsicht.audit.results.words import ContentKind
from klarsicht.numerics.statistics.intervals import Interval
from klarsicht.numerics.statistics.logits import EXCLUSIVE

PICTURES = tuple(ContentPicture(f"p/{i}.png", "other", i, 0.2, (0.3, 0.35, 0.4, 0.3)) for i in range(6))
RISE, TURNED, CONTROL = Interval(3.0, 2.0, 4.0, 100), Interval(0.31, 0.23, 0.41, 100), Interval(0.02, 0.0, 0.07, 100)
FREIGHT = ContentGroup("freight car", 4, 650, PICTURES, 0.01, 5, 0.05, ContentEffect(RISE, TURNED, CONTROL))


def test_a_class_that_relies_on_content_is_said_with_its_figures():
    assert FREIGHT.describe() == (
        "freight car: 6 pictures of other things share content that acts at their middle (p 0.010 among random groups "
        "of the pile). Put on other pictures it turns 31 of 100 into freight car (2 with other content), and makes "
        "freight car 20 times (7.4 to 55) as probable. The class relies on context. Look at the pictures: only you "
        "can say whether this content belongs to it."
    )


@pytest.mark.parametrize(
    ("p", "liked", "low", "kind"),
    [
        (0.01, 6, math.log(2), ContentKind.RELIES),
        (0.05, 4, 2.0, ContentKind.RELIES),
        (0.06, 6, 2.0, ContentKind.NO_GROUP),
        (0.01, 3, 2.0, ContentKind.NO_GROUP),
        (0.01, 4, 0.6, ContentKind.NO_RISE),
        (0.01, 6, -1.0, ContentKind.NO_RISE),
    ],
)
def test_the_verdict_needs_a_group_that_is_alike_and_liked_and_a_rise(p, liked, low, kind):
    one = replace(FREIGHT, p=p, likings=liked, effect=replace(FREIGHT.effect, rise=replace(RISE, low=low)))
    assert one.kind is kind
    assert ("relies on context" in one.describe()) is (kind is ContentKind.RELIES)


def test_without_pictures_nothing_is_claimed():
    one = ContentGroup("owl", 1, 12)
    assert one.kind is ContentKind.NO_GROUP and "too few" in one.describe() and one.effect_texts == ("", "")


def test_the_effect_is_that_of_probabilities_beyond_the_control():
    """Logits of two outputs: log p of the first is -log(1 + exp(b - a))."""
    own, control = np.array([[2.0, 0.0], [0.0, 0.0], [3.0, 0.0]]), np.array([[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    effect = ContentEffect.of_logits(own, control, 0, EXCLUSIVE, np.random.default_rng(0))
    p = [-np.log1p(np.exp(-y[:, 0])) for y in (own, control)]
    assert effect.rise.value == pytest.approx((p[0] - p[1]).mean())
    assert effect.rise.low <= effect.rise.value <= effect.rise.high
    assert effect.turned.value == pytest.approx(1.0) and effect.turned_control.value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((0.0, 0.7, 0.2, 0.3), "their top right"),
        ((0.4, 0.4, 0.2, 0.2), "their middle"),
        ((0.8, 0.4, 0.2, 0.2), "their bottom"),
        ((0.0, 0.0, 0.9, 0.8), "nearly the whole of each"),
    ],
)
def test_a_place_is_said_in_words(place, words):
    assert describe_place([replace(one, place=place) for one in PICTURES]) == words


def test_places_without_a_majority_vary():
    places = [(0.0, 0.0, 0.2, 0.2), (0.4, 0.4, 0.2, 0.2)]
    some = [replace(one, place=places[i % 2]) for i, one in enumerate(PICTURES)]
    assert describe_place(some) == "varying places"


def test_what_a_class_relies_on_comes_first_and_is_read_again():
    chance, untold = replace(FREIGHT, p=0.4, target=1), ContentGroup("owl", 2, 12)
    found = ContentGroups.of([untold, chance, FREIGHT])
    assert [one.target for one in found] == [4, 1, 2]
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert tuple(map(ContentGroup.from_json, record)) == found.groups
    assert record[0]["verdict"] == "relies-on-context" and record[0]["class"] == "freight car"


@pytest.mark.parametrize(
    ("nats", "told"),
    [((3.0, 2.0, 4.0), "20 times (7.4 to 55)"), ((4.61, 4.04, 5.2), "100 times (57 to 180)"),
     ((0.0, -0.56, 9.3), "1 times (0.57 to 11,000)")],
)  # fmt: skip
def test_factors_are_told_by_two_digits(nats, told):
    assert format_times(Interval(*nats, 30)) == told
