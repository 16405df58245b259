"""Initialisation of a network with the weights of another, also of fewer colours: only the first convolution depends on
the colour, and a new plane takes its share of the weights of the one that showed the same light."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from klarsicht.burst.network import checkpoints
from klarsicht.burst.network.unet import COLOURS, Network, NetworkSettings
from klarsicht.ground.errors import ModelError

SHARES = {
    ("grey", "rgb"): ((1 / 3,), (1 / 3,), (1 / 3,)),
    ("rgb", "mosaic"): ((1, 0, 0), (0, 1 / 2, 0), (0, 1 / 2, 0), (0, 0, 1)),
    ("grey", "mosaic"): ((1 / 4,), (1 / 4,), (1 / 4,), (1 / 4,)),
}
"""By old and new colour: the share that each new plane takes of the weights of each old plane."""


def load_initial_weights(network: Network, file: Path) -> None:
    """Load the weights of a file into a network. Raises ModelError for a file without a network, or with one of another
    preset, width, number of frames, or of a colour that this network's does not extend."""
    source = checkpoints.load_network(file)
    before, now = source.settings, network.settings
    if differing := _first_difference(before, now):
        got = f"{differing} {getattr(before, differing)} in {file}"
        rule = f"this network has {differing} {getattr(now, differing)}"
        raise ModelError("a training cannot start from it", got=got, rule=rule, remedy="Leave --start out.")
    state = source.state_dict()
    if before.colour != now.colour:
        first = f"body.{next(name for name, _ in network.body.named_parameters())}"
        state[first] = expand_first_convolution(
            state[first], before, now, network.preset.unshuffle, network.preset.mean_frame
        )
    network.load_state_dict(state)


def _first_difference(before: NetworkSettings, now: NetworkSettings) -> str | None:
    """Return the first setting that makes the networks incompatible, or None."""
    for name in ("preset", "width", "frames"):
        if getattr(before, name) != getattr(now, name):
            return name
    known = before.colour == now.colour or (before.colour, now.colour) in SHARES
    return None if known else "colour"


def expand_first_convolution(
    weight: Tensor, before: NetworkSettings, now: NetworkSettings, unshuffle: int, mean_frame: bool
) -> Tensor:
    """Expand the weights of the first convolution (o, i, 3, 3) to another colour. Its planes are those of the frames,
    each as unshuffle x unshuffle planes, then the noise of each channel, then the trust in each frame."""
    shares = torch.tensor(SHARES[before.colour, now.colour])
    frames, channels = before.frames + mean_frame, COLOURS[before.colour]
    seen, noise, trust = torch.split(weight, [frames * channels * unshuffle**2, channels, before.frames], 1)
    planes = seen.reshape(len(weight), frames, channels, unshuffle**2, *weight.shape[2:])
    mixed = torch.einsum("nc,ofcekl->ofnekl", shares, planes).flatten(1, 3)
    return torch.cat([mixed, torch.einsum("nc,ockl->onkl", shares, noise), trust], 1)
