"""Records of one class of an audited run and of an artifact found in it, by a detector, a cluster or a person."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.results.words import name_artifact
from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.ground.run_folder.store import RunStore

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
    """Images of a class that carry an artifact.

    Attributes:
        members: int (n,), rows of the corpus.
        origin: source of the member list, in words: the detector, the cluster's metric, or a list.
        change: change of an image by the artifact, a name of audit.verdicts.interventions.insertion.CHANGES, or
            NO_CHANGE.
        places: float (n, 2), upper left corner of the detected window in each member, in shares of height and width;
            empty without windows.
        extent: (height, width) of that window in such shares.
        number: of the artifact in its class, from 1.
        of_others: rows of images that carry other artifacts of the class and not this one: they are not clean.
    """

    audited: AuditedClass
    members: Ints
    origin: str
    change: str = NO_CHANGE
    places: Doubles = field(default_factory=lambda: np.zeros((0, 2)))
    extent: tuple[float, float] = (0.0, 0.0)
    number: int = 1
    of_others: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The class, and the number of a further artifact."""
        return name_artifact(self.audited.group.name, self.number)

    @property
    def folder_name(self) -> str:
        """Name of the folder of its correction."""
        return name_folder(self.audited.group.target, self.number)

    @property
    def has_places(self) -> bool:
        """Whether a detector gives a window in every member."""
        return len(self.places) == len(self.members) > 0


def name_folder(target: int, number: int) -> str:
    """Name the folder of an artifact: the output of its class, and the number of a further artifact of that class."""
    return str(target) if number == 1 else f"{target}-artifact-{number}"
