"""The photographs of an evaluation: those in a folder, or those that scikit-image includes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from klarsicht.burst.synthesis.benchmark_sets import KODAK
from klarsicht.burst.synthesis.scenes import Geometry, Photograph
from klarsicht.ground.errors import CorpusError, ImageError, MissingExtra
from klarsicht.ground.machine.disk import translate_faults
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.optional import install_command
from klarsicht.ground.pictures.images import decode, extensions

PACKAGED = ("astronaut", "chelsea", "coffee")  # stored losslessly
PACKAGED_GEOMETRY = Geometry(scale=2, height=112, width=192, reach=16)
LEAVE_OUT = "Leave smaller photographs out of the folder."
MOST_LISTED = 5  # photographs that an error lists


@dataclass(frozen=True, eq=False)
class PhotographSet:
    """Photographs (H, W, 3) with their names, and the geometry of the bursts cut from them."""

    names: tuple[str, ...]
    photographs: tuple[Photograph, ...]
    geometry: Geometry


def packaged_photographs() -> PhotographSet:
    """Load the photographs that scikit-image includes. Raises MissingExtra without scikit-image."""
    try:
        from skimage import data
    except ImportError as error:
        if is_out_of_memory(error):
            raise
        remedy = f"Give a folder of photographs. {install_command('demo')}."
        raise MissingExtra("scikit-image is not installed", rule="its photographs are used", remedy=remedy) from error
    names = tuple(f"scikit-image {name}" for name in PACKAGED)
    return PhotographSet(names, tuple(getattr(data, name)() for name in PACKAGED), PACKAGED_GEOMETRY)


def read_folder(path: Path, geometry: Geometry = KODAK, remedy: str = LEAVE_OUT) -> PhotographSet:
    """Read a folder's image files, by name, at 8 bits. remedy: where some are too small to cut a burst from. Raises
    CorpusError, ImageError naming the file, or all that are too small, Unreachable."""
    if not path.is_dir():
        raise CorpusError(
            "no such folder", got=str(path), rule="photographs are read from a folder", remedy="Check the path."
        )
    with translate_faults(path):
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in extensions())
    if not files:
        raise CorpusError(f"no photographs in {path}", remedy="Give a folder that holds PNG, JPEG or TIFF files.")
    photographs, small = [], {}
    for file in files:
        with translate_faults(file):
            photograph = _read(file)
        if is_cut_from(photograph, geometry):
            photographs.append(photograph)
        else:
            small[file.name] = f"{photograph.shape[0]} x {photograph.shape[1]}"
    if small:
        raise _too_small(small, len(files), geometry, remedy)
    return PhotographSet(tuple(file.name for file in files), tuple(photographs), geometry)


def is_cut_from(photograph: Photograph, geometry: Geometry) -> bool:
    """Whether a burst can be cut from a photograph, upright or turned."""
    return all(side >= need for side, need in zip(sorted(photograph.shape[:2]), sorted(geometry.crop), strict=True))


def _too_small(sizes: Mapping[str, str], photographs: int, geometry: Geometry, remedy: str) -> ImageError:
    """Make the error of photographs that are too small, by their names and sizes, in a folder of so many."""
    rule = f"bursts are cut from {' x '.join(map(str, geometry.crop))}"
    if len(sizes) == 1:
        ((name, size),) = sizes.items()
        return ImageError(f"{name} is too small", got=size, rule=rule, remedy=remedy)
    listed = [f"{name} of {size}" for name, size in sizes.items()]
    more = [f"{len(listed) - MOST_LISTED} more"] if len(listed) > MOST_LISTED else []
    got = ", ".join([*listed[:MOST_LISTED], *more])
    return ImageError(f"{len(listed)} of {photographs} photographs are too small", got=got, rule=rule, remedy=remedy)


def _read(file: Path) -> Photograph:
    """Read one photograph. Raises ImageError for a file that is no RGB photograph."""
    picture = decode(file)
    with Image.open(file) as stored:
        mode = stored.mode
    if picture.mode != "RGB" or mode == "CMYK":
        raise ImageError(
            f"{file.name} is not an RGB photograph", got=f"mode {mode}",
            rule="photographs of the evaluation must be RGB", remedy="Convert it, or leave it out of the folder.",
        )  # fmt: skip
    return np.asarray(picture)
