"""Correct a model for the suspect cluster of one class, and show before and after beside controls that must fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import special

from klarsicht.audit import clarc
from klarsicht.audit.activations import activations, logits
from klarsicht.audit.clarc import Erasure
from klarsicht.audit.corpora import Corpus, decode_rows
from klarsicht.audit.directions import direction, random_direction
from klarsicht.audit.groups import Group
from klarsicht.audit.models import Classifier
from klarsicht.audit.ranking import Entry
from klarsicht.audit.samples import Sample
from klarsicht.audit.spray import Evidence
from klarsicht.ground.errors import InputError, UsageError, unknown_name
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator
from klarsicht.ground.store import RunStore
from klarsicht.numerics.erasure import Eraser, orthogonal

Floats = NDArray[np.floating[Any]]

LARGEST = 400  # images of each side (members, others) that a correction is fitted on, and as many it is shown on


@dataclass(frozen=True)
class Outcome:
    """How a model behaves under one correction.

    Attributes:
        correction: what was applied.
        shift: mean centred logit of the target, members less others.
        ratio: median probability of the target among members, over that among others.
        agreement: share of others whose first class is that of the uncorrected model.
        agreement_low, agreement_high: its 95 % interval (Wilson).
        accuracy: share of others that are right; None where no label is known.
    """

    correction: str
    shift: float
    ratio: float
    agreement: float
    agreement_low: float
    agreement_high: float
    accuracy: float | None


def project(a: Floats, sample: Sample, layer: str) -> Erasure:
    """The projection along the pattern of the members (P-ClArC); a (n, C) are pooled inputs of the layer."""
    v = direction("pattern", a, sample.member, sample.sources)
    return Erasure(layer, orthogonal(v[:, None], a[~sample.member].mean(0)))


METHODS = {"project": project}


def controls(a: Floats, sample: Sample, layer: str, rng: np.random.Generator) -> dict[str, Erasure]:
    """Corrections that must not help: a random direction, and the pattern of as many images chosen at random."""
    z = a[~sample.member].mean(0)
    wrong = direction("pattern", a, rng.permutation(sample.member), sample.sources)
    return {
        "random direction": Erasure(layer, orthogonal(random_direction(a.shape[1], rng)[:, None], z)),
        "wrong cluster": Erasure(layer, orthogonal(wrong[:, None], z)),
    }


def compare(
    classifier: Classifier, sample: Sample, target: int, corrections: Mapping[str, Erasure | None]
) -> list[Outcome]:
    """The model under each correction, on images that none of them was fitted on."""
    plain = logits(classifier, sample.images)
    return [
        outcome(name, plain if c is None else logits(classifier, sample.images, c), plain, sample, target)
        for name, c in track(corrections.items(), len(corrections), "corrections")
    ]


def outcome(name: str, y: Floats, plain: Floats, sample: Sample, target: int) -> Outcome:
    """One line of the before/after table from logits (n, K) under a correction and without."""
    evidence = Evidence(y[:, target] - y.mean(1), sample.sources)
    shift = float(evidence.shifts(sample.member[None])[0][0])
    log_p = log_softmax(y)[:, target]
    others = ~sample.member
    same = (y.argmax(1) == plain.argmax(1))[others]
    low, high = wilson(int(same.sum()), len(same))
    known = others & (sample.labels >= 0)
    return Outcome(
        correction=name,
        shift=shift,
        ratio=float(np.exp(np.median(log_p[sample.member]) - np.median(log_p[others]))),
        agreement=float(same.mean()),
        agreement_low=low,
        agreement_high=high,
        accuracy=float((y.argmax(1) == sample.labels)[known].mean()) if known.any() else None,
    )


def log_softmax(y: Floats) -> Floats:
    """Log-probabilities (n, K): no quotient of vanishing numbers."""
    return np.asarray(special.log_softmax(y.astype(np.float64), axis=1))


def wilson(hits: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    p, s = hits / n, z * z / n
    half = z * np.sqrt(p * (1 - p) / n + s / (4 * n))
    return float((p + s / 2 - half) / (1 + s)), float((p + s / 2 + half) / (1 + s))


@dataclass(frozen=True)
class Correction:
    """A fitted correction of one class with its before/after table."""

    entry: Entry
    projection: Erasure
    outcomes: tuple[Outcome, ...]
    fitted_on: int
    shown_on: int

    def save(self, store: RunStore) -> Path:
        """Writes RUN/corrections/<target>-project.npz (load it with `load`) and .json (the table)."""
        name = f"corrections/{self.entry.target}-project"
        buffer = BytesIO()
        np.savez(
            buffer,
            layer=np.array(self.projection.layer),
            left=self.projection.eraser.left,
            right=self.projection.eraser.right,
            reference=self.projection.eraser.reference,
        )
        store.write_bytes(f"{name}.npz", buffer.getvalue())
        store.write_json(f"{name}.json", self.to_json())
        return store.path / f"{name}.npz"

    def to_json(self) -> dict[str, Any]:
        return {
            "class": self.entry.name,
            "target": self.entry.target,
            "method": "project",
            "layer": self.projection.layer,
            "fitted_on": self.fitted_on,
            "shown_on": self.shown_on,
            "outcomes": [asdict(o) for o in self.outcomes],
        }


def load(path: str | Path) -> Erasure:
    """A saved projection; `with load(path).applied(module): ...` corrects a model.

    Raises:
        InputError: the file is no projection.
    """
    try:
        with np.load(path) as file:
            return Erasure(str(file["layer"]), Eraser(file["left"], file["right"], file["reference"]))
    except (OSError, KeyError, ValueError) as error:
        raise InputError("no projection in this file", got=f"{path}: {error}") from error


@dataclass(frozen=True)
class Audited:
    """What a class was audited on.

    Attributes:
        group: the images looked at.
        labels: int (N,), the right output for each image of the corpus, -1 where unknown.
    """

    corpus: Corpus
    classifier: Classifier
    group: Group
    labels: NDArray[np.integer[Any]]


def correct(
    audited: Audited, entry: Entry, *, method: str = "project", layer: str | None = None, seed: int = 0
) -> Correction:
    """Fits a correction on half of the sources and shows it on the other half, beside its controls.

    Raises:
        UsageError: unknown method or layer, or too few members to split.
    """
    if method not in METHODS:
        raise unknown_name("correction", method, METHODS)
    classifier, rng = audited.classifier, generator(seed, "correction", entry.target)
    fit, show = halves(audited, entry, rng)
    layer = layer or clarc.correction_layer(classifier.module)
    a = activations(classifier, fit.images, layer).pooled
    projection = METHODS[method](a, fit, layer)
    tried = {"nothing": None, method: projection} | controls(a, fit, layer, rng)
    outcomes = compare(classifier, show, entry.target, tried)
    return Correction(entry, projection, tuple(outcomes), len(fit), len(show))


def halves(audited: Audited, entry: Entry, rng: np.random.Generator) -> tuple[Sample, Sample]:
    """Two samples without a common source: one to fit on, one to show."""
    rows = audited.group.rows
    member, sources = np.isin(rows, entry.rows), audited.corpus.source_numbers[rows]
    first = np.isin(sources, rng.permutation(np.unique(sources))[::2])
    fit, show = (
        np.concatenate([_some(np.flatnonzero(side & (member == m)), rng) for m in (True, False)])
        for side in (first, ~first)
    )
    for half in (fit, show):
        if not 0 < member[half].sum() < len(half):
            raise UsageError(
                "too few images to fit on one half and show on the other",
                got=f"{member.sum()} members of {len(member)} images, from {len(np.unique(sources))} sources",
                rule="both halves need members and others",
            )
    return sample(audited, rows[fit], member[fit]), sample(audited, rows[show], member[show])


def _some(positions: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    return positions if len(positions) <= LARGEST else np.sort(rng.choice(positions, LARGEST, replace=False))


def sample(audited: Audited, rows: NDArray[Any], member: NDArray[np.bool_]) -> Sample:
    """Rows of the corpus, decoded; one that cannot be read any more is left out."""
    pictures = track(decode_rows(audited.corpus, rows.tolist()), len(rows), "images")
    images = [audited.classifier.image(p) if isinstance(p, Image.Image) else None for _, p in pictures]
    kept = np.array([image is not None for image in images])
    rows = rows[kept]
    return Sample(
        [image for image in images if image is not None],
        member[kept],
        audited.corpus.source_numbers[rows],
        audited.labels[rows],
    )
