"""Artifacts of one or several classes that a corpus is cleaned of, and the images that carry them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from klarsicht.audit.cleaning.artifacts.artifact import Artifact, load_artifact
from klarsicht.audit.cleaning.artifacts.found_artifact import MemberList
from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.data.data_record import FOUND, PROBABLE
from klarsicht.audit.cleaning.models.audited_run import AuditedRun, make_each
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import RunMismatch
from klarsicht.ground.progress import track
from klarsicht.ground.run_folder.decisions import DecisionLog


@dataclass(frozen=True)
class DataArtifacts:
    """Artifacts in one corpus of N images. above: an image with at least this probability counts as a carrier, and so
    does every member. left_out: (class, reason) of classes in which no artifact was found. removed: for each artifact,
    rows that a person took out of its members, which do not count as carriers; or empty."""

    artifacts: tuple[Artifact, ...]
    above: float
    left_out: tuple[tuple[str, str], ...] = ()
    removed: tuple[tuple[int, ...], ...] = ()

    @property
    def carries(self) -> Bools:
        """Images that carry each artifact: bool (m, N)."""
        found = np.array([one.member | (one.membership.probability >= self.above) for one in self.artifacts])
        for carries, rows in zip(found, self.removed, strict=False):
            carries &= ~np.isin(np.arange(len(carries)), rows)
        return found

    @property
    def owners(self) -> tuple[str, ...]:
        """Classes whose artifact each image carries, separated by semicolons."""
        names = [one.name for one in self.artifacts]
        return tuple(
            "; ".join(name for name, on in zip(names, row, strict=True) if on) if row.any() else ""
            for row in self.carries.T
        )

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reason why each image counts as a carrier: that it is an image of the finding, or its probability; else
        empty."""
        member: Bools = np.any([one.member for one in self.artifacts], axis=0)
        probability = np.max([one.membership.probability for one in self.artifacts], axis=0)
        return tuple(
            "" if not carries else FOUND if found else f"{PROBABLE} {p:.2f}"
            for carries, found, p in zip(np.atleast_1d(self.carries.any(0)), member, probability, strict=True)
        )

    def to_json(self) -> dict[str, Any]:
        """Return classes, origins and bound as JSON values."""
        if len(self.artifacts) == 1 and not self.left_out:
            (one,) = self.artifacts
            return {"class": one.name, "artifact": one.origin, "above": self.above}
        told = [{"class": one.name, "artifact": one.origin} for one in self.artifacts]
        return {"classes": told, "left out": [list(one) for one in self.left_out], "above": self.above}


def build_artifacts(
    run: AuditedRun, names: Sequence[str], above: float, *, found_by: str | None = None,
    members: MemberList | None = None, mask: Path | None = None, seed: int = 0,
) -> DataArtifacts:  # fmt: skip
    """Build the artifact of each class, each class once; a class in which none is found is left out. Raises UsageError
    or InputError for an unknown class, and if no artifact is found in any class."""
    once = run.name_once(names)

    def build(name: str) -> Artifact:
        return run.build_artifact(name, found_by=found_by, members=members, mask=mask, seed=seed)[0]

    in_order = track(once, len(once), "classes") if len(once) > 1 else once
    found, left_out = make_each(((name, name) for name in in_order), build, lacking="artifact")
    return DataArtifacts(tuple(found), above, tuple(left_out))


def leave_removed(run: AuditedRun, found: DataArtifacts) -> DataArtifacts:
    """Return the artifacts without the carriers that a person removed from the members of the first artifact of a
    class."""
    decisions = DecisionLog(run.store.path).decisions()
    removed = [
        decisions[one.target].removed if one.target in decisions and one.number == 1 else () for one in found.artifacts
    ]
    return replace(found, removed=tuple(removed))


def read_artifacts(run: AuditedRun, correction: Path, above: float) -> DataArtifacts:
    """Read the artifacts of a correction of one class or several. Raises InputError: the folder holds none;
    RunMismatch: it belongs to another model or corpus."""
    _, record = packages.load_correction(correction)
    if record["identity"] != run.store.manifest["identity"]:
        raise RunMismatch("the correction belongs to another run", got=correction, rule="the same model and corpus")
    folders = [correction / one["folder"] for one in record.get("corrections", ())] or [correction]
    return DataArtifacts(tuple(map(load_artifact, folders)), above)
