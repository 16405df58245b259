"""`klarsicht burst`: denoise bursts of short exposures, and train and evaluate the networks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from klarsicht.cli import burst_audit, burst_photographs
from klarsicht.cli.echo import echo, echo_block
from klarsicht.cli.help_pages import CommandGroup
from klarsicht.cli.options import SettingsFile, add_options, number
from klarsicht.ground import ranges
from klarsicht.ground.machine import memory

app = typer.Typer(
    help="Train kernel-predicting networks and denoise bursts with them.", cls=CommandGroup, no_args_is_help=True
)


@app.callback()
def prepare_memory() -> None:
    memory.keep_freed_memory()


app.command()(burst_photographs.denoise)
app.command()(burst_photographs.calibrate)
app.command()(burst_photographs.explain)
app.command()(burst_audit.audit)
app.command()(burst_photographs.check)
app.command()(burst_photographs.export)

SET_HELP = (
    "Frames and motion, as in bayer-moving: grey, rgb, mosaic, bayer or x-trans, with -still, -shaken, -moving or "
    "-occluded."
)
TRAINING = {
    "preset": Annotated[str | None, typer.Option(help="swift, mkpn, kpn, kpn-separable, bpn or direct. [swift]")],
    "steps": Annotated[int | None, number(ranges.TRAINING_STEPS, "Length of the run. [20000, unless --minutes]")],
    "minutes": Annotated[
        float | None, number(ranges.TRAINING_MINUTES, "As many steps as fit, timed once at the start.")
    ],
    "width": Annotated[float | None, number(ranges.NETWORK_WIDTH, "Share of the preset's channels. [1]")],
    "colour": Annotated[str | None, typer.Option(help="grey, rgb or mosaic. [grey]")],
    "noise": Annotated[str | None, typer.Option(help="kpn, wide, camera or raw. [kpn]")],
    "batch": Annotated[int | None, number(ranges.BURSTS_IN_STEP, "Bursts in a step. [4]")],
    "rate": Annotated[float | None, number(ranges.LEARNING_RATE, "Highest learning rate. [0.0004]")],
    "start": Annotated[Path | None, typer.Option(help="A network's file to begin with.")],
    "seed": Annotated[int | None, number(ranges.SEED, "Seed of all randomness. [0]")],
    "settings": SettingsFile,
}


def read_settings(given: dict[str, Any]) -> Any:
    """Read the settings of a training from their file and the options that were given."""
    from klarsicht.burst.training.training import TrainSettings

    start = given.pop("start")
    return TrainSettings.read(given.pop("settings"), given | {"start": start and str(start)})


@app.command()
@add_options(TRAINING, read_settings)
def train(
    photos: Annotated[Path, typer.Option(help="A folder of clean RGB photographs, read at 8 bits.")],
    out: Annotated[Path, typer.Option(help="The network's file (.safetensors); the same command resumes.")],
    threads: Annotated[int, number(ranges.THREADS, "Threads of the network; others make bursts.")] = 1,
    *,
    settings: Any,
) -> None:
    """Train a network on synthetic bursts of your photographs.

    If it was stopped, the same command resumes.
    """
    from klarsicht.burst.training import training

    training.train(settings, photos, out, threads=threads)
    echo(f"network: {out}")


@app.command()
def synth(
    photos: Annotated[Path, typer.Argument(help="A folder of clean photographs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder for the bursts and set.json.")],
    name: Annotated[str, typer.Option("--set", help=SET_HELP)] = "grey-still",
    gains: Annotated[list[int] | None, number(ranges.GAIN, "1, 2, 4 or 8; may be repeated. [all]", "--gain")] = None,
    seed: Annotated[int, number(ranges.SEED, "The same seed, the same bytes.")] = 7,
) -> None:
    """Write synthetic bursts with their true pictures.

    The same photographs and seed give the same bytes everywhere.
    """
    from klarsicht.burst.synthesis import export

    made = export.write_set(photos, out, name=name, gains=gains or (), seed=seed)
    echo(f"{len(made)} photographs; set {made.name}, seed {made.seed}, sha256 {made.sha256}")


@app.command()
def evaluate(
    photos: Annotated[Path | None, typer.Option(help="A folder of photographs. [those of scikit-image]")] = None,
    checkpoints: Annotated[
        list[Path] | None, typer.Option("--checkpoint", help="A network's file or name; may be repeated.")
    ] = None,
    rows: Annotated[list[str] | None, typer.Option("--row", help="single, hdr+, ...; may be repeated. [all]")] = None,
    gains: Annotated[list[int] | None, number(ranges.GAIN, "1, 2, 4 or 8; may be repeated. [all]", "--gain")] = None,
    name: Annotated[str, typer.Option("--set", help=SET_HELP)] = "grey-still",
    seed: Annotated[int, number(ranges.SEED, "The same seed, the same bursts.")] = 7,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A folder for evaluation.json and .html.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Networks in float32, as their cards have it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print {row: {gain: {psnr, ssim, ...}}}.")] = False,
) -> None:
    """Measure quality and cost of networks and classical methods.

    Measured on synthetic bursts of photographs.
    """
    from klarsicht.burst.evaluation import comparison
    from klarsicht.cli import burst_tables

    evaluation = comparison.evaluate_all(photos, checkpoints or (), rows or (), gains or (), name, seed, exact)
    for line in burst_tables.protocol(evaluation):
        echo(line, err=as_json)
    if as_json:
        echo_block(json.dumps(evaluation.rows))
    else:
        echo_block("\n".join(burst_tables.scores(evaluation)))
    if out is not None:
        comparison.write_evaluation(evaluation, out)
        echo(f"page: {out / comparison.EVALUATION_PAGE}", err=as_json)


@app.command()
def weights(as_json: Annotated[bool, typer.Option("--json", help="Print the cards, {name: card}.")] = False) -> None:
    """List the networks that ship with klarsicht, and their results."""
    from klarsicht.burst.network import pretrained
    from klarsicht.cli import burst_tables

    networks = pretrained.list_networks()
    if as_json:
        echo_block(json.dumps({name: one.card for name, one in networks.items()}))
    else:
        echo_block(
            "\n\n".join("\n".join(burst_tables.network_card(one)) for one in networks.values()) or "none come along"
        )
