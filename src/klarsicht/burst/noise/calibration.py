"""A camera's noise measured on frames of a still scene, and saved for later bursts of the same camera and ISO."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from klarsicht.burst.files import loading, reading
from klarsicht.burst.noise import sources
from klarsicht.ground.errors import InputError


def calibrate(
    frames: Sequence[Path],
    out: Path | None = None,
    camera: str | None = None,
    iso: int | None = None,
    linear: bool = False,
) -> Iterator[str]:
    """Adds to the file `out`, or to the user's own; lines for people.

    Raises InputError where neither the files nor the caller say which camera and ISO.
    """
    files = reading.frames(frames)
    file = out or sources.default_file()
    with tempfile.TemporaryDirectory(prefix="klarsicht-") as folder:
        wound = loading.load_frames(files, Path(folder), linear=linear)
        found = sources.blind(wound)
    camera, iso = camera or wound.header.camera, iso or wound.header.iso
    if not camera or not iso:
        missing = "camera" if not camera else "ISO"
        raise InputError(f"{files[0].name} does not say its {missing}", remedy="Give --camera and --iso.")
    sources.remember(file, camera, iso, found.noise, len(files))
    level = found.noise
    yield f"{camera}, ISO {iso}: read deviation {level.read:.3g}, shot coefficient {level.shot:.3g} (of white)"
    yield f"from {found.blocks} flat blocks of {len(files)} frame{'s' * (len(files) > 1)}"
    if not found.read_known:
        yield "read noise not identifiable, as nothing is dark: photograph something dark beside something bright"
    yield f"calibration: {file}"
