"""Spectral analysis of a user's own arrays: the planted group, the parts of the chain it is made of, and refusals."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from klarsicht import audit
from klarsicht.audit.explanation.spectral.clustering import Clustering, TargetLogits, embed_items
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.numerics.clustering.candidates import SWEEPS

N, MARKED = 120, 20


@pytest.fixture(scope="module")
def maps():
    """Relevance somewhere in the middle, and of the first images in the upper left corner."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:16, :16]
    centres = np.where(np.arange(N)[:, None] < MARKED, [2.0, 2.0], rng.uniform(6, 12, (N, 2)))
    far = (rows - centres[:, 0, None, None]) ** 2 + (columns - centres[:, 1, None, None]) ** 2
    return np.exp(-far / 4) + 0.01 * rng.random((N, 16, 16))


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(1).normal(0, 1, N) + 3 * (np.arange(N) < MARKED)


@pytest.mark.parametrize("metric", ["euclidean", "concept", "wasserstein"])
def test_the_planted_group_is_the_suspect(maps, logits, metric):
    found = audit.spray(maps, logits, metric=metric, random_state=0)
    members = np.zeros(N, bool)
    members[found.suspect.members] = True
    assert f1_score(np.arange(N) < MARKED, members) > 0.95
    assert found.suspect.z == pytest.approx(found.suspect.shift / logits[~members].std())
    assert found.embedding.shape == (N, 8) and found.clusters.shape == (len(found.tau), N)
    assert (np.diff(found.eigenvalues) >= -1e-9).all() and found.eigenvalues[0] == pytest.approx(0, abs=1e-8)


def test_it_is_the_chain_of_its_parts(maps, logits):
    rows, evidence = maps.reshape(N, -1).astype(np.float32), TargetLogits(logits, np.arange(N))
    embedded = embed_items(rows, evidence, distance="euclidean", neighbours=10, dimensions=8, seed=3)
    parts = Clustering.of(embedded, SWEEPS["thorough"], 3)
    found = audit.spray(maps, logits, random_state=3)
    np.testing.assert_array_equal(found.embedding, embedded.vectors)
    np.testing.assert_array_equal(found.clusters, parts.members)
    np.testing.assert_array_equal(found.suspect.members, parts.suspect(evidence).members)


def test_without_logits_the_cluster_that_stands_apart_is_named(maps):
    found = audit.spray(maps)
    assert set(found.suspect.members) <= set(range(MARKED)) and found.suspect.z == 0


def test_maps_without_relevance_are_set_aside_and_members_are_positions_among_all(maps, logits):
    blank = np.concatenate([np.zeros((5, 16, 16)), maps])
    found = audit.spray(blank, np.concatenate([np.zeros(5), logits]), metric="wasserstein")
    assert found.set_aside[:5].all() and not found.set_aside[5:].any()
    assert np.isnan(found.embedding[:5]).all() and not found.clusters[:, :5].any()
    assert found.suspect.members.min() >= 5
    assert "suspect" in found._repr_html_()


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"metric": "wassersten"}, UsageError, "wasserstein"),
        ({"logits": np.zeros(3)}, UsageError, "Give as many logits as items"),
        ({"logits": np.full(N, np.nan)}, InputError, "not finite; .* Leave such items out"),
        ({"items": np.zeros((9, 4, 4))}, InputError, "too few .*got 9; .* Give the items of one class, 20 or more"),
        ({"items": np.zeros((N, 4, 4)), "metric": "wasserstein"}, InputError, f"got 0 of {N} usable"),
        ({"items": np.zeros((40, 16)), "logits": None, "metric": "wasserstein"}, InputError, "compares maps"),
    ],
)
def test_what_cannot_be_compared_is_refused(maps, logits, change, error, told):
    asked = {"items": maps, "logits": logits, "metric": "euclidean"} | change
    if len(asked["items"]) != N:
        asked["logits"] = None
    with pytest.raises(error, match=told):
        audit.spray(asked.pop("items"), asked.pop("logits"), **asked)
