"""Spectral analysis step of an audit: the suspect cluster of each group of images, computed by unit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import nn

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.settings import AuditSettings, counts_own_logits
from klarsicht.audit.explanation.spectral import clustering as clusters
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES, Clustering, SuspectCluster, TargetLogits
from klarsicht.audit.explanation.spectral.parts import PartGroup, centre_by_mass
from klarsicht.audit.results.suspect_rows import NO_CLUSTER, ClusterColumns, SuspectRow
from klarsicht.audit.results.words import format_count
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import UsageError
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.remote_store import Read
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.clustering.candidates import SWEEPS
from klarsicht.numerics.clustering.spectral import Embedding, affinity, embed
from klarsicht.numerics.statistics.logits import LogitScale, logit_scale
from klarsicht.numerics.transport.measures import PointMeasures, measures_from_maps

T = TypeVar("T")
Items = Floats | PointMeasures

TRANSPORT = ("wasserstein", "wasserstein-t", "wasserstein-ts", "wasserstein-tsr", "sliced-rotation", "gromov")
SUSPECTS = schema_of(SuspectRow)
CLUSTER_NUMBERS = ("tau", "rho2", "d2", "shift", "z", "deviation", "rounding")  # of a cluster, columns of that table


def head_weight(classifier: Classifier) -> Floats | None:
    """Read the weights (K, F) of a linear head; None for another head, for which head relevance is not a product."""
    head = classifier.module.get_submodule(classifier.head)
    return head.weight.detach().cpu().numpy() if isinstance(head, nn.Linear) else None


def require_head_weight(head: Floats | None) -> Floats:
    """Return the head weights; raises UsageError where the network has no linear head."""
    if head is None:
        raise UsageError(
            "no head relevance for this network", got="a head that is no fully connected layer",
            rule="with a linear head, relevance of every class is a product",
            remedy="Name one class as --target, and a method that makes maps.",
        )  # fmt: skip
    return head


@dataclass(frozen=True)
class Analysis:
    """Picklable work function that finds the suspect clusters of groups of the run under one metric of METRICS, `size`
    consecutive groups per work unit; `head` are the (K, F) weights of the head, or None."""

    store: RunStore
    settings: AuditSettings
    metric: str
    groups: tuple[Group, ...]
    head: Floats | None
    size: int = 1

    @property
    def step(self) -> str:
        """Name of the step in the run store."""
        return f"spray-{self.metric}"

    @property
    def table(self) -> str:
        """Name of the table of suspects in the run store."""
        return f"suspects-{self.metric}"

    @property
    def embedding_table(self) -> str:
        """Name of the table of spectral embeddings in the run store, whose part t is that of the class of output t."""
        return f"embedding-{self.metric}"

    def __call__(self, unit: range) -> Written:
        records, written = [], Written()
        for group in (self.groups[i] for i in unit):
            records.append(record := self.record(group))
            if not (record["skipped"] or self.settings.screens):
                written |= self.write_embedding(group, dict(zip(record["rows"], record["parts"], strict=False)))
        part = self.store.write_part(self.table, unit.start // self.size, pa.Table.from_pylist(records, SUSPECTS))
        return written | part

    def list_reads(self, unit: range) -> Iterator[Read]:
        """List what a unit reads of the run: the sources, and rows of its groups of the arrays that are compared."""
        yield Read("table", ("corpus",), {"columns": ["key", "source"]})
        names = {"logits", *(("maps", "parts", "appearance") if self.by_parts else METRICS[self.metric].arrays)}
        for name in sorted(names.intersection(self.store.array_names())):
            yield from (Read.of_rows(name, self.groups[i].rows) for i in unit)

    def write_embedding(self, group: Group, parts: Mapping[int, Sequence[int]]) -> Written:
        """Store the spectral embedding of a group: one line an image, with its row of the run, its coordinates float32
        (d,) and the connected component of the neighbour graph; the metadata hold the d eigenvalues. Where parts are
        compared, the coordinates are those of the first of an image's `parts` in the suspect cluster, or of its first
        part."""
        comparable = self.comparable(group)
        embedding = self.embedding(comparable)
        numbers = {row: some[0] for row, some in parts.items()}
        chosen = np.array([numbers.get(int(row), 1) for row in comparable.rows], np.int64)
        vectors = self.vectors(comparable, chosen).astype(np.float32)
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        columns: dict[str, Any] = {"row": pa.array(comparable.rows.astype(np.int64)), "vector": values}
        if not self.by_parts:
            columns["component"] = pa.array(embedding.components)
        told = {"eigenvalues": json.dumps([float(value) for value in embedding.values])}
        table = pa.table(columns).replace_schema_metadata(told)
        return self.store.write_part(self.embedding_table, group.target, table)

    def record(self, group: Group) -> SuspectRow:
        """Analyse a group; return its row of the table of suspects."""
        comparable = self.comparable(group)
        reason, found = self.find_suspect(comparable)
        values = NO_CLUSTER if found is None else self.cluster_columns(comparable, found)
        return {
            "class": group.name,
            "target": group.target,
            "metric": self.metric,
            "n": len(comparable),
            "skipped": reason,
            "aside": self.describe_set_aside(group),
            **values,
        }

    def cluster_columns(self, group: Group, cluster: SuspectCluster) -> ClusterColumns:
        """Collect the columns that describe a cluster."""
        numbers = {name: getattr(cluster, name) for name in CLUSTER_NUMBERS}
        parts = self.parts(group).part_numbers(cluster.candidate.member, cluster.members) if self.by_parts else []
        rows = [int(row) for row in group.rows[cluster.members]]
        return {"proposal": cluster.method, "rows": rows, "parts": parts, **numbers}  # type: ignore[typeddict-item]

    def group(self, target: int) -> Group:
        """Return the comparable group of an output of the model."""
        (found,) = (group for group in self.groups if group.target == target)
        return self.comparable(found)

    def comparable(self, group: Group) -> Group:
        """Drop the images to which the metric does not apply, such as maps without positive relevance."""
        return replace(group, rows=group.rows[~self._set_aside(group)])

    def describe_set_aside(self, group: Group) -> str:
        """Describe how many images `comparable` drops, and why; empty where it drops none."""
        if not self._set_aside(group).any():
            return ""
        return ", ".join(f"{format_count(count, 'map')} of {why}" for why, count in self.measures(group).counts.items())

    def _set_aside(self, group: Group) -> NDArray[np.bool_]:
        whole = not self.by_parts and METRICS[self.metric].read is Analysis.measures
        return self.measures(group).set_aside if whole else np.zeros(len(group), bool)

    def find_suspect(self, group: Group) -> tuple[str, SuspectCluster | None]:
        """Find the suspect cluster of a group; return the reason why there is none, or "", and the cluster or None."""
        if reason := self.reason_too_few(group):
            return reason, None
        found = self.clustering(group).suspect(self.target_logits(group))
        return ("", found) if found is not None else ("no cluster of an admissible size", None)

    def reason_too_few(self, group: Group) -> str:
        """Return the reason why a group has too few images, sources or parts; empty where it has enough."""
        if len(group) < MIN_IMAGES:
            return f"{format_count(len(group), 'image')}; at least {MIN_IMAGES} are needed"
        if clusters.max_neighbours(self.sources[group.rows]) < 2:
            return "all images are of one source, or all but one"
        items = self.items(group)
        distinct = len({row.tobytes() for row in (items.points if isinstance(items, PointMeasures) else items)})
        if distinct < MIN_IMAGES:
            return f"{format_count(distinct, 'distinct image')}; at least {MIN_IMAGES} are needed"
        few = self.by_parts and min(len(self.parts(group)), self.parts(group).max_neighbours) < MIN_IMAGES
        return f"{format_count(len(self.parts(group)), 'part')}; at least {MIN_IMAGES} are needed" if few else ""

    def clustering(self, group: Group) -> Clustering:
        """Cluster a group; the clustering of plain features is cached, since it is the same for every target."""

        def cluster() -> Clustering:
            sweep = SWEEPS["quick" if self.settings.screens else "thorough"]
            found = Clustering.of(self.embedding(group), sweep, self.settings.seed)
            return self.parts(group).image_clusters(found) if self.by_parts else found

        return self._once("clustering", group, cluster) if self.metric == "features" else cluster()

    def embedding(self, group: Group) -> Embedding:
        """Compute the spectral embedding of the images, or of their parts; cached where no other class has the rows."""
        if self.settings.screens:
            return self._embed(group)
        return self._once(f"embedding {group.target}", group, lambda: self._embed(group))

    def vectors(self, group: Group, numbers: NDArray[np.integer[Any]]) -> Floats:
        """Compute the embedding (n, d) of n images; with parts, that of the part number `numbers` (n,) of each."""
        embedded = self.embedding(group)
        return self.parts(group).vectors(embedded.vectors, numbers) if self.by_parts else embedded.vectors

    @property
    def by_parts(self) -> bool:
        """Whether parts are compared, which requires a metric that compares maps."""
        return self.settings.parts and METRICS[self.metric].part_input is not None

    def parts(self, group: Group) -> PartGroup:
        """Load the parts of a group of images; cached."""

        def load() -> PartGroup:
            maps = self.load_array("maps", group).astype(np.float32)
            labels, seen = self.load_array("parts", group).astype(np.int8), self.load_array("appearance", group)
            cut = METRICS[self.metric].part_input or centre_by_mass
            return PartGroup.of(maps, labels, seen, self.sources[group.rows], cut)

        return self._once("part group", group, load)

    def _embed(self, group: Group) -> Embedding:
        asked, metric = self.settings, METRICS[self.metric]
        if self.by_parts:
            parts = self.parts(group)
            graph = parts.graph(metric.distance, asked.neighbours, asked.seed)
            return embed(affinity(graph), min(asked.dimensions, len(parts) - 1), asked.seed)
        return clusters.embed_items(
            self.items(group), self.target_logits(group), distance=metric.distance, neighbours=asked.neighbours,
            dimensions=asked.dimensions, seed=asked.seed,
        )  # fmt: skip

    def items(self, group: Group) -> Items:
        """Load the items that the metric compares: n rows or n measures."""
        return METRICS[self.metric].read(self, group)

    def measures(self, group: Group) -> PointMeasures:
        """Convert the positive relevance of the maps to point measures; cached."""
        maps = self.load_array("maps", group)
        return self._once("measures", group, lambda: measures_from_maps(maps.astype(np.float32)))

    def head_relevance(self, group: Group) -> Floats:
        """Compute head relevance f_c (w_target - mean_k w_k)_c, (n, F) of n images, of independent outputs f_c
        (w_target)_c; where it was stored, load it. Raises UsageError where neither it is stored, nor the head
        linear."""
        if self.store.has_array("head"):
            return self.load_array("head", group)
        weight = require_head_weight(self.head)
        return np.asarray(self.load_array("features", group) * self.scale.scores(weight.T).T[group.target])

    def target_logits(self, group: Group) -> TargetLogits:
        """Load the scores of the group's target."""
        return TargetLogits.of(self.load_array("logits", group), group.target, self.sources[group.rows], self.scale)

    @property
    def scale(self) -> LogitScale:
        """Scale on which the logits of this run count."""
        return logit_scale(counts_own_logits(self.store.manifest))

    @cached_property
    def sources(self) -> NDArray[np.int64]:
        """Source index of each row of the run; see Corpus.source_numbers."""
        return Corpus.source_numbers_of(self.store.table("corpus", columns=["key", "source"]))

    def load_array(self, name: str, group: Group) -> Floats:
        """Load an array of the run for the images of a group; cached."""
        return self._once(name, group, lambda: self.store.array(name)[group.rows])

    def _once(self, name: str, group: Group, make: Callable[[], T]) -> T:
        """Return the value of this name for the rows of a group, made once: values of the rows that were asked for last
        are kept, since all groups of a screening share theirs."""
        cache = self._cache
        if not np.array_equal(group.rows, cache.get("rows", ())):
            cache.clear()
            cache["rows"] = group.rows
        if name not in cache:
            cache[name] = make()
        kept: T = cache[name]
        return kept

    @cached_property
    def _cache(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class MetricInput:
    """Input and distance (a name of numerics.neighbours.METRICS) of a metric: `read` loads the items that are compared,
    from those of `arrays` that the run has; `part_input` makes them of the masses (M, G, G) of parts, each on a map of
    its own, None for a metric that does not compare maps; and whether it needs a method that propagates relevance into
    the network."""

    read: Callable[[Analysis, Group], Items]
    distance: str
    arrays: tuple[str, ...]
    part_input: Callable[[Floats], Any] | None = None
    needs_propagation: bool = True


METRICS: dict[str, MetricInput] = {
    "euclidean": MetricInput(
        lambda run, group: run.load_array("maps", group).reshape(len(group), -1).astype(np.float32),
        "euclidean",
        ("maps",),
        centre_by_mass,
    ),
    "channels": MetricInput(lambda run, group: run.load_array("channels", group), "concept", ("channels",)),
    "concept": MetricInput(Analysis.head_relevance, "concept", ("head", "features"), needs_propagation=False),
    # the baseline without relevance: penultimate features
    "features": MetricInput(
        lambda run, group: run.load_array("features", group), "concept", ("features",), needs_propagation=False
    ),
    **{name: MetricInput(Analysis.measures, name, ("maps",), measures_from_maps) for name in TRANSPORT},
}
