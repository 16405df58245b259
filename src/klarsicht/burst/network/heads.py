"""Output heads: kernels, mixtures of a basis of kernels, or the picture. h, w: sides of taps, at half resolution."""

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


class InputFrames(NamedTuple):
    """Frames (B, N, C, H, W) that the kernels multiply, linear; valid (B, N), their weight in the mean, 0 or 1; trust:
    (B, N, 1, H, W) in [0, 1], how well a frame agrees with the reference, 0 where it is not valid."""

    frames: Tensor
    valid: Tensor
    trust: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean of the frames weighted by trust, (B, C, H, W)."""
        return weighted_sum(self.frames, self.trust) / self.trust.sum(1).clamp_min(1e-6)

    def append_mean(self) -> InputFrames:
        """Append the mean as the last frame."""
        frames = torch.cat([self.frames, self.mean[:, None]], 1)
        valid, trust = (torch.cat([weight, torch.ones_like(weight[:, :1])], 1) for weight in (self.valid, self.trust))
        return InputFrames(frames, valid, trust)


class Features(NamedTuple):
    """Feature maps. fine: (B, c, h, w), at the resolution of the taps. deep: (B, d, h', w'), of the coarsest level."""

    fine: Tensor
    deep: Tensor


class Kernels(NamedTuple):
    """Predicted kernels and their frames: apply_kernels(*kernels) is the network's output. taps: (B, N T, h, w)."""

    taps: Tensor
    frames: Tensor
    spec: KernelSpec
    valid: Tensor


@dataclass(frozen=True)
class HeadShape:
    """Sizes that a head needs. fine, deep: channels of the features. frames, channels: N and C of the frames.
    mean_frame: whether the last of them is the mean of the others."""

    fine: int
    deep: int
    frames: int
    channels: int
    width: float
    mean_frame: bool = False

    def slots(self, count: int) -> list[int]:
        """List the numbers of so many frames of a burst: the first ones, and that of the mean."""
        return [*range(count - self.mean_frame), *([self.frames - 1] if self.mean_frame else [])]


class Linear(nn.Conv2d):
    """A 1 x 1 convolution whose output is initially near its bias."""

    bias: nn.Parameter

    def __init__(self, inputs: int, bias: Tensor) -> None:
        super().__init__(inputs, len(bias), 1)
        nn.init.normal_(self.weight, std=1e-2)
        self.bias = nn.Parameter(bias)

    def forward(self, f: Tensor) -> Tensor:
        return pointwise_convolution(f, self.weight.flatten(1), self.bias)


def pointwise_convolution(f: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute a 1 x 1 convolution, (B, c, h, w) to (B, T, h, w), channels last, as a matrix product."""
    return linear(f.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


class KernelHead(nn.Module):
    """Linear 1 x 1 layer that predicts the taps at half the resolution, as it commutes with upsampling."""

    def __init__(self, shape: HeadShape, spec: KernelSpec) -> None:
        super().__init__()
        self.spec, self.shape = spec, shape
        self.taps = Linear(shape.fine, identity_taps(spec).repeat(shape.frames))

    def parameters_of(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the weight (N T, c) and the bias (N T,) of the taps of so many frames of a burst."""
        weight, bias = self.taps.weight.flatten(1), self.taps.bias
        if count == self.shape.frames:
            return weight, bias
        slots, T = self.shape.slots(count), self.spec.taps
        return weight.reshape(-1, T, weight.shape[1])[slots].flatten(0, 1), bias.reshape(-1, T)[slots].flatten()

    def kernels(self, features: Features, burst: InputFrames) -> Kernels:
        taps = pointwise_convolution(features.fine, *self.parameters_of(burst.frames.shape[1]))
        return Kernels(taps, burst.frames, self.spec, burst.valid)

    def forward(self, features: Features, burst: InputFrames) -> Filtered:
        return apply_kernels(*self.kernels(features, burst))


class UnitHead(KernelHead):
    """Kernel head whose weights sum to 1 at each pixel over its valid frames, which preserves brightness: exactly at
    every tap, nearly so between taps. With s the sum at a tap, the rows (or every entry) W f + b become W (f / s) + b /
    s, linear in (f, f / s, 1 / s), so that taps, the largest tensor, are written once."""

    MIN_SUM = 0.1  # of a sum that kernels are divided by; it is initially 1

    def __init__(self, shape: HeadShape, spec: KernelSpec) -> None:
        super().__init__(shape, spec)
        scaled = torch.arange(spec.taps) >= (spec.taps // 2 if spec.separable else 0)  # rows, or every entry
        self.register_buffer("scaled", scaled, persistent=False)

    def kernels(self, features: Features, burst: InputFrames) -> Kernels:
        f, count = features.fine, burst.frames.shape[1]
        scaled, (W, b) = self.get_buffer("scaled").repeat(count)[:, None], self.parameters_of(count)
        one_over_s = (1 / merge(self.kernel_sums(f, count), burst.valid)[:, None].clamp_min(self.MIN_SUM)).to(f.dtype)
        wide = torch.cat([W * ~scaled, W * scaled, (b * scaled[:, 0])[:, None]], 1)
        inputs = torch.cat([x.permute(0, 2, 3, 1) for x in (f, f * one_over_s, one_over_s)], -1)
        taps = pointwise_convolution(inputs.permute(0, 3, 1, 2), wide, b * ~scaled[:, 0])
        return Kernels(taps, burst.frames, self.spec, burst.valid)

    def kernel_sums(self, f: Tensor, count: int) -> Tensor:
        """Compute the sum (B, N, h, w) of the kernels of so many frames from the features: sum_K (sum a_K) (sum b_K) or
        sum_K sum k_K."""
        W, b = (x.reshape(count, self.spec.taps, *x.shape[1:]) for x in self.parameters_of(count))
        lengths = list(self.spec.lengths)
        weight, bias = (torch.stack([run.sum(1) for run in torch.split(x, lengths, 1)], 1) for x in (W, b))
        runs = pointwise_convolution(f, weight.flatten(0, 1), bias.flatten()).float()
        parts = runs.reshape(len(f), len(W), -1, len(self.spec.sizes), *f.shape[-2:]).unbind(2)
        return reduce(torch.mul, parts).sum(2) * self.spec.gain


class BasisHead(KernelHead):
    """Kernels as mixtures of a small basis that the whole image shares (arXiv 1912.04421), decoded from the mean of the
    coarsest features. Basis and mixture are softmaxes: a pixel's weights, over all frames, sum to 1."""

    ELEMENTS = 90  # of the basis, at full width
    INNER = 128  # channels of the basis decoder, at full width
    GRID = 4  # side at which the basis decoder begins

    def __init__(self, shape: HeadShape, spec: KernelSpec) -> None:
        nn.Module.__init__(self)
        self.spec, self.shape = spec, shape
        count, inner = (scale_channels(channels, shape.width) for channels in (self.ELEMENTS, self.INNER))
        self.mixture = nn.Conv2d(shape.fine, count, 1)
        self.seed = nn.Linear(shape.deep, inner * self.GRID**2)
        self.grown = nn.Conv2d(inner, inner, 3, padding=1)
        self.basis = nn.Conv2d(inner, count * shape.frames, 3, padding=1)
        self.resting = nn.Parameter(gaussian_logits(count, spec.side))
        nn.init.normal_(self.basis.weight, std=1e-2)

    def elements(self, deep: Tensor, present: Tensor) -> Tensor:
        """Compute the basis, (B, elements, N K K): each element sums to 1 over the frames that are present (B, N)."""
        slots = self.shape.slots(present.shape[1])
        seed = self.seed(deep.mean((2, 3))).unflatten(1, (-1, self.GRID, self.GRID))
        grown = torch.relu(self.grown(interpolate(seed, scale_factor=2.0, mode="bilinear")))
        wide = self.basis(interpolate(grown, size=(self.spec.side, self.spec.side), mode="bilinear"))
        logits = wide.float().unflatten(1, (-1, self.shape.frames))[:, :, slots] + self.resting
        return logits.masked_fill(~present[:, None, :, None, None], -torch.inf).flatten(2).softmax(-1)

    def kernels(self, features: Features, burst: InputFrames) -> Kernels:
        present = burst.valid > 0
        of_mean = present.sum(1)[:, None, None]  # apply_kernels takes the mean of the frames
        basis = self.elements(features.deep, present) * of_mean
        mixture = self.mixture(features.fine).float().softmax(1)
        taps = torch.einsum("bkhw,bkt->bhwt", mixture, basis).permute(0, 3, 1, 2)
        return Kernels(taps, burst.frames, self.spec, burst.valid)


class DirectHead(nn.Module):
    """Direct synthesis: a correction of the mean of the frames (arXiv 1712.02327). Each Y_i is then Y."""

    def __init__(self, shape: HeadShape, spec: KernelSpec) -> None:
        super().__init__()
        self.correction = nn.Conv2d(shape.fine, 4 * shape.channels, 1)
        nn.init.normal_(self.correction.weight, std=1e-3)

    def kernels(self, features: Features, burst: InputFrames) -> Kernels:
        raise UsageError("this network predicts no kernels", got="preset direct", remedy="Choose another preset.")

    def forward(self, features: Features, burst: InputFrames) -> Filtered:
        H, W = burst.frames.shape[-2:]
        Y = burst.mean + pixel_shuffle(self.correction(features.fine), 2)[..., :H, :W]
        return Filtered(Y[:, None].expand(-1, burst.frames.shape[1], -1, -1, -1), Y)


def identity_taps(spec: KernelSpec) -> Tensor:
    """Compute the taps (T,) of kernels that leave a frame unchanged: centred points of the same weight, one a size."""
    middles = [first + length // 2 for first, length in zip(spec.starts, spec.lengths, strict=True)]
    taps = torch.zeros(spec.taps)
    taps[middles] = 1.0
    taps[middles[: len(spec.sizes)]] /= spec.gain * len(spec.sizes)  # columns, or whole kernels
    return taps


def gaussian_logits(count: int, side: int) -> Tensor:
    """Compute logarithms of Gaussians, (count, 1, K, K), with deviations from .4 pixels to a quarter of the window."""
    r = torch.arange(side) - side // 2
    deviation = torch.linspace(0.4, side / 4, count)[:, None, None, None]
    return -(r[:, None] ** 2 + r**2) / (2 * deviation**2)


MULTIPLE = 8


def scale_channels(channels: int, width: float) -> int:
    """Scale a number of channels, rounded to a multiple of 8, which processors prefer."""
    return max(MULTIPLE, MULTIPLE * round(channels * width / MULTIPLE))
