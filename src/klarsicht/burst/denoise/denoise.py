"""The easy door: a burst of photographs in, one clean photograph out, on any machine.

for line in denoise([Path("burst/")], Path("clean.dng")):
    print(line)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from klarsicht.burst.denoise import work_folder
from klarsicht.burst.denoise.outputs import Outputs, write
from klarsicht.burst.denoise.pipeline import DenoiseSettings, denoised
from klarsicht.burst.files import reading


def denoise(
    frames: Sequence[Path],
    out: Path,
    settings: DenoiseSettings | None = None,
    preview: Path | None = None,
    ghost_map: Path | None = None,
    page: Path | None = None,
) -> Iterator[str]:
    """Denoises files and folders of them into `out` (a .dng, .tif, .png or .jpg file, or a folder); lines for people,
    as things become known. Nothing happens before the first is asked for.

    Inputs are never overwritten, outputs replaced as a whole. Stopped at any moment, the same call resumes.

    Raises InputError, UsageError, ModelError, StoreError, DiskFull, RunLocked, MissingExtra.
    """
    files = reading.frames(frames)
    outputs = Outputs.at(out, preview, ghost_map, page)
    work_folder.refuse_inputs(outputs.paths, list(files), reading.folders(frames))
    with denoised(files, out, settings or DenoiseSettings()) as found:
        yield from found.lines
        for what, path in write(outputs.settled(found.roll.header.colour), found):
            yield f"{what}: {path}"
