"""Analysis of the kernel sizes of a multi-kernel network, and the cost of fusing them (arXiv 1902.05392).

k = g sum_K pad(k_K): the fused kernel of a pixel and frame, g = 1/S or 1 for S sizes. Weights are taken as given: sizes
may cancel each other, so that shares of energy can be negative.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from klarsicht.burst.align.interpolated import align_by_colour_filter
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.network.heads import Kernels
from klarsicht.burst.network.kernel_field import KernelField
from klarsicht.burst.network.unet import Network
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.numerics.pixel_kernels import reference
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

RANK_STEP = 8  # pixels between those whose rank is computed
CHANNELS = (1, 2, 3, 4)
TINY = 1e-30


@dataclass(frozen=True)
class SizeEffects:
    """Effect of each size on one photograph: its share of the kernels' energy, and the loss without it; and the mean
    effective rank of the fused kernels."""

    energy: dict[int, float]
    loss: dict[int, SizeLoss]
    rank: float


def analyse_sizes(kernels: Kernels, truth: Light, w: float) -> SizeEffects:
    """Analyse the kernels that a network predicts for one burst (B = 1), without frames that are not valid."""
    there, spec = kernels.valid[0] > 0, kernels.spec
    taps, frames = kernels.taps[0].float(), kernels.frames[0][there]
    each = taps.reshape(len(there), spec.taps, *taps.shape[-2:])[there]
    field = KernelField(each.flatten(0, 1), spec, (frames.shape[-2], frames.shape[-1]))
    return SizeEffects(
        energy_shares(field), size_losses(field, frames, truth, w), float(effective_ranks(field).nanmean())
    )


@torch.no_grad()
def predict_kernels(network: Network, burst: Burst) -> Kernels:
    """Align a burst and predict its kernels. Raises UsageError for a network without kernels."""
    frames, valid = (torch.from_numpy(x)[None] for x in (burst.frames, burst.valid))
    read, shot = (torch.tensor([level]) for level in (burst.noise.read, burst.noise.shot))
    alignment = align_by_colour_filter(frames, read, shot, valid, burst.colour_filter)
    return network.kernels(alignment.apply(frames), read, shot, valid, alignment.agreement())


# Energy


def energy_maps(field: KernelField) -> torch.Tensor:
    """Compute <g k_K, k> for each size, (S, N, H, W); the sum over the sizes is |k|^2 everywhere."""
    return torch.cat([_energies(taps, field.spec) for taps in _bands(field)], 2)


def energy_shares(field: KernelField) -> dict[int, float]:
    """Compute each size's part of sum |k|^2 over the photograph and its frames; the parts sum to 1."""
    totals = torch.stack([_energies(taps, field.spec).double().sum((1, 2, 3)) for taps in _bands(field)]).sum(0)
    shares = totals / totals.sum().clamp_min(TINY)
    return dict(zip(field.spec.sizes, shares.tolist(), strict=True))


def _bands(field: KernelField) -> Iterator[torch.Tensor]:
    """Compute the taps at full resolution, (N, T, rows, W), a band of rows at a time."""
    return (_rows(field, y0, y1) for y0, y1 in reference.bands(field.taps[None], *field.size))


def _rows(field: KernelField, y0: int, y1: int) -> torch.Tensor:
    fine = reference.upsample_taps(reference.widen(field.taps)[None], field.spec, y0, y1, field.size[1])
    return fine[0].view(field.frames, field.spec.taps, *fine.shape[-2:])


def _energies(taps: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """Compute g^2 sum_L <k_K, k_L> for each size, (S, N, rows, W)."""
    sizes = range(len(spec.sizes))
    inner = inner_separable if spec.separable else inner_full
    gram = torch.stack([torch.stack([inner(taps, spec, s, t) for t in sizes]) for s in sizes])
    return gram.sum(1) * spec.gain**2


def inner_separable(taps: torch.Tensor, spec: KernelSpec, s: int, t: int) -> torch.Tensor:
    """Compute <a b^T, c d^T> = <a, c> <b, d> of two sizes about one centre."""
    S = len(spec.sizes)
    return _inner_product(taps, spec, s, t) * _inner_product(taps, spec, S + s, S + t)


def inner_full(taps: torch.Tensor, spec: KernelSpec, s: int, t: int) -> torch.Tensor:
    """Compute <k, l> of two full kernels about one centre."""
    K = min(spec.sizes[s], spec.sizes[t])
    a, b = (_crop_centre(_crop_centre(full_kernels(taps, spec, i), K, 1), K, 2) for i in (s, t))
    return (a * b).sum((1, 2))


def full_kernels(taps: torch.Tensor, spec: KernelSpec, s: int) -> torch.Tensor:
    """Return the entries of size number s, (N, K, K, rows, W)."""
    run = taps[:, spec.starts[s] : spec.starts[s] + spec.lengths[s]]
    return run.reshape(len(run), spec.sizes[s], spec.sizes[s], *run.shape[2:])


def _inner_product(taps: torch.Tensor, spec: KernelSpec, i: int, j: int) -> torch.Tensor:
    """Compute the inner product of two runs of channels about one centre, over the shorter."""
    runs = [taps[:, spec.starts[k] : spec.starts[k] + spec.lengths[k]] for k in (i, j)]
    K = min(run.shape[1] for run in runs)
    return (_crop_centre(runs[0], K, 1) * _crop_centre(runs[1], K, 1)).sum(1)


def _crop_centre(x: torch.Tensor, K: int, axis: int) -> torch.Tensor:
    return x.narrow(axis, (x.shape[axis] - K) // 2, K)


# Loss without a size


@dataclass(frozen=True)
class SizeLoss:
    """PSNR in dB that the photograph loses without one size: as it is, and with its brightness restored by one factor,
    so that only the effect of the size on the picture counts."""

    plain: float
    brightness_restored: float


def size_losses(field: KernelField, frames: torch.Tensor, truth: Light, w: float) -> dict[int, SizeLoss]:
    """Compute the loss without each size, the other kernels unchanged."""
    whole = filter_frames(field, frames)
    before = _psnr(whole, truth, w)
    rests = {K: filter_frames(remove_size(field, K), frames) for K in field.spec.sizes}
    return {
        K: SizeLoss(before - _psnr(rest, truth, w), before - _psnr(match_brightness(rest, whole), truth, w))
        for K, rest in rests.items()
    }


def filter_frames(field: KernelField, frames: torch.Tensor) -> Light:
    """Filter frames (N, C, H, W), each by its kernels, and average them, (C, H, W)."""
    picture: Light = apply_kernels(field.taps[None], frames[None], field.spec).merged[0].cpu().numpy()
    return picture


def remove_size(field: KernelField, K: int) -> KernelField:
    """Set the kernels of one size to 0. Raises UsageError for a size that the field does not have."""
    field.select_size(K)
    s, step = field.spec.sizes.index(K), len(field.spec.sizes)
    rows = field.taps.clone(memory_format=torch.contiguous_format).view(
        field.frames, field.spec.taps, *field.taps.shape[1:]
    )
    for start, length in zip(field.spec.starts[s::step], field.spec.lengths[s::step], strict=True):
        rows[:, start : start + length] = 0
    return replace(field, taps=rows.flatten(0, 1))


def match_brightness(image: Light, like: Light) -> Light:
    """Scale an image by the factor that brings it nearest to another, in the least squares."""
    a, b = (x.astype(np.float64) for x in (image, like))
    bright: Light = (image * ((a * b).sum() / max((a * a).sum(), TINY))).astype(np.float32)
    return bright


def _psnr(image: Light, truth: Light, w: float) -> float:
    return psnr(tone_mapped(image, w), tone_mapped(truth, w))


# Rank


def effective_rank(kernels: torch.Tensor) -> torch.Tensor:
    """Compute the effective rank of kernels, (..., K, K) to (...): exp of the entropy of the singular values' shares
    (Roy and Vetterli 2007).

    1 for a separable kernel, n for one of n equal singular values, nan for a kernel that is 0.
    """
    values = torch.linalg.svdvals(kernels.double())
    shares = values / values.sum(-1, keepdim=True)
    rank: torch.Tensor = torch.special.entr(shares).sum(-1).exp()
    return rank


def effective_ranks(field: KernelField, every: int = RANK_STEP) -> torch.Tensor:
    """Compute the effective rank of the fused kernels of every eighth pixel, from the fourth on, (N, rows, columns)."""
    rows = [_rows(field, y, y + 1)[..., every // 2 :: every] for y in range(every // 2, field.size[0], every)]
    return torch.cat([effective_rank(fuse_kernels(taps, field.spec)) for taps in rows], 1)


def fuse_kernels(taps: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """Fuse taps (N, T, rows, columns) to kernels (N, rows, columns, K, K), K the largest size, without the gain."""
    side = range(spec.side)
    return torch.stack([torch.stack([reference.fused_entry(taps, spec, i, j) for j in side], -1) for i in side], -2)


# Cost


@dataclass(frozen=True)
class FilteringCost:
    """Cost of filtering planes by kernels that they share, fused to one, and size by size: multiply-adds, or
    seconds."""

    channels: int
    fused: float
    separate: float


def count_multiply_adds(spec: KernelSpec, channels: tuple[int, ...] = CHANNELS) -> list[FilteringCost]:
    """Compute the multiply-adds of a pixel and frame, by formula."""
    return [FilteringCost(C, *(spec.multiply_adds(C, fused=way) for way in (True, False))) for C in channels]


def measure_seconds(
    spec: KernelSpec, channels: tuple[int, ...] = CHANNELS, side: int = 512, frames: int = 2
) -> list[FilteringCost]:
    """Measure the processor seconds a megapixel and frame."""
    field = KernelField(torch.zeros(frames * spec.taps, *[spec.coarse(side)] * 2), spec, (side, side))
    return [_time_filtering(field, C) for C in channels]


def _time_filtering(field: KernelField, channels: int) -> FilteringCost:
    frames = torch.zeros(field.frames, channels, *field.size)
    parts = [field.select_size(K) for K in field.spec.sizes]
    fused = _least_seconds(lambda: filter_frames(field, frames))
    separate = _least_seconds(lambda: [filter_frames(part, frames) for part in parts])
    scale = 1e6 / (field.frames * field.size[0] * field.size[1])
    return FilteringCost(channels, fused * scale, separate * scale)


def _least_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Measure processor seconds, the least of some runs after one that compiles."""
    work()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)
