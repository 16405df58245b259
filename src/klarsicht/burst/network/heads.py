"""What a network's last layer may predict: kernels, mixtures of a basis of kernels, or the picture itself.

Axes: B bursts, N frames, C channels, H W pixels, h w taps at half the resolution, T taps of one frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, linear, pixel_shuffle

from klarsicht.ground.errors import UsageError
from klarsicht.numerics.pixel_kernels.apply import Filtered, apply_kernels, merge, weighted_sum
from klarsicht.numerics.pixel_kernels.spec import KernelSpec


class Seen(NamedTuple):
    """What the kernels will multiply: frames (B, N, C, H, W), linear; valid (B, N), their weight in the mean, 0 or 1.

    trust: (B, N, 1, H, W) in [0, 1], how far a frame shows there what the reference shows; 0 where it is not valid.
    """

    frames: Tensor
    valid: Tensor
    trust: Tensor

    @property
    def mean(self) -> Tensor:
        """(B, C, H, W), of the frames where they can be trusted."""
        return weighted_sum(self.frames, self.trust) / self.trust.sum(1).clamp_min(1e-6)

    def with_mean(self) -> Seen:
        """With the mean as one more frame, the last."""
        frames = torch.cat([self.frames, self.mean[:, None]], 1)
        valid, trust = (torch.cat([weight, torch.ones_like(weight[:, :1])], 1) for weight in (self.valid, self.trust))
        return Seen(frames, valid, trust)


class Features(NamedTuple):
    """fine: (B, c, h, w), at the resolution of the taps. deep: (B, d, h', w'), of the coarsest level."""

    fine: Tensor
    deep: Tensor


class Kernels(NamedTuple):
    """apply_kernels(*kernels) is the network's output. taps: (B, N T, h, w); frames and valid as in Seen."""

    taps: Tensor
    frames: Tensor
    spec: KernelSpec
    valid: Tensor


@dataclass(frozen=True)
class Shape:
    """fine, deep: channels of the features. frames, channels: N and C of what is seen. width: as in Network."""

    fine: int
    deep: int
    frames: int
    channels: int
    width: float


class Linear(nn.Conv2d):
    """A 1 x 1 layer that begins near its bias."""

    bias: nn.Parameter

    def __init__(self, inputs: int, bias: Tensor) -> None:
        super().__init__(inputs, len(bias), 1)
        nn.init.normal_(self.weight, std=1e-2)
        self.bias = nn.Parameter(bias)

    def forward(self, f: Tensor) -> Tensor:
        return pointwise(f, self.weight.flatten(1), self.bias)


def pointwise(f: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, c, h, w) to (B, T, h, w), channels last: a 1 x 1 convolution as the product of matrices that it is."""
    return linear(f.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


class KernelHead(nn.Module):
    """A linear 1 x 1 layer gives the taps, at half the resolution: it commutes with the upsampling that follows."""

    def __init__(self, shape: Shape, spec: KernelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.taps = Linear(shape.fine, resting(spec).repeat(shape.frames))

    def kernels(self, features: Features, seen: Seen) -> Kernels:
        return Kernels(self.taps(features.fine), seen.frames, self.spec, seen.valid)

    def forward(self, features: Features, seen: Seen) -> Filtered:
        return apply_kernels(*self.kernels(features, seen))


class UnitHead(KernelHead):
    """Kernels whose weights add up to one for each pixel, over its valid frames: light is neither made nor lost.

    So it is at every tap; between taps, which are interpolated before they are multiplied out, nearly so. With s the
    sum at a tap, the rows (or every entry) W f + b become W (f / s) + b / s: linear in (f, f / s, 1 / s), so that taps,
    the largest thing there is, are written once.
    """

    LEAST = 0.1  # a sum that kernels are divided by; they begin with 1

    def __init__(self, shape: Shape, spec: KernelSpec) -> None:
        super().__init__(shape, spec)
        scaled = torch.arange(spec.taps) >= (spec.taps // 2 if spec.separable else 0)  # rows, or every entry
        self.register_buffer("scaled", scaled.repeat(shape.frames)[:, None, None], persistent=False)

    def kernels(self, features: Features, seen: Seen) -> Kernels:
        f, scaled = features.fine, self.get_buffer("scaled")[:, 0]
        W, b = self.taps.weight.flatten(1), self.taps.bias
        one_over_s = (1 / merge(self.sums(f), seen.valid)[:, None].clamp_min(self.LEAST)).to(f.dtype)
        wide = torch.cat([W * ~scaled, W * scaled, (b * scaled[:, 0])[:, None]], 1)
        inputs = torch.cat([x.permute(0, 2, 3, 1) for x in (f, f * one_over_s, one_over_s)], -1)
        taps = pointwise(inputs.permute(0, 3, 1, 2), wide, b * ~scaled[:, 0])
        return Kernels(taps, seen.frames, self.spec, seen.valid)

    def sums(self, f: Tensor) -> Tensor:
        """(B, N, h, w): the sum of the weights of each kernel, sum_K (sum a_K) (sum b_K) or sum_K sum k_K.

        From the features, in which the sums of the taps are linear as the taps are.
        """
        W = self.taps.weight.reshape(-1, self.spec.taps, f.shape[1])
        b = self.taps.bias.reshape(-1, self.spec.taps)
        lengths = list(self.spec.lengths)
        weight, bias = (torch.stack([run.sum(1) for run in torch.split(x, lengths, 1)], 1) for x in (W, b))
        runs = pointwise(f, weight.flatten(0, 1), bias.flatten()).float()
        parts = runs.reshape(len(f), len(W), -1, len(self.spec.sizes), *f.shape[-2:]).unbind(2)
        total: Tensor = reduce(torch.mul, parts).sum(2) * self.spec.gain
        return total


class BasisHead(nn.Module):
    """Kernels as mixtures of a few that the whole image has in common (basis prediction, arXiv 1912.04421).

    The basis comes from the mean of the deepest features, through a smaller decoder than the paper's. Basis and mixture
    are softmaxes: the weights of a pixel, over all frames, add up to one.
    """

    ELEMENTS = 90  # at full width, as their sides
    INNER = 128
    GRID = 4  # side from which the basis is grown

    def __init__(self, shape: Shape, spec: KernelSpec) -> None:
        super().__init__()
        self.spec = spec
        count, inner = (narrowed(channels, shape.width) for channels in (self.ELEMENTS, self.INNER))
        self.mixture = nn.Conv2d(shape.fine, count, 1)
        self.seed = nn.Linear(shape.deep, inner * self.GRID**2)
        self.grown = nn.Conv2d(inner, inner, 3, padding=1)
        self.basis = nn.Conv2d(inner, count * shape.frames, 3, padding=1)
        self.resting = nn.Parameter(gaussians(count, spec.side))
        nn.init.normal_(self.basis.weight, std=1e-2)

    def elements(self, deep: Tensor, present: Tensor) -> Tensor:
        """(B, elements, N K K): each adds up to one over the frames that are present (B, N)."""
        seed = self.seed(deep.mean((2, 3))).unflatten(1, (-1, self.GRID, self.GRID))
        grown = torch.relu(self.grown(interpolate(seed, scale_factor=2.0, mode="bilinear")))
        wide = self.basis(interpolate(grown, size=(self.spec.side, self.spec.side), mode="bilinear"))
        logits = wide.float().unflatten(1, (-1, present.shape[1])) + self.resting
        elements: Tensor = logits.masked_fill(~present[:, None, :, None, None], -torch.inf).flatten(2).softmax(-1)
        return elements

    def kernels(self, features: Features, seen: Seen) -> Kernels:
        present = seen.valid > 0
        basis = self.elements(features.deep, present) * present.sum(1)[:, None, None]  # their mean will be taken
        mixture = self.mixture(features.fine).float().softmax(1)
        taps = torch.einsum("bkhw,bkt->bhwt", mixture, basis).permute(0, 3, 1, 2)
        return Kernels(taps, seen.frames, self.spec, seen.valid)

    def forward(self, features: Features, seen: Seen) -> Filtered:
        return apply_kernels(*self.kernels(features, seen))


class DirectHead(nn.Module):
    """No kernels: a correction to the mean of the frames (the direct synthesis that arXiv 1712.02327 compares with).

    Each Y_i is then Y.
    """

    def __init__(self, shape: Shape, spec: KernelSpec) -> None:
        super().__init__()
        self.correction = nn.Conv2d(shape.fine, 4 * shape.channels, 1)
        nn.init.normal_(self.correction.weight, std=1e-3)

    def kernels(self, features: Features, seen: Seen) -> Kernels:
        raise UsageError("this network predicts no kernels", got="preset direct", remedy="Choose another preset.")

    def forward(self, features: Features, seen: Seen) -> Filtered:
        H, W = seen.frames.shape[-2:]
        Y = seen.mean + pixel_shuffle(self.correction(features.fine), 2)[..., :H, :W]
        return Filtered(Y[:, None].expand(-1, seen.frames.shape[1], -1, -1, -1), Y)


def resting(spec: KernelSpec) -> Tensor:
    """(T,): the taps of kernels that leave a frame as it is, each size a point of the same weight."""
    middles = [first + length // 2 for first, length in zip(spec.starts, spec.lengths, strict=True)]
    taps = torch.zeros(spec.taps)
    taps[middles] = 1.0
    taps[middles[: len(spec.sizes)]] /= spec.gain * len(spec.sizes)  # columns, or whole kernels
    return taps


def gaussians(count: int, side: int) -> Tensor:
    """(count, 1, K, K): logarithms of Gaussians, from nearly a point to a quarter of the window in deviation."""
    r = torch.arange(side) - side // 2
    deviation = torch.linspace(0.4, side / 4, count)[:, None, None, None]
    return -(r[:, None] ** 2 + r**2) / (2 * deviation**2)


MULTIPLE = 8


def narrowed(channels: int, width: float) -> int:
    """A share of the channels, a multiple of 8 as processors like it."""
    return max(MULTIPLE, MULTIPLE * round(channels * width / MULTIPLE))
