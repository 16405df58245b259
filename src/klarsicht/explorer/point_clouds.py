"""Points of a class for the scatter plot: its spectral embedding as binary columns, little-endian.

    "KSP1", uint32 n, uint32 d, uint32 0
    int32 row (n), int32 label (n), int32 predicted (n), int32 component (n), uint32 flags (n)
    float32 plane (n, 2), float32 vector (n, d)

`plane` are the first two principal axes of the embedding, scaled to the unit square around 0; both are absent, and d is
0, where the run stores no embedding. Bits of `flags`: member of the cluster, of the detection, of the decision of a
person, and removed by a person.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from klarsicht.explorer.class_results import ILLUSTRATED, ClassLine
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.run_images import RunImages
from klarsicht.ground.arrays import Floats, Ints
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.decisions import ClassDecision
from klarsicht.ground.run_folder.store import RunStore

MAGIC = b"KSP1"
CLUSTER_BIT, DETECTED_BIT, DECIDED_BIT, REMOVED_BIT = 1, 2, 4, 8
PLAIN_METRIC = "features"  # the baseline, whose embedding is stored in every run


@dataclass(frozen=True)
class PointCloud:
    """Images of a class: rows of the run (n,), spectral embedding (n, d), d being 0 where the run stores none,
    connected component of the neighbour graph (n,), 0 where it is not stored, the d eigenvalues, ascending, and the
    metric that the images are compared by, empty where no embedding is stored."""

    rows: Ints
    vectors: Floats
    components: Ints
    eigenvalues: tuple[float, ...]
    metric: str = ""

    @property
    def plane(self) -> Floats:
        """First two principal axes of the vectors, float32 (n, 2), each in [-1, 1]."""
        return principal_plane(self.vectors)

    @property
    def eigengap(self) -> int:
        """Number of eigenvalues before the largest gap between one and the next; 0 without a gap."""
        gaps = np.diff(self.eigenvalues)
        return int(gaps.argmax()) + 1 if gaps.size and gaps.max() > 0 else 0


def read_points(run: ExploredRun, target: int, metric: str = "") -> PointCloud:
    """Read a class's images with their embedding under a metric, by default its cluster's; raises UsageError for
    others."""
    metrics = [*run.results.metrics(target), PLAIN_METRIC]
    own_metric = metric or metrics[0]
    if own_metric not in metrics:
        raise UsageError("the run has no such metric", got=repr(metric), rule=", ".join(metrics))
    store, images = run.reader.store, run.reader.images()
    stamp = (target, own_metric, run.results.stamp)  # a metric may be analysed after the run was opened
    return run.reader.keep("points", stamp, lambda: read_point_cloud(store, images, target, own_metric))


def encode_points(run: ExploredRun, target: int, metric: str = "") -> bytes:
    cloud, images = read_points(run, target, metric), run.reader.images()
    flags = membership_flags(cloud.rows, run.results.line(target), run.decisions.by_target().get(target))
    columns = (cloud.rows, images.label_of[cloud.rows], images.predicted[cloud.rows], cloud.components)
    content = [MAGIC, struct.pack("<III", len(cloud.rows), cloud.vectors.shape[1], 0)]
    content += [np.ascontiguousarray(column, "<i4").tobytes() for column in columns]
    content.append(np.ascontiguousarray(flags, "<u4").tobytes())
    if cloud.vectors.shape[1]:
        content += [np.ascontiguousarray(one, "<f4").tobytes() for one in (cloud.plane, cloud.vectors)]
    return b"".join(content)


def read_point_cloud(store: RunStore, images: RunImages, target: int, metric: str) -> PointCloud:
    """Read the images of a class with their spectral embedding under a metric, where the run stores it."""
    steps = (f"spray-{metric}", ILLUSTRATED) if metric else ()
    parts = (store.part(f"embedding-{metric}", target, step) for step in steps)
    part = next((part for part in parts if part is not None), None)
    if part is None:
        rows = images.rows_of(target)
        return PointCloud(rows, np.zeros((len(rows), 0), np.float32), np.zeros(len(rows), np.int32), ())
    with store.translate_parse_errors(f"tables/embedding-{metric}"):
        rows = part["row"].to_numpy().astype(np.int32)
        flat = part["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        vectors = np.asarray(flat, np.float32).reshape(len(rows), -1)
        known = "component" in part.column_names
        components = part["component"].to_numpy().astype(np.int32) if known else np.zeros(len(rows), np.int32)
        values = tuple(map(float, json.loads((part.schema.metadata or {})[b"eigenvalues"])))
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(images):
            raise ValueError("rows beyond the corpus")
        return PointCloud(rows, vectors, components, values, metric)


def membership_flags(rows: Ints, line: ClassLine, decision: ClassDecision | None) -> NDArray[np.uint32]:
    """Mark which rows belong to the cluster, the detection and the decision, as bits uint32 (n,)."""
    flags = np.zeros(len(rows), np.uint32)
    removed = () if decision is None else decision.removed
    decided = () if decision is None or decision.members is None else decision.members
    marks: Iterable[tuple[tuple[int, ...], int]] = (
        (line.cluster, CLUSTER_BIT),
        (line.detected, DETECTED_BIT),
        (decided, DECIDED_BIT),
        (removed, REMOVED_BIT),
    )
    for members, bit in marks:
        flags[np.isin(rows, np.array(members, np.int64))] |= np.uint32(bit)
    return flags


def principal_plane(vectors: Floats) -> Floats:
    """Project vectors (n, d) onto their first two principal axes, scaled into the unit square, float32 (n, 2)."""
    n, d = vectors.shape
    if not n or not d:
        return np.zeros((n, 2), np.float32)
    centred = np.asarray(vectors, np.float64) - vectors.mean(0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(0), np.arange(axes.shape[1])] < 0, -1, 1)
    plane = np.zeros((n, 2))
    plane[:, : axes.shape[1]] = centred @ axes
    return np.asarray(plane / max(float(np.abs(plane).max()), 1e-12), np.float32)
