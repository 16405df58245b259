"""Effect of each kernel size of a multi-kernel network (arXiv 1902.05392) on the first photograph of a benchmark set.

    python benchmarks/burst/kernel_effects.py --checkpoint swift [--photos FOLDER] [--set grey-still] [--gain 1 ...]

k = g sum_K pad(a_K b_K^T): the fused kernel of a pixel and frame, g = 1/S or 1 for S sizes. Weights are taken as given:
sizes may cancel each other, so that shares of energy can be negative.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from klarsicht.burst.align.interpolated import align_by_colour_filter
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.burst.network.heads import Kernels
from klarsicht.burst.network.unet import Network
from klarsicht.burst.quality import psnr, tone_mapped
from klarsicht.burst.synthesis import photographs
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet, benchmark_set
from klarsicht.burst.synthesis.scenes import Light
from klarsicht.numerics.imaging.sensor_noise import GAINS, noise_level
from klarsicht.numerics.pixel_kernels import reference
from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

RANK_STEP = 8  # pixels between those whose rank is computed
TINY = 1e-30


@dataclass(frozen=True)
class SizeEffects:
    """Effect of each size on one photograph: its share of the kernels' energy, and the loss without it; and the mean
    effective rank of the fused kernels."""

    energy: dict[int, float]
    loss: dict[int, SizeLoss]
    rank: float


def analyse_sizes(kernels: Kernels, truth: Light, w: float) -> SizeEffects:
    """Analyse the separable kernels that a network predicts for one burst (B = 1), without frames that are not
    valid."""
    there = kernels.valid[0] > 0
    each = split_frames(kernels.taps.float(), kernels.spec)[:, there]
    valid = Kernels(each.flatten(1, 2), kernels.frames[:, there], kernels.spec, kernels.valid[:, there])
    return SizeEffects(energy_shares(valid), size_losses(valid, truth, w), float(effective_ranks(valid).nanmean()))


def split_frames(taps: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """Split taps (B, N T, h, w) into those of each frame, (B, N, T, h, w), without a copy."""
    return taps.view(len(taps), -1, spec.taps, *taps.shape[2:])


@torch.no_grad()
def predict_kernels(network: Network, burst: Burst) -> Kernels:
    """Align a burst and predict its kernels. Raises UsageError for a network without kernels."""
    frames, valid = (torch.from_numpy(x)[None] for x in (burst.frames, burst.valid))
    read, shot = (torch.tensor([level]) for level in (burst.noise.read, burst.noise.shot))
    alignment = align_by_colour_filter(frames, read, shot, valid, burst.colour_filter)
    return network.kernels(alignment.apply(frames), read, shot, valid, alignment.agreement())


# Energy


def energy_shares(kernels: Kernels) -> dict[int, float]:
    """Compute each size's part of sum |k|^2 over the photograph and its frames; the parts sum to 1."""
    sizes, (H, W) = kernels.spec.sizes, kernels.frames.shape[-2:]
    energies = (_energies(_rows(kernels, y0, y1), kernels.spec) for y0, y1 in reference.bands(kernels.taps, H, W))
    totals = torch.stack([band.double().sum((1, 2, 3)) for band in energies]).sum(0)
    return dict(zip(sizes, (totals / totals.sum().clamp_min(TINY)).tolist(), strict=True))


def _rows(kernels: Kernels, y0: int, y1: int) -> torch.Tensor:
    """Compute the taps of rows y0 to y1 at full resolution, (N, T, rows, W)."""
    fine = reference.upsample_taps(reference.widen(kernels.taps), kernels.spec, y0, y1, kernels.frames.shape[-1])
    return split_frames(fine, kernels.spec)[0]


def _energies(taps: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """Compute <g k_K, k> = g^2 sum_L <a_K, a_L> <b_K, b_L> for each size, (S, N, rows, W)."""
    S = len(spec.sizes)
    gram = [[_inner(taps, spec, s, t) * _inner(taps, spec, S + s, S + t) for t in range(S)] for s in range(S)]
    return torch.stack([torch.stack(row) for row in gram]).sum(1) * spec.gain**2


def _inner(taps: torch.Tensor, spec: KernelSpec, i: int, j: int) -> torch.Tensor:
    """Compute the inner product of two runs of channels about one centre, over the shorter."""
    K = min(spec.lengths[i], spec.lengths[j])
    a, b = (taps.narrow(1, spec.starts[k] + (spec.lengths[k] - K) // 2, K) for k in (i, j))
    return (a * b).sum(1)


# Loss without a size


@dataclass(frozen=True)
class SizeLoss:
    """PSNR in dB that the photograph loses without one size: as it is, and with its brightness restored by one factor,
    so that only the effect of the size on the picture counts."""

    plain: float
    brightness_restored: float


def size_losses(kernels: Kernels, truth: Light, w: float) -> dict[int, SizeLoss]:
    """Compute the loss without each size, the other kernels unchanged."""
    whole = filter_frames(kernels)
    before = _psnr(whole, truth, w)
    rests = {K: filter_frames(remove_size(kernels, K)) for K in kernels.spec.sizes}
    return {
        K: SizeLoss(before - _psnr(rest, truth, w), before - _psnr(match_brightness(rest, whole), truth, w))
        for K, rest in rests.items()
    }


def filter_frames(kernels: Kernels) -> Light:
    """Filter the frames, each by its kernels, and average them, (C, H, W)."""
    picture: Light = apply_kernels(kernels.taps, kernels.frames, kernels.spec).merged[0].cpu().numpy()
    return picture


def remove_size(kernels: Kernels, K: int) -> Kernels:
    """Set the kernels of one size to 0."""
    spec, s = kernels.spec, kernels.spec.sizes.index(K)
    taps = split_frames(kernels.taps.clone(memory_format=torch.contiguous_format), spec)
    for start in spec.starts[s :: len(spec.sizes)]:
        taps[:, :, start : start + K] = 0
    return kernels._replace(taps=taps.flatten(1, 2))


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


def effective_ranks(kernels: Kernels) -> torch.Tensor:
    """Compute the effective rank of the fused kernels of every eighth pixel, from the fourth on, (N, rows, columns)."""
    first, height = RANK_STEP // 2, kernels.frames.shape[-2]
    rows = [_rows(kernels, y, y + 1)[..., first::RANK_STEP] for y in range(first, height, RANK_STEP)]
    return torch.cat([effective_rank(fuse_kernels(taps, kernels.spec)) for taps in rows], 1)


def fuse_kernels(taps: torch.Tensor, spec: KernelSpec) -> torch.Tensor:
    """Fuse taps (N, T, rows, columns) to kernels (N, rows, columns, K, K), K the largest size, without the gain."""
    side = range(spec.side)
    return torch.stack([torch.stack([reference.fused_entry(taps, spec, i, j) for j in side], -1) for i in side], -2)


def analyse_gains(network: Network, benchmark: BenchmarkSet, gains: Sequence[int]) -> dict[int, SizeEffects]:
    """Analyse the first photograph of a set at each gain, at its drawn exposure."""
    w = float(benchmark.exposure(0, drawn=True))
    bursts = {gain: benchmark.burst(0, noise_level(gain), w) for gain in gains}
    truth = benchmark.truth(0, w)
    return {gain: analyse_sizes(predict_kernels(network, burst), truth, w) for gain, burst in bursts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--set", default="grey-still", dest="name")
    parser.add_argument("--gain", type=int, action="append")
    options = parser.parse_args()
    source = photographs.read_folder(options.photos) if options.photos else photographs.packaged_photographs()
    benchmark = benchmark_set(options.name, source.photographs[:1], 7, source.geometry)
    for gain, effects in analyse_gains(load_network(options.checkpoint), benchmark, options.gain or [*GAINS]).items():
        print(f"gain {gain}: effective rank {effects.rank:.2f}")
        for K, share in effects.energy.items():
            loss = effects.loss[K]
            print(f"  {K}: {share:.1%} of the energy; {loss.plain:.2f} dB lost ({loss.brightness_restored:.2f})")


if __name__ == "__main__":
    main()
