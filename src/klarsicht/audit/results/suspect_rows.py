"""Rows of the tables of clusters, without torch: of the suspect cluster of each class, and of a cluster by itself."""

from __future__ import annotations

from typing import TypedDict

ComparedGroup = TypedDict("ComparedGroup", {"class": str, "target": int, "metric": str, "n": int})
"""Columns of a group of images that were compared under a metric."""


class GroupColumns(ComparedGroup):
    """Columns of an analysed group: why it was skipped and which images were set aside, empty where none."""

    skipped: str
    aside: str


class ClusterColumns(TypedDict):
    """Columns of a suspect cluster: its members as rows of the run, their parts, and numbers of `SuspectCluster`."""

    proposal: str
    rows: list[int]
    parts: list[list[int]]
    tau: float
    rho2: float
    d2: float
    shift: float
    z: float
    deviation: float
    rounding: float


class SuspectRow(GroupColumns, ClusterColumns):
    """Row of a table of suspects."""


class ClusterRow(ComparedGroup, ClusterColumns):
    """Row of a cluster and the group that it is of."""


NO_CLUSTER = ClusterColumns(
    proposal="", rows=[], parts=[], tau=0.0, rho2=0.0, d2=0.0, shift=0.0, z=0.0, deviation=0.0, rounding=0.0
)
