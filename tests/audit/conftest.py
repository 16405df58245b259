"""A tiny audit with ground truth: ten-pixel pictures, a network that reads a mark, labels that go with it."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import manifold
from tests.kept import KeptFolders
from torch import nn

from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.spectral import analysis
from klarsicht.audit.verdicts.quantification import units
from klarsicht.ground.run_folder.store import RunStore

SIDE = 12


class Marked(nn.Module):
    """Three classes by the brightness of three channels; class "b" also, wrongly, by a bright corner."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        self.last = nn.Conv2d(4, 4, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.first.weight.zero_()
            for c in range(3):
                self.first.weight[c, c, 1, 1] = 1
            self.first.weight[3, :, 1, 1] = torch.tensor([1.0, 1.0, 1.0])  # white only: the mark
            self.last.weight.copy_(torch.eye(4)[:, :, None, None])
            self.head.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 9.0], [0, 0, 1.0, 0]]))
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.last(self.relu(self.first(x)))
        return self.head(self.flatten(self.pool(h)))


def network() -> nn.Module:
    return Marked().eval()


def picture(label: int, marked: bool, rng: np.random.Generator) -> Image.Image:
    pixels = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    pixels[..., label] += 100
    if marked:
        pixels[:4, :4] = 255
    return Image.fromarray(pixels)


def write_corpus(folder: Path, per_class: int = 60, share: float = 0.2, seed: int = 0) -> set[str]:
    """An ImageFolder of classes a, b, c; names of the marked images of class b."""
    rng = np.random.default_rng(seed)
    marked = set()
    for label, name in enumerate("abc"):
        (folder / name).mkdir(parents=True)
        for i in range(per_class):
            has_mark = name == "b" and i < share * per_class
            picture(label, has_mark, rng).save(folder / name / f"{i:03d}.png")
            if has_mark:
                marked.add(f"b/{i:03d}.png")
    return marked


def rewrite_rows(store: RunStore, name: str, start: int, values: np.ndarray, step: str = "attribution") -> None:
    """Write other rows of a finished unit, and their checksum into its marker."""
    unit = start // (store.array(name).zarr.shards or [1])[0]
    marker = store.marker(step, unit)
    store.mark_done(step, unit, (marker.files or {}) | store.write_rows(name, start, values))


@pytest.fixture(scope="module", autouse=True)
def no_waiting_for_disks() -> Iterator[None]:
    """Only a power cut tells whether bytes were synced; tests/ground sync in earnest, and so do processes of a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which refuses what is no open file, too
        yield


class TwoComponents:
    """The first two principal components, in place of t-SNE: whoever looks at a page sees points in the plane."""

    def __init__(self, **_: Any) -> None:
        pass

    def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
        centred = np.asarray(vectors, np.float64) - np.mean(vectors, 0, dtype=np.float64)
        return centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T


@pytest.fixture(scope="module", autouse=True)
def plain_layouts() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifold, "TSNE", TwoComponents)
        yield


@contextmanager
def in_brief(pool: int) -> Iterator[None]:
    """Few images to compare a class with, and a short sweep of clusters: for tests that are about neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        patch.setattr(units, "POOL", pool)
        patch.setattr(analysis, "SWEEPS", dict.fromkeys(analysis.SWEEPS, analysis.SWEEPS["quick"]))
        yield


@pytest.fixture(scope="session")
def quantified(kept: KeptFolders, tmp_path_factory: pytest.TempPathFactory):
    """The corpus of test_quantification audited and quantified: a run folder, the classifier, and the verdicts."""
    from tests.audit.verdicts.quantification.test_quantification import quantified_in, reader_of_a_tag

    made, folder = kept.folder("quantified", quantified_in), tmp_path_factory.mktemp("quantified")
    shutil.copytree(made / "run", folder / "run")
    (folder / "data").symlink_to(made / "data")
    return folder / "run", reader_of_a_tag(), pickle.loads((made / "verdicts.pkl").read_bytes())


@pytest.fixture
def classifier() -> Classifier:
    return load_model(network(), classes=["a", "b", "c"])
