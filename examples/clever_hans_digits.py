"""A Clever Hans in a minute: digits, a tag on some of the threes, a network that learns it, an audit that finds it.

    python examples/clever_hans_digits.py OUT

Everything comes from installed packages: scikit-learn's handwritten digits, 8 x 8 pixels, enlarged four times.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from klarsicht import audit
from klarsicht.audit.verdicts.synthetic import artifacts

TAGGED = 0.4  # share of the threes


def digits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures uint8 (N, 32, 32), labels (N,), and which carry the tag."""
    data = load_digits()
    pictures = np.kron(data.images * 15, np.ones((4, 4))).astype(np.uint8)
    tagged = np.zeros(len(pictures), bool)
    threes = np.flatnonzero(data.target == 3)
    tagged[rng.choice(threes, round(TAGGED * len(threes)), replace=False)] = True
    for i in np.flatnonzero(tagged):
        pictures[i] = artifacts.tag(pictures[i], rng).pixels
    return pictures, data.target, tagged


def trained(pictures: np.ndarray, labels: np.ndarray) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
    x, y = torch.from_numpy(pictures)[:, None] / 255, torch.from_numpy(labels)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(6):
        for batch in torch.randperm(len(x)).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[batch]), y[batch]).backward()
            optimiser.step()
    return net.eval()


def main(out: Path) -> None:
    pictures, labels, tagged = digits(np.random.default_rng(0))
    for i, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        (out / "digits" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(out / "digits" / str(label) / f"{i:04d}.png")
    classifier = audit.load_model(trained(pictures, labels), classes=[str(d) for d in range(10)])

    settings = audit.AuditSettings(model="digits", data=str(out / "digits"), metric=("euclidean",))
    run = audit.run(settings, out / "run", classifier=classifier)

    three = audit.rank(run).of("3")
    found = tagged[[int(Path(path).stem) for path in three.members]]
    print(f"the suspect cluster of class 3: {three.size} of {three.n} images, z {three.z:.1f}")
    print(f"carrying the tag: {found.mean():.0%} of the cluster, and {found.sum() / tagged.sum():.0%} of all tags")

    correction = audit.clean(run, "3", classifier=classifier).folder
    seen = audit.evaluate(run, correction, classifier=classifier)
    for look in (seen.before, seen.after):
        effect = look.outcome
        print(f"{look.name:>8}: others called three under the tag {effect.flips.value:.0%}, accuracy {effect.accuracy}")
    print(f"verdict: {seen.verdict}")
    print(f"look at {run.path / 'report.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "digits-out"))
