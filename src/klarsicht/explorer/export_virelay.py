"""Export of a run as a project of ViRelAy, the viewer of Anders et al. 2021 (arXiv 2106.13200).

    OUT/project.yaml       names the other files; `virelay OUT/project.yaml` opens it
    OUT/label-map.json     index, word_net_id and name of each output of the model
    OUT/dataset.h5         data uint8 (n, 3, S, S), label uint32 (n,)
    OUT/attribution.h5     attribution float32 (n, 3, S, S), label uint32 (n,), prediction float32 (n, K)
    OUT/analysis.h5        CLASS/index uint32 (m,); CLASS/embedding/spectral float32 (m, d) with the attributes
                           `eigenvalue` and `metric`; CLASS/embedding/plane float32 (m, 2), its first two principal
                           axes; CLASS/cluster/suspect and
                           CLASS/cluster/carries uint32 (m,): 0 no, 1 yes, 2 undecided; CLASS/cluster/seen uint32 (m,):
                           number of the first group that no verdict names, from 1, and 0 of none

A category of ViRelAy is named by the `word_net_id` of its label, here the number of the output. Pictures show what the
model sees. Grey images and relevance maps have three equal channels: ViRelAy draws no others.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.explorer.class_decisions import CARRIES, NOT_CARRYING, OPEN
from klarsicht.explorer.class_evidence import seen_in_class
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.export_tables import carrier_statuses
from klarsicht.explorer.point_clouds import CLUSTER_BIT, membership_flags, read_points
from klarsicht.explorer.thumbnails import crop_seen
from klarsicht.ground.arrays import Ints
from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.optional import load
from klarsicht.ground.pictures.colour_maps import resize_bilinear
from klarsicht.ground.pictures.seen_area import SeenArea
from klarsicht.ground.progress import progress

CARRIER_NUMBERS = {NOT_CARRYING: 0, CARRIES: 1, OPEN: 2}
VIRELAY_SIDE, BLOCK_ROWS = 128, 64  # S, and images that are written at once
PROJECT = """project:
  name: {name}
  model: {model}
  label_map: label-map.json
  dataset:
    name: {data}
    type: hdf5
    path: dataset.h5
    input_width: {side}
    input_height: {side}
    down_sampling_method: none
    up_sampling_method: none
  attributions:
    attribution_method: {method}
    attribution_strategy: {strategy}
    sources: [attribution.h5]
  analyses:
    - analysis_method: spectral
      sources: [analysis.h5]
"""


def write_virelay(run: ExploredRun, targets: Sequence[int], out: Path) -> None:
    """Write the classes that have a stored embedding as a project into a new folder.

    Raises:
        MissingExtra: h5py is not installed.
        UsageError: the run has no relevance maps, or none of the classes has an embedding.
    """
    h5py = load("h5py", "hdf5")
    if not run.maps.exist:
        raise UsageError(
            "ViRelAy shows relevance maps, and this run has none",
            got=f"method {run.reader.manifest['settings']['method']}",
            rule="a method that makes maps, and one class as target",
            remedy="Export to another format.",
        )
    clouds = {target: read_points(run, target) for target in targets}
    clouds = {target: cloud for target, cloud in clouds.items() if cloud.vectors.shape[1]}
    if not clouds:
        raise UsageError("no class has a stored embedding", got=f"{len(targets)} classes", remedy="Audit it again.")
    rows = np.concatenate([cloud.rows for cloud in clouds.values()])
    own = np.concatenate([np.full(len(cloud.rows), target) for target, cloud in clouds.items()])
    label = run.reader.images().label_of[rows]
    label = np.where(label < 0, own, label).astype(np.uint32)
    shape = (len(rows), 3, VIRELAY_SIDE, VIRELAY_SIDE)
    chunk = (1, *shape[1:])
    with h5py.File(out / "dataset.h5", "w") as dataset, h5py.File(out / "attribution.h5", "w") as attribution:
        dataset["label"] = attribution["label"] = label
        packed = {"chunks": chunk, "compression": "gzip", "compression_opts": 1, "shuffle": True}
        pictures = dataset.create_dataset("data", shape, np.uint8, **packed)
        relevance = attribution.create_dataset("attribution", shape, np.float32, **packed)
        logits = run.reader.store.array("logits") if run.reader.store.has_array("logits") else None
        outputs = logits.shape[1] if logits else len(run.reader.names)
        prediction = attribution.create_dataset("prediction", (len(rows), outputs), np.float32)
        with progress("export", len(rows)) as advance:
            for start in range(0, len(rows), BLOCK_ROWS):
                some = rows[start : start + BLOCK_ROWS]
                stop = start + len(some)
                pictures[start:stop] = np.stack([seen_pixels(run, int(row)) for row in some])
                maps = [resize_bilinear(one, shape[2:]) for one in run.maps.of(some)]
                relevance[start:stop] = np.repeat(np.stack(maps)[:, None], 3, 1)
                scores = logits[some] if logits else np.eye(outputs)[run.reader.images().predicted[some]]
                prediction[start:stop] = scores
                advance(len(some))
    with h5py.File(out / "analysis.h5", "w") as analysis:
        start = 0
        for target, cloud in clouds.items():
            group = analysis.create_group(category_name(target))
            group["index"] = np.arange(start, start + len(cloud.rows), dtype=np.uint32)
            start += len(cloud.rows)
            group["embedding/spectral"] = cloud.vectors.astype(np.float32)
            group["embedding/spectral"].attrs["eigenvalue"] = np.array(cloud.eigenvalues, np.float32)
            group["embedding/plane"] = cloud.plane
            for name in ("embedding/spectral", "embedding/plane"):
                group[name].attrs["metric"] = cloud.metric
            flags = membership_flags(cloud.rows, run.results.line(target), None)
            group["cluster/suspect"] = ((flags & CLUSTER_BIT) > 0).astype(np.uint32)
            scores = carrier_statuses(run, target, cloud.rows)
            group["cluster/carries"] = np.array([CARRIER_NUMBERS[status] for status in scores], np.uint32)
            group["cluster/seen"] = number_seen(run, target, cloud.rows)
    labels = [{"index": i, "word_net_id": category_name(i), "name": name} for i, name in enumerate(run.reader.names)]
    write_atomically(out / "label-map.json", json.dumps(labels, indent=1).encode())
    settings = run.reader.manifest["settings"]
    record = {
        "name": f"klarsicht audit of {settings['model']}",
        "model": settings["model"],
        "data": run.reader.manifest["data"],
        "method": run.reader.manifest.get("method", settings["method"]),
        "strategy": "true_label" if settings["target"] == "label" else "predicted_label",
    }  # fmt: skip
    text = PROJECT.format(side=VIRELAY_SIDE, **{name: json.dumps(str(value)) for name, value in record.items()})
    write_atomically(out / "project.yaml", text.encode())


def number_seen(run: ExploredRun, target: int, rows: Ints) -> NDArray[np.uint32]:
    """Number for each row (n,) of a class the first group that detectors saw it in and no verdict names, from 1."""
    numbers = np.zeros(len(rows), np.uint32)
    for i, group in reversed([*enumerate(seen_in_class(run.reader, target), 1)]):
        numbers[np.isin(rows, np.array(group.rows, np.int64))] = i
    return numbers


def category_name(target: int) -> str:
    """Name the category of an output, in ViRelAy's files."""
    return f"{target:05d}"


def seen_pixels(run: ExploredRun, row: int) -> NDArray[np.uint8]:
    """Read what the model sees of an image, uint8 (3, S, S); black where it cannot be decoded."""
    try:
        picture = run.pictures.read(row).convert("RGB")
    except ImageError:
        return np.zeros((3, VIRELAY_SIDE, VIRELAY_SIDE), np.uint8)
    seen = crop_seen(picture, run.masks.seen_area or SeenArea())
    small = seen.resize((VIRELAY_SIDE, VIRELAY_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small, np.uint8).transpose(2, 0, 1)
