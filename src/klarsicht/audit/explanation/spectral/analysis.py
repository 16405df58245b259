"""Spectral analysis step of an audit: the suspect cluster of each group of images, computed by unit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import nn

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.settings import AuditSettings, counts_own_logits
from klarsicht.audit.explanation.spectral import clustering as clusters
from klarsicht.audit.explanation.spectral.cache import RowCache
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES, Clustering, SuspectCluster, TargetLogits
from klarsicht.audit.explanation.spectral.parts import PartGroup, centre_by_mass
from klarsicht.audit.results.suspect_rows import NO_CLUSTER, ClusterColumns, SuspectRow
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import UsageError
from klarsicht.ground.rows import schema_of
from klarsicht.ground.run_folder.checksums import Written
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.clustering.candidates import SWEEPS
from klarsicht.numerics.clustering.spectral import Embedding, affinity, embed
from klarsicht.numerics.statistics.logits import LogitScale, logit_scale
from klarsicht.numerics.transport.measures import PointMeasures, measures_from_maps

Items = Floats | PointMeasures

TRANSPORT = ("wasserstein", "wasserstein-t", "wasserstein-ts", "wasserstein-tsr", "sliced-rotation", "gromov")
SUSPECTS = schema_of(SuspectRow)


def head_weight(classifier: Classifier) -> Floats | None:
    """Read the weights (K, F) of a linear head; None for another head, for which head relevance is not a product."""
    head = classifier.module.get_submodule(classifier.head)
    return head.weight.detach().cpu().numpy() if isinstance(head, nn.Linear) else None


def require_head_weight(head: Floats | None) -> Floats:
    """Return the head weights, if there are any.

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
    """Picklable work function that finds the suspect clusters of groups under one metric.

    Attributes:
        metric: a name of METRICS.
        groups: all groups of the run.
        head: (K, F) weights of the head, or None.
        size: consecutive groups per work unit.
    """

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
                written |= self.store.write_part(self.embedding_table, group.target, self.embedding_part(group, record))
        part = self.store.write_part(self.table, unit.start // self.size, pa.Table.from_pylist(records, SUSPECTS))
        return written | part

    def embedding_part(self, group: Group, cluster: SuspectRow) -> pa.Table:
        """Make the stored spectral embedding of a group: one line an image, with its row of the run, its coordinates
        float32 (d,) and the connected component of the neighbour graph; the metadata hold the d eigenvalues.

        Where parts are compared, the coordinates of an image are those of its part in the suspect cluster, or of its
        first part. Where all classes are screened nothing is stored: each class would need all images once more.
        """
        comparable = self.comparable(group)
        embedding = self.embedding(comparable)
        numbers = {row: parts[0] for row, parts in zip(cluster["rows"], cluster["parts"], strict=False)}
        chosen = np.array([numbers.get(int(row), 1) for row in comparable.rows], np.int64)
        vectors = self.vectors(comparable, chosen).astype(np.float32)
        values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        columns: dict[str, Any] = {"row": pa.array(comparable.rows.astype(np.int64)), "vector": values}
        if not self.by_parts:
            columns["component"] = pa.array(embedding.components)
        told = {"eigenvalues": json.dumps([float(value) for value in embedding.values])}
        return pa.table(columns).replace_schema_metadata(told)

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
        return {
            "proposal": cluster.method,
            "rows": [int(r) for r in group.rows[cluster.members]],
            "parts": self.member_parts(group, cluster),
            "tau": cluster.tau,
            "rho2": cluster.rho2,
            "d2": cluster.d2,
            "shift": cluster.shift,
            "z": cluster.z,
            "deviation": cluster.deviation,
            "rounding": cluster.rounding,
        }

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
        return ", ".join(f"{count} map(s) of {why}" for why, count in self.measures(group).counts.items())

    def _set_aside(self, group: Group) -> NDArray[np.bool_]:
        whole = not self.by_parts and METRICS[self.metric].read is Analysis.measures
        return self.measures(group).set_aside if whole else np.zeros(len(group), bool)

    def find_suspect(self, group: Group) -> tuple[str, SuspectCluster | None]:
        """Find the suspect cluster of a group.

        Returns:
            The reason why there is none, or "", and the cluster or None.
        """
        if reason := self.reason_too_few(group):
            return reason, None
        found = self.clustering(group).suspect(self.target_logits(group))
        return ("", found) if found is not None else ("no cluster of an admissible size", None)

    def reason_too_few(self, group: Group) -> str:
        """Return the reason why a group has too few images, sources or parts; empty where it has enough."""
        if len(group) < MIN_IMAGES:
            return f"{len(group)} image(s); at least {MIN_IMAGES} are needed"
        if clusters.max_neighbours(self.sources[group.rows]) < 2:
            return "all images are of one source, or all but one"
        items = self.items(group)
        distinct = len({row.tobytes() for row in (items.points if isinstance(items, PointMeasures) else items)})
        if distinct < MIN_IMAGES:
            return f"{distinct} distinct image(s); at least {MIN_IMAGES} are needed"
        few = self.by_parts and min(len(self.parts(group)), self.parts(group).max_neighbours) < MIN_IMAGES
        return f"{len(self.parts(group))} part(s); at least {MIN_IMAGES} are needed" if few else ""

    def clustering(self, group: Group) -> Clustering:
        """Cluster a group; the clustering of plain features is cached, since it is the same for every target."""
        if self.metric != "features":
            return self._clustering(group)
        kept: Clustering = self._cache.get_or_make("clustering", group.rows, lambda: self._clustering(group))
        return kept

    def _clustering(self, group: Group) -> Clustering:
        sweep = SWEEPS["quick" if self.settings.screens else "thorough"]
        found = Clustering.of(self.embedding(group), sweep, self.settings.seed)
        return self.parts(group).image_clusters(found) if self.by_parts else found

    def embedding(self, group: Group) -> Embedding:
        """Compute the spectral embedding of the images, or of their parts; cached where no other class has the rows."""
        make = self._embed_parts if self.by_parts else self._embed_images
        if self.settings.screens:
            return make(group)
        kept: Embedding = self._cache.get_or_make(f"embedding {group.target}", group.rows, lambda: make(group))
        return kept

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
        kept: PartGroup = self._cache.get_or_make("part group", group.rows, lambda: self._parts(group))
        return kept

    def _parts(self, group: Group) -> PartGroup:
        maps = self._rows("maps", group).astype(np.float32)
        labels, seen = self._rows("parts", group).astype(np.int8), self._rows("appearance", group)
        cut = METRICS[self.metric].part_input or centre_by_mass
        return PartGroup.of(maps, labels, seen, self.sources[group.rows], cut)

    def member_parts(self, group: Group, cluster: SuspectCluster) -> list[list[int]]:
        """List the numbers of the parts of each member that are in the cluster; empty where images are compared."""
        return self.parts(group).part_numbers(cluster.candidate.member, cluster.members) if self.by_parts else []

    def _embed_parts(self, group: Group) -> Embedding:
        asked, parts = self.settings, self.parts(group)
        graph = parts.graph(METRICS[self.metric].distance, asked.neighbours, asked.seed)
        return embed(affinity(graph), min(asked.dimensions, len(parts) - 1), asked.seed)

    def _embed_images(self, group: Group) -> Embedding:
        return clusters.embed_items(
            self.items(group),
            self.target_logits(group),
            distance=METRICS[self.metric].distance,
            neighbours=self.settings.neighbours,
            dimensions=self.settings.dimensions,
            seed=self.settings.seed,
        )

    def items(self, group: Group) -> Items:
        """Load the items that the metric compares: n rows or n measures."""
        return METRICS[self.metric].read(self, group)

    def maps(self, group: Group) -> Floats:
        """Load the flattened relevance maps, float32, one row per image."""
        return self._rows("maps", group).reshape(len(group), -1).astype(np.float32)

    def measures(self, group: Group) -> PointMeasures:
        """Convert the positive relevance of the maps to point measures; cached."""
        maps = self._rows("maps", group)
        kept: PointMeasures = self._cache.get_or_make(
            "measures", group.rows, lambda: measures_from_maps(maps.astype(np.float32))
        )
        return kept

    def head_relevance(self, group: Group) -> Floats:
        """Compute head relevance f_c (w_target - mean_k w_k)_c, (n, F) of n images; where it was stored, load it.

        Of independent outputs it is f_c (w_target)_c.

        Raises:
            UsageError: neither stored, nor is the head linear.
        """
        if self.store.has_array("head"):
            return self._rows("head", group)
        weight = require_head_weight(self.head)
        return np.asarray(self._rows("features", group) * self.scale.scores(weight.T).T[group.target])

    def channels(self, group: Group) -> Floats:
        """Load the relevance of each channel of the middle layer, (n, C) of n images."""
        return self._rows("channels", group)

    def penultimate(self, group: Group) -> Floats:
        """Load the penultimate features, (n, F) of n images."""
        return self._rows("features", group)

    def target_logits(self, group: Group) -> TargetLogits:
        """Load the scores of the group's target."""
        return TargetLogits.of(self._rows("logits", group), group.target, self.sources[group.rows], self.scale)

    @property
    def scale(self) -> LogitScale:
        """Scale on which the logits of this run count."""
        return logit_scale(counts_own_logits(self.store.manifest))

    @cached_property
    def sources(self) -> NDArray[np.int64]:
        """Source index of each row of the run; see Corpus.source_numbers."""
        return Corpus.source_numbers_of(self.store.table("corpus", columns=["key", "source"]))

    def _rows(self, name: str, group: Group) -> Floats:
        read: Floats = self._cache.get_or_make(name, group.rows, lambda: self.store.array(name)[group.rows])
        return read

    @cached_property
    def _cache(self) -> RowCache:
        return RowCache()


@dataclass(frozen=True)
class MetricInput:
    """Input and distance of a metric.

    Attributes:
        read: function that loads the items that are compared.
        distance: a name of numerics.neighbours.METRICS.
        part_input: function from the masses (M, G, G) of parts, each on a map of its own, to the items that are
            compared; None for a metric that does not compare maps.
        needs_propagation: whether the metric needs a method that propagates relevance into the network.
    """

    read: Callable[[Analysis, Group], Items]
    distance: str
    part_input: Callable[[Floats], Any] | None = None
    needs_propagation: bool = True


METRICS: dict[str, MetricInput] = {
    "euclidean": MetricInput(Analysis.maps, "euclidean", centre_by_mass),
    "channels": MetricInput(Analysis.channels, "concept"),
    "concept": MetricInput(Analysis.head_relevance, "concept", needs_propagation=False),
    "features": MetricInput(Analysis.penultimate, "concept", needs_propagation=False),  # the baseline without relevance
    **{name: MetricInput(Analysis.measures, name, measures_from_maps) for name in TRANSPORT},
}
