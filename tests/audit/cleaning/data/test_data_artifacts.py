"""A corpus cleaned of the artifacts of two classes at once: the marks are known, and so is who carries which."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.audit.cleaning.models.test_clean_classes import ASKED, marked, of_two_marks  # noqa: F401 - a fixture
from tests.marks import slow_but_first

from klarsicht.audit.cleaning.data import clean_data as cleaning
from klarsicht.audit.cleaning.data import data_artifacts
from klarsicht.audit.cleaning.data.clean_data import clean_data
from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.results import verdicts
from klarsicht.ground.errors import EffectRemains, InputError, UsageError
from klarsicht.ground.run_folder.store import RunStore


def marks(path):
    """Which marks an image carries: a white corner of class b, a red one of class c."""
    x = np.asarray(Image.open(path)).astype(int)
    white, red = (x[:4, :4] == 255).all(), (x[-4:, -4:] == (255, 0, 0)).all()
    return "; ".join(name for name, on in (("b", white), ("c", red)) if on)


@pytest.mark.parametrize("action", slow_but_first(["inpaint", "drop", "weigh"]))
def test_two_classes_are_cleaned_at_once(marked, tmp_path, action):  # noqa: F811
    found = clean_data(marked, tmp_path, action, name=["b", "c"], classifier=of_two_marks())
    expected = [marks(tmp_path / line.path) for line in found.lines]
    assert [line.artifact_of for line in found.lines] == expected
    assert sum(map(bool, expected)) == 36 and found.classes == ("b", "c")
    assert [line.action != "keep" for line in found.lines] == [bool(one) for one in expected]
    new = open_corpus(found.manifest)
    left = [one for one in map(marks, new.paths) if one]
    assert len(left) == (36 if action == "weigh" else 0)
    if action == "weigh":
        np.testing.assert_array_equal(new.weights, [0.1 if one else 1 for one in expected])
    found.check()
    told = json.loads((tmp_path / "cleaning.json").read_text())
    assert [one["class"] for one in told["classes"]] == ["b", "c"]


def test_the_record_says_why_an_image_counts_as_having_the_artifact(marked, tmp_path):  # noqa: F811
    """Twelve of the eighteen marked images are listed; the others are found by their probability."""
    carriers = [
        path for path in AuditedRun.of(marked, classifier=of_two_marks()).audit.corpus.paths if marks(path) == "b"
    ]
    (tmp_path / "members.txt").write_text("\n".join(map(str, carriers[:12])))
    asked = {"name": "b", "members": tmp_path / "members.txt", "classifier": of_two_marks()}
    found = clean_data(marked, tmp_path / "new", **asked)
    whys = {Path(line.path).name: line.why for line in found.lines if line.action != "keep"}
    listed = {Path(path).name for path in carriers[:12]}
    assert {name for name, why in whys.items() if why == "image of the finding"} == listed
    assert len(whys) > 12 and all(
        float(whys[name].removeprefix("probability ")) >= 0.5 for name in whys.keys() - listed
    )
    assert {line.why for line in found.lines if line.action == "keep"} == {""}


@pytest.mark.slow
def test_an_image_that_carries_both_is_inpainted_under_both_masks(marked, tmp_path):  # noqa: F811
    run = AuditedRun.of(marked, classifier=of_two_marks())
    found = data_artifacts.build_artifacts(run, ["b", "c"], 1e-9)  # every image counts as a carrier of both
    assert found.carries.all() and set(found.owners) == {"b; c"}
    asked = {"name": ["b", "c"], "above": 1e-9, "classifier": of_two_marks()}
    cleaned = clean_data(marked, tmp_path, "inpaint", **asked)
    assert cleaned.counts == {"inpaint": 180}
    line = next(line for line in cleaned.lines if marks(tmp_path / line.path) == "b")
    old, new = (np.asarray(Image.open(tmp_path / path)).astype(int) for path in (line.path, line.new_path))
    changed = (old != new).any(2)
    assert changed[:4, :4].any() and changed[-4:, -4:].any() and not changed[4:-4, 4:-4].any()


def test_the_corrections_of_several_classes_say_which_artifacts(marked, tmp_path):  # noqa: F811
    clean_model.clean_classes(marked, ["b", "c"], ASKED, out=tmp_path / "all", classifier=of_two_marks())
    found = clean_data(marked, tmp_path / "new", correction=tmp_path / "all", classifier=of_two_marks())
    assert found.counts == {"keep": 144, "drop": 36}
    assert not any(map(marks, open_corpus(found.manifest).paths))


@pytest.mark.slow
def test_without_a_class_all_poisoned_ones_are_cleaned(marked, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(cleaning, "find_classes_to_clean", lambda run: ("b", "c"))
    found = clean_data(marked, tmp_path, classifier=of_two_marks())
    assert found.classes == ("b", "c") and found.counts == {"keep": 144, "drop": 36}


def test_a_class_without_an_artifact_is_named_and_the_others_are_cleaned(marked, tmp_path, monkeypatch):  # noqa: F811
    build = AuditedRun.build_artifact

    def refuse(self, name, **more):
        if name == "c":
            raise InputError("these images are like the others of the class", got="a chance cluster")
        return build(self, name, **more)

    monkeypatch.setattr(AuditedRun, "build_artifact", refuse)
    found = clean_data(marked, tmp_path / "new", name=["c", "b"], classifier=of_two_marks())
    assert found.classes == ("b",) and found.counts == {"keep": 162, "drop": 18}
    with pytest.raises(EffectRemains, match="c: these images are like the others"):
        found.check()
    with pytest.raises(InputError, match="these images are like"):  # of all: that is the error
        clean_data(marked, tmp_path / "none", name="c", classifier=of_two_marks())
    with pytest.raises(UsageError, match="'d'"):
        clean_data(marked, tmp_path / "none", name=["b", "d"], classifier=of_two_marks())
    with pytest.raises(UsageError, match="one class"):
        clean_data(marked, tmp_path / "none", name=["b", "c"], mask=Path("m.png"), classifier=of_two_marks())
    assert not (tmp_path / "none").exists()
    assert not verdicts.is_quantified(RunStore.open(marked))
