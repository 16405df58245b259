"""Images of a run as columns: names, labels, predictions, and the rows of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.ground.arrays import Bools, Ints
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.store import RunStore

IMAGES_TABLE, IMAGES_STEP = "images", "attribution"
UNKNOWN = -1  # the label or prediction of an image that has none


@dataclass(frozen=True)
class RunImages:
    """N rows of a run.

    Attributes:
        keys, paths, labels: pyarrow columns of texts (N,), the last dictionary-encoded.
        label_of, predicted: int32 (N,), outputs; UNKNOWN where the model has no such class, or the image was skipped.
        usable: bool (N,), whether the image was explained.
        by: "label", "predicted", or "all" where every class is compared on all images.
        data: folder that keys are relative to; None: paths are as the run has them.
        absorbed: median share of relevance that is absorbed on its way to the pixels; None where it is not known.
    """

    keys: Any
    paths: Any
    labels: Any
    label_of: Ints
    predicted: Ints
    usable: Bools
    by: str
    data: Path | None
    absorbed: float | None = None

    @classmethod
    def of(cls, store: RunStore, data: str | Path | None = None) -> RunImages:
        """Read the images of a run; raises StoreError where relevance is not computed, RunDamaged for altered
        tables."""
        from pyarrow import compute

        corpus = store.table("corpus", columns=("key", "path", "label"))
        images = store.table(IMAGES_TABLE, IMAGES_STEP, columns=("row", "skipped", "predicted", "absorbed"))
        with store.translate_parse_errors("tables"):
            labels = compute.dictionary_encode(corpus["label"]).combine_chunks()
            index = store.manifest["index"]
            outputs = np.array([index.get(name, UNKNOWN) for name in labels.dictionary.to_pylist()] or [0], np.int32)
            usable = np.asarray(compute.equal(images["skipped"], "").to_numpy())
            predicted = np.where(usable, images["predicted"].to_numpy(), UNKNOWN).astype(np.int32)
            if len(predicted) != len(corpus):
                raise ValueError(f"{len(predicted)} of {len(corpus)} images")
            shares = np.asarray(images["absorbed"].to_numpy(), float)
            absorbed = float(np.nanmedian(shares)) if np.isfinite(shares).any() else None
            label_of = outputs[labels.indices.to_numpy(zero_copy_only=False)]
        target = store.manifest["settings"]["target"]
        by = target if target in ("label", "predicted") else "all"
        place = data or store.manifest.get("data")
        root = None if place is None else Path(place).parent if is_file(Path(place)) else Path(place)
        return cls(corpus["key"], corpus["path"], labels, label_of, predicted, usable, by, root, absorbed)

    def __len__(self) -> int:
        return len(self.predicted)

    def rows_of(self, target: int) -> NDArray[np.int32]:
        """Return the usable rows (n,) that a class is compared on, ascending."""
        chosen = {"label": self.label_of == target, "predicted": self.predicted == target}.get(self.by, True)
        return np.flatnonzero(self.usable & chosen).astype(np.int32)

    def require(self, row: int) -> int:
        """Return the row; raises UsageError where the run has none."""
        if not 0 <= row < len(self):
            raise UsageError("the run has no such image", got=row, rule=f"0 to {len(self) - 1}")
        return row

    def file(self, row: int) -> Path:
        key = self.keys[self.require(row)].as_py()
        return self.data / key if self.data is not None else Path(self.paths[row].as_py())

    def key(self, row: int) -> str:
        return str(self.keys[self.require(row)].as_py())

    def describe(self, rows: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
        """Return name, label and prediction of some images."""
        return [
            {
                "row": row,
                "name": self.key(row),
                "label": str(self.labels[row].as_py()),
                "predicted": _name(names, int(self.predicted[row])),
            }
            for row in rows
        ]


def is_file(place: Path) -> bool:
    """Say whether a corpus is a file and no folder of images; one that is not there is what its name looks like."""
    return not place.is_dir() if place.exists() else bool(place.suffix)


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if 0 <= number < len(names) else ""
