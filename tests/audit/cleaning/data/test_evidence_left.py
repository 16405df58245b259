"""The evidence of an artifact in repaired images: closed forms, and repairs whose effect is known."""

import numpy as np
import pytest
from PIL import Image
from tests.audit.cleaning.artifacts.test_masks import moving  # noqa: F401 - a fixture

from klarsicht.audit.cleaning.data import clean_data as cleaning
from klarsicht.audit.cleaning.data.clean_data import clean_data
from klarsicht.audit.cleaning.data.evidence_left import measure_evidence_left, share_left
from klarsicht.audit.cleaning.data.image_actions import Action
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.ground.errors import EffectRemains


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_is_that_of_the_change_that_stays(share):
    """Images with and without the artifact differ by one vector, of which a share stays."""
    rng, change = np.random.default_rng(0), np.array([3.0, 0, -1, 0, 2])
    clean = np.tile(rng.normal(size=(10, 5)), (2, 1))[np.arange(20) // 2 + 10 * (np.arange(20) % 2)]
    assert share_left(clean + change, clean + share * change, clean) == pytest.approx(share)


def test_nothing_is_said_where_the_two_kinds_do_not_differ():
    clean = np.ones((8, 3))
    assert share_left(clean, clean, clean) is None


@pytest.fixture(scope="module")
def artifact(moving):  # noqa: F811
    store, classifier, truth, _ = moving
    run = AuditedRun.of(store.path, classifier=classifier)
    found, _ = run.build_artifact("b", members=sorted(truth))
    return run, found, truth


def under_the_mark(truth, corpus, level):
    """A repair that paints the true mark of an image in a grey level."""

    def repair(picture, row):
        pixels = np.asarray(picture).copy()
        pixels[truth[corpus.keys[row]]] = level
        return Image.fromarray(pixels)

    return Action("paint", repair=repair)


def test_a_repair_that_changes_nothing_leaves_all_and_one_without_the_mark_hardly_anything(artifact):
    run, found, truth = artifact
    asked = {name: under_the_mark(truth, run.audit.corpus, level) for name, level in (("white", 255), ("grey", 60))}
    assert measure_evidence_left(run, found, asked["white"]) == pytest.approx(1)
    assert abs(measure_evidence_left(run, found, asked["grey"])) < 0.2
    assert measure_evidence_left(run, found, Action("drop", weight=0)) is None


def test_larger_masks_are_tried_until_little_is_left_and_much_is_refused(moving, tmp_path, monkeypatch):  # noqa: F811
    """Masks of the peak alone miss most of each mark; whatever leaves much is refused before anything is written."""
    store, classifier, truth, _ = moving
    asked = {"name": "b", "members": sorted(truth), "classifier": classifier}
    monkeypatch.setattr(cleaning, "PEAK_SHARES", (0.999,))
    with pytest.raises(EffectRemains, match=r'evidence left in b.*action="drop"'):
        clean_data(store.path, tmp_path / "refused", "inpaint", **asked)
    assert not (tmp_path / "refused").exists()
    monkeypatch.setattr(cleaning, "PEAK_SHARES", (0.999, 0.5, 0.25))
    found = clean_data(store.path, tmp_path / "out", "inpaint", **asked, dry_run=True)
    assert found.facts["evidence left"]["b"] <= cleaning.MOST_LEFT
    assert "of the evidence for b" in repr(found) and "evidence" in found._repr_html_()
