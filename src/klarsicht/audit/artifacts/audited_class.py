"""One class of a run, as it was audited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from klarsicht.audit.data.corpus import Corpus
from klarsicht.audit.data.groups import Group
from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.store import RunStore


@dataclass(frozen=True)
class AuditedClass:
    """What a class was audited on.

    Attributes:
        group: the images looked at.
        labels: int (N,), the right output for each image of the corpus, -1 where unknown.
    """

    store: RunStore
    corpus: Corpus
    classifier: Classifier
    group: Group
    labels: NDArray[np.integer[Any]]
