"""Cost of a training step of each preset in processor seconds, in float32 and in bfloat16 with channels last.

    OMP_NUM_THREADS=1 python benchmarks/burst/training_step.py [--repeats 5]

Batch 4, eight grey frames of 128 pixels: forward, loss with the per-frame term, backward, Adam. The least of the
repeats. ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 (or AVX512_CORE, AVX2) shows a processor without AMX.
"""

from __future__ import annotations

import argparse
import time

import torch

from klarsicht.burst.network.unet import PRESETS, Network, NetworkSettings, build_network
from klarsicht.burst.training.losses import total_loss
from klarsicht.ground.machine import devices

WIDTHS = dict.fromkeys(PRESETS, 0.25) | {"swift": 1.0}


def batch(size: int = 4, frames: int = 8, side: int = 128) -> tuple[torch.Tensor, ...]:
    X = torch.rand(size, frames, 1, side, side, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(size, frames, dtype=torch.bool)
    return X, torch.full((size,), 0.01), torch.full((size,), 0.001), valid, torch.ones(size, frames, side, side)


def step(network: Network, optimiser: torch.optim.Optimizer, given: tuple[torch.Tensor, ...], half: bool) -> None:
    X, _, _, valid, _ = given
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = network(*given)
        loss = total_loss(out.merged.float(), out.per_frame, X[:, 0], torch.ones(len(X)), valid, 1.0)
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def seconds(preset: str, half: bool, repeats: int) -> float:
    network = build_network(NetworkSettings(preset=preset, width=WIDTHS[preset]), 0)
    optimiser, given, times = torch.optim.Adam(network.parameters()), batch(), []
    for _ in range(repeats + 2):
        began = time.process_time()
        step(network, optimiser, given, half)
        times.append(time.process_time() - began)
    return min(times[2:])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with devices.torch_threads(1):
        print(f"{'preset':14} {'width':>5} {'float32':>8} {'bfloat16':>8}  gain")
        for name, width in WIDTHS.items():
            single, half = (seconds(name, precision, repeats) for precision in (False, True))
            print(f"{name:14} {width:5} {single:8.3f} {half:8.3f}  {single / half:.1f} x", flush=True)
