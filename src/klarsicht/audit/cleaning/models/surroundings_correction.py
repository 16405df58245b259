"""Clean a model of what nearly the whole of its classes share around the images' own: all classes at once.

Own places of images are laid on images of any class (`own_places.composites`), so that what surrounds them says nothing
of the class, and a copy of the model is trained on that, and on as many images as they are. Effect and harm are
measured on images of other sources than any that taught it: on pictures as they are, by class and side, and on
composites, which have as many images on every side as wanted. Where no shortcut was
shown, what is asked for all the same may cost little: the weights then move towards the new ones only so far.

    OUT/correction.json, weights.safetensors, model.pt2    the correction
    OUT/evaluation.json                                    groups of images, by `evaluate_surroundings`
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from klarsicht import __version__
from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.retraining import Batch, FrozenNorms, RetrainedWeights
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import ATTENTION_RATE, AUTOMATIC, USUAL_RATE, CleanSettings
from klarsicht.audit.cleaning.models.group_accuracy import (
    GroupTable,
    OwnImages,
    Sides,
    compare_groups,
    predict_classes,
)
from klarsicht.audit.cleaning.models.group_judgement import GroupJudgement
from klarsicht.audit.cleaning.models.run_groups import compare_true_groups, read_run_groups
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.relevance.function_rules import computes_attention, find_norms_to_merge
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.results.surroundings import read_surroundings
from klarsicht.audit.verdicts.own_places.composites import draw_pairs
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import InputError, UsageError
from klarsicht.ground.fit import Learner, Plan
from klarsicht.ground.machine.devices import world
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.progress import track
from klarsicht.ground.ranges import SHOWN_IMAGES
from klarsicht.ground.run_folder.manifest import to_json
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator, integer
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.paired_loss import PairedLoss, paired_loss

COMPOSITE_EPOCHS: Final = 8  # of composites and of images as they are, together as many as images that teach
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


@dataclass(frozen=True)
class CompositeTask:
    """Task of ground.fit: composites with surroundings of any class, with the label of their source, and as many images
    as they are, so that what composites do not show is not forgotten."""

    own_images: OwnImages
    batch_size: int
    seed: int

    def batch(self, step: int, rank: int) -> Batch:
        """Draw composites of images that teach, of which every class is as often a source, and as often a donor, and
        in a class every image; and images as they are, of every class as many, and in it of every side."""
        rng, one = generator(self.seed, "composites", step, rank), self.own_images
        alone = self.batch_size // 2
        pairs = draw_pairs(one.labels, one.usable & one.teaches, self.batch_size - alone, rng)
        rows = rng.choice(len(one.labels), alone, p=one.chances)
        inputs = torch.cat([one.compose(pairs, rng), one.images.pixel_scale.inputs(one.levels[rows])])
        return inputs, torch.from_numpy(one.labels[np.concatenate([pairs.sources, rows])])

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        del step
        return cross_entropy(model(batch[0]), batch[1])

    def validate(self, step: int, model: nn.Module) -> Mapping[str, float]:
        del step, model
        return {}


@check_arguments
def clean_surroundings(
    run: str | Path | RunStore, settings: CleanSettings | None = None, *, out: str | Path | None = None,
    groups: str | None = None, data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> CleanedSurroundings:  # fmt: skip
    """Train a copy of the audited model on own places with surroundings of any class and on images as they are, measure
    it on images of sources that taught nothing, and save it. Where `audit shortcuts` showed no shortcut in
    the surroundings, or could not test the model on it, as much of the change is kept as loses no more than
    `settings.overall`.

    Args:
        settings: batch, rate, steps, seed and overall count; by default COMPOSITE_EPOCHS are shown, half of them
            composites.
        out: the folder of the correction; by default RUN/corrections/surroundings.
        groups: true groups of the images, in place of the sides that were found: a column of the corpus's table, or a
            table with the columns path,group.
        data, classifier, device: see `clean_model.clean`.

    Raises:
        StoreError: `audit shortcuts` was not run.
        UsageError: it found too few own places, groups are of no table, or a setting of other corrections is given.
        InputError: groups cannot be read, or images have none.
        RunMismatch: model or data differ from those of the run.
    """
    settings = settings or CleanSettings()
    require_used_settings(settings)
    case = AuditedRun.of(run, data, classifier, device)
    shortcut = read_surroundings(case.store)
    has_bound = not (shortcut.found and any(one.taken.n for one in shortcut))
    sides = None if groups is None else read_run_groups(case, groups)
    with case.store.lock():
        own_images = OwnImages.of(case, settings.seed, sides, with_bound=has_bound)
        require_own_places(own_images, shortcut.describe()[0])
        rate = choose_rate(settings, case.audit.classifier, own_images)
        settings = settings.model_copy(update={"rate": rate})  # as it is recorded
        folder = Path(out) if out else case.store.path / "corrections" / "surroundings"
        correction, change = train_on_composites(case.audit.classifier, own_images, settings), None
        if has_bound:
            correction, change = bound_change(case.audit.classifier, correction, own_images, settings.overall)
        bounds = Bounds(settings.overall, settings.affected)
        judgement = judge_groups(case, correction, own_images, sides, bounds, settings.seed)
        facts = {
            "klarsicht": __version__, "model": case.audit.settings.model,
            "targets": sorted({int(k) for k in own_images.labels}), "code": case.store.manifest.get("code", {}),
            "identity": case.store.manifest["identity"], "settings": settings.model_dump(mode="json"),
            "surroundings": judgement.to_json(), "change": change and asdict(change),
        }  # fmt: skip
        example = own_images.images.pixel_scale.inputs(own_images.levels[:1])[0]
        record = packages.save_correction(folder, correction, facts, case.audit.classifier, example)
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
            "settings of other corrections with --part surroundings", got=", ".join(unused),
            rule=f"the model is trained on composites, by {used}", remedy="Leave them out.",
        )  # fmt: skip


def choose_rate(settings: CleanSettings, classifier: Classifier, own_images: OwnImages) -> float:
    """Return the learning rate: the one that is named, or one that suits the network. At the rate of convolutions, a
    trained transformer ended with less of the worst group right (decision 206)."""
    if settings.rate is not None:
        return settings.rate
    with evaluation_mode(classifier.module), torch.no_grad(), find_norms_to_merge() as calls:
        classifier.logits(next(own_images.show(np.arange(1))).to(classifier.device))
    return ATTENTION_RATE if computes_attention(calls.functions) else USUAL_RATE


def require_own_places(own_images: OwnImages, finding: str) -> None:
    """Check that two images of each class teach own places that can be laid on others; `finding` says what was found of
    surroundings. Raises UsageError."""
    one = own_images
    counts = [int((one.usable & one.teaches & (one.labels == label)).sum()) for label in np.unique(one.labels)]
    if min(counts) < 2:
        raise UsageError(
            "too few own places to train on other surroundings", got=finding,
            rule=f"2 images of each class; the fewest are {min(counts)}", remedy="Clean a class: --class.",
        )  # fmt: skip


def judge_groups(
    run: AuditedRun, correction: Correction, own_images: OwnImages, sides: Sides | None, bounds: Bounds, seed: int,
    most: int | None = None,
) -> GroupJudgement:  # fmt: skip
    """Judge a correction by the groups of held-out images; `seed` and `most` as in `compare_groups`."""
    names = dict(enumerate(run.audit.names))
    on = names if sides is None else sides.names
    shown = compare_groups(run.audit.classifier, correction, own_images, on, names, seed, most=most)
    return GroupJudgement(shown, bounds)


@check_arguments
def evaluate_surroundings(
    run: str | Path | RunStore, folder: str | Path, *, test: str | None = None, groups: str | None = None,
    overall: float | None = None, images: int | None = None, seed: int = 0, out: str | Path | None = None,
    data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> CleanedSurroundings:  # fmt: skip
    """Evaluate a saved correction of the use of surroundings; write evaluation.json.

    Args:
        folder: the folder of the correction.
        test: another corpus with true groups, shown as it is; by default the images of the run that taught nothing.
        groups: true groups of the images that are shown; see `clean_surroundings`.
        overall: the loss that may be; by default the one that the correction was made under.
        images: images of each group, at most; by default all, and SHOWN_COMPOSITES composites.
        seed: of the draw of composites and images; that of the correction gives those on which it was measured.
        out: the folder of evaluation.json; by default that of the correction.
        data, classifier, device: see `clean_model.clean`.

    Raises:
        UsageError: another corpus without groups.
        InputError: the folder holds no such correction, or groups cannot be read.
        RunMismatch: the correction belongs to another run, or model or data differ from those of the run.
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
        own_images = OwnImages.of(case, settings.seed, sides, shown=True)  # of sources that did not teach
        judgement = judge_groups(case, correction, own_images, sides, bounds, seed, images)
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


def train_on_composites(classifier: Classifier, own_images: OwnImages, settings: CleanSettings) -> RetrainedWeights:
    """Train a copy of the model on composites and on images as they are, and return the changed weights."""
    steps = max(settings.steps, COMPOSITE_EPOCHS * int(own_images.teaches.sum()) // settings.batch)
    task, plan = (
        CompositeTask(own_images, settings.batch, settings.seed),
        Plan(steps, choose_rate(settings, classifier, own_images), max(1, steps // 10)),
    )
    body = copy.deepcopy(classifier.module)
    torch.manual_seed(integer(settings.seed, "surroundings"))
    with world() as here:
        learner = Learner(FrozenNorms(body).requires_grad_(True), task, plan, here)
        for step in track(range(steps), steps, "training on other surroundings"):
            learner.train_step(task.batch(step, 0))
    average: FrozenNorms = learner.average  # type: ignore[assignment]
    return RetrainedWeights.between(classifier.module, average.body.to(classifier.device))


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
