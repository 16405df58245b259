"""Say which families of artifacts the detected ones resemble, where the run has learned an embedding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from klarsicht.audit.explanation.executor import limited_threads
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.verdicts.detectors.family_resemblance import name_resembled_families
from klarsicht.audit.verdicts.detectors.outlying_groups import shrink_to_embed
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.progress import track


def name_resemblances(work: DetectionUnits, verdicts: Quantification) -> Quantification:
    """Add to each verdict that needs review the families of artifacts that its carriers resemble in the embedding."""
    embedding = work.embedding
    to_review = [verdict for verdict in verdicts if verdict.has_group]
    if embedding is None or not to_review:
        return verdicts
    groups = {group.target: group for group in work.groups}
    families = {}
    with limited_threads(work.settings.threads):
        for verdict in track(to_review, len(to_review), "families of artifacts"):
            rows, _ = work.drop_repeats(groups[verdict.target].rows)
            levels = shrink_to_embed(work.image_stack(rows))
            likened = tuple(
                replace(one, resembles=name_resembled_families(embedding, levels, carries, work.settings.seed))
                for one in verdict.artifacts
                for carries in [np.isin(rows, one.rows)]
            )
            families[verdict.target] = replace(likened[0], further=likened[1:])
    return replace(verdicts, verdicts=tuple(families.get(verdict.target, verdict) for verdict in verdicts))
