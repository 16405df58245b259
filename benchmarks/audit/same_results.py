"""Results of two states of the sources, compared to the bit: before and after a change that must not change any.

    python benchmarks/audit/same_results.py make OUT        # with the sources that are imported; a minute
    python benchmarks/audit/same_results.py compare A B     # exits 1, naming every file that differs

Made are a run of 24 classes (two of them with a tag on a quarter of the images, of which the network reads one, a third
with noise) with its verdicts, a correction of the class whose tag is used, a run of three classes with theirs, and the
parts by which classes can be told. Compared are all files of the runs and of the correction, tables by their values,
but for dates, processes and versions of libraries. A move of modules changes `corrected.py`, which names one, and
`model.pt2`, in which torch keeps the names of modules.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pyarrow import parquet
from scipy.ndimage import gaussian_filter
from torch import nn

from klarsicht import audit

SIDE, CLASSES, IMAGES = 32, 24, 40
NAMES = [f"c{k:02d}" for k in range(CLASSES)]
TAGS = np.random.default_rng(4).permutation(np.repeat([0.0, 1.0], 13)[:25]).reshape(5, 5), np.eye(5)
USED, UNUSED, NOISY = 3, 11, 17
VOLATILE = {"created", "libraries", "data", "klarsicht", "seconds", "cpu_seconds", "host", "process", "model_notes"}


class TagReader(nn.Module):
    """Logits are random projections of a smoothed image; that of class USED also counts matches of the first tag."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.match, self.relu, self.smooth = nn.Conv2d(3, 1, 5), nn.ReLU(), nn.AvgPool2d(8)
        self.tag, self.flatten, self.head = nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(49, classes)
        pattern = torch.tensor(TAGS[0] - TAGS[0].mean(), dtype=torch.float32)
        with torch.no_grad():
            self.match.weight.copy_(pattern.expand(1, 3, 5, 5) / (pattern**2).sum() / 3)
            self.match.bias.fill_(-0.8)
            self.head.weight.copy_(torch.randn(classes, 49, generator=torch.Generator().manual_seed(0)) * 0.5)
            self.head.weight[:, 48] = 0
            self.head.weight[USED % classes, 48] = 40
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = [self.flatten(self.smooth(x)), self.flatten(self.tag(self.relu(self.match(x))))]
        return self.head(torch.cat(seen, 1))


def write_corpus(folder: Path, classes: int) -> None:
    """Write scenes of the same kind for every class; tags and noise on a quarter of some."""
    rng = np.random.default_rng(0)
    for k in range(classes):
        (folder / NAMES[k]).mkdir(parents=True)
        scenes = [gaussian_filter(rng.normal(0, 60 * s, (IMAGES, SIDE, SIDE, 3)), (0, s, s, 0)) for s in (0.8, 2, 5)]
        x = np.clip(120 + sum(scenes), 0, 255)
        for i in range(IMAGES // 4):
            if k in (USED % classes, UNUSED):
                a, b = rng.integers(0, SIDE - 5, 2)
                x[i, a : a + 5, b : b + 5] = 255 * TAGS[k == UNUSED][..., None]
            elif k == NOISY:
                x[i] = np.clip(x[i] + rng.normal(0, 25, x[i].shape), 0, 255)
        for i, pixels in enumerate(x):
            Image.fromarray(pixels.round().astype(np.uint8)).save(folder / NAMES[k] / f"{i:02d}.png")


def make(out: Path) -> None:
    """Make the runs, their verdicts and the correction, in the folder: what is stored names no other."""
    torch.set_num_threads(1)
    out.mkdir(parents=True)
    os.chdir(out)
    for name, classes in (("many", CLASSES), ("few", 3)):
        write_corpus(Path(name, "data"), classes)
        model = audit.load_model(TagReader(classes).eval(), classes=NAMES[:classes])
        settings = audit.AuditSettings(model="object", data=f"{name}/data", metric=("concept", "euclidean"), batch=64)
        run = audit.run(settings, f"{name}/run", classifier=model)
        audit.quantify(run, classifier=model)
        audit.measure_sufficiency(run, classifier=model)
        if name == "many":
            audit.clean(run, NAMES[USED], classifier=model, out="correction")


def without_dates(value: object) -> object:
    """Leave out the entries of a JSON value that tell when, where and with what it was made."""
    if isinstance(value, dict):
        return {key: without_dates(one) for key, one in value.items() if key not in VOLATILE}
    return [without_dates(one) for one in value] if isinstance(value, list) else value


def content(file: Path, folder: Path) -> object:
    """Return what is compared of a file."""
    if file.suffix == ".json" and "checksums" not in file.parts and "done" not in file.parts:
        return json.dumps(without_dates(json.loads(file.read_bytes())), sort_keys=True).replace(str(folder), "")
    if file.suffix == ".parquet":
        table = parquet.read_table(file)
        return f"{table.schema}{table.to_pylist()}".replace(str(folder), "")
    return file.read_bytes().replace(str(folder).encode(), b"")


def compare(one: Path, other: Path) -> int:
    """Print every file that differs or is missing; return their number."""

    def files(folder: Path) -> dict[str, Path]:
        found = (file for part in ("many/run", "few/run", "correction") for file in (folder / part).rglob("*"))
        named = {str(file.relative_to(folder)): file for file in found if file.is_file()}
        # pages name the date, and checksums are those of pages and manifests
        return {
            n: f for n, f in named.items() if f.suffix != ".html" and "checksums" not in f.parts and f.name != "lock"
        }

    here, there = files(one), files(other)
    missing = sorted(here.keys() ^ there.keys())
    changed = [n for n in sorted(here.keys() & there.keys()) if content(here[n], one) != content(there[n], other)]
    for word, names in (("only in one", missing), ("differs", changed)):
        for name in names:
            print(f"{word}: {name}")
    equal = len(here.keys() & there.keys()) - len(changed)
    print(f"{equal} files equal, {len(changed)} differ, {len(missing)} in one only")
    return len(missing) + len(changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=["make", "compare"])
    parser.add_argument("folders", type=Path, nargs="+")
    asked = parser.parse_args()
    if asked.action == "make":
        make(asked.folders[0].resolve())
    else:
        sys.exit(compare(*(folder.resolve() for folder in asked.folders)) > 0)


if __name__ == "__main__":
    main()
