"""Groups of images to suspect clusters: the work units of spectral analysis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import nn

from klarsicht.audit import spray
from klarsicht.audit.corpora import Corpus
from klarsicht.audit.groups import Group
from klarsicht.audit.models import Classifier
from klarsicht.audit.settings import AuditSettings
from klarsicht.audit.spray import FEWEST, Clustering, Evidence, Suspect
from klarsicht.ground.errors import UsageError
from klarsicht.ground.store import RunStore
from klarsicht.numerics.clusters import SWEEPS
from klarsicht.numerics.spectral import Embedding

Floats = NDArray[np.floating[Any]]

NUMBERS = ("tau", "rho2", "d2", "shift", "z")
SUSPECTS = pa.schema(
    [("class", pa.string()), ("target", pa.int64()), ("metric", pa.string()), ("n", pa.int64())]
    + [("skipped", pa.string()), ("proposal", pa.string()), ("rows", pa.list_(pa.int64()))]
    + [(name, pa.float64()) for name in NUMBERS]
)


def head_weight(classifier: Classifier) -> Floats | None:
    """(K, F) weights of a linear head, or None: then head relevance is no product, and one target is explained."""
    head = classifier.module.get_submodule(classifier.head)
    return head.weight.detach().cpu().numpy() if isinstance(head, nn.Linear) else None


def head_weight_or_refusal(head: Floats | None) -> Floats:
    """The weights, or the refusal of what needs them.

    Raises:
        UsageError: the network has no linear head.
    """
    if head is None:
        raise UsageError(
            "no head relevance for this network",
            got="a head that is no fully connected layer",
            rule="with a linear head, relevance of every class is a product",
            remedy="Name one class as --target, and a method that makes maps.",
        )
    return head


@dataclass(frozen=True)
class Analysis:
    """Suspect clusters of groups under one metric, safe to send to another process.

    Attributes:
        groups: all groups of the run; a unit is `size` consecutive ones.
        head: (K, F) weights of the head, or None.
    """

    store: RunStore
    settings: AuditSettings
    metric: str
    groups: tuple[Group, ...]
    head: Floats | None
    size: int = 1

    @property
    def step(self) -> str:
        return f"spray-{self.metric}"

    @property
    def table(self) -> str:
        return f"suspects-{self.metric}"

    def __call__(self, unit: range) -> None:
        records = [self.record(self.groups[i]) for i in unit]
        self.store.write_part(self.table, unit.start // self.size, pa.Table.from_pylist(records, SUSPECTS))

    def record(self, group: Group) -> dict[str, Any]:
        """What the table of suspects says of a group."""
        reason, found = self.find(group)
        empty = {"proposal": "", "rows": []} | dict.fromkeys(NUMBERS, 0.0)
        values = empty if found is None else _values(found, group)
        return {
            "class": group.name,
            "target": group.target,
            "metric": self.metric,
            "n": len(group),
            "skipped": reason,
        } | values

    def find(self, group: Group) -> tuple[str, Suspect | None]:
        """The suspect cluster, or why there is none."""
        if reason := self.too_few(group):
            return reason, None
        found = self.clustering(group).suspect(self.evidence(group))
        return ("", found) if found is not None else ("no cluster of an admissible size", None)

    def too_few(self, group: Group) -> str:
        """Why a group cannot be analysed; empty when it can."""
        if len(group) < FEWEST:
            return f"{len(group)} image(s); at least {FEWEST} are needed"
        if spray.room(self.sources[group.rows]) < 2:
            return "all images are of one source, or all but one"
        distinct = len({row.tobytes() for row in self.features(group)})
        return "" if distinct >= FEWEST else f"{distinct} distinct image(s); at least {FEWEST} are needed"

    def clustering(self, group: Group) -> Clustering:
        """Clusters of a group. Plain features are the same for every target, so theirs are kept."""
        if self.metric != "features":
            return self._clustering(group)
        kept: Clustering = self._shelf.keep("clustering", group.rows, lambda: self._clustering(group))
        return kept

    def _clustering(self, group: Group) -> Clustering:
        sweep = SWEEPS["quick" if self.settings.screens else "thorough"]
        return Clustering.of(self.embedding(group), sweep, self.settings.seed)

    def embedding(self, group: Group) -> Embedding:
        return spray.embedding(
            self.features(group),
            self.evidence(group),
            distance=METRICS[self.metric].distance,
            neighbours=self.settings.neighbours,
            dimensions=self.settings.dimensions,
            seed=self.settings.seed,
        )

    def features(self, group: Group) -> Floats:
        """What the metric compares: (n, D)."""
        return METRICS[self.metric].read(self, group)

    def maps(self, group: Group) -> Floats:
        return self._rows("maps", group).reshape(len(group), -1).astype(np.float32)

    def head_relevance(self, group: Group) -> Floats:
        """f_c (w_target - mean_k w_k)_c; where the run explained one target, as it was stored."""
        if self.store.has_array("head"):
            return self._rows("head", group)
        weight = head_weight_or_refusal(self.head)
        return np.asarray(self._rows("features", group) * (weight[group.target] - weight.mean(0)))

    def penultimate(self, group: Group) -> Floats:
        return self._rows("features", group)

    def evidence(self, group: Group) -> Evidence:
        logits = self._rows("logits", group)
        return Evidence(logits[:, group.target] - logits.mean(1), self.sources[group.rows])

    @cached_property
    def sources(self) -> NDArray[np.int64]:
        """A number for each row of the run; see Corpus.source_numbers."""
        return Corpus.from_table(self.store.table("corpus")).source_numbers

    def _rows(self, name: str, group: Group) -> Floats:
        read: Floats = self._shelf.keep(name, group.rows, lambda: np.asarray(self.store.array(name).oindex[group.rows]))
        return read

    @cached_property
    def _shelf(self) -> Shelf:
        return Shelf()


@dataclass(frozen=True)
class Compared:
    """What a metric compares of two images, and by which distance of numerics.neighbours."""

    read: Callable[[Analysis, Group], Floats]
    distance: str


METRICS: dict[str, Compared] = {
    "euclidean": Compared(Analysis.maps, "euclidean"),
    "concept": Compared(Analysis.head_relevance, "concept"),
    "features": Compared(Analysis.penultimate, "concept"),  # no relevance at all: the baseline to beat
}


class Shelf:
    """What was made from the rows asked for last: all groups of a screening share their rows."""

    def __init__(self) -> None:
        self.rows: NDArray[np.intp] = np.empty(0, np.intp)
        self.kept: dict[str, Any] = {}

    def keep(self, name: str, rows: NDArray[np.intp], make: Callable[[], Any]) -> Any:
        if not np.array_equal(rows, self.rows):
            self.rows, self.kept = rows, {}
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]


def _values(found: Suspect, group: Group) -> dict[str, Any]:
    numbers = {name: getattr(found, name) for name in NUMBERS}
    return numbers | {"proposal": found.method, "rows": [int(r) for r in group.rows[found.members]]}
