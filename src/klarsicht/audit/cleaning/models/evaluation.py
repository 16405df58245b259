"""Evaluate a model before and after a correction, on images on which it was neither fitted nor chosen; see
audit.cleaning.models.judgement for the verdicts. Write a certificate that compares corrections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from klarsicht.audit.cleaning.artifacts.artifact import Artifact, load_artifact
from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.directions import random_direction
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import CorrectionTest, Logits, Outcome, erasure_of
from klarsicht.audit.cleaning.corrections.samples import Case, Sample
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.certificate import (
    AS_IT_IS,
    CORRECTED,
    Certificate,
    read_certificate,
    render_page,
    write_certificate,
)
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.correction_choice import (
    compare_new_draws,
    draw_shown,
    find_origin,
    make_test,
    require_members,
)
from klarsicht.audit.cleaning.models.group_accuracy import GroupComparison
from klarsicht.audit.cleaning.models.judgement import Judgement, ShownClasses
from klarsicht.audit.cleaning.models.probes import CarrierLabels, SecondAudit, audit_again, probe_layer, relevance_share
from klarsicht.audit.cleaning.models.run_groups import compare_class_groups, compare_true_groups, relies_on_sides
from klarsicht.audit.cleaning.models.training_images import LabelledAnswers
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.results.alarms import CERTIFICATE_FILE, CERTIFICATE_PAGE
from klarsicht.audit.verdicts.interventions.class_parts import ClassParts
from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.progress import track
from klarsicht.ground.run_folder.manifest import to_json
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics import erasure
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval

ANSWERS: Final = "answers.parquet"  # predictions before and after, in the folder of a correction
MASKED: Final = 100  # images of which the share of relevance on the artifact is measured


@dataclass(frozen=True)
class ModelEvaluation:
    """Evaluation of a model under one correction.

    Attributes:
        probes: layer -> balanced accuracy of a new network at detecting the artifact; empty where it was not measured.
        relevance: share of |gradient x input| on the artifact, pasted on other classes.
    """

    name: str
    outcome: Outcome
    probes: dict[str, Interval]
    relevance: Interval
    second_audit: SecondAudit | None

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values."""
        again = self.second_audit
        return {
            "correction": self.name,
            **self.outcome.to_json(),
            "probes": {layer: asdict(p) if p.n else None for layer, p in self.probes.items()},
            "relevance on the artifact": asdict(self.relevance) if self.relevance.n else None,
            "second audit": None if again is None else asdict(again) | {"suspect": again.suspect},
        }


@dataclass(frozen=True)
class Evaluation:
    """Evaluations of a model: unchanged, corrected, and under a control, with the record of the correction, and groups
    of images before and after, where the run or a person names some."""

    record: dict[str, Any]
    evaluations: tuple[ModelEvaluation, ...]
    judgement: Judgement
    skipped: tuple[tuple[str, str], ...]
    groups: tuple[GroupComparison, ...] = ()

    def __repr__(self) -> str:
        return f"Evaluation(verdict {self.verdict!r})"

    def _repr_html_(self) -> str:
        return self.judgement._repr_html_()

    @property
    def before(self) -> ModelEvaluation:
        return self.evaluations[AS_IT_IS]

    @property
    def after(self) -> ModelEvaluation:
        return self.evaluations[CORRECTED]

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return self.judgement.verdict

    def check(self) -> None:
        """Check that the corrected model may be called clean. Raises as Judgement.check."""
        self.judgement.check()

    def to_json(self) -> dict[str, Any]:
        """Return the content of evaluation.json."""
        return {
            **self.judgement.to_json(),
            **{name: self.record[name] for name in ("identity", "class", "target", "settings", "artifact")},
            "chosen": self.record["choice"]["chosen"],
            "bounds": asdict(self.judgement.bounds),
            "shown on": self.judgement.shown,
            **self.judgement.shown_classes.to_json(),
            "skipped": [list(one) for one in self.skipped],
            "groups": [asdict(one) for one in self.groups],
            "looks": [look.to_json() for look in self.evaluations],
        }


@dataclass(frozen=True)
class CertificationResult:
    """Certificate, its folder, and the evaluations made for it."""

    folder: Path
    certificate: Certificate
    evaluations: tuple[Evaluation, ...]

    def check(self) -> None:
        """Check that a correction may be called clean. Raises HarmExceeded or EffectRemains if none may."""
        if len(self.certificate.evaluations) == 1:
            self.evaluations[0].check()
        self.certificate.check()


@check_arguments
def evaluate(
    run: str | Path | RunStore | AuditedRun, folder: str | Path, *, test: str | None = None, images: int | None = None,
    overall: float | None = None, affected: float | None = None, groups: str | None = None, data: Any = None,
    classifier: Classifier | None = None, seed: int = 0, device: str = ANY_DEVICE,
) -> Evaluation:  # fmt: skip
    """Evaluate a saved correction; write FOLDER/evaluation.json.

    Args:
        folder: the folder of the correction.
        test: another corpus to evaluate it on, taken as clean; by default the part `show` of the run's corpus.
        images: members, clean images of the class and clean images to evaluate it on, at most; by default as many as
            `clean` shows a correction on.
        overall, affected: bounds; by default those that it was chosen under.
        groups: true groups of the images, whose accuracy is shown: a column of the corpus's table, or a table with the
            columns path,group.
        data, classifier, device: see clean_model.clean.

    Raises:
        UsageError: the part `show` has no members.
        InputError: the folder holds no correction.
        RunMismatch: the correction belongs to another model or corpus, or these differ from those of the run.
    """
    audited_run = run if isinstance(run, AuditedRun) else AuditedRun.of(run, data, classifier, device)
    correction, record = packages.load_correction(folder)
    if "classes" in record:
        parts = ", ".join(str(Path(folder) / one["folder"]) for one in record["corrections"])
        raise UsageError(
            "a correction of several classes", got=str(folder), rule="one class is evaluated at a time",
            remedy=f"Read its certificate.html, or evaluate one of {parts}.",
        )  # fmt: skip
    if "surroundings" in record:
        raise UsageError(
            "a correction of surroundings", got=str(folder), rule="one artifact of a class",
            remedy="Name it alone; in Python by `evaluate_surroundings`.",
        )  # fmt: skip
    artifact = load_artifact(Path(folder))
    packages.require_same_run(record, audited_run.store.manifest["identity"], folder)
    chosen_under = record["settings"]
    few = chosen_under["images"] if images is None else images  # of each kind, to train and test probes on
    case = artifact.case(audited_run.unseen_class(artifact.name, artifact.target))
    rng = generator(seed, "show", artifact.target)
    train = case.sample(splits.TRAIN, few, rng)
    shown_case = make_test_case(audited_run, artifact, test) if test else case
    shown = draw_shown(shown_case, chosen_under["images"], seed, images)
    if not test:
        require_members(artifact)
        splits.check_disjoint_sources(case.corpus.source_numbers[case.part != splits.TEST], shown.sources)
    asked = {"overall": overall, "affected": affected}
    bounds = Bounds(**{name: chosen_under[name] if bound is None else bound for name, bound in asked.items()})
    trial = make_test(shown_case, artifact, shown, CleanSettings(seed=seed))
    origin = find_origin(trial, shown_case, answers_of_run(audited_run, case) if test else None)
    corrected = trial.compute_logits(correction)
    looks = evaluate_models(
        trial, artifact, correction, record, train, shown.draw(few, artifact.target, rng), corrected
    )
    write_answers(Path(folder) / ANSWERS, trial, corrected if not test else None)
    if test is None:
        comparisons = compare_class_groups(audited_run, artifact, correction, seed, groups)
    else:
        comparisons = () if groups is None else (compare_true_groups(audited_run, correction, test, groups),)
    judgement = Judgement(
        looks[AS_IT_IS].outcome, looks[CORRECTED].outcome, bounds, origin, chosen_under["least_effect"],
        shown=len(shown), shown_classes=ShownClasses.of(trial, shown_case),
        groups=comparisons[-1] if comparisons and judges_groups(audited_run, artifact) else None,
        measured_use=artifact.measured_use, new_draws=compare_new_draws(trial, artifact, correction),
    )  # fmt: skip
    found = Evaluation(record, looks, judgement, shown.skipped, comparisons)
    write_atomically(Path(folder) / "evaluation.json", to_json(found.to_json()))
    return found


def judges_groups(run: AuditedRun, artifact: Artifact) -> bool:
    """Say whether groups are part of the verdict on an artifact: a part of every image, of a model that is shown to
    follow surroundings."""
    return isinstance(artifact.planted, ClassParts) and relies_on_sides(run)


def certify(
    run: str | Path, folders: Sequence[str | Path], *, also: Sequence[str | Path] = (), out: str | Path | None = None,
    test: str | None = None, images: int | None = None, overall: float | None = None, affected: float | None = None,
    groups: str | None = None, data: str | None = None, classifier: Classifier | None = None, seed: int = 0,
    device: str = ANY_DEVICE,
) -> CertificationResult:  # fmt: skip
    """Evaluate corrections of a run, and write the certificate.

    Args:
        also: folders of corrections of other models that are evaluated already: further seeds.
        out: the folder of the certificate; by default RUN/certificate.

    Raises:
        UsageError: corrections of more than one class, or with different bounds.
        InputError, RunMismatch: see `evaluate`.
    """
    audited_run = AuditedRun.of(run, data, classifier, device)
    asked: dict[str, Any] = {
        "test": test, "images": images, "overall": overall, "affected": affected, "groups": groups, "seed": seed,
    }  # fmt: skip
    made = tuple(evaluate(audited_run, folder, **asked) for folder in folders)
    together = read_certificate([*folders, *also])
    own_place = (audited_run.store.path / CERTIFICATE_FILE).parent
    place = Path(out) if out else own_place
    if place.resolve() == own_place.resolve():  # `audit gate` reads it there, as a file of the run
        audited_run.store.write_json(CERTIFICATE_FILE, together.to_json())
        audited_run.store.write_bytes(CERTIFICATE_PAGE, render_page(together).encode())
    else:
        write_certificate(place, render_page(together), together.to_json())
    return CertificationResult(place, together, made)


def write_answers(file: Path, test: CorrectionTest, corrected: Logits | None) -> None:
    """Write the predicted class of each image that a correction was shown on, before and after it, as parquet; without
    logits under the correction the images are not of the run, and a file of earlier ones is removed."""
    if corrected is None:
        file.unlink(missing_ok=True)
        return
    sample, content = test.sample, BytesIO()
    pasted = test.other_rows[: len(corrected.pasted)]
    at = np.concatenate([np.arange(len(sample)), pasted])
    before = np.concatenate([test.before.plain, test.before.pasted]).argmax(1)
    after = np.concatenate([corrected.plain, corrected.pasted]).argmax(1)
    put_on = np.arange(len(at)) >= len(sample)
    columns = {"row": sample.rows[at], "label": test.truth[at], "artifact": put_on, "before": before, "after": after}
    parquet.write_table(pa.table(columns), content)
    write_atomically(file, content.getvalue())


def evaluate_models(
    test: CorrectionTest, artifact: Artifact, correction: Correction, record: dict[str, Any], train: Sample,
    few: Sample, corrected: Logits | None = None,
) -> tuple[ModelEvaluation, ...]:  # fmt: skip
    """Evaluate the unchanged model, the corrected one (whose logits may be known), and a control, a random direction at
    the corrected layer, if any. Probes are trained on the images `train` and tested on `few`, which are audited again.
    """
    target, place, insertion = artifact.target, artifact.place, artifact.insertion
    classifier, seed = test.classifier, test.seed
    layers = probe_layers(record, correction, classifier)
    learns, asked = (CarrierLabels.of(part, insertion, target, seed + i) for i, part in enumerate((train, few)))
    masked = [test.sample.images[i] for i in test.other_rows[:MASKED]] if test.pasted_images else []

    def look(name: str, tried: Correction | None, whole: bool) -> ModelEvaluation:
        outcome = test.evaluate_logits(corrected) if corrected and tried is correction else test.evaluate(tried)
        probes = {layer: probe_layer(classifier, tried, layer, learns, asked, seed) for layer in layers if whole}
        on_it = NO_INTERVAL
        if masked and place is not None:
            on_it = relevance_share(classifier, masked, place, target, tried, seed)
        again = audit_again(classifier, few, target, tried, seed) if whole else None
        return ModelEvaluation(name, outcome, probes, on_it, again)

    tried: list[tuple[str, Correction | None, bool]] = [("nothing", None, True)]
    tried.append((chosen_method(record), correction, True))
    if (erased := erasure_of(correction)) is not None:
        v = random_direction(len(erased.eraser.reference), generator(seed, "random direction", target))
        eraser = erasure.orthogonal_eraser(v[:, None], erased.eraser.reference)
        tried.append(("random direction", Erasure(erased.layer, eraser), False))
    return tuple(look(*one) for one in track(tried, len(tried), "corrections"))


def probe_layers(record: dict[str, Any], correction: Correction, classifier: Classifier) -> tuple[str, ...]:
    """Return the layers that are probed: the corrected layers, the later ones of those that are tried, and the head."""
    chosen, known = record["choice"]["chosen"], record["layers"]
    at = chosen["layer"]
    later = known[known.index(at) :] if at in known else [at] if at else known[-2:]
    beside = [one["layer"] for one in chosen.get("beside", ())]
    return tuple(dict.fromkeys([*later[:1], *beside, *later[1:], classifier.head]))


def chosen_method(record: dict[str, Any]) -> str:
    """Return the name of the method that was chosen."""
    chosen = record["choice"]["chosen"]
    beside = dict.fromkeys(one["method"] for one in chosen.get("beside", ()))
    return " and ".join(beside | {str(chosen["method"]): None})


def answers_of_run(run: AuditedRun, case: Case) -> LabelledAnswers:
    """Read the model's answers to the clean images of a run with known labels."""
    rows = np.flatnonzero(case.clean & (case.labels >= 0))
    return LabelledAnswers.of(np.asarray(run.store.array("logits")[rows], np.float32), case.labels[rows])


def make_test_case(run: AuditedRun, artifact: Artifact, data: str) -> Case:
    """Make a case of another corpus, all of it clean and in the part `show`. Raises as `AuditedRun.open_other`."""
    other = run.open_other(data)
    corpus, everything = other.corpus, np.ones(len(other.corpus), bool)
    part = np.full(len(corpus), splits.TEST, np.int8)
    return Case(
        corpus, run.audit.classifier, artifact.target, other.labels, part, ~everything, everything, artifact.planted
    )
