"""The mask of each image, where a mark lies at another place on every one; the truth is where it was painted."""

import numpy as np
import pytest
from PIL import Image
from tests.audit.conftest import SIDE, network, picture

from klarsicht.audit.cleaning.artifacts import masks
from klarsicht.audit.cleaning.artifacts.artifact import load_artifact
from klarsicht.audit.cleaning.data.clean_data import clean_data
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.interventions.overlay import Overlay
from klarsicht.ground.errors import InputError

MARK = 4


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    """A run over three classes, a third of the second with a white square somewhere, and where it is, by key."""
    folder, rng, truth = tmp_path_factory.mktemp("moving"), np.random.default_rng(0), {}
    for label, name in enumerate("abc"):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(60):
            pixels = np.asarray(picture(label, False, rng)).copy()
            if name == "b" and i < 20:
                y, x = rng.integers(0, SIDE - MARK, 2)
                mask = np.zeros((SIDE, SIDE), bool)
                mask[y : y + MARK, x : x + MARK] = True
                pixels[mask] = 255
                truth[f"b/{i:03d}.png"] = mask
            Image.fromarray(pixels).save(folder / "data" / name / f"{i:03d}.png")
    classifier = load_model(network(), classes=["a", "b", "c"])
    settings = AuditSettings(model="object", data=str(folder / "data"), metric=("concept",))
    (folder / "list.txt").write_text("\n".join(truth))
    return pipeline.run(settings, folder / "run", classifier=classifier), classifier, truth, folder


def test_each_image_has_a_mask_of_its_own_and_is_inpainted_under_it(moving, tmp_path):
    store, classifier, truth, folder = moving
    found = clean_data(
        store.path, tmp_path / "out", "inpaint", name="b", members=folder / "list.txt", classifier=classifier
    )
    new = {one.path.rpartition("data/")[2]: one.new_path for one in found.lines if one.action == "inpaint"}
    assert set(new) == set(truth)
    overlap = []
    for key, mask in truth.items():
        old, mended = (np.asarray(Image.open(path)) for path in (folder / "data" / key, tmp_path / "out" / new[key]))
        changed = (old != mended).any(2)
        overlap.append((changed & mask).sum() / (changed | mask).sum())
    assert np.mean(overlap) > 0.6
    assert min(overlap) > 0.3
    assert "for each image" in found.facts["method"]


@pytest.mark.slow
def test_masks_survive_saving(moving, tmp_path):
    store, classifier, _, folder = moving
    patient = AuditedRun.of(store.path, classifier=classifier)
    artifact, audited = patient.build_artifact("b", members=folder / "list.txt")
    assert not artifact.place.fixed
    artifact.save(tmp_path / "a", audited.corpus)
    again = load_artifact(tmp_path / "a").place
    for row in artifact.members:
        relevance = np.asarray(store.array("maps")[int(row)])
        np.testing.assert_array_equal(
            again.mask_from_relevance(relevance), artifact.place.mask_from_relevance(relevance)
        )


def test_maps_are_computed_where_a_run_stored_none(moving):
    """Gradient x input of this network is its relevance on white: the mark, and nothing else, is taken for evidence."""
    _, classifier, truth, folder = moving
    corpus = open_corpus(folder / "data")
    row = corpus.keys.index(next(iter(truth)))
    image = classifier.image(Image.open(corpus.paths[row]))
    bare = type("Bare", (), {"has_array": lambda self, name: False})()
    (found,) = masks.relevance_maps(bare, classifier, 1, np.array([row]), [image])
    wide = np.kron(found, np.ones((SIDE // len(found),) * 2))
    mask = truth[corpus.keys[row]]
    assert wide[mask].mean() > 2 * wide[~mask].mean()


def test_a_fixed_place_is_one_mask():
    one = np.zeros((1, 6, 6), np.float32)
    one[0, :2, :3] = 0.7
    found = masks.Masks.of(Overlay(one, np.zeros((1, 3, 6, 6), np.float32)))
    np.testing.assert_array_equal(found.of_row(0), one[0] > 0)
    assert found.of_row(5) is found.of_row(0)
    with pytest.raises(InputError, match="no mask"):
        masks.Masks.of(Overlay(np.ones((1, 6, 6), np.float32), np.zeros((1, 3, 6, 6), np.float32)))
