"""Sentences on a screening, by hand; the verdict never denies the figures before it."""

from dataclasses import replace

import pytest

from klarsicht.audit.results.specificity import Specificity, describe_screening

ENTRY = {"class": "carton", "size": 47, "n": 400, "effect": 3.54, "effect_low": 3.24, "effect_high": 3.85}


def test_a_screening_is_said_in_sentences_with_its_figures():
    assert describe_screening({"entry": ENTRY, "p": 0.008, "level": 0.05}) == (
        "47 of 400 images form a group. What they share, inserted into the other images, adds 3.5 logits (3.2 to 3.9) "
        "to carton, p 0.008: the model follows this group. Look at the pictures: it may be an artifact, or belong to "
        "the class."
    )


@pytest.mark.parametrize(("p", "low", "follows"), [(0.008, 3.2, True), (0.2, 3.2, False), (0.008, -0.1, False)])
def test_a_group_is_followed_where_p_and_the_interval_say_so(p, low, follows):
    said = describe_screening({"entry": ENTRY | {"effect_low": low}, "p": p, "level": 0.05})
    assert ("the model follows this group is not shown" in said) is not follows


def test_other_outputs_are_named_with_their_effects():
    one = Specificity("shopping basket", -0.22, -0.5, 0.07, 132.4, 3.5, 3.37, "moped", 4.81, 9)
    assert one.describe(1000) == (
        "Of the other outputs, shopping basket rises most with it. The class rises by 0.22 logits less (-0.07 to "
        "0.50), which may be chance.",
        "In the median image, the class becomes 132 times as probable. With the same places of other images, it "
        "becomes 3.5 times as probable.",
        "For every output, a group was searched for in the same way. By this search, the class rises by 3.37 logits. 9 "
        "of 1,000 outputs rise more; of the others, moped rises most, by 4.81 logits.",
    )
    assert (
        replace(one, margin=0.9, margin_low=0.4, margin_high=1.4)
        .describe(1000)[0]
        .endswith("The class rises by 0.90 logits more (0.40 to 1.40).")
    )
