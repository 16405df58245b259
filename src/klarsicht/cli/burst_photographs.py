"""`klarsicht burst denoise`, `calibrate`, `explain`, `export` and `check`: commands for a user's photographs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from klarsicht.cli.echo import echo
from klarsicht.cli.options import Command, add_options, number
from klarsicht.ground import ranges


def check_frames_first(command: Command) -> Command:
    """Make a command check that `frames` lead to photographs before what denoises them is imported, which takes
    seconds."""

    @wraps(command)
    def checked_command(*arguments: Any, frames: list[Path], **values: Any) -> Any:
        from klarsicht.burst.files import reading

        reading.list_frames(frames)
        return command(*arguments, frames=frames, **values)

    return checked_command


Frames = Annotated[list[Path], typer.Argument(help="Photographs of one scene, or a folder of them.")]
READING = {
    "linear": Annotated[
        bool | None, typer.Option("--linear", help="Codes of TIFF, PNG, JPEG and HEIC files are light.")
    ],
    "white_level": Annotated[
        int | None, number(ranges.WHITE_LEVEL, "Code of white in 16-bit TIFF and PNG files. [65535]")
    ],
    "megapixels": Annotated[
        float | None, number(ranges.MEGAPIXELS, "Largest frame that is read, in megapixels. [220]")
    ],
}
BY_NETWORK = READING | {
    "checkpoint": Annotated[Path | None, typer.Option(help="A network's file. [the one that ships]")],
    "noise": Annotated[str | None, typer.Option(help="READ,SHOT: deviation, and variance at white. [found]")],
    "calibration": Annotated[Path | None, typer.Option(help="A file of `burst calibrate`. [the user's]")],
    "reference": Annotated[str | None, typer.Option(help="A frame's name or number. [the sharpest]")],
    "threads": Annotated[int | None, number(ranges.THREADS, "Threads. [all cores]")],
    "exact": Annotated[
        bool | None, typer.Option("--exact", help="The network in float32, also where bfloat16 is faster.")
    ],
    "bayer": Annotated[str | None, typer.Option(help="How Bayer frames are filtered: rgb or planes. [by their noise]")],
    "keep_hot_pixels": Annotated[
        bool | None, typer.Option("--keep-hot-pixels", help="Hot and dead pixels stay as they are.")
    ],
    "dark": Annotated[list[Path] | None, typer.Option(help="Dark frames, or a folder of them; may be repeated.")],
}
MERGING = BY_NETWORK | {
    "fast": Annotated[bool | None, typer.Option("--fast", help="Merge by frequency, without the network.")]
}
MEMORY = {"memory": Annotated[float | None, number(ranges.MEMORY_GB, "GB, everything included. [2]")]}
OUT_HELP = (
    "A .dng, .tif, .png or .jpg file (.jpg: made smaller, to 2048 pixels a side), or a folder. {} becomes the name of "
    "each burst, as in 'clean/{}.dng'."
)
PAUSE_HELP = "With {} in -o: seconds between two frames of a burst at most. [2]"
HOLD_OUT_HELP = "The frame to hold out. [the least sharp frame that agrees with the reference]"
STRENGTH_HELP = "Strength of denoising: 0 leaves the reference, 1 is the full result. [1]"

RESULT = {
    "strength": Annotated[float | None, number(ranges.STRENGTH, STRENGTH_HELP)],
    "double": Annotated[
        bool | None, typer.Option("--double", help="Twice the resolution, from raw frames shifted by hand.")
    ],
}


def make_settings(given: Mapping[str, Any]) -> Any:
    """Make settings of the options that were given; paths become texts."""
    from klarsicht.burst.denoising.pipeline import DenoiseSettings

    texts = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    if dark := given.get("dark"):
        texts["dark"] = tuple(map(str, dark))
    return DenoiseSettings.read(None, {name: value for name, value in texts.items() if value != []})


@check_frames_first
@add_options(MERGING | MEMORY | RESULT, make_settings)
def denoise(
    frames: Frames,
    out: Annotated[Path, typer.Option("-o", "--out", help=OUT_HELP)],
    preview: Annotated[Path | None, typer.Option(help="A small developed picture (.jpg).")] = None,
    ghost_map: Annotated[Path | None, typer.Option(help="Where the burst was trusted (.png).")] = None,
    page: Annotated[Path | None, typer.Option(help="Before and after, in one file (.html).")] = None,
    pause: Annotated[float | None, number(ranges.PAUSE, PAUSE_HELP)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List bursts and outputs; make none.")] = False,
    *,
    settings: Any,
) -> None:
    """Make one clean photograph from a burst.

    With {} in -o, one from each burst of a folder. If it was stopped, the same command resumes.
    """
    from klarsicht.burst.denoising.denoise import denoise as denoise_files

    painter = None
    if page is not None or not out.suffix:
        from klarsicht.bridge.strategy_pictures import StrategyMap

        painter = StrategyMap()
    further = {"preview": preview, "ghost_map": ghost_map, "page": page}
    for line in denoise_files(frames, out, settings, **further, pause=pause, dry_run=dry_run, painter=painter):
        echo(line)


@check_frames_first
@add_options(READING, make_settings)
def calibrate(
    frames: Frames,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The file to add to. [the user's]")] = None,
    camera: Annotated[str | None, typer.Option(help="Name of the camera, if the files lack it. [theirs]")] = None,
    iso: Annotated[int | None, number(ranges.ISO, "ISO, if the files lack it. [theirs]")] = None,
    *,
    settings: Any,
) -> None:
    """Measure a camera's noise on frames of a still scene.

    It is saved by camera and ISO, and found again by the other commands.
    """
    from klarsicht.burst.noise import calibration

    for line in calibration.calibrate(frames, out, camera=camera, iso=iso, settings=settings.read_settings):
        echo(line)


@check_frames_first
@add_options(MERGING | MEMORY, make_settings)
def explain(
    frames: Frames,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder for pictures, arrays and a page.")],
    *,
    settings: Any,
) -> None:
    """Show what each frame and kernel size contributed.

    Also shows where one frame alone was trusted.
    """
    from klarsicht.burst.denoising.explain import explain as explain_burst

    for line in explain_burst(frames, out, settings):
        echo(line)


@check_frames_first
@add_options(MERGING, make_settings)
def check(
    frames: Frames,
    hold_out: Annotated[str | None, typer.Option(help=HOLD_OUT_HELP)] = None,
    *,
    settings: Any,
) -> None:
    """Test the result of a burst on a frame that is held out.

    It should differ from the result of the other frames by noise alone.
    """
    from klarsicht.burst.denoising import held_out
    from klarsicht.ground.machine.disk import temporary_folder

    with temporary_folder() as folder:
        lines, verdict = held_out.check_held_out(frames, settings, folder, hold_out)
    for line in (*lines, *verdict.lines):
        echo(line)


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A network's file.")],
    onnx: Annotated[Path, typer.Option("--onnx", help="The file to write (.onnx).")],
) -> None:
    """Write a network as an ONNX file, checked against the network.

    The file takes one tile of aligned frames.
    """
    from klarsicht.burst.network import onnx_export

    apart = onnx_export.export(checkpoint, onnx)
    echo(f"ONNX: {onnx}; largest difference from the network {apart:.1e}")
