"""Words of corrections, against their plain meaning and the grammar of a shell."""

import shlex

from klarsicht.audit.results.correction_words import (
    CLEANINGS,
    CleaningKind,
    describe_counts,
    describe_lost,
    name_folders,
)


def test_every_verdict_on_a_correction_has_a_label_a_claim_and_a_next_step():
    assert CLEANINGS.keys() == set(CleaningKind)
    for texts in ([kind.label for kind in CleaningKind], [kind.claim for kind in CleaningKind]):
        assert len(set(texts)) == len(CleaningKind)
    assert all(len(kind.label.split()) <= 5 and kind.advice.endswith(".") for kind in CleaningKind)


def test_a_next_step_names_the_folders_that_are_known_as_a_shell_takes_them():
    named = name_folders(CleaningKind.UNPROVEN.advice, "my run", "cleaned")
    words = shlex.split(named.split("`")[1])
    assert words == ["klarsicht", "audit", "evaluate", "my run", "--correction", "cleaned", "--test", "IMAGES"]
    assert name_folders("Use the corrected model.", "run", "cleaned") == "Use the corrected model."


def test_a_loss_below_zero_is_a_gain_with_its_ends_turned():
    assert describe_lost(-0.9073, -0.944, -0.8504) == "gains 90.73 points (85.04 to 94.40)"
    assert describe_lost(0.0, -0.001, 0.011) == "loses 0.00 points (-0.10 to 1.10)"


def test_counts_of_treated_images_are_a_clause():
    assert describe_counts({"keep": 1200, "drop": 1}) == "1 image left out, 1,200 unchanged"
    assert describe_counts({"keep": 3}) == "3 images unchanged"
