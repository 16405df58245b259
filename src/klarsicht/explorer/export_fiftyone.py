"""Export for FiftyOne: labels and image files in one of its own formats, heat maps, embeddings and tags, and a script
that opens all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from klarsicht.explorer import export_tables
from klarsicht.explorer.class_results import LABELS
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.thumbnails import encode_picture
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import ImageError
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.pictures.colour_maps import saturation_bound
from klarsicht.ground.pictures.seen_area import SeenArea
from klarsicht.ground.progress import track

HEATMAPS: Final = "heatmaps"  # the folder of one PNG for each image
HEATMAP_SIDE: Final = 256  # pixels of a heat map's longer side, at most
SCRIPT: Final = '''"""Open this folder in FiftyOne: python open_in_fiftyone.py [--launch]"""

import json
import sys
from pathlib import Path

import fiftyone as fo
import fiftyone.brain as fob
import numpy as np

here = Path(__file__).resolve().parent
dataset = fo.Dataset.from_dir(
    dataset_type=fo.types.FiftyOneImageClassificationDataset,
    data_path=str(here / "data.json"),
    labels_path=str(here / "labels.json"),
)
files, more = json.loads((here / "data.json").read_text()), json.loads((here / "samples.json").read_text())
keys = {(files[key], one["target"]): key for key, one in more.items()}
for sample in dataset.iter_samples(autosave=True):
    key = keys[sample.filepath, sample.ground_truth.target]
    one, drawn = more[key], here / "heatmaps" / f"{key}.png"
    sample.tags = one["tags"]
    if one["vector"]:
        sample["embedding"] = one["vector"]
    if drawn.exists():
        sample["relevance"] = fo.Heatmap(map_path=str(drawn), range=[0, 255])
points = {s.id: [more[keys[s.filepath, s.ground_truth.target]][axis] for axis in "xy"] for s in dataset}
points = {name: point for name, point in points.items() if None not in point}  # of classes with a stored embedding
if points:
    shown = dataset.select(list(points), ordered=True)
    fob.compute_visualization(shown, points=np.array([*points.values()]), brain_key="klarsicht")
print(dataset)
if "--launch" in sys.argv:
    fo.launch_app(dataset).wait()
'''


def write_fiftyone(run: ExploredRun, targets: Sequence[int], out: Path) -> None:
    """Write a data set of FiftyOne's type FiftyOneImageClassificationDataset: labels.json, and data.json that names the
    image files where they lie. The label is the class; verdict, decision and membership are attributes. Beside them lie
    samples.json with the tags, embedding and coordinates of each, heat maps of relevance for the class in the frame of
    the file, and the script that adds them."""
    labels: dict[str, Any] = {}
    samples: dict[str, Any] = {}
    files: dict[str, str] = {}
    (out / HEATMAPS).mkdir()
    for number, target in enumerate(track(targets, len(targets), "export")):
        table, cloud = export_tables.class_table(run, target)
        verdict = LABELS[run.results.line(target).kind]
        for line, vector in zip(table.to_pylist(), cloud.vectors.tolist(), strict=True):
            key = f"{target:05d}-{line['row']:08d}"
            files[key] = str(run.reader.images().file(line["row"]).resolve())
            samples[key] = {
                "target": target, "vector": vector, "x": line["x"], "y": line["y"],
                "tags": [verdict] if line["carries"] == "yes" else [],
            }  # fmt: skip
            attributes = {name: value for name, value in line.items() if name not in ("class", "label")}
            labels[key] = {"label": number, "attributes": attributes}
            if (heatmap := draw_heatmap(run, line["row"])) is not None:
                write_atomically(out / HEATMAPS / f"{key}.png", heatmap)
    names = [run.results.line(target).name for target in targets]
    write_atomically(out / "labels.json", json.dumps({"classes": names, "labels": labels}).encode())
    write_atomically(out / "data.json", json.dumps(files).encode())
    write_atomically(out / "samples.json", json.dumps(samples).encode())
    write_atomically(out / "open_in_fiftyone.py", SCRIPT.encode())


def draw_heatmap(run: ExploredRun, row: int) -> bytes | None:
    """Draw the relevance for the class, 0 to 255, in the frame of the image's file, as PNG; None where the run has no
    maps, the image cannot be read, or where maps lie on the file is not known."""
    area = run.pictures.masks.seen_area
    if area is None or not run.pictures.maps.exist:
        return None
    try:
        size = run.pictures.read(row).size
    except ImageError:
        return None
    return encode_picture(place_relevance(run.pictures.maps.of([row])[0], area, size), "PNG")


def place_relevance(relevance: Floats, area: SeenArea, size: tuple[int, int]) -> Image.Image:
    """Place positive relevance (G, G) where it lies in a file of `size` (w, h): grey, at most HEATMAP_SIDE pixels a
    side, 255 where the colours of a map saturate."""
    scale = min(1.0, HEATMAP_SIDE / max(size))
    box = [round(edge * scale) for edge in area.box(size)]
    levels = np.clip(relevance / max(saturation_bound(relevance), 1e-30), 0, 1) * 255
    extent = max(1, box[2] - box[0]), max(1, box[3] - box[1])
    canvas = Image.new("L", (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
    canvas.paste(Image.fromarray(levels.astype(np.uint8)).resize(extent, Image.Resampling.BILINEAR), (box[0], box[1]))
    return canvas
