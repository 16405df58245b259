"""A corpus without sensor noise: every image of an audited corpus is denoised alike, as a burst of one frame.

A class that alone was denoised would be known by its smoothness. So all images pass the denoiser with the same noise,
whether they have it or not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from klarsicht.audit.cleaning.data.clean_data import CleanedCorpus, clean_corpus
from klarsicht.audit.cleaning.data.image_actions import Action
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.bridge.class_noise import estimate_class_noise, find_noisiest
from klarsicht.bridge.single_images import denoise_images
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.burst.network.unet import Network
from klarsicht.ground.errors import UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel

DENOISE = "denoise"  # name of the action


@dataclass(frozen=True)
class ImageDenoiser:
    """Denoiser of single pictures, RGB or grey, with noise of one level: the callable that an audit is handed."""

    network: Network
    noise: NoiseLevel

    def __call__(self, picture: Image.Image, row: int = 0) -> Image.Image:
        """Denoise a picture; a grey one stays grey."""
        codes = np.asarray(picture.convert("RGB"))
        clean = denoise_images(self.network, codes[None], self.noise)[0]
        return Image.fromarray(clean if picture.mode != "L" else clean.mean(-1).round().astype(np.uint8))


@check_arguments
def denoise_corpus(
    run: str | Path | RunStore, out: str | Path, noise: NoiseLevel | None = None, *, checkpoint: str | Path = "swift",
    tables: str = "csv", dry_run: bool = False, data: Any = None, classifier: Classifier | None = None,
    device: str = ANY_DEVICE,
) -> CleanedCorpus:  # fmt: skip
    """Denoise every image of the corpus of a run alike, into a new corpus beside it.

    noise: of the noisiest images, in linear light; None: estimated in each class, and that of the noisiest one taken.
    checkpoint: of an RGB network. tables, dry_run, data, classifier, device: see audit.clean_data.

    Raises UsageError: a noise of 0, none in any class, images that are arrays or no files; ModelError; InputError,
    RunMismatch: as audit.clean_data.
    """
    if noise is not None and not noise.read and not noise.shot:
        raise UsageError("no noise to take off", got=noise, rule="read or shot is more than 0")
    corpus = AuditedRun.of(run, data, classifier, device).audit.corpus
    if corpus.form is not None:
        raise UsageError("arrays cannot be denoised", got=corpus.form, rule="a denoiser takes pictures of 8 bits")
    origin = ""
    if noise is None:
        noisiest = find_noisiest(estimate_class_noise(corpus))
        noise, origin = noisiest.noise, f", as estimated in {noisiest.name}, the noisiest class"
    method = f"{checkpoint}, read noise {noise.read:.3g}, shot noise {noise.shot:.3g}{origin}"
    action = Action(DENOISE, method, folder="images", repair=ImageDenoiser(load_network(checkpoint), noise))
    return clean_corpus(
        corpus, np.ones(len(corpus), bool), action, Path(out), tables=tables, dry_run=dry_run,
        facts={"noise": [noise.read, noise.shot]},
    )  # fmt: skip
