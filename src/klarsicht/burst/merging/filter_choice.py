"""Choice of the filter of a burst: a network, or the mean of its frames; and of the colours of Bayer frames in it."""

from __future__ import annotations

from pathlib import Path

from klarsicht.burst.data.interpolated_noise import InterpolatedNoise
from klarsicht.burst.data.photograph import Header
from klarsicht.burst.merging.exposure_weights import EXPOSURE_MARGIN
from klarsicht.burst.merging.filters import Filter, MeanFilter, NetworkFilter, check_colour
from klarsicht.burst.merging.frequency_filter import FrequencyFilter
from klarsicht.burst.network import checkpoints, pretrained
from klarsicht.burst.network.unet import COLOURS
from klarsicht.ground.errors import UsageError, unknown_name
from klarsicht.ground.machine import devices

BAYER_COLOURS = {"planes": "mosaic", "rgb": "rgb"}
"""Ways to filter Bayer frames, by name: as four planes of half the resolution, or interpolated to RGB."""
MOST_NOISE_RGB = 2.5  # deviation of the noise over the mean light, up to which Bayer frames are interpolated


def check_names(checkpoint: str | None, bayer: str | None, fast: bool = False) -> None:
    """Check the names of a network and of a way to filter Bayer frames before any frame is read. fast: no network is
    used. Raises UsageError for an unknown name, or a network then; ModelError for a file that holds no network."""
    if fast and checkpoint is not None:
        rule = "frames are merged by frequency, without a network"
        raise UsageError("--fast", got=f"--checkpoint {checkpoint}", rule=rule, remedy="Leave one of them out.")
    if bayer is not None and bayer not in BAYER_COLOURS:
        raise unknown_name("way to filter Bayer frames", bayer, BAYER_COLOURS)
    if checkpoint is not None:
        checkpoints.read_card(Path(checkpoint))


def choose_bayer_colour(name: str | None, checkpoint: str | None, noise_over_light: float) -> str:
    """Choose the colour in which Bayer frames are filtered, mosaic (their planes) or rgb. name: of BAYER_COLOURS, or
    None: that of the checkpoint's network; without one rgb, where both networks come along and the deviation of the
    noise over the mean light is MOST_NOISE_RGB at most. Raises UsageError for an unknown name, ModelError."""
    check_names(None, name)
    if name is not None:
        return BAYER_COLOURS[name]
    if checkpoint is not None:
        return "rgb" if checkpoints.read_card(Path(checkpoint)).settings.colour == "rgb" else "mosaic"
    known = all(pretrained.find_weights(colour) for colour in BAYER_COLOURS.values())
    return "rgb" if known and noise_over_light <= MOST_NOISE_RGB else "mosaic"


def select_filter(checkpoint: str | None, header: Header, exact: bool = False, fast: bool = False) -> Filter:
    """Select the network of a file, or a shipped one for such frames, or the mean; fast: the merge by frequency. Raises
    ModelError, UsageError."""
    if fast:
        return FrequencyFilter.of(COLOURS[header.colour], InterpolatedNoise.of(header))
    served = "interpolated" if header.cell else header.colour
    file = Path(checkpoint) if checkpoint else pretrained.find_weights(served)
    if file is None:
        return MeanFilter()
    network = checkpoints.load_network(file)
    if checkpoint:
        check_colour(network, header.colour)
    halved = not exact and devices.bf16_is_faster(devices.device())
    name = f"network {file.name} ({network.settings.preset}{', bfloat16' if halved else ''})"
    return NetworkFilter(network.to(devices.device()), name, exact)


def select_bracket_filter(checkpoint: str | None, frames: int) -> MeanFilter:
    """Return the mean of all frames of a bracket. Raises UsageError where a network is asked for."""
    if checkpoint is not None:
        rule = "frames of different exposures are merged by these, without a network"
        raise UsageError("network", got=checkpoint, rule=rule, remedy="Leave --checkpoint out.")
    return MeanFilter(frames, EXPOSURE_MARGIN, EXPOSURE_MARGIN, "the mean of the frames, weighed by their exposures")
