"""The demonstration's own arithmetic, and (nightly) the story itself."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest

from klarsicht.audit import demo
from klarsicht.audit.demo import Agreement, CorrectionEffect
from klarsicht.audit.results.ranking import Entry
from klarsicht.explorer import corrections
from klarsicht.explorer.explored_run import open_explored_run
from klarsicht.explorer.point_clouds import read_points

pytest.importorskip("skimage", reason="the extra demo carries the photographs")


def test_crops_come_in_turn_from_every_photograph_and_from_the_seed_alone():
    pictures = demo.load_photographs()
    a, b = (list(demo.draw_crops(pictures, 20, np.random.default_rng(3))) for _ in range(2))
    for x, y in zip(a, b, strict=True):
        assert np.array_equal(x.plain, y.plain)
        assert np.array_equal(x.with_mark, y.with_mark)
    assert {crop.source for crop in a} == {name.partition(" ")[0] for name in pictures}
    assert all(crop.plain.shape == (224, 224, 3) for crop in a)


def test_both_frames_of_the_stereo_pair_are_one_source():
    assert sum(name.startswith("motorcycle") for name in demo.PHOTOGRAPHS) == 2
    assert len({name.partition(" ")[0] for name in demo.PHOTOGRAPHS}) == len(demo.PHOTOGRAPHS) - 1


def test_what_was_found_is_scored_as_scikit_learn_scores_it():
    from sklearn.metrics import f1_score, precision_score, recall_score

    numbers = {"tau": 1.0, "rho2": 0.5, "d2": 4.0, "shift": 1.0, "n": 10, "metric": "concept", "proposal": ""}
    numbers |= {"deviation": 0.0, "rounding": 0.0, "parts": [], "class": "carton", "target": 478, "z": 2.0}
    entry = Entry.from_record(numbers | {"rows": [0, 1, 2, 7]}, [str(i) for i in range(10)])
    marked, member = np.arange(10) < 5, np.isin(np.arange(10), entry.rows)
    found = Agreement.of(entry, marked)
    assert found.f1 == pytest.approx(f1_score(marked, member))
    assert found.precision == pytest.approx(precision_score(marked, member))
    assert found.recall == pytest.approx(recall_score(marked, member))


def test_the_uplift_is_the_median_of_ratios_of_single_photographs():
    """Logits chosen so that P(target) is 1/2 without and 2/3, 3/4, 9/10 with the mark."""
    plain = np.zeros((3, 2))
    marked = np.log([[2, 1], [3, 1], [9, 1]])
    effect = CorrectionEffect.of("nothing", plain, marked, np.array([0, 0, 1]), 0)
    assert effect.uplift == pytest.approx(np.median([2 / 3, 3 / 4, 9 / 10]) / 0.5)
    assert effect.agreement == pytest.approx(2 / 3)


def test_the_summary_ends_in_three_commands_that_a_shell_reads_back():
    effect = CorrectionEffect("before", 49.7, 1.0, 0.97, 1.0)
    result = demo.DemoResult(
        seed=0, images=400, marked=50, cluster=47, agreement=Agreement(0.94, 0.91, 0.98), shift=3.5, low=3.2, high=3.9,
        p=0.008, follows=True, effects=(effect, effect), held_out=120, seconds=90, run="a folder/run", correction="",
    )  # fmt: skip
    lines = list(result.lines(".venv/bin/klarsicht"))
    begins = next(i for i, line in enumerate(lines) if line.endswith("Next:"))
    commands = [shlex.split(line, comments=True) for line in lines[begins + 1 :]]
    assert [words[:3] for words in commands] == [
        [".venv/bin/klarsicht", "audit", name] for name in ("explore", "rank", "run")
    ]
    assert [words[3] for words in commands[:2]] == ["a folder/run"] * 2
    assert "The model relies on what they share: pasted on other photographs, it adds" in lines
    assert any("not shown to rely" in line for line in replace(result, follows=False).lines("klarsicht"))


@pytest.mark.nightly
def test_the_carton_story_holds_and_the_explorer_opens_its_class(tmp_path):
    printed = "\n".join(demo.run_demo(tmp_path, seed=11))
    result = json.loads((tmp_path / "demo.json").read_text())
    before, after = (effect["uplift"] for effect in result["effects"])
    assert result["agreement"]["f1"] >= 0.75
    assert result["low"] > 0 and result["p"] <= 0.05
    assert before >= 10 and after <= 0.3 * before
    assert result["effects"][1]["agreement"] >= 0.9
    assert printed.count("\n  klarsicht audit ") == 3
    explored = open_explored_run(tmp_path / "run", "")
    (target,) = explored.results.lines()
    assert read_points(explored, target).vectors.shape == (result["images"], 8) and explored.maps.of([0]).any()
    assert corrections.list_corrections(explored)
