"""Corpora in tar archives as WebDataset writes them: members of one name and several endings are one sample."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from klarsicht.audit.explanation.data import locations
from klarsicht.audit.explanation.data.corpus import Corpus, CorpusRow
from klarsicht.audit.explanation.data.manifest import ColumnNames
from klarsicht.audit.explanation.data.pictures import PictureReader, image_endings
from klarsicht.ground.errors import CorpusError

TAR = ".tar"
LABEL_ENDINGS = ("cls", "txt", "label")
MOST_LABEL_BYTES = 1 << 20  # of a member that holds a label


@dataclass(frozen=True)
class TarReader(PictureReader):
    """Pictures that are members of tar archives; a path is ARCHIVE#OFFSET+SIZE/MEMBER, so nothing is searched for."""

    def read(self, path: str) -> bytes:
        archive, _, rest = path.partition(f"{TAR}#")
        start, _, length = rest.partition("/")[0].partition("+")
        return locations.read_range(f"{archive}{TAR}", int(start), int(length))


@dataclass(frozen=True)
class Member:
    """Member of an archive: its name, and where its bytes are."""

    name: str
    start: int
    length: int

    @property
    def sample(self) -> str:
        """Name up to the first dot of its last part, which members of a sample share."""
        folder, slash, file = self.name.rpartition("/")
        return f"{folder}{slash}{file.partition('.')[0]}"

    @property
    def ending(self) -> str:
        """Ending of the name after that dot, in lower case."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


def open_archives(root: str, files: Sequence[str], names: ColumnNames) -> Corpus:
    """Index tar archives, by their paths inside a folder or URL, once for this corpus. `names` are endings of the
    members with pictures and labels, and of those with sources; by default any picture's ending and one of
    LABEL_ENDINGS. A label or a source may also be a key of the member `json`. Raises CorpusError where an archive
    cannot be read, or samples have no label or share a name."""
    rows, bare = list[CorpusRow](), 0
    for file in files:
        path = locations.join(root, file)
        with locations.open_binary(path) as stream:
            for sample, members in _samples(stream, path):
                picture = _picture(members, names.path)
                if picture is None:
                    bare += 1
                    continue
                label = _value(stream, members, (names.label,) if names.label else LABEL_ENDINGS, "label")
                if label == "":
                    got = f"{sample} in {path}, with {', '.join(sorted(members))}"
                    rule = f"a member {names.label or ', '.join(LABEL_ENDINGS)}, or that key in the member json"
                    remedy = "Name it by --label-column."
                    raise CorpusError("a sample has no label", got=got, rule=rule, remedy=remedy)
                source = _value(stream, members, (names.source,), names.source) if names.source else ""
                place = f"{path}#{picture.start}+{picture.length}/{picture.name}"
                rows.append(CorpusRow(f"{file}/{sample}", place, label, source))
    if rows and names.source and not any(row.source for row in rows):
        rule, remedy = "a member of a sample, or a key of its json", "Correct --source-column, or leave it out."
        raise CorpusError("no sample has that source", got=names.source, rule=rule, remedy=remedy)
    left_out = ((f"{bare} sample{'s' * (bare > 1)}", "no picture among its members"),) if bare else ()
    if not rows:
        raise CorpusError("no pictures in tar archives", got=f"{root}, archives: {len(files)}")
    return Corpus.of_rows(rows, TarReader(), left_out)


def _samples(stream: IO[bytes], path: str) -> Iterator[tuple[str, dict[str, Member]]]:
    """Yield the samples of an archive, each as members by ending; members of a sample follow each other."""
    current, members = "", dict[str, Member]()
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for entry in archive:
                member = Member(entry.name, entry.offset_data, entry.size)
                archive.members = []  # type: ignore[attr-defined]  # else a million headers stay in memory
                if not entry.isfile() or member.name.rpartition("/")[2].startswith("."):
                    continue
                if member.sample != current and members:
                    yield current, members
                    members = {}
                current = member.sample
                members[member.ending] = member
    except tarfile.TarError as error:
        remedy = "Unpack a compressed one: its members cannot be reached one by one."
        raise CorpusError("a tar archive cannot be read", got=f"{path}: {error}", remedy=remedy) from error
    if members:
        yield current, members


def _picture(members: Mapping[str, Member], ending: str) -> Member | None:
    if ending:
        return members.get(ending.lower())
    return next((one for name, one in members.items() if f".{name.rpartition('.')[2]}" in image_endings()), None)


def _value(stream: IO[bytes], members: Mapping[str, Member], endings: Sequence[str], key: str) -> str:
    """Read a label or source: the text of a member, or a key of the member json; "" where there is none."""
    place = stream.tell()
    try:
        for ending in endings:
            if ending in members:
                return _content(stream, members[ending]).decode("utf-8", "replace").strip()
        if "json" in members:
            told: Any = json.loads(_content(stream, members["json"]))
            wanted = [name for name in (*endings, key) if isinstance(told, dict) and name in told]
            return "" if not wanted or told[wanted[0]] is None else str(told[wanted[0]])
    except ValueError:
        return ""
    finally:
        stream.seek(place)
    return ""


def _content(stream: IO[bytes], member: Member) -> bytes:
    stream.seek(member.start)
    return stream.read(min(member.length, MOST_LABEL_BYTES))
