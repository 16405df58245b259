"""Exports of a run as tables, one line for each image of each class: CSV, parquet, and columns for Embedding Atlas."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from klarsicht.explorer import point_clouds
from klarsicht.explorer.class_decisions import CARRIES, NOT_CARRYING
from klarsicht.explorer.class_evidence import name_seen, seen_in_class
from klarsicht.explorer.exceptional_images import sides_of
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.arrays import Floats, Ints
from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.machine.disk import replace_atomically
from klarsicht.ground.names import without_formula
from klarsicht.ground.progress import track

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDING: Final = "spectral"  # method of every stored embedding
ATLAS_NEIGHBOURS, ATLAS_SIDE = 10, 96  # nearest neighbours of each image, and pixels of its thumbnail


def class_table(run: ExploredRun, target: int) -> tuple[pa.Table, point_clouds.PointCloud]:
    """Make the table of a class, and return its points in the order of the lines.

    `carries` is "yes" or "no" where a person decided or a detector found an artifact, and "undecided" for members of a
    suspect cluster that nobody decided; `seen` names the groups of an image that no verdict names; x and y are the
    principal axes of the `embedding`, made of distances by `metric`; all are empty where none is stored.
    """
    import pyarrow as pa

    cloud, line, images = point_clouds.read_points(run, target), run.results.line(target), run.reader.images()
    decision = run.decisions.by_target().get(target)
    if images.by == "all" and not cloud.vectors.shape[1]:  # else each class would have all images
        kept = np.isin(cloud.rows, np.array(run.decisions.members(target), np.int64))
        cloud = replace(cloud, rows=cloud.rows[kept], vectors=cloud.vectors[kept], components=cloud.components[kept])
    sides = sides_of(run.reader, cloud.rows.tolist())
    n, flags = len(cloud.rows), point_clouds.membership_flags(cloud.rows, line, decision)
    names = np.array([*run.reader.names, ""], object)
    plane = cloud.plane if cloud.vectors.shape[1] else None
    columns = {
        "class": [line.name] * n,
        "target": np.full(n, target, np.int64),
        "verdict": [line.words] * n,
        "p": pa.array([line.p] * n, pa.float64()),
        "row": cloud.rows.astype(np.int64),
        "image": images.keys.take(pa.array(cloud.rows)),
        "label": images.labels.take(pa.array(cloud.rows)).cast(pa.string()),
        "predicted": names[images.predicted[cloud.rows]].tolist(),
        "cluster": (flags & point_clouds.CLUSTER_BIT) > 0,
        "detected": (flags & point_clouds.DETECTED_BIT) > 0,
        "carries": carrier_statuses(run, target, cloud.rows),
        "seen": seen_texts(run, target, cloud.rows),
        "surroundings": [side for side, _ in sides],
        "surroundings_margin": pa.array([margin for _, margin in sides], pa.float64()),
        "removed": (flags & point_clouds.REMOVED_BIT) > 0,
        "decision": [decision.decision if decision else ""] * n,
        "artifact": [decision.artifact if decision else ""] * n,
        "embedding": [EMBEDDING if cloud.metric else ""] * n,
        "metric": [cloud.metric] * n,
        "x": pa.array([None] * n, pa.float32()) if plane is None else plane[:, 0],
        "y": pa.array([None] * n, pa.float32()) if plane is None else plane[:, 1],
    }
    return pa.table(columns), cloud


def carrier_statuses(run: ExploredRun, target: int, rows: Ints) -> list[str]:
    """Return for each row (n,) of a class CARRIES, OPEN or NOT_CARRYING: images that are no members of an artifact do
    not carry, and those of a further artifact do, unless a person decided that the class has none."""
    member, status = (
        np.isin(rows, np.array(run.decisions.members(target), np.int64)),
        run.decisions.carrier_status(target),
    )
    further = np.isin(rows, np.array([row for some in run.decisions.further_members(target) for row in some], np.int64))
    return [status if one else CARRIES if other else NOT_CARRYING for one, other in zip(member, further, strict=True)]


def seen_texts(run: ExploredRun, target: int, rows: Ints) -> list[str]:
    """Name for each row (n,) of a class the groups that detectors saw it in and no verdict names; empty of none."""
    groups = [({*group.rows}, name_seen(group)) for group in seen_in_class(run.reader, target)]
    return ["; ".join(name for members, name in groups if row in members) for row in rows.tolist()]


def write_csv(run: ExploredRun, targets: Sequence[int], out: Path) -> None:
    """Write the tables of classes into one CSV file, UTF-8; cells that a spreadsheet would compute get an
    apostrophe."""
    with replace_atomically(out) as file:
        for i, target in enumerate(track(targets, len(targets), "export")):
            table, _ = class_table(run, target)
            text = StringIO(newline="")
            writer = csv.writer(text)
            if i == 0:
                writer.writerow(table.column_names)
            columns = ([without_formula(cell) for cell in column.to_pylist()] for column in table.columns)
            writer.writerows(zip(*columns, strict=True))
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))


def write_parquet(run: ExploredRun, targets: Sequence[int], out: Path) -> None:
    """Write the tables of classes into one parquet file, with a column `vector` of the embedding, which may be
    empty."""
    import pyarrow as pa

    def tables() -> Iterator[pa.Table]:
        for target in track(targets, len(targets), "export"):
            table, cloud = class_table(run, target)
            yield table.append_column("vector", pa.array(list(cloud.vectors), pa.list_(pa.float32())))

    _write_tables(tables(), out)


def write_atlas(run: ExploredRun, targets: Sequence[int], out: Path) -> None:
    """Write one parquet file for Embedding Atlas: x, y, neighbors, image, and the other columns.

    `embedding-atlas FILE --x x --y y --neighbors neighbors --image image` opens it. `neighbors` are lines of the file,
    of the same class, nearest in the embedding; `image` is a small JPEG, null where the file cannot be shown. Classes
    without a stored embedding are left out: Embedding Atlas wants as many neighbours of every line.

    Raises:
        UsageError: none of the classes has a stored embedding.
    """
    import pyarrow as pa

    neighbours = pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float64()))])
    pictures = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    embedded = [target for target in targets if point_clouds.read_points(run, target).vectors.shape[1]]
    if not embedded:
        raise UsageError("no class has a stored embedding", got=f"{len(targets)} classes", remedy="Audit it again.")

    def tables() -> Iterator[pa.Table]:
        start = 0
        for target in track(embedded, len(embedded), "export"):
            table, cloud = class_table(run, target)
            ids, distances = pad_neighbours(*nearest(cloud.vectors, ATLAS_NEIGHBOURS), ATLAS_NEIGHBOURS)
            neighbour_lists = [
                {"ids": (start + a).tolist(), "distances": b.tolist()} for a, b in zip(ids, distances, strict=True)
            ]
            cells = [
                {"bytes": thumbnail_bytes(run, int(row)), "path": run.reader.images().key(int(row))}
                for row in cloud.rows
            ]
            table = table.rename_columns(["file" if name == "image" else name for name in table.column_names])
            table = table.append_column("neighbors", pa.array(neighbour_lists, neighbours))
            yield table.append_column("image", pa.array(cells, pictures))
            start += len(cloud.rows)

    _write_tables(tables(), out)


def pad_neighbours(ids: Ints, distances: Floats, count: int) -> tuple[Ints, Floats]:
    """Pad neighbours (n, k) and their distances to `count` columns with the farthest of each line again; a line
    without neighbours is its own, at distance 0."""
    if not ids.shape[1]:
        ids, distances = np.arange(len(ids))[:, None], np.zeros((len(ids), 1))
    missing = ((0, 0), (0, count - ids.shape[1]))
    return np.pad(ids, missing, mode="edge"), np.pad(distances, missing, mode="edge")


def _write_tables(tables: Iterator[pa.Table], out: Path) -> None:
    """Write tables of one schema into one parquet file, one after another."""
    from pyarrow import parquet

    with replace_atomically(out) as file:
        writer = None
        for table in tables:
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def nearest(vectors: Floats, most: int) -> tuple[Any, Any]:
    """Find the nearest other vectors of each of n, (n, k) positions and distances, k at most `most` and below n."""
    from scipy.spatial import cKDTree

    n = len(vectors)
    k = min(most, n - 1)
    if k < 1 or not vectors.shape[1]:
        return np.zeros((n, 0), np.int64), np.zeros((n, 0))
    distances, found = cKDTree(vectors).query(vectors, k + 1)
    others = found != np.arange(n)[:, None]
    others[others.all(1), -1] = False  # of more than k copies a vector may not find itself
    return found[others].reshape(n, k), distances[others].reshape(n, k)


def thumbnail_bytes(run: ExploredRun, row: int) -> bytes | None:
    """Draw the thumbnail of an image; None where it cannot be shown."""
    try:
        return run.pictures.draw(row, "image", ATLAS_SIDE)
    except ImageError:
        return None
