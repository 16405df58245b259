"""Members of artifacts in the COCO format (cocodataset.org, "Data format"), and their masks."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from klarsicht.audit.results.seen_groups import NOT_TESTED
from klarsicht.audit.results.words import name_artifact
from klarsicht.explorer.artifact_masks import NEEDED
from klarsicht.explorer.class_decisions import CARRIES
from klarsicht.explorer.class_evidence import seen_in_class
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.pixel_masks import WINDOW
from klarsicht.explorer.thumbnails import draw_mask
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.pictures.images import EXIF_ORIENTATION, open_image
from klarsicht.ground.pictures.npy_files import NPY

LYING = (5, 6, 7, 8)  # EXIF orientations in which width and height change places


def describe_classes(run: ExploredRun, targets: Iterable[int], source: str = "") -> dict[str, Any]:
    """Describe the members of some classes' artifacts as a COCO data set, one category an artifact.

    An annotation has the mask of the artifact as an uncompressed run-length code, that of a detector's window as a
    polygon, and `mask_source` names its source (FiftyOne has an attribute `mask` of its own); without a mask, as for
    further artifacts of a class, the box is the whole image. `carries` is CARRIES, OPEN or NOT_CARRYING. Images whose
    size cannot be read are left out. `info` lists the groups that detectors saw and no verdict names.

    Args:
        source: of the masks, see ArtifactMasks.of_image.

    Raises:
        UsageError: a class has no masks of the given source.
    """
    images: dict[int, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    groups: list[dict[str, Any]] = []
    key = run.reader.images().key
    for target in targets:
        decision, line = run.decisions.by_target().get(target), run.results.line(target)
        groups += [group.to_json() for group in seen_in_class(run.reader, target)]
        name = (decision.artifact if decision else "") or line.name
        members = [(name, run.decisions.carrier_status(target), _masks_in_files(run, target, source))]
        for number, rows in enumerate(run.decisions.further_members(target), 2):
            sizes = ((row, size, None) for row, size in _sizes_of_files(run, rows))
            members.append((name_artifact(line.name, number), CARRIES, sizes))
        for label, carries, files in members:
            category = categories.setdefault(label, len(categories) + 1)
            for row, size, known in files:
                by, mask = known or ("", None)
                images[row] = {"id": row, "file_name": key(row), "width": size[0], "height": size[1]}
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": row, "category_id": category, "iscrowd": 0}
                    | describe_mask(mask, size, by)
                    | {"class": line.name, "carries": carries}
                )
    return {
        "info": {
            "description": f"artifacts found by klarsicht in {run.reader.manifest['settings']['model']}",
            "seen": {"told": NOT_TESTED, "groups": groups},
        },
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [{"id": id_, "name": name, "supercategory": "artifact"} for name, id_ in categories.items()],
    }


def describe_mask(mask: Bools | None, size: tuple[int, int], source: str) -> dict[str, Any]:
    """Return segmentation, bbox, area and source of an annotation, from the mask (h, w) of a file of `size` (w, h)."""
    if mask is None:
        left, top, right, bottom = 0, 0, *size
        area = size[0] * size[1]
    else:
        rows, columns = (np.flatnonzero(mask.any(axis)).tolist() for axis in (1, 0))
        left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        area = int(mask.sum())
    outline = [[left, top, right, top, right, bottom, left, bottom]]
    return {
        "bbox": [left, top, right - left, bottom - top],
        "area": area,
        "segmentation": outline if mask is None or source == WINDOW else run_length_code(mask),
        "whole": mask is None,
        "mask_source": "" if mask is None else source,
    }


def run_length_code(mask: Bools) -> dict[str, Any]:
    """Encode a mask (h, w) as COCO does: lengths of runs of 0 and 1 in turn, down the columns, beginning with 0."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff([0, *ends, len(flat)])
    return {"counts": [0] * bool(flat[0]) + lengths.tolist(), "size": list(mask.shape)}


def zip_masks(run: ExploredRun, target: int, source: str = "") -> bytes:
    """Make a ZIP file of the masks of a class's members, PNG of the size of each file, by a source as in
    ArtifactMasks.of_image; raises UsageError where no member has a mask."""
    content, written = BytesIO(), 0
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for row, _, known in _masks_in_files(run, target, source):
            if known is not None:
                archive.writestr(f"{row:07d}-{Path(run.reader.images().key(row)).stem}.png", draw_mask(known[1]))
                written += 1
    if not written:
        told = f"{len(run.decisions.members(target))} members without one"
        raise UsageError("no masks of this class", got=told, rule=NEEDED)
    return content.getvalue()


def _masks_in_files(
    run: ExploredRun, target: int, source: str
) -> Iterator[tuple[int, tuple[int, int], tuple[str, Bools] | None]]:
    """Yield (row, (width, height), source and mask (h, w) or None) of the members whose files can be opened."""
    for row, size in _sizes_of_files(run, run.decisions.members(target)):
        yield row, size, run.masks.of_image(target, row, size, source)


def _sizes_of_files(run: ExploredRun, rows: Iterable[int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield (row, (width, height)) of those rows whose files can be opened."""
    for row in rows:
        try:
            file = run.reader.images().file(row)
            is_decoded = run.pictures.decoder.spec or run.pictures.array_form is not None or file.suffix.lower() == NPY
            yield row, (run.pictures.read(row).size if is_decoded else image_size(file))
        except ImageError:
            continue


def image_size(file: Path) -> tuple[int, int]:
    """Read the upright size (w, h) of an image without decoding it; raises ImageError where it cannot be opened."""
    try:
        with file.open("rb") as source, open_image(source) as image:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) in LYING
            return (image.height, image.width) if turned else (image.width, image.height)
    except Exception as error:  # Pillow raises nearly anything on damaged files
        raise ImageError(f"cannot open {file.name}", got=f"{type(error).__name__}: {error}") from error
