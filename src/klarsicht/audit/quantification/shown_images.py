"""Bound the number of images that a quantification will show to the network, stage by stage, before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from klarsicht.audit.interventions.regions import DONORS_PER_IMAGE, MAX_COMPONENTS, SEARCH_BACKGROUNDS
from klarsicht.audit.quantification.cluster_search import most_images_shown
from klarsicht.audit.quantification.cluster_units import CLASS_IMAGES, ClusterInterventionUnits
from klarsicht.audit.quantification.intervention_units import InterventionUnits, most_images_inserted
from klarsicht.audit.quantification.units import EFFECT_BACKGROUNDS, DetectionUnits


@dataclass(frozen=True)
class ShownImages:
    """Numbers of images that are to be shown to the network.

    Attributes:
        inserted: with artifacts put on them, at most.
        searched: with regions put on them, at most.
        left: of `searched`, where every class is left at the first look.
    """

    inserted: int
    searched: int
    left: int

    @classmethod
    def of(cls, work: DetectionUnits) -> ShownImages:
        """Bound them for the classes of a run whose steps are not done yet."""
        inserting, searching = (
            [len(group) for i, group in enumerate(work.groups) if not work.store.is_done(step, i)]
            for step in (InterventionUnits.step, ClusterInterventionUnits.step)
        )
        if len(work.groups) == 1:
            screened = sum(map(_most_images_screened, searching))
            return cls(0, screened, screened)
        searching = searching if work.store.has_array("maps") else []
        bounds = [most_images_shown(min(size, CLASS_IMAGES)) for size in searching]
        inserted = len(inserting) * most_images_inserted(work.outputs)
        return cls(inserted, sum(most for _, most in bounds), sum(first for first, _ in bounds))

    def describe(self) -> str:
        """Return a line on standard error."""
        stages = [f"{self.inserted:,} with artifacts on them"] if self.inserted else []
        if self.searched:
            left = f", {self.left:,} if no class shows any" if self.left < self.searched else ""
            stages.append(f"{self.searched:,} with parts of clusters on them{left}")
        return f"at most {self.inserted + self.searched:,} images will be shown to the network: {'; '.join(stages)}"


def _most_images_screened(images: int) -> int:
    """Bound the number of images that a screening of a corpus of so many images shows to the network."""
    tried = min(images, CLASS_IMAGES) * (MAX_COMPONENTS + 1) * SEARCH_BACKGROUNDS
    return tried + SEARCH_BACKGROUNDS + EFFECT_BACKGROUNDS * (1 + 2 * DONORS_PER_IMAGE)
