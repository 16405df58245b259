"""Output files of a denoised burst: their choice by what is asked for, and their writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from klarsicht.burst.denoising import comparison_page
from klarsicht.burst.denoising.comparison_page import WeightPainter
from klarsicht.burst.denoising.pipeline import DenoiseResult
from klarsicht.burst.files import dng, write_pictures
from klarsicht.burst.files.developed import JPEGS
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.errors import UsageError, unknown_name
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.pictures.encoded_pictures import png_bytes
from klarsicht.ground.pictures.pixel_depths import to_uint8
from klarsicht.ground.run_folder.manifest import to_json

OUTPUT_ENDINGS = (".dng", *write_pictures.WRITERS)
FURTHER = {
    "preview": ("--preview", (".jpg", ".jpeg"), "preview.jpg"),
    "ghost map": ("--ghost-map", (".png",), "ghosts.png"),
    "page": ("--page", (".html", ".htm"), "page.html"),
}
"""Option, endings (each has one format), and name in a folder of further files, by kind."""
GHOSTS = 2048  # side of the ghost map


def choose_outputs(out: Path, further: Mapping[str, Path | None]) -> dict[str, Path]:
    """Choose the files to write, by kind: a photograph of a known suffix and the further files given, or all of them in
    a folder, one that exists or a name without a suffix. Raises UsageError for another suffix."""
    files = {kind: path for kind, path in further.items() if path is not None}
    for kind, path in files.items():
        option, endings, _ = FURTHER[kind]
        if path.suffix.lower() not in endings:
            raise unknown_name(f"ending of {option}", path.suffix, endings)
    if out.suffix.lower() in OUTPUT_ENDINGS and not out.is_dir():
        return {"photograph": out, **files}
    if out.suffix and not out.is_dir():
        raise unknown_name("ending of the output", out.suffix, OUTPUT_ENDINGS)
    others = {kind: files.get(kind, out / name) for kind, (_, _, name) in FURTHER.items()}
    return {"photograph": out / "photograph", **others, "report": out / "report.json"}


def complete_suffix(outputs: dict[str, Path], raw: bool) -> dict[str, Path]:
    """Complete the photograph's suffix, where it has none: .dng for raw frames, .tif otherwise."""
    photograph = outputs["photograph"]
    return outputs if photograph.suffix else outputs | {"photograph": photograph.with_suffix(".dng" if raw else ".tif")}


def list_possible_files(outputs: dict[str, Path]) -> list[Path]:
    """List all files that may be written; a photograph without an ending may be one of two. Raises UsageError where two
    outputs are one file."""
    files = dict[Path, None]()
    for raw in (True, False):
        kinds = dict[Path, str]()
        for kind, path in complete_suffix(outputs, raw).items():
            if (other := kinds.setdefault(path.resolve(), kind)) != kind:
                raise UsageError(
                    f"{path} is wanted twice", got=f"for the {other} and for the {kind}",
                    rule="each output needs a name of its own", remedy="Give one of them another name.",
                )  # fmt: skip
            files[path] = None
    return list(files)


def write_outputs(
    outputs: Mapping[str, Path], result: DenoiseResult, painter: WeightPainter | None = None
) -> Iterator[str]:
    """Write each file atomically; yield a line for each, and one for the brightness of pictures. painter: draws the
    page's map of weights."""
    renderer = Renderer.from_header(result.spool, result.burst.header)
    if outputs["photograph"].suffix.lower() != ".dng" or "preview" in outputs or "page" in outputs:
        yield from renderer.lines

    def write_photograph(path: Path) -> None:
        if path.suffix.lower() == ".dng":
            dng.write(result.spool, result.burst.header, result.residual_levels, path)
        else:
            write_pictures.WRITERS[path.suffix.lower()](renderer, path)

    writers: dict[str, Callable[[Path], None]] = {
        "photograph": write_photograph,
        "preview": lambda path: write_pictures.write_preview(renderer, path),
        "ghost map": lambda path: write_atomically(path, png_bytes(to_uint8(renderer.trust_map(GHOSTS)))),
        "page": lambda path: comparison_page.write_page(path, result, renderer, painter),
        "report": lambda path: write_atomically(path, to_json(report(result))),
    }
    for kind, path in outputs.items():
        writers[kind](path)
        yield f"{kind}: {path}"
        height, width = result.burst.header.size
        if kind == "photograph" and path.suffix.lower() in JPEGS and max(height, width) > write_pictures.PREVIEW:
            yield (
                f"{path.name} has at most {write_pictures.PREVIEW:,} pixels a side, of {width:,} x {height:,}: "
                "an output that ends in .png, .tif or .dng has all"
            )


def report(result: DenoiseResult) -> dict[str, object]:
    """Summarise the frames used, the noise and the result as plain values."""
    frames = result.burst.frames
    return {
        "reference": frames[result.frame_numbers[0]].name,
        "frames": [frames[i].name for i in result.frame_numbers],
        "dropped": list(result.rejections),
        "hot pixels": result.hot,
        "gains": [frames[i].gain for i in result.frame_numbers],
        "noise": {"source": result.noise.source, "profile": [level.profile for level in result.noise.levels]},
        "remaining noise": [level.profile for level in result.residual_levels],
        "filter": result.filter.name,
        "shares": dict(result.shares),
        "residual over noise": result.residual,
    }
