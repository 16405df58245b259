"""Draw an image of a class of which one part was kept, for each part, and the image itself."""

from __future__ import annotations

import pyarrow as pa

from klarsicht.audit.explanation.report.figures import encode_jpeg
from klarsicht.audit.explanation.report.rows import PartPictureRow
from klarsicht.audit.explanation.report.views import PROFILES
from klarsicht.audit.results.rows import WHOLE_IMAGE
from klarsicht.audit.results.sufficiency import Sufficiency
from klarsicht.audit.verdicts.quantification.figures import enlarge_to_rgb
from klarsicht.audit.verdicts.quantification.sufficiency_units import PartReader
from klarsicht.ground.run_folder.checksums import Written

PROFILES_DRAWN = 12  # classes drawn


def write_part_figures(reader: PartReader, sufficiency: Sufficiency) -> None:
    """Write the pictures of the first classes, the table `profiles` that lists them, and the marker."""
    store, numbers = reader.work.store, {group.target: i for i, group in enumerate(reader.work.groups)}
    channels = reader.work.input_images.classifier.shown
    store.discard_step(PROFILES)
    written, records = Written(), list[PartPictureRow]()
    for profile in sufficiency.profiles[:PROFILES_DRAWN]:
        number = numbers[profile.target]
        row = reader.class_rows(number)[:1]
        image, first = reader.read(row), int(row[0])
        drawn = {WHOLE_IMAGE: image.levels} | {part: reader.keep(number, part, image, first) for part in reader.parts}
        for part, levels in drawn.items():
            name = f"pictures/part-{profile.target}-{part.replace(' ', '-')}.jpg"
            written |= store.write_unit_file(name, encode_jpeg(enlarge_to_rgb(levels[0], channels)))
            path = reader.work.corpus.paths[int(row[0])]
            records.append({"target": profile.target, "part": part, "path": path, "picture": name})
    store.write_table(PROFILES, pa.Table.from_pylist(records))
    store.mark_done(PROFILES, 0, written)
    store.finish_step(PROFILES, 1)
