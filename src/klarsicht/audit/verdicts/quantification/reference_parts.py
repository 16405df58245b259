"""Measure how well parts tell reference classes apart: other pictures of the same apparatus, in class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.verdicts.interventions.image_parts import BACKGROUND, REGION_PARTS, PartImages
from klarsicht.audit.verdicts.interventions.region_masks import SharedMask
from klarsicht.audit.verdicts.quantification.sufficiency_units import PartReader, chunks, feature_reader
from klarsicht.ground.arrays import Floats, Ints, Pixels, Rows
from klarsicht.ground.errors import UsageError
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import roc_area_score
from klarsicht.numerics.statistics.linear_discriminants import cross_validated_scores


def measure_reference(reader: PartReader, folder: str | Path) -> dict[str, float]:
    """Measure for each part the largest area by which it tells a reference class from the others.

    The features are those of the audited network, heads are fitted again on reference images only. The background,
    which relevance says, and regions that were given for each picture, cannot be measured.

    Raises:
        UsageError: fewer than two reference classes.
        CorpusError: the folder holds no images.
    """
    work = reader.work
    corpus = Corpus.from_folder(folder, work.settings.decode or "").as_arrays(work.input_images.classifier.form)
    corpus = corpus.with_limits(work.settings.white_level, work.settings.megapixels)
    if len(corpus.classes) < 2:
        raise UsageError(
            "no reference classes to compare", got=f"{len(corpus.classes)} in {folder}",
            rule="two or more folders, each with pictures of one kind", remedy="Sort them by what they show.",
        )  # fmt: skip
    rng, labels = generator(work.settings.seed, "reference parts"), np.asarray(corpus.labels)
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == one))[: reader.images] for one in corpus.classes])
    images = InputImages(corpus, work.input_images.classifier, work.input_images.pixel_scale, work.input_images.shape)
    number, shared = np.searchsorted(corpus.classes, labels[rows]), isinstance(reader.masks, SharedMask)
    measured = [part for part in reader.parts if part != BACKGROUND and (part not in REGION_PARTS or shared)]
    areas: dict[str, float] = {}
    with feature_reader(work) as observe:
        for part in measured:
            features = [observe(_keep(reader, part, images, some)) for some in chunks(rows)]
            areas[part] = largest_area(np.concatenate(features), number, corpus.source_numbers[rows])
    return areas


def _keep(reader: PartReader, part: str, images: InputImages, rows: Rows) -> Pixels:
    masks = reader.masks(rows) if isinstance(reader.masks, SharedMask) else None
    rng = generator(reader.work.settings.seed, f"reference {part}", int(rows[0]))
    return reader.parts[part].keep(PartImages(images(rows), inside=masks), reader.fill, rng)


def largest_area(features: Floats, labels: Ints, sources: Ints) -> float:
    """Compute the largest area by which features (n, F) tell a class (n,) from the others, cross-validated."""
    scores = cross_validated_scores(features, labels, sources)
    areas = []
    for k in range(scores.shape[1]):
        known = np.isfinite(scores[:, k])
        areas.append(roc_area_score(scores[known, k], labels[known] == k, sources[known]).value)
    return float(np.nanmax(areas))
