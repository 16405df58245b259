"""Open single pictures, of files, folders and memory, as the corpus of a run is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.corpus_formats import holds_several
from klarsicht.audit.explanation.data.pictures import image_endings
from klarsicht.audit.explanation.data.sequences import open_sequence
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import open_data
from klarsicht.ground.errors import InputError
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.progress import note


@dataclass(frozen=True)
class NamedPicture:
    """Picture of a row of a corpus, by the name that it is given to a person."""

    name: str
    corpus: Corpus
    row: int


def list_pictures(pictures: Sequence[str | Path | Image.Image], any_ending: bool) -> Iterator[str | Image.Image]:
    """List Pillow images, files, and those in folders, sorted. Of folders, hidden files are left out, and with a note
    those that are no images by their ending, unless any ending is one: a function of the user decodes them.

    Raises:
        InputError: there is no such file or folder, or no image in a folder.
    """
    for one in pictures:
        if isinstance(one, Image.Image):
            yield one
        elif Path(one).is_dir():
            yield from _list_folder(Path(one), any_ending)
        elif Path(one).exists():
            yield str(one)
        else:
            raise InputError("no such picture", got=one, rule="a file, or a folder of files", remedy="Check the path.")


def _list_folder(folder: Path, any_ending: bool) -> list[str]:
    """List the images in a folder; raises InputError where there is none."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    images = [
        str(file) for file in files if any_ending or file.suffix.lower() in image_endings() or holds_several(str(file))
    ]
    if not images:
        raise InputError("no picture in this folder", got=folder, remedy="Give a folder with pictures.")
    if others := len(files) - len(images):
        note(f"left out of {folder}: {others} file{'s' * (others > 1)}, no image by the ending")
    return images


def open_pictures(
    pictures: Sequence[str | Image.Image], settings: AuditSettings, form: ArrayForm | None
) -> list[NamedPicture]:
    """Open pictures as the corpus of a run: files by its `--decode`, all within its limits, in the form that its model
    takes. A Pillow image has the name of its file, else its number among the pictures, from 1.

    Files of several pictures (NPZ, HDF5, parquet, WebDataset, Arrow) are opened as corpora.

    Raises:
        CorpusError: a file of several pictures is not as its format says.
    """
    files = [one for one in pictures if isinstance(one, str)]
    row_of = {file: row for row, file in enumerate(file for file in dict.fromkeys(files) if not holds_several(file))}
    names, labels = list(row_of), ("",) * len(row_of)
    together = Corpus(names, names, labels, decoder=settings.decode or "", form=form) if row_of else None
    named: list[NamedPicture] = []
    for number, one in enumerate(pictures, 1):
        if isinstance(one, Image.Image):
            name = str(getattr(one, "filename", "") or f"picture {number}")
            corpus = open_sequence([(one, name)]).as_arrays(form)  # nobody asks for its label
            named.append(NamedPicture(name, corpus.with_limits(settings.white_level, settings.megapixels), 0))
        elif together is not None and one in row_of:
            corpus = together.with_limits(settings.white_level, settings.megapixels)
            named.append(NamedPicture(one, corpus, row_of[one]))
        else:
            corpus = open_data(settings, one).as_arrays(form)
            named += [NamedPicture(f"{one}#{row}", corpus, row) for row in range(len(corpus))]
    return named
