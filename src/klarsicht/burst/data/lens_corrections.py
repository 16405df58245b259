"""Corrections of the lens in a raw file's opcode lists: those applied, and those left to readers of a DNG."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from klarsicht.burst.data import opcode_lists
from klarsicht.burst.data.opcode_lists import Gain, Opcode
from klarsicht.ground.pictures.tiff_tags import LENGTH, UNDEFINED, WIDTH, Entry, Ifd, Tags

Correction = Gain | opcode_lists.RectilinearWarp
Version = tuple[int, int, int, int]

LISTS = {1: 51008, 2: 51009, 3: 51022}
"""Tags of the lists: for counts as stored, for the mosaic's light, for the colours made of it."""
COLOUR_PLANES = 3
BAD_PIXELS = (4, 5)
LINEARISATION, ACTIVE_AREA = 50712, 50829
FIRST_VERSION, LAST_VERSION = (1, 1, 0, 0), (1, 7, 1, 0)  # of the specification, by which files are written


@dataclass(frozen=True, eq=False)
class LensCorrections:
    """Corrections that a file's opcode lists prescribe. size: of the sensor's active area. on_samples, on_colours:
    those of OpcodeList2 and OpcodeList3 that are applied, in their order. lists: the opcodes of each list that can be
    kept in a mosaic. obstacle: the opcodes for the mosaic that are not applied, in words. remains: the opcodes of
    OpcodeList3 from the first that is not applied on. notes: on what is left out. pixels: of the picture along one of
    the sensor's."""

    size: tuple[int, int] = (0, 0)
    on_samples: tuple[Gain, ...] = ()
    on_colours: tuple[Correction, ...] = ()
    lists: tuple[tuple[int, tuple[Opcode, ...]], ...] = ()
    obstacle: str = ""
    remains: tuple[Opcode, ...] = ()
    notes: tuple[str, ...] = ()
    pixels: int = 1

    @property
    def is_empty(self) -> bool:
        """Whether nothing is applied."""
        return not self.on_samples and not self.on_colours

    @property
    def warps_alone(self) -> LensCorrections:
        """The same without gains: for maps that belong to a picture."""
        warps = tuple(one for one in self.on_colours if isinstance(one, opcode_lists.RectilinearWarp))
        return replace(self, on_samples=(), on_colours=warps)

    def kept_lists(self, mosaic: bool) -> dict[int, tuple[Opcode, ...]]:
        """Return the lists of a DNG: a mosaic keeps its own, colours what was not applied of OpcodeList3."""
        kept = dict(self.lists) if mosaic else {3: self.remains}
        return {number: opcodes for number, opcodes in kept.items() if opcodes}

    def tags(self, mosaic: bool) -> Ifd:
        """Return the tags of `kept_lists`."""
        packed = {LISTS[number]: opcode_lists.pack_list(opcodes) for number, opcodes in self.kept_lists(mosaic).items()}
        return {tag: Entry(UNDEFINED, len(data), data) for tag, data in packed.items()}

    def backward_version(self, mosaic: bool) -> Version:
        """Return the earliest version of the specification that knows the kept opcodes that may not be skipped."""
        kept = (opcode for opcodes in self.kept_lists(mosaic).values() for opcode in opcodes)
        versions = [one.version for one in kept if one.is_known and not one.is_optional]
        return min(max(versions, default=FIRST_VERSION), LAST_VERSION)

    def lines(self, mosaic: bool) -> tuple[str, ...]:
        """Return lines for the user. mosaic: whether planes were merged, so that a DNG is a mosaic."""
        lines = list(self.notes)
        if not self.is_empty:
            where = "left in the DNG of the mosaic, applied in pictures" if mosaic else "applied"
            names = ", ".join([*_names(self.on_samples, 2), *_names(self.on_colours, 3)])
            lines.append(f"lens corrections of the file, {where}: {names}")
        if self.obstacle:
            kept = "Bayer frames are merged as planes, and a DNG keeps the list" if mosaic else "it is left out"
            lines.append(f"{self.obstacle} is not applied: {kept}")
        if self.remains:
            left = ", ".join(opcode.name for opcode in self.remains)
            lines.append(f"OpcodeList3 ({left}) is not applied: a DNG keeps it")
        return tuple(lines)


NO_CORRECTIONS = LensCorrections()


def read_corrections(tags: Tags, size: tuple[int, int], name: str) -> LensCorrections:
    """Read the opcode lists of a raw file whose active area has that size. A damaged list is left out as a whole, an
    optional opcode that no specification has is skipped, and both are noted."""
    notes: list[str] = []
    lists: dict[int, tuple[Opcode, ...]] = {}
    corrections: dict[int, tuple[Correction, ...]] = {}
    remains: dict[int, tuple[Opcode, ...]] = {}
    for number, tag in LISTS.items():
        if (entry := tags.image.get(tag)) is None:
            continue
        try:
            opcodes = opcode_lists.parse_list(entry.data)
            readable = tuple(one for one in opcodes if one.is_known or not one.is_optional)
            corrections[number], remains[number] = _interpret(readable, number, size)
        except ValueError as error:
            notes.append(f"OpcodeList{number} of {name} is damaged and left out: {error}")
            continue
        lists[number] = opcodes
        skipped = dict.fromkeys(one.name for one in opcodes if one not in readable)
        notes += [f"OpcodeList{number}: optional {one} is unknown and skipped" for one in skipped]
    for_counts = [one for one in remains.get(1, ()) if one.number not in BAD_PIXELS]
    if len(for_counts) < len(remains.get(1, ())):
        notes.append("OpcodeList1: bad pixels that the file lists are not used; hot pixels are found in the frames")
    if 1 in lists and not _is_stored_alike(tags):
        del lists[1]
        if for_counts:
            notes.append(f"{_words(for_counts, 1)} is left out: it is for pixels as the camera stored them")
            for_counts = []
    obstacles = [_words(for_counts, 1), _words(remains.get(2, ()), 2)]
    samples = tuple(one for one in corrections.get(2, ()) if not isinstance(one, opcode_lists.RectilinearWarp))
    return LensCorrections(
        size=size,
        on_samples=samples,
        on_colours=corrections.get(3, ()),
        lists=tuple(lists.items()),
        obstacle=", ".join(words for words in obstacles if words),
        remains=remains.get(3, ()),
        notes=tuple(notes),
    )


def _interpret(
    opcodes: tuple[Opcode, ...], number: int, size: tuple[int, int]
) -> tuple[tuple[Correction, ...], tuple[Opcode, ...]]:
    """Return the corrections of a list up to the first opcode that is not applied, and the opcodes from there on: each
    acts on what those before it leave. Raises ValueError."""
    corrections: list[Correction] = []
    for i, opcode in enumerate(opcodes):
        is_warped = any(isinstance(one, opcode_lists.RectilinearWarp) for one in corrections)
        if opcode.number == opcode_lists.GainMap.number and number > 1:
            corrections.append(opcode_lists.GainMap.parse(opcode.data))
        elif opcode.number == opcode_lists.RadialGain.number and number > 1:
            corrections.append(opcode_lists.RadialGain.parse(opcode.data))
        elif opcode.number == opcode_lists.RectilinearWarp.number and number == 3 and not is_warped:
            corrections.append(opcode_lists.RectilinearWarp.parse(opcode.data, COLOUR_PLANES, size))
        else:
            return tuple(corrections), opcodes[i:]
    return tuple(corrections), ()


def _is_stored_alike(tags: Tags) -> bool:
    """Whether a written mosaic has the pixels and the scale of the one read: no curve undone, no border cut off."""
    whole = (0, 0, *(tags.image[tag].first if tag in tags.image else 0 for tag in (LENGTH, WIDTH)))
    area = tags.image.get(ACTIVE_AREA)
    return LINEARISATION not in tags.image and (area is None or area.values == whole)


def _words(opcodes: Iterable[Opcode], number: int) -> str:
    names = dict.fromkeys(opcode.name for opcode in opcodes)
    return f"OpcodeList{number} ({', '.join(names)})" if names else ""


def _names(corrections: Iterable[Correction], number: int) -> list[str]:
    counts = Counter(opcode_lists.OPCODE_NAMES[one.number] for one in corrections)
    return [f"{count} {name} of OpcodeList{number}" for name, count in counts.items()]
