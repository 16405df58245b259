"""What a denoised burst is written to: the photograph, and beside it what helps to judge it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from klarsicht.burst.denoise import comparison_page
from klarsicht.burst.denoise.pipeline import Denoised
from klarsicht.burst.files import dng, write_pictures
from klarsicht.burst.files.rendering import Renderer
from klarsicht.ground.disk import write_atomically
from klarsicht.ground.errors import unknown_name
from klarsicht.ground.images import png_bytes, to_uint8
from klarsicht.ground.manifest import to_json

ENDINGS = (".dng", *write_pictures.WRITERS)
GHOSTS = 2048  # side of the map


@dataclass(frozen=True)
class Outputs:
    """Files to write; None is not wanted. photograph: a DNG, TIFF, PNG or (a small one) JPEG."""

    photograph: Path
    preview: Path | None = None
    ghost_map: Path | None = None
    page: Path | None = None
    report: Path | None = None

    @classmethod
    def at(cls, out: Path, preview: Path | None, ghost_map: Path | None, page: Path | None) -> Outputs:
        """A file of a known ending; without one, a folder of everything. Raises UsageError for another ending."""
        if out.suffix.lower() in ENDINGS:
            return cls(out, preview, ghost_map, page)
        if out.suffix and not out.is_dir():
            raise unknown_name("ending of the output", out.suffix, ENDINGS)
        return cls(
            photograph=out / "photograph",
            preview=preview or out / "preview.jpg",
            ghost_map=ghost_map or out / "ghosts.png",
            page=page or out / "page.html",
            report=out / "report.json",
        )

    def settled(self, colour: str) -> Outputs:
        """The photograph's ending, where it was not said: a mosaic stays one."""
        if self.photograph.suffix:
            return self
        return replace(self, photograph=self.photograph.with_suffix(".dng" if colour == "mosaic" else ".tif"))

    @property
    def paths(self) -> list[Path]:
        """All that may be written."""
        wanted = (self.settled("mosaic").photograph, self.settled("rgb").photograph)
        others = (self.preview, self.ghost_map, self.page, self.report)
        return [*dict.fromkeys(wanted), *(path for path in others if path is not None)]


def write(outputs: Outputs, found: Denoised) -> Iterator[tuple[str, Path]]:
    """Each file, whole or not at all; what it is, and where."""
    room = Renderer.of(found.spool, found.roll.header)
    if outputs.photograph.suffix.lower() == ".dng":
        dng.write(found.spool, found.roll.header, found.remaining, outputs.photograph)
    else:
        write_pictures.WRITERS[outputs.photograph.suffix.lower()](room, outputs.photograph)
    yield "photograph", outputs.photograph
    if outputs.preview is not None:
        write_pictures.write_preview(room, outputs.preview)
        yield "preview", outputs.preview
    if outputs.ghost_map is not None:
        write_atomically(outputs.ghost_map, png_bytes(to_uint8(room.trust(GHOSTS))))
        yield "ghost map", outputs.ghost_map
    if outputs.page is not None:
        comparison_page.write(outputs.page, found, room)
        yield "page", outputs.page
    if outputs.report is not None:
        write_atomically(outputs.report, to_json(report(found)))
        yield "report", outputs.report


def report(found: Denoised) -> dict[str, object]:
    """Plain values: what was used, and what came of it."""
    frames = found.roll.frames
    return {
        "reference": frames[found.used[0]].name,
        "frames": [frames[i].name for i in found.used],
        "dropped": list(found.dropped),
        "hot pixels": found.hot,
        "gains": [frames[i].gain for i in found.used],
        "noise": {"source": found.noise.source, "profile": [level.profile for level in found.noise.levels]},
        "remaining noise": [level.profile for level in found.remaining],
        "filter": found.filter.name,
        "shares": dict(found.shares),
        "residual over noise": found.residual,
    }
