"""Stability of explanations: the relevance of an image, of the image with more of its own noise, and of the image
without it, are compared.

An explanation that follows the noise of a sensor changes with every photograph of the same thing. Maps are compared by
Spearman's rank correlation, as in the literature on fragile explanations (Ghorbani, Abid and Zou 2019; Adebayo et al.
2018): ranks do not depend on the scale of a map, nor on the few largest values. Maps of two different images of the
class say what is alike without any stability, such as a frame that the network never looks at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.stats import rankdata

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus import decode_rows
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.relevance.attribution import read_predictions
from klarsicht.audit.explanation.relevance.explainer import Explainer
from klarsicht.audit.explanation.report import page
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results.stability import STABILITY_FILE, STABILITY_TABLE, ClassStability, Stability
from klarsicht.bridge.denoised_corpus import ImageDenoiser
from klarsicht.bridge.single_images import decode_light, encode_light
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.burst.network.unet import Network
from klarsicht.burst.noise.estimation import estimate
from klarsicht.ground.arrays import Doubles
from klarsicht.ground.errors import ImageRefused, InputError, InputRefused, UsageError
from klarsicht.ground.progress import track
from klarsicht.ground.ranges import SEED, STABILITY_IMAGES
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.statistics.intervals import Interval, mean_interval, student_quantile

MAP_SIDE = 32  # of the maps of a run that stored none
MIDDLE_GREY, NEXT_GREY = 127, 128  # codes of 8 bits between which the grain is stated
NO_NOISE = NoiseLevel(0.0, 0.0)
FEWEST = 2  # images of a class


@dataclass(frozen=True)
class ImageVersions:
    """A picture, the same with noise of a level added, and with that noise taken off."""

    picture: Image.Image
    level: NoiseLevel
    with_noise: Image.Image
    without_noise: Image.Image

    @classmethod
    def of(cls, picture: Image.Image, level: NoiseLevel, network: Network, rng: np.random.Generator) -> ImageVersions:
        """Make the versions of a picture of 8 bits."""
        if level == NO_NOISE:
            return cls(picture, level, picture, picture)
        return cls(picture, level, add_noise(picture, level, rng), ImageDenoiser(network, level)(picture))


def read_light(picture: Image.Image) -> np.ndarray:
    """Read the linear light of a picture, (H, W, 3), or (H, W, 1) of a grey one."""
    codes = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
    return decode_light(codes if codes.ndim == 3 else codes[..., None])


def add_noise(picture: Image.Image, level: NoiseLevel, rng: np.random.Generator) -> Image.Image:
    """Photograph a picture again with a sensor of a noise level; a grey one stays grey."""
    codes = encode_light(level.sample(read_light(picture), rng))
    return Image.fromarray(codes[..., 0] if codes.shape[-1] == 1 else codes)


def estimate_level(pictures: Sequence[Image.Image]) -> NoiseLevel | None:
    """Estimate the noise of pictures that share it; None where they have too few flat blocks for it, or are none."""
    windows = [np.moveaxis(read_light(one), -1, 0)[None] for one in pictures]
    if not windows:
        return None
    try:
        return estimate(windows).noise
    except InputError:
        return None


def measure_grain(level: NoiseLevel) -> float:
    """Compute the deviation of noise at middle grey, in grey levels of 8 bits."""
    light = decode_light(np.array([MIDDLE_GREY, NEXT_GREY], np.uint8)).astype(float)
    return float(level.deviation(light[0]) / (light[1] - light[0]))


def correlate_ranks(maps: np.ndarray, others: np.ndarray) -> Doubles:
    """Compute Spearman's rank correlation of maps (n, ...) with others, (n,); NaN where one is constant."""
    centred = [
        rank - rank.mean(1, keepdims=True) for rank in (rankdata(x.reshape(len(x), -1), axis=1) for x in (maps, others))
    ]
    product, lengths = (centred[0] * centred[1]).sum(1), [np.linalg.norm(one, axis=1) for one in centred]
    with np.errstate(invalid="ignore"):
        return np.asarray(product / (lengths[0] * lengths[1]))


def average_correlations(values: Doubles) -> Interval:
    """Estimate the mean of two or more correlations, with an interval by Student's quantile that ends at -1 and 1."""
    mean = mean_interval(values, student_quantile(len(values)))
    return replace(mean, low=max(mean.low, -1.0), high=min(mean.high, 1.0))


@dataclass(frozen=True)
class StabilityTrial:
    """Comparison of the maps of sampled images of a run. images: of a class. noise: of every image; None: estimated."""

    audit: Audit
    network: Network
    explain: Explainer
    images: int
    noise: NoiseLevel | None
    seed: int

    def measure(self, group: Group) -> ClassStability | None:
        """Measure a class; None with fewer than two usable images."""
        rng = generator(self.seed, "images of stability", group.target)
        rows = np.sort(rng.permutation(group.rows)[: self.images])
        decoded = decode_rows(self.audit.corpus, rows.tolist())
        pictures = {row: picture for row, picture in decoded if isinstance(picture, Image.Image)}
        explained = list(self._explain(pictures, group.target))
        if len(explained) < FEWEST:
            return None
        maps, levels = np.stack([one for one, _ in explained]), [level for _, level in explained]
        plain, with_noise, without_noise = np.moveaxis(maps, 1, 0)
        return ClassStability(
            group.name,
            group.target,
            float(np.median([measure_grain(one) for one in levels])),
            average_correlations(correlate_ranks(plain, with_noise)),
            average_correlations(correlate_ranks(plain, without_noise)),
            float(correlate_ranks(plain, np.roll(plain, 1, 0)).mean()),
        )

    def _explain(self, pictures: dict[int, Image.Image], target: int) -> Iterator[tuple[np.ndarray, NoiseLevel]]:
        """Yield the maps (3, G, G) of the versions of each picture, and its noise; pictures that the model refuses, and
        maps that are constant, are left out."""
        common = None if self.noise else estimate_level(list(pictures.values()))
        for row, picture in pictures.items():
            level = self.noise or estimate_level([picture]) or common
            if level is None:
                raise InputError(
                    "the noise of these images cannot be estimated", got=self.audit.corpus.paths[row],
                    rule="it is measured in flat blocks of 8 pixels", remedy="Give --noise READ,SHOT.",
                )  # fmt: skip
            versions = ImageVersions.of(picture, level, self.network, generator(self.seed, "noise of stability", row))
            try:
                maps = self.explain([versions.picture, versions.with_noise, versions.without_noise], target).maps
            except (ImageRefused, InputRefused):
                continue
            if np.isfinite(maps).all() and (np.ptp(maps, (1, 2)) > 0).all():
                yield maps, level


@check_arguments
def measure_stability(
    run: str | Path | RunStore, *, images: int = 10, noise: NoiseLevel | None = None, checkpoint: str | Path = "swift",
    seed: int = 0, data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> Stability:  # fmt: skip
    """Measure how alike the relevance of sampled images of each class stays when their noise is added again and taken
    off, and write it as JSON, as CSV and into the report. Each image costs three explained passes.

    Args:
        images: of each class, drawn at random.
        noise: of every image, in linear light; by default estimated from each.
        checkpoint: of an RGB network, the denoiser.
        seed: draws images and noise.
        data, classifier, device: see audit.quantify.

    Raises:
        UsageError: images that are arrays or no files, or settings out of range.
        InputError: no class with two usable images, or noise that cannot be estimated.
        ModelError: the denoiser is none for RGB.
        RunMismatch: model or data differ from those of the run.
    """
    STABILITY_IMAGES.require("images", images)
    SEED.require("seed", seed)
    store = RunStore.open(run)
    pipeline.require_ranked(store)
    audit = Audit.of_run(store, data, classifier, device)
    pipeline.check_unchanged(audit, store)
    if audit.corpus.form is not None:
        raise UsageError("arrays cannot be denoised", got=audit.corpus.form, rule="a denoiser takes pictures of 8 bits")
    side = int(store.array("maps").shape[1]) if store.has_array("maps") else MAP_SIDE
    groups = [group for group in audit.groups(*read_predictions(store)) if len(group) >= FEWEST]
    with store.lock(), Explainer(audit.classifier, audit.settings.method, side, seed=audit.settings.seed) as explain:
        trial = StabilityTrial(audit, load_network(checkpoint), explain, images, noise, seed)
        measurements = [trial.measure(group) for group in track(groups, len(groups), "stability of explanations")]
        classes = sorted(filter(None, measurements), key=lambda one: (one.with_noise.value, one.target))
        if not classes:
            raise InputError("no class with two usable images", got=store.path, rule="maps are compared by class")
        result = Stability(tuple(classes), explain.method, str(checkpoint))
        store.write_json(STABILITY_FILE, result.to_json())
        store.write_bytes(STABILITY_TABLE, result.to_csv().encode())
        page.write_report(store)
    return result
