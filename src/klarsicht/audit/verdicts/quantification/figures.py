"""Draw pictures of a quantification: images that carry a detected artifact, with its window framed, and images without
it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.explanation.report.figures import GREEN, LINE, encode_jpeg, encode_small
from klarsicht.audit.explanation.report.noted_classes import SMALL, SMALL_DRAWN
from klarsicht.audit.explanation.report.rows import EvidenceRow, SeenPictureRow
from klarsicht.audit.explanation.report.views import EVIDENCE, SEEN_PICTURES
from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.detection_rows import read_detections
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.seen_groups import SeenGroup
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.arrays import Pixels, Rows
from klarsicht.ground.pictures.array_images import show_channels
from klarsicht.ground.pictures.colour_maps import overlay
from klarsicht.ground.progress import track
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.seeding import generator

CLASSES_DRAWN = 12  # classes drawn
CARRIERS_DRAWN, OTHERS_DRAWN = 8, 4  # pictures of each
SEEN_DRAWN, SEEN_CARRIERS = 24, 6  # groups that no verdict names, and small pictures of each
MIN_PICTURE_SIDE = 96  # pixels: smaller images are enlarged
EVIDENCE_COLUMNS = ("target", "row", "member", "artifact", "path", "picture")


def write_figures(work: DetectionUnits, found: Quantification) -> None:
    """Write pictures of the classes in which an artifact was found, small ones of those beyond the first, the table
    `evidence` that lists them, and the marker with their checksums."""
    work.store.discard_step(EVIDENCE)
    written = Written()
    detections = read_detections(work.store, found)
    noted = [verdict for verdict in found if verdict.has_group]
    records: list[EvidenceRow] = []
    for i, verdict in enumerate(track(noted, len(noted), "pictures")):
        carrying, small = np.concatenate([one.rows for one in verdict.artifacts]).astype(np.intp), i >= CLASSES_DRAWN
        for number, one in enumerate((verdict,) if small else verdict.artifacts, 1):
            sign = next(row for row in detections[one.target, number] if row["sign"] == one.detection.sign)
            records += _write_artifact_figures(work, one, number, carrying, sign, written, small)
    empty = pa.table({name: [] for name in EVIDENCE_COLUMNS})
    work.store.write_table(EVIDENCE, pa.Table.from_pylist(records) if records else empty)
    work.store.mark_done(EVIDENCE, 0, written)
    work.store.finish_step(EVIDENCE, 1)


def write_seen_figures(work: DetectionUnits, found: Quantification, groups: Sequence[SeenGroup]) -> None:
    """Write small pictures of the first groups that no verdict names, the table `seen` that lists them, and the marker
    with their checksums."""
    work.store.discard_step(SEEN_PICTURES)
    files, detections, records = Written(), read_detections(work.store, found), list[SeenPictureRow]()
    for number, group in enumerate(groups[:SEEN_DRAWN]):
        sign = next(row for row in detections[group.target, 1] if row["sign"] == group.sign)
        rng = generator(work.settings.seed, "seen", number)
        some = np.sort(rng.permutation(len(group.rows))[:SEEN_CARRIERS])
        for row in np.array(group.rows)[some].tolist():
            name = f"pictures/seen-{number}-{row}{SMALL}.jpg"
            files |= work.store.write_unit_file(name, encode_small(_frame_window(render_image(work, row), row, sign)))
            path = work.corpus.paths[row]
            records.append({"target": group.target, "group": number, "path": path, "picture": name})
    work.store.write_table(SEEN_PICTURES, pa.Table.from_pylist(records, schema_of(SeenPictureRow)))
    work.store.mark_done(SEEN_PICTURES, 0, files)
    work.store.finish_step(SEEN_PICTURES, 1)


def _frame_window(pixels: Pixels, row: int, sign: SignRow) -> Pixels:
    """Frame the window of a detection in the picture of a row of the run, where it has one."""
    corners = dict(zip(sign["rows"], np.array(sign["places"]).reshape(-1, 2), strict=False))
    return draw_frame(pixels, corners[row], (sign["height"], sign["width"])) if row in corners else pixels


def _write_artifact_figures(
    work: DetectionUnits, verdict: Verdict, number: int, carrying: Rows, sign: SignRow, written: Written, small: bool
) -> list[EvidenceRow]:
    """Write the pictures of one artifact, by its number in the class and its row of detections; `carrying` are images
    with any artifact of the class."""
    (group,) = (group for group in work.groups if group.target == verdict.target)
    which = (verdict.target,) if number == 1 else (verdict.target, number)
    rng = generator(work.settings.seed, "evidence", *which)
    carriers = np.array(verdict.rows)[np.sort(rng.permutation(verdict.size)[:CARRIERS_DRAWN])]
    others = np.sort(rng.permutation(np.setdiff1d(group.rows, carrying))[:OTHERS_DRAWN])
    if small:
        carriers, others = carriers[:SMALL_DRAWN], others[:0]
    if verdict.followed:
        sign = {**sign, "places": []}  # a followed group is none of a detector
    records: list[EvidenceRow] = []
    for row in (*carriers, *others):
        pixels = _frame_window(render_image(work, int(row)), int(row), sign)
        name = f"pictures/sign-{'-'.join(map(str, (*which, row)))}{SMALL if small else ''}.jpg"
        written |= work.store.write_unit_file(name, encode_small(pixels) if small else encode_jpeg(pixels))
        path = work.corpus.paths[int(row)]
        record: EvidenceRow = {
            "target": verdict.target, "row": int(row), "member": row in verdict.rows, "artifact": number, "path": path,
            "picture": name,
        }  # fmt: skip
        records.append(record)
    return records


def render_image(work: DetectionUnits, row: int) -> Pixels:
    """Render an image (H, W, 3) as model input, blended with its relevance where the run has maps."""
    pixels = enlarge_to_rgb(work.input_images([row])[0], work.input_images.classifier.shown)
    if work.store.has_array("maps"):
        pixels = overlay(pixels, work.store.array("maps")[row].astype(np.float32))
    return pixels


def enlarge_to_rgb(levels: Pixels, shown: tuple[int, ...] = ()) -> Pixels:
    """Convert the shown channels of an image (H, W, C) to RGB, enlarged by an integer factor to at least
    MIN_PICTURE_SIDE pixels."""
    times = max(1, -(-MIN_PICTURE_SIDE // min(levels.shape[:2])))
    picture = Image.fromarray(show_channels(levels, shown))
    return np.asarray(picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST))


def draw_frame(pixels: Pixels, place: NDArray[np.floating[Any]], extent: tuple[float, float]) -> Pixels:
    """Draw a green frame around a window given in shares of height and width."""
    size, out = np.array(pixels.shape[:2]), pixels.copy()
    thick = max(1, round(int(size.min()) / LINE))
    low = np.clip(np.rint(place * size).astype(int) - thick, 0, size - 1)
    high = np.clip(np.rint((place + extent) * size).astype(int) + thick, 1, size)
    outside = np.zeros(pixels.shape[:2], bool)
    outside[low[0] : high[0], low[1] : high[1]] = True
    outside[low[0] + thick : high[0] - thick, low[1] + thick : high[1] - thick] = False
    out[outside] = GREEN
    return out
