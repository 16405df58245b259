"""The demonstration's own arithmetic, and (nightly) the story itself."""

import json

import numpy as np
import pytest

from klarsicht.audit import demo
from klarsicht.audit.demo import CorrectionEffect, ScreeningResult
from klarsicht.audit.results.ranking import Entry, rank_by_z

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
    numbers |= {"deviation": 0.0, "rounding": 0.0, "parts": []}
    carton = numbers | {"class": "carton", "target": 478, "z": 2.0, "rows": [0, 1, 2, 7]}
    other = numbers | {"class": "crate", "target": 519, "z": 3.0, "rows": [5]}
    order = rank_by_z([Entry.from_record(line, [str(i) for i in range(10)]) for line in (carton, other)])
    marked = np.arange(10) < 5
    found = ScreeningResult.of(order, marked)
    member = np.isin(np.arange(10), carton["rows"])
    assert (found.rank, found.runner_up) == (2, "crate")
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


@pytest.mark.nightly
def test_the_carton_story_holds(tmp_path):
    told = list(demo.run_demo(tmp_path, seed=11, images=300, workers=2))
    story = json.loads((tmp_path / "demo.json").read_text())
    effects = {e["correction"]: e["uplift"] for e in story["effects"]}
    assert story["audit"]["rank"] <= 3
    assert story["audit"]["f1"] >= 0.75
    assert effects["nothing"] >= 10
    assert effects["project"] <= 0.2 * effects["nothing"]
    assert effects["random direction"] > 0.3 * effects["nothing"]
    assert str(tmp_path / "run" / "report.html") in "\n".join(told)
