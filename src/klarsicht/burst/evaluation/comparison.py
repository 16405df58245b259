"""Complete evaluation: selection of the methods, with reasons for those absent, and of the bursts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from klarsicht.burst.data.cokriging import MOSAICS
from klarsicht.burst.evaluation import page
from klarsicht.burst.evaluation.classical import CLASSICAL, Denoise, absence_reason
from klarsicht.burst.evaluation.protocol import Evaluation, Protocol, evaluate
from klarsicht.burst.network import pretrained
from klarsicht.burst.network.checkpoints import load_network
from klarsicht.burst.network.inference import denoise_burst
from klarsicht.burst.network.unet import PRESETS, Network
from klarsicht.burst.synthesis import photographs
from klarsicht.burst.synthesis.benchmark_sets import SETS, benchmark_set
from klarsicht.ground.errors import MissingExtra, ModelError, UsageError, unknown_name
from klarsicht.numerics.imaging.sensor_noise import GAINS, noise_level

SWIFT = "swift"
NETWORKS = ("kpn", "mkpn", "bpn", SWIFT)
COMPARED_ROWS = (*CLASSICAL, *NETWORKS)
RGB, INTERPOLATED = "rgb", "interpolated"  # colours of frames (pretrained.NAMES)
SEED = 7
EVALUATION_PAGE, EVALUATION_RECORD = "evaluation.html", "evaluation.json"


def evaluate_all(
    photos: Path | None = None,
    checkpoints: Sequence[Path] = (),
    rows: Sequence[str] = (),
    gains: Sequence[int] = (),
    name: str = "grey-still",
    seed: int = SEED,
    exact: bool = False,
) -> Evaluation:
    """Evaluate rows (none: all, and every checkpoint) at gains (none: all) on bursts of a folder's photographs (none:
    those of scikit-image). Without a checkpoint, the shipped network for such frames takes part. exact: networks in
    float32.

    Raises UsageError for an unknown row, gain or set, or where only networks were requested, and none was given;
    CorpusError, ImageError for the photographs; ModelError for a checkpoint that cannot be read or does not fit the
    set; MissingExtra where none of the rows can run without packages that are not installed.
    """
    chosen_gains = tuple(dict.fromkeys(gains)) or tuple(GAINS)
    for gain in chosen_gains:
        noise_level(gain)
    networks = load_networks(checkpoints or find_pretrained(name, rows), name)
    methods, absent = select_methods(rows, networks, exact)
    photograph_set = photographs.read_folder(photos) if photos else photographs.packaged_photographs()
    benchmark = benchmark_set(name, photograph_set.photographs, seed, photograph_set.geometry)
    tables, examples = evaluate(methods, benchmark, chosen_gains)
    names, exposures = photograph_set.names, tuple(map(float, benchmark.exposures))
    made_of = (photograph_set.geometry, names, exposures, chosen_gains, benchmark.sha256, benchmark.cell)
    return Evaluation(Protocol(name, seed, *made_of), tables, absent, examples)


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write evaluation.json, with the protocol, and evaluation.html, with plots and crops, into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    (out / EVALUATION_RECORD).write_text(json.dumps(evaluation.record, indent=1) + "\n", encoding="utf-8")
    page.write_page(evaluation, out / EVALUATION_PAGE)


def find_pretrained(name: str, rows: Sequence[str]) -> list[Path]:
    """Find the shipped network for the frames of a set, if its row is wanted."""
    file = pretrained.find_weights(set_colour(name))
    return [file] if file is not None and (not rows or SWIFT in rows) else []


def select_methods(
    rows: Sequence[str], networks: Mapping[str, Network], exact: bool = False
) -> tuple[dict[str, Denoise], dict[str, str]]:
    """Select the methods that can run, and the reasons why others cannot. Given networks always take part."""
    wanted = [row for row in dict.fromkeys(rows or COMPARED_ROWS) if not _is_trained(row, networks)]
    absent = {row: reason for row in wanted if (reason := _absence_reason(row))}
    methods = {row: CLASSICAL[row] for row in wanted if row not in absent}
    methods |= {row: partial(denoise_burst, network, exact=exact) for row, network in networks.items()}
    if not methods:
        kind = MissingExtra if any(row in CLASSICAL for row in absent) else UsageError
        raise kind("none of the rows can run", got="; ".join(f"{row}: {why}" for row, why in absent.items()))
    return methods, absent


def _is_trained(row: str, networks: Mapping[str, Network]) -> bool:
    return row in networks or any(network.settings.preset == row for network in networks.values())


def _absence_reason(row: str) -> str:
    if row in CLASSICAL:
        return absence_reason(row)
    if row in PRESETS:
        return "no checkpoint of it was given (--checkpoint FILE)"
    raise unknown_name("row", row, {*CLASSICAL, *PRESETS})


def load_networks(checkpoints: Sequence[Path], name: str) -> dict[str, Network]:
    """Load a row for each checkpoint, named by its preset, or preset:file where a preset occurs more than once. Raises
    UsageError, and ModelError for a file that holds no network, or one for frames of another colour."""
    networks = [_load_fitting_network(path, set_colour(name)) for path in checkpoints]
    presets = [network.settings.preset for network in networks]
    rows = [p if presets.count(p) == 1 else f"{p}:{path.stem}" for p, path in zip(presets, checkpoints, strict=True)]
    twice = next((row for row in rows if rows.count(row) > 1), None)
    if twice:
        raise UsageError("two checkpoints of one name", got=twice, remedy="Rename one of the files.")
    return dict(zip(rows, networks, strict=True))


def set_colour(name: str) -> str:
    """Return the colour of the frames of a set, as in pretrained.NAMES. Raises UsageError for an unknown set."""
    if name not in SETS:
        raise unknown_name("benchmark set", name, SETS)
    kind, _ = SETS[name]
    return INTERPOLATED if kind in MOSAICS else kind


def _load_fitting_network(path: Path, colour: str) -> Network:
    network = load_network(path)
    if (RGB if colour == INTERPOLATED else colour) not in network.compatible_colours:
        got, rule = f"one for {network.settings.colour} frames", f"the set has {colour} frames"
        raise ModelError(f"the network {path.name}", got=got, rule=rule, remedy="Choose another --set.")
    return network
