"""Public entry point: denoise a burst of photographs, or each burst of a folder, to one clean photograph, and optional
files to judge it by.

for line in denoise([Path("burst/")], Path("clean.dng")):
    print(line)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from klarsicht.burst.denoising import burst_folder, work_folder
from klarsicht.burst.denoising.burst_folder import NAME
from klarsicht.burst.denoising.comparison_page import WeightPainter
from klarsicht.burst.denoising.outputs import choose_outputs, complete_suffix, list_possible_files, write_outputs
from klarsicht.burst.denoising.pipeline import DenoiseSettings, denoise_frames
from klarsicht.burst.files import captures, reading
from klarsicht.ground.errors import UsageError
from klarsicht.ground.user_arguments import check_arguments


@check_arguments
def denoise(
    frames: str | Path | Sequence[str | Path],
    out: str | Path,
    settings: DenoiseSettings | None = None,
    preview: Path | None = None,
    ghost_map: Path | None = None,
    page: Path | None = None,
    pause: float | None = None,
    dry_run: bool = False,
    painter: WeightPainter | None = None,
) -> Iterator[str]:
    """Denoise files, and folders of them, into `out` (a .dng, .tif, .png or .jpg file, or a folder); yield messages for
    the user as results become known, beginning when the first is requested. preview, ghost_map, page: further files to
    write, a JPEG, a PNG and an HTML page. Inputs are never overwritten, outputs are replaced atomically, and after an
    interruption the same call resumes.

    With {} in `out` and in the further files, the frames are those of several bursts, and {} becomes the name of each,
    as in clean/{}.dng. A burst whose outputs were made of the same frames by the same settings is skipped; one that
    fails is said, and does not stop the others. pause: seconds between two frames of a burst at most, 2 if None.
    dry_run: yield bursts and outputs, and make none. painter: draws a map of the weights for the page
    (`bridge.StrategyMap` is one).

    Raises InputError, UsageError, ModelError, StoreError, DiskFull, RunLocked, Unreachable, MissingExtra.
    """
    paths, out = [Path(one) for one in ([frames] if isinstance(frames, str | Path) else frames)], Path(out)
    files, folders = reading.list_frames(paths), reading.select_folders(paths)
    further = {"preview": preview, "ghost map": ghost_map, "page": page}
    settings = settings or DenoiseSettings()
    if NAME in str(out):
        pause = captures.PAUSE if pause is None else pause
        yield from burst_folder.denoise_bursts(files, folders, out, further, settings, pause, dry_run, painter)
        return
    if pause is not None:
        raise UsageError("--pause separates bursts", rule="-o has {} then", remedy="Give -o as in 'clean/{}.dng'.")
    outputs = choose_outputs(out, further)
    work_folder.check_outputs(list_possible_files(outputs), list(files), folders)
    if dry_run:
        yield f"{outputs['photograph']}: {len(files)} frames"
        return
    yield from (f"{path} exists and will be replaced" for path in outputs.values() if path.is_file())
    painter = painter if "page" in outputs else None
    with denoise_frames(files, out, settings, observe=painter.observe if painter else None) as result:
        yield from result.lines
        yield from write_outputs(complete_suffix(outputs, result.burst.header.is_raw), result, painter)
