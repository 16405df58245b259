"""One class of an audited run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.ground.run_folder.store import RunStore


@dataclass(frozen=True)
class AuditedClass:
    """Class of a run, with the model and the corpus of the audit.

    Attributes:
        store: the run.
        corpus: its corpus.
        classifier: its model.
        group: the images of the class that were analysed.
        labels: int (N,), the right output for each image of the corpus, -1 where unknown.
    """

    store: RunStore
    corpus: Corpus
    classifier: Classifier
    group: Group
    labels: NDArray[np.integer[Any]]
