"""Aligned images of two classes, from detectors to verdicts. Oracle: a mark put on eight images of one class."""

import numpy as np
import pytest
from tests.audit.verdicts.detectors.test_aligned_windows import LETTER, SIDE, N, aligned, beside

from klarsicht.audit.results.significance import ALIGNED
from klarsicht.audit.verdicts.detectors.bank import run_detectors
from klarsicht.audit.verdicts.quantification.selected_detections import select_detections
from klarsicht.audit.verdicts.quantification.units import measure_few, sign_row


@pytest.mark.slow
def test_the_class_with_the_mark_is_called_by_its_images_and_the_other_is_not():
    rng = np.random.default_rng(4)
    common = 60 * np.kron(rng.normal(0, 1, (SIDE // 4, SIDE // 4, 1)), np.ones((4, 4, 1)))
    classes = [aligned(rng, N, common) for _ in range(2)]
    classes[0][10:18, 2:7, 25:30, 0] = LETTER
    signs, measures = [], []
    for target, (own, other) in enumerate((classes, classes[::-1])):
        images = beside(own, other)
        detections, measured = measure_few(images, run_detectors(images))
        assert measured["correlation"] > ALIGNED and measured["natural"]
        signs.append([sign_row(target, np.arange(N), one) for one in detections])
        measures.append(measured)
    selected = select_detections(signs, 0.05, measures)
    assert selected.significance.artifactual(0.05).tolist() == [True, False]
    assert selected.rows[0]["rows"] == list(range(10, 18)) and selected.candidates[0][0][1] <= 0.05
