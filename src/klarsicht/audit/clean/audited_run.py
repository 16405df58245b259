"""A run opened again to be treated, and what was found in one of its classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from klarsicht.audit import pipeline
from klarsicht.audit.artifacts.annotations import read_mask, read_member_list
from klarsicht.audit.artifacts.artifact import Artifact, record
from klarsicht.audit.artifacts.audited_class import AuditedClass
from klarsicht.audit.data import groups
from klarsicht.audit.detectors.bank import change_of
from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.pipeline import Audit
from klarsicht.audit.results import ranking, verdicts
from klarsicht.audit.settings import AuditSettings
from klarsicht.ground.arrays import Ints
from klarsicht.ground.errors import UsageError, unknown_name
from klarsicht.ground.store import RunStore

CLUSTER, DETECTOR = FINDERS = ("cluster", "detector")
NO_CHANGE: Final = ""  # nothing is said of how it changes an image


@dataclass(frozen=True)
class FoundArtifact:
    """Images of a class that carry an artifact.

    Attributes:
        members: rows of the corpus.
        origin: who says so.
        change: how it changes an image, a name of changes.CHANGES, where a detector says so.
    """

    audited: AuditedClass
    members: Ints
    origin: str
    change: str = NO_CHANGE


@dataclass(frozen=True)
class AuditedRun:
    """A run opened again, with its model and corpus as they were."""

    store: RunStore
    audit: Audit

    @classmethod
    def of(cls, run: str | Path, data: str | None = None, classifier: Classifier | None = None) -> AuditedRun:
        """Raises RunMismatch for a model or data that are not those of the run any more."""
        store = RunStore.open(run)
        settings = AuditSettings.model_validate(store.manifest["settings"] | {"data": data or store.manifest["data"]})
        audit = Audit.of(settings, classifier)
        pipeline.unchanged(audit, store)
        return cls(store, audit)

    @property
    def labels(self) -> Ints:
        return np.array([self.audit.index.get(label, -1) for label in self.audit.corpus.labels])

    def audited(self, target: int, metric: str) -> AuditedClass:
        """What a class of the run was audited on."""
        group = pipeline.analyses(self.audit, self.store, (metric,))[metric].group(target)
        return AuditedClass(self.store, self.audit.corpus, self.audit.classifier, group, self.labels)

    def found(self, name: str, by: str | None = None) -> FoundArtifact:
        """What the audit found in a class: the images that the strongest detector names, or the suspect cluster.

        Args:
            by: a name of FINDERS; by default detectors where `audit quantify` called the class artifactual by them.
                Where classes are too few to be called, what was shown is an artifact if a person says so: DETECTOR.

        Raises:
            UsageError: the class was not audited, or the finder is unknown or has found nothing.
        """
        if by not in (None, *FINDERS):
            raise unknown_name("finder", str(by), FINDERS)
        if by != CLUSTER and verdicts.quantified(self.store):
            verdict = verdicts.read_verdicts(self.store).of(name)
            if verdict.artifactual or (by == DETECTOR and verdict.shared):
                audited = self.audited(verdict.target, self.audit.settings.metric[0])
                return FoundArtifact(
                    audited, np.array(verdict.rows), f"detector: {verdict.sign}", change_of(verdict.sign)
                )
        if by == DETECTOR:
            raise UsageError(
                "no detector called this class artifactual",
                got=name,
                rule="a run that `audit quantify` has been through, and a class called artifactual by it",
                remedy="Run `audit quantify` first, or take the suspect cluster: --found-by cluster.",
            )
        entry = ranking.read_ranking(self.store).of(name)
        return FoundArtifact(self.audited(entry.target, entry.metric), np.array(entry.rows), f"cluster: {entry.metric}")

    def told(self, name: str, members: Path) -> FoundArtifact:
        """What a person lists.

        Raises:
            UsageError: the class was not audited. InputError: the list cannot be used.
        """
        target = groups.output_named(name, self.audit.names, self.audit.index)
        audited = self.audited(target, self.audit.settings.metric[0])
        return FoundArtifact(audited, read_member_list(members, audited), f"list: {members.name}")

    def artifact(
        self, name: str, *, found_by: str | None = None, members: Path | None = None, mask: Path | None = None,
        seed: int = 0,
    ) -> tuple[Artifact, AuditedClass]:  # fmt: skip
        """The artifact of a class: of images that the audit found, or that a person lists; where a person marks it,
        or where relevance lies.

        Raises:
            UsageError: the class was not audited, members are too few, or both a finder and a list are named.
            InputError: the list or the mask cannot be used.
        """
        if members is not None and found_by is not None:
            raise UsageError("whose members?", got=f"{found_by} and {members}", rule="--found-by or --members")
        finding = self.found(name, found_by) if members is None else self.told(name, members)
        region = None if mask is None else read_mask(mask, finding.audited)
        origin = finding.origin + (", mask" if mask else "")
        change = finding.change if mask is None else NO_CHANGE
        found = record(finding.audited, finding.members, origin=origin, seed=seed, region=region, change=change)
        return found, finding.audited
