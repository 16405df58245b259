"""Exports with one line for each image: a data set of Hugging Face, and issues as cleanlab's Datalab has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from klarsicht.explorer import export_tables
from klarsicht.explorer.class_decisions import CARRIES, NOT_CARRYING, OPEN
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.errors import ImageError
from klarsicht.ground.machine.disk import replace_atomically
from klarsicht.ground.progress import track

if TYPE_CHECKING:
    import pyarrow as pa

NO_LABEL: Final = -1  # as ClassLabel of Hugging Face has it
STATUSES: Final = (CARRIES, OPEN, NOT_CARRYING)  # the first that a class says of an image is the image's


@dataclass
class ImageFindings:
    """Findings of the classes of a run on one image.

    Attributes:
        label, prediction: names of classes.
        carries: one of STATUSES.
        findings: the class and its verdict, for each artifact that it carries.
        p: the smallest p of these; 1 where it carries none.
        surroundings, margin: the class whose surroundings it shows, and the margin of its own; None: not examined.
    """

    label: str
    prediction: str
    carries: str
    findings: list[str]
    p: float
    surroundings: str
    margin: float | None


def collect_findings(run: ExploredRun, targets: Sequence[int]) -> dict[int, ImageFindings]:
    """Collect what classes say of each of their images, by row."""
    images: dict[int, ImageFindings] = {}
    for target in track(targets, len(targets), "export"):
        for line in export_tables.class_table(run, target)[0].to_pylist():
            one = images.setdefault(
                line["row"],
                ImageFindings(
                    line["label"] or "", line["predicted"], NOT_CARRYING, [], 1.0, line["surroundings"],
                    line["surroundings_margin"],
                ),
            )  # fmt: skip
            one.carries = min(one.carries, line["carries"], key=STATUSES.index)
            if line["carries"] == CARRIES:
                one.findings.append(f"{line['class']}: {line['verdict']}")
                one.p = min(one.p, 1.0 if line["p"] is None else line["p"])
    return dict(sorted(images.items()))


def write_datasets(run: ExploredRun, targets: Sequence[int], out: Path) -> None:
    """Write a parquet file that `datasets.load_dataset("parquet", data_files=FILE)` reads: images, labels as classes,
    and what was found of each. Images are named where they lie; those without a file of their own are inside."""
    import pyarrow as pa
    from pyarrow import parquet

    images = collect_findings(run, targets)
    names = sorted({one.label for one in images.values()} - {""})
    number = {name: i for i, name in enumerate(names)} | {"": NO_LABEL}
    columns: dict[str, tuple[Any, dict[str, Any], list[Any]]] = {
        "image": (
            pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"},
            [image_cell(run, row) for row in images],
        ),
        "label": (
            pa.int64(), {"names": names, "_type": "ClassLabel"},
            [number[one.label] for one in images.values()],
        ),
        "predicted": (pa.string(), value("string"), [one.prediction for one in images.values()]),
        "row": (pa.int64(), value("int64"), list(images)),
        "carries": (pa.string(), value("string"), [one.carries for one in images.values()]),
        "findings": (
            pa.list_(pa.string()), {"feature": value("string"), "_type": "List"},
            [one.findings for one in images.values()],
        ),
        "p": (pa.float64(), value("float64"), [one.p for one in images.values()]),
        "surroundings": (pa.string(), value("string"), [one.surroundings for one in images.values()]),
    }  # fmt: skip
    features = {name: feature for name, (_, feature, _) in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([(name, kind) for name, (kind, _, _) in columns.items()], metadata=metadata)
    table = pa.table([pa.array(cells, kind) for kind, _, cells in columns.values()], schema=schema)
    with replace_atomically(out) as file:
        parquet.write_table(table, file)


def value(dtype: str) -> dict[str, str]:
    """Describe a column of plain values as Hugging Face does."""
    return {"dtype": dtype, "_type": "Value"}


def image_cell(run: ExploredRun, row: int) -> dict[str, Any]:
    """Return the path of an image's file, or the image as PNG where it has none; neither where it cannot be read."""
    file = run.reader.images().file(row)
    if file.is_file():
        return {"bytes": None, "path": str(file.resolve())}
    buffer = BytesIO()
    try:
        run.pictures.read(row).save(buffer, "PNG")
    except ImageError:
        return {"bytes": None, "path": None}
    return {"bytes": buffer.getvalue(), "path": run.reader.images().key(row)}


def write_cleanlab(run: ExploredRun, targets: Sequence[int], out: Path) -> None:
    """Write a CSV file in the form of `Datalab.get_issues()`: an index of images, and of each kind of issue whether an
    image has it and a score in [0, 1], low where it has. `artifact_score` is the p of the artifact that an image
    carries, and 1 of others; `surroundings_score` the logistic function of the margin by which an image's surroundings
    speak for its label."""
    import pyarrow as pa
    from pyarrow import csv

    images = collect_findings(run, targets)
    margins = np.array([np.inf if one.margin is None else one.margin for one in images.values()])
    has_side = np.array([one.surroundings != "" for one in images.values()])
    table: pa.Table = pa.table(
        {
            "index": [*images],
            "path": [str(run.reader.images().file(row)) for row in images],
            "given_label": [one.label for one in images.values()],
            "predicted_label": [one.prediction for one in images.values()],
            "is_artifact_issue": [one.carries == CARRIES for one in images.values()],
            "artifact_score": [one.p for one in images.values()],
            "is_surroundings_issue": [
                bool(one.surroundings) and one.surroundings != one.label for one in images.values()
            ],
            "surroundings_score": np.where(has_side, 1 / (1 + np.exp(-margins)), 1.0),
        }
    )
    with replace_atomically(out) as file:
        csv.write_csv(table, file)
