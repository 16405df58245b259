"""Order, mirrored pairs and sentences of parts, from evidence made by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from klarsicht.audit.results.part_comparison import LEAST_EXCESS, NaturalParts, NaturalSets
from klarsicht.audit.results.sufficiency import (
    PART_COLUMNS,
    ClassProfile,
    PartEvidence,
    PartLine,
    Sufficiency,
    order_profiles,
)
from klarsicht.audit.results.words import ESTIMATED_REGION, FRAMING_NAMES, PART_NAMES
from klarsicht.audit.verdicts.interventions.framings import FRAMINGS
from klarsicht.audit.verdicts.interventions.image_parts import IMAGE_PARTS, REGION_PARTS


def evidence_of(part, *, p=0.5, noted=False, **fields):
    """Evidence of a part that nothing follows, but for the fields that are given."""
    plain = {
        "area": 0.9, "low": 0.8, "high": 1.0, "rest": 0.9, "rest_low": 0.8, "rest_high": 1.0, "others": None,
        "shift": 0.0, "shift_low": -0.1, "shift_high": 0.1, "taken": 0.1, "taken_control": 0.1, "taken_low": -0.1,
        "stays": 0.9, "stays_control": 0.9, "lost_low": -0.1,
    }  # fmt: skip
    return PartEvidence(part, **plain | fields, p=p, noted=noted)


COVID = evidence_of(
    "border", noted=True, area=0.98, low=0.97, high=0.99, rest=0.95, shift=2.0, shift_low=1.0, shift_high=3.0,
    taken=0.8, taken_control=0.35, taken_low=0.3, stays=0.11, stays_control=0.78, lost_low=0.5,
)  # fmt: skip


def profile_of(name, target, *parts, whole=0.99):
    return ClassProfile(name, target, 40, whole, 0.95, 1.0, parts)


def test_a_followed_part_is_said_with_what_the_data_offer_and_what_the_network_does():
    said = COVID.describe("Covid", 0.99)
    assert said == (
        "By the border alone, Covid can be recognised with AUC 0.98 (0.97 to 0.99); by whole images with 0.99, without "
        "it 0.95. The network follows it: with the border of other classes, 11 % of the images of Covid stay Covid "
        "(78 % with that of other images of Covid). With the border of Covid, 80 % of other images become Covid (35 % "
        "with that of their own class)."
    )


@pytest.mark.parametrize(
    ("fields", "follows"),
    [
        ({}, False),
        ({"shift": 1.0, "shift_low": 0.6}, True),
        ({"shift": 1.0, "shift_low": 0.4}, False),
        ({"taken": 0.4, "taken_low": 0.1}, True),
        ({"stays": 0.4, "lost_low": 0.1}, True),
        ({"stays": None, "stays_control": None, "lost_low": None}, False),
    ],
)
def test_a_part_is_followed_by_the_lower_end_of_any_of_three(fields, follows):
    one = evidence_of("spectrum", **fields)
    assert one.is_followed == follows
    assert ("is not shown to follow it" in one.describe("a", 1.0)) != follows


def test_parts_are_ordered_by_the_images_that_change_sides_then_by_rise():
    parts = (
        evidence_of("colours", shift=9.0),
        evidence_of("border", taken=0.3),
        evidence_of("spectrum", stays=0.2),
        evidence_of("resolution", noted=True),
        evidence_of("corners", shift=8.0),
    )
    order = [one.part for one in profile_of("a", 0, *parts).ordered]
    assert order == ["resolution", "spectrum", "border", "colours", "corners"]


def test_two_classes_have_one_line_a_part_and_more_have_their_own():
    mirrored = replace(COVID, shift=-2.0, taken=0.89, taken_control=0.22, stays=0.2, stays_control=0.65)
    pair = Sufficiency(order_profiles([profile_of("other", 0, mirrored), profile_of("Covid", 1, COVID)]), 0.05, 40)
    (line,) = pair.lines
    assert line.profile.name == "Covid" and pair.headlines == (line,)
    three = Sufficiency((*pair.profiles, profile_of("third", 2, evidence_of("border"))), 0.05, 40)
    assert len(three.lines) == 3 and [one.profile.name for one in three.headlines] == ["Covid", "other"]


def test_the_table_has_a_cell_in_each_column_and_json_gives_the_record_back():
    found = Sufficiency((profile_of("a", 0, COVID, evidence_of("corners", stays=None, stays_control=None)),), 0.05, 40)
    for line in found.profiles[0].lines:
        assert len(line.texts) == len(PART_COLUMNS)
    cells = dict(zip(PART_COLUMNS, found.profiles[0].lines[0].texts, strict=True))
    assert cells["stays"] == "11 % (78 %)" and cells["taken"] == "80 % (35 %)" and cells["noted"] == "flagged"
    record = json.loads(json.dumps(found.profiles[0].to_json()))
    assert ClassProfile.from_json(record) == found.profiles[0]
    assert found._repr_html_().count("<tr") == 2


def test_a_claim_says_without_figures_what_tells_the_class_and_whether_the_model_follows_it():
    profile = profile_of("a", 0, COVID)
    still = evidence_of("spectrum", noted=True)
    border, texture, spectrum = (
        PartLine(profile, one).claim for one in (COVID, replace(COVID, part="fine texture"), still)
    )
    assert border == "a can be recognised by the border alone, and the model does so."
    assert texture.startswith("a can be recognised by the fine texture alone, and the model does so. So the model ")
    assert spectrum == "a can be recognised by the spectrum alone, which the model is not shown to do."
    assert not any(character.isdigit() for character in border + texture + spectrum)


def test_a_framing_is_said_in_words_of_its_own_and_has_a_headline_beside_that_of_the_parts():
    taken = {"taken": 0.75, "taken_control": 0.005, "taken_low": 0.6, "stays": 0.98, "stays_control": 0.98}
    one = evidence_of("enlarged", noted=True, area=None, low=None, high=None, rest=None, **taken)
    pair = Sufficiency((profile_of("Covid", 0, one, COVID), profile_of("other", 1, one, COVID)), 0.05, 40)
    first, second = (line.headline for line in pair.headlines)
    assert first == (
        "Enlarged by 4/3, 75 % of other images are predicted as Covid (0.5 % before), and 98 % of the images of Covid "
        "(98 %). Shown were 40 images of Covid."
    )
    assert second.startswith("By the border alone")
    cells = dict(zip(PART_COLUMNS, pair.lines[0].texts, strict=True))
    assert cells["area"] == cells["rest"] == cells["whole"] == "" and cells["taken"] == "75 % (0.5 %)"


@pytest.mark.parametrize(
    ("corner", "headline"),
    [
        ({"taken": 1.0, "shift_high": 11.9}, "top left"),
        ({"taken": 1.0, "shift_high": 11.4}, "inside"),  # its rise is shown to be smaller
        ({"taken": 0.7, "shift_high": 11.9}, "inside"),  # fewer images change sides
        ({"taken": 1.0, "shift_high": 11.9, "noted": False}, "inside"),
    ],
)
def test_a_headline_names_of_parts_that_do_the_same_the_one_that_says_most(corner, headline):
    fields = {"noted": True, "shift": 11.7, "shift_low": 11.0, "taken_control": 0.0} | corner
    inside = {"shift": 12.0, "shift_low": 11.5, "shift_high": 12.3, "taken": 1.0, "taken_control": 0.0, "noted": True}
    parts = evidence_of("inside", **inside), evidence_of("spectrum", **inside), evidence_of("top left", **fields)
    found = Sufficiency((profile_of("a", 0, *parts),), 0.05, 40)
    assert [line.evidence.part for line in found.headlines] == [headline]
    assert [line.evidence.part for line in found.lines[:2]] == ["inside", "spectrum"]  # the table keeps its order


def test_a_framing_that_changes_hardly_a_prediction_is_said_with_its_rise():
    fields = {"area": None, "low": None, "high": None, "rest": None, "shift": 3.04, "shift_low": 1.98}
    one = evidence_of("enlarged", **fields, shift_high=4.1)
    assert one.describe("Coat", 1.0).endswith(" The score of Coat changes by +3.04 logits (+1.98 to +4.10).")
    assert "score" not in replace(one, taken=0.3).describe("Coat", 1.0)


def test_a_headline_needs_images_and_a_framing_that_makes_others_the_class():
    """A network that does not recognise an enlarged tractor is weak; that nothing becomes a tractor is no shortcut."""
    lost = {"taken": 0.0, "taken_control": 0.0, "taken_low": 0.0, "stays": 0.0, "stays_control": 1.0, "lost_low": 1.0}
    weak = evidence_of("enlarged", noted=True, area=None, low=None, high=None, rest=None, **lost)
    quiet = [profile_of(name, i, evidence_of("border")) for i, name in enumerate("bcd", 1)]
    found = Sufficiency((profile_of("a", 0, weak, COVID), *quiet), 0.05, 40)
    assert [line.evidence.part for line in found.headlines] == ["border"] and "headline" not in found.limits
    few = replace(found, profiles=(replace(found.profiles[0], n=29), *quiet))
    assert few.headlines == () and "Of a fewer than 30 images were shown" in few.limits
    assert few.profiles[0].noted  # the table still flags it


@pytest.mark.parametrize("name", [*IMAGE_PARTS, *REGION_PARTS])
def test_every_part_has_a_name_in_sentences(name):
    assert PART_NAMES[name] in evidence_of(name).describe("a", 1.0)


def test_every_framing_has_words():
    assert FRAMING_NAMES.keys() == FRAMINGS.keys()


def draw_pairs(pairs, rng, parts=5):
    """Evidence of natural pairs: areas, rises and shares of which each pair has more or less."""
    more = rng.exponential(1, (pairs, 1))
    return (
        0.5 + 0.4 * rng.beta(2, 3, (pairs, parts)),
        more + rng.exponential(1, (pairs, parts)),
        rng.beta(1, 4, (pairs, parts)),
    )


def test_a_natural_pair_among_its_like_is_at_the_level_and_an_extreme_one_is_called():
    rng, names, least = np.random.default_rng(0), tuple("abcde"), []
    for _ in range(60):
        natural = NaturalParts(names, *draw_pairs(32, rng))
        least += natural.p_values(names, *draw_pairs(4, rng)).min(1).tolist()
    assert 0.02 < np.mean(np.array(least) <= 0.05) < 0.09
    own = [np.array([[0.6] * 5, [0.6] * 5]), np.array([[0.5] * 5, [0.5] * 5]), np.array([[0.1] * 5, [0.1] * 5])]
    own[0][1, 2], own[1][1, 2], own[2][1, 2] = 0.97, 6.0, 0.7
    p = natural.p_values(names, *own)
    assert p[1, 2] < 0.05 and (np.delete(p.ravel(), 7) > 0.1).all()


def test_a_class_among_classes_of_natural_sets_is_at_the_level_and_an_extreme_one_is_called():
    rng, names, least = np.random.default_rng(0), tuple("abcde"), []
    for _ in range(40):
        natural = NaturalSets(names, rng.exponential(1, (120, 5)))
        least += natural.p_values(names, rng.exponential(1, (10, 5))).min(1).tolist()
    assert 0.03 < np.mean(np.array(least) <= 0.05) < 0.07
    scores = np.ones((10, 5))
    scores[3, 1] = 30.0
    p = natural.p_values(names, scores)
    assert p[3, 1] < 0.01 and (np.delete(p.ravel(), 16) > 0.1).all()


def test_a_natural_class_far_out_hides_no_blatant_one_and_flags_no_more():
    """Of 40 classes one is 30: 20 is clearly less likely than the second rank of 41, and as many are at the level as by
    ranks, whose p-values are uniform."""
    rng, names, found, ranks = np.random.default_rng(0), ("a",), [], []
    for _ in range(40):
        scores = np.r_[rng.exponential(1, 39), 30.0][:, None]
        asked = np.r_[rng.exponential(1, 10), 20.0][:, None]
        found.append(NaturalSets(names, scores).p_values(names, asked)[:, 0])
        ranks.append((1 + (asked <= scores.T).sum(1)) / 41)
    assert (np.array(found)[:, -1] <= 0.02).all() and np.array(ranks)[0, -1] == 2 / 41
    np.testing.assert_array_equal(np.array(found) <= 0.05, np.array(ranks) <= 0.05)


def test_of_natural_sets_only_the_parts_that_were_asked_for_count_each_in_units_of_its_own():
    """A part by which natural classes differ a quarter as much says the same with a quarter of the score; below
    LEAST_EXCESS it does not: a part that is constant among them says nothing by a small score."""
    natural, asked = np.random.default_rng(0).exponential(4, (120, 1)), np.array([[2.0], [14.0], [40.0]])
    sets = NaturalSets(("a", "b", "background"), np.hstack([natural, natural / 4, np.zeros_like(natural)]))
    alone = NaturalSets(("a",), natural).p_values(("a",), asked)
    np.testing.assert_allclose(sets.p_values(("a",), asked), alone)
    np.testing.assert_allclose(sets.p_values(("b",), asked / 4), alone, rtol=1e-6)
    assert alone[0, 0] > 0.3 and alone[2, 0] < 0.01
    np.testing.assert_allclose(sets.p_values(("inside",), asked), sets.p_values(("background",), asked))
    small = sets.p_values(("a", "b", "background"), np.array([[0.0, 0.0, LEAST_EXCESS]]))
    assert small[0, 2] > 0.1


def test_a_followed_fine_texture_says_that_it_is_no_place():
    said = evidence_of("fine texture", taken=0.6, taken_low=0.4).describe("seal", 0.9)
    assert said.endswith(
        "So the model relies on noise, sharpness or compression of whole pictures, not on a place in them."
    )
    assert said.startswith("By the fine texture alone, seal can be recognised")
    assert "relies" not in evidence_of("fine texture").describe("seal", 0.9)


def test_parts_of_a_region_are_compared_with_half_of_a_natural_picture():
    natural = NaturalParts(("border", "background"), *draw_pairs(32, np.random.default_rng(0), 2))
    values = [np.array([[x, x]]) for x in (0.9, 3.0, 0.5)]
    inside, background = natural.p_values(("inside", "background"), *values)[0]
    assert inside == background


def test_a_part_that_tells_no_more_than_reference_classes_is_ordinary():
    assert evidence_of("border", low=0.8, others=0.85).is_ordinary
    assert not evidence_of("border", low=0.8, others=0.75).is_ordinary and not evidence_of("border").is_ordinary


@pytest.mark.parametrize("compared", [True, False])
def test_the_limits_say_what_the_region_is(compared):
    profiles = tuple(profile_of(f"c{k}", k, COVID) for k in range(6 if compared else 2))
    bare = Sufficiency(profiles, 0.05, 40)
    given, estimated = (replace(bare, region=words) for words in ("lungs.png", f"{ESTIMATED_REGION} (by 0.28)"))
    assert bare.limits and given.limits == f"{bare.limits} The region is lungs.png."
    assert "alike (by 0.28). It is estimated, and need not be the object" in estimated.limits
    assert "--region" in estimated.limits and "region" not in bare.limits
