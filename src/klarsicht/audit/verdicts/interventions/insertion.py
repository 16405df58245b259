"""Insertion of an artifact into images: the protocol, and the ways to insert the artifact of a detection.

Implementations stand in modules of their names, and work in the units of the model; those that draw from 8-bit images
hold the `PixelScale` between the two. Verdicts compare the artifact with the control; corrections use images with the
artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

import numpy as np
from torch import Tensor

from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.verdicts.interventions.artifact_examples import ArtifactExamples
from klarsicht.audit.verdicts.interventions.border import Border
from klarsicht.audit.verdicts.interventions.corruption import KINDS, Corruption
from klarsicht.audit.verdicts.interventions.patch import Patch


class Insertion(Protocol):
    """Protocol of an artifact that can be put on images."""

    def fits(self, image: Tensor, /) -> bool:
        """Say whether it can be put on an image (C, H, W)."""

    def put(self, images: Tensor, rng: np.random.Generator, /) -> tuple[Tensor, Tensor]:
        """Return images (n, C, H, W), as model inputs, with the artifact, and the control: the same images with
        everything that comes along with it, and without the artifact itself."""


Ways = Callable[[ArtifactExamples, PixelScale], Mapping[str, Insertion]]


CHANGES: Final[dict[str, Ways]] = {
    "tile": Patch.ways,
    "border": Border.ways,
    **{kind: partial(Corruption.ways, kind) for kind in KINDS},
    "shared": lambda examples, scale: {},  # a group without window or known corruption is inserted by shared content
}
"""For each change, the function that makes its insertions from examples, by the name of the way."""


def put_on(image: Tensor, insertion: Insertion, rng: np.random.Generator) -> Tensor:
    """Put the artifact on one image (C, H, W)."""
    return insertion.put(image[None], rng)[0][0]
