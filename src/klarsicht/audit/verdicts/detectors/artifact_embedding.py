"""Learn an embedding of images in which those with the same artifact lie together, whatever they show.

A small convolutional network is trained without labels: artifacts of random families are planted, and images with the
same draw are to be alike, others of the same content not (supervised contrastive loss, Khosla et al. 2020). Artifacts
of families that it was never taught stand apart as well. Images without a plant are one group, so natural groups of a
class fall together. A run learns one on its own images, which names rarer artifacts; the one that comes along learned
on photographs, and has seen no carrier of the run as clean. A second head learns on the same batches whether an image
holds a plant at all."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.verdicts.synthetic.families import COLOUR_ONLY, FAMILIES
from klarsicht.audit.verdicts.synthetic.families import __file__ as families_file
from klarsicht.audit.verdicts.synthetic.planted_image import plant_on_levels
from klarsicht.audit.verdicts.synthetic.unnamed_changes import UNNAMED
from klarsicht.ground.arrays import Doubles, Pixels
from klarsicht.ground.progress import Advance
from klarsicht.ground.seeding import generator, integer

EMBEDDED_SIDE = 40  # pixels on the shorter side; larger images are shrunk to it
WIDTHS = (24, 32, 48, 64, 64)  # channels of the convolutions
HALVING = (1, 3)  # convolutions of stride 2
LAST_LAYER, DIMENSION = 128, 64  # of the layer before the embedding, and of the embedding
STEPS, STAGES = 1500, 12  # of the training, at most; its state is stored after each stage, of 20 to 30 s of one core
MOST_SHOWN = 40  # times that an image is content of a batch; shown more often, carriers are learned by heart as clean
CONTENT_GROUPS, CONTENTS, DRAWS = 8, 4, 5  # in a batch: groups of so many images, each plain and under so many draws
TEMPERATURE = 0.1  # of the softmax over similarities
LEARNING_RATE, WARM_UP = 3e-3, 0.3  # of Adam; share of the steps in which the rate rises
GREY_MIDDLE, GREY_SPREAD = 128.0, 64.0  # grey levels, subtracted from the images and divided by
SHIPPED_FILE = Path(__file__).parent / "artifact_embedding.safetensors"
REFERENCE_EMBEDDING_FILE = Path(__file__).parent / "reference_embedding.safetensors"  # that scored reference classes
SHIPPED_CHANNELS = 3  # of the images that it embeds
NOT_TAUGHT = ("mirror",)  # families that no image shows by itself
UNNAMED_DRAWN = {"soft-light": 8, "tones": 4, "warp": 2}  # times, where each family that is taught is drawn once


class ArtifactEmbedding(nn.Module):
    """Network from images (B, C, H, W), grey levels 0 to 255, to unit vectors (B, DIMENSION), and with `judges` to log
    odds that something was planted."""

    def __init__(self, channels: int = 3, judges: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, width in enumerate(WIDTHS):
            stride = 2 if i in HALVING else 1
            layers += [
                nn.Conv2d(channels, width, 3, stride, padding=1, bias=False, padding_mode="replicate"),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Linear(2 * channels, LAST_LAYER), nn.ReLU(), nn.Linear(LAST_LAYER, DIMENSION))
        self.judge: nn.Sequential | None = None
        if judges:
            self.judge = nn.Sequential(
                nn.BatchNorm1d(2 * channels), nn.Linear(2 * channels, LAST_LAYER), nn.ReLU(), nn.Linear(LAST_LAYER, 1)
            )

    def pool(self, x: Tensor) -> Tensor:
        """Compute means and maxima over places of the last fields (B, 2 WIDTHS[-1])."""
        fields = self.body((x - GREY_MIDDLE) / GREY_SPREAD)
        return torch.cat([fields.mean((2, 3)), fields.amax((2, 3))], 1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.normalize(self.head(self.pool(x)), dim=1)

    def embed(self, levels: Pixels, block: int = 256) -> Doubles:
        """Embed images (n, H, W, C), levels 0 to 255: (n, DIMENSION)."""
        with evaluation_mode(self), torch.no_grad():
            parts = [self(as_input(levels[a : a + block])) for a in range(0, len(levels), block)]
        return np.asarray(torch.cat(parts).double().numpy() if parts else np.zeros((0, DIMENSION)))

    def log_odds(self, levels: Pixels, block: int = 256) -> Doubles:
        """Compute log odds (n,) that something was planted in images (n, H, W, C), levels 0 to 255."""
        assert self.judge is not None
        with evaluation_mode(self), torch.no_grad():
            parts = [self.judge(self.pool(as_input(levels[a : a + block]))) for a in range(0, len(levels), block)]
        return np.asarray(torch.cat(parts)[:, 0].double().numpy() if parts else np.zeros(0))


def contrastive_loss(vectors: Tensor, label: Tensor) -> Tensor:
    """Compute the mean over unit vectors (B, d), and others of their label (B,), of -log softmax of the
    similarities."""
    itself = torch.eye(len(vectors), dtype=torch.bool)
    similarity = (vectors @ vectors.T / TEMPERATURE).masked_fill(itself, -torch.inf)
    log_share = similarity - torch.logsumexp(similarity, 1, keepdim=True)
    positive = (label[:, None] == label) & ~itself
    mean = torch.where(positive, log_share, 0.0).sum(1) / positive.sum(1)
    return -mean.mean()


def taught_families(channels: int) -> tuple[str, ...]:
    """Return the names of the families that images of so many channels can be planted with."""
    left_out = NOT_TAUGHT + (COLOUR_ONLY if channels != 3 else ())
    return tuple(name for name in FAMILIES if name not in left_out)


def drawn_in_training(channels: int) -> tuple[str, ...]:
    """Return the names that a run's embedding is taught: families, and unnamed changes as often as they are drawn."""
    return taught_families(channels) + tuple(name for name, times in UNNAMED_DRAWN.items() for _ in range(times))


def draw_batch(
    images: Pixels, families: Sequence[str], rng: np.random.Generator, groups: int = CONTENT_GROUPS
) -> tuple[Pixels, list[int]]:
    """Draw images, plain and with random artifacts of families or of unnamed changes, and number what they carry; 0 is
    nothing. Every group of CONTENTS images comes plain and under DRAWS artifacts, so that content says nothing of the
    label."""
    levels, label = [], []
    for group in range(groups):
        content = images[rng.choice(len(images), CONTENTS, replace=len(images) < CONTENTS)]
        content = content[:, :, ::-1] if rng.random() < 0.5 else content
        levels.append(content)
        label += [0] * CONTENTS
        for draw in range(DRAWS):
            name = rng.choice(families)
            artifact = (FAMILIES.get(name) or UNNAMED[name])(rng)
            levels.append(np.stack([plant_on_levels(image, artifact, rng) for image in content]))
            label += [1 + group * DRAWS + draw] * CONTENTS
    return np.concatenate(levels), label


def learning_rate(step: int, steps: int, warm_up: float = WARM_UP) -> float:
    """Return the rate at a step: a half cosine up from a twentieth during the warm-up, then one down to nearly 0."""
    done = step / steps
    if done < warm_up:
        return LEARNING_RATE * (0.525 - 0.475 * math.cos(math.pi * done / warm_up))
    return LEARNING_RATE * (0.5 + 0.5 * math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def training_steps(images: int) -> int:
    """Count the steps of a training on so many images: fewer than STEPS where images are few."""
    return min(STEPS, math.ceil(MOST_SHOWN * images / (CONTENT_GROUPS * CONTENTS)))


@dataclass
class EmbeddingTraining:
    """Training of an embedding, in stages that can be stored and gone on with, on images uint8 (n, H, W, C) of a
    shorter side of at most EMBEDDED_SIDE, planted with families and unnamed changes of those names."""

    images: Pixels
    families: tuple[str, ...]
    seed: int

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(integer(self.seed, "embedding"))
            self.network = ArtifactEmbedding(self.images.shape[-1])
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(self.network.parameters())

    @property
    def steps(self) -> int:
        return training_steps(len(self.images))

    def run_stage(self, stage: int, advance: Advance = lambda amount=1: None) -> None:
        """Train through one of the STAGES."""
        rng = generator(self.seed, "embedding", stage)
        self.network.train()
        for step in range(self.steps * stage // STAGES, self.steps * (stage + 1) // STAGES):
            self.run_step(step, rng)
            advance()

    def run_step(self, step: int, rng: np.random.Generator) -> None:
        """Train on one batch, in the mode that the network is in."""
        levels, label = draw_batch(self.images, self.families, rng)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, self.steps)
        self.optimizer.zero_grad()
        pooled, number = self.network.pool(as_input(levels)), torch.tensor(label)
        loss = contrastive_loss(functional.normalize(self.network.head(pooled), dim=1), number)
        if self.network.judge is not None:  # it learns what the fields hold, and does not shape them
            log_odds = self.network.judge(pooled.detach())[:, 0]
            loss = loss + functional.binary_cross_entropy_with_logits(log_odds, (number > 0).float())
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no type for it
        self.optimizer.step()

    def state(self) -> bytes:
        """Return weights and optimizer as bytes."""
        content = io.BytesIO()
        torch.save({"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}, content)
        return content.getvalue()

    def restore(self, state: bytes) -> None:
        """Go on from the state after an earlier stage; one that was begun without a judge goes on without."""
        parts = torch.load(io.BytesIO(state), weights_only=True)
        if not has_judge(parts["network"]):
            self.network.judge = None
            self.optimizer = torch.optim.Adam(self.network.parameters())
        self.network.load_state_dict(parts["network"])
        self.optimizer.load_state_dict(parts["optimizer"])


def training_sources() -> tuple[Path, ...]:
    """List the source files of the training and of what is planted in it."""
    return *sorted(Path(families_file).parent.glob("*.py")), Path(__file__)


def load_embedding(state: bytes) -> ArtifactEmbedding:
    """Load the network from the state of its training."""
    return make_network(torch.load(io.BytesIO(state), weights_only=True)["network"])


def has_judge(weights: Mapping[str, Tensor]) -> bool:
    """Say whether weights, by name, contain those of a judge; earlier versions of a run have none."""
    return any(name.startswith("judge.") for name in weights)


def make_network(weights: Mapping[str, Tensor]) -> ArtifactEmbedding:
    """Make a network of its weights, by name; those of `judge` may be absent."""
    network = ArtifactEmbedding(weights["body.0.weight"].shape[1], has_judge(weights))
    network.load_state_dict(weights)
    return network.eval()


@cache
def load_shipped_embedding(file: Path = SHIPPED_FILE) -> ArtifactEmbedding:
    """Load the network that comes along, for images of three channels, made by benchmarks/audit/ship_embedding.py."""
    return make_network({name: x.float() if x.is_floating_point() else x for name, x in load_file(file).items()})


def load_reference_embedding() -> ArtifactEmbedding:
    """Load the network by which the reference classes of `reference_classes` were scored, likewise."""
    return load_shipped_embedding(REFERENCE_EMBEDDING_FILE)


def own_or_shipped(network: ArtifactEmbedding | None, channels: int) -> ArtifactEmbedding | None:
    """Return the embedding of a run, or the one that comes along where a run has none and images three channels."""
    return load_shipped_embedding() if network is None and channels == SHIPPED_CHANNELS else network


def as_input(levels: Pixels) -> Tensor:
    """Convert images (n, H, W, C) to float32 (n, C, H, W), channels last in memory."""
    return torch.from_numpy(np.ascontiguousarray(levels, np.float32)).permute(0, 3, 1, 2)
