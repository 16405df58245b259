"""Audit of a denoiser by the kernels that it predicts: its strategies, where it follows which, and what it copied.

FOLDER/strategies.json   the strategies with shares, measures, errors, and the copied share of each burst
FOLDER/NAME.png          a map of strategies over each burst's picture
FOLDER/NAME.npz          measures (h, w, m), labels and error (h, w) of every `step`-th pixel
FOLDER/page.html         all of it on one page
FOLDER/explorer.json     what `audit explore` shows of it besides: findings, colours, and the drawn points in the plane
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from klarsicht import __version__
from klarsicht.bridge.kernel_measures import MEASURES
from klarsicht.bridge.measured_burst import (
    SYNTHETIC,
    MeasuredBurst,
    Picture,
    measure_burst,
    measure_photographs,
    read_synthetic,
)
from klarsicht.bridge.strategies import COPIES, POINTS, StrategyMaps, find_strategies, to_facts
from klarsicht.bridge.strategy_pictures import choose_colours, draw_strategies, list_legend
from klarsicht.burst.data.burst import Burst
from klarsicht.burst.denoising.explain import name_files
from klarsicht.burst.denoising.pipeline import DenoiseSettings, fingerprint_settings
from klarsicht.burst.denoising.work_folder import fingerprint as identify_file
from klarsicht.burst.denoising.work_folder import open_work_folder
from klarsicht.burst.files.reading import list_frames
from klarsicht.burst.merging.filter_choice import check_names
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.burst.network.unet import Network
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.machine.disk import fill_folder, write_atomically
from klarsicht.ground.pages import load_template
from klarsicht.ground.pictures import notebook
from klarsicht.ground.pictures.encoded_pictures import data_uri, png_bytes
from klarsicht.ground.progress import track
from klarsicht.ground.ranges import KERNEL_POINTS, SEED
from klarsicht.ground.run_folder.manifest import to_json
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.ground.user_arrays import as_numbers

SHIPPED = {1: "swift", 3: "swift", 4: "swift-raw"}
"""Shipped network by the number of channels of a synthetic burst's frames."""
HEADER = ("strategy", "share", "reference", "evenness", "reach", "elongation", "disagreement", "change", "error", "p")


@dataclass(frozen=True, eq=False)
class DenoiserAudit:
    """Audit of a denoiser on some bursts. maps: strategies, and their map of each burst."""

    bursts: tuple[MeasuredBurst, ...]
    maps: StrategyMaps

    def __repr__(self) -> str:
        points = sum(one.error.size for one in self.bursts)
        return f"DenoiserAudit({len(self.maps.strategies)} strategies, {points:,} pixels of {len(self.bursts)} bursts)"

    def _repr_html_(self) -> str:
        table = notebook.table(HEADER, self.rows)
        return table + str(notebook.pictures((png_bytes(self.draw(k)) for k in range(min(3, len(self.bursts)))), 480))

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """Cells of the table of strategies, in the order of HEADER."""
        measures = ("reference share", "evenness", "reach", "elongation", "disagreement", "change")
        return [
            (
                one.name, f"{one.share:.1%}", *(f"{one.median[name]:.2f}" for name in measures),
                f"{np.exp(one.error):.2f}", f"{one.p:.3f}",
            )
            for one in self.maps.strategies
        ]  # fmt: skip

    @property
    def lines(self) -> list[str]:
        """Findings in words: what was copied, and which strategies go with large errors."""
        against = "the truth" if all(one.has_truth for one in self.bursts) else "the reference"
        errors = [
            f"{one.name}: {np.exp(one.error):.2f} times the difference from {against} of other pixels (p {one.p:.3f})"
            for one in self.maps.strategies
            if one.p < 0.05
        ]
        nothing = f"no strategy goes with a larger difference from {against} (level 0.05)"
        return [*(self._describe_copies(k) for k in range(len(self.bursts))), *(errors or [nothing])]

    def _describe_copies(self, number: int) -> str:
        one = self.bursts[number]
        return f"{one.name}: {self.copied_share(number):.2%} of the pixels copy what moved"

    def copied_share(self, number: int) -> float:
        """Return the share of a burst's points that copy what moved."""
        return float(self.bursts[number].copies.mean())

    def draw(self, number: int) -> Picture:
        """Draw the strategies over the picture of one burst, (H, W, 3), with a legend."""
        return draw_strategies(self.bursts[number], self.maps, number)

    def to_json(self) -> dict[str, Any]:
        """Return strategies, bursts and the suspect cluster as JSON values."""
        suspect = self.maps.clusters.suspect
        return {
            "strategies": [to_facts(one) for one in self.maps.strategies],
            "bursts": [
                {"name": one.name, "step": one.step, "copied": round(self.copied_share(k), 5), "truth": one.has_truth,
                 "shares": {entry.name: round(entry.share, 4) for entry in list_legend(self.maps, k)}}
                for k, one in enumerate(self.bursts)
            ],
            "suspect cluster": None if suspect is None else {
                "points": suspect.size, "of": suspect.n, "tau": round(suspect.tau, 3), "z": round(suspect.z, 3),
                "error": round(suspect.shift, 3),
            },
        }  # fmt: skip

    def to_explorer(self) -> dict[str, Any]:
        """Return the findings in words, the file and the shape of each burst, a colour for each strategy, and the drawn
        points, as JSON values: their burst, place on its upright map, strategy, and place in the plane of the first
        two principal components of their embedding."""
        labels, sizes = self.maps.labels, [one.size for one in self.maps.labels]
        burst = np.searchsorted(np.cumsum(sizes), self.maps.sample, "right")
        inside = self.maps.sample - np.concatenate([[0], np.cumsum(sizes)])[burst]
        rows, columns = np.zeros((2, len(burst)), np.int64)
        for k, one in enumerate(self.bursts):
            upright = one.turn_upright(np.arange(sizes[k]).reshape(labels[k].shape))
            places = np.argsort(upright, axis=None)[inside[burst == k]]
            rows[burst == k], columns[burst == k] = np.unravel_index(places, upright.shape)
        centred = self.maps.clusters.embedding - self.maps.clusters.embedding.mean(0)
        x, y = (centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T).T
        names = name_files(one.name for one in self.bursts)
        return {
            "lines": self.lines, "colours": choose_colours(self.maps.strategies), "files": list(names),
            "points": {
                "burst": burst, "row": rows, "column": columns,
                "strategy": np.concatenate([one.ravel() for one in labels])[self.maps.sample],
                "x": x.round(5), "y": y.round(5),
            },
        }  # fmt: skip

    def write(self, folder: Path) -> None:
        """Write the files of the module's docstring into a folder. Raises StoreError, DiskFull."""
        for k, (name, burst) in enumerate(zip(name_files(one.name for one in self.bursts), self.bursts, strict=True)):
            write_atomically(folder / f"{name}.png", png_bytes(self.draw(k)))
            arrays = io.BytesIO()
            np.savez_compressed(
                arrays, measures=burst.measures.astype(np.float32), labels=self.maps.labels[k].astype(np.uint8),
                error=burst.error.astype(np.float32), step=burst.step, names=np.array(MEASURES),
                picture=burst.picture, orientation=burst.orientation,
                strategies=np.array([one.name for one in self.maps.strategies]),
            )  # fmt: skip
            write_atomically(folder / f"{name}.npz", arrays.getvalue())
        write_atomically(folder / "strategies.json", to_json(self.to_json()))
        write_atomically(folder / "explorer.json", to_json(self.to_explorer()))
        pictures = [(one.name, data_uri(png_bytes(self.draw(k)))) for k, one in enumerate(self.bursts)]
        page = load_template("klarsicht.bridge", "strategies.html.j2")
        copying = any(one.kind == COPIES for one in self.maps.strategies)
        content = page.render(header=HEADER, rows=self.rows, lines=self.lines, pictures=pictures, copying=copying)
        write_atomically(folder / "page.html", content.encode())


@check_arguments
def audit_denoiser(
    network: Network, bursts: Sequence[Burst], truths: Sequence[Any] | None = None, points: int = POINTS, seed: int = 0
) -> DenoiserAudit:
    """Find the strategies of a network on bursts in memory: clusters of its kernels, their maps, and what it copied.

    truths: the clean reference (C, H, W) of each burst, against which errors are taken; None: they are taken against
    the noisy reference. points: drawn for the clusters. seed: draws them.

    Raises UsageError for a network that predicts no kernels, or settings out of range; InputError for no bursts, a
    burst of one frame, or truths that do not fit.
    """
    KERNEL_POINTS.require("points", points)
    SEED.require("seed", seed)
    if not bursts:
        raise InputError("no bursts", rule="an audit needs at least one")
    true = [None] * len(bursts) if truths is None else list(truths)
    if len(true) != len(bursts):
        raise InputError("truths that do not fit", got=len(true), rule=f"one a burst, {len(bursts)}")
    results = tuple(
        measure_burst(
            network, one, f"burst {k}", None if truth is None else as_numbers("truth", truth).astype(np.float32)
        )
        for k, (one, truth) in enumerate(track(list(zip(bursts, true, strict=True)), len(bursts), "bursts"), 1)
    )
    return DenoiserAudit(results, find_strategies(results, points, seed))


@check_arguments
def audit_bursts(
    bursts: Sequence[str | Path], out: str | Path, settings: DenoiseSettings | None = None, points: int = POINTS,
    seed: int = 0,
) -> DenoiserAudit:  # fmt: skip
    """Audit a denoiser on bursts in files, and write the findings into a new folder `out`.

    bursts: folders, each with the photographs of one burst, or .npz files of `klarsicht burst synth`, whose truth is
    known. settings: of `burst.denoise`; of .npz files only the checkpoint counts. points, seed: see audit_denoiser.

    If it was stopped, the same call resumes: bursts that were measured are kept in a work folder beside `out`.

    Raises InputError, UsageError, ModelError, StoreError, DiskFull, RunLocked, MissingExtra.
    """
    KERNEL_POINTS.require("points", points)
    SEED.require("seed", seed)
    paths, out, settings = [Path(one) for one in bursts], Path(out), settings or DenoiseSettings()
    check_bursts(paths)
    check_names(settings.checkpoint, settings.bayer)
    if settings.fast:
        rule, remedy = "strategies are of a network's kernels", "Leave --fast out."
        raise UsageError("an audit without the network", got="fast", rule=rule, remedy=remedy)
    fingerprint = fingerprint_settings(settings) | {
        "version": __version__, "measures": MEASURES, "bursts": [_identify_burst(path) for path in paths],
    }  # fmt: skip
    with open_work_folder(out, fingerprint) as folder, fill_folder(out):
        results = tuple(
            _measure_or_read(path, folder / f"{k}.npz", out, settings)
            for k, path in enumerate(track(paths, len(paths), "bursts"))
        )
        result = DenoiserAudit(results, find_strategies(results, points, seed))
        result.write(out)
    return result


def check_bursts(paths: Sequence[Path]) -> None:
    """Check that paths are bursts: folders, or .npz files. Raises InputError."""
    if not paths:
        raise InputError("no bursts", rule="an audit needs at least one", remedy="Give a folder of photographs.")
    for path in paths:
        if not path.exists():
            raise InputError("no such burst", got=path, remedy="Check the path.")
        if not path.is_dir() and path.suffix.lower() != SYNTHETIC:
            rule = "a burst is a folder of its photographs, or a .npz file of `klarsicht burst synth`"
            raise InputError(f"{path.name} is no burst", got=path.suffix or "no ending", rule=rule)


def _identify_burst(path: Path) -> list[Any]:
    """Identify the files of a burst. Raises InputError."""
    return [identify_file(file) for file in (list_frames([path]) if path.is_dir() else [path])]


def _measure_or_read(path: Path, store: Path, out: Path, settings: DenoiseSettings) -> MeasuredBurst:
    """Read what a stopped audit measured of a burst, or measure and keep it."""
    if store.is_file():
        return MeasuredBurst.from_bytes(store.read_bytes())
    burst = _measure_path(path, out, settings)
    write_atomically(store, burst.to_bytes())
    return burst


def _measure_path(path: Path, out: Path, settings: DenoiseSettings) -> MeasuredBurst:
    """Measure one burst; tiles of photographs are kept beside `out`, too, until their burst is measured."""
    name = path.name if path.is_dir() else path.stem
    if path.is_dir():
        place = out.resolve()
        return measure_photographs([path], place.with_name(f"{place.name}-{name}"), settings, name)
    burst, truth = read_synthetic(path)
    checkpoint = settings.checkpoint or SHIPPED.get(burst.frames.shape[1])
    if checkpoint is None:
        raise UsageError(
            "no network for these frames", got=f"{burst.frames.shape[1]} channels", remedy="Give --checkpoint."
        )
    return measure_burst(load_network(checkpoint), burst, name, truth)
