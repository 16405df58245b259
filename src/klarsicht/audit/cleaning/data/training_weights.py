"""Weights of a cleaned corpus for a training loop that exists already: an array, or a sampler of torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from klarsicht.audit.cleaning.data.data_record import TABLES, read_record
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.ground.arrays import Doubles
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.ranges import SEED
from klarsicht.ground.user_arguments import check_arguments


@check_arguments
def training_weights(cleaned: str | Path, files: Sequence[str | Path] | None = None) -> Doubles:
    """Return the weight of each file in a training on the cleaned corpus, float64 (n,): 0 for one that it lacks.

    Args:
        cleaned: a folder of `audit clean-data`.
        files: image files in the order of the training loop's data set, such as `[p for p, _ in ImageFolder.samples]`:
            of the corpus as it was, or of the new one. By default those of the new manifest, in its order.

    Raises:
        InputError: the folder holds no record, or a file is not in it.
        UsageError: images were given other labels, which the data set does not have.
    """
    folder = Path(cleaned)
    if files is None:
        corpus = open_corpus(folder / f"manifest.{find_tables(folder)}")
        return np.array(corpus.weights or np.ones(len(corpus)))
    by_file: dict[Path, float] = {}
    for line in read_record(folder, find_tables(folder)):
        if line.in_new_corpus and line.new_label != line.label:
            raise UsageError(
                "weights of images that were given other labels", got=f"{line.path}: {line.new_label}",
                rule="a data set that exists already has the labels of before", remedy="Read the new manifest.",
            )  # fmt: skip
        by_file[(folder / line.path).resolve()] = 0.0  # where a new file stands for it
        if line.new_path:
            by_file[(folder / line.new_path).resolve()] = line.new_weight
    paths = [Path(file).resolve() for file in files]
    if unknown := [file for file in paths if file not in by_file]:
        raise InputError(
            "files that the cleaned corpus does not know", got=f"{len(unknown)} of {len(paths)}: {unknown[0]}",
            rule=f"files of the corpus that was cleaned, as in {folder}/record.{find_tables(folder)}, or new ones",
            remedy="Give the files that were audited, or leave them out of the data set.",
        )  # fmt: skip
    return np.array([by_file[file] for file in paths])


@check_arguments
def weighted_sampler(
    cleaned: str | Path, files: Sequence[str | Path] | None = None, *, draws: int | None = None, seed: int = 0
) -> WeightedRandomSampler:
    """Make a sampler that draws images of a data set by their weights in a cleaned corpus, with replacement:
    `DataLoader(dataset, batch_size, sampler=weighted_sampler("new", files))`.

    Args:
        cleaned, files: see training_weights.
        draws: images of an epoch; by default as many as have a weight above 0.

    Raises:
        InputError, UsageError: see training_weights, or no image has a weight, or draws or seed are out of range.
    """
    SEED.require("seed", seed)
    if draws is not None and draws < 1:
        raise UsageError("no draws in an epoch", got=draws, rule="at least 1")
    weights = training_weights(cleaned, files)
    if not weights.any():
        raise InputError("no image to draw", got=f"{len(weights)} files, all of weight 0")
    n = int((weights > 0).sum()) if draws is None else draws
    return WeightedRandomSampler(weights.tolist(), n, generator=torch.Generator().manual_seed(seed))


def find_tables(folder: Path) -> str:
    """Return the format of the tables of a folder, a name of data_record.TABLES. Raises InputError if it holds none."""
    kinds = [kind for kind in TABLES if all((folder / f"{name}.{kind}").is_file() for name in ("record", "manifest"))]
    if not kinds:
        raise InputError(
            "no cleaned corpus in this folder", got=folder, rule="record and manifest of `klarsicht audit clean-data`",
            remedy="Make them: klarsicht audit clean-data RUN --out FOLDER.",
        )  # fmt: skip
    return kinds[0]
