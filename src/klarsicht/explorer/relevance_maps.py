"""Relevance maps that a run stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from klarsicht.explorer import thumbnails
from klarsicht.explorer.run_reader import RunReader
from klarsicht.ground.arrays import Floats, Ints
from klarsicht.ground.errors import UsageError
from klarsicht.ground.pictures.colour_maps import saturation_bound
from klarsicht.ground.run_folder.stored_array import StoredArray

MAPS = "maps"  # the array of a run
ABSORBED_SHARE = 0.9  # median share of absorbed relevance above which maps are hints, as in the report
MEAN_MAPS, MEAN_ROWS = 2000, 256  # maps of which a mean is taken at most, and those that are read at once
RUN_ROWS = 64  # maps that lie together and are read at once


@dataclass(frozen=True)
class RelevanceMaps:
    """Relevance maps of the images of a run, float32 (N, G, G)."""

    reader: RunReader

    @property
    def exist(self) -> bool:
        return self.reader.store.has_array(MAPS)

    @property
    def are_hints(self) -> bool:
        """Whether so much relevance is absorbed on its way to the pixels that maps are hints only."""
        share = self.reader.images().absorbed
        share = self.reader.manifest.get("absorbed") if share is None else share
        return share is not None and abs(share) > ABSORBED_SHARE

    def _array(self) -> StoredArray:
        if not self.exist:
            raise UsageError("the run has no relevance maps", rule="a method that makes maps, and one class as target")
        return self.reader.keep(MAPS, (), lambda: self.reader.store.array(MAPS))

    def of(self, rows: Sequence[int] | Ints) -> Floats:
        """Read the relevance maps float32 (n, G, G) of n images; raises UsageError where the run has no maps."""
        return np.asarray(self._array()[np.asarray(rows)], np.float32)

    def bounds(self, rows: Sequence[int]) -> list[float]:
        """Return the relevance at which the colours of each map saturate.

        Raises:
            UsageError: the run has no maps.
        """
        return [saturation_bound(one) for one in self.of(rows)]

    def draw_mean(self, rows: Sequence[int], side: int) -> tuple[bytes, int]:
        """Draw the mean relevance map of some images, of more than MEAN_MAPS of as many, evenly chosen; return it and
        their number.

        Raises:
            UsageError: no rows, a row that the run does not have, or no maps.
        """
        if not rows:
            raise UsageError("no images are selected")
        images = self.reader.images()
        drawn = choose_evenly(np.unique(np.array([images.require(row) for row in rows])), MEAN_MAPS)
        blocks = (drawn[start : start + MEAN_ROWS] for start in range(0, len(drawn), MEAN_ROWS))
        total = sum(np.asarray(self._array()[block], np.float64).sum(0) for block in blocks)
        return thumbnails.draw_relevance(np.asarray(total / len(drawn), np.float32), side), len(drawn)


def choose_evenly(rows: Ints, most: int) -> Ints:
    """Choose at most so many of some rows (n,), at equal steps."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def choose_runs(rows: Ints, most: int) -> Ints:
    """Choose at most so many of some ascending rows (n,), in runs of RUN_ROWS, which are read at once."""
    if len(rows) <= most:
        return rows
    starts = np.linspace(0, len(rows) - RUN_ROWS, most // RUN_ROWS).astype(int)
    return rows[np.unique(starts[:, None] + np.arange(RUN_ROWS))]
