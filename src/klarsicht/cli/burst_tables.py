"""Text output of `klarsicht burst evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from klarsicht.cli.tables import table

if TYPE_CHECKING:
    from klarsicht.burst.evaluation.kernel_sizes import SizeEffects
    from klarsicht.burst.evaluation.protocol import Evaluation, Score


def protocol(evaluation: Evaluation) -> Iterator[str]:
    """Format how the bursts were made, and the methods that are absent."""
    yield from evaluation.protocol.lines
    for row, reason in evaluation.absence_reasons.items():
        yield f"absent: {row}: {reason}"


def scores(evaluation: Evaluation) -> Iterator[str]:
    """Format one table per exposure with the best classical method at each gain below, then the kernel sizes."""
    gains = evaluation.protocol.gains
    header = ("row", *(f"gain {gain}" for gain in gains), "CPU s/Mpx", "peak MiB")
    for exposure, by_row in evaluation.tables.items():
        yield f"\nexposure {exposure}: PSNR in dB / SSIM"
        lines = [(row, *(_cell(s[g]) for g in gains), *_cost(s[gains[0]])) for row, s in by_row.items()]
        yield table(header, lines, left_aligned=("row",))
        peers = {gain: evaluation.best_classical(exposure, gain) for gain in gains}
        best = ", ".join(f"gain {gain}: {peer[0]} {peer[1]:.2f}" for gain, peer in peers.items() if peer)
        if best:
            yield f"best classical: {best}"
    for row, by_gain in evaluation.sizes.items():
        yield f"\nkernel sizes of {row}, first photograph: share of energy; dB lost without (brightness restored)"
        sides = next(iter(by_gain.values())).energy
        lines = [(str(gain), *(_size(s, K) for K in sides), f"{s.rank:.2f}") for gain, s in by_gain.items()]
        yield table(("gain", *map(str, sides), "effective rank"), lines, left_aligned=())


def _size(sizes: SizeEffects, K: int) -> str:
    loss = sizes.loss[K]
    return f"{100 * sizes.energy[K]:.1f} %; {loss.plain:.2f} ({loss.brightness_restored:.2f})"


def _cell(score: Score) -> str:
    whole = f"{score.psnr:.2f} / {score.ssim:.3f}"
    if score.on_path is None:
        return whole
    return f"{whole} (path {score.on_path:.2f}, rest {score.off_path:.2f})"


def _cost(score: Score) -> tuple[str, str]:
    return f"{score.cpu_s_per_mpx:.3g}", "" if score.peak_mib is None else f"{score.peak_mib:.0f}"
