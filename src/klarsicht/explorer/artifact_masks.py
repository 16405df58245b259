"""Masks of the artifacts of a run's classes, by every source that the run has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from klarsicht.explorer import pixel_masks
from klarsicht.explorer.class_decisions import ClassDecisions
from klarsicht.explorer.relevance_maps import RelevanceMaps, choose_runs
from klarsicht.explorer.run_reader import RunReader
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import UsageError
from klarsicht.ground.pictures.seen_area import SeenArea, read_seen_area

BACKGROUND_MAPS = 512  # maps whose mean masks by relevance exceed
NEEDED = "a window, relevance maps or a saved correction, of a model whose seen area is known"


@dataclass(frozen=True)
class ArtifactMasks:
    """Masks of the artifacts of classes, from saved corrections, relevance maps, windows and members."""

    reader: RunReader
    decisions: ClassDecisions
    maps: RelevanceMaps

    @property
    def seen_area(self) -> SeenArea | None:
        """Part of a file that the model sees; None where it is not known."""
        return read_seen_area(self.reader.manifest)

    def by_source(self, target: int) -> dict[str, pixel_masks.SeenMasks]:
        """Return the masks of a class's artifact by their source, in order; none where the seen area is not known."""
        if self.seen_area is None:
            return {}
        saved = tuple(str(folder) for folder in pixel_masks.saved_artifacts(self.reader.store.path))
        stamp = (target, self.decisions.results.stamp, self.decisions.stamp, saved)
        return self.reader.keep("masks", stamp, lambda: self._read(target))

    def _read(self, target: int) -> dict[str, pixel_masks.SeenMasks]:
        members = np.array(self.decisions.members(target), np.int64)
        maps = self.maps.of if self.maps.exist else None
        masks = [pixel_masks.read_saved_masks(self.reader.store.path, target, maps)]
        if maps is not None and not (masks[0] and masks[0].source == pixel_masks.RELEVANCE):
            others = np.setdiff1d(self.reader.images().rows_of(target), members)
            masks.append(pixel_masks.ExcessMasks.of(maps, members, choose_runs(others, BACKGROUND_MAPS)))
        if windows := self.decisions.results.windows(target):
            masks.append(pixel_masks.WindowMasks(windows))
        by_source = {one.source: one for one in masks if one is not None}
        return {source: by_source[source] for source in pixel_masks.MASK_SOURCES if source in by_source}

    def of_image(self, target: int, row: int, size: tuple[int, int], source: str = "") -> tuple[str, Bools] | None:
        """Make the mask (h, w) of a class's artifact on a file of `size` (w, h), and name its source: the given one, by
        default the first that has a place in this image, without relevance where a detector found the artifact. None
        without one.

        Raises:
            UsageError: the class has no masks of the given source.
        """
        masks = self.by_source(target)
        if source and source not in masks:
            raise UsageError("no such masks of this class", got=repr(source), rule=", ".join(masks) or NEEDED)
        by_detector = self.decisions.results.line(target).by_detector
        usual = [name for name in masks if name != pixel_masks.RELEVANCE or not by_detector]
        for name in [source] if source else usual:
            mask = pixel_masks.mask_in_file(masks[name], row, size, self.seen_area or SeenArea())
            if mask is not None:
                return name, mask
        return None
