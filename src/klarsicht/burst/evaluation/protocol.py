"""Evaluation of burst denoising, quality and cost: the protocol of KPN (arXiv 1712.02327) on given photographs, at four
gains, with exposure drawn and exposure 1 (published code disagrees on which). Pictures are G(x / w), clipped to [0, 1],
without 8 pixels at each border; PSNR of each photograph is averaged in dB, with SSIM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import fmean

import numpy as np
import numpy.typing as npt

from klarsicht.burst.data.burst import PLANES
from klarsicht.burst.data.cokriging import white_variance
from klarsicht.burst.evaluation.classical import CLASSICAL, Denoise
from klarsicht.burst.quality import CUT_BORDER, Picture, Quality, measure_quality, tone_mapped
from klarsicht.burst.synthesis.benchmark_sets import BenchmarkSet
from klarsicht.burst.synthesis.motion import Flags
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.ground.machine.stopwatch import Cost, Stopwatch
from klarsicht.ground.pictures.pixel_depths import to_uint8
from klarsicht.ground.progress import progress
from klarsicht.numerics.imaging.sensor_noise import GAINS, NoiseLevel, noise_level

EXPOSURES = {"drawn": True, "1": False}
TRUTH = "truth"
WARM = 64  # pixels a side of the burst on which a method runs once before it is timed
EXAMPLE_SIDE = 96  # pixels a side of the displayed crops

Bytes = npt.NDArray[np.uint8]
Table = dict[str, dict[int, "Score"]]  # row, gain
Exhibits = dict[int, dict[str, Bytes]]  # gain, row: (H, W) or (H, W, 3)


@dataclass(frozen=True)
class Protocol:
    """All that is needed to generate the same bursts again. cell: of the mosaic from which frames are interpolated."""

    name: str
    seed: int
    geometry: Geometry
    photographs: tuple[str, ...]
    exposures: tuple[float, ...]
    gains: tuple[int, ...]
    sha256: str
    cell: str | None = None

    @property
    def lines(self) -> tuple[str, ...]:
        g, levels = self.geometry, [f"{gain}: {GAINS[gain].read:.4g}, {GAINS[gain].shot:.4g}" for gain in self.gains]
        mosaic = self.cell and (
            f"samples behind {self.cell} have that noise; RGB is interpolated from them by cokriging, its noise told "
            f"as white noise of {white_variance(self.cell):g} times the variance; compared after white balance"
        )
        lines = (
            f"set {self.name}, seed {self.seed}, sha256 {self.sha256}",
            f"frames {g.height} x {g.width} from the middle of each photograph, means of {g.scale} x {g.scale} pixels, "
            f"shifts up to {g.reach}",
            f"gains (sigma_read, sigma_shot^2) {'; '.join(levels)}",
            mosaic,
            f"compared without {CUT_BORDER} pixels at each border, as clip(G(x/w), 0, 1), G the sRGB curve on linear "
            "light",
            "exposure w drawn: " + ", ".join(f"{w:.4f}" for w in self.exposures),
            f"{len(self.photographs)} photographs: {', '.join(self.photographs)}",
        )
        return tuple(line for line in lines if line)


@dataclass(frozen=True)
class Score:
    """Means over the photographs: psnr in dB; cpu_s_per_mpx over all threads; peak_mib, the highest, or None where the
    system does not report it. on_path, off_path: PSNR on the path of moving objects, and elsewhere."""

    psnr: float
    ssim: float
    cpu_s_per_mpx: float
    peak_mib: float | None
    on_path: float | None = None
    off_path: float | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """Quality and cost of denoising one burst once."""

    quality: Quality
    cost: Cost
    picture: Picture


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Results of an evaluation. tables: by exposure (EXPOSURES), row and gain. absence_reasons: why rows could not run.
    examples: crops of the first photograph at the drawn exposure, by gain and row, the truth among them."""

    protocol: Protocol
    tables: dict[str, Table]
    absence_reasons: dict[str, str]
    examples: Exhibits

    def best_classical(self, exposure: str, gain: int) -> tuple[str, float] | None:
        """Return the classical row with the highest PSNR, the baseline of a network; None where none ran."""
        table = self.tables[exposure]
        ran = [(row, table[row][gain].psnr) for row in CLASSICAL if row in table]
        return max(ran, key=lambda pair: pair[1], default=None)

    @property
    def rows(self) -> dict[str, dict[str, dict[str, object]]]:
        """Scores as {row: {gain: {psnr, ..., exposure_1: {...}}}}: exposure drawn, and exposure 1 nested."""
        drawn, one = self.tables["drawn"], self.tables["1"]
        return {
            row: {str(g): {**_known_scores(s), "exposure_1": _known_scores(one[row][g])} for g, s in by_gain.items()}
            for row, by_gain in drawn.items()
        }

    @property
    def record(self) -> dict[str, object]:
        """All results but the pictures."""
        return {"protocol": asdict(self.protocol), "rows": self.rows, "absent": self.absence_reasons}


def _known_scores(score: Score) -> dict[str, object]:
    return {key: value for key, value in asdict(score).items() if value is not None}


def evaluate(
    methods: Mapping[str, Denoise], benchmark: BenchmarkSet, gains: Sequence[int] = tuple(GAINS)
) -> tuple[dict[str, Table], Exhibits]:
    """Evaluate every method on every burst of the set, at every gain and both exposures. Raises UsageError, and
    InputError for a method that returns something else than an image of the reference's shape."""
    levels = {gain: noise_level(gain) for gain in gains}
    tables: dict[str, Table] = {exposure: {row: {} for row in methods} for exposure in EXPOSURES}
    examples: Exhibits = {gain: {TRUTH: _crop_example(benchmark, _truth(benchmark, 0))} for gain in gains}
    with progress("evaluation", len(methods) * len(levels) * len(EXPOSURES) * len(benchmark)) as advance:
        for row, denoise in methods.items():
            first = benchmark.burst(0, next(iter(levels.values())), 1.0)
            denoise(first.with_frames(np.ascontiguousarray(first.frames[..., :WARM, :WARM])))  # compiles untimed
            for (exposure, drawn), gain in product(EXPOSURES.items(), levels):
                trials = [run_trial(denoise, benchmark, k, levels[gain], drawn) for k in range(len(benchmark))]
                tables[exposure][row][gain] = average_trials(trials, sensor_pixels(benchmark))
                if drawn:
                    examples[gain][row] = _crop_example(benchmark, trials[0].picture)
                advance(len(benchmark))
    return tables, examples


def run_trial(denoise: Denoise, benchmark: BenchmarkSet, index: int, noise: NoiseLevel, random_exposure: bool) -> Trial:
    """Denoise one burst of the set, and measure quality and cost."""
    w = float(benchmark.exposure(index, random_exposure))
    burst = benchmark.burst(index, noise, w)
    watch = Stopwatch()
    image = denoise(burst)
    cost = watch.cost
    image, truth = benchmark.balance(index, image), benchmark.balance(index, benchmark.truth(index, w))
    return Trial(
        measure_quality(image, truth, w, path_mask(benchmark.paths[index], truth.shape)), cost, tone_mapped(image, w)
    )


def path_mask(path: Flags, shape: tuple[int, ...]) -> Flags:
    """Reduce a moving object's path to the pixels of a picture (C, H, W), each 2 x 2 ones of a mosaic."""
    H, W = shape[-2:]
    return np.asarray(path.reshape(H, path.shape[0] // H, W, path.shape[1] // W).any((1, 3)))


def average_trials(trials: Sequence[Trial], size: int) -> Score:
    """Average the trials; size: pixels of one photograph."""
    qualities, costs = [t.quality for t in trials], [t.cost for t in trials]
    peaks = [c.added_mib for c in costs if c.added_mib is not None]
    return Score(
        psnr=fmean(q.psnr for q in qualities),
        ssim=fmean(q.ssim for q in qualities),
        cpu_s_per_mpx=fmean(c.cpu for c in costs) / size * 1e6,
        peak_mib=max(peaks, default=None),
        on_path=_mean([q.on_path for q in qualities]),
        off_path=_mean([q.off_path for q in qualities]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return fmean(known) if known else None


def sensor_pixels(benchmark: BenchmarkSet) -> int:
    """Count the sensor's pixels of one frame: the planes of a mosaic have a quarter each."""
    channels, height, width = benchmark.frames.shape[-3:]
    return int(height * width * (PLANES if channels == PLANES else 1))


def _truth(benchmark: BenchmarkSet, index: int) -> Picture:
    return tone_mapped(benchmark.balance(index, benchmark.truth(index, 1.0)), 1.0)


def _crop_example(benchmark: BenchmarkSet, picture: Picture) -> Bytes:
    """Crop the most detailed window for display; of a mosaic, R, the first G and B."""
    y, x = most_detailed_window(_truth(benchmark, 0), EXAMPLE_SIDE)
    crop = picture[:, y : y + EXAMPLE_SIDE, x : x + EXAMPLE_SIDE]
    colours = crop[[0, 1, 3]] if len(crop) == PLANES else crop
    return to_uint8(colours[0] if len(colours) == 1 else np.moveaxis(colours, 0, -1))


def most_detailed_window(picture: Picture, side: int, step: int = 8) -> tuple[int, int]:
    """Find the top left corner of the window (on a grid) with the greatest variance."""
    grey = picture.mean(0)
    rows, columns = (range(0, max(1, room - side + 1), step) for room in grey.shape)
    return max(
        ((y, x) for y in rows for x in columns), key=lambda p: grey[p[0] : p[0] + side, p[1] : p[1] + side].var()
    )
