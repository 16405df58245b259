"""Say which families of artifacts the detected ones resemble, where the run has learned an embedding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from klarsicht.audit.detectors.family_resemblance import name_resembled_families
from klarsicht.audit.detectors.outlying_groups import shrink_to_embed
from klarsicht.audit.executor import limited_threads
from klarsicht.audit.quantification.units import DetectionUnits
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.ground.progress import track


def name_resemblances(work: DetectionUnits, found: Quantification) -> Quantification:
    """Add to each verdict that needs review the families of artifacts that its carriers resemble in the embedding."""
    embedding = work.embedding
    noted = [verdict for verdict in found if verdict.needs_review]
    if embedding is None or not noted:
        return found
    groups = {group.target: group for group in work.groups}
    named = {}
    with limited_threads(work.settings.threads):
        for verdict in track(noted, len(noted), "families of artifacts"):
            rows, _ = work.drop_repeats(groups[verdict.target].rows)
            levels = shrink_to_embed(work.image_stack(rows))
            carries = np.isin(rows, verdict.rows)
            named[verdict.target] = name_resembled_families(embedding, levels, carries, work.settings.seed)
    return replace(
        found, verdicts=tuple(replace(verdict, resembles=named.get(verdict.target, ())) for verdict in found)
    )
