"""Ratios of klarsicht's times to those of named peers, held against the ratios that are kept beside this script.

    make speed
    python benchmarks/speed.py [--only NAME ...] [--keep]

One thread, processor seconds; ours and the peer's runs are interleaved, medians of five. A ratio that is larger than
the kept one by a fifth has been lost: the script names it and ends with 1. --keep writes the ratios of this run as the
kept ones. Ratios move by some percent between processors, and more where others compute beside them.

- relevance: `explain` of ResNet-50 over one forward and backward pass.
- rules: the same, over zennit's attribution by the same rules.
- graph: the same, over autoLRP's attribution by its composite; left out where autoLRP is not installed.
- transport: the graph of 10 neighbours by the Wasserstein metric of 300 maps, over POT's `emd2` for all their pairs.
- clusters: the spectral chain of 1,200 images, over scikit-learn's spectral clustering of them for k = 2 to 8.
- chain: the same of 6,000 images, over CoRelAy's with one start of k-means for each k that we try from four; left out
  where CoRelAy is not installed.
- kernels: filtering of four frames by fused kernels of four sizes, over copying what is read and written.
- burst: `denoise_burst` of eight frames, over non-local means of scikit-image on their mean.
- merge: the same, over our own alignment and merge by frequency as HDR+ has them (`hdr+` of `burst evaluate`).
- quantify: `audit.quantify` of five classes of 60 pictures, over `audit.run` of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet50

from klarsicht.ground.machine.memory import keep_freed_memory

KEPT = Path(__file__).with_suffix(".json")
LOST = 1.2  # times the kept ratio
REPEATS = 5
TARGETS = (1, 7)  # classes that are explained
Work = Callable[[], object]


@dataclass(frozen=True)
class Comparison:
    """Two ways that are timed: ours and the peer's, the factor by which the peer's time counts, and how often."""

    ours: Work
    peer: Work
    factor: float = 1.0
    repeats: int = REPEATS

    def ratio(self) -> float:
        """Return the median of our time over that of the peer, who goes first; what repeats runs once before."""
        if self.repeats > 1:
            self.peer(), self.ours()
        pairs = [(_seconds(self.peer), _seconds(self.ours)) for _ in range(self.repeats)]
        return statistics.median(ours / (peer * self.factor) for peer, ours in pairs)


def _seconds(work: Work) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def compare_relevance() -> Comparison:
    net, x, ours = make_explanation()

    def gradient() -> None:
        y = x.clone().requires_grad_()
        torch.autograd.grad(net(y)[:, 1].sum(), y)

    return Comparison(ours, gradient)


def compare_rules() -> Comparison:
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlusFlat
    from zennit.torchvision import ResNetCanonizer

    _, x, ours = make_explanation()
    attributor = Gradient(resnet50().eval(), EpsilonPlusFlat(canonizers=[ResNetCanonizer()])).__enter__()
    return Comparison(ours, lambda: attributor(x, torch.eye(1000)[list(TARGETS)]))


def compare_graph() -> Comparison:
    import autolrp

    net, x, ours = make_explanation()

    def peer() -> None:
        y = autolrp.tensor(x)
        net(y)[range(len(TARGETS)), list(TARGETS)].sum().lrp(config=autolrp.LRPConfig.composite())

    return Comparison(ours, peer)


def make_explanation() -> tuple[nn.Module, torch.Tensor, Work]:
    """Make a network, images, and the explanation of both."""
    from klarsicht.audit.explanation.models.classifier import load_model
    from klarsicht.audit.explanation.relevance.explainer import Explainer

    net, x = resnet50().eval(), torch.rand(2, 3, 224, 224)
    explainer = Explainer(load_model(net), "EpsilonPlusFlat").__enter__()
    return net, x, lambda: explainer(x, torch.tensor(TARGETS))


def compare_transport() -> Comparison:
    import ot

    from klarsicht.numerics.neighbours import neighbour_graph
    from klarsicht.numerics.transport.measures import measures_from_maps

    rng, n, pairs = np.random.default_rng(0), 300, 60
    measures = measures_from_maps(np.abs(rng.normal(size=(n, 32, 32))).astype(np.float32) ** 3)
    points = measures.points.astype(np.float64)
    i, j = rng.integers(n, size=(2, pairs))

    def peer() -> None:
        for a, b in zip(i, j, strict=True):
            ot.emd2([], [], ot.dist(points[a], points[b]))

    return Comparison(lambda: neighbour_graph(measures, "wasserstein", 10), peer, n * (n - 1) / 2 / pairs)


def compare_clusters() -> Comparison:
    from sklearn.cluster import SpectralClustering

    items, ours = make_clusters(1200)

    def peer() -> None:
        for k in range(2, 9):
            SpectralClustering(k, affinity="nearest_neighbors", n_neighbors=10, random_state=0).fit(items)

    return Comparison(ours, peer)


def compare_chain() -> Comparison:
    from corelay.pipeline.spectral import SpectralClustering
    from corelay.processor.affinity import SparseKNN
    from corelay.processor.clustering import KMeans
    from corelay.processor.embedding import EigenDecomposition
    from corelay.processor.flow import Parallel

    items, ours = make_clusters(6000)
    peer = SpectralClustering(
        affinity=SparseKNN(n_neighbors=10, symmetric=True), embedding=EigenDecomposition(n_eigval=8),
        clustering=Parallel([KMeans(n_clusters=k) for k in range(2, 21)], broadcast=True, is_output=True),
    )  # fmt: skip
    return Comparison(ours, lambda: peer(items), repeats=3)


def make_clusters(n: int) -> tuple[np.ndarray, Work]:
    """Make n points in six groups, and the spectral chain of them."""
    from klarsicht import audit

    rng = np.random.default_rng(0)
    items = rng.normal(size=(n, 64)) + 4 * np.eye(64)[rng.integers(6, size=n)]
    return items, lambda: audit.spray(items, metric="euclidean", n_neighbors=10, random_state=0)


def compare_kernels() -> Comparison:
    from klarsicht.numerics.pixel_kernels.apply import apply_kernels
    from klarsicht.numerics.pixel_kernels.spec import KernelSpec

    spec, side = KernelSpec((1, 3, 5, 7)), 512
    frames = torch.rand(1, 4, 3, side, side)
    taps = torch.rand(1, 4 * spec.taps, *[spec.coarse(side)] * 2)
    copies = [frames.clone(), taps.clone()]

    def peer() -> None:  # often, as one copy is too short to be timed
        for _ in range(20):
            for copy, one in zip(copies, (frames, taps), strict=True):
                copy.copy_(one)

    return Comparison(lambda: apply_kernels(taps, frames, spec), peer, 1 / 20, repeats=9)


def compare_burst() -> Comparison:
    from skimage.restoration import denoise_nl_means

    frames, ours = make_burst()
    mean = frames.mean(0).transpose(1, 2, 0)
    return Comparison(
        ours,
        lambda: denoise_nl_means(mean, patch_size=5, patch_distance=10, h=0.02, sigma=0.01, channel_axis=2),
        repeats=3,
    )


def compare_merge() -> Comparison:
    from klarsicht import burst
    from klarsicht.burst.evaluation.classical import CLASSICAL

    frames, ours = make_burst()
    return Comparison(ours, lambda: CLASSICAL["hdr+"](burst.Burst(frames, burst.NoiseLevel(0.03, 0.0))), repeats=3)


def make_burst() -> tuple[np.ndarray, Work]:
    """Make eight frames (8, 3, 256, 256) of a scene, and the denoising of them."""
    from klarsicht import burst

    rng = np.random.default_rng(0)
    scene = np.kron(rng.random((3, 16, 16)), np.ones((16, 16))).astype(np.float32)
    frames = (scene + rng.normal(0, 0.03, (8, 3, 256, 256))).clip(0, 1).astype(np.float32)
    network, level = burst.load_network("swift"), burst.NoiseLevel(0.03, 0.0)
    return frames, lambda: burst.denoise_burst(network, burst.Burst(frames, level))


def compare_quantify() -> Comparison:
    from klarsicht import audit

    place = Path(tempfile.mkdtemp(prefix="klarsicht-speed-"))
    rng = np.random.default_rng(0)
    for label in "abcde":
        (place / "photographs" / label).mkdir(parents=True)
        hue = rng.random(3)
        for i in range(60):
            pixels = (255 * np.clip(hue + 0.2 * rng.normal(size=(32, 32, 3)), 0, 1)).astype(np.uint8)
            if label == "a" and i < 20:
                pixels[2:8, 2:8] = (255, 0, 255)
            Image.fromarray(pixels).save(place / "photographs" / label / f"{i:03d}.png")
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 5)),
    ).eval()
    model = audit.load_model(net, classes=list("abcde"))
    settings = audit.AuditSettings(model="net", data=str(place / "photographs"))
    runs = iter(range(100))
    folders = [place / "run"]

    def peer() -> None:
        folders[0] = place / f"run{next(runs)}"
        audit.run(settings, folders[0], classifier=model)

    def ours() -> None:
        with patch.dict(os.environ, XDG_CACHE_HOME=f"{folders[0]}-cache"):  # no embedding of an earlier run
            audit.quantify(folders[0], classifier=model)

    return Comparison(ours, peer, repeats=3)


COMPARISONS: dict[str, Callable[[], Comparison]] = {
    "relevance": compare_relevance,
    "rules": compare_rules,
    "graph": compare_graph,
    "transport": compare_transport,
    "clusters": compare_clusters,
    "chain": compare_chain,
    "kernels": compare_kernels,
    "burst": compare_burst,
    "merge": compare_merge,
    "quantify": compare_quantify,
}


def losses(ratios: dict[str, float], kept: dict[str, float]) -> Iterator[str]:
    """Name the ratios that are lost, each in a line."""
    for name, ratio in ratios.items():
        if name in kept and ratio > LOST * kept[name]:
            yield f"{name}: {ratio:.3g} times the peer's time, {kept[name]:.3g} was kept"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=[*COMPARISONS])
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as commands do: else new pages are a third of some times, or none, as what ran before has it
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    ratios: dict[str, float] = {}
    print("| ours over the peer's | now | kept |\n|---|---|---|")
    for name in given.only:
        try:
            ratios[name] = COMPARISONS[name]().ratio()
        except ModuleNotFoundError as error:
            print(f"| {name} | {error} | |", flush=True)
            continue
        print(f"| {name} | {ratios[name]:.3g} | {kept.get(name, float('nan')):.3g} |", flush=True)
    if given.keep:
        KEPT.write_text(json.dumps(kept | {name: float(f"{one:.3g}") for name, one in ratios.items()}, indent=1) + "\n")
        return 0
    lost = [*losses(ratios, kept)]
    print("\n".join(lost), file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
