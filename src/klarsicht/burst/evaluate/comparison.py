"""Who takes part in an evaluation, who is absent and why, and the whole of it in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from klarsicht.burst.evaluate import page
from klarsicht.burst.evaluate.classical import CLASSICAL, Denoise
from klarsicht.burst.evaluate.kernel_sizes import Sizes, predicted, sizes_of
from klarsicht.burst.evaluate.protocol import Evaluation, Protocol, evaluate, level
from klarsicht.burst.network import pretrained
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.burst.network.inference import restored
from klarsicht.burst.network.unet import PRESETS, Network
from klarsicht.burst.synthesis import photographs
from klarsicht.burst.synthesis.benchmark_sets import SETS, BenchmarkSet, benchmark_set
from klarsicht.ground.errors import MissingExtra, ModelError, UsageError, unknown_name
from klarsicht.numerics.imaging.sensor_noise import GAINS

SWIFT = "swift"
NETWORKS = ("kpn", "mkpn", "bpn", SWIFT)
ROWS = ("single", "mean", "align+mean", "bm3d", "align+mean+bm3d", "hdr+", "hdr++bm3d", "nlm", *NETWORKS)
SEED = 7
PAGE, RECORD = "evaluation.html", "evaluation.json"


def evaluate_all(
    photos: Path | None = None,
    checkpoints: Sequence[Path] = (),
    rows: Sequence[str] = (),
    gains: Sequence[int] = (),
    name: str = "grey-still",
    seed: int = SEED,
    exact: bool = False,
) -> Evaluation:
    """Evaluates rows (none: ROWS, and every checkpoint) at gains (none: all) on bursts of a folder's photographs
    (none: those of scikit-image). Without a checkpoint, the network that comes along for such frames takes part.

    exact: networks in float32, also where bfloat16 is faster.

    Raises:
        UsageError: an unknown row, gain or set; networks alone were asked for, and none was given.
        CorpusError, ImageError: the photographs.
        ModelError: a checkpoint that cannot be read or does not fit the set.
        MissingExtra: none of the rows can run without packages that are not installed.
    """
    chosen = tuple(dict.fromkeys(gains)) or tuple(GAINS)
    for gain in chosen:
        level(gain)
    trained = networks(checkpoints or along(name, rows), name)
    methods, absent = entrants(rows, trained, exact)
    shown = photographs.read_folder(photos) if photos else photographs.packaged_photographs()
    made = benchmark_set(name, shown.photographs, seed, shown.geometry)
    tables, exhibits = evaluate(methods, made, chosen)
    exposures = tuple(map(float, made.exposures))
    protocol = Protocol(name, seed, shown.geometry, shown.names, exposures, chosen, made.sha256)
    return Evaluation(protocol, tables, absent, exhibits, sizes(trained, made, chosen))


def write(evaluation: Evaluation, out: Path) -> None:
    """evaluation.json, with the protocol, and evaluation.html, with plots and crops, into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / RECORD).write_text(json.dumps(evaluation.record, indent=1) + "\n", encoding="utf-8")
    page.write(evaluation, out / PAGE)


def along(name: str, rows: Sequence[str]) -> list[Path]:
    """The network that comes along for the frames of a set, if its row is wanted."""
    file = pretrained.serving(colour_of(name))
    return [file] if file is not None and (not rows or SWIFT in rows) else []


def entrants(
    rows: Sequence[str], trained: Mapping[str, Network], exact: bool = False
) -> tuple[dict[str, Denoise], dict[str, str]]:
    """The methods that can run, and why others cannot. Networks that were given always take part."""
    wanted = [row for row in dict.fromkeys(rows or ROWS) if not _stands_for(row, trained)]
    absent = {row: reason for row in wanted if (reason := _absence(row))}
    methods = {row: CLASSICAL[row].denoise for row in wanted if row not in absent}
    methods |= {row: partial(restored, network, exact=exact) for row, network in trained.items()}
    if not methods:
        kind = MissingExtra if any(row in CLASSICAL for row in absent) else UsageError
        raise kind("none of the rows can run", got="; ".join(f"{row}: {why}" for row, why in absent.items()))
    return methods, absent


def _stands_for(row: str, trained: Mapping[str, Network]) -> bool:
    return row in trained or any(network.settings.preset == row for network in trained.values())


def _absence(row: str) -> str:
    if row in CLASSICAL:
        return CLASSICAL[row].absent
    if row in PRESETS:
        return "no checkpoint of it was given (--checkpoint FILE)"
    raise unknown_name("row", row, {*CLASSICAL, *PRESETS})


def networks(checkpoints: Sequence[Path], name: str) -> dict[str, Network]:
    """A row for each checkpoint: its preset; preset:file where a preset comes more than once.

    Raises UsageError, and ModelError for a file that holds no network, or one for frames of another colour.
    """
    loaded = [_fitting(path, colour_of(name)) for path in checkpoints]
    presets = [network.settings.preset for network in loaded]
    rows = [p if presets.count(p) == 1 else f"{p}:{path.stem}" for p, path in zip(presets, checkpoints, strict=True)]
    twice = next((row for row in rows if rows.count(row) > 1), None)
    if twice:
        raise UsageError("two checkpoints of one name", got=twice, remedy="Rename one of the files.")
    return dict(zip(rows, loaded, strict=True))


def colour_of(name: str) -> str:
    """Of the frames of a benchmark set. Raises UsageError for a set that is not."""
    if name not in SETS:
        raise unknown_name("benchmark set", name, SETS)
    return SETS[name][0]


def _fitting(path: Path, colour: str) -> Network:
    network = load_network(path)
    if colour not in network.served:
        got, rule = f"one for {network.settings.colour} frames", f"the set has {colour} frames"
        raise ModelError(f"the network {path.name}", got=got, rule=rule, remedy="Choose another --set.")
    return network


def sizes(trained: Mapping[str, Network], made: BenchmarkSet, gains: Sequence[int]) -> dict[str, dict[int, Sizes]]:
    """What each size does to the first photograph at its drawn exposure, for networks that predict several."""
    w = float(made.exposure(0, drawn=True))
    truth = made.truth(0, w)
    several = {row: network for row, network in trained.items() if len(network.preset.spec.sizes) > 1}
    return {
        row: {gain: sizes_of(predicted(network, made.burst(0, level(gain), w)), truth, w) for gain in gains}
        for row, network in several.items()
    }
