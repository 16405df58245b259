"""Before and after a correction, on images that it was neither fitted nor chosen on; may the model be called clean?

Three verdicts: *harmful*, where a loss on clean images exceeds its bound; *no help*, where more than half of the
artifact's effect remains; else *clean*, with a word on what the images shown cannot vouch for.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from klarsicht.audit.artifacts.artifact import Artifact, load_artifact
from klarsicht.audit.artifacts.audited_class import AuditedClass
from klarsicht.audit.clean.audited_run import AuditedRun
from klarsicht.audit.clean.clean_model import require_members
from klarsicht.audit.clean.probes import CarrierLabels, SecondAudit, on_mask, probe, second_audit
from klarsicht.audit.corrections import packages
from klarsicht.audit.corrections.activations import Correction
from klarsicht.audit.corrections.clarc import Erasure, WhenPredicted
from klarsicht.audit.corrections.directions import random_direction
from klarsicht.audit.corrections.outcomes import Bounds, CorrectionTest, Outcome
from klarsicht.audit.corrections.samples import Case, Sample
from klarsicht.audit.data import splits
from klarsicht.audit.data.corpus import open_corpus
from klarsicht.audit.data.groups import Group
from klarsicht.audit.models.classifier import Classifier, label_indices
from klarsicht.ground.disk import write_atomically
from klarsicht.ground.errors import EffectRemains, HarmExceeded, RunMismatch
from klarsicht.ground.manifest import to_json
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator
from klarsicht.numerics import erasure
from klarsicht.numerics.statistics.intervals import NOTHING, Interval

LEAVES: Final = 0.5  # of the artifact's effect: above, a correction is no help
AS_IT_IS, CORRECTED = 0, 1  # places of looks
MASKED: Final = 100  # images of which the share of relevance on the artifact is measured


@dataclass(frozen=True)
class ModelEvaluation:
    """A model under one correction.

    Attributes:
        probes: layer -> balanced accuracy of a fresh network at finding the artifact; empty where it was not asked.
        relevance: share of |gradient x input| on the artifact, pasted on other classes.
        again: a second audit of the class, or None.
    """

    name: str
    effect: Outcome
    probes: dict[str, Interval]
    relevance: Interval
    again: SecondAudit | None

    def to_json(self) -> dict[str, Any]:
        found = None if self.again is None else asdict(self.again) | {"suspect": self.again.suspect}
        return {
            "correction": self.name,
            **self.effect.to_json(),
            "probes": {layer: asdict(p) if p.n else None for layer, p in self.probes.items()},
            "relevance on the artifact": asdict(self.relevance) if self.relevance.n else None,
            "second audit": found,
        }


@dataclass(frozen=True)
class Evaluation:
    """Looks at a model: as it is, corrected, and under a control."""

    record: dict[str, Any]
    looks: tuple[ModelEvaluation, ...]
    bounds: Bounds
    shown: int
    skipped: tuple[tuple[str, str], ...]

    @property
    def before(self) -> ModelEvaluation:
        return self.looks[AS_IT_IS]

    @property
    def after(self) -> ModelEvaluation:
        return self.looks[CORRECTED]

    @property
    def remaining(self) -> float:
        """Of the artifact's effect: |rise after| / |rise before|."""
        return abs(self.after.effect.rise.value) / max(abs(self.before.effect.rise.value), 1e-9)

    @property
    def verdict(self) -> str:
        if harm := self.after.effect.exceeded(self.bounds):
            return f"harmful ({harm})"
        if not self.remaining <= LEAVES:
            return f"no help ({self.remaining:.0%} of the effect remains)"
        open_ = self.after.effect.unproven(self.bounds)
        return f"clean, but these images cannot prove it harmless ({open_})" if open_ else "clean"

    @property
    def clean(self) -> bool:
        """Whether the corrected model may be called so."""
        return not self.after.effect.exceeded(self.bounds) and self.remaining <= LEAVES

    def check(self) -> None:
        """Raises HarmExceeded where a bound is broken, EffectRemains where more than half of the effect is left."""
        if harm := self.after.effect.exceeded(self.bounds):
            raise HarmExceeded(
                "the correction harms more than its bound allows", got=harm, rule="such a model is not called clean",
                remedy="Choose another method or layer, or a smaller --strength.",
            )  # fmt: skip
        if not self.clean:
            raise EffectRemains(
                "the correction does not help", got=f"{self.remaining:.0%} of the artifact's effect remains",
                rule="such a model is not called clean", remedy="Choose another method or layer, or train again.",
            )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "clean": self.clean,
            "identity": self.record["identity"],
            "class": self.record["class"],
            "target": self.record["target"],
            "settings": self.record["settings"],
            "chosen": self.record["choice"]["chosen"],
            "artifact": self.record["artifact"],
            "bounds": asdict(self.bounds),
            "remaining": self.remaining,
            "shown on": self.shown,
            "skipped": [list(one) for one in self.skipped],
            "looks": [look.to_json() for look in self.looks],
        }


def evaluate(
    run: str | Path, folder: str | Path, *, test: str | None = None, images: int = 400, overall: float | None = None,
    affected: float | None = None, data: str | None = None, classifier: Classifier | None = None, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """Shows a saved correction; writes FOLDER/evaluation.json.

    Args:
        test: another corpus, taken for clean, to show it on; else the part `show` of the run's.
        images: members, clean images of the class and clean images to show it on, at most.
        overall, affected: what it may cost, see trials.Bounds; by default those that it was chosen under.

    Raises:
        RunMismatch: it belongs to another model or corpus.
    """
    patient = AuditedRun.of(run, data, classifier)
    return evaluated(patient, folder, test=test, images=images, overall=overall, affected=affected, seed=seed)


def evaluated(
    patient: AuditedRun, folder: str | Path, *, test: str | None = None, images: int = 400,
    overall: float | None = None, affected: float | None = None, seed: int = 0,
) -> Evaluation:  # fmt: skip
    """As `evaluate`, of a run that is open already."""
    correction, record = packages.load_correction(folder)
    artifact = load_artifact(Path(folder))
    if record["identity"] != patient.store.manifest["identity"]:
        raise RunMismatch(
            "the correction belongs to another run", got=str(folder), rule="the same model and corpus",
            remedy="Name the run that it was made from.",
        )  # fmt: skip
    case, rng = of_run(patient, artifact), generator(seed, "show", artifact.target)
    train = case.sample(splits.TRAIN, images, rng)
    shown = (
        other(patient, artifact, test).sample(splits.TEST, images, rng)
        if test
        else case.sample(splits.TEST, images, rng)
    )
    if not test:
        require_members(artifact)
        splits.check_apart(case.corpus.source_numbers[case.part != splits.TEST], shown.sources)
    chosen_under = record["settings"]
    bounds = Bounds(
        chosen_under["overall"] if overall is None else overall,
        chosen_under["affected"] if affected is None else affected,
    )
    found = Evaluation(
        record,
        looks(case.classifier, artifact, correction, record, train, shown, seed),
        bounds,
        len(shown),
        shown.skipped,
    )
    write_atomically(Path(folder) / "evaluation.json", to_json(found.to_json()))
    return found


def looks(
    classifier: Classifier, artifact: Artifact, correction: Correction, record: dict[str, Any],
    train: Sample, shown: Sample, seed: int,
) -> tuple[ModelEvaluation, ...]:  # fmt: skip
    """As it is, corrected, and, where a layer is corrected, a random direction at the same layer."""
    target, place, putting = artifact.target, artifact.place, artifact.putting
    trial = CorrectionTest(classifier, shown, target, putting, seed)
    layers = probed(record, correction, classifier)
    learns, asked = (CarrierLabels.of(part, putting, target, seed + i) for i, part in enumerate((train, shown)))
    masked = [shown.images[i] for i in trial.others[:MASKED]] if place is not None and trial.pasted else []

    def look(name: str, tried: Correction | None, whole: bool) -> ModelEvaluation:
        return ModelEvaluation(
            name,
            trial.effect(tried),
            {layer: probe(classifier, tried, layer, learns, asked, seed) for layer in layers} if whole else {},
            on_mask(classifier, masked, place, target, tried, seed) if masked and place is not None else NOTHING,
            second_audit(classifier, shown, target, tried, seed) if whole else None,
        )

    tried: list[tuple[str, Correction | None, bool]] = [
        ("nothing", None, True),
        (record["settings"]["method"], correction, True),
    ]
    erased = correction.erasure if isinstance(correction, WhenPredicted) else correction
    if isinstance(erased, Erasure):
        v = random_direction(len(erased.eraser.reference), generator(seed, "random direction", target))
        eraser = erasure.orthogonal(v[:, None], erased.eraser.reference)
        tried.append(("random direction", Erasure(erased.layer, eraser), False))
    return tuple(look(*one) for one in track(tried, len(tried), "corrections"))


def probed(record: dict[str, Any], correction: Correction, classifier: Classifier) -> tuple[str, ...]:
    """Where a probe looks: at the corrected layer and after it; the last of those worth a try, and the head."""
    at = record["choice"]["chosen"]["layer"]
    known = record["layers"]
    later = known[known.index(at) :] if at in known else [at] if at else known[-2:]
    return tuple(dict.fromkeys([*later, classifier.head]))


def of_run(patient: AuditedRun, artifact: Artifact) -> Case:
    """The case that the correction was fitted on."""
    group = Group(artifact.name, artifact.target, np.empty(0, np.intp))
    audit = patient.audit
    return artifact.case(AuditedClass(patient.store, audit.corpus, audit.classifier, group, patient.labels))


def other(patient: AuditedRun, artifact: Artifact, data: str) -> Case:
    """Another corpus, all of it clean and all of it to be shown."""
    corpus, audit = open_corpus(data), patient.audit
    known = dict(audit.index)
    if unknown := [label for label in corpus.classes if label not in known]:
        known |= label_indices(unknown, audit.classifier)
    labels = np.array([known[label] for label in corpus.labels])
    n = len(corpus)
    part = np.full(n, splits.TEST, np.int8)
    return Case(corpus, audit.classifier, artifact.target, labels, part, np.zeros(n, bool), np.ones(n, bool))
