"""Text output of `klarsicht burst weights`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from klarsicht.burst.network.pretrained import SERVED
from klarsicht.cli.tables import table

if TYPE_CHECKING:
    from klarsicht.burst.network.pretrained import PretrainedNetwork


def lines(one: PretrainedNetwork) -> Iterator[str]:
    """Format the card of a network and its tables of results."""
    card = one.card
    colours = " and ".join(SERVED[one.colour])
    yield f"{one.name}: for {colours} frames, 1 to {card['network']['frames']} of them"
    yield f"kernels of sizes {', '.join(map(str, card['sizes']))}, fused to one"
    yield f"{card['parameters']:,} weights in {card['bytes'] / 1e6:.1f} MB, sha256 {card['sha256']}"
    for training in card["trainings"]:
        yield _describe_training(training)
    licences = Counter(one["licence"] for one in card["photographs"].values())
    yield "photographs: " + ", ".join(f"{count} under {licence}" for licence, count in licences.items())
    for measured in card["tables"]:
        yield from _table(measured)


def _describe_training(training: Mapping[str, Any]) -> str:
    settings, start, note = training["settings"], training["start"], training.get("note")
    begun = f", from {start[:12]}..." if start else ""
    return (
        f"trained for {training['step']:,} steps of {settings['batch']} bursts: {settings['colour']}, "
        f"noise {settings['noise']}, seed {settings['seed']}{begun}" + (f" ({note})" if note else "")
    )


def _table(record: Mapping[str, Any]) -> Iterator[str]:
    """Format a table of PSNR in dB at drawn exposure; PSNR on the path of a moving object in brackets."""
    rows = record["rows"]
    gains = list(next(iter(rows.values())))
    yield f"\n{record['photographs']}, {record['name']}: PSNR in dB, exposure drawn ({record['made by']})"
    cells = [(row, *(_cell(scores[gain]) for gain in gains)) for row, scores in rows.items()]
    yield table(("row", *(f"gain {gain}" for gain in gains)), cells, left_aligned=("row",))


def _cell(score: Mapping[str, float]) -> str:
    return f"{score['psnr']:.2f}" + (f" ({score['on_path']:.2f})" if "on_path" in score else "")
