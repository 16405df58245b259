"""Learn the embedding of a run on its own images, before detectors look at the classes."""

from __future__ import annotations

import numpy as np

from klarsicht.audit.explanation.executor import limited_threads
from klarsicht.audit.verdicts.detectors.artifact_embedding import STAGES, EmbeddingTraining, drawn_in_training
from klarsicht.audit.verdicts.detectors.detection import ImageStack
from klarsicht.audit.verdicts.detectors.outlying_groups import shrink_to_embed
from klarsicht.audit.verdicts.quantification.embedding_cache import cache_key, keep_cached, read_cached
from klarsicht.audit.verdicts.quantification.units import EMBEDDING_STEP, DetectionUnits, embedding_file
from klarsicht.ground.arrays import Pixels, Rows
from klarsicht.ground.progress import progress
from klarsicht.ground.seeding import generator

LEARNED_IMAGES = 20_000  # of the corpus, at most, that the embedding is learned on
MIN_LEARNED = 1_000  # with fewer, the network learns what the images show
MIN_SIDE = 28  # pixels; smaller images are not planted with every family
READ_BLOCK = 256  # images that are read at once


def learn_embedding(work: DetectionUnits) -> None:
    """Learn the embedding of a run, or go on from the stage at which it was stopped; one that was learned on the same
    images before is taken from the user's cache folder.

    Nothing is learned where images are fewer than MIN_LEARNED or smaller than MIN_SIDE, or where detectors have
    examined a class already: all classes are examined in the same way.
    """
    store, finished = work.store, [work.store.is_done(EMBEDDING_STEP, stage) for stage in range(STAGES)]
    if all(finished) or (not any(finished) and any(work.store.is_done(work.step, i) for i in range(len(work.groups)))):
        return
    rows = sample_rows(work)
    if len(rows) < MIN_LEARNED or min(work.input_images.shape) < MIN_SIDE:
        return
    store.update_manifest(steps=store.manifest["steps"] | {EMBEDDING_STEP: STAGES})
    first = finished.index(False)
    with limited_threads(work.settings.threads):
        images = read_images(work, rows)
        training = EmbeddingTraining(images, drawn_in_training(images.shape[-1]), work.settings.seed)
        key = cache_key(training)
        state = None if first else read_cached(key)
        if state is not None:
            for stage in range(STAGES):
                store.mark_done(EMBEDDING_STEP, stage, store.write_unit_file(embedding_file(stage), state))
            store.finish_step(EMBEDDING_STEP, STAGES)
            return
        if first:
            training.restore(store.read_unit_file(embedding_file(first - 1), EMBEDDING_STEP, first - 1))
        steps = training.steps
        with progress("learning to see artifacts", steps, steps * first // STAGES) as advance:
            for stage in range(first, STAGES):
                training.run_stage(stage, advance)
                store.mark_done(EMBEDDING_STEP, stage, store.write_unit_file(embedding_file(stage), training.state()))
    store.finish_step(EMBEDDING_STEP, STAGES)
    keep_cached(key, training.state())


def sample_rows(work: DetectionUnits) -> Rows:
    """Draw at most LEARNED_IMAGES rows of the classes, each image once, ascending."""
    rows = np.unique(np.concatenate([group.rows for group in work.groups]))
    first = np.unique(work.corpus.image_numbers[rows], return_index=True)[1]
    return np.sort(generator(work.settings.seed, "learned images").permutation(rows[first])[:LEARNED_IMAGES])


def read_images(work: DetectionUnits, rows: Rows) -> Pixels:
    """Read images, shrunk to EMBEDDED_SIDE pixels on the shorter side where they are larger: uint8 (n, H, W, C)."""
    first = shrink_to_embed(ImageStack(work.input_images(rows[:1])))
    images = np.empty((len(rows), *first.shape[1:]), np.uint8)
    with progress("images to learn artifacts on", len(rows)) as advance:
        for a in range(0, len(rows), READ_BLOCK):
            block = rows[a : a + READ_BLOCK]
            images[a : a + len(block)] = shrink_to_embed(ImageStack(work.input_images(block)))
            advance(len(block))
    return images
