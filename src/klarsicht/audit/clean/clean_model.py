"""The easy door of cleaning: what an audit found in a class becomes an artifact; a correction is fitted and chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from klarsicht import __version__
from klarsicht.audit.artifacts.artifact import Artifact
from klarsicht.audit.clean.audited_run import AuditedRun
from klarsicht.audit.corrections import packages, selection
from klarsicht.audit.corrections.clarc import correction_layers, layer_named
from klarsicht.audit.corrections.closed_form import CLOSED, CorrectionMethod, FittingData
from klarsicht.audit.corrections.directions import DIRECTIONS
from klarsicht.audit.corrections.outcomes import GROUP, Bounds, CorrectionTest
from klarsicht.audit.corrections.retraining import RETRAINED
from klarsicht.audit.corrections.samples import Case
from klarsicht.audit.corrections.selection import Choice, Grid
from klarsicht.audit.data import splits
from klarsicht.audit.models.classifier import Classifier
from klarsicht.ground.config import Settings
from klarsicht.ground.errors import InputError, UsageError, unknown_name
from klarsicht.ground.seeding import generator

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]

METHODS: dict[str, CorrectionMethod] = CLOSED | RETRAINED


class CleanSettings(Settings):
    """Settings of `audit clean`.

    Attributes:
        method: a name of `METHODS`.
        direction: a name of audit.corrections.directions.DIRECTIONS.
        layer, directions, strength: as they are given; what is not given is swept.
        pooled: erase by the mean over positions.
        overall, affected: what a correction may cost, in shares of clean images, and of those of the class.
        images: members, clean images of the class and clean images that are fitted on, at most; as many to choose on.
        lessons: as many to train on.
        steps, batch, rate: of a training.
        seed: of parts, samples and training.
    """

    method: str = "oblique"
    direction: str = "pattern"
    layer: str | None = None
    directions: Count | None = None
    strength: Annotated[float, Field(gt=0)] | None = None
    pooled: bool = False
    overall: Share = 0.005
    affected: Share = 0.02
    images: Annotated[int, Field(ge=8)] = 400
    lessons: Annotated[int, Field(ge=8)] = 2000
    steps: Count = 300
    batch: Annotated[int, Field(ge=2)] = 64
    rate: Annotated[float, Field(gt=0)] = 3e-4
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.overall, self.affected)

    @property
    def grid(self) -> Grid:
        free = Grid()
        return Grid(
            () if self.layer is None else (self.layer,),
            free.directions if self.directions is None else (self.directions,),
            free.strengths if self.strength is None else (self.strength,),
        )


@dataclass(frozen=True)
class Cleaned:
    """A fitted correction and where it lies.

    Attributes:
        record: what FOLDER/correction.json says.
    """

    folder: Path
    artifact: Artifact
    choice: Choice
    record: dict[str, Any]


def clean(
    run: str | Path, name: str, settings: CleanSettings | None = None, *, out: str | Path | None = None,
    found_by: str | None = None, members: Path | None = None, mask: Path | None = None, data: str | None = None,
    classifier: Classifier | None = None,
) -> Cleaned:  # fmt: skip
    """Fits a correction of the audited model for the artifact of a class, chooses it under the bounds, and saves it.

    Args:
        out: the folder of the correction; by default RUN/corrections/TARGET-METHOD.
        found_by: a name of patient.FINDERS; by default detectors where they called the class artifactual.
        members: a text file of images that carry the artifact, one path or key a line, in place of what was found.
        mask: a picture, white where the artifact lies, in place of relevance.
        data: where the corpus is now, if it moved. classifier: a model built in Python.

    Raises:
        UsageError: unknown class, method, direction or layer, or too few members.
        InputError: nothing to be learned, or a list or mask that cannot be used.
        RunMismatch: the model or the data are not those of the run any more.
    """
    asked = settings or CleanSettings()
    check(asked)
    patient = AuditedRun.of(run, data, classifier)
    with patient.store.lock():
        artifact, audited = patient.artifact(name, found_by=found_by, members=members, mask=mask, seed=asked.seed)
        folder = Path(out) if out else patient.store.path / "corrections" / f"{artifact.target}-{asked.method}"
        case = artifact.case(audited)
        bench, trial = prepared(case, artifact, asked)
        chosen = treat(bench, trial, asked)
        artifact.save(folder, audited.corpus)
        shown = case.read(np.flatnonzero(case.clean)[:1], np.ones(1, bool)).images
        record = facts(patient, artifact, asked, chosen, (*bench.fit.skipped, *trial.sample.skipped))
        told = packages.save_correction(folder, chosen.correction, record, case.classifier, *shown)
    return Cleaned(folder, artifact, chosen, told)


def check(asked: CleanSettings) -> None:
    """Known names."""
    if asked.method not in METHODS:
        raise unknown_name("correction", asked.method, METHODS)
    if asked.direction not in DIRECTIONS:
        raise unknown_name("direction", asked.direction, DIRECTIONS)


def prepared(case: Case, artifact: Artifact, asked: CleanSettings) -> tuple[FittingData, CorrectionTest]:
    """What corrections of a case are fitted on, and what they are chosen on.

    Raises:
        InputError: what the members share every image of the class shares: then it may be the class itself. Members
            of other classes tell the two apart where the class has few images.
    """
    own = case.labels == case.target
    telling = own.sum() >= GROUP or not (case.member & ~own).any()
    if own.any() and telling and not (own & case.clean).any():
        raise InputError(
            "no image of the class without the artifact",
            got=f"{own.sum()} images, all of them members or taken for such by the detector",
            rule="without clean images of the class its harm cannot be measured",
            remedy="List fewer --members, or add images of the class without the artifact.",
        )
    rng = generator(asked.seed, "samples", case.target)
    fit, choose = case.sample(splits.TRAIN, asked.images, rng), case.sample(splits.VALIDATION, asked.images, rng)
    more = case.sample(splits.TRAIN, asked.lessons, rng) if asked.method in RETRAINED else None
    bench = FittingData(
        case.classifier, case.target, fit, artifact.putting, asked.direction, asked.pooled, asked.seed, more,
        asked.steps, asked.batch, asked.rate,
    )  # fmt: skip
    return bench, CorrectionTest(case.classifier, choose, case.target, artifact.putting, asked.seed)


def treat(bench: FittingData, trial: CorrectionTest, asked: CleanSettings) -> Choice:
    """The correction, fitted on the bench and chosen on the trial.

    Raises:
        UsageError: unknown layer.
    """
    if asked.layer is not None:
        layer_named(bench.classifier.module, asked.layer)
    remedy, grid = METHODS[asked.method], asked.grid
    if asked.method in RETRAINED and "layer" in remedy.sweeps and not grid.layers:  # a training each would be dear
        best = selection.choose(
            CLOSED["oblique"], bench, trial, asked.bounds, Grid((), (1,), (1.0,))
        ).chosen.setting.layer
        grid = Grid((best,), grid.directions, grid.strengths)
    return selection.choose(remedy, bench, trial, asked.bounds, grid)


def facts(
    patient: AuditedRun, artifact: Artifact, asked: CleanSettings, chosen: Choice, skipped: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    """What a correction's record says."""
    manifest = patient.store.manifest
    return {
        "klarsicht": __version__,
        "class": artifact.name,
        "target": artifact.target,
        "settings": asked.model_dump(mode="json"),
        "model": patient.audit.settings.model,
        "identity": manifest["identity"],
        "choice": chosen.to_json(),
        "artifact": artifact.to_json(),
        "layers": list(correction_layers(patient.audit.classifier.module, patient.audit.classifier.head)),
        "skipped": [list(one) for one in skipped],
    }


def require_members(artifact: Artifact) -> None:
    """Raises UsageError for an artifact whose part `show` has no members."""
    if not (artifact.part[artifact.members] == splits.TEST).any():
        raise UsageError("no members to show a correction on", got=f"{len(artifact.members)} members")
