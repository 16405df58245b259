"""Words of numbers and of detections, against their plain meaning."""

import pytest

from klarsicht.audit.results.words import (
    SEEN,
    VERDICTS,
    VerdictKind,
    describe_detector,
    describe_effect,
    describe_seen,
    format_count,
    format_p,
)
from klarsicht.audit.verdicts.detectors.bank import ALL_DETECTORS


@pytest.mark.parametrize("p", [0.9996, 0.05, 0.0126, 0.0005, 0.0004999, 1e-9])
def test_a_p_is_never_shown_as_zero_and_else_within_half_of_the_last_digit(p):
    shown = format_p(p)
    bound = float(shown.removeprefix("<"))
    assert (p < bound) if shown.startswith("<") else (bound > 0 and abs(bound - p) <= 0.0005)


def test_one_thing_is_no_plural():
    assert [format_count(n, "label") for n in (0, 1, 2, 2000)] == ["0 labels", "1 label", "2 labels", "2,000 labels"]


def test_every_detector_has_words():
    assert set(SEEN) == ALL_DETECTORS.keys()
    assert describe_seen("veil 0.002") == SEEN["veil"] and describe_seen("unheard of") == "unheard of"


@pytest.mark.parametrize(
    ("detector", "setting"),
    [
        ("fine-grey 50 0.85", " (50 px, match at least 0.85)"),
        ("template 32", " (32 px)"),
        ("veil 0.002", " (beyond 99.8 % of other images)"),
        ("noise 0.0005", " (beyond 99.95 % of other images)"),
        ("borders", ""),
        ("unheard of 5", "unheard of 5"),
    ],
)
def test_a_detector_is_described_with_its_setting(detector, setting):
    assert describe_detector(detector) == SEEN.get(detector.split()[0], "") + setting


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ((2.9, 0.17, 0.03), "it adds 2.9 logits and turns 17 of 100 into glioma (3 without)"),
        ((0.6, 0.004, 0.0), "it adds 0.60 logits"),
        ((-0.25, 0.05, 0.01), "it takes away 0.25 logits and turns 5 of 100 into glioma (1 without)"),
        ((0.001, 0.05, 0.01), "it leaves the score as it is and turns 5 of 100 into glioma (1 without)"),
        ((9.96, 0.03, 0.17), "it adds 10.0 logits"),
    ],
)
def test_an_effect_is_a_clause_that_can_be_mailed(figures, words):
    assert describe_effect(*figures, "glioma") == words


def test_every_kind_of_verdict_has_words_of_its_own():
    assert VERDICTS.keys() == set(VerdictKind)
    assert len({kind.words for kind in VerdictKind}) == len({kind.label for kind in VerdictKind}) == len(VerdictKind)
    assert all(len(kind.label.split()) <= 5 for kind in VerdictKind)
