"""Write the page of content groups: for each a sentence, its pictures, and the regions that act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from klarsicht.audit.explanation.report.figures import encode_jpeg
from klarsicht.audit.results.content_groups import ContentGroup, ContentGroups
from klarsicht.audit.results.file_names import leave_out_folders
from klarsicht.audit.verdicts.quantification.figures import enlarge_to_rgb
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.arrays import Bools, Pixels
from klarsicht.ground.pages import load_template
from klarsicht.ground.pictures.encoded_pictures import data_uri

CONTENT_PAGE: Final = "content.html"
DIMMED: Final = 0.35  # brightness of what lies outside a region


def write_content_page(work: DetectionUnits, found: ContentGroups, regions: Mapping[int, Bools]) -> None:
    """Write RUN/content.html: groups that stand out, with their regions (m, H, W) by class, and the other classes."""
    views = [(one, draw_pictures(work, one, regions[one.target])) for one in found if one.stands_out]
    page = load_template("klarsicht.audit", "content.html.j2").render(
        title=work.settings.model, views=views, others=[one for one in found if not one.stands_out]
    )
    work.store.write_bytes(CONTENT_PAGE, leave_out_folders(page, work.store.manifest).encode("utf-8", "replace"))


def draw_pictures(work: DetectionUnits, group: ContentGroup, regions: Bools) -> list[tuple[str, str, str]]:
    """Draw the pictures of a group: (path, the picture, and its region with the rest dimmed) as data URIs."""
    levels = work.input_images([one.row for one in group.pictures])
    shown = work.input_images.classifier.shown

    def uri(pixels: Pixels) -> str:
        return data_uri(encode_jpeg(enlarge_to_rgb(pixels, shown)), "image/jpeg")

    return [
        (picture.path, uri(image), uri(dim_outside(image, region)))
        for picture, image, region in zip(group.pictures, levels, regions, strict=True)
    ]


def dim_outside(image: Pixels, region: Bools) -> Pixels:
    """Dim an image (H, W, C) outside a region (H, W)."""
    return np.asarray(np.where(region[..., None], image, np.rint(DIMMED * image)), np.uint8)
