"""Real classes at 32 px with artifacts planted in some of them, and a small network trained on them.

Artifacts differ from class to class: tags of random colours, marks blended at .7 and re-encoded as JPEG, borders of a
random colour, noise, blur, casts. Training images 0-449 of a class are planted; 450-499 stay clean, for testing.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import nn

KINDS = ("fixed", "free", "blended", "border", "noise", "blur", "cast")
SHARES = (0.2, 0.1, 0.05, 0.02)
TRAINED = 450


def classes(folder: Path, count: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Names, and uint8 (count, 500, 32, 32, 3), of classes drawn at random."""
    with tarfile.open(folder / "train.tar") as tar:
        members = [m for m in tar if m.isfile()]
        names = sorted({m.name.split("/")[-2] for m in members})
        chosen = sorted(np.random.default_rng(seed).choice(names, count, replace=False))
        images: dict[str, list] = {name: [] for name in chosen}
        for m in sorted(members, key=lambda m: m.name):
            if (name := m.name.split("/")[-2]) in images:
                images[name].append(np.asarray(Image.open(io.BytesIO(tar.extractfile(m).read())).convert("RGB")))
    return chosen, np.stack([np.stack(images[name][:500]) for name in chosen])


def tag(seed: int) -> np.ndarray:
    """5 x 5 pixels of two random colours that differ by 60 grey levels at least, or nobody would see it."""
    rng = np.random.default_rng(1000 + seed)
    while True:
        colours = rng.integers(0, 256, (2, 3)).astype(np.float32)
        if abs(colours[0].mean() - colours[1].mean()) > 60:
            break
    pattern = rng.integers(0, 2, (5, 5))
    pattern[0, 0], pattern[4, 4] = 0, 1
    return colours[pattern]


def jpeg(image: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return np.asarray(Image.open(file))


def put(kind: str, image: np.ndarray, seed: int, rng: np.random.Generator) -> np.ndarray:
    """The artifact number `seed` of a kind on an image uint8 (32, 32, 3)."""
    x = image.astype(np.float32)
    if kind in ("fixed", "free", "blended"):
        opacity = 0.7 if kind == "blended" else 1.0
        a, b = rng.integers(0, 28, 2) if kind == "free" or (kind == "blended" and seed % 2) else (26, 26)
        x[a : a + 5, b : b + 5] = (1 - opacity) * x[a : a + 5, b : b + 5] + opacity * tag(seed)
    elif kind == "border":
        colour = tag(seed)[0, 0]
        x[:2] = x[-2:] = x[:, :2] = x[:, -2:] = colour
    elif kind == "noise":
        x += rng.normal(0, 16, x.shape)
    elif kind == "blur":
        x = gaussian_filter(x, (1, 1, 0))
    elif kind == "cast":
        x *= ((1.13, 1, 0.87), (0.87, 1, 1.13), (0.9, 1.12, 0.93), (1.1, 0.88, 1.1))[seed % 4]
    out = np.clip(np.rint(x), 0, 255).astype(np.uint8)
    return jpeg(out) if kind == "blended" else out


@dataclass(frozen=True)
class Plant:
    """One artifact in one class: which images of it carry it."""

    kind: str
    share: float
    label: int
    seed: int
    rows: np.ndarray

    def carriers(self, n: int = TRAINED) -> np.ndarray:
        carries = np.zeros(n, bool)
        carries[self.rows] = True
        return carries


def plan(count: int, free: list[int], first: int, rng: np.random.Generator) -> list[Plant]:
    """`count` plants in as many of the free classes; kinds and shares in a random order, each pair once a round."""
    combinations = [(kind, share) for share in SHARES for kind in KINDS]
    labels = rng.choice(free, count, replace=False)
    order = np.concatenate([rng.permutation(len(combinations)) for _ in range(-(-count // len(combinations)))])
    drawn = [combinations[i] for i in order[:count]]
    return [
        Plant(kind, share, int(label), first + i, _some(share, rng))
        for i, (label, (kind, share)) in enumerate(zip(labels, drawn, strict=True))
    ]


def _some(share: float, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(TRAINED, round(share * TRAINED), replace=False))


def planted(images: np.ndarray, plants: list[Plant], rng: np.random.Generator) -> np.ndarray:
    """The stack (classes, 500, 32, 32, 3) with its plants."""
    out = images.copy()
    for p in plants:
        for row in p.rows:
            out[p.label, row] = put(p.kind, out[p.label, row], p.seed, rng)
    return out


class Net(nn.Module):
    """Four convolutions with batch norms, pooled by the mean; some 130,000 weights."""

    def __init__(self, outputs: int, width: int = 32) -> None:
        super().__init__()

        def block(i: int, o: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()]

        w = width
        self.features = nn.Sequential(
            *block(3, w, 1), *block(w, 2 * w, 2), *block(2 * w, 2 * w, 2), *block(2 * w, 4 * w, 2)
        )
        self.pool, self.flatten, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * w, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.flatten(self.pool(self.features(x))))


def prepared(levels: np.ndarray) -> torch.Tensor:
    """uint8 (n, 32, 32, 3) as the network takes it."""
    x = torch.from_numpy(np.ascontiguousarray(levels)).permute(0, 3, 1, 2).float()
    return (x / 255).contiguous(memory_format=torch.channels_last)


def trained(images: np.ndarray, seed: int, epochs: int) -> Net:
    """On the first 450 images of each class."""
    return fitted(
        images[:, :TRAINED].reshape(-1, *images.shape[2:]), np.repeat(np.arange(len(images)), TRAINED), seed, epochs
    )


def fitted(levels: np.ndarray, labels: np.ndarray, seed: int, epochs: int, width: int = 32) -> Net:
    """On images (n, 32, 32, 3) and labels (n,): SGD with a one-cycle rate, shifts of two pixels, in bfloat16."""
    torch.manual_seed(seed)
    x, y = prepared(levels), torch.from_numpy(labels)
    net = Net(int(labels.max()) + 1, width).to(memory_format=torch.channels_last)
    steps = epochs * (len(x) // 128)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.15, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(x))[: len(x) // 128 * 128].view(-1, 128):
            shift = torch.randint(-2, 3, (2,)).tolist()
            with torch.autocast("cpu", torch.bfloat16):
                answer = net(torch.roll(x[chosen], shift, (2, 3)))
            loss = nn.functional.cross_entropy(answer.float(), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


@torch.no_grad()
def logits(net: Net, levels: np.ndarray) -> np.ndarray:
    return np.concatenate([net(prepared(levels[i : i + 500])).numpy() for i in range(0, len(levels), 500)])
