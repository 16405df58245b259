"""Clean a model of what nearly the whole of its classes share around the images' own: all classes at once.

Own places of images are laid on images of any class (`own_places.composites`), so that what surrounds them says nothing
of the class, and a copy of the model is trained on that, and on as many images as they are. Effect and harm are
measured on images of other sources than any that taught it: on pictures as they are, by class and side, and on
composites, which have as many images on every side as wanted. Where no shortcut was
shown, what is asked for all the same may cost little: the weights then move towards the new ones only so far.

Balanced images, in which the shortcut says nothing, are among those that teach, if a person has some. Where no shortcut
was shown in surroundings, since it lies on the object, they alone teach, and those that taught nothing decide.

    OUT/correction.json, weights.safetensors, model.pt2    the correction
    OUT/evaluation.json                                    groups of images, by `evaluate_surroundings`
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from klarsicht import __version__
from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.retraining import RetrainedWeights
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import AUTOMATIC, CleanSettings
from klarsicht.audit.cleaning.models.composite_training import choose_rate
from klarsicht.audit.cleaning.models.group_accuracy import GroupTable, OwnImages, predict_classes
from klarsicht.audit.cleaning.models.group_judgement import GroupJudgement
from klarsicht.audit.cleaning.models.run_groups import compare_true_groups, read_run_groups, tests_sides
from klarsicht.audit.cleaning.models.teaching_images import TeachingImages
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.ranges import SHOWN_IMAGES
from klarsicht.ground.run_folder.manifest import to_json
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.paired_loss import PairedLoss, paired_loss

SETTINGS_USED: Final = ("overall", "steps", "batch", "rate", "seed")
METHODS_MEANT: Final = (AUTOMATIC, "augment")  # that such a correction may be called
EVALUATION: Final = "evaluation.json"
STEPS_TRIED: Final = tuple(i / 10 for i in range(1, 11))  # shares of the change of the weights


@dataclass(frozen=True)
class BoundedChange:
    """Share of a change of weights that is kept under a bound.

    Attributes:
        share: that is kept, 0 to 1.
        loss: of accuracy by it.
        most: that may be lost.
    """

    share: float
    loss: PairedLoss
    most: float

    def describe(self) -> str:
        """Say in sentences how much is kept, and what it costs."""
        bound = f"no shortcut in the surroundings was shown, so at most {100 * self.most:g} points may be lost"
        images = f"on {self.loss.n} images that taught nothing"
        if not self.share:
            return f"{bound}: the weights stay as they were. A tenth of their change already loses more {images}."
        lost = f"It loses {100 * self.loss.value:z.1f} points {images}."
        return f"{bound}: {100 * self.share:.0f} % of the change of the weights is kept. {lost}"


@dataclass(frozen=True)
class CleanedSurroundings:
    """Correction of a model's use of surroundings, and its folder.

    Attributes:
        judgement: by groups of held-out images, and of composites of them.
        record: content of FOLDER/correction.json.
        change: share of the change that is kept; None where a shortcut was shown, and after an evaluation.
    """

    folder: Path
    correction: Correction
    judgement: GroupJudgement
    record: dict[str, Any]
    change: BoundedChange | None = None

    @property
    def before(self) -> GroupTable:
        """Groups of the unchanged model, of the images that decide."""
        return self.judgement.decisive.before

    @property
    def after(self) -> GroupTable:
        """Groups of the corrected model, of the images that decide."""
        return self.judgement.decisive.after

    def check(self) -> None:
        """Check that the corrected model may be called clean; it is saved anyway. Raises as GroupJudgement.check."""
        self.judgement.check()


@check_arguments
def clean_surroundings(
    run: str | Path | RunStore, settings: CleanSettings | None = None, *, out: str | Path | None = None,
    groups: str | None = None, balanced: Any = None, data: Any = None, classifier: Classifier | None = None,
    device: str = ANY_DEVICE,
) -> CleanedSurroundings:  # fmt: skip
    """Train a copy of the audited model on own places with surroundings of any class and on images as they are, measure
    it on images of sources that taught nothing, and save it. Where `audit shortcuts` showed no shortcut in
    the surroundings, or could not test the model on it, as much of the change is kept as loses no more than
    `settings.overall`; with balanced images, which then teach alone, all of it.

    Args:
        settings: batch, rate, steps, seed and overall count; by default TAUGHT_EPOCHS are shown, half of them
            composites.
        out: the folder of the correction; by default RUN/corrections/surroundings.
        groups: true groups of the images, in place of the sides that were found: a column of the corpus's table, or a
            table with the columns path,group.
        balanced: a corpus of the same classes in which the shortcut says nothing of the class, a path or what it is in
            Python.
        data, classifier, device: see `clean_model.clean`.

    Raises:
        StoreError: `audit shortcuts` was not run, and no balanced images are named.
        UsageError: it found too few own places, and no balanced images are named; groups are of no table; or a setting
            of other corrections is named.
        InputError: groups cannot be read, or images have none; or too few balanced images of a class.
        CorpusError: no corpus of balanced images, or labels there that the run does not know.
        RunMismatch: model or data differ from those of the run.
    """
    settings = settings or CleanSettings()
    require_used_settings(settings)
    case = AuditedRun.of(run, data, classifier, device)
    has_bound = balanced is None and not tests_sides(case)
    sides = None if groups is None else read_run_groups(case, groups)
    with case.store.lock():
        images = TeachingImages.of(case, settings.seed, sides, balanced, has_bound)
        rate = choose_rate(settings, case.audit.classifier, images.example)
        settings = settings.model_copy(update={"rate": rate})  # as it is recorded
        folder = Path(out) if out else case.store.path / "corrections" / "surroundings"
        correction, change = images.train(settings), None
        if has_bound and images.own_images is not None:
            correction, change = bound_change(case.audit.classifier, correction, images.own_images, settings.overall)
        bounds = Bounds(settings.overall, settings.affected)
        judgement = GroupJudgement(images.compare(correction, settings.seed), bounds)
        facts = {
            "klarsicht": __version__, "model": case.audit.settings.model, "targets": images.targets,
            "code": case.store.manifest.get("code", {}), "identity": case.store.manifest["identity"],
            "settings": settings.model_dump(mode="json"), "surroundings": judgement.to_json(),
            "change": change and asdict(change), "balanced": images.fair_images and images.fair_images.to_json(),
        }  # fmt: skip
        record = packages.save_correction(folder, correction, facts, case.audit.classifier, images.example[0])
    return CleanedSurroundings(folder, correction, judgement, record, change)


def require_used_settings(settings: CleanSettings) -> None:
    """Check that no setting differs from its default which a correction of surroundings has not. Raises UsageError."""
    unused = [
        f"--{name.replace('_', '-')}"
        for name, field in CleanSettings.model_fields.items()
        if name not in SETTINGS_USED
        and getattr(settings, name) not in (METHODS_MEANT if name == "method" else (field.default,))
    ]
    if unused:
        used = ", ".join(f"--{name}" for name in SETTINGS_USED)
        raise UsageError(
            "settings of other corrections beside --part surroundings or --balanced", got=", ".join(unused),
            rule=f"the model is trained, by {used} alone", remedy="Leave them out.",
        )  # fmt: skip


@check_arguments
def evaluate_surroundings(
    run: str | Path | RunStore, folder: str | Path, *, test: str | None = None, groups: str | None = None,
    balanced: Any = None, overall: float | None = None, images: int | None = None, seed: int = 0,
    out: str | Path | None = None, data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> CleanedSurroundings:  # fmt: skip
    """Evaluate a saved correction of the use of surroundings; write evaluation.json.

    Args:
        folder: the folder of the correction.
        test: another corpus with true groups, shown as it is; by default the images of the run that taught nothing.
        groups: true groups of the images that are shown; see `clean_surroundings`.
        balanced: the balanced images of the correction, by default from where they were; those that taught it are not
            shown.
        overall: the loss that may be; by default the one that the correction was made under.
        images: images of each group, at most; by default all, and SHOWN_COMPOSITES composites.
        seed: of the draw of composites and images; that of the correction gives those on which it was measured.
        out: the folder of evaluation.json; by default that of the correction.
        data, classifier, device: see `clean_model.clean`.

    Raises:
        UsageError: another corpus without groups.
        InputError: the folder holds no such correction, or groups cannot be read.
        CorpusError: balanced images are no longer where they were.
        RunMismatch: the correction belongs to another run, or has other balanced images; or model or data differ from
            those of the run.
    """
    if test is not None and groups is None:
        raise UsageError(
            "surroundings are evaluated on another corpus by groups, and none are named", got=f"--test {test}",
            rule="`audit shortcuts` found the surroundings of the run's own images alone",
            remedy="Name a column of its table, or a table with the columns path,group: --groups. Or leave out --test.",
        )  # fmt: skip
    case = AuditedRun.of(run, data, classifier, device)
    correction, record = packages.load_correction(folder)
    require_surroundings(record, folder)
    packages.require_same_run(record, case.store.manifest["identity"], folder)
    if images is not None:
        SHOWN_IMAGES.require("images", images)
    settings = CleanSettings(**record["settings"])
    bounds = Bounds(settings.overall if overall is None else overall, settings.affected)
    if test is not None and groups is not None:
        shown = compare_true_groups(case, correction, test, groups, images, seed)
        judgement = GroupJudgement((shown,), bounds)
    else:
        sides = None if groups is None else read_run_groups(case, groups)
        fair = find_balanced(record, folder, balanced)
        shown_images = TeachingImages.of(
            case, settings.seed, sides, fair, only_held_out=True
        )  # of sources that did not teach
        if shown_images.fair_images is not None:
            shown_images.fair_images.require_same(record["balanced"])
        judgement = GroupJudgement(shown_images.compare(correction, seed, images), bounds)
    place = Path(folder if out is None else out)
    place.mkdir(parents=True, exist_ok=True)
    write_atomically(place / EVALUATION, to_json(judgement.to_json()))
    return CleanedSurroundings(place, correction, judgement, record)


def require_surroundings(record: dict[str, Any], folder: str | Path) -> None:
    """Check that a record is of a correction of the use of surroundings. Raises InputError otherwise."""
    if "surroundings" not in record:
        raise InputError(
            "no correction of surroundings", got=folder, rule="one by `klarsicht audit clean --part surroundings`",
            remedy="Evaluate it as the correction of a class.",
        )  # fmt: skip


def find_balanced(record: dict[str, Any], folder: str | Path, corpus: Any) -> Any:
    """Return the corpus of the balanced images of a correction: the one that is named, or the place of its record; None
    where it has none. Raises UsageError: it is named, and the correction has none; or not, and it was in Python."""
    entry = record.get("balanced")
    if entry is None and corpus is not None:
        raise UsageError(
            "balanced images of a correction that was made without any", got=folder,
            rule="they are those that it was made with", remedy="Show other images by --test and --groups.",
        )  # fmt: skip
    if entry is None or corpus is not None:
        return corpus
    if not entry["data"]:
        raise UsageError(
            "the balanced images of this correction are not named", got=folder,
            rule="they were a sequence or a table in Python, which is not stored", remedy="Name them: --balanced.",
        )  # fmt: skip
    return entry["data"]


def bound_change(
    classifier: Classifier, correction: RetrainedWeights, own_images: OwnImages, most: float
) -> tuple[RetrainedWeights, BoundedChange]:
    """Keep as much of a change of weights as loses no more than `most` of the accuracy on images as they are, those of
    the part VALIDATION.

    Weights move along the straight line from the old to the new ones (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903),
    and stop before the first of STEPS_TRIED that loses more. Raises UsageError without such images.
    """
    rows, module, classes = np.flatnonzero(own_images.bounds), classifier.module, np.unique(own_images.labels)
    if not len(rows):
        what, rule = "no images to bound the loss on", "a fifth of the sources of images bounds it"
        raise UsageError(what, got=f"{len(own_images.labels)} images", rule=rule, remedy="Name more groups: --groups.")

    def is_right(one: RetrainedWeights | None) -> Bools:
        return np.asarray(predict_classes(classifier, one, own_images.show(rows), classes) == own_images.labels[rows])

    before = is_right(None)
    weights, change = correction.interpolate(module, 0), BoundedChange(0, paired_loss(before, before), most)
    for share in STEPS_TRIED:
        farther = correction.interpolate(module, share)
        loss = paired_loss(before, is_right(farther))
        if loss.value > most:
            break
        weights, change = farther, BoundedChange(share, loss, most)
    return weights, change
