"""Points of a class, and their principal plane."""

import numpy as np
import pytest
from tests.explorer.made_run import CARRIERS, EACH, EIGENVALUES, embedding_part, vectors_of, write_run
from tests.explorer.requests import ask, parse_points

from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.point_clouds import principal_plane, read_points


def test_points_are_the_stored_embedding_with_labels_and_membership(app, whole_run):
    stored = whole_run.part("embedding-concept", 0, "spray-concept")
    found = parse_points(ask(app, "/api/classes/0/points").content)
    assert found["rows"].tolist() == stored["row"].to_pylist() == list(range(EACH))
    np.testing.assert_array_equal(found["vectors"], stored["vector"].to_pylist())
    assert set(found["label"].tolist()) == {0}
    assert [i for i in range(EACH) if found["predicted"][i] != 0] == [5, 16]
    assert found["flags"].tolist() == [3] * CARRIERS + [0] * (EACH - CARRIERS)
    told = ask(app, "/api/classes/0").json
    assert (told["eigenvalues"], told["eigengap"]) == (EIGENVALUES, 2)  # .01 to .4 is the largest step
    assert told["members"] == told["found"] == list(range(CARRIERS)) and told["windows"] == CARRIERS


def test_points_that_are_analysed_after_a_class_was_opened_are_shown(tmp_path):
    store = write_run(tmp_path, each=EACH, carriers=CARRIERS, embedded=(1, 2), images=False)
    run = ExploredRun.of(store)
    assert read_points(run, 0).vectors.shape == (EACH, 0)
    vectors = vectors_of(EACH, CARRIERS, np.random.default_rng(0))
    written = store.write_part("embedding-concept", 0, embedding_part(range(EACH), vectors))
    store.mark_done("spray-concept", 0, written)
    store.write_json("ranking.json", store.read_json("ranking.json"))
    np.testing.assert_array_equal(read_points(run, 0).vectors, vectors)


def test_the_plane_holds_the_first_two_principal_axes():
    """Against numpy's singular values: distances in the plane are those of the best approximation of rank 2."""
    X = np.random.default_rng(1).normal(size=(50, 5)) * [5, 3, 1, 0.5, 0.1]
    plane = principal_plane(X.astype(np.float32)).astype(float)
    u, s, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
    wanted = u[:, :2] * s[:2]
    apart = lambda Z: np.linalg.norm(Z[:, None] - Z[None], axis=2)  # noqa: E731
    np.testing.assert_allclose(apart(plane) * np.abs(wanted).max(), apart(wanted), rtol=1e-3, atol=1e-3)
    assert np.abs(plane).max() == pytest.approx(1)
    assert principal_plane(np.zeros((0, 3), np.float32)).shape == (0, 2)
    assert not principal_plane(np.ones((4, 1), np.float32)).any()
