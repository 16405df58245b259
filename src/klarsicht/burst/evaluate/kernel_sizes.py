"""What the kernel sizes of a multi-kernel network do, and what fusing them costs (arXiv 1902.05392).

k = g sum_K pad(k_K): the fused kernel of a pixel and frame, g = 1/|S| or 1. Weights are taken as given: sizes may
work against each other, so that shares of energy can be negative.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from klarsicht.burst.align.alignment import align_burst
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.network.heads import Kernels
from klarsicht.burst.network.kernel_field import KernelField
from klarsicht.burst.network.unet import Network
from klarsicht.burst.quality import psnr, seen
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.numerics.pixel_kernels import reference
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

EVERY = 8  # pixels between those whose rank is taken
CHANNELS = (1, 2, 3, 4)
TINY = 1e-30


@dataclass(frozen=True)
class Sizes:
    """What each size did to one photograph: its share of the kernels' energy, and what is lost without it; and the
    mean effective rank of the fused kernels."""

    energy: dict[int, float]
    loss: dict[int, Loss]
    rank: float


def sizes_of(kernels: Kernels, truth: Light, w: float) -> Sizes:
    """Of the kernels that a network predicts for one burst (B = 1), frames that are not valid left out."""
    there, spec = kernels.valid[0] > 0, kernels.spec
    taps, frames = kernels.taps[0].float(), kernels.frames[0][there]
    each = taps.reshape(len(there), spec.taps, *taps.shape[-2:])[there]
    field = KernelField(each.flatten(0, 1), spec, (frames.shape[-2], frames.shape[-1]))
    return Sizes(energy_shares(field), losses(field, frames, truth, w), float(ranks(field).nanmean()))


@torch.no_grad()
def predicted(network: Network, burst: Burst) -> Kernels:
    """What the network applies to a burst, aligned. Raises UsageError for a network without kernels."""
    aligned, alignment = align_burst(burst)
    frames, valid = (torch.from_numpy(x)[None] for x in (aligned.frames, aligned.valid))
    read, shot = (torch.tensor([level]) for level in (burst.noise.read, burst.noise.shot))
    return network.kernels(frames, read, shot, valid, alignment.agreement())


# Energy


def energy_maps(field: KernelField) -> torch.Tensor:
    """(|S|, N, H, W): <g k_K, k> for each size; over the sizes they add up to |k|^2, everywhere."""
    return torch.cat([_energies(taps, field.spec) for taps in _bands(field)], 2)


def energy_shares(field: KernelField) -> dict[int, float]:
    """Each size's part of sum |k|^2 over the photograph and its frames; the parts add up to 1."""
    totals = torch.stack([_energies(taps, field.spec).double().sum((1, 2, 3)) for taps in _bands(field)]).sum(0)
    shares = totals / totals.sum().clamp_min(TINY)
    return dict(zip(field.spec.sizes, shares.tolist(), strict=True))


def _bands(field: KernelField) -> Iterator[torch.Tensor]:
    """The taps at full resolution, (N, T, rows, W), some rows at a time."""
    return (_rows(field, y0, y1) for y0, y1 in reference.bands(field.taps[None], *field.size))


def _rows(field: KernelField, y0: int, y1: int) -> torch.Tensor:
    fine = reference.upsampled(reference.widened(field.taps)[None], field.spec, y0, y1, field.size[1])
    return fine[0].view(field.frames, field.spec.taps, *fine.shape[-2:])


def _energies(taps: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """(|S|, N, rows, W): g^2 sum_L <k_K, k_L>."""
    sizes = range(len(spec.sizes))
    inner = inner_separable if spec.separable else inner_full
    gram = torch.stack([torch.stack([inner(taps, spec, s, t) for t in sizes]) for s in sizes])
    return gram.sum(1) * spec.gain**2


def inner_separable(taps: torch.Tensor, spec: KernelSpec, s: int, t: int) -> torch.Tensor:
    """<a b^T, c d^T> = <a, c> <b, d>, of two sizes about one centre."""
    S = len(spec.sizes)
    return _overlap(taps, spec, s, t) * _overlap(taps, spec, S + s, S + t)


def inner_full(taps: torch.Tensor, spec: KernelSpec, s: int, t: int) -> torch.Tensor:
    """<k, l> of two full kernels about one centre."""
    K = min(spec.sizes[s], spec.sizes[t])
    a, b = (_middle(_middle(square(taps, spec, i), K, 1), K, 2) for i in (s, t))
    return (a * b).sum((1, 2))


def square(taps: torch.Tensor, spec: KernelSpec, s: int) -> torch.Tensor:
    """(N, K, K, rows, W): the entries of size number s."""
    run = taps[:, spec.starts[s] : spec.starts[s] + spec.lengths[s]]
    return run.reshape(len(run), spec.sizes[s], spec.sizes[s], *run.shape[2:])


def _overlap(taps: torch.Tensor, spec: KernelSpec, i: int, j: int) -> torch.Tensor:
    """Of two runs of channels about one centre, over the shorter."""
    runs = [taps[:, spec.starts[k] : spec.starts[k] + spec.lengths[k]] for k in (i, j)]
    K = min(run.shape[1] for run in runs)
    return (_middle(runs[0], K, 1) * _middle(runs[1], K, 1)).sum(1)


def _middle(x: torch.Tensor, K: int, axis: int) -> torch.Tensor:
    return x.narrow(axis, (x.shape[axis] - K) // 2, K)


# What is lost without a size


@dataclass(frozen=True)
class Loss:
    """PSNR in dB that the photograph loses without one size: as it comes, and with its brightness restored by one
    number, so that only what the size did to the picture counts."""

    plain: float
    brightness_restored: float


def losses(field: KernelField, frames: torch.Tensor, truth: Light, w: float) -> dict[int, Loss]:
    """For each size, the other kernels unchanged."""
    whole = filtered(field, frames)
    before = _psnr(whole, truth, w)
    rests = {K: filtered(without(field, K), frames) for K in field.spec.sizes}
    return {
        K: Loss(before - _psnr(rest, truth, w), before - _psnr(brightened(rest, whole), truth, w))
        for K, rest in rests.items()
    }


def filtered(field: KernelField, frames: torch.Tensor) -> Light:
    """(C, H, W): the mean of the frames (N, C, H, W), each through its kernels."""
    picture: Light = apply_kernels(field.taps[None], frames[None], field.spec).merged[0].cpu().numpy()
    return picture


def without(field: KernelField, K: int) -> KernelField:
    """The field with the kernels of one size set to 0. Raises UsageError for a size that it has not."""
    field.only(K)
    s, step = field.spec.sizes.index(K), len(field.spec.sizes)
    rows = field.taps.clone(memory_format=torch.contiguous_format).view(
        field.frames, field.spec.taps, *field.taps.shape[1:]
    )
    for start, length in zip(field.spec.starts[s::step], field.spec.lengths[s::step], strict=True):
        rows[:, start : start + length] = 0
    return replace(field, taps=rows.flatten(0, 1))


def brightened(image: Light, like: Light) -> Light:
    """s x with the s that brings it nearest to another image, in the least squares."""
    a, b = (x.astype(np.float64) for x in (image, like))
    bright: Light = (image * ((a * b).sum() / max((a * a).sum(), TINY))).astype(np.float32)
    return bright


def _psnr(image: Light, truth: Light, w: float) -> float:
    return psnr(seen(image, w), seen(truth, w))


# Rank


def effective_rank(kernels: torch.Tensor) -> torch.Tensor:
    """(..., K, K) to (...): exp of the entropy of the singular values' shares (Roy and Vetterli 2007).

    1 for a separable kernel, n for one of n equal singular values, not a number for a kernel that is 0.
    """
    values = torch.linalg.svdvals(kernels.double())
    shares = values / values.sum(-1, keepdim=True)
    rank: torch.Tensor = torch.special.entr(shares).sum(-1).exp()
    return rank


def ranks(field: KernelField, every: int = EVERY) -> torch.Tensor:
    """(N, rows, columns): of the fused kernels of every eighth pixel, from the fourth on."""
    rows = [_rows(field, y, y + 1)[..., every // 2 :: every] for y in range(every // 2, field.size[0], every)]
    return torch.cat([effective_rank(fused(taps, field.spec)) for taps in rows], 1)


def fused(taps: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """The kernels (N, rows, columns, K_max, K_max) of taps (N, T, rows, columns), without the gain."""
    side = range(spec.side)
    return torch.stack([torch.stack([reference.fused(taps, spec, i, j) for j in side], -1) for i in side], -2)


# Cost


@dataclass(frozen=True)
class FilteringCost:
    """Of filtering planes by kernels that they share, fused to one and size by size: multiply-adds, or seconds."""

    channels: int
    fused: float
    separate: float


def counts(spec: KernelSpec, channels: tuple[int, ...] = CHANNELS) -> list[FilteringCost]:
    """Multiply-adds a pixel and frame, by formula."""
    return [FilteringCost(C, *(spec.multiply_adds(C, fused=way) for way in (True, False))) for C in channels]


def seconds(
    spec: KernelSpec, channels: tuple[int, ...] = CHANNELS, side: int = 512, frames: int = 2
) -> list[FilteringCost]:
    """Processor seconds a megapixel and frame, as measured here."""
    field = KernelField(torch.zeros(frames * spec.taps, *[spec.coarse(side)] * 2), spec, (side, side))
    return [_timed(field, C) for C in channels]


def _timed(field: KernelField, channels: int) -> FilteringCost:
    frames = torch.zeros(field.frames, channels, *field.size)
    parts = [field.only(K) for K in field.spec.sizes]
    fused = _least(lambda: filtered(field, frames))
    separate = _least(lambda: [filtered(part, frames) for part in parts])
    scale = 1e6 / (field.frames * field.size[0] * field.size[1])
    return FilteringCost(channels, fused * scale, separate * scale)


def _least(work: Callable[[], object], repeats: int = 3) -> float:
    """Processor seconds, the least of some runs after one that compiles."""
    work()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)
