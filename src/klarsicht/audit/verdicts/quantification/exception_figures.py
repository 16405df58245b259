"""Draw the images that do not follow the surroundings of their class, and some that do, with their own places."""

from __future__ import annotations

import pyarrow as pa

from klarsicht.audit.explanation.report.figures import encode_jpeg, outline_mask
from klarsicht.audit.explanation.report.rows import ExceptionPictureRow
from klarsicht.audit.explanation.report.views import EXCEPTIONS
from klarsicht.audit.results.surroundings import PLACES_TABLE, SURROUNDINGS_STEP, PlacesRow, Surroundings, unpack_places
from klarsicht.audit.verdicts.quantification.figures import enlarge_to_rgb
from klarsicht.audit.verdicts.quantification.units import DetectionUnits
from klarsicht.ground.run_folder.checksums import Written

CLASSES_PICTURED, EXCEPTIONS_DRAWN, USUAL_DRAWN = 12, 6, 3  # classes, and images of each


def write_exception_figures(work: DetectionUnits, surroundings: Surroundings) -> None:
    """Write pictures of the clearest exceptions and of usual images of the first classes, their own places outlined,
    the table `exceptions` that lists them, and the marker."""
    store, places = work.store, list[PlacesRow](work.store.table(PLACES_TABLE, SURROUNDINGS_STEP).to_pylist())
    store.discard_step(EXCEPTIONS)
    checksums, records = Written(), list[ExceptionPictureRow]()
    for one in surroundings.classes[:CLASSES_PICTURED]:
        mine = sorted((row for row in places if row["target"] == one.target), key=lambda row: row["margin"])
        odd, usual = ([row for row in mine if (row["side"] != one.target) == is_odd] for is_odd in (True, False))
        step = max(1, len(usual) // USUAL_DRAWN)
        for row in (*odd[:EXCEPTIONS_DRAWN], *usual[step // 2 :: step][:USUAL_DRAWN]):
            name = f"pictures/exception-{one.target}-{row['row']}.jpg"
            checksums |= store.write_unit_file(name, draw_own_places(work, row))
            exceptional, path = row["side"] != one.target, work.corpus.paths[row["row"]]
            records.append({"target": one.target, "path": path, "picture": name, "exceptional": exceptional})
    store.write_table(EXCEPTIONS, pa.Table.from_pylist(records))
    store.mark_done(EXCEPTIONS, 0, checksums)
    store.finish_step(EXCEPTIONS, 1)


def draw_own_places(work: DetectionUnits, row: PlacesRow) -> bytes:
    """Draw an image with an outline of its own places, as JPEG."""
    (levels,) = work.input_images([row["row"]])
    pixels = enlarge_to_rgb(levels, work.input_images.classifier.shown)
    return encode_jpeg(outline_mask(pixels, unpack_places(row)))
