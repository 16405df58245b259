"""Measure how much of an artifact the audited network still sees in repaired images."""

from __future__ import annotations

from typing import Final

import numpy as np

from klarsicht.audit.cleaning.artifacts.artifact import Artifact
from klarsicht.audit.cleaning.corrections.samples import draw_rows
from klarsicht.audit.cleaning.data.image_actions import Action
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.explanation.data.corpus import decode_rows
from klarsicht.audit.explanation.models.forward import open_observer
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import ImageError
from klarsicht.ground.seeding import generator

REPAIRED: Final = 16  # images with the artifact that are repaired to measure
CLEAN: Final = 400  # images of the class without it, at most
FEWEST_COMPARED: Final = 4  # images of either kind, below which nothing is measured


def measure_evidence_left(run: AuditedRun, artifact: Artifact, action: Action) -> float | None:
    """Measure the share of an artifact's evidence that repaired images keep: the difference between images with it and
    clean images of their class in the network's last features, along the direction that tells the two apart.

    The direction is fitted on one half of the images and applied to the other, each feature in units of its variance.
    1: nothing is taken away; 0: repaired images are like clean ones. None: the action changes no picture, fewer than
    FEWEST_COMPARED images of either kind can be read, or the direction does not tell the halves apart.
    """
    if action.repair is None or not run.store.has_array("features"):
        return None
    corpus, classifier, rng = run.audit.corpus, run.audit.classifier, generator(0, "repaired", artifact.target)
    clean_rows = np.setdiff1d(np.flatnonzero((run.labels == artifact.target) & ~artifact.carries), artifact.of_others)
    clean_rows, rows = draw_rows(clean_rows, CLEAN, rng), draw_rows(artifact.members, REPAIRED, rng)
    features, rows_read, after = run.store.array("features"), [], []
    with open_observer(classifier) as observe:
        for row, picture in decode_rows(corpus, [int(row) for row in rows]):
            if isinstance(picture, ImageError):
                continue
            new = action.repair(picture, row)
            if corpus.form is not None:
                new = corpus.form.of_array(np.asarray(new), action.name, channels_last=True)
            after.append(observe(classifier.image(new)[None]).features[0])
            rows_read.append(row)
    if min(len(rows_read), len(clean_rows)) < FEWEST_COMPARED:
        return None
    before, clean = (np.asarray(features[some], np.float64) for some in (np.array(rows_read), clean_rows))
    return share_left(before, np.array(after, np.float64), clean)


def share_left(before: Floats, after: Floats, clean: Floats) -> float | None:
    """Compute the share of the difference between features `before` (n, F) and `clean` (m, F) that `after` (n, F)
    keeps, see `measure_evidence_left`. None where the difference of one half is not seen in the other."""
    spread = clean.var(0) + 1e-3 * clean.var(0).mean() + 1e-12
    rest = whole = 0.0
    for fit in (0, 1):
        direction = (before[fit::2].mean(0) - clean[fit::2].mean(0)) / spread
        middle = clean[1 - fit :: 2].mean(0)
        rest += float((after[1 - fit :: 2].mean(0) - middle) @ direction)
        whole += float((before[1 - fit :: 2].mean(0) - middle) @ direction)
    return rest / whole if whole > 0 else None
