"""What makes one picture of aligned frames: a network's kernels, or, where there is none, the mean of what agrees.

Both are weights on the pixels of linear frames. Weighing comes first and filtering after, so that the same weights can
be laid over other frames, of noise alone for instance. Axes: N frames, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from klarsicht.burst.data.burst import Frames
from klarsicht.burst.data.photograph import Planes
from klarsicht.burst.network.heads import Kernels, Seen
from klarsicht.burst.network.unet import COLOURS, WHOLE, Network, Part
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

Agreement = npt.NDArray[np.float32]  # N H W
Centre = npt.NDArray[np.float32]  # H W


class Weighing(Protocol):
    """Weights on the pixels of frames, or of a part of them. centre: (h, w), what each pixel of the reference itself is
    multiplied by."""

    @property
    def centre(self) -> Centre: ...

    def __call__(self, frames: Frames | None = None) -> Planes:
        """(N, C, h, w), of that part, to (C, h, w). None: the frames that were weighed."""
        ...


class Filter(Protocol):
    """frames: how many it takes at once. halo: how far from a pixel it looks. reach: how far from it its weights lie.
    name: for people."""

    @property
    def frames(self) -> int: ...
    @property
    def halo(self) -> int: ...
    @property
    def reach(self) -> int: ...
    @property
    def name(self) -> str: ...
    def weigh(self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement, part: Part = WHOLE) -> Weighing:
        """The weights for aligned frames. noise: one level a channel. part: where they are wanted, rows and columns
        that begin at even ones; what lies around is only looked at."""
        ...


@dataclass(frozen=True, eq=False)
class MeanWeights:
    """share: (N, h, w), of each frame; they add up to 1. frames: that were weighed."""

    share: Agreement
    frames: Frames

    @property
    def centre(self) -> Centre:
        reference: Centre = self.share[0]
        return reference

    def __call__(self, frames: Frames | None = None) -> Planes:
        frames = self.frames if frames is None else frames
        total: Planes = np.einsum("nhw,nchw->chw", self.share, frames)
        return total


@dataclass(frozen=True)
class MeanFilter:
    """The mean of the frames, each as far as it shows what the reference shows."""

    frames: int = 8
    halo: int = 0
    reach: int = 0
    name: str = "the mean of the frames where they agree (no network)"

    def weigh(
        self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement, part: Part = WHOLE
    ) -> MeanWeights:
        agreed = agreement[:, *part]
        return MeanWeights(agreed / agreed.sum(0), frames[:, :, *part])


@dataclass(frozen=True, eq=False)
class NetworkWeights:
    """A network's kernels for aligned frames that agree with the reference so far; `own`: as laid over those that were
    weighed."""

    network: Network
    own: Kernels
    agreement: Agreement

    @property
    def centre(self) -> Centre:
        """Of the reference's kernel and, where there is a mean frame, of that one's, as far as it is the reference."""
        if not self.network.preset.mean_frame:
            (own,) = middles(self.own, [0])
            return own
        own, mean = middles(self.own, [0, -1])
        centre: Centre = own + mean * self.agreement[0] / np.maximum(self.agreement.sum(0), np.float32(1e-6))
        return centre

    def __call__(self, frames: Frames | None = None) -> Planes:
        kernels = self.own
        if frames is not None:
            kernels = kernels._replace(frames=laid_out(self.network, frames, self.agreement))
        return picture(kernels)


@dataclass(frozen=True, eq=False)
class NetworkFilter:
    """A kernel-predicting network, in evaluation mode. One for grey frames takes colours, too: it sees their mean, and
    all channels share its kernels."""

    network: Network
    name: str = "a network"

    @property
    def frames(self) -> int:
        return self.network.settings.frames

    @property
    def halo(self) -> int:
        return self.network.preset.halo

    @property
    def reach(self) -> int:
        return self.network.preset.spec.radius

    @torch.no_grad()
    def weigh(
        self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement, part: Part = WHOLE
    ) -> NetworkWeights:
        """Raises UsageError for a network that predicts no kernels."""
        light, level = frames, noise
        if guided := self.network.settings.colour == "grey" and frames.shape[1] > 1:
            light, level = frames.mean(1, keepdims=True), (of_mean(noise),)
        X, trust = (tensor(self.network, x)[None] for x in (light, agreement))
        read, shot = (torch.tensor([[getattr(n, k) for n in level]], device=X.device) for k in ("read", "shot"))
        kernels = self.network.kernels(X, read, shot, None, trust, part)
        agreed = agreement[:, *part]
        if guided:
            kernels = kernels._replace(frames=laid_out(self.network, frames[:, :, *part], agreed))
        return NetworkWeights(self.network, kernels, agreed)


def laid_out(network: Network, frames: Frames, agreement: Agreement) -> torch.Tensor:
    """Frames (n, C, h, w) as the network's kernels multiply them: (1, N, C, h, w), missing ones zero, with their mean
    where the network has one."""
    N, count = network.settings.frames, len(frames)
    missing = ((0, N - count), *[(0, 0)] * 3)
    X, trust = (tensor(network, x if count == N else np.pad(x, missing))[None] for x in (frames, agreement[:, None]))
    valid = (torch.arange(N, device=X.device) < count).to(X.dtype)[None]
    seen = Seen(X, valid, trust)
    return (seen.with_mean() if network.preset.mean_frame else seen).frames


def tensor(network: Network, values: npt.NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(next(network.parameters()).device)


def of_mean(noise: Sequence[NoiseLevel]) -> NoiseLevel:
    """Of the mean of channels, whose noises are independent."""
    C = len(noise)
    return NoiseLevel(float(np.sqrt(sum(n.read**2 for n in noise))) / C, sum(n.shot for n in noise) / C**2)


@torch.no_grad()
def picture(kernels: Kernels) -> Planes:
    """(C, h, w): the kernels applied."""
    merged: Planes = apply_kernels(*kernels).merged[0].float().cpu().numpy()
    return merged


@torch.no_grad()
def middles(kernels: Kernels, frames: Sequence[int]) -> list[Centre]:
    """The middle of the kernels of some frames, in the mean over all, (H, W) each: what the middle entries of all sizes
    make of a picture that is 1 everywhere."""
    spec, (_, N, _, H, W) = kernels.spec, kernels.frames.shape
    S = len(spec.sizes)
    entry = [start + n // 2 for start, n in zip(spec.starts, spec.lengths, strict=True)]
    runs = [(entry[s], entry[S + s]) if spec.separable else (entry[s],) for s in range(S)]
    channels = [(i % N) * spec.taps + c for i in frames for run in runs for c in run]
    one = kernels.frames.new_ones(1, len(frames) * S, 1, H, W)
    middle = KernelSpec((1,), spec.separable, spec.upscale)
    each = apply_kernels(kernels.taps[:, channels].contiguous(), one, middle).each
    by_frame = each.reshape(len(frames), S, H, W).sum(1) * spec.gain / kernels.valid.sum()
    return list(by_frame.float().cpu().numpy())


def check_colour(network: Network, colour: str) -> None:
    """Raises UsageError where the network is for other frames."""
    if colour not in network.served and network.settings.colour != "grey":
        rule = f"a network for {network.settings.colour} frames cannot filter {colour} ones"
        remedy = f"Train one with --colour {colour}, or leave --checkpoint out."
        raise UsageError("network", got=f"{colour} frames ({COLOURS[colour]} channels)", rule=rule, remedy=remedy)


def in_groups(inner: Filter, count: int) -> list[list[int]]:
    """Numbers of frames, the reference (0) in each group with as many others as the filter takes: balanced, so that
    groups can be averaged."""
    others, room = list(range(1, count)), max(1, inner.frames - 1)
    groups = -(-len(others) // room)
    return [[0, *others[k::groups]] for k in range(groups)] or [[0]]
