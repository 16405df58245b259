"""The training of the published code on squares (arXiv 2604.04518), written anew after its rules.

SGD without momentum starts at a rate of 0.001. After each epoch the held-out fifth is asked, which has the same
shortcut. If its accuracy fell while that of training did not, the epoch is undone, and a penalty on the mean square of
all weights begins or grows by three tenths; otherwise the rate falls by a twentieth. The weights with the best held-out
accuracy are kept. The published network began with ImageNet's weights, and had 300 epochs; after 60 the rate is too low
to change anything.
"""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

RATE, FALL = 1e-3, 0.95  # of training; of an epoch that is kept
PENALTY, GROWTH = 100.0, 1.3  # on the mean square of all weights; of an epoch that is undone
EPOCHS, BATCH, HELD_OUT = 60, 100, 0.2


def measure_accuracy(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Measure the share of images (n, C, H, W) whose labels (n,) are predicted."""
    net.eval()
    with torch.no_grad():
        predicted = torch.cat([net(part).argmax(1) for part in x.split(BATCH)])
    return float((predicted == y).float().mean())


def train_epoch(
    net: nn.Module, x: torch.Tensor, y: torch.Tensor, rate: float, penalty: float, rng: np.random.Generator
) -> float:
    """Train for one epoch, convolutions in bfloat16; returns the accuracy in training."""
    weights = list(net.parameters())
    optimizer, right = torch.optim.SGD(weights, rate), 0
    net.train()
    for rows in np.array_split(rng.permutation(len(x)), max(1, len(x) // BATCH)):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x[rows])
        squares = torch.stack([weight.square().sum() for weight in weights]).sum()
        mean_square = squares / sum(weight.numel() for weight in weights)
        (cross_entropy(logits.float(), y[rows]) + penalty * mean_square).backward()
        optimizer.step()
        right += int((logits.argmax(1) == y[rows]).sum())
    return right / len(x)


def train_as_published(net: nn.Module, x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator) -> None:
    """Train a network on images (n, C, H, W) with labels (n,), a fifth of them held out."""
    held, taught = np.split(rng.permutation(len(x)), [round(HELD_OUT * len(x))])
    rate, penalty, best, before = RATE, 0.0, -1.0, (0.0, 0.0)
    weights = kept_weights = deepcopy(net.state_dict())
    for _ in range(EPOCHS):
        in_training = train_epoch(net, x[taught], y[taught], rate, penalty, rng)
        held_out = measure_accuracy(net, x[held], y[held])
        if held_out > best:
            best, kept_weights = held_out, deepcopy(net.state_dict())
        if in_training >= before[0] and held_out < before[1]:
            penalty = penalty * GROWTH or PENALTY
            net.load_state_dict(weights)
        else:
            before, rate, weights = (in_training, held_out), rate * FALL, deepcopy(net.state_dict())
    net.load_state_dict(kept_weights)
