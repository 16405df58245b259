"""Sentences and cells of verdicts never deny the figures beside them, over results of every kind."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klarsicht.audit.results.class_verdict import SHARES, DetectionResult, UseResult, Verdict
from klarsicht.audit.results.ranking import Entry
from klarsicht.audit.results.verdict_lines import VERDICT_COLUMNS, VerdictLine
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import NEXT, PUT_ON, SEEN, VerdictKind, choose_next_step

LEVEL = 0.05
P = st.sampled_from([1e-6, 0.0004, 0.03, LEVEL, 0.051, 0.2, 1.0])
SHARE = st.none() | st.sampled_from([0.0, 0.2, 0.49, 0.5, 1.0])
DETECTOR = st.sampled_from([*(f"{name} 50 0.85" for name in ("fine", "texture")), "veil 0.002", *SEEN])


@st.composite
def uses(draw):
    """Effects of inserted artifacts; of one in four classes nothing could be inserted."""
    shift = draw(st.sampled_from([-3.0, -0.001, 0.0, 0.3, 0.6, 9.48]))
    flips, control = draw(st.sampled_from([(0.0, 0.0), (0.001, 0.0), (0.17, 0.03), (0.03, 0.17), (1.0, 0.0)]))
    tried = draw(st.sampled_from(["", "fine 50 0.85", "veil 0.002", "spectrum"]))
    how = draw(st.sampled_from([*PUT_ON, "12 levels of light"]))
    low, flips_low = shift - draw(st.sampled_from([0.01, 1.0])), flips - control - 0.01
    return UseResult(
        tried, how, shift, low, 2 * shift - low, 1.0, draw(P), draw(st.integers(0, 3)), flips, control, flips_low, 1.0,
        covered=draw(SHARE), explained=draw(SHARE),
    )  # fmt: skip


@st.composite
def quantifications(draw):
    """One to six classes, judged as `audit quantify` judges them: by the two p, the two floors and the shares."""
    found = []
    few = draw(st.booleans())
    for k in range(draw(st.integers(1, 4 if few else 6))):
        use, p_rank, p_own = draw(uses()), draw(P), draw(P)
        called = max(p_rank, p_own) <= LEVEL
        shared = few and called and draw(st.booleans())
        large = use.low >= 0.5 or use.flips_low >= 0.02
        used = bool(use.tried) and use.p_use <= LEVEL and large and called
        detection = DetectionResult(draw(DETECTOR), 9.0, 5.0, p_rank, 0.1, p_own)
        size = draw(st.integers(1, 200))
        found.append(
            Verdict(
                f"class {k}",
                k,
                200,
                0,
                detection,
                tuple(range(size)),
                ("a",) * size,
                use,
                called and not shared,
                used and called and not shared,
                shared=shared,
                used=used,
                followed=not called and draw(st.booleans()),
                texture=draw(st.sampled_from(["", f"The network follows the fine texture of class {k}."])),
            )
        )
    return Quantification(tuple(found), 1.0 if few else 0.1, LEVEL)


def is_large(use):
    return use.low >= 0.5 or use.flips_low >= 0.02


def part_inserted(use):
    return min([share for share in (use.covered, use.explained) if share is not None] or [1.0])


DENIALS = {  # words, and what the figures of the row must not say beside them
    "no artifact": lambda v: max(v.detection.p_rank, v.detection.p_own) <= LEVEL,
    "no detector": lambda v: max(v.detection.p_rank, v.detection.p_own) <= LEVEL,
    "no use shown": lambda v: v.use.p_use <= LEVEL and is_large(v.use),
    "not shown to use": lambda v: v.use.p_use <= LEVEL and is_large(v.use),
    "less than counts": lambda v: is_large(v.use),
    "use not tested": lambda v: bool(v.use.tried) and part_inserted(v.use) >= 0.5,
    "is not known": lambda v: bool(v.use.tried) and part_inserted(v.use) >= 0.5,
    "could not be inserted": lambda v: bool(v.use.tried),
    "relies on": lambda v: v.use.p_use > LEVEL or not is_large(v.use) or v.detection.p_own > LEVEL,
    "The model uses it": lambda v: v.use.p_use > LEVEL or not is_large(v.use),
    "same patch, used": lambda v: v.use.p_use > LEVEL or not is_large(v.use),
}


@given(quantifications())
def test_no_row_has_words_that_deny_what_its_figures_say(found):
    for line in found.lines:
        said = [*line.texts, line.headline]
        denied = [words for words, denies in DENIALS.items() if any(words in text for text in said)
                  and denies(line.verdict)]  # fmt: skip
        assert denied == [], said


@given(quantifications())
def test_a_row_without_an_artifact_shows_no_effect_and_no_detector(found):
    for line in found.lines:
        cells = dict(zip(VERDICT_COLUMNS, line.texts, strict=True))
        if line.verdict.kind in (VerdictKind.NOTHING, VerdictKind.FOLLOWED, VerdictKind.TEXTURE):
            assert {cells[name] for name in ("p_use", "shift", "flips", "detector", "inserted")} == {""}
        if line.verdict.kind is VerdictKind.NOTHING:
            assert cells["images"] == "0 of 200" and line.next_step() == ("", "")
        elif line.verdict.kind is VerdictKind.TEXTURE:
            assert cells["images"] == "200 of 200" and line.headline == line.verdict.texture
            assert line.next_step("a run")[1] == "klarsicht audit shortcuts 'a run'"
        else:
            assert line.next_step("a run")[1].startswith("klarsicht audit clean")


@pytest.mark.parametrize(
    ("images", "how", "command"),
    [
        (246, "own place", "clean-data 'a run' --class 'a b' --found-by detector --action inpaint --out cleaned-data"),
        (240, "own place", "clean-data 'a run' --class 'a b' --found-by detector --action inpaint --out cleaned-data"),
        (239, "own place", "clean 'a run' --class 'a b' --found-by detector"),
        (246, "shared tones", "clean 'a run' --class 'a b' --found-by detector"),
    ],
)
def test_where_a_correction_could_not_be_fitted_none_is_advised(images, how, command):
    """A correction is fitted on two fifths of the images, and on five of the class without the mark at least: so of
    fewer than eleven without it there are never enough. What is no mark cannot be inpainted."""
    use = UseResult("fine 50 0.9", how, 9.0, 8.7, 9.3, 9.0, 0.01, 0, 0.9, 0.0, 0.8, 1.0, "")
    detection = DetectionResult("fine 50 0.9", *[0.0] * 5)
    told = Verdict("a b", 0, 250, 0, detection, tuple(range(images)), (), use, False, False, shared=True, used=True)
    line = VerdictLine(1, 1, "a b", told, 2, LEVEL)
    assert line.verdict.kind is VerdictKind.SHARED_AND_USED
    assert line.next_step("a run")[1] == f"klarsicht audit {command}"
    assert replace(line, run="a run").next_step() == line.next_step("a run")
    assert line.next_step()[1] == f"klarsicht audit {command}".replace("'a run'", "RUN")


@pytest.mark.parametrize("kind", [kind for kind in NEXT if kind is not VerdictKind.TEXTURE])
def test_a_run_that_cannot_be_cleaned_is_told_of_no_command_that_refuses_it(kind):
    """`audit clean` and `audit clean-data` refuse runs of several labels and of independent outputs."""
    assert choose_next_step(kind, "a b", "a run")[1].split()[2].startswith("clean")
    advice, command = choose_next_step(kind, "a b", "a run", few_lack_it=True, has_cleaning=False)
    assert command == "klarsicht audit export 'a run' --to csv" and "train again without them" in advice


@given(quantifications())
def test_every_figure_of_a_headline_is_one_of_the_row_and_its_sentences_are_short(found):
    for line in found.lines:
        verdict, use, said = line.verdict, line.verdict.use, line.headline_at("top right")
        known = {len(verdict.rows), 200, 95, 100, 0.5, 2, round(100 * use.flips), round(100 * use.flips_control)}
        known |= {round(100 * share) for name in SHARES if (share := getattr(use, name)) is not None}
        figures = {float(one) for one in re.findall(r"(?<![\w.])\d+(?:\.\d+)?", said.replace(verdict.name, "it"))}
        scores = {use.shift, use.low, use.high, use.p_use, 0.001}
        assert all(any(abs(one - abs(other)) <= 0.051 for other in known | scores) for one in figures), said
        assert max(len(sentence.split()) for sentence in re.split(r"(?<=[.:]) ", said)) <= 32, said


@given(quantifications(), st.sampled_from([0.2, 0.1, 0.045, 0.01]))
def test_the_line_below_the_table_denies_no_p_above_it(found, floor):
    """Small p are extrapolated: nothing below the table may say that they cannot be."""
    few = len(found) < 5
    said = replace(found, floor=1.0 if few else floor).limits
    smallest = min(line.verdict.detection.p for line in found.lines)
    bounds = [float(one) for one in re.findall(r"(?:no smaller than|no p below|none reaches) (0\.\d+)", said)]
    assert all(smallest >= bound for bound in bounds)
    assert few or ("extrapolated" in said and f"{floor:.3f}" in said)


@given(quantifications())
def test_the_ranking_says_of_a_class_what_the_quantification_said(found):
    record = {"class": "a", "target": 0, "metric": "concept", "n": 200, "proposal": "", "rows": [1], "parts": []}
    numbers = dict.fromkeys(("tau", "rho2", "d2", "shift", "z"), 9.0) | {"deviation": 0.0, "rounding": 0.0}
    entry = Entry.from_record(record | numbers, ["a", "b"])
    for verdict in found:
        assert replace(entry, judged=verdict).kind is verdict.kind_of_class
