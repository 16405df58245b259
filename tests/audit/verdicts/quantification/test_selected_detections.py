"""The detection that names a class, and those that are put on other images."""

import numpy as np
from tests.audit.results.test_significance import MEASURED

from klarsicht.audit.verdicts.quantification.selected_detections import (
    select_candidates,
    select_detections,
)


def test_of_few_classes_those_are_artifactual_that_the_embedding_sets_apart():
    names = ("fine 50", "noise 0.02", "embedding 0.002", "embedding 0.01")
    scores = [[9.0, 50, 0, 0], [2, 50, 5, 0], [8, 0, 1, 6], [1, 50, 1, 1]]
    signs = [
        [{"sign": n, "score": s, "rows": [i], "target": k} for i, (n, s) in enumerate(zip(names, row, strict=True))]
        for k, row in enumerate(scores)
    ]
    found = select_detections(signs, 0.05)
    assert found.significance.artifactual(0.05).tolist() == [False, True, True, False]
    assert found.significance.class_specific(0.05).tolist() == [True, False, False, False]
    s = np.array([9, 5, 6, 1.0])  # the highest of the three that are tested; of a called class, of the embedding
    np.testing.assert_allclose(found.significance.p_own, np.minimum(3 / 0.2 * np.exp(-2 * s) * (1 + 2 * s), 1))
    assert [row["sign"] for row in found.rows][:3] == ["fine 50", "embedding 0.002", "embedding 0.01"]
    assert [row["sign"] for row, _ in found.candidates[2]] == ["embedding 0.01"]  # its windows are put on no image
    strict = select_detections(signs, 1e-9)
    assert [row["sign"] for row in strict.rows] == ["fine 50", "embedding 0.002", "fine 50", "fine 50"]
    signs[2][0]["rows"] = signs[2][3]["rows"]  # the window of the same images names the class, and does not call it
    same = select_detections(signs, 0.05)
    assert same.rows[2]["sign"] == "fine 50" and same.significance.p_own[2] == found.significance.p_own[2]
    by_windows = select_detections(signs, 0.05, [MEASURED] * 4)
    assert by_windows.significance.artifactual(0.05).tolist() == [True, True, True, False]
    assert not by_windows.significance.class_specific(0.05).any()


def test_what_is_tried_is_the_strongest_sign_of_each_change():
    names = ("texture 32", "fine 50", "noise 0.02", "sharpness 0.002", "frame 0.002")  # two windows, then one each
    lines, p = [{"sign": name, "rows": [1]} for name in names], np.arange(5) / 10
    lines[3]["rows"] = []  # sharpness: nobody carries it
    tried = select_candidates(lines, np.array([8.0, 20, 6, 30, 4]), p)
    assert [(line["sign"], one) for line, one in tried] == [("fine 50", 0.1)]  # 6 and 4 are far below 30
    tried = select_candidates(lines, np.array([8.0, 20, 6, 3, 5]), p)
    assert [line["sign"] for line, _ in tried] == ["fine 50", "noise 0.02", "frame 0.002"]
