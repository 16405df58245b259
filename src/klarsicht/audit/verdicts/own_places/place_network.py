"""A small network that tells the class at every place of an image, from the few pixels around it alone.

Each place answers for itself, so that a small object is learned beside surroundings that tell the label in 98 of 100
images: where a network with a large field is right by the surroundings, it has nothing left to learn.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.ground.arrays import Bools, Doubles, Floats, Ints, Pixels
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator, integer

STRIDE = 2  # pixels between places
WIDTH = 32  # channels of a convolution
PLACE_BATCH, PLACE_RATE = 32, 3e-3
CROP = 32  # most pixels a side of an image that a step of training sees: as many places teach of any size
SHOWN = 128  # images that are answered at once


class PlaceNetwork(nn.Module):
    """Network from images (B, C, H, W) to the features of places, three of (B, WIDTH, h, w), and logits (B, K, h, w);
    each place sees 13 x 13 pixels."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(channels, WIDTH, 5, STRIDE, 2),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
                nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            ]
        )
        self.head = nn.Conv2d(WIDTH, classes, 1)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        features = []
        for layer in self.layers:
            x = functional.relu(layer(x))
            features.append(x)
        return features, self.head(x)


@torch.enable_grad()  # whoever asks may only predict
def train_places(
    images: Pixels, targets: Ints | Bools, epochs: int, seed: int, *, weight: Tensor | None = None
) -> PlaceNetwork:
    """Train a network to tell the target of each place.

    Args:
        images: uint8 (n, H, W, C).
        targets: (n,), the class of all places of an image, or (n, h, w), of each.
        weight: (K,), weights of the classes.
    """
    answers = np.asarray(targets, np.int64)
    classes = answers if answers.ndim > 1 else answers[:, None, None]
    rng = generator(seed, "places")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(integer(seed, "place network"))
        network = PlaceNetwork(images.shape[-1], int(answers.max()) + 1)
    optimizer, steps = torch.optim.Adam(network.parameters(), PLACE_RATE), max(1, len(images) // PLACE_BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PLACE_RATE, total_steps=epochs * steps + 1)
    for _ in track(range(epochs), epochs, "places that tell the class"):
        order = rng.permutation(len(images))
        for step in range(steps):
            some = order[step * PLACE_BATCH : (step + 1) * PLACE_BATCH]
            windows, of_place = crop_images(images[some], classes[some], rng)
            logits = network(as_input(windows))[1]
            loss = functional.cross_entropy(logits, torch.from_numpy(of_place).expand(-1, *logits.shape[2:]), weight)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
            optimizer.step()
            schedule.step()
    return network.eval()


def crop_images(images: Pixels, targets: Ints, rng: np.random.Generator) -> tuple[Pixels, Ints]:
    """Cut a random window of at most CROP pixels a side out of each image (b, H, W, C), and of the targets of its
    places, (b, h, w) or (b, 1, 1)."""
    corners = [max(0, side - CROP) // STRIDE + 1 for side in images.shape[1:3]]
    windows, of_place, places = [], [], -(-CROP // STRIDE)
    for image, target in zip(images, targets, strict=True):
        i, j = rng.integers(corners).tolist()
        windows.append(image[STRIDE * i :, STRIDE * j :][:CROP, :CROP])
        of_place.append(target if target.size == 1 else target[i : i + places, j : j + places])
    return np.stack(windows), np.stack(of_place)


def answer_places(network: PlaceNetwork, images: Pixels) -> Iterator[tuple[Floats, Floats]]:
    """Yield features (b, h, w, D) and logits (b, K, h, w) of images, a block at a time."""
    for features, logits in _ask_places(network, images):
        yield torch.cat(features, 1).permute(0, 2, 3, 1).numpy(), logits


def ask_classes(network: PlaceNetwork, images: Pixels) -> Iterator[Floats]:
    """Yield logits (b, K, h, w) of images, a block at a time."""
    for _, logits in _ask_places(network, images):
        yield logits


def _ask_places(network: PlaceNetwork, images: Pixels) -> Iterator[tuple[list[Tensor], Floats]]:
    with evaluation_mode(network), torch.no_grad():
        for start in range(0, len(images), SHOWN):
            features, logits = network(as_input(images[start : start + SHOWN]))
            yield features, logits.numpy()


def margin(logits: Floats, chosen: Ints) -> Doubles:
    """Compute the log-odds of the chosen class against all others from logits (n, K, ...): (n, ...)."""
    at = np.arange(len(logits))
    rest = logits.astype(np.float64)
    own = rest[at, chosen].copy()
    rest[at, chosen] = -np.inf
    return np.asarray(own - np.logaddexp.reduce(rest, 1), np.float64)


def as_input(images: Pixels) -> Tensor:
    """Convert images (n, H, W, C), levels 0 to 255, to float32 (n, C, H, W), -1 to 1."""
    return torch.from_numpy(np.ascontiguousarray(images, np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
