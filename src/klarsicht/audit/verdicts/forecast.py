"""Forecast of the time, disk and memory of an audit and its quantification, from two rehearsals by their own steps.

A few images are audited and quantified first, then as many as the time allows, but at most a quarter of the images and
of the classes: a small corpus has the first rehearsal alone. Of the last, relevance is extrapolated by images, and a
unit of n images by a + b n log n. Costs of its first unit beyond that are shared by all units and grow with the images
that are read; those of the first rehearsal beyond it are paid once in a process.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.optimize import nnls

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.executor import limited_threads
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.inputs import CACHE_BYTES
from klarsicht.audit.explanation.relevance import attribution
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results.ranking import PLAIN_METRIC
from klarsicht.audit.results.significance import LEVEL
from klarsicht.audit.verdicts.detectors import artifact_embedding as embedding
from klarsicht.audit.verdicts.detectors.patch_matches import WINDOW_POOL
from klarsicht.audit.verdicts.quantification import opened_runs, quantification, units
from klarsicht.audit.verdicts.quantification.embedding_units import LEARNED_IMAGES, MIN_LEARNED, MIN_SIDE, read_images
from klarsicht.ground.arrays import Doubles, Ints
from klarsicht.ground.machine.disk import temporary_folder
from klarsicht.ground.machine.stopwatch import Stopwatch
from klarsicht.ground.progress import progress
from klarsicht.ground.ranges import SAMPLE_SECONDS, WORKERS
from klarsicht.ground.run_folder.shards import Sharing
from klarsicht.ground.seeding import generator

FILE_BLOCK: Final = 512  # bytes, in which file systems count
BY_CLASS: Final = ("label", "predicted")  # targets by which each class is audited on its own images
MOST_CLASSES: Final = 16  # of a sample
FEW_IMAGES: Final = 6 * MIN_IMAGES  # of the first rehearsal
QUARTER, EIGHTH = 4, 8  # parts of a corpus: the second rehearsal takes one of images and classes, the first of classes
CUT: Final = (1.5, 1.0, 0.5)  # of the mean size of a sample's classes, to which larger ones are cut, for the law
TRAINED: Final = 24  # steps of the embedding's training that are timed, after the first one
HASH, READING, TRAINING = "hash", "embedding-images", "embedding-steps"  # in `TimedSharing.costs`
UNITS: Final = {"signs": "detections of artifacts", "effects": "artifacts on other images",
                "transplants": "clusters on other images"}  # fmt: skip


@dataclass(frozen=True)
class StepCost:
    """Cost of a step, its sample and its law of growth, in words: seconds of all processes, and elapsed; bytes written,
    and of resident memory of a process at the peak, None where the system does not report it."""

    step: str
    sample: str
    law: str
    cpu_seconds: float
    wall_seconds: float
    disk_bytes: float = 0.0
    peak_bytes: float | None = None


@dataclass(frozen=True)
class Forecast:
    """Costs of the steps of an audit, and of the quantification after it, none where it compares no classes."""

    images: int
    classes: int
    workers: int
    steps: tuple[StepCost, ...]
    quantification: tuple[StepCost, ...] = ()

    def to_json(self) -> dict[str, Any]:
        after = {"quantification": _with_total(self.quantification)} if self.quantification else {}
        counts = {"images": self.images, "classes": self.classes, "workers": self.workers}
        return counts | _with_total(self.steps) | after


def add_steps(steps: Sequence[StepCost]) -> StepCost:
    """Add up steps; the peak is the largest of any step, of one process."""
    cpu, wall, disk = map(
        sum, zip(*((step.cpu_seconds, step.wall_seconds, step.disk_bytes) for step in steps), strict=True)
    )
    peak = max((step.peak_bytes for step in steps if step.peak_bytes is not None), default=None)
    return StepCost("all", "", "", cpu, wall, disk, peak)


def _with_total(steps: Sequence[StepCost]) -> dict[str, Any]:
    totals = {name: value for name, value in asdict(add_steps(steps)).items() if name not in ("step", "sample", "law")}
    return totals | {"steps": [asdict(step) for step in steps]}


def forecast(
    settings: AuditSettings, *, classifier: Classifier | None = None, corpus: Any = None, seconds: float = 60,
    workers: int = 1,
) -> Forecast:  # fmt: skip
    """Rehearse an audit and its quantification in a temporary folder, and extrapolate the cost of each step.

    Args:
        settings, classifier, corpus: as for `pipeline.run`.
        seconds: of the second rehearsal where nothing else runs, about, and as many of its quantification.
        workers: processes over which units are divided, as if each were as fast as this one alone.

    Raises:
        UsageError, InputError, ModelError: as `pipeline.run` raises them.
    """
    SAMPLE_SECONDS.require("seconds", seconds)
    WORKERS.require("workers", workers)
    watch = Stopwatch()
    audit = Audit.of(settings, classifier, corpus).with_batch()
    opening, images, classes = watch.cost, len(audit.corpus), len(audit.corpus.classes)
    with limited_threads(settings.threads), temporary_folder() as folder, progress("rehearsals", 2) as advance:
        few = rehearse(audit, draw_rows(audit, FEW_IMAGES, EIGHTH), folder / "few")
        advance()
        count = few[0].images * seconds / max(part.add_up(part.costs)[:2].min() for part in few)
        more = draw_rows(audit, min(max(FEW_IMAGES, int(count)), images // QUARTER), QUARTER)
        many = rehearse(audit, more, folder / "many") if len(more) > few[0].images else few
        advance()
    sizes = Counter(audit.corpus.labels).values() if settings.target in BY_CLASS else [images] * len(many[0].sizes)
    ran, verdicts = (Extrapolation(*parts, images, list(sizes), workers) for parts in zip(few, many, strict=True))
    clusters = {f"spray-{metric}": f"clusters ({metric})" for metric in (*settings.metric, PLAIN_METRIC)}
    opened = StepCost("opening", "all images", "images", opening.cpu, opening.wall), ran.by_images("hash", HASH)
    steps = (
        *opened,
        ran.by_images("relevance", attribution.STEP),
        *(ran.by_units(name, step, growth=1) for step, name in clusters.items()),
        ran.others("ranking and report", {HASH, attribution.STEP, *clusters}),
    )
    if not many[1].sizes:
        return Forecast(images, classes, workers, steps)
    pools = {"signs": (min(units.POOL, images) / min(units.POOL, many[1].images), WINDOW_POOL)}
    quantification = (
        replace(add_steps(opened), step="opening and hash", sample="all images", law="images"),
        *verdicts.embedding(),
        *(verdicts.by_units(name, step, *pools.get(step, ())) for step, name in UNITS.items() if step in many[1].costs),
        verdicts.others("verdicts, pictures and report", {READING, TRAINING, *UNITS}),
    )
    return Forecast(images, classes, workers, steps, quantification)


def draw_rows(audit: Audit, count: int, parts: int = 1) -> Ints:
    """Draw about `count` rows, of at most MOST_CLASSES large classes and one of so many parts of them, two at least;
    any where a corpus is screened or has none."""
    rng, labels = generator(audit.settings.seed, "forecast"), np.array(audit.corpus.labels)
    names, sizes = np.unique(labels, return_counts=True)
    large = names[sizes >= MIN_IMAGES]
    large = rng.permutation(large)[: min(MOST_CLASSES, max(2, min(count // MIN_IMAGES, len(large) // parts)))]
    if audit.settings.target not in BY_CLASS or not len(large):
        return np.sort(rng.permutation(len(labels))[:count])
    cuts = np.maximum(MIN_IMAGES, np.resize(CUT, len(large)) * count / len(large)).astype(int)
    return np.sort(np.concatenate([np.flatnonzero(labels == name)[:n] for name, n in zip(large, cuts, strict=True)]))


@dataclass(frozen=True)
class TimedSharing(Sharing):
    """Sharing of one process alone that measures units, actions, and the time between them.

    costs (4,) are processor seconds, elapsed seconds, bytes written and bytes of memory at the peak: of each unit in
    order by its step, of an action by its name, and of all else by "". sizes are images of groups in the order of
    units, image_bytes the memory of one that is decoded.
    """

    folder: Path = Path()
    images: int = 0
    sizes: list[int] = field(default_factory=list)
    image_bytes: float = 0
    costs: dict[str, list[Doubles]] = field(default_factory=lambda: defaultdict(list))
    written: list[int] = field(default_factory=lambda: [0])
    watches: list[Stopwatch] = field(default_factory=lambda: [Stopwatch()])

    def measure(self, step: str) -> None:
        """Count what was spent since the last measurement for a step."""
        cost, before = self.watches.pop().cost, self.written[-1]
        files = [file.stat() for file in self.folder.rglob("*") if file.is_file()]
        self.written.append(sum(getattr(one, "st_blocks", -(-one.st_size // FILE_BLOCK)) * FILE_BLOCK for one in files))
        self.costs[step].append(np.array([cost.cpu, cost.wall, self.written[-1] - before, cost.peak or np.nan]))
        self.watches.append(Stopwatch())

    def once(self, name: str, action: Callable[[], object]) -> None:
        self.measure("")
        action()
        self.measure(name)

    def end_unit(self, step: str) -> None:
        self.measure(step)

    def add_up(self, steps: Iterable[str]) -> Doubles:
        """Add up the costs of steps but for memory, (3,)."""
        return sum((cost[:3] for step in steps for cost in self.costs.get(step, ())), np.zeros(3))


def rehearse(whole: Audit, rows: Ints, folder: Path) -> tuple[TimedSharing, TimedSharing]:
    """Audit some rows of a corpus in a new folder, and quantify the run; without costs where it compares no classes."""
    ran = TimedSharing(folder=folder, images=len(rows))
    settings = whole.settings.with_values(max_skipped=1.0)  # the bound is one of the whole corpus
    audit = replace(whole, settings=settings, corpus=whole.corpus[rows.tolist()], sharing=ran)
    vars(audit)["index"] = whole.index  # labels have the outputs that they have in the whole corpus
    store = pipeline.open_run(audit, folder)
    ran.measure(HASH)
    pipeline.run_steps(audit, store, own=audit.classifier)
    known = audit.groups(*attribution.read_predictions(store))
    ran.sizes.extend(len(group) for group in known[:: pipeline.SCREENING_UNIT if settings.screens else 1])
    verdicts = TimedSharing(folder=folder, images=len(rows), written=ran.written[-1:])
    groups = opened_runs.usable_groups(audit, store)
    if settings.target in BY_CLASS and len(groups) > 1:
        work = units.DetectionUnits(store, audit.corpus, settings, groups, audit.classifier.identity, audit.classifier)
        verdicts = replace(verdicts, sizes=[len(group) for group in groups], image_bytes=work.image_bytes)
        if len(whole.corpus) >= MIN_LEARNED and min(work.input_images.shape) >= MIN_SIDE:
            train_in_brief(work, verdicts)
        audit = replace(audit, sharing=verdicts)
        vars(audit)["index"] = whole.index
        quantification.run_steps(audit, work, LEVEL)
    return ran, verdicts


def train_in_brief(work: units.DetectionUnits, sharing: TimedSharing) -> None:
    """Read images, train the embedding for a first step and TRAINED others, and store it as if it were trained."""
    images = read_images(work, np.unique(np.concatenate([group.rows for group in work.groups])))
    sharing.measure(READING)
    families, rng = embedding.drawn_in_training(images.shape[-1]), generator(0, "timed steps")
    training = embedding.EmbeddingTraining(images, families, 0)
    training.network.train()
    for step in range(1 + TRAINED):
        training.run_step(step, rng)
        sharing.measure(TRAINING if step else "")
    for stage in range(embedding.STAGES):
        written = work.store.write_unit_file(units.embedding_file(stage), training.state())
        work.store.mark_done(units.EMBEDDING_STEP, stage, written)
    work.store.finish_step(units.EMBEDDING_STEP, embedding.STAGES)


@dataclass(frozen=True)
class Extrapolation:
    """Costs of a command on so many images, in groups of these sizes, from two rehearsals."""

    few: TimedSharing
    many: TimedSharing
    images: int
    sizes: list[int]
    workers: int

    def line(self, step: str, name: str, sample: str, law: str, cost: Doubles) -> StepCost:
        """Make the line of a step from its cost (3,); memory at the peak grows by the images that are held."""
        held, more = (min(self.many.image_bytes * n, CACHE_BYTES) for n in (self.many.images, self.images))
        peak = max(cost[3] for cost in self.many.costs[step]) + more - held
        cpu, wall, disk = map(float, cost)
        return StepCost(name, sample, law, cpu, wall / self.workers, disk, None if np.isnan(peak) else float(peak))

    def by_images(self, name: str, step: str) -> StepCost:
        """Extrapolate a step that grows with the images."""
        each = self.many.add_up([step]) / self.many.images
        cost = self.images * each + np.maximum(0, self.few.add_up([step]) - self.few.images * each)
        return self.line(step, name, f"{self.many.images} images", "images", cost)

    def by_units(self, name: str, step: str, growth: float = 0, pool: int = 0) -> StepCost:
        """Extrapolate a step whose units are groups; growth: of what all share, 0 where they share nothing; pool: most
        images with which each compares its own."""
        few, many = (law_columns(part.sizes, min(pool, part.images)) for part in (self.few, self.many))
        before, costs = (np.array(part.costs[step])[:, :3] for part in (self.few, self.many))
        pairs = (few, many), (before, costs)
        law = fit_law(*(np.concatenate([a[1:], b[1:]]) if len(few) + len(many) > 2 else b for a, b in pairs))
        shared = np.maximum(0, (costs - many @ law)[0]) * (growth > 0)
        once = np.maximum(0, (before - few @ law).sum(0) - shared * self.few.images / self.many.images)
        whole = (law_columns([n for n in self.sizes if n >= MIN_IMAGES], min(pool, self.images)) @ law).sum(0)
        sample = f"{len(many)} groups of {min(self.many.sizes)} to {max(self.many.sizes)} images"
        return self.line(step, name, sample, "n log n of each", whole + shared * growth + once)

    def embedding(self) -> Iterator[StepCost]:
        """Extrapolate the training of the embedding, where one is learned."""
        if READING in self.many.costs:
            images = min(self.images, LEARNED_IMAGES)
            read, steps = self.many.add_up([READING]) * images / self.many.images, embedding.training_steps(images)
            cost = read + self.many.add_up([TRAINING]) * steps / TRAINED
            yield self.line(
                TRAINING, "learned embedding", f"{TRAINED} of {steps:,} steps", "images, up to a bound", cost
            )

    def others(self, name: str, named: Collection[str]) -> StepCost:
        """Take what is in no other line as it was in the dearer rehearsal."""
        few, many = (part.add_up(part.costs.keys() - named) for part in (self.few, self.many))
        return self.line("", name, f"{len(self.many.sizes)} groups", "hardly", np.maximum(few, many))


def law_columns(sizes: Sequence[int], compared: int) -> Doubles:
    """Stack 1, n log n and c (m, 3) for units of n images that are compared with c others."""
    n = np.array(sizes, float)
    return np.stack([np.ones(len(n)), n * np.log(np.maximum(n, 2)), np.full(len(n), compared)], 1)


def fit_law(columns: Doubles, costs: Doubles) -> Doubles:
    """Fit coefficients (3, 3), none negative, to costs (m, 3), by least squares of errors over n log n, so that classes
    of one size cost their mean; groups that are too small to be clustered do not count."""
    known = columns[:, 1] >= min(law_columns([MIN_IMAGES], 0)[0, 1], columns[:, 1].max())
    columns, costs = (values[known] / columns[known, 1:2] for values in (columns, costs))
    return np.stack([nnls(columns, column)[0] for column in costs.T], 1)
