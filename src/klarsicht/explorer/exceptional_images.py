"""Images that do not follow the surroundings of their class, for a gallery of their own and for exports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from klarsicht.audit.results.surroundings import (
    PLACES_TABLE,
    SURROUNDINGS_FILE,
    SURROUNDINGS_STEP,
    PlacesRow,
    Surroundings,
    is_examined,
    read_surroundings,
    unpack_places,
)
from klarsicht.explorer.run_reader import RunReader
from klarsicht.ground.arrays import Bools

MOST_EXCEPTIONS, SHOWN_USUAL = 300, 6  # images of a class that are shown: exceptions, and others beside them


@dataclass(frozen=True)
class ExaminedImages:
    """Surroundings that `audit shortcuts` found in a run, and its rows of images by their number."""

    surroundings: Surroundings
    images: dict[int, PlacesRow]

    @property
    def exceptions(self) -> list[PlacesRow]:
        """Images on another side than their label, the clearest first; none where no shortcut was found."""
        odd = [one for one in self.images.values() if one["side"] != one["target"]] if self.surroundings.found else []
        return sorted(odd, key=lambda one: one["margin"])

    def own_places(self, row: int) -> Bools | None:
        """Return the own places (h, w) of an image; None of one that was not examined."""
        return unpack_places(self.images[row]) if row in self.images else None


def read_examined(reader: RunReader) -> ExaminedImages | None:
    """Read what was found of surroundings in a run; None where they were not examined."""
    if not is_examined(reader.store):
        return None

    def read() -> ExaminedImages:
        rows: list[PlacesRow] = reader.store.table(PLACES_TABLE, SURROUNDINGS_STEP).to_pylist()
        return ExaminedImages(read_surroundings(reader.store), {one["row"]: one for one in rows})

    return reader.keep("surroundings", reader.stamp(SURROUNDINGS_FILE), read)


def describe_surroundings(reader: RunReader) -> str:
    """Say in a sentence whether classes share their surroundings and the model relies on them; empty where they were
    not examined, or share none."""
    run = read_examined(reader)
    if run is None or not run.surroundings.found:
        return ""
    return f"{run.surroundings.describe_use() or 'Classes share their surroundings; no use of them was shown'}."


def list_exceptions(reader: RunReader) -> dict[str, Any]:
    """List of each class its sentence, its exceptions, the clearest first, and some other images."""
    run = read_examined(reader)
    if run is None:
        return {"sentences": [], "classes": []}
    sentences, key = run.surroundings.describe(), reader.images().key
    classes = []
    for one in run.surroundings if run.surroundings.found else ():
        mine = [image for image in run.exceptions if image["target"] == one.target]
        usual = [row for row, image in run.images.items() if image["side"] == image["target"] == one.target]
        exceptions = [
            {"row": image["row"], "name": key(image["row"]), "side": reader.names[image["side"]]}
            | {"margin": round(image["margin"], 3)}
            for image in mine[:MOST_EXCEPTIONS]
        ]
        classes.append(
            {"target": one.target, "name": one.name, "sentence": one.describe(), "exceptions": exceptions}
            | {"count": len(mine), "usual": usual[:: max(1, len(usual) // SHOWN_USUAL)][:SHOWN_USUAL]}
        )
    return {"sentences": sentences if not classes else sentences[-1:], "classes": classes}


def sides_of(reader: RunReader, rows: Iterable[int]) -> list[tuple[str, float | None]]:
    """Return for each row the class whose surroundings the image shows, and the margin of its own class; an empty name
    and None of an image that was not examined, and of all where no shortcut was found."""
    run = read_examined(reader)
    images = run.images if run is not None and run.surroundings.found else {}
    known = (images.get(row) for row in rows)
    return [("", None) if one is None else (reader.names[one["side"]], one["margin"]) for one in known]
