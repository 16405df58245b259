"""Clean a model of what nearly the whole of its classes share around the images' own: all classes at once.

Own places of images are laid on images of any class (`own_places.composites`), so that what surrounds them says nothing
of the class, and a copy of the model is trained on that. Effect and harm are measured on images of other sources than
any that taught it: on pictures as they are, by class and side, and on composites, which have as many images on every
side as wanted.

    OUT/correction.json, weights.safetensors, model.pt2    the correction
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
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
from klarsicht.audit.cleaning.corrections.retraining import Batch, FrozenNorms, RetrainedWeights
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.data.splits import TEST, split_by_source
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.inputs import InputImages
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.results.surroundings import read_surroundings
from klarsicht.audit.verdicts.own_places.composites import Pairs, draw_pairs, lay_on_others, usable_places
from klarsicht.audit.verdicts.own_places.own_places import enlarge
from klarsicht.audit.verdicts.quantification.surroundings_units import SURROUNDINGS_STEP, unpack_places
from klarsicht.ground.arrays import Bools, Ints, Pixels, Rows
from klarsicht.ground.errors import EffectRemains, UsageError
from klarsicht.ground.fit import Learner, Plan
from klarsicht.ground.machine.devices import world
from klarsicht.ground.progress import track
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator, integer
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.intervals import Interval, share_interval

RIM: Final = 3  # most pixels left out along the edge of own places
COMPOSITE_EPOCHS: Final = 8  # of composites, as many as images that teach
SHOWN_COMPOSITES: Final = 100  # of each class on the side of each, before and after


@dataclass(frozen=True)
class GroupAccuracy:
    """Share that is right of the images of a class on the side of a class, with its 95 % interval."""

    label: str
    side: str
    right: Interval


@dataclass(frozen=True)
class GroupTable:
    """Shares that are right of all groups of a class and a side."""

    groups: tuple[GroupAccuracy, ...]

    @property
    def average(self) -> float:
        """Mean over groups."""
        return float(np.mean([one.right.value for one in self.groups]))

    @property
    def worst(self) -> GroupAccuracy:
        """The group of which the smallest share is right."""
        return min(self.groups, key=lambda one: one.right.value)


@dataclass(frozen=True)
class CleanedSurroundings:
    """Correction of a model's use of surroundings, and its folder.

    Attributes:
        before, after: on composites of held-out images.
        pictures_before, pictures_after: on held-out pictures as they are; few exceptions prove little.
        record: content of FOLDER/correction.json.
    """

    folder: Path
    correction: Correction
    before: GroupTable
    after: GroupTable
    pictures_before: GroupTable
    pictures_after: GroupTable
    record: dict[str, Any]

    @property
    def helps(self) -> bool:
        """Whether more of the worst group is right, by the ends of both intervals."""
        return self.after.worst.right.low > self.before.worst.right.high

    def check(self) -> None:
        """Check that the correction helps. Raises EffectRemains otherwise; it is saved anyway."""
        if not self.helps:
            raise EffectRemains(
                "the correction does not help the worst group",
                got=f"{self.before.worst.right} before, {self.after.worst.right} after",
                rule="intervals apart on composites of held-out images",
                remedy="Look whether own places are right in the explorer, or train longer: --steps, --rate.",
            )


@dataclass(frozen=True)
class OwnImages:
    """Images with their own places.

    Attributes:
        levels: uint8 (n, H, W, C), at the size of the model's input.
        own: bool (n, H, W).
        labels, sides: int (n,), outputs of the model.
        held_out: bool (n,), images of sources that teach nothing.
        images: the map between levels and inputs.
    """

    levels: Pixels
    own: Bools
    labels: Ints
    sides: Ints
    held_out: Bools
    images: InputImages

    @classmethod
    def of(cls, run: AuditedRun, seed: int) -> OwnImages:
        """Read the images that were examined, and deal them by source."""
        places = run.store.table("places", SURROUNDINGS_STEP).to_pylist()
        rows = np.array([row["row"] for row in places])
        labels, sides = (np.array([row[name] for row in places]) for name in ("target", "side"))
        images = InputImages.of(run.audit.corpus, run.audit.classifier)
        levels = images(rows)
        own = enlarge(np.stack([unpack_places(row) for row in places]), levels.shape[1:3], 0)
        part = split_by_source(run.audit.corpus.source_numbers[rows], labels != sides, generator(seed, "surroundings"))
        return cls(levels, own, labels, sides, part == TEST, images)

    @property
    def usable(self) -> Bools:
        """Images whose own places can be laid on others."""
        return usable_places(self.own, self.labels != self.sides)

    def compose(self, pairs: Pairs, rng: np.random.Generator) -> Tensor:
        """Lay own places of sources on donors, as model inputs (m, C, H, W)."""
        return self.images.pixel_scale.inputs(lay_on_others(self.levels, self.own, pairs, rng, RIM))


@dataclass(frozen=True)
class CompositeTask:
    """Task of ground.fit: composites with surroundings of any class, and the label of their source."""

    own_images: OwnImages
    batch_size: int
    seed: int

    def batch(self, step: int, rank: int) -> Batch:
        """Draw composites of images that teach; every class is as often a source, and as often a donor."""
        rng, own_images = generator(self.seed, "composites", step, rank), self.own_images
        odd = own_images.labels != own_images.sides
        pairs = draw_pairs(own_images.labels, own_images.usable & ~own_images.held_out, self.batch_size, rng, odd)
        return own_images.compose(pairs, rng), torch.from_numpy(own_images.labels[pairs.sources])

    def loss(self, model: nn.Module, batch: Batch, step: int) -> Tensor:
        del step
        return cross_entropy(model(batch[0]), batch[1])

    def validate(self, step: int, model: nn.Module) -> Mapping[str, float]:
        del step, model
        return {}


@check_arguments
def clean_surroundings(
    run: str | Path | RunStore, settings: CleanSettings | None = None, *, out: str | Path | None = None,
    data: Any = None, classifier: Classifier | None = None, device: str = ANY_DEVICE,
) -> CleanedSurroundings:  # fmt: skip
    """Train a copy of the audited model on own places with surroundings of any class, measure it on images of sources
    that taught nothing, and save it.

    Args:
        settings: batch, rate, steps and seed count; by default COMPOSITE_EPOCHS of composites are shown.
        out: the folder of the correction; by default RUN/corrections/surroundings.
        data, classifier, device: see `clean_model.clean`.

    Raises:
        StoreError: `audit shortcuts` was not run.
        UsageError: it found no shortcut in the surroundings.
        RunMismatch: model or data differ from those of the run.
    """
    settings = settings or CleanSettings()
    case = AuditedRun.of(run, data, classifier, device)
    found = read_surroundings(case.store)
    if not found.found:
        raise UsageError(
            "no shortcut in the surroundings to clean", got=found.describe()[0],
            rule="classes that `audit shortcuts` found to have one", remedy="Clean a class: --class.",
        )  # fmt: skip
    with case.store.lock():
        own_images, names = OwnImages.of(case, settings.seed), dict(enumerate(case.audit.names))
        folder = Path(out) if out else case.store.path / "corrections" / "surroundings"
        correction = train_on_composites(case.audit.classifier, own_images, settings)
        tables = [
            table
            for one in (None, correction)
            for table in measure_groups(case.audit.classifier, one, own_images, names, settings.seed)
        ]
        facts = {
            "klarsicht": __version__, "model": case.audit.settings.model, "classes": [one.name for one in found],
            "targets": sorted({int(k) for k in own_images.labels}), "code": case.store.manifest.get("code", {}),
            "identity": case.store.manifest["identity"], "settings": settings.model_dump(mode="json"),
            "surroundings": [asdict(table) for table in tables],
        }  # fmt: skip
        example = own_images.images.pixel_scale.inputs(own_images.levels[:1])[0]
        record = packages.save_correction(folder, correction, facts, case.audit.classifier, example)
    pictures_before, before, pictures_after, after = tables
    return CleanedSurroundings(folder, correction, before, after, pictures_before, pictures_after, record)


def train_on_composites(classifier: Classifier, own_images: OwnImages, settings: CleanSettings) -> RetrainedWeights:
    """Train a copy of the model on composites, and return the changed weights."""
    steps = max(settings.steps, COMPOSITE_EPOCHS * int((~own_images.held_out).sum()) // settings.batch)
    task, plan = (
        CompositeTask(own_images, settings.batch, settings.seed),
        Plan(steps, settings.rate, max(1, steps // 10)),
    )
    body = copy.deepcopy(classifier.module)
    torch.manual_seed(integer(settings.seed, "surroundings"))
    with world() as here:
        learner = Learner(FrozenNorms(body).requires_grad_(True), task, plan, here)
        for step in track(range(steps), steps, "training on other surroundings"):
            learner.train_step(task.batch(step, 0))
    average: FrozenNorms = learner.average  # type: ignore[assignment]
    return RetrainedWeights.between(classifier.module, average.body.to(classifier.device))


def measure_groups(
    classifier: Classifier, correction: Correction | None, own_images: OwnImages, names: Mapping[int, str], seed: int
) -> tuple[GroupTable, GroupTable]:
    """Measure the shares that are right of held-out pictures as they are, and of composites of held-out images."""
    rng, rows = generator(seed, "shown composites"), np.flatnonzero(own_images.held_out)
    pairs = draw_groups(own_images, rng)
    module = classifier.module
    with evaluation_mode(module), torch.no_grad():
        if correction is None:
            found = _predict(classifier, own_images, rows, pairs, seed)
        else:
            with correction.applied(module):
                found = _predict(classifier, own_images, rows, pairs, seed)
    of_pictures, of_composites = found
    pictures = tabulate(of_pictures, own_images.labels[rows], own_images.sides[rows], names)
    return pictures, tabulate(of_composites, own_images.labels[pairs.sources], own_images.sides[pairs.donors], names)


def _predict(classifier: Classifier, own_images: OwnImages, rows: Rows, pairs: Pairs, seed: int) -> tuple[Ints, Ints]:
    classes, rng = np.unique(own_images.labels), generator(seed, "rims")

    def predict(inputs: Tensor) -> Ints:
        logits = classifier.logits(inputs.to(classifier.device)).float().cpu().numpy()
        return np.asarray(classes[logits[:, classes].argmax(1)])

    as_they_are = [predict(own_images.images.pixel_scale.inputs(own_images.levels[some])) for some in _chunks(rows)]
    some_pairs = (Pairs(a, b) for a, b in zip(_chunks(pairs.sources), _chunks(pairs.donors), strict=True))
    composed = [predict(own_images.compose(some, rng)) for some in some_pairs]
    return np.concatenate(as_they_are), np.concatenate(composed)


def draw_groups(own_images: OwnImages, rng: np.random.Generator) -> Pairs:
    """Draw SHOWN_COMPOSITES pairs of held-out usable images for each class and side."""
    able, sources, donors = own_images.usable & own_images.held_out, [], []
    for label in np.unique(own_images.labels):
        for side in np.unique(own_images.labels):
            own, other = (
                np.flatnonzero(able & (own_images.labels == label)),
                np.flatnonzero(able & (own_images.sides == side)),
            )
            if len(own) and len(other):
                sources.append(rng.choice(own, SHOWN_COMPOSITES))
                donors.append(rng.choice(other, SHOWN_COMPOSITES))
    return Pairs(np.concatenate(sources), np.concatenate(donors))


def tabulate(predicted: Ints, labels: Ints, sides: Ints, names: Mapping[int, str]) -> GroupTable:
    """Compute the share that is right of every class and side that occurs."""
    return GroupTable(
        tuple(
            GroupAccuracy(names[int(label)], names[int(side)], share_interval(predicted[some] == label))
            for label in np.unique(labels)
            for side in np.unique(labels)
            if (some := (labels == label) & (sides == side)).any()
        )
    )


def _chunks(rows: Rows, size: int = 64) -> Iterator[Rows]:
    return (rows[a : a + size] for a in range(0, len(rows), size))
