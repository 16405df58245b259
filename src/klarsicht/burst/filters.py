"""What makes one picture of aligned frames: a network's kernels, or, where there is none, the mean of what agrees.

Both are weights on the pixels of linear frames. Weighing comes first and filtering after, so that the same weights can
be laid over other frames, of noise alone for instance. Axes: N frames, C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from klarsicht.burst.frames import Frames
from klarsicht.burst.heads import Kernels, Seen
from klarsicht.burst.negatives import Planes
from klarsicht.burst.network import COLOURS, Network
from klarsicht.ground.errors import UsageError
from klarsicht.numerics.noise import NoiseLevel
from klarsicht.numerics.windows.door import apply_kernels

Agreement = npt.NDArray[np.float32]  # N H W
Weighing = Callable[[Frames], Planes]


class Filter(Protocol):
    """frames: how many it takes at once. halo: how far from a pixel it looks. name: for people."""

    @property
    def frames(self) -> int: ...
    @property
    def halo(self) -> int: ...
    @property
    def name(self) -> str: ...
    def weigh(self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement) -> Weighing:
        """The weights for aligned frames, as a function of any frames. noise: one level a channel."""
        ...


@dataclass(frozen=True)
class MeanFilter:
    """The mean of the frames, each as far as it shows what the reference shows."""

    frames: int = 8
    halo: int = 0
    name: str = "the mean of the frames where they agree (no network)"

    def weigh(self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement) -> Weighing:
        share = agreement / agreement.sum(0)

        def merged(others: Frames) -> Planes:
            total: Planes = np.einsum("nhw,nchw->chw", share, others)
            return total

        return merged


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

    @torch.no_grad()
    def kernels(self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement) -> Kernels:
        """Raises UsageError for a network that predicts none."""
        if self.network.settings.colour == "grey" and frames.shape[1] > 1:
            frames, noise = frames.mean(1, keepdims=True), (of_mean(noise),)
        X, trust = self._tensor(frames)[None], self._tensor(agreement)[None]
        read, shot = (torch.tensor([[getattr(n, k) for n in noise]], device=X.device) for k in ("read", "shot"))
        return self.network.kernels(X, read, shot, None, trust)

    @torch.no_grad()
    def weigh(self, frames: Frames, noise: Sequence[NoiseLevel], agreement: Agreement) -> Weighing:
        kernels = self.kernels(frames, noise, agreement)
        own = kernels if frames.shape[1] == kernels.frames.shape[2] else self.laid_over(kernels, frames, agreement)

        def filtered(others: Frames) -> Planes:
            return picture(own if others is frames else self.laid_over(kernels, others, agreement))

        return filtered

    def laid_over(self, kernels: Kernels, frames: Frames, agreement: Agreement) -> Kernels:
        """The same kernels on other frames (N, C, h, w)."""
        N, (count, C, h, w) = self.frames, frames.shape
        X, trust = (self._tensor(np.zeros((1, N, c, h, w), np.float32)) for c in (C, 1))
        X[0, :count], trust[0, :count, 0] = self._tensor(frames), self._tensor(agreement)
        seen = Seen(X, kernels.valid[:, :N], trust)
        return kernels._replace(frames=(seen.with_mean() if self.network.preset.mean_frame else seen).frames)

    def _tensor(self, values: npt.NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(next(self.network.parameters()).device)


def of_mean(noise: Sequence[NoiseLevel]) -> NoiseLevel:
    """Of the mean of channels, whose noises are independent."""
    C = len(noise)
    return NoiseLevel(float(np.sqrt(sum(n.read**2 for n in noise))) / C, sum(n.shot for n in noise) / C**2)


@torch.no_grad()
def picture(kernels: Kernels) -> Planes:
    """(C, h, w): the kernels applied."""
    merged: Planes = apply_kernels(*kernels).merged[0].float().cpu().numpy()
    return merged


def check_colour(network: Network, colour: str) -> None:
    """Raises UsageError where the network is for other frames."""
    if network.settings.colour not in (colour, "grey"):
        rule = f"a network for {network.settings.colour} frames cannot filter {colour} ones"
        remedy = f"Train one with --colour {colour}, or leave --checkpoint out."
        raise UsageError("network", got=f"{colour} frames ({COLOURS[colour]} channels)", rule=rule, remedy=remedy)


def in_groups(inner: Filter, count: int) -> list[list[int]]:
    """Numbers of frames, the reference (0) in each group with as many others as the filter takes: balanced, so that
    groups can be averaged."""
    others, room = list(range(1, count)), max(1, inner.frames - 1)
    groups = -(-len(others) // room)
    return [[0, *others[k::groups]] for k in range(groups)] or [[0]]
