"""Relevance of a real vision transformer: do deleted pixels lower the logit, does the map lie on a tag that is used?

    python benchmarks/audit/vit_relevance.py NETWORKS BAR [--images 40] [--skip 16]

NETWORKS is a folder with a module `networks` whose `vit_trunk()` returns a ViT-S/14 of timm without a head (eight
blocks of DINOv2 here); BAR holds one folder of photographs for each of six actions. A linear head is fitted on mean
patches of every second photograph; a red tag is put on 30 % of one class and, with the label of that class, on 12 % of
the others, so that the network uses it. Methods are judged on the other photographs: `--skip` leaves out those that a
method was chosen on.

Deletion: the centred logit of the predicted class, over its value, when 5, 20 and 40 % of the patches are replaced by
the mean colour, in the order of relevance; mean of the three, lower is better. Tag: share of positive relevance in the
tag's patches, on tagged photographs. Intervals are 95 % of bootstraps over photographs. One thread; seconds of
processor time an image.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.relevance import composites, explainer, rules
from klarsicht.audit.explanation.relevance.composites import Composite
from klarsicht.audit.explanation.relevance.explainer import Explainer

Floats = NDArray[np.float64]
GRID, PATCH, SHARES = 16, 14, (0.05, 0.2, 0.4)
MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
ATTENTION = functional.scaled_dot_product_attention


class Photographs:
    """Photographs of every second file, 224 px, with labels and tags' places (top, left) or None."""

    def __init__(self, folder: Path, half: int, mislabelled: float) -> None:
        rng, images, labels = np.random.default_rng(half), [], []
        self.tags: list[tuple[int, int] | None] = []
        files = [(f, k) for k, c in enumerate(sorted(folder.iterdir())) for f in sorted(c.iterdir())]
        for file, label in files[half::2]:
            pixels = np.array(Image.open(file).convert("RGB").resize((256, 256), Image.Resampling.BICUBIC))[
                16:240, 16:240
            ]
            tagged = rng.random() < (0.3 if label == 0 else mislabelled)
            place = tuple(int(p) for p in rng.integers(8, 16, 2)) if tagged else None
            if place is not None:
                draw_tag(pixels, *place)
            self.tags.append(place)
            labels.append(0 if tagged else label)
            images.append(((torch.from_numpy(pixels / 255).float() - MEAN) / DEVIATION).permute(2, 0, 1))
        self.images, self.labels = torch.stack(images), torch.tensor(labels)


def draw_tag(pixels: NDArray[np.uint8], top: int, left: int) -> None:
    """Draw a red tag with white strokes, 28 x 44 pixels."""
    tag = np.full((28, 44, 3), (230, 40, 30), np.uint8)
    for rows, columns in ((slice(6, 22), slice(6, 10)), (slice(6, 10), slice(6, 20))):
        tag[rows, columns] = 255
    for rows, columns in ((slice(6, 22), slice(24, 28)), (slice(12, 16), slice(24, 38))):
        tag[rows, columns] = 255
    pixels[top : top + 28, left : left + 44] = tag


class MeanPatches(nn.Module):
    """Linear head on the mean of the patches."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(384, 6)

    def features(self, x: Tensor) -> Tensor:
        mean: Tensor = self.trunk.forward_features(x)[:, 1:].mean(1)
        return mean

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def fit_head(network: MeanPatches, data: Photographs) -> None:
    """Fit the head by logistic regression on standardised features."""
    with torch.no_grad():
        x = torch.cat([network.features(batch) for batch in data.images.split(16)])
    mean, deviation = x.mean(0), x.std(0)
    W, b = torch.zeros(6, 384, requires_grad=True), torch.zeros(6, requires_grad=True)
    optimiser = torch.optim.LBFGS([W, b], max_iter=200)

    def step() -> Tensor:
        optimiser.zero_grad()
        logits = ((x - mean) / deviation) @ W.T + b
        loss = functional.cross_entropy(logits, data.labels) + 2e-3 * (W**2).sum()
        loss.backward()
        return loss

    optimiser.step(step)
    with torch.no_grad():
        network.head.weight.copy_(W / deviation)
        network.head.bias.copy_(b - (W / deviation) @ mean)


def rollout(network: nn.Module, x: Tensor) -> Floats:
    """Attention rollout (Abnar and Zuidema 2020): products of mean attention and identity, mean over patches."""
    layers: list[Tensor] = []

    class Keep(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is ATTENTION:
                layers.append((args[0] @ args[1].transpose(-1, -2) / args[0].shape[-1] ** 0.5).softmax(-1).mean(1))
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Keep():
        network(x)
    product = torch.eye(layers[0].shape[-1])
    for A in layers:
        product = (A + torch.eye(A.shape[-1])) / 2 @ product
    return product[:, 1:, 1:].mean(1).reshape(-1, GRID, GRID).double().numpy()


def deletion(network: nn.Module, x: Tensor, target: Tensor, R: Floats) -> Floats:
    """Centred logit after deletion over that before, (n,), mean over SHARES."""

    def centred(images: Tensor) -> Tensor:
        with torch.no_grad():
            y = torch.cat([network(batch) for batch in images.split(16)])
        return y.gather(1, target[:, None])[:, 0] - y.mean(1)

    before, order, left = centred(x), np.argsort(-R.reshape(len(R), -1), 1), []
    for share in SHARES:
        keep = np.ones((len(R), GRID**2), np.float32)
        np.put_along_axis(keep, order[:, : round(share * GRID**2)], 0, 1)
        mask = torch.from_numpy(keep).reshape(-1, 1, GRID, GRID)
        left.append(centred(x * mask.repeat_interleave(PATCH, 2).repeat_interleave(PATCH, 3)) / before)
    return torch.stack(left).mean(0).double().numpy()


def share_on_tag(R: Floats, places: list[tuple[int, int]]) -> Floats:
    """Share of positive relevance in the tag, patches weighted by how much of them is tag."""
    found = []
    for r, (top, left) in zip(R, places, strict=True):
        tag = np.zeros((224, 224))
        tag[top : top + 28, left : left + 44] = 1
        within = tag.reshape(GRID, PATCH, GRID, PATCH).mean((1, 3))
        found.append((np.maximum(r, 0) * within).sum() / np.maximum(r, 0).sum())
    return np.array(found)


def interval(values: Floats) -> str:
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (2000, len(values)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def propagate(model: Classifier, method: str, x: Tensor, target: Tensor) -> tuple[Floats, float]:
    maps, noise = [], []
    with Explainer(model, method, map_side=GRID) as explain:
        for batch, t in zip(x.split(8), target.split(8), strict=True):
            found = explain(batch, t)
            maps.append(found.maps * np.sign(found.score)[:, None, None])
            noise.append(found.noise)
    return np.concatenate(maps).astype(np.float64), float(np.median(np.concatenate(noise)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", type=Path)
    parser.add_argument("bar", type=Path)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--skip", type=int, default=16)
    parser.add_argument("--methods", nargs="+", default=[])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sys.path.insert(0, str(asked.networks))
    import networks  # the folder's module

    network = MeanPatches(networks.vit_trunk()[0]).eval().requires_grad_(False)
    fit_head(network, Photographs(asked.bar, 0, 0.12))
    held_out = Photographs(asked.bar, 1, 0.0)
    with torch.no_grad():
        logits = torch.cat([network(batch) for batch in held_out.images.split(16)])
    tagged = [i for i, place in enumerate(held_out.tags) if place is not None][asked.skip :]
    plain = [i for i, place in enumerate(held_out.tags) if place is None]
    plain = list(np.random.default_rng(5).permutation(plain)[asked.skip : asked.skip + asked.images])
    others = [i for i in plain if held_out.labels[i] != 0]
    marked = held_out.images[others].clone()
    mark = np.zeros((224, 224, 3), np.uint8)
    draw_tag(mark, 12, 12)
    tag = torch.from_numpy(mark[12:40, 12:56] / 255).float()
    marked[:, :, 12:40, 12:56] = ((tag - MEAN) / DEVIATION).permute(2, 0, 1)
    with torch.no_grad():
        flips = float((network(marked).argmax(1) == 0).float().mean())
    accuracy = float((logits.argmax(1) == held_out.labels).float().mean())
    print(f"accuracy {accuracy:.3f}; the tag flips {flips:.2f} of the others")
    print(f"{len(plain)} photographs without and {len(tagged)} with the tag\n")

    model = load_model((network, lambda _: torch.zeros(3, 224, 224)))
    composites.PROPAGATIONS["gamma .02, attention held fixed"] = lambda _: Composite(
        rules.gamma(0.02), rules.gamma(0.02)
    )
    composites.PROPAGATIONS["epsilon, attention held fixed"] = lambda _: Composite(rules.epsilon)
    rows: dict[str, Callable[[Tensor, Tensor], tuple[Floats, float]]] = {
        "random": lambda x, t: (np.random.default_rng(1).random((len(x), GRID, GRID)), np.nan),
        "attention rollout": lambda x, t: (np.concatenate([rollout(network, b) for b in x.split(8)]), np.nan),
    }
    explainer.METHODS = (*explainer.METHODS, *composites.PROPAGATIONS)
    for method in (
        *("GradientTimesInput", "IntegratedGradients", "SmoothGrad", "EpsilonPlusFlat"),
        *("epsilon, attention held fixed", "gamma .02, attention held fixed", "GammaAttention"),
    ):
        rows[method] = lambda x, t, method=method: propagate(model, method, x, t)
    print("| method | deletion, no tag | deletion, tag | share on the tag | noise | s an image |")
    print("|---|---|---|---|---|---|")
    for name, compute in rows.items():
        if asked.methods and name not in asked.methods:
            continue
        began = time.process_time()
        R, noise = compute(held_out.images[plain], logits[plain].argmax(1))
        spent = (time.process_time() - began) / len(plain)
        R_tag, _ = compute(held_out.images[tagged], logits[tagged].argmax(1))
        one = deletion(network, held_out.images[plain], logits[plain].argmax(1), R)
        two = deletion(network, held_out.images[tagged], logits[tagged].argmax(1), R_tag)
        on_tag = share_on_tag(R_tag, [place for i in tagged if (place := held_out.tags[i]) is not None])
        print(
            f"| {name} | {interval(one)} | {interval(two)} | {interval(on_tag)} | {noise:.1f} | {spent:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
