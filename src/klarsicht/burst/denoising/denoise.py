"""Public entry point: denoise a burst of photographs to one clean photograph.

for line in denoise([Path("burst/")], Path("clean.dng")):
    print(line)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from klarsicht.burst.denoising import work_folder
from klarsicht.burst.denoising.outputs import Outputs, write_outputs
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files import reading
from klarsicht.ground.user_arguments import check_arguments


@check_arguments
def denoise(
    frames: str | Path | Sequence[str | Path],
    out: str | Path,
    settings: DenoiseSettings | None = None,
    preview: Path | None = None,
    ghost_map: Path | None = None,
    page: Path | None = None,
) -> Iterator[str]:
    """Denoise files, and folders of them, into `out` (a .dng, .tif, .png or .jpg file, or a folder); yield messages for
    the user as results become known. Nothing is done before the first one is requested.

    settings: of the run; None: the defaults. preview, ghost_map, page: further files to write, a JPEG, a PNG and an
    HTML page. Inputs are never overwritten, outputs are replaced atomically. After an interruption the same call
    resumes.

    Raises InputError, UsageError, ModelError, StoreError, DiskFull, RunLocked, MissingExtra.
    """
    paths, out = [Path(one) for one in ([frames] if isinstance(frames, str | Path) else frames)], Path(out)
    files = reading.list_frames(paths)
    outputs = Outputs.from_paths(out, preview, ghost_map, page)
    work_folder.check_outputs(outputs.paths, list(files), reading.select_folders(paths))
    with denoise_frames(files, out, settings or DenoiseSettings()) as result:
        yield from result.lines
        for what, path in write_outputs(outputs.with_suffix_for(result.burst.header.is_raw), result):
            yield f"{what}: {path}"
