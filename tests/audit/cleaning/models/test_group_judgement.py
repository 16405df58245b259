"""Verdicts by groups, on figures written by hand."""

from dataclasses import replace

import pytest
from tests.audit.cleaning.models.test_evaluation import judged
from tests.audit.cleaning.models.test_group_accuracy import compared

from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.models.group_accuracy import HELD_OUT_PICTURES
from klarsicht.audit.cleaning.models.group_judgement import GroupJudgement
from klarsicht.audit.cleaning.models.judgement import Judgement
from klarsicht.audit.results.correction_words import CleaningKind
from klarsicht.ground.errors import EffectRemains, HarmExceeded


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ((100, 24, 20, 100), (98, 96, 95, 99), CleaningKind.CLEAN),
        ((100, 24, 20, 100), (100, 45, 41, 100), CleaningKind.REMAINS),  # gains, and most of the difference is left
        ((100, 24, 20, 100), (100, 30, 26, 100), CleaningKind.REMAINS),  # no gain beyond both intervals
        ((100, 60, 60, 100), (60, 90, 90, 60), CleaningKind.REMAINS),  # the other way round
        ((99, 60, 98, 99), (84, 85, 83, 84), CleaningKind.HARMFUL),
    ],
)
def test_clean_needs_the_worst_group(before, after, kind):
    comparison = compared(before, after)
    judgement = GroupJudgement((compared((1, 1, 1, 1), (1, 1, 1, 1), 2, HELD_OUT_PICTURES), comparison), Bounds())
    assert judgement.kind == kind and judgement.clean == (kind == CleaningKind.CLEAN)
    if not judgement.clean:
        with pytest.raises(HarmExceeded if kind == CleaningKind.HARMFUL else EffectRemains, match="audit explore"):
            judgement.check()


def test_a_part_of_every_image_is_not_clean_while_the_worst_group_does_not_gain():
    judgement = judged(0.0).judgement
    assert isinstance(judgement, Judgement) and judgement.clean
    gains, stays = (
        replace(judgement, groups=compared((100, 24, 20, 100), after))
        for after in ((98, 96, 95, 99), (100, 45, 41, 100))
    )
    assert gains.clean and not stays.clean
    assert stays.kind == CleaningKind.REMAINS and "20.0 (13.3 to 28.9) % before, 41.0" in stays.reason
