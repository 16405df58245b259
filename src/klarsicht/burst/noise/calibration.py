"""Calibration of a camera's noise from frames of a still scene, saved for later bursts of the same camera and ISO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from klarsicht.burst.data.photograph import AS_WRITTEN, ReadSettings
from klarsicht.burst.files import loading, reading
from klarsicht.burst.noise import sources
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.disk import temporary_folder
from klarsicht.ground.ranges import ISO


def calibrate(
    frames: Sequence[Path],
    out: Path | None = None,
    camera: str | None = None,
    iso: int | None = None,
    settings: ReadSettings = AS_WRITTEN,
) -> Iterator[str]:
    """Estimate the noise and add it to the file `out`, or to the user's own; yield lines for the user.

    Raises InputError where neither the files nor the caller give the camera and ISO.
    """
    if iso is not None:
        ISO.require("iso", iso)
    files = reading.list_frames(frames)
    if (file := out or sources.default_file()) is None:
        rule = "without --out, it is the user's own file"
        raise InputError(
            "no file for the calibration", got="a user without a home folder", rule=rule, remedy="Give --out."
        )
    with temporary_folder() as folder:
        burst = loading.load_frames(files, folder, settings=settings)
        estimate = sources.estimate_from_frames(burst)
    camera, iso = camera or burst.header.camera, iso or burst.header.iso
    if not camera or not iso:
        missing = "camera" if not camera else "ISO"
        raise InputError(f"{files[0].name} does not say its {missing}", remedy="Give --camera and --iso.")
    sources.write_calibration(file, camera, iso, estimate.noise, len(files))
    level = estimate.noise
    yield f"{camera}, ISO {iso}: read deviation {level.read:.3g}, shot coefficient {level.shot:.3g} (of white)"
    yield f"from {estimate.blocks} flat blocks of {len(files)} frame{'s' * (len(files) > 1)}"
    if not estimate.read_known:
        yield "read noise uncertain: photograph something dark and flat beside something bright"
    yield f"calibration: {file}"
