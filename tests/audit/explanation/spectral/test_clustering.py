"""One class: the suspect cluster is the separated group that raises the target."""

import numpy as np
import pytest
from scipy import stats

from klarsicht.audit.explanation.spectral.clustering import (
    Clustering,
    TargetLogits,
    divide_by_absolute_sum,
    embed_items,
)
from klarsicht.numerics.clustering.candidates import SWEEPS, Candidate
from klarsicht.numerics.clustering.fisher import Separability


def two_groups(n=200, marked=24, dimensions=40, seed=0, raise_by=3.0):
    """Rows of noise; the marked ones share a pattern, and their logit is raised."""
    rng = np.random.default_rng(seed)
    member = np.arange(n) < marked
    X = np.abs(rng.standard_normal((n, dimensions)))
    X[member, :4] += 12
    return X, member, rng.standard_normal(n) + raise_by * member


def found(X, evidence, distance="concept", seed=0):
    embedded = embed_items(X, evidence, distance=distance, neighbours=10, dimensions=8, seed=seed)
    return Clustering.of(embedded, SWEEPS["thorough"], seed).suspect(evidence)


@pytest.mark.parametrize("distance", ["concept", "euclidean"])
@pytest.mark.parametrize("seed", range(3))
def test_a_planted_group_that_raises_the_target_is_the_suspect(distance, seed):
    X, member, logit = two_groups(seed=seed)
    suspect = found(X, TargetLogits(logit, np.arange(len(X))), distance, seed)
    assert set(suspect.members) == set(np.flatnonzero(member))
    assert suspect.raises
    assert suspect.prevalence == pytest.approx(member.mean())
    assert suspect.shift == pytest.approx(logit[member].mean() - logit[~member].mean())
    assert suspect.z == pytest.approx(suspect.shift / logit[~member].std())


def test_a_group_that_lowers_the_target_is_passed_over_for_one_that_raises_it():
    X, member, logit = two_groups(raise_by=-3)
    suspect = found(X, TargetLogits(logit, np.arange(len(X))))
    assert suspect is not None
    assert set(suspect.members) != set(np.flatnonzero(member))


def test_the_group_is_taken_and_not_its_core():
    """The core has the larger D^2 x z; group and core are views of one thing, and tau x z of the group is larger."""
    members = np.array([np.arange(1000) < 40, np.arange(1000) < 100, np.arange(1000) >= 500])
    logit = np.where(np.arange(1000) % 2 == 0, 1.0, -1) + 2 * members[1]
    candidates = tuple(Candidate(member, "by hand", 2) for member in members)
    clustering = Clustering(candidates, members, Separability(np.array([8.0, 7, 1]), members.mean(1)))
    assert clustering.suspect(TargetLogits(logit, np.arange(1000))).candidate is candidates[1]
    alone = Clustering(candidates[::2], members[::2], Separability(np.array([8.0, 1]), members[::2].mean(1)))
    assert alone.suspect(TargetLogits(logit, np.arange(1000))).candidate is candidates[0]


def test_a_group_is_taken_and_not_one_of_its_pieces():
    """The piece shares a sixth with the group, and lies in it."""
    members = np.array([np.arange(1000) < 50, np.arange(1000) < 300, (np.arange(1000) >= 30) & (np.arange(1000) < 330)])
    logit = np.where(np.arange(1000) % 2 == 0, 1.0, -1) + 2 * members[1]
    candidates = tuple(Candidate(member, "by hand", 2) for member in members)
    clustering = Clustering(candidates, members, Separability(np.array([9.0, 5, 8]), members.mean(1)))
    assert clustering.suspect(TargetLogits(logit, np.arange(1000))).candidate is candidates[1]
    alone = Clustering(candidates[::2], members[::2], Separability(np.array([9.0, 8]), members[::2].mean(1)))
    assert alone.suspect(TargetLogits(logit, np.arange(1000))).candidate is candidates[0]  # it lies in no other


def test_a_rare_group_is_not_hidden_by_a_half_of_less_tau_and_a_little_more_rise():
    """tau x z of about 6 x .73 and 4 x .75; in standard errors the half would rise three times as far."""
    members = np.array([np.arange(1000) < 20, np.arange(1000) >= 500])
    logit = np.where(np.arange(1000) % 2 == 0, 1.0, -1) + 1.2 * members[0] + 0.8 * members[1]
    candidates = tuple(Candidate(member, "by hand", 2) for member in members)
    clustering = Clustering(candidates, members, Separability(np.array([6.0, 4]), members.mean(1)))
    assert clustering.suspect(TargetLogits(logit, np.arange(1000))).candidate is candidates[0]


def test_shifts_equal_the_means_and_deviations_of_numpy():
    rng = np.random.default_rng(1)
    logit, members = rng.standard_normal(50), rng.random((7, 50)) < 0.3
    shift, deviation = TargetLogits(logit, np.arange(50)).shifts(members)
    for i, m in enumerate(members):
        assert shift[i] == pytest.approx(logit[m].mean() - logit[~m].mean())
        assert deviation[i] == pytest.approx(logit[~m].std())


def test_repeated_sources_are_compared_within_themselves():
    """Ten scenes of twenty crops, each scene far from the others; a mark on two crops of each. Without sources the
    scenes are the clusters; with them the marks are."""
    rng = np.random.default_rng(3)
    sources = np.repeat(np.arange(10), 20)
    member = np.tile(np.arange(20) < 3, 10)
    scene = 30 * np.abs(rng.standard_normal((10, 40)))[sources]
    X = scene + np.abs(rng.standard_normal((200, 40)))
    X[member, :4] += 60
    logit = 5 * rng.standard_normal(10)[sources] + rng.standard_normal(200) + 3 * member
    suspect = found(X, TargetLogits(logit, sources))
    hits = member[suspect.members].sum()
    assert 2 * hits / (suspect.size + member.sum()) > 0.9
    assert TargetLogits(logit, sources).sources_repeat


def test_the_shift_of_noise_is_within_its_standard_error():
    """Without a planted effect the shift of a fixed group is a difference of means: its t statistic is small."""
    rng = np.random.default_rng(0)
    logit, member = rng.standard_normal(400), np.arange(400) < 50
    shift, _ = TargetLogits(logit, np.arange(400)).shifts(member[None])
    t = stats.ttest_ind(logit[member], logit[~member], equal_var=False)
    assert np.sign(t.statistic) == np.sign(shift[0])
    assert abs(shift[0]) < 4 * np.sqrt(logit.var() * (1 / 50 + 1 / 350))


def test_rows_are_divided_by_their_absolute_sum_and_blank_ones_stay():
    X = np.array([[1.0, -3.0], [0.0, 0.0]])
    np.testing.assert_allclose(divide_by_absolute_sum(X), [[0.25, -0.75], [0, 0]])


def test_rounding_has_no_say_in_which_cluster_is_suspect():
    """Constant logits with another rounding each time: the cluster is the same, that of the structure alone."""
    rng = np.random.default_rng(3)
    X = np.concatenate([rng.normal(0, 1, (150, 6)), rng.normal(4, 0.3, (20, 6))])
    rows = TargetLogits(np.zeros(170), np.arange(170))
    embedded = embed_items(X, rows, distance="euclidean", neighbours=10, dimensions=8, seed=0)
    clusters = Clustering.of(embedded, SWEEPS["quick"], 0)
    seen = []
    for _ in range(10):
        logits = np.full((170, 3), [2.0, -1.0, 5.0], np.float32)
        logits += rng.integers(-4, 5, logits.shape).astype(np.float32) * np.spacing(np.float32(5))
        evidence = TargetLogits.of(logits, 0, np.arange(170))
        assert not evidence.varies
        suspect = clusters.suspect(evidence)
        assert abs(suspect.z) < 0.1
        seen.append(tuple(suspect.members))
    assert len(set(seen)) == 1


def test_a_real_rise_is_the_literal_one_in_deviations():
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 1, (100, 3)).astype(np.float32)
    logits[:10, 1] += 3
    evidence = TargetLogits.of(logits, 1, np.arange(100))
    member = np.arange(100) < 10
    y = logits[:, 1] - logits.mean(1)
    given = Clustering((Candidate(member, "given", 2),), member[None], Separability(np.ones(1), np.array([0.1])))
    suspect = given.suspect(evidence)
    assert evidence.varies
    assert suspect.z == pytest.approx((y[:10].mean() - y[10:].mean()) / y[10:].std(), rel=1e-5)
    assert suspect.deviation == pytest.approx(y[10:].std(), rel=1e-5)
