"""Records of one class of an audited run and of an artifact found in it, by a detector, a cluster or a person; read the
list and the mask of a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.results.class_verdict import UseResult
from klarsicht.audit.results.words import name_artifact
from klarsicht.ground.arrays import Bools, Doubles, Ints
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine.disk import require_regular_file
from klarsicht.ground.pictures.images import decode
from klarsicht.ground.run_folder.store import RunStore

MemberList = Path | Sequence[str | int]  # a text file of names, or names: paths, keys, or rows of the run
BY_LIST = "list: "  # before the list that members are of
NO_CHANGE = ""  # the change of an image is unknown


@dataclass(frozen=True)
class AuditedClass:
    """Class of a run, with the images of the class that were analysed (`group`) and the right output of each image of
    the corpus, int (N,), -1 where unknown (`labels`)."""

    store: RunStore
    corpus: Corpus
    classifier: Classifier
    group: Group
    labels: Ints


@dataclass(frozen=True)
class FoundArtifact:
    """Images of a class that carry an artifact. members: int (n,), rows of the corpus. change: of an image by the
    artifact, a name of audit.verdicts.interventions.insertion.CHANGES, or NO_CHANGE. places: float (n, 2), upper left
    corner of the detected window in each member, in shares of height and width, or empty. extent: (height, width) of
    that window in such shares. number: of the artifact in its class, from 1. of_others: rows of images that carry other
    artifacts of the class and not this one: they are not clean. measured_use: what `audit quantify` measured of these
    members' artifact, or None."""

    audited: AuditedClass
    members: Ints
    origin: str
    change: str = NO_CHANGE
    places: Doubles = field(default_factory=lambda: np.zeros((0, 2)))
    extent: tuple[float, float] = (0.0, 0.0)
    number: int = 1
    of_others: tuple[int, ...] = ()
    measured_use: UseResult | None = None

    @property
    def name(self) -> str:
        """The class, and the number of a further artifact."""
        return name_artifact(self.audited.group.name, self.number)

    @property
    def folder_name(self) -> str:
        """Name of the folder of its correction."""
        return name_folder(self.audited.group.target, self.number)

    @property
    def is_listed(self) -> bool:
        """Whether a person listed the images."""
        return self.origin.startswith(BY_LIST)

    @property
    def has_places(self) -> bool:
        """Whether a detector gives a window in every member."""
        return len(self.places) == len(self.members) > 0


def name_folder(target: int, number: int) -> str:
    """Name the folder of an artifact: the output of its class, and the number of a further artifact of that class."""
    return str(target) if number == 1 else f"{target}-artifact-{number}"


def read_member_list(file: Path) -> list[str]:
    """Read the names of images, one a line, from a text file. Raises InputError: it is none, cannot be read, or is
    empty."""
    require_regular_file(file)
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise InputError(
            "the list of images is not a text file", got=file, rule="one path or key on each line, in UTF-8",
            remedy="Give a text file as --members; a picture of the place is --mask.",
        ) from error  # fmt: skip
    except OSError as error:
        got = f"{file}: {error.strerror or error}"
        raise InputError("the list of images cannot be read", got=got, remedy="Check the path of --members.") from error
    if not any(lines):
        rule, remedy = "one path or key on each line", "List the images that carry the artifact."
        raise InputError("the list of images is empty", got=file, rule=rule, remedy=remedy)
    return [line for line in lines if line]


def find_members(names: Sequence[str | int], audited_class: AuditedClass) -> Ints:
    """Return the rows of images that are named by path, by key, by file name, or by row of the run. Raises InputError:
    no name, one that is not of the class, or a file name that several of its images have."""
    keys, paths = audited_class.corpus.keys, audited_class.corpus.paths
    rows_of: dict[str | int, set[int]] = {}
    rows_of_file: dict[str | int, set[int]] = {}
    for row in map(int, audited_class.group.rows):
        for name in (row, keys[row], paths[row]):
            rows_of.setdefault(name, set()).add(row)
        rows_of_file.setdefault(Path(keys[row]).name, set()).add(row)
    rows_of_name = {name: rows_of.get(name) or rows_of_file.get(name, set()) for name in names}
    unknown = [name for name, of_name in rows_of_name.items() if not of_name]
    if unknown or not names:
        raise InputError(
            "the list names images that were not audited for this class",
            got=f"{len(unknown)} of {len(names)}: {', '.join(map(str, unknown[:3]))}",
            rule="paths as in the run's corpus, one on each line of a file, or a list in Python",
            remedy="Leave out images with another label; each class has its own list.",
        )
    ambiguous = [
        name
        for name, of_name in rows_of_name.items()
        if name not in rows_of and len({keys[row] for row in of_name}) > 1
    ]
    if ambiguous:
        first = ", ".join(keys[row] for row in sorted(rows_of_name[ambiguous[0]])[:3])
        raise InputError(
            "the list names files that several images of the class have", got=f"{ambiguous[0]}: {first}",
            rule="one image a line", remedy="Write their paths with the folders, as in the run's corpus.",
        )  # fmt: skip
    return np.unique([row for of_name in rows_of_name.values() for row in of_name])


def read_mask(file: Path, audited_class: AuditedClass) -> Bools:
    """Read a mask (H, W) in the geometry of the model input: the picture passes through the model's own transform."""
    classifier = audited_class.classifier
    grey = classifier.image(decode(file).convert(classifier.mode)).mean(0).numpy()
    black, white = (
        float(classifier.image(Image.new("RGB", (64, 64), c).convert(classifier.mode)).mean())
        for c in ("black", "white")
    )
    mask = np.asarray(grey > (black + white) / 2)
    if not 0 < mask.mean() < 1:
        raise InputError("the mask marks nothing, or everything", got=file, rule="white where the artifact lies")
    return mask
