"""Cleaning of a known artifact, which no image of the corpus carries."""

import numpy as np
import pytest
import torch
from tests.audit.conftest import SIDE, network, write_corpus

from klarsicht.audit.cleaning.artifacts import artifact
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.models import clean_model, evaluation
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.verdicts.interventions.insertion import put_on
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.audit.verdicts.synthetic.planted_image import PlantedImage
from klarsicht.ground.errors import EffectRemains, UsageError

ASKED = CleanSettings(method="oblique", layer="last", images=60)


def of(module):
    return load_model(module, classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def unmarked(tmp_path_factory):
    """A finished run on pictures of which none carries the mark that the network reads, one class `b` or `none`."""
    folder = tmp_path_factory.mktemp("unmarked")
    write_corpus(folder / "data", share=0.0)
    settings = AuditSettings(model="object", data=str(folder / "data"))
    return pipeline.run(settings, folder / "run", classifier=of(network()))


def white_corner(pixels, rng):
    """The mark of the network, drawn as a kind of `audit plant`."""
    out = pixels.copy()
    out[:4, :4] = 255
    return PlantedImage(out, (out != pixels).any(2))


@pytest.mark.slow
def test_a_known_artifact_is_taken_away_though_no_image_carries_it(unmarked, tmp_path, monkeypatch):
    monkeypatch.setitem(artifacts.PLANTS, "corner", white_corner)
    classifier = of(network())
    found = clean_model.clean(unmarked.path, "b", ASKED, out=tmp_path / "c", kind="corner", classifier=classifier)
    assert len(found.artifact.members) == 0
    assert not found.artifact.carries.any()
    assert found.judgement.before.rise.low > 1  # put on the images shown, the mark raises the class
    assert abs(found.judgement.after.rise.value) < 0.1 * found.judgement.before.rise.value
    dark, white = torch.zeros(3, SIDE, SIDE), torch.zeros(3, SIDE, SIDE)
    white[:, :4, :4] = 1
    plain, after = (compute_logits(classifier, [dark, white], c) for c in (None, found.choice.correction))
    rise = [y[1, 1] - y[1].mean() - (y[0, 1] - y[0].mean()) for y in (plain, after)]
    assert abs(rise[1]) < 0.1 * rise[0]
    kept = artifact.load_artifact(found.folder)
    assert (kept.planted.kind, kept.planted.seed) == ("corner", 0)
    image = torch.full((3, SIDE, SIDE), 0.2)
    assert torch.equal(*(put_on(image, one.insertion, np.random.default_rng(0)) for one in (kept, found.artifact)))
    seen = evaluation.evaluate(unmarked.path, found.folder, classifier=classifier, images=40)
    assert seen.after.outcome.rise.value == pytest.approx(0, abs=0.1 * seen.before.outcome.rise.value)


def test_a_known_artifact_that_does_nothing_is_not_called_clean(unmarked, tmp_path, monkeypatch):
    monkeypatch.setitem(artifacts.PLANTS, "corner", white_corner)
    with pytest.raises(EffectRemains):
        clean_model.clean(
            unmarked.path, "a", ASKED, out=tmp_path / "c", kind="corner", classifier=of(network())
        ).check()


def test_a_known_artifact_beside_members_or_of_an_unknown_kind_is_refused(unmarked, tmp_path):
    with pytest.raises(UsageError, match="`kind`"):
        clean_model.clean(unmarked.path, "b", ASKED, kind="tag", found_by="cluster", classifier=of(network()))
    with pytest.raises(UsageError, match="glyphs"):
        clean_model.clean(unmarked.path, "b", ASKED, kind="glyph", classifier=of(network()))
