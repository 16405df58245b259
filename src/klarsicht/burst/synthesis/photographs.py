"""The photographs of an evaluation: those in a folder, or those that scikit-image includes."""

from __future__ import annotations

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


def read_folder(path: Path, geometry: Geometry = KODAK) -> PhotographSet:
    """Read a folder's image files, by name, at 8 bits. Raises CorpusError, ImageError naming the file, Unreachable."""
    if not path.is_dir():
        raise CorpusError(
            "no such folder", got=str(path), rule="photographs are read from a folder", remedy="Check the path."
        )
    with translate_faults(path):
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in extensions())
    if not files:
        raise CorpusError(f"no photographs in {path}", remedy="Give a folder that holds PNG, JPEG or TIFF files.")
    photographs = []
    for file in files:
        with translate_faults(file):
            photographs.append(_read(file, geometry))
    return PhotographSet(tuple(file.name for file in files), tuple(photographs), geometry)


def _read(file: Path, geometry: Geometry) -> Photograph:
    """Read one photograph. Raises ImageError for a file that is no RGB photograph, or too small to cut a burst from."""
    picture = decode(file)
    with Image.open(file) as stored:
        mode = stored.mode
    if picture.mode != "RGB" or mode == "CMYK":
        rule = "photographs of the evaluation must be RGB"
        raise ImageError(f"{file.name} is not an RGB photograph", got=f"mode {mode}", rule=rule, remedy=_REMEDY)
    sides, need = sorted((picture.height, picture.width)), sorted(geometry.crop)
    if any(side < n for side, n in zip(sides, need, strict=True)):
        got, rule = f"{picture.height} x {picture.width}", f"bursts are cut from {' x '.join(map(str, geometry.crop))}"
        raise ImageError(
            f"{file.name} is too small", got=got, rule=rule, remedy="Leave smaller photographs out of the folder."
        )
    return np.asarray(picture)


_REMEDY = "Convert it, or leave it out of the folder."
