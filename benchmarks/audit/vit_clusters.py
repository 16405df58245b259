"""F1 of a planted tag in a small vision transformer, named by clusters by maps, parts, channels and features.

    python benchmarks/audit/any_network.py IMAGENET32 --networks vit --seeds 0 --json chain.jsonl --keep KEPT
    python benchmarks/audit/vit_clusters.py KEPT/vit-0 [--methods GammaAttention EpsilonPlusFlat ...]

The transformer was trained on ten classes, the first with a tag on 30 % of its images (see any_network.py). By each
method it is audited under four metrics, and under maps and channels once more by connected parts. Printed is F1 of the
first class's suspect cluster against the tagged images; the last column is the share of positive relevance within the
tag's patches of 4 pixels (the whole is 64 patches), mean over tagged images, and what share an even map would have.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.csv
from numpy.typing import NDArray
from PIL import Image

from klarsicht import audit
from klarsicht.ground.run_folder.store import RunStore

METRICS = ("euclidean", "channels", "concept", "features")
PARTS = ("euclidean", "channels")
METHODS = ("GammaAttention", "EpsilonPlusFlat", "GradientTimesInput", "IntegratedGradients", "SmoothGrad")


def f1(store: RunStore, metric: str, name: str, carriers: set[str]) -> float:
    """F1 of the suspect cluster of a class."""
    paths = store.table("corpus")["path"].to_pylist()
    (line,) = (
        line for line in store.table(f"suspects-{metric}", f"spray-{metric}").to_pylist() if line["class"] == name
    )
    members = {paths[row] for row in line["rows"] or ()}
    return 2 * len(members & carriers) / (len(members) + len(carriers))


def on_tag(store: RunStore, masks: dict[str, NDArray[np.bool_]]) -> tuple[float, float]:
    """Mean share of positive relevance in the tag's patches, and their mean share of the picture."""
    maps = store.array("maps")
    found, even = [], []
    for row, path in enumerate(store.table("corpus")["path"].to_pylist()):
        if path in masks:
            R = np.maximum(np.asarray(maps[row], np.float64), 0).reshape(8, -1, 8, maps.shape[2] // 8).sum((1, 3))
            patches = masks[path].reshape(8, 4, 8, 4).any((1, 3))
            found.append(R[patches].sum() / R.sum())
            even.append(patches.mean())
    return float(np.mean(found)), float(np.mean(even))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kept", type=Path)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    asked = parser.parse_args()
    manifest = asked.kept / "tagged" / "manifest.csv"
    lines = pyarrow.csv.read_csv(manifest).to_pylist()
    name = min(line["label"] for line in lines)
    masks = {}
    for line in lines:
        if line["planted"]:
            path = manifest.parent / line["path"]
            pair = [
                np.asarray(Image.open(p).convert("RGB"), np.int16) for p in (path, original(asked.kept, lines, line))
            ]
            masks[str(path)] = (np.abs(pair[0] - pair[1]) > 0).any(2)
    print("| method | maps | channels | head | features | maps, parts | channels, parts | on the tag |")
    print("|---|---|---|---|---|---|---|---|")
    for method in asked.methods:
        settings = audit.AuditSettings(
            model=f"hf:{asked.kept / 'vit'}", data=str(manifest), batch=64, method=method, metric=METRICS
        )
        with tempfile.TemporaryDirectory() as scratch:
            store = audit.run(settings, Path(scratch) / "whole")
            whole = [f1(store, metric, name, set(masks)) for metric in METRICS]
            share, even = on_tag(store, masks)
            parted = settings.model_copy(update={"parts": True, "metric": PARTS})
            store = audit.run(parted, Path(scratch) / "parts")
            parts = [f1(store, metric, name, set(masks)) for metric in PARTS]
        cells = " | ".join(f"{value:.2f}" for value in (*whole, *parts))
        print(f"| {method} | {cells} | {share:.2f} (even: {even:.2f}) |", flush=True)


def original(kept: Path, lines: list[dict], line: dict) -> Path:
    """The image before the tag: images of a class are planted in the order of their files."""
    own = [other["path"] for other in lines if other["label"] == line["label"]]
    return sorted((kept / "plain" / line["label"]).iterdir())[own.index(line["path"])]


if __name__ == "__main__":
    main()
