"""The relevance of a batch of images: maps, concepts, sums, and how it looks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.explanation.relevance.conservation import RelevanceBalance, conserves
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.errors import UsageError
from klarsicht.ground.pictures import notebook
from klarsicht.ground.pictures.colour_maps import diverging_colours, draw_relevance, resize_bilinear
from klarsicht.ground.pictures.encoded_pictures import png_bytes
from klarsicht.ground.pictures.nifti_files import write_nifti

INCOMPLETENESS_BOUND: Final = 0.1
"""Largest share of the logit difference f(x) - f(0) that integrated gradients may leave unexplained."""

PLAIN_SIDE: Final = 192  # px of a plain picture beside its relevance in a notebook
NOTEBOOK_IMAGES: Final = 8  # images in a notebook
CLASSES_NAMED: Final = 5  # classes in a line

Array = NDArray[Any]


@dataclass(frozen=True)
class Relevance:
    """Relevance of a batch of B images; float32 unless stated otherwise.

    The seed is R = 1 at the target's logit: where that logit is negative, relevance in favour of the class is negative
    in the map; `centred` gives the sign. G = min(map_side, H, W), and pooling conserves the sum.
    """

    method: str
    targets: Array
    """(B,) int64: the explained class."""
    maps: Array
    """(B, G, G), signed, summed over channels; of volumes (B, G, G, G)."""
    concepts: Array
    """(B, C): relevance of each channel at the input of the late layer, summed over positions."""
    features: Array
    """(B, F): the penultimate activations, without relevance; the baseline."""
    head: Array
    """(B, F): relevance of each penultimate feature for the centred logit; of independent outputs for the logit."""
    logits: Array
    """(B, K)."""
    total: Array
    """(B,) float64: the sum of relevance over all pixels."""
    residual: Array
    """(B,) float64: relative residual of conservation; NaN for methods that promise no conservation."""
    absorbed: Array
    """(B,) float64: share of the seed absorbed by biases, stabilisers and zero denominators; NaN for gradient
    methods."""
    noise: Array
    """(B,) float64: the largest sum of |R| at any layer over the seed. Positive and negative relevance cancel between
    layers, so a map of noise 100 holds the seed as the small difference of large numbers. NaN for gradient methods."""
    balance: RelevanceBalance | None = None
    """The relevance balance by layer; None for gradient methods."""
    middle: Array | None = None
    """(B, C, h, w): input of the middle layer, if one was named."""
    channels: Array | None = None
    """(B, C): relevance of each channel at the input of the middle layer, summed over positions."""
    against: Array | None = None
    """(B,) int64: the class against which the target is explained; None where it is explained by itself."""
    pixels: Array | None = None
    """(B, C, H, W), of volumes (B, C, D, H, W): relevance of every value of the input; None of an `Explainer` that does
    not keep it."""
    inner: Array | None = None
    """Relevance at the input of the middle layer, of its shape; None where none was named, or it is not kept."""
    independent: bool = False
    """Whether the outputs are independent of each other, as sigmoids are."""
    inputs: Pixels | None = None
    """uint8 (B, H, W, 3): the images as the network saw them; None of an `Explainer`."""
    classes: tuple[str, ...] = ()
    """Names of the K outputs; empty where the classifier has none."""

    @property
    def score(self) -> Array:
        """Logit of the target (B,)."""
        return np.asarray(np.take_along_axis(self.logits, self.targets[:, None], 1)[:, 0])

    @property
    def centred(self) -> Array:
        """Centred logit (B,): that of the target minus the mean of all; of independent outputs the logit itself."""
        return np.asarray(self.score if self.independent else self.score - self.logits.mean(1))

    @property
    def prediction(self) -> Array:
        """Predicted class, int64 (B,)."""
        return np.asarray(self.logits.argmax(1))

    @property
    def loss(self) -> Array:
        """Cross-entropy of the target (B,); of independent outputs that of its sigmoid alone."""
        if self.independent:
            return np.asarray(np.logaddexp(0, -self.score))
        top = self.logits.max(1)
        return np.asarray(np.log(np.exp(self.logits - top[:, None]).sum(1)) + top - self.score)

    def name(self, output: int) -> str:
        """Return the name of an output, or its number where the classifier has no names."""
        return self.classes[output] if self.classes else str(output)

    def overlay(self, i: int = 0) -> Image.Image:
        """Draw relevance over image i, red for the class and blue against it, with a bar of these colours; raises
        UsageError where there is no such image, or an `Explainer` kept none."""
        if self.inputs is None:
            remedy = (
                "Explain pictures with audit.explain(model, images, targets); of a volume, `save_nifti` writes the map."
            )
            raise UsageError("there are no images to draw on", got="an Explainer, or volumes", remedy=remedy)
        if not -len(self.maps) <= i < len(self.maps):
            raise UsageError("the number of an image", got=i, rule=f"0 to {len(self.maps) - 1}")
        return draw_relevance(self.inputs[i], self.maps[i])

    def save_nifti(self, path: str | Path, like: str | Path, i: int = 0) -> None:
        """Write the relevance of volume i, summed over channels, as a NIfTI file in the space of the volume it was read
        from.

        Args:
            path: the file to write, .nii or .nii.gz.
            like: the NIfTI file of the volume. Its three axes are those of the network's input (D, H, W), which may
                have other numbers of voxels where the volume was resampled as a whole; a crop has another space.

        Raises:
            UsageError: there is no such volume, images are no volumes, or an `Explainer` kept nothing.
            MissingExtra: nibabel is not installed.
            UnreadableFile: `like` is no NIfTI file.
        """
        if self.pixels is None or self.pixels.ndim != len("BCDHW"):
            remedy = "Explain volumes (B, C, D, H, W) with audit.explain."
            raise UsageError("only relevance of volumes is written as NIfTI", got="no volumes", remedy=remedy)
        if not -len(self.pixels) <= i < len(self.pixels):
            raise UsageError("the number of a volume", got=i, rule=f"0 to {len(self.pixels) - 1}")
        write_nifti(self.pixels[i].sum(0), Path(path), Path(like))

    def __repr__(self) -> str:
        n, classes = len(self.maps), np.unique(self.targets).tolist()
        named = ", ".join(map(self.name, classes[:CLASSES_NAMED])) + (", ..." if len(classes) > CLASSES_NAMED else "")
        return f"Relevance({n} image{'s' * (n != 1)}, class {named}, maps {self.maps.shape[1:]}, by {self.method})"

    def _repr_html_(self) -> str:
        rows = range(min(len(self.maps), NOTEBOOK_IMAGES))
        if self.inputs is None:
            flat = self.maps.sum(1) if self.maps.ndim == len("BDHW") else self.maps
            overlays = [diverging_colours(resize_bilinear(one, (96, 96))) for one in flat[: len(rows)]]
        else:
            overlays = [np.asarray(self.overlay(i)) for i in rows]
        side = 96 if self.inputs is None else 224
        shown = [notebook.pictures([png_bytes(one)], side) for one in overlays]
        header = ["image", "class", "logit", "predicted", "relevance"]
        lines = [
            [i, self.name(int(self.targets[i])), f"{self.score[i]:.2f}", self.name(int(self.prediction[i])), shown[i]]
            for i in rows
        ]
        if self.inputs is not None:
            header.insert(4, "as the network sees it")
            for line, one in zip(lines, self.inputs, strict=False):
                large = np.kron(one, np.ones((-(-PLAIN_SIDE // min(one.shape[:2])),) * 2 + (1,), np.uint8))
                line.insert(4, notebook.pictures([png_bytes(large)], PLAIN_SIDE))
        return notebook.table(header, lines)

    @property
    def conserving(self) -> bool | None:
        """Whether the maps conserve relevance in the median image: at most ABSORBED_BOUND of the seed is absorbed, and
        integrated gradients are complete up to INCOMPLETENESS_BOUND. None for methods that promise no conservation."""
        if self.balance is not None:
            return conserves(torch.from_numpy(self.absorbed))
        median = float(np.median(np.abs(self.residual)))
        return None if np.isnan(median) else median <= INCOMPLETENESS_BOUND
