"""Groups of images to suspect clusters: the work units of spectral analysis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import nn

from klarsicht.audit.data.corpus import Corpus
from klarsicht.audit.data.groups import Group
from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.settings import AuditSettings
from klarsicht.audit.spray import clustering as clusters
from klarsicht.audit.spray.cache import RowCache
from klarsicht.audit.spray.clustering import FEWEST, Clustering, SuspectCluster, TargetLogits
from klarsicht.audit.spray.parts import PartGroup, centred
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import UsageError
from klarsicht.ground.store import RunStore
from klarsicht.numerics.clustering.candidates import SWEEPS
from klarsicht.numerics.clustering.spectral import Embedding, affinity, embed
from klarsicht.numerics.transport.measures import PointMeasures, measures_from_maps

Items = Floats | PointMeasures

TRANSPORT = ("wasserstein", "wasserstein-t", "wasserstein-ts", "wasserstein-tsr", "sliced-rotation", "gromov")
NUMBERS = ("tau", "rho2", "d2", "shift", "z", "deviation", "rounding")
SUSPECTS = pa.schema(
    [("class", pa.string()), ("target", pa.int64()), ("metric", pa.string()), ("n", pa.int64())]
    + [("skipped", pa.string()), ("aside", pa.string())]
    + [("proposal", pa.string()), ("rows", pa.list_(pa.int64()))]
    + [("parts", pa.list_(pa.list_(pa.int64())))]
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
        compared = self.compared(group)
        reason, found = self.find(compared)
        empty = {"proposal": "", "rows": [], "parts": []} | dict.fromkeys(NUMBERS, 0.0)
        values = empty if found is None else self.values(compared, found)
        return {
            "class": group.name,
            "target": group.target,
            "metric": self.metric,
            "n": len(compared),
            "skipped": reason,
            "aside": self.aside(group),
        } | values

    def values(self, compared: Group, found: SuspectCluster) -> dict[str, Any]:
        """The columns that describe a cluster."""
        numbers = {name: getattr(found, name) for name in NUMBERS}
        rows = [int(r) for r in compared.rows[found.members]]
        return numbers | {"proposal": found.method, "rows": rows, "parts": self.masks(compared, found)}

    def group(self, target: int) -> Group:
        """What is compared for an output of the model."""
        (found,) = (group for group in self.groups if group.target == target)
        return self.compared(found)

    def compared(self, group: Group) -> Group:
        """The group without the images of which the metric can say nothing."""
        return replace(group, rows=group.rows[~self._nothing(group)])

    def aside(self, group: Group) -> str:
        """How many those are, and why; empty where there are none."""
        if not self._nothing(group).any():
            return ""
        return ", ".join(f"{count} map(s) of {why}" for why, count in self.measures(group).counts.items())

    def _nothing(self, group: Group) -> NDArray[np.bool_]:
        whole = not self.by_parts and METRICS[self.metric].read is Analysis.measures
        return self.measures(group).set_aside if whole else np.zeros(len(group), bool)

    def find(self, group: Group) -> tuple[str, SuspectCluster | None]:
        """The suspect cluster, or why there is none."""
        if reason := self.too_few(group):
            return reason, None
        found = self.clustering(group).suspect(self.evidence(group))
        return ("", found) if found is not None else ("no cluster of an admissible size", None)

    def too_few(self, group: Group) -> str:
        """Why a group cannot be analysed; empty when it can."""
        if len(group) < FEWEST:
            return f"{len(group)} image(s); at least {FEWEST} are needed"
        if clusters.room(self.sources[group.rows]) < 2:
            return "all images are of one source, or all but one"
        items = self.items(group)
        distinct = len({row.tobytes() for row in (items.points if isinstance(items, PointMeasures) else items)})
        if distinct < FEWEST:
            return f"{distinct} distinct image(s); at least {FEWEST} are needed"
        few = self.by_parts and min(len(self.parts(group)), self.parts(group).room) < FEWEST
        return f"{len(self.parts(group))} part(s); at least {FEWEST} are needed" if few else ""

    def clustering(self, group: Group) -> Clustering:
        """Clusters of a group. Plain features are the same for every target, so theirs are kept."""
        if self.metric != "features":
            return self._clustering(group)
        kept: Clustering = self._shelf.keep("clustering", group.rows, lambda: self._clustering(group))
        return kept

    def _clustering(self, group: Group) -> Clustering:
        sweep = SWEEPS["quick" if self.settings.screens else "thorough"]
        found = Clustering.of(self.embedding(group), sweep, self.settings.seed)
        return self.parts(group).inherited(found) if self.by_parts else found

    def embedding(self, group: Group) -> Embedding:
        """Of the images, or of their parts."""
        return self._of_parts(group) if self.by_parts else self._of_images(group)

    def vectors(self, group: Group, chosen: NDArray[np.integer[Any]]) -> Floats:
        """Embedding (n, d) of the images; under parts, of the part of the chosen number (n,) of each."""
        embedded = self.embedding(group)
        return self.parts(group).vectors(embedded.vectors, chosen) if self.by_parts else embedded.vectors

    @property
    def by_parts(self) -> bool:
        """Whether parts are compared: metrics that compare no maps know none."""
        return self.settings.parts and METRICS[self.metric].cut is not None

    def parts(self, group: Group) -> PartGroup:
        """The parts of a group of images."""
        kept: PartGroup = self._shelf.keep("part group", group.rows, lambda: self._parts(group))
        return kept

    def _parts(self, group: Group) -> PartGroup:
        maps = self._rows("maps", group).astype(np.float32)
        labels, seen = self._rows("parts", group).astype(np.int8), self._rows("appearance", group)
        cut = METRICS[self.metric].cut or centred
        return PartGroup.of(maps, labels, seen, self.sources[group.rows], cut)

    def masks(self, group: Group, found: SuspectCluster) -> list[list[int]]:
        """The parts of each member that are in the cluster, by number; none where whole images were compared."""
        return self.parts(group).numbers(found.candidate.member, found.members) if self.by_parts else []

    def _of_parts(self, group: Group) -> Embedding:
        asked, parts = self.settings, self.parts(group)
        graph = parts.graph(METRICS[self.metric].distance, asked.neighbours, asked.seed)
        return embed(affinity(graph), min(asked.dimensions, len(parts) - 1), asked.seed)

    def _of_images(self, group: Group) -> Embedding:
        return clusters.embedding(
            self.items(group),
            self.evidence(group),
            distance=METRICS[self.metric].distance,
            neighbours=self.settings.neighbours,
            dimensions=self.settings.dimensions,
            seed=self.settings.seed,
        )

    def items(self, group: Group) -> Items:
        """What the metric compares: n rows or measures."""
        return METRICS[self.metric].read(self, group)

    def maps(self, group: Group) -> Floats:
        return self._rows("maps", group).reshape(len(group), -1).astype(np.float32)

    def measures(self, group: Group) -> PointMeasures:
        """Where positive relevance lies."""
        maps = self._rows("maps", group)
        kept: PointMeasures = self._shelf.keep(
            "measures", group.rows, lambda: measures_from_maps(maps.astype(np.float32))
        )
        return kept

    def head_relevance(self, group: Group) -> Floats:
        """f_c (w_target - mean_k w_k)_c; where the run explained one target, as it was stored."""
        if self.store.has_array("head"):
            return self._rows("head", group)
        weight = head_weight_or_refusal(self.head)
        return np.asarray(self._rows("features", group) * (weight[group.target] - weight.mean(0)))

    def channels(self, group: Group) -> Floats:
        """Relevance of each channel of the middle layer."""
        return self._rows("channels", group)

    def penultimate(self, group: Group) -> Floats:
        return self._rows("features", group)

    def evidence(self, group: Group) -> TargetLogits:
        return TargetLogits.of(self._rows("logits", group), group.target, self.sources[group.rows])

    @cached_property
    def sources(self) -> NDArray[np.int64]:
        """A number for each row of the run; see Corpus.source_numbers."""
        return Corpus.from_table(self.store.table("corpus")).source_numbers

    def _rows(self, name: str, group: Group) -> Floats:
        read: Floats = self._shelf.keep(name, group.rows, lambda: np.asarray(self.store.array(name).oindex[group.rows]))
        return read

    @cached_property
    def _shelf(self) -> RowCache:
        return RowCache()


@dataclass(frozen=True)
class MetricInput:
    """What a metric compares of two images, and by which distance of numerics.neighbours.

    Attributes:
        cut: what it compares of parts, given their masses (M, G, G), each on a map of its own; None for a metric that
            compares no maps, and so knows no parts.
        propagated: whether it compares what a method that makes maps hands down into the network.
    """

    read: Callable[[Analysis, Group], Items]
    distance: str
    cut: Callable[[Floats], Any] | None = None
    propagated: bool = True


METRICS: dict[str, MetricInput] = {
    "euclidean": MetricInput(Analysis.maps, "euclidean", centred),
    "channels": MetricInput(Analysis.channels, "concept"),
    "concept": MetricInput(Analysis.head_relevance, "concept", propagated=False),
    "features": MetricInput(Analysis.penultimate, "concept", propagated=False),  # no relevance: the baseline to beat
    **{name: MetricInput(Analysis.measures, name, measures_from_maps) for name in TRANSPORT},
}
