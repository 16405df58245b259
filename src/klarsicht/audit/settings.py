"""What decides the result of an audit: one frozen object, saved beside the result."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from klarsicht.ground.config import Settings

HEAD_RELEVANCE = "HeadRelevance"  # the method without propagation: any network with a linear head, and no maps
Metrics = Annotated[tuple[str, ...], Field(min_length=1)]


class AuditSettings(Settings):
    """Settings of `audit run`; the same settings, data and model give the same bytes.

    Attributes:
        model: what to audit: `efficientnet-lite0`, `torchvision:NAME@CHECKPOINT` or `module:callable`.
        data: an ImageFolder, or a manifest (CSV or parquet) with columns path, label[, source, split].
        target: whose evidence is explained: `label` and `predicted` audit each class on its own images; the name
            of one class screens the whole corpus for it; `all` screens the whole corpus for every class.
        metric: what compares two images; names of `audit.spray.clustering.METRICS`.
        method: how relevance is computed: a name of `audit.relevance.explainer.METHODS`, or `HeadRelevance`: no maps.
        class_map: a CSV with columns label,index where labels are not the model's own names.
        split: only images of this split of the manifest.
        parts: under a metric that compares maps, compare connected parts of them, by shape and by what a middle layer
            sees there.
        parts_layer: that layer, whose channels are compared too; the default is `audit.models.hooks.middle_layer`.
        map_side: G, the side of stored relevance maps.
        neighbours: k of the neighbour graph.
        dimensions: d of the spectral embedding.
        batch: images in a forward pass.
        unit: images in a work unit: what is lost at most when the process is killed.
        threads: threads of one worker; part of the settings because sums depend on it in the last bit.
        seed: root of all randomness.
    """

    model: str
    data: str
    target: str = "label"
    metric: Metrics = ("concept",)
    method: str = "EpsilonPlusFlat"
    class_map: str | None = None
    split: str | None = None
    parts: bool = False
    parts_layer: str | None = None
    map_side: Annotated[int, Field(ge=4, le=224)] = 32
    neighbours: Annotated[int, Field(ge=2, le=200)] = 10
    dimensions: Annotated[int, Field(ge=2, le=64)] = 8
    batch: Annotated[int, Field(ge=1)] = 16
    unit: Annotated[int, Field(ge=1)] = 256
    threads: Annotated[int, Field(ge=1)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @property
    def screens(self) -> bool:
        """Whether every image is looked at for every class, so that no single class has a map."""
        return self.target == "all"

    @property
    def maps(self) -> bool:
        """Whether each image gets a relevance map."""
        return not self.screens and self.method != HEAD_RELEVANCE
