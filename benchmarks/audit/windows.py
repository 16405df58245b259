"""Per-pixel kernels on one core: ours against the forms in common use, and against what the machine allows.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/audit/windows.py [--quick]

stacked: as in the published code of kernel prediction networks, taps upsampled to full resolution, the K^2 windows of
every size stacked and weighed, the sizes averaged. loop: plain torch, taps upsampled, one shifted product at a time.
floor: the larger of (bytes of taps, frames and results) / measured copy bandwidth and multiply-adds / measured peak.

Times are CPU seconds of this thread, medians of rounds in which the contenders take turns, so that a busy machine
disturbs them alike. Peak memory is that of a fresh process above what its inputs take.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from numba import njit
from numba.core.extending import intrinsic
from torch.nn.functional import interpolate, pad

from klarsicht.numerics.pixel_kernels.apply import apply_kernels
from klarsicht.numerics.pixel_kernels.simd import LANES, VectorBuilder, load, store
from klarsicht.numerics.pixel_kernels.spec import KernelSpec

SPEC, N = KernelSpec(), 8
ROOM = 9e9  # bytes that a contender may take

Run = Callable[[], object]


def inputs(side: int, C: int, dtype: torch.dtype, leaf: bool, order: torch.memory_format) -> list[torch.Tensor]:
    taps = torch.rand(1, N * SPEC.taps, side // 2, side // 2).to(dtype).contiguous(memory_format=order)
    return [taps.requires_grad_(leaf), torch.rand(1, N, C, side, side).to(dtype)]


def stacked(taps: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Windows (B, N, K^2, C, H, W) times kernels (B, N, K^2, 1, H, W), for each size in turn."""
    (B, _, _, H, W), means = frames.shape, []
    parts = interpolate(taps, scale_factor=2, mode="bilinear").view(B, N, SPEC.taps, H, W).split(SPEC.lengths, 2)
    for a, b in zip(parts[: len(SPEC.sizes)], parts[len(SPEC.sizes) :], strict=True):
        K = a.shape[2]
        kernels = torch.einsum("bnihw,bnjhw->bnijhw", a, b).reshape(B, N, K * K, 1, H, W)
        wide = pad(frames, [K // 2] * 4)
        windows = torch.stack([wide[..., i : i + H, j : j + W] for i in range(K) for j in range(K)], 2)
        means.append((kernels * windows).sum(2))
    return torch.stack(means).mean(0)


def loop(taps: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Row sums inside column sums, for each size in turn."""
    (B, _, _, H, W), total = frames.shape, torch.zeros(())
    parts = interpolate(taps, scale_factor=2, mode="bilinear").view(B, N, SPEC.taps, 1, H, W).split(SPEC.lengths, 2)
    for a, b in zip(parts[: len(SPEC.sizes)], parts[len(SPEC.sizes) :], strict=True):
        K = a.shape[2]
        wide = pad(frames, [K // 2] * 4)
        for i in range(K):
            row = sum(b[:, :, j] * wide[..., i : i + H, j : j + W] for j in range(K))
            total = total + a[:, :, i] * row
    return total / len(SPEC.sizes)


def ours(taps: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    return apply_kernels(taps, frames, SPEC).per_frame


CONTENDERS = {
    "ours": (ours, torch.float32, torch.channels_last),
    "ours bf16": (ours, torch.bfloat16, torch.channels_last),
    "loop": (loop, torch.float32, torch.contiguous_format),
    "stacked": (stacked, torch.float32, torch.contiguous_format),
}  # each with the order of memory that suits it


def job(name: str, side: int, C: int, backward: bool) -> Run:
    """One call on fresh inputs."""
    f, dtype, order = CONTENDERS[name]
    taps, frames = inputs(side, C, dtype, backward, order)
    G = torch.rand(frames.shape)

    def run() -> None:
        taps.grad = None
        Y = f(taps, frames)
        if backward:
            Y.backward(G)

    return run


def needs(name: str, side: int, C: int, backward: bool) -> float:
    """Bytes that a contender must hold at its largest size, to leave out what the machine cannot."""
    pixels, K = 4.0 * N * side * side, SPEC.side
    if name == "stacked":
        return pixels * (SPEC.taps + K * K * (1 + 2 * C) + backward * 165 * (1 + 2 * C))
    return pixels * (SPEC.taps * (1 + backward) + backward * 190 * C) if name == "loop" else 0.0


def in_turns(jobs: dict[str, Run], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each; the slow ones sit out most rounds."""
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, run in jobs.items():
            if number > 2 and spent[name][-1] > 1.0:
                continue
            if number and spent[name][-1] < 0.2:
                run()  # the one before has left nothing of ours in the caches
            start = time.process_time()
            run()
            spent[name].append(time.process_time() - start)
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


@intrinsic
def fma(typing, a, b, c):  # type: ignore[no-untyped-def]
    """Compute a b + c, lane by lane."""
    return LANES(a, b, c), lambda context, builder, signature, args: VectorBuilder(context, builder).fma(*args)


@njit
def chains(turns, x):  # type: ignore[no-untyped-def]
    """Ten independent chains of multiply-adds."""
    a, b = load(x, (0, 0)), load(x, (1, 0))
    c0 = c1 = c2 = c3 = c4 = c5 = c6 = c7 = c8 = c9 = a
    for _ in range(turns):
        c0, c1, c2, c3, c4 = fma(c0, b, a), fma(c1, b, a), fma(c2, b, a), fma(c3, b, a), fma(c4, b, a)
        c5, c6, c7, c8, c9 = fma(c5, b, a), fma(c6, b, a), fma(c7, b, a), fma(c8, b, a), fma(c9, b, a)
    for row, c in enumerate((c0, c1, c2, c3, c4, c5, c6, c7, c8, c9)):
        store(c, x, (row, 0))


X = np.full((10, 16), 0.5, np.float32)


def multiply_add() -> None:
    chains(200_000, X)


def copy_of(size: float) -> Run:
    source = np.ones(int(size) // 8, np.float32)  # read and written: twice four bytes a number
    target = np.ones_like(source)
    return lambda: np.copyto(target, source)


def moved(side: int, C: int, itemsize: int, backward: bool) -> float:
    """Bytes: taps and frames in, Y_i out; backward again taps, frames and G in, the gradient of taps out."""
    pixels = N * side * side
    taps, frames, results = pixels * SPEC.taps / 4 * itemsize, pixels * C * itemsize, pixels * C * 4
    return taps + frames + results + backward * (2 * taps + frames + results)


def multiply_adds(side: int, C: int, backward: bool) -> float:
    """Forward 165 + 81 C a pixel and frame; backward 81 C for the kernels' gradient, 2 x 165 for that of the taps."""
    once = 165 + SPEC.side**2 * C + backward * (SPEC.side**2 * C + 2 * 165)
    return float(N * side * side * once)


def compare(side: int, C: int, backward: bool, rounds: int) -> str:
    """One row of the table."""
    names = [name for name in CONTENDERS if needs(name, side, C, backward) < ROOM]
    jobs = {name: job(name, side, C, backward) for name in names}
    sizes = {name: moved(side, C, 2 if name == "ours bf16" else 4, backward) for name in ("ours", "ours bf16")}
    copies = {f"copy {name}": copy_of(size) for name, size in sizes.items()}
    spent = in_turns(jobs | copies | {"peak": multiply_add}, rounds)
    rate = 200_000 * 10 * 16 / spent["peak"]
    floors = {name: max(multiply_adds(side, C, backward) / rate, spent[f"copy {name}"]) for name in sizes}
    cells = [f"8 x {side}", str(C), "forward + backward" if backward else "forward"]
    cells += [f"{1e3 * spent[name]:.1f}" if name in spent else "-" for name in CONTENDERS]
    cells += [f"{spent[name] / floors[name]:.1f}" for name in sizes]
    cells += [f"{spent[name] / spent['ours']:.0f}" if name in spent else "-" for name in ("loop", "stacked")]
    cells += [f"{peak(name, side, C, backward):.0f}" if name in names else "-" for name in CONTENDERS]
    bound = "arithmetic" if floors["ours"] > spent["copy ours"] else "memory"
    return " | ".join([*cells, bound, f"{rate / 1e9:.0f}"])


def peak(name: str, side: int, C: int, backward: bool) -> float:
    """MiB above the inputs, in a fresh process."""
    command = [sys.executable, __file__, "--peak", name, str(side), str(C), str(int(backward))]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def resident(field: str) -> float:
    with open("/proc/self/status") as status:  # noqa: PTH123
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def measure_peak(name: str, side: int, C: int, backward: bool) -> None:
    job(name, 64, C, backward)()  # code and libraries loaded
    run = job(name, side, C, backward)
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:  # noqa: PTH123
        file.write("5")  # forget the peak of making the inputs
    before = resident("VmRSS")
    run()
    print(resident("VmHWM") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 x 256 only")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peak", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.peak:
        name, *rest = asked.peak
        measure_peak(name, int(rest[0]), int(rest[1]), bool(int(rest[2])))
        return
    names = list(CONTENDERS)
    heads = ["burst", "planes", "pass", *(f"{n}, ms" for n in names), "ours / floor", "bf16 / floor"]
    heads += ["loop / ours", "stacked / ours", *(f"{n}, MiB" for n in names), "floor is", "Gfma/s"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for side in (256,) if asked.quick else (256, 1024):
        for C in (1, 4):
            for backward in (False, True):
                print(f"| {compare(side, C, backward, asked.rounds)} |", flush=True)


if __name__ == "__main__":
    main()
