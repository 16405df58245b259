"""Bound the number of images that a quantification will show to the network, stage by stage, before it begins."""

from __future__ import annotations

from dataclasses import dataclass

from klarsicht.audit.verdicts.interventions.regions import DONORS_PER_IMAGE, MAX_COMPONENTS, SEARCH_BACKGROUNDS
from klarsicht.audit.verdicts.quantification.cluster_search import most_images_shown
from klarsicht.audit.verdicts.quantification.cluster_units import CLASS_IMAGES, ClusterInterventionUnits
from klarsicht.audit.verdicts.quantification.intervention_units import InterventionUnits, most_images_inserted
from klarsicht.audit.verdicts.quantification.units import EFFECT_BACKGROUNDS, DetectionUnits


@dataclass(frozen=True)
class ShownImages:
    """Numbers of images that are to be shown to the network.

    Attributes:
        insertion_images: with artifacts put on them, at most.
        search_images: with regions put on them, at most.
        first_look_images: of `search_images`, where every class is left at the first look.
    """

    insertion_images: int
    search_images: int
    first_look_images: int

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
        stages = [f"{self.insertion_images:,} with artifacts on them"] if self.insertion_images else []
        if self.search_images:
            first = self.first_look_images
            left = f", {first:,} if no class shows any" if first < self.search_images else ""
            stages.append(f"{self.search_images:,} with parts of clusters on them{left}")
        most = self.insertion_images + self.search_images
        return f"at most {most:,} images will be shown to the network: {'; '.join(stages)}"


def _most_images_screened(images: int) -> int:
    """Bound the number of images that a screening of a corpus of so many images shows to the network."""
    tried = min(images, CLASS_IMAGES) * (MAX_COMPONENTS + 1) * SEARCH_BACKGROUNDS
    return tried + SEARCH_BACKGROUNDS + EFFECT_BACKGROUNDS * (1 + 2 * DONORS_PER_IMAGE)
