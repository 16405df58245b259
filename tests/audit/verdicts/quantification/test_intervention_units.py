"""A model that reads a whole stripe, of which a detector saw a window."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from tests.audit.verdicts.interventions.test_shared_content import scenes, stripe

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.results.rows import SHARED_CONTENT, SignRow
from klarsicht.audit.results.words import KNOWN_SHARES
from klarsicht.audit.verdicts.detectors.artifact_embedding import load_shipped_embedding
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.corruption import Corruption
from klarsicht.audit.verdicts.interventions.experiment import Experiment
from klarsicht.audit.verdicts.interventions.patch import Patch
from klarsicht.audit.verdicts.quantification.intervention_units import (
    ArtifactTrial,
    InterventionUnits,
    put_beside_rivals,
    share_of_evidence,
)

SCALE = PixelScale(np.zeros(3, np.float32), np.ones(3, np.float32))
SIGN = SignRow(target=2, sign="texture", score=50.0, rows=[], places=[], height=0.2, width=0.1)


def reads_stripe(inputs):
    """Logit 2 is the mean brightness of the stripe times 20; five others are random projections."""
    x = inputs.numpy()
    logits = x.reshape(len(x), -1)[:, ::97] @ np.random.default_rng(0).normal(0, 0.05, (32, 6))
    logits[:, 2] += 20 * x[..., :3].mean((1, 2, 3))
    return logits


@pytest.fixture
def trial():
    x = scenes(200)
    places = np.tile([10, 0], (60, 1))
    found = ArtifactExamples(stripe(x[:60], 0, 250), x[60:], places, (6, 3))
    return ArtifactTrial.of(SIGN, found, SCALE, True, np.random.default_rng(0))


def test_the_whole_stripe_is_put_on_and_measures_what_the_real_one_does(trial):
    new = scenes(64, 5)
    real = (reads_stripe(SCALE.inputs(stripe(new, 0, 250))) - reads_stripe(SCALE.inputs(new))).mean(0)
    x = SCALE.inputs(new)
    effects = {
        how: Experiment.run(reads_stripe, way, x, 2, np.random.default_rng(0)).effect(reads_stripe(x))
        for how, way in trial.ways.items()
    }
    assert {"own place", "any place", "shared pixels"} <= effects.keys()
    assert effects["shared pixels"].rise.value == pytest.approx((real[2] - real.mean()), rel=0.05)
    assert effects["shared pixels"].rank == 0
    assert effects["any place"].rise.value < 0.5 * real[2]


def test_coverage_tells_the_window_from_the_whole(trial):
    covered = {how: trial.covered_share(way, SCALE) for how, way in trial.ways.items()}
    window = Patch(trial.found, SCALE)  # not grown to the whole
    assert covered["shared pixels"] > 0.9 and trial.covered_share(window, SCALE) < 0.5
    assert trial.change("shared pixels") == SHARED_CONTENT and trial.change("any place") == "tile"
    assert "shared tones" not in trial.ways  # it covers less than three quarters of the best way


def test_what_is_put_on_is_recognised_where_it_looks_like_the_carriers(trial):
    """By the embedding that comes along: the estimate of the whole stripe is, and what changes nothing is not."""
    work = SimpleNamespace(embedding=None, input_images=SimpleNamespace(pixel_scale=SCALE))
    units = InterventionUnits(work, ())
    share, apart = units.recognise(trial, trial.ways["shared pixels"])
    assert share > 0.7 and apart > 0.9
    assert units.recognise(trial, Corruption("light", 0.0, SCALE))[0] < 0.1
    few = replace(trial, found=replace(trial.found, carriers=trial.found.carriers[:7]))
    assert np.isnan(units.recognise(few, trial.ways["shared pixels"])).all()


@pytest.mark.slow
def test_an_artifact_without_a_window_is_put_on_by_the_pixels_that_the_embedding_knows(trial):
    """A stripe that lies at a random column of each image: by the embedding that comes along, beside what is shared."""
    rng, x = np.random.default_rng(1), scenes(200)
    carriers = np.concatenate([stripe(x[i : i + 1], column, 250) for i, column in enumerate(rng.integers(0, 26, 60))])
    found = ArtifactExamples(carriers, x[60:], np.zeros((0, 2), np.intp), (0, 0))
    sign, network = SIGN | {"sign": "embedding 0.002"}, load_shipped_embedding()
    ways = ArtifactTrial.of(sign, found, SCALE, True, rng, network=network).ways
    assert KNOWN_SHARES.keys() <= ways.keys() and not KNOWN_SHARES.keys() & trial.ways.keys()
    with_window = ArtifactTrial.of(SIGN, trial.found, SCALE, True, rng, network=network)
    assert not KNOWN_SHARES.keys() & with_window.ways.keys()
    own, rivals = put_beside_rivals(ways["known pixels"], SCALE.inputs(x[:8]), SCALE, rng, 2)
    assert own.shape == (8, 3, *x.shape[1:3]) and sum(1 for _ in rivals) == 2


def test_few_carriers_get_no_shared_content():
    x = scenes(60)
    found = ArtifactExamples(stripe(x[:5], 0, 250), x[5:], np.tile([10, 0], (5, 1)), (6, 3))
    few = ArtifactTrial.of(SIGN, found, SCALE, True, np.random.default_rng(0))
    assert few.ways.keys() == {"own place", "any place"} and np.isnan(few.covered_share(few.ways["own place"], SCALE))


def test_share_of_evidence_in_closed_form():
    rng = np.random.default_rng(0)
    other, noise = rng.normal(0, 1, 64), rng.normal(0, 1, 64)
    assert share_of_evidence(other + 4, other, other + 1) == pytest.approx(0.25)
    assert share_of_evidence(other + 4, other, other - 1) == 0
    assert share_of_evidence(other + 4, other, other + 9) == 1
    assert np.isnan(share_of_evidence(other + 0.4, other, other))  # less than half a logit
    assert np.isnan(share_of_evidence(30 * noise + 3, 30 * other, other))  # within error
