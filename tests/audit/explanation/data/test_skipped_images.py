"""Bound on skipped images. Oracle: the sentence of the option, written out with fractions."""

from fractions import Fraction

import pytest

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.skipped_images import MOST_SKIPPED, SkippedImages, most_skipped
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.ground.errors import TooManySkipped


@pytest.mark.parametrize("percent", [0, 1, 10, 29, 57, 100])
def test_at_most_the_share_is_skipped_and_one_image_where_any_may_be(percent):
    for n in range(1, 400):
        largest = max(k for k in range(n + 1) if Fraction(k, n) <= Fraction(percent, 100))
        assert most_skipped(n, percent / 100) == max(largest, percent > 0)


def corpus(labels, separator=""):
    names = [f"{i}.png" for i in range(len(labels))]
    return Corpus(names, names, tuple(labels), separator=separator)


def test_rows_are_counted_once_and_by_label():
    labels = ["a"] * 30 + ["b"] * 10
    tally = SkippedImages(corpus(labels), 0.1)
    for _ in range(2):
        tally.add({0: "x", 1: "x", 39: "y"})
    with pytest.raises(TooManySkipped, match=r"2 of 10 of class b; got 39\.png: y"):
        tally.add({38: "z"})
    with pytest.raises(TooManySkipped, match="5 of 40 of all images"):
        SkippedImages(corpus(labels), 0.1).add(dict.fromkeys((0, 1, 2, 3, 39), "x"))


def test_an_image_of_several_labels_counts_for_each():
    cells = ["a;b"] * 2 + ["a"] * 18
    with pytest.raises(TooManySkipped, match="2 of 2 of class b"):
        SkippedImages(corpus(cells, ";"), 0.1).add({0: "x", 1: "x"})


def test_the_share_is_that_of_the_option():
    assert AuditSettings.model_fields["max_skipped"].default == MOST_SKIPPED
    assert "max_skipped" not in AuditSettings(model="m", data="d", max_skipped=0.5).to_record()
