"""Audit of a classifier: which images it gets right for the wrong reason, and how that is taken out of it.

Axes of arrays, in every docstring of this wing (a small letter is a count that the docstring names):

    N   images of a corpus
    B   images of a batch
    C   channels of an image or of a layer
    H   rows of pixels, downwards
    W   columns of pixels, to the right
    G   side of a pooled relevance map
    K   outputs of the model
    F   features that go into the model's last layer
    M   connected parts of relevance maps
    P   parts of one image, or positions of a layer
    T   tokens of a transformer
    D   numbers that describe one item that is compared
    L   peaks of relevance in one image
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from klarsicht.audit.results.ranking import Ranking


def rank(run: str | Path) -> Ranking:
    """The classes of a finished run, most suspect first; `to_pandas` makes a table of them.

    Raises:
        InputError: no run in this folder.
        StoreError: the run has not been ranked yet.
    """
    from klarsicht.audit.results import ranking

    return ranking.read_ranking(run)
