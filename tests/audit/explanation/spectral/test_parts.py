"""Parts of images: a tag that moves is found by its part; clusters and masks are inherited as a loop does it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from tests.audit.conftest import SIDE, network, picture
from torch import nn

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance import attribution
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.spectral.clustering import Clustering, TargetLogits
from klarsicht.audit.explanation.spectral.parts import PartGroup, centre_by_mass
from klarsicht.audit.explanation.steps import audit_inputs, relevance_step
from klarsicht.audit.results import ranking
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.clustering.candidates import SWEEPS, Candidate
from klarsicht.numerics.clustering.fisher import Separability
from klarsicht.numerics.clustering.spectral import affinity, embed
from klarsicht.numerics.imaging.persistence import segment
from klarsicht.numerics.transport.measures import measures_from_maps

RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1.0]])
BAR = np.array([[1, 1, 1, 1, 1.0]])


def scenes(n=80, tagged=16, side=24, seed=0):
    """Every map has a blob of its own size somewhere; tagged ones a ring somewhere else too. Which are tagged."""
    rng = np.random.default_rng(seed)
    maps, tags = np.zeros((n, side, side), np.float32), np.arange(n) < tagged
    for one, tag in zip(maps, tags, strict=True):
        one[rng.integers(4, 9), rng.integers(4, side - 4)] = 60
        one[:] = ndimage.gaussian_filter(one, rng.uniform(0.8, 2.0, 2))
        if tag:
            y, x = rng.integers(14, side - 4), rng.integers(1, side - 4)
            one[y : y + 3, x : x + 3] = 3 * RING
    return maps, tags


def group(maps, sources=None, seen=None, cut=centre_by_mass):
    labels = segment(maps).labels
    sources = np.arange(len(maps)) if sources is None else sources
    return PartGroup.of(maps, labels, np.ones((len(maps), 8, 2)) if seen is None else seen, sources, cut)


@pytest.mark.parametrize("dy", [-3, 0, 4])
@pytest.mark.parametrize("dx", [-2, 5])
def test_centring_forgets_where_a_part_was_and_nothing_else(dy, dx):
    maps = np.zeros((2, 30, 31))
    maps[0, 12:15, 14:17], maps[1, 11:12, 13:18] = RING, BAR
    moved = ndimage.shift(maps, (0, dy, dx), order=0)
    np.testing.assert_allclose(centre_by_mass(moved), centre_by_mass(maps), atol=1e-12)
    for row, whole in zip(centre_by_mass(maps).reshape(2, 30, 31), maps, strict=True):
        there = np.roll(whole, (15, 15) - np.array(ndimage.center_of_mass(whole)).astype(int), (0, 1))
        np.testing.assert_allclose(row, there, atol=1e-12)


def test_between_cells_a_part_is_moved_as_scipy_does_it():
    rng = np.random.default_rng(0)
    maps = np.zeros((5, 24, 25))
    maps[:, 7:14, 9:15] = rng.random((5, 7, 6))
    for row, whole in zip(centre_by_mass(maps).reshape(maps.shape), maps, strict=True):
        there = ndimage.shift(whole, np.array([12, 12]) - ndimage.center_of_mass(whole), order=1)
        np.testing.assert_allclose(row, there, atol=1e-12)
        assert ndimage.center_of_mass(row) == pytest.approx((12, 12))


def test_what_leaves_the_frame_is_lost_and_nothing_returns_on_the_other_side():
    maps = np.zeros((1, 9, 29))
    maps[0, 4, 0], maps[0, 4, 28] = 27, 1  # their centre is at 1, and moves to 14
    wanted = np.zeros((9, 29))
    wanted[4, 13] = 27
    np.testing.assert_allclose(centre_by_mass(maps).reshape(9, 29), wanted, atol=1e-12)


def test_neighbours_are_never_parts_of_one_image_or_of_one_source():
    found = group(scenes()[0], sources=np.arange(80) // 4)
    sources = found.sources_of_parts
    np.testing.assert_array_equal(sources, found.parts.image // 4)
    assert (sources[found.graph("euclidean", 5, 0).indices] != sources[:, None]).all()
    fullest = max((sources == source).sum() for source in sources)
    assert found.graph("euclidean", 10**6, 0).k == found.max_neighbours == len(found) - fullest


def test_a_ring_that_moves_is_found_by_the_shape_of_its_part():
    maps, tags = scenes()
    found = group(maps)
    embedded = embed(affinity(found.graph("euclidean", 8, 0)), 6, 0)
    clusters = found.image_clusters(Clustering.of(embedded, SWEEPS["thorough"], 0))
    logit = np.random.default_rng(1).standard_normal(80) + 2 * tags
    suspect = clusters.suspect(TargetLogits(logit, np.arange(80)))
    assert set(suspect.members) == set(np.flatnonzero(tags))
    for i, numbers in zip(suspect.members, found.part_numbers(suspect.candidate.member, suspect.members), strict=True):
        mask = np.isin(found.parts.labels[i], numbers)
        assert (maps[i] * mask)[13:].sum() > 0.9 * (maps[i] * mask).sum()


def test_appearance_tells_parts_of_one_shape_apart():
    maps, tags = np.zeros((60, 12, 12), np.float32), np.arange(60) % 4 == 0
    maps[:, 5:8, 5:8] = 1
    rng = np.random.default_rng(0)
    seen = np.zeros((60, 8, 3))
    seen[:, 0] = np.where(tags[:, None], (0, 0, 1), (1, 0, 0)) + 0.1 * rng.random((60, 3))
    graph = group(maps, seen=seen).graph("euclidean", 5, 0)
    assert (tags[graph.indices] == tags[:, None]).all()


def test_clusters_masks_and_vectors_are_inherited_as_a_loop_does_it():
    rng = np.random.default_rng(2)
    maps = ndimage.gaussian_filter(rng.standard_normal((12, 16, 16)), (0, 1.5, 1.5)).astype(np.float32)
    found = group(maps)
    M, members = len(found), rng.random((5, len(found))) < 0.15
    members[0] = True  # of all images: no cluster
    candidates = tuple(Candidate(one, "k-means", 2) for one in members)
    clusters = found.image_clusters(Clustering(candidates, members, Separability(np.arange(5.0), members.mean(1))))
    wanted = [[any(one[m] for m in range(M) if found.parts.image[m] == i) for i in range(12)] for one in members]
    kept = [m for m, row in enumerate(wanted) if 0 < sum(row) <= 6]
    np.testing.assert_array_equal(clusters.members, [wanted[m] for m in kept])
    assert clusters.separability.tau.tolist() == kept and clusters.candidates == tuple(candidates[m] for m in kept)
    assert 0 not in kept and len(kept) > 1

    images = np.array([1, 4, 7])
    literal = [
        [int(found.parts.number[m]) for m in range(M) if found.parts.image[m] == i and members[1, m]] for i in images
    ]
    assert found.part_numbers(members[1], images) == literal

    vectors, chosen = rng.random((M, 3)), rng.integers(1, 4, 12)
    for i, row in enumerate(found.vectors(vectors, chosen)):
        own = {int(found.parts.number[m]): vectors[m] for m in range(M) if found.parts.image[m] == i}
        np.testing.assert_array_equal(row, own.get(int(chosen[i]), own.get(1, np.zeros(3))))


def test_parts_that_a_metric_can_say_nothing_of_are_left_out():
    maps = np.zeros((3, 12, 12), np.float32)
    maps[:, 2, 2], maps[:2, 8:11, 8:11] = 5, 1  # one pixel has no extent
    found = group(maps, cut=measures_from_maps)
    assert found.parts.image.tolist() == [0, 1]
    assert len(found.shapes) == len(found.appearance) == 2
    assert found.vectors(np.ones((2, 1)), np.ones(3, int)).tolist() == [[1], [1], [0]]
    assert len(group(np.zeros((3, 4, 4), np.float32))) == 0


@pytest.fixture
def spotter():
    """A network for which class b is a white spot, wherever it is, and hardly anything else."""
    net = network()
    net.first = nn.Conv2d(3, 4, 3, padding=1)
    with torch.no_grad():
        net.first.weight.copy_(network().first.weight)
        net.first.bias.copy_(torch.tensor([0, 0, 0, -2.5]))
        net.head.weight[1, 3] = 90
    return load_model(net, classes=["a", "b", "c"])


@pytest.fixture
def moved(tmp_path):
    """Classes a, b, c; on a fifth of b the mark lies anywhere. Names of the marked."""
    rng, marked = np.random.default_rng(0), {}
    for label, name in enumerate("abc"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(40):
            pixels = np.asarray(picture(label, False, rng)).copy()
            if name == "b" and i < 8:
                y, x = rng.integers(0, SIDE - 3, 2)
                pixels[y : y + 3, x : x + 3] = 255
                marked[f"b/{i:03d}.png"] = (y, x)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{i:03d}.png")
    return tmp_path / "data", marked


def test_a_moved_mark_is_found_with_its_mask_and_a_stopped_run_resumes_to_the_same(moved, spotter, tmp_path):
    (data, marked), classifier = moved, spotter
    settings = AuditSettings(
        model="object", data=str(data), unit=25, batch=7, neighbours=6, parts=True, metric=("euclidean", "features")
    )
    run = pipeline.run(settings, tmp_path / "run", classifier=classifier)
    assert run.manifest["middle"] == "last"  # the network has one resolution
    (line,) = [r for r in run.table("suspects-euclidean").to_pylist() if r["class"] == "b"]
    paths = run.table("corpus")["path"].to_pylist()
    names = {
        str(Path(paths[row]).relative_to(data)): (row, numbers)
        for row, numbers in zip(line["rows"], line["parts"], strict=True)
    }
    assert names.keys() == marked.keys()
    for name, (row, numbers) in names.items():
        y, x = marked[name]
        mask = np.isin(run.array("parts")[row], numbers)
        assert mask[y : y + 3, x : x + 3].all() and mask.sum() <= 25
    assert all(r["parts"] == [] for r in run.table("suspects-features").to_pylist())
    entry = ranking.read_ranking(run).of("b")
    assert json.loads((run.path / "ranking.json").read_text())[0]["parts"] == [list(p) for p in entry.parts]
    assert set(entry.masks) <= set(entry.rows)

    audit = audit_inputs.Audit.of(settings, classifier)
    again = pipeline.open_run(audit, tmp_path / "again")
    with again.lock():  # stopped after the arrays were made, and begun anew
        work = attribution.Attribution(
            again, audit.corpus, settings, audit.targets, "", relevance_step.load_worker_model, classifier
        )
        relevance_step.create_arrays(audit, again, work)
        relevance_step.attribute(audit, again, 1, own=classifier)
    for name in ("parts", "appearance", "maps"):
        assert again.array(name)[:].tobytes() == run.array(name)[:].tobytes()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"metric": ("concept",)}, "cut out of relevance maps"),
        ({"method": "HeadRelevance", "metric": ("features",)}, "cut out of relevance maps"),
        ({"metric": ("euclidean",), "parts_layer": "lost"}, "unknown layer"),
        ({"metric": ("euclidean",), "parts_layer": "head"}, "no positions"),
    ],
)
def test_parts_without_maps_or_positions_are_refused(moved, classifier, tmp_path, changes, told):
    asked = AuditSettings(model="object", data=str(moved[0]), parts=True, **changes)
    with pytest.raises(UsageError, match=told):
        pipeline.run(asked, tmp_path / "run", classifier=classifier)


def test_classes_with_too_few_parts_are_named(classifier, tmp_path, moved):
    settings = AuditSettings(model="object", data=str(moved[0]), parts=True, metric=("euclidean",), neighbours=6)
    audit = audit_inputs.Audit.of(settings, classifier)
    store = pipeline.open_run(audit, tmp_path / "run")
    with store.lock():
        relevance_step.attribute(audit, store, 1, own=classifier)
        work = pipeline.make_analyses(audit, store)["euclidean"]
        all_parts = work.parts(work.groups[0])
        few = np.arange(len(all_parts)) < 19
        work._cache["part group"] = replace(all_parts, parts=all_parts.parts[few])
        assert work.reason_too_few(work.groups[0]) == "19 parts; at least 20 are needed"
