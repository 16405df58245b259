"""Members of artifacts in the COCO format (cocodataset.org, "Data format"), and their masks."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.thumbnails import draw_mask, window_in_file
from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.images import EXIF_ORIENTATION, open_image

LYING = (5, 6, 7, 8)  # EXIF orientations in which width and height change places


def describe_classes(run: ExploredRun, targets: Iterable[int]) -> dict[str, Any]:
    """Describe the members of some classes' artifacts as a COCO data set: one category an artifact.

    An annotation has the box of the detected window; without one, the box is the whole image, and `whole` is true.
    Images whose size cannot be read are left out.
    """
    images: dict[int, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for target in targets:
        decision = run.decisions().get(target)
        name = (decision.artifact if decision else "") or run.line(target).name
        category = categories.setdefault(name, len(categories) + 1)
        for row, size, box in _boxes(run, target):
            width, height = size
            images[row] = {"id": row, "file_name": run.images().key(row), "width": width, "height": height}
            left, top, right, bottom = box or (0, 0, width, height)
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": row, "category_id": category, "iscrowd": 0,
                    "bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top),
                    "segmentation": [[left, top, right, top, right, bottom, left, bottom]], "whole": box is None,
                    "class": run.line(target).name,
                }
            )  # fmt: skip
    return {
        "info": {"description": f"artifacts found by klarsicht in {run.manifest['settings']['model']}"},
        "images": list(images.values()),
        "annotations": annotations,
        "categories": [{"id": id_, "name": name, "supercategory": "artifact"} for name, id_ in categories.items()],
    }


def zip_masks(run: ExploredRun, target: int) -> bytes:
    """Make a ZIP file of the masks of a class's members, PNG of the size of each file, white in the detected window.

    Raises:
        UsageError: no member has a window, or where it lies on the file is not known.
    """
    content = BytesIO()
    written = 0
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for row, size, box in _boxes(run, target):
            if box is not None:
                archive.writestr(f"{row:07d}-{Path(run.images().key(row)).stem}.png", draw_mask(size, box))
                written += 1
    if not written:
        raise UsageError(
            "no masks of this class", got=f"{len(run.members(target))} members without a detected window",
            rule="masks are the windows of the detector, of a model that sees a resize and crop around the centre",
        )  # fmt: skip
    return content.getvalue()


def _boxes(run: ExploredRun, target: int) -> Iterable[tuple[int, tuple[int, int], tuple[int, int, int, int] | None]]:
    """Yield (row, (width, height), box or None) of the members whose files can be opened."""
    windows, share = run.windows(target), run.seen_share
    for row in run.members(target):
        try:
            size = image_size(run.images().file(row))
        except ImageError:
            continue
        known = row in windows and share is not None
        yield row, size, window_in_file(size, share or 0.0, windows[row]) if known else None


def image_size(file: Path) -> tuple[int, int]:
    """Read the size (w, h) of an image, upright by its EXIF orientation, without decoding it.

    Raises:
        ImageError: it cannot be opened.
    """
    try:
        with file.open("rb") as source, open_image(source) as image:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) in LYING
            return (image.height, image.width) if turned else (image.width, image.height)
    except Exception as error:  # Pillow raises nearly anything on damaged files
        raise ImageError(f"cannot open {file.name}", got=f"{type(error).__name__}: {error}") from error
