"""Output files of a denoised burst: the photograph, and optional files to judge it by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from klarsicht.burst.denoising import comparison_page
from klarsicht.burst.denoising.pipeline import DenoiseResult
from klarsicht.burst.files import dng, write_pictures
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.errors import unknown_name
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.pictures.encoded_pictures import png_bytes
from klarsicht.ground.pictures.pixel_depths import to_uint8
from klarsicht.ground.run_folder.manifest import to_json

OUTPUT_ENDINGS = (".dng", *write_pictures.WRITERS)
FURTHER_ENDINGS = {"--preview": (".jpg", ".jpeg"), "--ghost-map": (".png",), "--page": (".html", ".htm")}
"""Endings of further files, by their options: each has one format."""
GHOSTS = 2048  # side of the ghost map


@dataclass(frozen=True)
class Outputs:
    """Paths of the files to write; None where one is not wanted. photograph: a DNG, TIFF, PNG or (a small one) JPEG."""

    photograph: Path
    preview: Path | None = None
    ghost_map: Path | None = None
    page: Path | None = None
    report: Path | None = None

    @classmethod
    def from_paths(cls, out: Path, preview: Path | None, ghost_map: Path | None, page: Path | None) -> Outputs:
        """Build the outputs of a file with a known suffix, or of a folder with all outputs: one that exists, or a name
        without a suffix. Raises UsageError for another suffix, also of a further file."""
        for option, path in zip(FURTHER_ENDINGS, (preview, ghost_map, page), strict=True):
            if path is not None and path.suffix.lower() not in FURTHER_ENDINGS[option]:
                raise unknown_name(f"ending of {option}", path.suffix, FURTHER_ENDINGS[option])
        if out.suffix.lower() in OUTPUT_ENDINGS and not out.is_dir():
            return cls(out, preview, ghost_map, page)
        if out.suffix and not out.is_dir():
            raise unknown_name("ending of the output", out.suffix, OUTPUT_ENDINGS)
        return cls(
            photograph=out / "photograph",
            preview=preview or out / "preview.jpg",
            ghost_map=ghost_map or out / "ghosts.png",
            page=page or out / "page.html",
            report=out / "report.json",
        )

    def with_suffix_for(self, raw: bool) -> Outputs:
        """Complete the photograph's suffix, where it has none: .dng for raw frames, .tif otherwise."""
        if self.photograph.suffix:
            return self
        return replace(self, photograph=self.photograph.with_suffix(".dng" if raw else ".tif"))

    @property
    def paths(self) -> list[Path]:
        """All paths that may be written."""
        wanted = (self.with_suffix_for(raw=True).photograph, self.with_suffix_for(raw=False).photograph)
        others = (self.preview, self.ghost_map, self.page, self.report)
        return [*dict.fromkeys(wanted), *(path for path in others if path is not None)]


def write_outputs(outputs: Outputs, result: DenoiseResult) -> Iterator[tuple[str, Path]]:
    """Write each file atomically; yield its kind and its path."""
    renderer = Renderer.from_header(result.spool, result.burst.header)
    if outputs.photograph.suffix.lower() == ".dng":
        dng.write(result.spool, result.burst.header, result.residual_levels, outputs.photograph)
    else:
        write_pictures.WRITERS[outputs.photograph.suffix.lower()](renderer, outputs.photograph)
    yield "photograph", outputs.photograph
    if outputs.preview is not None:
        write_pictures.write_preview(renderer, outputs.preview)
        yield "preview", outputs.preview
    if outputs.ghost_map is not None:
        write_atomically(outputs.ghost_map, png_bytes(to_uint8(renderer.trust_map(GHOSTS))))
        yield "ghost map", outputs.ghost_map
    if outputs.page is not None:
        comparison_page.write_page(outputs.page, result, renderer)
        yield "page", outputs.page
    if outputs.report is not None:
        write_atomically(outputs.report, to_json(report(result)))
        yield "report", outputs.report


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
