"""Choice of the filter of a burst: a network, or the mean of its frames."""

from __future__ import annotations

from pathlib import Path

from klarsicht.burst.denoising.exposure_weights import EXPOSURE_MARGIN
from klarsicht.burst.denoising.filters import Filter, MeanFilter, NetworkFilter, check_colour
from klarsicht.burst.network import checkpoints, pretrained
from klarsicht.ground import devices
from klarsicht.ground.errors import UsageError


def select_filter(checkpoint: str | None, colour: str, exact: bool = False) -> Filter:
    """Select the filter: the network of a file, a shipped one for such frames, or the mean. exact: a network in
    float32. Raises ModelError, UsageError."""
    file = Path(checkpoint) if checkpoint else pretrained.find_weights(colour)
    if file is None:
        return MeanFilter()
    network = checkpoints.load_network(file)
    if checkpoint:
        check_colour(network, colour)
    halved = not exact and devices.bf16_is_faster(devices.device())
    name = f"network {file.name} ({network.settings.preset}{', bfloat16' if halved else ''})"
    return NetworkFilter(network.to(devices.device()), name, exact)


def select_bracket_filter(checkpoint: str | None, frames: int) -> MeanFilter:
    """Return the mean of all frames of a bracket. Raises UsageError where a network is asked for: its frames have one
    noise level."""
    if checkpoint is not None:
        rule = "frames of different exposures are merged by these, without a network"
        raise UsageError("network", got=checkpoint, rule=rule, remedy="Leave --checkpoint out.")
    return MeanFilter(frames, EXPOSURE_MARGIN, EXPOSURE_MARGIN, "the mean of the frames, weighed by their exposures")
