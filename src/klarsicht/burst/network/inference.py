"""Inference on one whole burst (large photographs are processed by tiles)."""

from __future__ import annotations

import numpy as np
import torch

from klarsicht.burst.align.interpolated import align_by_colour_filter
from klarsicht.burst.data.burst import Burst, Frames
from klarsicht.burst.network.borders import border_factors, predict_kernels
from klarsicht.burst.network.heads import KernelHead
from klarsicht.burst.network.unet import Network
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.devices import bf16_is_faster
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.pixel_kernels.apply import apply_kernels

MOST_LIGHT = 100.0  # mean of the reference: more is codes and not light


@torch.no_grad()
@check_arguments
def denoise_burst(network: Network, burst: Burst, exact: bool = False) -> Frames:
    """Denoise a burst with a network; return the clean reference (C, H, W), linear, not clipped. exact: in float32,
    also where bfloat16 is faster. Raises UsageError where the burst does not fit the network, or either is another
    thing; InputError for frames that are not finite, or codes of a sensor in place of light."""
    if not np.isfinite(burst.frames).all():
        frame = int(np.flatnonzero(~np.isfinite(burst.frames).all((1, 2, 3)))[0])
        raise InputError(
            "frames with pixels that are not finite", got=f"frames[{frame}] first", rule="linear light, 1 is white",
            remedy="Leave that frame out, or replace such pixels: np.nan_to_num(frames).",
        )  # fmt: skip
    if (light := float(np.abs(burst.frames[0]).mean())) > MOST_LIGHT:
        remedy = "Divide them by the code of white, such as 65535, before you make the burst."
        rule = "linear light, 1 is white"
        raise InputError("frames far above white", got=f"a mean of {light:.5g}", rule=rule, remedy=remedy)
    network.check_frames(burst.frames.shape)
    device = next(network.parameters()).device
    frames, valid = (torch.from_numpy(x).to(device)[None] for x in (burst.frames, burst.valid))
    read, shot = (torch.tensor([level], device=device) for level in (burst.noise.read, burst.noise.shot))
    alignment = align_by_colour_filter(frames, read, shot, valid, burst.colour_filter)
    with torch.autocast(device.type, torch.bfloat16, enabled=not exact and bf16_is_faster(device)):
        inputs = alignment.apply(frames), read, shot, valid, alignment.agreement()
        if isinstance(network.head, KernelHead):
            kernels = predict_kernels(network, *inputs)
            merged = border_factors(kernels)[:, None] * apply_kernels(*kernels).merged
        else:
            merged = network(*inputs).merged
    return merged[0].float().cpu().numpy()
