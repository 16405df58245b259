"""Read annotations by a person: which images carry an artifact, and where it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.cleaning.artifacts.found_artifact import AuditedClass
from klarsicht.ground.arrays import Ints
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.disk import require_regular_file
from klarsicht.ground.pictures.images import decode


def read_member_list(file: Path, audited_class: AuditedClass) -> Ints:
    """Read the rows of the images that a text file lists, by path, by key or by file name."""
    require_regular_file(file)
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(
            "the list of members is no text", got=file, rule="one path or key of an image a line, in UTF-8",
            remedy="Give a text file as --members; a picture of the place is --mask.",
        ) from error  # fmt: skip
    except OSError as error:
        raise InputError("the list of members cannot be read", got=f"{file}: {error}") from error
    rows, corpus = [int(row) for row in audited_class.group.rows], audited_class.corpus
    row_of = {Path(corpus.keys[row]).name: row for row in rows}
    row_of |= {corpus.keys[row]: row for row in rows} | {corpus.paths[row]: row for row in rows}
    names = [line for line in lines if line]
    unknown = [name for name in names if name not in row_of]
    if unknown or not names:
        raise InputError(
            "the list names images that were not audited for this class",
            got=f"{len(unknown)} of {len(names)}: {', '.join(unknown[:3])}",
            rule="one path a line, as the run's corpus has it",
        )
    return np.unique([row_of[name] for name in names])


def read_mask(file: Path, audited_class: AuditedClass) -> NDArray[np.bool_]:
    """Read a mask (H, W) in the geometry of the model input: the picture passes through the model's own transform."""
    classifier = audited_class.classifier
    grey = classifier.image(decode(file).convert(classifier.mode)).mean(0).numpy()
    black, white = (
        float(classifier.image(Image.new("RGB", (64, 64), c).convert(classifier.mode)).mean())
        for c in ("black", "white")
    )
    mask = np.asarray(grey > (black + white) / 2)
    if not 0 < mask.mean() < 1:
        raise InputError("the mask marks nothing, or everything", got=file, rule="white where the artifact lies")
    return mask
