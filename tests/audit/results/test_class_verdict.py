"""Kinds and order of verdicts on classes, by their figures, and what is stored of them."""

from dataclasses import replace

import pytest

from klarsicht.audit.results.class_verdict import DetectionResult, UseResult, Verdict, order_verdicts
from klarsicht.audit.results.rows import NO_EFFECT
from klarsicht.audit.results.verdict_lines import VerdictLine
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import VerdictKind

USE = UseResult("veil 0.002", "12 levels of light", 0.1, -0.1, 0.3, 0.4, 0.6, 3, 0.0, 0.0, 0.0, 1.0, "light")
FOUND = Verdict(
    "carton", 4, 90, 0, DetectionResult("veil 0.002", 9.0, 5.0, 0.01, 0.1, 0.03), (1, 2), ("a", "b"), USE,
    artifactual=True, poisoned=False,
)  # fmt: skip


def test_pixels_of_the_images_themselves_need_not_be_recognised_if_their_effect_matters():
    strong = replace(USE, how="any place", shift=2.0, low=1.9, high=2.1, covered=0.97, explained=1.0, recognition=0.04)
    assert strong.matters and strong.recognisable and strong.tested
    weak = replace(strong, shift=0.0, low=-0.1, high=0.1)
    assert not weak.matters and not weak.tested  # that it does nothing says little if it is not recognised
    assert not replace(strong, how="12 levels of light").recognisable
    chosen = replace(strong, how="known pixels")  # by the embedding: what it then does not know is something else
    assert not chosen.recognisable and not chosen.tested and replace(chosen, recognition=0.5).tested


@pytest.mark.parametrize(
    ("covered", "explained", "recognition", "verdict"),
    [
        (0.9, None, None, VerdictKind.PRESENT),
        (None, None, None, VerdictKind.PRESENT),
        (0.5, 0.5, 0.5, VerdictKind.PRESENT),
        (0.49, None, 1.0, VerdictKind.UNTESTED),
        (0.9, 0.1, None, VerdictKind.UNTESTED),
        (None, 0.1, None, VerdictKind.UNTESTED),
        (0.94, None, 0.49, VerdictKind.UNTESTED),  # statistics match, and the artifact is not there
    ],
)
def test_use_that_was_not_shown_is_tested_only_where_most_was_put_on(covered, explained, recognition, verdict):
    found = replace(FOUND, use=replace(USE, covered=covered, explained=explained, recognition=recognition))
    assert found.kind is verdict is found.kind_of_class
    assert found.to_json()["tested"] == (verdict is VerdictKind.PRESENT)
    assert found.use.recognisable == (recognition != 0.49)
    used = replace(found, poisoned=True, used=True)
    assert used.kind is VerdictKind.POISONED is used.kind_of_class and used.tested
    assert replace(found, artifactual=False).kind is VerdictKind.NOTHING
    assert Verdict.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("recognition", "remainder", "is_content"),
    [(None, 0.65, True), (None, 0.64, False), (None, None, False), (0.9, 0.99, False), (0.1, 0.99, False)],
)
def test_content_is_what_the_model_still_sees_and_the_embedding_never_did(recognition, remainder, is_content):
    use = replace(USE, recognition=recognition, remainder=remainder)
    assert use.is_content is is_content
    used = replace(FOUND, use=use, used=True, poisoned=not is_content)
    assert used.kind is used.kind_of_class is (VerdictKind.CONTEXT if is_content else VerdictKind.POISONED)
    assert Verdict.from_json(used.to_json()) == used


@pytest.mark.parametrize(
    ("separation", "tried", "change", "is_content"),
    [
        (0.89, "embedding 0.002", "shared", True),
        (0.9, "embedding 0.002", "shared", False),
        (0.5, "evidence 50 0.9", "tile", False),  # windows of the images themselves
        (0.5, "noise 0.02", "shared", False),  # noise is one of the file, whatever an embedding sees
        (None, "colours", "shared", False),
    ],
)
def test_what_only_the_model_sees_is_content(separation, tried, change, is_content):
    use = replace(USE, separation=separation, tried=tried, change=change, remainder=0.5)
    assert use.is_content is is_content and not replace(use, recognition=0.6).is_content
    assert replace(use, remainder=0.9).is_content is (separation != 0.9)  # the model sees content beside a mark as well
    record = replace(FOUND, use=use).to_json()
    assert Verdict.from_json(record) == replace(FOUND, use=use)
    del record["separation"]  # as an earlier version wrote it
    assert Verdict.from_json(record).use == replace(use, separation=None)


UNKNOWN = "Whether it is a mark, a processing of the files or what the images show is not known: look at them."
IMITATED = "It is a mark at one place, and a change of whole images acts like it."
SAME_PLACES = "It is a mark: the same change at the same places."
OWN_PLACES = "It is a mark: parts of the images, at places of their own."


@pytest.mark.parametrize(
    ("how", "recognition", "place", "told"),
    [
        ("own place", None, "top right", "It is a mark: the same pixels."),
        ("known pixels", 0.9, "", OWN_PLACES),
        ("shared rows", 0.9, "", SAME_PLACES),
        ("shared rows", 0.9, "top right", SAME_PLACES),
        ("shared pixels", 0.9, "at varying places", OWN_PLACES),
        ("shared aligned", 0.9, "", OWN_PLACES),
        ("shared pixels", None, "at varying places", UNKNOWN),
        ("shared pixels", None, "", UNKNOWN),
        ("shared tones", None, "", UNKNOWN),
        ("shared tones", 0.9, "", "It is a processing of the files, wherever it falls."),
        ("12 levels of light", None, "", "It is a processing of the files, wherever it falls."),
    ],
)
def test_a_headline_says_a_mark_at_the_same_places_only_where_they_are_the_same(how, recognition, place, told):
    change = "shared" if how.startswith("shared") else "light"
    use = replace(USE, how=how, tried="evidence 50 0.9", change=change, recognition=recognition, shift=2.0, low=1.9)
    found = replace(FOUND, use=use, used=True, poisoned=True)
    assert VerdictLine(1, 1, "carton", found, 10, 0.05).headline_at(place).endswith(told)


@pytest.mark.parametrize(
    ("remainder", "separation", "evidence"),
    [
        (0.78, 0.5, "with the same change in other images, the model still tells the two apart in 78 % of pairs (50 % "
         "by chance)"),
        (0.53, 0.56, "the embedding, which sees only these two, tells the images from others in 56 % of pairs (from "
         "90 % on it would see one)"),
    ],
)  # fmt: skip
def test_a_headline_says_why_it_is_content(remainder, separation, evidence):
    use = replace(USE, how="shared columns", tried="channel-correlation", change="shared", shift=2.0, low=1.9)
    found = replace(FOUND, use=replace(use, remainder=remainder, separation=separation), used=True, poisoned=False)
    told = f"It is content, neither a mark nor a processing of the files: {evidence}."
    assert VerdictLine(1, 1, "carton", found, 10, 0.05).headline_at("at varying places").endswith(told)


@pytest.mark.parametrize(
    ("low", "shift", "high", "verdict"),
    [
        (0.33, 0.81, 1.29, VerdictKind.UNTESTED),
        (0.5, 0.81, 1.12, VerdictKind.PRESENT),  # it matters, and its p is chance
        (0.1, 0.3, 0.49, VerdictKind.PRESENT),
    ],
)
def test_an_effect_that_may_matter_is_not_denied(low, shift, high, verdict):
    use = replace(USE, how="most known pixels", low=low, shift=shift, high=high, recognition=0.95)
    found = replace(FOUND, use=use)
    assert found.kind is verdict
    told = VerdictLine(1, 1, "carton", found, 10, 0.05).headline
    size = "+0.81 logits (95 % interval +0.33 to +1.29)"
    doubt = f"is not known: pasted on images of other classes, it changes the score by {size}, which may count or not."
    assert told.endswith(doubt) == (verdict is VerdictKind.UNTESTED)


@pytest.mark.parametrize(
    ("covered", "explained", "recognition", "told"),
    [
        (
            0.79, 0.0, 0.4,
            "covers 79 % of the difference in appearance and 0 % of the difference in score and is recognised in "
            "40 % of these.",
        ),
        (0.2, 0.9, None, "covers 20 % of the difference in appearance and 90 % of the difference in score."),
        (None, 0.3, None, "covers 30 % of the difference in score."),
        (None, None, 0.1, "is recognised in 10 % of these."),
    ],
)  # fmt: skip
def test_a_headline_says_how_much_was_inserted(covered, explained, recognition, told):
    found = replace(FOUND, use=replace(USE, covered=covered, explained=explained, recognition=recognition))
    assert VerdictLine(1, 1, "carton", found, 10, 0.05).headline.endswith(f"applied to other images {told}")


def test_what_was_never_put_on_is_not_tested():
    nothing = UseResult.of(NO_EFFECT, 1.0)
    assert replace(FOUND, use=nothing).kind is VerdictKind.UNTESTED and not nothing.tried
    assert (nothing.covered, nothing.explained, nothing.recognition, nothing.remainder) == (
        None,
    ) * 4  # JSON has no NaN


def test_the_p_that_decides_is_the_larger_one():
    record = FOUND.to_json()
    assert FOUND.detection.p == record["p"] == 0.03
    assert {name: p for name, p in record.items() if name[:2] in ("p", "p_")} == {
        "p": 0.03, "p_rank": 0.01, "p_own": 0.03, "p_use": USE.p_use, "p_tiles": USE.p_tiles,
    }  # fmt: skip


def harming(target, flips, control=0.0, p_rank=0.01, **claims):
    use = replace(USE, flips=flips, flips_control=control)
    return replace(FOUND, target=target, use=use, detection=replace(FOUND.detection, p_rank=p_rank), **claims)


def test_of_equal_verdicts_the_most_harmful_comes_first():
    """Harm is the share of images of other classes that become the class, beyond the control; z and p decide nothing
    but ties. The effect of what is no artifact is chance."""
    used, rare = {"poisoned": True, "used": True}, harming(9, 0.5)
    verdicts = [
        harming(1, 0.3, 0.25), harming(2, 0.2), harming(3, 0.9, 0.85, **used), harming(4, 0.1, **used),
        harming(5, 0.9, artifactual=False, p_rank=0.7), harming(6, 0.0, artifactual=False, p_rank=0.6),
        harming(7, 0.2, p_rank=0.001), harming(8, 0.0, further=(rare,)),
    ]  # fmt: skip
    assert [one.target for one in order_verdicts(verdicts)] == [4, 3, 8, 7, 2, 1, 6, 5]
    harm = [one.to_json()["harm"] for one in verdicts]
    assert harm == pytest.approx([0.05, 0.2, 0.05, 0.1, 0, 0, 0.2, 0.5])


def test_a_class_of_which_a_further_artifact_is_used_comes_first():
    rare = replace(FOUND, target=9, further=(replace(FOUND, target=9, poisoned=True, used=True),))
    assert [one.target for one in order_verdicts([FOUND, rare])] == [9, 4]
    assert rare.kind is VerdictKind.PRESENT  # that of its frequent artifact
    assert rare.kind_of_class is VerdictKind.POISONED is not FOUND.kind_of_class
    assert "1 of them used" in repr(Quantification((rare, FOUND), 0.01, 0.05))


@pytest.mark.parametrize(("covered", "explained", "partial"), [(0.21, 0.7, True), (0.9, 0.2, True), (0.9, None, False)])
def test_a_used_artifact_that_was_inserted_in_part_may_do_more(covered, explained, partial):
    """A mark of which a fifth was pasted turned 11 of 100 pictures, and the whole mark 61: both figures are needed."""
    use = replace(USE, tried="fine 90 0.8", how="own place", covered=covered, explained=explained)
    found = replace(FOUND, use=use, artifactual=True, used=True, poisoned=True)
    said = VerdictLine(1, 1, "carton", found, 10, 0.05).headline
    assert "The model uses it" in said and ("It may do more" in said) == partial
    assert (f"covers {100 * covered:.0f} % of the difference in appearance" in said) == partial


ONE_PLACE = "It is a mark: parts of the images, at one place."


@pytest.mark.parametrize(
    ("detector", "how", "place", "told"),
    [
        ("texture 32 0.95", "shared aligned", "bottom", ONE_PLACE),  # a printed name
        ("texture 32 0.95", "shared aligned", "at varying places", OWN_PLACES),
        ("embedding 0.01", "known pixels", "bottom", ONE_PLACE),
        ("colours", "shared pixels", "", UNKNOWN),  # a coat
        ("binary-patterns", "shared aligned", "", UNKNOWN),
        ("template 0.9", "shared pixels", "", SAME_PLACES),
        ("embedding 0.01", "shared pixels", "", SAME_PLACES),
        ("colours", "known pixels", "", OWN_PLACES),
        ("colours", "shared tones", "", "It is a processing of the files, wherever it falls."),
        ("texture 32 0.95", "shared frequencies", "top left", IMITATED),  # a red patch in one corner
        (
            "texture 32 0.95",
            "shared frequencies",
            "at varying places",
            "It is a processing of the files, wherever it falls.",
        ),
    ],
)
def test_a_mark_lies_where_its_detection_does_and_a_statistic_of_whole_images_says_nothing_of_places(
    detector, how, place, told
):
    use = replace(USE, how=how, tried=detector, change="shared", recognition=0.9, shift=2.0, low=1.9)
    found = replace(FOUND, use=use, used=True, poisoned=True, detection=replace(FOUND.detection, sign=detector))
    assert VerdictLine(1, 1, "carton", found, 10, 0.05).headline_at(place).endswith(told)


def test_an_artifact_that_could_not_be_tested_and_acts_where_it_is_cut_out_is_used():
    untested = replace(FOUND, use=replace(USE, covered=0.25))
    acts = replace(untested, cut_out="pasted into 9 images of b, it lowers a by 1.00 logits (0.50 to 1.50)")
    assert untested.kind is VerdictKind.UNTESTED and acts.kind is VerdictKind.ACTS is acts.kind_of_class
    told = VerdictLine(1, 1, "carton", acts, 2, 0.05).headline
    assert told.endswith("image. Pasted into 9 images of b, it lowers a by 1.00 logits (0.50 to 1.50).")
    assert Verdict.from_json(acts.to_json()) == acts
    earlier = {key: value for key, value in untested.to_json().items() if key != "cut_out"}
    assert Verdict.from_json(earlier) == untested
    assert replace(acts, artifactual=False, shared=True).kind is VerdictKind.SHARED_AND_USED
