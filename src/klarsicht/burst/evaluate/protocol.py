"""How well and at what cost bursts are denoised: the protocol of KPN (arXiv 1712.02327) on one's own photographs.

Four gains; exposure drawn for each photograph, and exposure 1 (published code disagrees on which). 8 pixels cut,
G(x / w), clipped to [0, 1]; PSNR of each photograph, averaged in dB, with SSIM beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from statistics import fmean

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import PLANES, Burst
from klarsicht.burst.evaluate.classical import CLASSICAL, Denoise
from klarsicht.burst.evaluate.cost import Cost, metered
from klarsicht.burst.evaluate.kernel_sizes import Sizes
from klarsicht.burst.quality import CUT, Picture, Quality, quality, seen
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet
from klarsicht.burst.synthesis.motion import Flags
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.ground.errors import unknown_name
from klarsicht.ground.images import to_uint8
from klarsicht.ground.progress import progress
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel

EXPOSURES = {"drawn": True, "1": False}
TRUTH = "truth"
WARM = 64  # pixels a side of the burst that a method is tried on before the clock runs
EXHIBIT = 96  # pixels a side of the crops that are shown

Bytes = npt.NDArray[np.uint8]
Table = dict[str, dict[int, "Score"]]  # row, gain
Exhibits = dict[int, dict[str, Bytes]]  # gain, row: (H, W) or (H, W, 3)


@dataclass(frozen=True)
class Protocol:
    """All that is needed to make the same bursts again."""

    name: str
    seed: int
    geometry: Geometry
    photographs: tuple[str, ...]
    exposures: tuple[float, ...]
    gains: tuple[int, ...]
    sha256: str

    @property
    def lines(self) -> tuple[str, ...]:
        g, levels = self.geometry, [f"{gain}: {GAINS[gain].read:.4g}, {GAINS[gain].shot:.4g}" for gain in self.gains]
        return (
            f"set {self.name}, seed {self.seed}, sha256 {self.sha256}",
            f"frames {g.height} x {g.width} from the middle of each photograph, means of {g.scale} x {g.scale} pixels, "
            f"shifts up to {g.reach}",
            f"gains (sigma_read, sigma_shot^2) {'; '.join(levels)}",
            f"compared without {CUT} pixels at each border, as clip(G(x/w), 0, 1), G the sRGB curve on linear light",
            "exposure w drawn: " + ", ".join(f"{w:.4f}" for w in self.exposures),
            f"{len(self.photographs)} photographs: {', '.join(self.photographs)}",
        )


@dataclass(frozen=True)
class Score:
    """Means over the photographs: psnr in dB, ssim; cpu_s_per_mpx over all threads; peak_mib, the highest, or None
    where the system does not tell. on_path, off_path: PSNR where something moved, and elsewhere."""

    psnr: float
    ssim: float
    cpu_s_per_mpx: float
    peak_mib: float | None
    on_path: float | None = None
    off_path: float | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """One burst, denoised once."""

    quality: Quality
    cost: Cost
    picture: Picture


@dataclass(frozen=True, eq=False)
class Evaluation:
    """tables: by exposure (EXPOSURES), row and gain. absent: the rows that could not run, and why.

    exhibits: crops of the first photograph at the drawn exposure, by gain and row, the truth among them.
    sizes: what each kernel size does to that photograph, by row and gain, for networks that have several.
    """

    protocol: Protocol
    tables: dict[str, Table]
    absent: dict[str, str]
    exhibits: Exhibits
    sizes: dict[str, dict[int, Sizes]] = field(default_factory=dict)

    def peer(self, exposure: str, gain: int) -> tuple[str, float] | None:
        """The classical row with the highest PSNR, which a network has to beat; None where none ran."""
        table = self.tables[exposure]
        ran = [(row, table[row][gain].psnr) for row in CLASSICAL if row in table]
        return max(ran, key=lambda pair: pair[1], default=None)

    @property
    def rows(self) -> dict[str, dict[str, dict[str, object]]]:
        """{row: {gain: {psnr, ssim, cpu_s_per_mpx, peak_mib, exposure_1: {...}}}}: exposure drawn, and 1 within."""
        drawn, one = self.tables["drawn"], self.tables["1"]
        return {
            row: {str(g): {**_present(s), "exposure_1": _present(one[row][g])} for g, s in by_gain.items()}
            for row, by_gain in drawn.items()
        }

    @property
    def record(self) -> dict[str, object]:
        """Everything but the pictures."""
        sizes = {row: {gain: asdict(s) for gain, s in by_gain.items()} for row, by_gain in self.sizes.items()}
        return {"protocol": asdict(self.protocol), "rows": self.rows, "absent": self.absent, "sizes": sizes}


def _present(score: Score) -> dict[str, object]:
    return {key: value for key, value in asdict(score).items() if value is not None}


def evaluate(
    methods: Mapping[str, Denoise], made: BenchmarkSet, gains: Sequence[int] = tuple(GAINS)
) -> tuple[dict[str, Table], Exhibits]:
    """Every method on every burst of the set, at every gain and both exposures. Raises UsageError, and InputError
    for a method that returns something else than an image of the reference's shape."""
    levels = {gain: level(gain) for gain in gains}
    tables: dict[str, Table] = {exposure: {row: {} for row in methods} for exposure in EXPOSURES}
    exhibits: Exhibits = {gain: {TRUTH: _exhibit(made, _truth(made, 0))} for gain in gains}
    with progress("evaluation", len(methods) * len(levels) * len(EXPOSURES) * len(made)) as advance:
        for row, denoise in methods.items():
            denoise(_small(made.burst(0, next(iter(levels.values())), 1.0)))  # compilers run outside the clock
            for (exposure, drawn), gain in product(EXPOSURES.items(), levels):
                trials = [trial(denoise, made, k, levels[gain], drawn) for k in range(len(made))]
                tables[exposure][row][gain] = score(trials, pixels(made))
                if drawn:
                    exhibits[gain][row] = _exhibit(made, trials[0].picture)
                advance(len(made))
    return tables, exhibits


def level(gain: int) -> NoiseLevel:
    """Raises UsageError for a gain that is not in the protocol."""
    if gain not in GAINS:
        raise unknown_name("gain", str(gain), map(str, GAINS))
    return GAINS[gain]


def trial(denoise: Denoise, made: BenchmarkSet, index: int, noise: NoiseLevel, drawn: bool) -> Trial:
    w = float(made.exposure(index, drawn))
    burst = made.burst(index, noise, w)
    image, cost = metered(lambda: denoise(burst))
    truth = made.truth(index, w)
    return Trial(quality(image, truth, w, touched(made.paths[index], truth.shape)), cost, seen(image, w))


def touched(path: Flags, shape: tuple[int, ...]) -> Flags:
    """Where a moving thing was, in pixels of a picture of that shape (C, H, W): a pixel of a mosaic's planes stands for
    2 x 2 of the sensor's."""
    H, W = shape[-2:]
    return np.asarray(path.reshape(H, path.shape[0] // H, W, path.shape[1] // W).any((1, 3)))


def score(trials: Sequence[Trial], size: int) -> Score:
    """The means; size in pixels of one photograph."""
    qualities, costs = [t.quality for t in trials], [t.cost for t in trials]
    peaks = [c.peak_mib for c in costs if c.peak_mib is not None]
    return Score(
        psnr=fmean(q.psnr for q in qualities),
        ssim=fmean(q.ssim for q in qualities),
        cpu_s_per_mpx=fmean(c.cpu_s for c in costs) / size * 1e6,
        peak_mib=max(peaks, default=None),
        on_path=_mean([q.on_path for q in qualities]),
        off_path=_mean([q.off_path for q in qualities]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def pixels(made: BenchmarkSet) -> int:
    """Of one frame, as the sensor counts them: the planes of a mosaic are a quarter each."""
    channels, height, width = made.frames.shape[-3:]
    return int(height * width * (PLANES if channels == PLANES else 1))


def _small(burst: Burst) -> Burst:
    return burst.with_frames(np.ascontiguousarray(burst.frames[..., :WARM, :WARM]))


def _truth(made: BenchmarkSet, index: int) -> Picture:
    return seen(made.truth(index, 1.0), 1.0)


def _exhibit(made: BenchmarkSet, picture: Picture) -> Bytes:
    """The most detailed window, as a picture to show; of a mosaic, R, the first G and B."""
    y, x = busiest(_truth(made, 0), EXHIBIT)
    crop = picture[:, y : y + EXHIBIT, x : x + EXHIBIT]
    colours = crop[[0, 1, 3]] if len(crop) == PLANES else crop
    return to_uint8(colours[0] if len(colours) == 1 else np.moveaxis(colours, 0, -1))


def busiest(picture: Picture, side: int, step: int = 8) -> tuple[int, int]:
    """Top left of the window (on a grid) with the greatest variance."""
    grey = picture.mean(0)
    rows, columns = (range(0, max(1, room - side + 1), step) for room in grey.shape)
    return max(
        ((y, x) for y in rows for x in columns), key=lambda p: grey[p[0] : p[0] + side, p[1] : p[1] + side].var()
    )
