"""A network that begins with the weights of another: of the same layout, or of one that sees fewer colours.

Only the first convolution knows colours. A plane that a network newly sees takes its share of the weights of the plane
that showed that light before, so that equal channels give what the one channel gave.
"""

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
"""By colours before and now: what each plane takes of the weights of each plane before."""


def begin(network: Network, file: Path) -> None:
    """Puts the weights of the file into the network.

    Raises ModelError for a file that holds no network, or one of another preset, width, number of frames, or of colours
    that this one does not extend.
    """
    taken = checkpoints.load_network(file)
    before, now = taken.settings, network.settings
    if differing := _differing(before, now):
        got = f"{differing} {getattr(before, differing)} in {file}"
        rule = f"this network has {differing} {getattr(now, differing)}"
        raise ModelError("a training cannot start from it", got=got, rule=rule, remedy="Leave --start out.")
    state = taken.state_dict()
    if before.colour != now.colour:
        first = f"body.{next(name for name, _ in network.body.named_parameters())}"
        state[first] = spread(state[first], before, now, network.preset.entry, network.preset.mean_frame)
    network.load_state_dict(state)


def _differing(before: NetworkSettings, now: NetworkSettings) -> str | None:
    """The first setting in which the networks do not go together."""
    for name in ("preset", "width", "frames"):
        if getattr(before, name) != getattr(now, name):
            return name
    known = before.colour == now.colour or (before.colour, now.colour) in SHARES
    return None if known else "colour"


def spread(weight: Tensor, before: NetworkSettings, now: NetworkSettings, entry: int, mean_frame: bool) -> Tensor:
    """The first convolution's weights (o, i, 3, 3) for other colours. Its planes are those of the frames, each as
    entry x entry planes, then the noise of each channel, then the trust in each frame."""
    shares = torch.tensor(SHARES[before.colour, now.colour])
    frames, channels = before.frames + mean_frame, COLOURS[before.colour]
    seen, noise, trust = torch.split(weight, [frames * channels * entry**2, channels, before.frames], 1)
    planes = seen.reshape(len(weight), frames, channels, entry**2, *weight.shape[2:])
    mixed = torch.einsum("nc,ofcekl->ofnekl", shares, planes).flatten(1, 3)
    return torch.cat([mixed, torch.einsum("nc,ockl->onkl", shares, noise), trust], 1)
