"""Words of numbers and of detections, against their plain meaning."""

import pytest

from klarsicht.audit.results.words import SEEN, VERDICTS, VerdictKind, describe_sign, format_count, format_p
from klarsicht.audit.verdicts.detectors.bank import DETECTORS, FEW_CLASS_DETECTORS


@pytest.mark.parametrize("p", [0.9996, 0.05, 0.0126, 0.0005, 0.0004999, 1e-9])
def test_a_p_is_never_shown_as_zero_and_else_within_half_of_the_last_digit(p):
    shown = format_p(p)
    bound = float(shown.removeprefix("<"))
    assert (p < bound) if shown.startswith("<") else (bound > 0 and abs(bound - p) <= 0.0005)


def test_one_thing_is_no_plural():
    assert [format_count(n, "label") for n in (0, 1, 2, 2000)] == ["0 labels", "1 label", "2 labels", "2,000 labels"]


def test_every_detector_has_words():
    assert set(SEEN) == DETECTORS.keys() | FEW_CLASS_DETECTORS.keys()
    assert describe_sign("veil 0.002") == SEEN["veil"] and describe_sign("unheard of") == "unheard of"


def test_every_kind_of_verdict_has_words_of_its_own():
    assert VERDICTS.keys() == set(VerdictKind)
    assert len({kind.words for kind in VerdictKind}) == len({kind.label for kind in VerdictKind}) == len(VerdictKind)
    assert all(len(kind.label.split()) <= 5 for kind in VerdictKind)
