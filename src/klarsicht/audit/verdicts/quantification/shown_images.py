"""Bound the number of images that a quantification will show to the network, stage by stage, before it begins."""

from __future__ import annotations

from klarsicht.audit.verdicts.interventions.regions import DONORS_PER_IMAGE, MAX_COMPONENTS, SEARCH_BACKGROUNDS
from klarsicht.audit.verdicts.quantification.cluster_search import most_images_shown
from klarsicht.audit.verdicts.quantification.cluster_units import CLASS_IMAGES, ClusterInterventionUnits
from klarsicht.audit.verdicts.quantification.intervention_units import InterventionUnits, most_images_inserted
from klarsicht.audit.verdicts.quantification.units import EFFECT_BACKGROUNDS, DetectionUnits


def describe_shown_images(work: DetectionUnits) -> str:
    """Bound the images that the steps to come show to the network, in a line; empty where they show none."""
    inserting, searching = (
        [len(group) for i, group in enumerate(work.groups) if not work.store.is_done(step, i)]
        for step in (InterventionUnits.step, ClusterInterventionUnits.step)
    )
    alone = len(work.groups) == 1
    searching = searching if alone or work.store.has_array("maps") else []
    bounds = [_most_images_screened(n) if alone else most_images_shown(min(n, CLASS_IMAGES)) for n in searching]
    inserted = 0 if alone else len(inserting) * most_images_inserted(work.outputs)
    first, most = (sum(bound[i] for bound in bounds) for i in (0, 1))
    left = f", {first:,} if no class shows any" if first < most else ""
    stages = [f"{inserted:,} with artifacts on them"] * bool(inserted)
    stages += [f"{most:,} with parts of clusters on them{left}"] * bool(most)
    return f"at most {inserted + most:,} images will be shown to the network: {'; '.join(stages)}" if stages else ""


def _most_images_screened(images: int) -> tuple[int, int]:
    """Bound the images that a screening of a corpus of so many shows to the network, which leaves no class."""
    tried = min(images, CLASS_IMAGES) * (MAX_COMPONENTS + 1) * SEARCH_BACKGROUNDS
    most = tried + SEARCH_BACKGROUNDS + EFFECT_BACKGROUNDS * (1 + 2 * DONORS_PER_IMAGE)
    return most, most
