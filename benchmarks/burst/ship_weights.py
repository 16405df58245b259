"""Makes a trained network into one that comes along: 16-bit weights under 8 MB, and the card beside them.

    python benchmarks/burst/ship_weights.py RUN.safetensors swift --photographs FOLDER [--kodak FOLDER]
        [--earlier CARD.json] [--stage STAGE.safetensors] [--lines FILE]

FOLDER is the one that `training_photographs.py` or `licensed_photographs.py` wrote: its LICENCES.txt is quoted. The
tables are those of `klarsicht burst evaluate --exact` with seed 7, on the photographs that scikit-image carries and,
where given, on Kodak's.
--earlier: the card of the network that the training started from; its history goes before this one's.
--stage: a network of a training between that and this; may be repeated. --lines: what bayer_colours.py wrote of Kodak's
photographs: tables of `swift-interpolated` through the command, beside those of `burst evaluate`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from kernel_effects import analyse_gains
from klarsicht.burst.evaluation import comparison
from klarsicht.burst.evaluation.protocol import Evaluation
from klarsicht.burst.network import checkpoints, pretrained
from klarsicht.burst.synthesis.benchmark_sets import benchmark_set
from klarsicht.burst.synthesis.photographs import packaged_photographs, read_folder
from klarsicht.numerics.imaging.sensor_noise import GAINS

LARGEST = 8_000_000  # bytes
ROWS = ("single", "align+mean", "hdr+", "nlm", "swift")
SETS = {
    "swift": ("grey-still", "grey-moving", "rgb-still"),
    "swift-raw": ("mosaic-still", "mosaic-moving"),
    "swift-interpolated": ("bayer-still", "bayer-moving", "x-trans-still"),
}
ON_KODAK = {
    "swift": ("grey-still", "grey-moving"),
    "swift-raw": ("mosaic-still",),
    "swift-interpolated": ("bayer-still",),
}
OF_MOSAICS = "python benchmarks/burst/bayer_colours.py kodak24 --small --camera-colours --count {count}"
MADE_BY = "klarsicht burst evaluate --exact --checkpoint {name} --set {set} --seed 7"
FREE = {"CC0-1.0", "CC-BY-2.0", "CC-BY-3.0", "CC-BY-4.0", "public domain", "US government work"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("name", choices=list(SETS))
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--kodak", type=Path)
    parser.add_argument("--earlier", type=Path)
    parser.add_argument("--stage", type=Path, action="append", default=[])
    parser.add_argument("--lines", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pretrained.FOLDER.mkdir(exist_ok=True)
    file = pretrained.FOLDER / f"{given.name}.safetensors"
    trained = checkpoints.read_card(given.network).training
    checkpoints.save_network(checkpoints.load_network(given.network), file, trained, torch.float16)
    assert file.stat().st_size < LARGEST, f"{file} has {file.stat().st_size} bytes"
    card = {
        **about(file, trained, licences(given.photographs), given.earlier, given.stage),
        "tables": [*tables(given.name, file, given.kodak), *(tables_of_mosaics(given.lines) if given.lines else ())],
    }
    file.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def licences(photographs: Path) -> dict[str, dict[str, str]]:
    """By the photograph's name."""
    lines = (line.split("\t") for line in (photographs / "LICENCES.txt").read_text(encoding="utf-8").splitlines())
    return {
        name: {"licence": licence, "author": author, "package": package} for name, licence, author, package, _ in lines
    }


def about(
    file: Path, trained: Any, free: dict[str, dict[str, str]], earlier: Path | None, stages: list[Path]
) -> dict[str, Any]:
    """What it is and what it was made of. Stops where a photograph is not free."""
    network = checkpoints.load_network(file)
    photographs = {name: {"sha256": digest, **free[name]} for name, digest in trained["photographs"].items()}
    unfree = [name for name, one in photographs.items() if not set(one["licence"].split(" / ")) <= FREE]
    assert not unfree, f"not under {FREE}: {unfree}"
    known = json.loads(earlier.read_text()) if earlier else {"trainings": [], "photographs": {}}
    trainings = [*(checkpoints.read_card(stage).training for stage in stages), trained]
    return {
        "network": network.settings.model_dump(),
        "sizes": network.preset.spec.sizes,
        "parameters": sum(weight.numel() for weight in network.parameters()),
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "trainings": [*known["trainings"], *({k: one[k] for k in ("settings", "step", "start")} for one in trainings)],
        "photographs": {**known["photographs"], **photographs},
    }


def tables(name: str, file: Path, kodak: Path | None) -> Any:
    """One for each set and each folder of photographs."""
    asked = [(None, "scikit-image", chosen) for chosen in SETS[name]]
    asked += [(kodak, "Kodak24", chosen) for chosen in ON_KODAK[name] if kodak]
    for folder, called, chosen in asked:
        found = comparison.evaluate_all(folder, [file], ROWS, (), chosen, comparison.SEED, exact=True)
        source = read_folder(folder) if folder else packaged_photographs()
        first = benchmark_set(chosen, source.photographs[:1], comparison.SEED, source.geometry)
        effects = analyse_gains(checkpoints.load_network(file), first, list(GAINS))
        sizes = {"swift": {gain: asdict(one) for gain, one in effects.items()}}
        made_by = MADE_BY.format(name=name, set=chosen)
        yield {"photographs": called, "made by": made_by, **record(found), "sizes": sizes}


def tables_of_mosaics(file: Path) -> Iterator[dict[str, Any]]:
    """One for each motion: the command's mean PSNR by row and gain."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    named = {"reference, cokriging": "reference", "rgb, swift": "swift", "rgb": "swift-interpolated"}
    for motion in dict.fromkeys(one["motion"] for one in lines):
        here = [one for one in lines if one["motion"] == motion]
        gains = sorted({one["gain"] for one in here})
        count = len({one["photograph"] for one in here})
        scores = {
            row: {gain: [one["scores"][key] for one in here if one["gain"] == gain] for gain in gains}
            for key, row in named.items()
        }
        yield {
            "photographs": f"Kodak, the first {count}",
            "name": f"rgb-{motion} behind RGGB, in a camera's colours, interpolated, through the command",
            "made by": OF_MOSAICS.format(count=count),
            "rows": {row: {str(g): {"psnr": fmean(values)} for g, values in by.items()} for row, by in scores.items()},
        }


def record(found: Evaluation) -> dict[str, Any]:
    protocol = {key: found.record["protocol"][key] for key in ("name", "seed", "sha256")}  # type: ignore[index]
    return {**protocol, "rows": found.rows}


if __name__ == "__main__":
    main()
