"""Markers of finished units: what was marked, in the order of units."""

import numpy as np


def test_markers(store):
    assert store.finished_units("relevance") == {}
    store.mark_done("relevance", 12, loss=np.float32(0.5))
    store.mark_done("relevance", 3, rows=[0, 4])
    assert store.is_done("relevance", 3)
    assert not store.is_done("relevance", 4)
    assert list(store.finished_units("relevance").items()) == [(3, {"rows": [0, 4]}), (12, {"loss": 0.5})]
    store.clear_markers("relevance")
    store.clear_markers("never_begun")
    assert store.finished_units("relevance") == {}
