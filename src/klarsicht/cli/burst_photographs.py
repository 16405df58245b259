"""`klarsicht burst denoise`, `calibrate`, `explain`, `export` and `check`: commands for a user's photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from klarsicht.cli.echo import echo
from klarsicht.cli.options import number
from klarsicht.ground.ranges import ISO, MEGAPIXELS, MEMORY_GB, STRENGTH, THREADS, WHITE_LEVEL

Frames = Annotated[list[Path], typer.Argument(help="Photographs of one scene, or a folder of them.")]
Checkpoint = Annotated[Path | None, typer.Option(help="A network's file. [the one that ships]")]
Noise = Annotated[str | None, typer.Option(help="READ,SHOT: deviation, and variance at white. [found]")]
Calibration = Annotated[Path | None, typer.Option(help="A file of `burst calibrate`. [the user's]")]
Reference = Annotated[str | None, typer.Option(help="A frame's name or number. [the sharpest]")]
Memory = Annotated[float, number(MEMORY_GB, "GB, everything included.")]
Threads = Annotated[int | None, number(THREADS, "Threads. [all cores]")]
Linear = Annotated[bool, typer.Option("--linear", help="Codes of TIFF, PNG, JPEG and HEIC files are light.")]

WhiteLevel = Annotated[int | None, number(WHITE_LEVEL, "Code of white in 16-bit TIFF and PNG files. [65535]")]
Exact = Annotated[bool, typer.Option("--exact", help="The network in float32, also where bfloat16 is faster.")]
Bayer = Annotated[str | None, typer.Option(help="How Bayer frames are filtered: rgb or planes. [by their noise]")]
KeepHotPixels = Annotated[bool, typer.Option("--keep-hot-pixels", help="Hot and dead pixels stay as they are.")]
Megapixels = Annotated[float | None, number(MEGAPIXELS, "Largest frame that is read, in megapixels. [220]")]


def denoise(
    frames: Frames,
    out: Annotated[Path, typer.Option("-o", "--out", help="A .dng, .tif, .png or .jpg file, or a folder.")],
    checkpoint: Checkpoint = None,
    noise: Noise = None,
    calibration: Calibration = None,
    reference: Reference = None,
    strength: Annotated[
        float, number(STRENGTH, "Strength of denoising: 0 leaves the reference, 1 is the full result.")
    ] = 1.0,
    preview: Annotated[Path | None, typer.Option(help="A small developed picture (.jpg).")] = None,
    ghost_map: Annotated[Path | None, typer.Option(help="Where the burst was trusted (.png).")] = None,
    page: Annotated[Path | None, typer.Option(help="Before and after, in one file (.html).")] = None,
    memory: Memory = 2.0,
    threads: Threads = None,
    linear: Linear = False,
    white_level: WhiteLevel = None,
    megapixels: Megapixels = None,
    exact: Exact = False,
    bayer: Bayer = None,
    keep_hot_pixels: KeepHotPixels = False,
) -> None:
    """Make one clean photograph from a burst.

    If it was stopped, the same command resumes.
    """
    from klarsicht.burst.denoising.denoise import denoise as denoise_files

    settings = _settings(
        checkpoint, noise, calibration, reference, strength=strength, memory=memory, threads=threads, linear=linear,
        white_level=white_level, megapixels=megapixels, exact=exact, bayer=bayer,
        keep_hot_pixels=keep_hot_pixels,
    )  # fmt: skip
    for line in denoise_files(frames, out, settings, preview=preview, ghost_map=ghost_map, page=page):
        echo(line)


def calibrate(
    frames: Frames,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The file to add to. [the user's]")] = None,
    camera: Annotated[str | None, typer.Option(help="Name of the camera, if the files lack it. [theirs]")] = None,
    iso: Annotated[int | None, number(ISO, "ISO, if the files lack it. [theirs]")] = None,
    linear: Linear = False,
    white_level: WhiteLevel = None,
    megapixels: Megapixels = None,
) -> None:
    """Measure a camera's noise on frames of a still scene.

    It is saved by camera and ISO, and found again by the other commands.
    """
    from klarsicht.burst.noise import calibration

    settings = _settings(linear=linear, white_level=white_level, megapixels=megapixels)
    for line in calibration.calibrate(frames, out, camera=camera, iso=iso, settings=settings.read_settings):
        echo(line)


def explain(
    frames: Frames,
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder for pictures, arrays and a page.")],
    checkpoint: Checkpoint = None,
    noise: Noise = None,
    calibration: Calibration = None,
    reference: Reference = None,
    memory: Memory = 2.0,
    threads: Threads = None,
    linear: Linear = False,
    white_level: WhiteLevel = None,
    megapixels: Megapixels = None,
    exact: Exact = False,
    bayer: Bayer = None,
    keep_hot_pixels: KeepHotPixels = False,
) -> None:
    """Show what each frame and kernel size contributed.

    Also shows where one frame alone was trusted.
    """
    from klarsicht.burst.denoising.explain import explain as explain_burst

    settings = _settings(
        checkpoint, noise, calibration, reference, memory=memory, threads=threads, linear=linear,
        white_level=white_level, megapixels=megapixels, exact=exact, bayer=bayer,
        keep_hot_pixels=keep_hot_pixels,
    )  # fmt: skip
    for line in explain_burst(frames, out, settings):
        echo(line)


def check(
    frames: Frames,
    checkpoint: Checkpoint = None,
    noise: Noise = None,
    calibration: Calibration = None,
    reference: Reference = None,
    hold_out: Annotated[str | None, typer.Option(help="The frame to hold out. [a blurred one that agrees]")] = None,
    threads: Threads = None,
    linear: Linear = False,
    white_level: WhiteLevel = None,
    megapixels: Megapixels = None,
    exact: Exact = False,
    bayer: Bayer = None,
    keep_hot_pixels: KeepHotPixels = False,
) -> None:
    """Test the result of a burst on a frame that is held out.

    It should differ from the result of the other frames by noise alone.
    """
    from klarsicht.burst.denoising import held_out
    from klarsicht.ground.machine.disk import temporary_folder

    settings = _settings(
        checkpoint, noise, calibration, reference, threads=threads, linear=linear, white_level=white_level,
        megapixels=megapixels, exact=exact, bayer=bayer,
        keep_hot_pixels=keep_hot_pixels,
    )  # fmt: skip
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


def _settings(
    checkpoint: Path | None = None,
    noise: str | None = None,
    calibration: Path | None = None,
    reference: str | None = None,
    **others: Any,
) -> Any:
    from klarsicht.burst.denoising.pipeline import DenoiseSettings

    options: dict[str, Any] = {
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "noise": noise,
        "calibration": None if calibration is None else str(calibration),
        "reference": reference,
        **others,
    }
    return DenoiseSettings.from_mapping({name: value for name, value in options.items() if value is not None})
