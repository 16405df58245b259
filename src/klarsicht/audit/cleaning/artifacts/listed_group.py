"""Put on other images what sets listed images apart from their class, where nothing else locates it, and measure
whether the model uses it: on all listed images, and not only those of one part."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch

from klarsicht.audit.cleaning.artifacts.localisation import Localisation
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.samples import draw_rows, read_images
from klarsicht.audit.results.seen_groups import SeenGroup, load_seen_groups
from klarsicht.audit.results.words import format_count
from klarsicht.audit.verdicts.interventions.group_use import PasteTrial, describe_use, measure_group_use
from klarsicht.audit.verdicts.interventions.overlay import Overlay, overlay_of_masks
from klarsicht.ground.arrays import Floats, Ints, Pixels, Rows
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.imaging.relevance_masks import enlarge_masks

MOST_OF_LIST: Final = 200  # listed images, and images of other classes
MOST_OF_CLASS: Final = 400  # other images of the class


def put_listed_group(place: Localisation, rng: np.random.Generator) -> tuple[Overlay | None, str]:
    """Return the overlay of listed images on others, and what it does to the class in words. The overlay is of the
    members that `place` holds; None where the class is not shown to rise by it, beyond what parts of other images of
    the class do. Of a group that `audit quantify` measured its answer counts: two draws of images may differ, and two
    commands may not. Words are empty where it cannot be measured: by too few images, or a transform that is not
    affine."""
    of_class, size, pixel_scale = place.audited, place.levels.shape[1:], place.pixel_scale
    if pixel_scale is None:
        return None, ""
    record = find_seen_group(of_class.store, of_class.group.target, place.artifact.members)
    if record is not None and not record.is_used:
        return None, record.use
    rows, in_list = of_class.group.rows, np.isin(of_class.group.rows, place.artifact.members)
    elsewhere = np.setdiff1d(np.flatnonzero(of_class.labels >= 0), rows)
    own = [draw_rows(rows[in_list], MOST_OF_LIST, rng), draw_rows(rows[~in_list], MOST_OF_CLASS, rng)]
    levels, own_rows = read_levels(place, np.concatenate(own), size)
    onto, _ = read_levels(place, draw_rows(elsewhere, MOST_OF_LIST, rng), size)

    def predict(inputs: torch.Tensor) -> Floats:
        return compute_logits(of_class.classifier, list(inputs))

    trial = PasteTrial(predict, pixel_scale, levels, onto, of_class.group.target)
    use = measure_group_use(trial, np.isin(own_rows, place.artifact.members), rng)
    onto_words = f"{format_count(use.onto, 'image')} of other classes"
    words, is_used = describe_use(use, of_class.group.name, onto_words), use.is_used
    if not words:
        return None, ""
    if record is not None:
        words, is_used = record.use, record.is_used
    number = {int(row): i for i, row in enumerate(own_rows) if use.masks[i].any()}
    givers = [i for i, row in enumerate(place.rows) if place.member[i] and int(row) in number]
    if not is_used or use.rise.value < 0 or not givers:
        return None, words
    masks = enlarge_masks(use.masks[[number[int(place.rows[i])] for i in givers]], (int(size[0]), int(size[1])))
    return overlay_of_masks(place.image_array[givers], masks, place.maps[~place.member]), words


def find_seen_group(store: RunStore, target: int, members: Ints) -> SeenGroup | None:
    """Find the group of just these rows of a class whose use `audit quantify` measured; None without one."""
    rows = set(members.tolist())
    groups = (one for one in load_seen_groups(store) if one.use and one.target == target)
    return next((one for one in groups if set(one.rows) == rows), None)


def read_levels(place: Localisation, rows: Ints, size: tuple[int, ...]) -> tuple[Pixels, Rows]:
    """Read images of the corpus that have a size (H, W, C) in levels of files, and their rows."""
    assert place.pixel_scale is not None
    images, at, _ = read_images(place.audited.corpus, place.audited.classifier, rows)
    levels = [place.pixel_scale.levels(image) for image in images]
    fit = [i for i, one in enumerate(levels) if one.shape == size]
    stack = np.stack([levels[i] for i in fit]) if fit else np.zeros((0, *size), np.uint8)
    return stack, np.asarray(rows[at][fit], np.intp)
