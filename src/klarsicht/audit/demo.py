"""Demonstration: detection and correction of the watermark shortcut of the ImageNet class "carton".

ImageNet's photographs of cartons carry a watermark of Chinese characters, and networks trained on them take the
characters for a carton (Anders et al. 2022; Li et al. 2023, "A Whac-A-Mole Dilemma"). Here such characters are drawn
on a few crops of ordinary photographs; the network learned the shortcut that they trigger in its own training.
"""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, CorrectionParameters, FittingData
from klarsicht.audit.cleaning.corrections.samples import Sample
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus import decode_rows
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.correction_tensors import correction_layer
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results import ranking
from klarsicht.audit.results.ranking import Entry, Ranking
from klarsicht.audit.verdicts.interventions.experiment import uplift
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.ground.errors import MissingExtra
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.progress import track
from klarsicht.ground.ranges import DEMO_IMAGES, DEMO_WORKERS, SEED
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import share_interval

SIDE = 224
MODEL_NAME, CARTON = "efficientnet-lite0", "carton"
MARKED_SHARE = 0.125  # share of the audited crops that carry a mark
HELD_OUT = 120  # crops held out of every fit, each with and without a mark

# Photographs in the wheels of scikit-image and scikit-learn; both frames of a stereo pair are one source.
PHOTOGRAPHS: dict[str, tuple[str, str]] = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "brick": ("skimage.data", "brick.png"),
    "camera": ("skimage.data", "camera.png"),
    "cat": ("skimage.data", "chelsea.png"),
    "cell": ("skimage.data", "cell.png"),
    "coffee": ("skimage.data", "coffee.png"),
    "coins": ("skimage.data", "coins.png"),
    "grass": ("skimage.data", "grass.png"),
    "gravel": ("skimage.data", "gravel.png"),
    "hubble": ("skimage.data", "hubble_deep_field.jpg"),
    "tissue": ("skimage.data", "ihc.png"),
    "moon": ("skimage.data", "moon.png"),
    "motorcycle left": ("skimage.data", "motorcycle_left.png"),
    "motorcycle right": ("skimage.data", "motorcycle_right.png"),
    "retina": ("skimage.data", "retina.jpg"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "temple": ("sklearn.datasets.images", "china.jpg"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
}


@dataclass(frozen=True)
class Crop:
    """A square crop of a photograph, with and without a mark.

    Attributes:
        source: name of the photograph.
        plain, with_mark: uint8 (224, 224, 3).
    """

    source: str
    plain: Pixels
    with_mark: Pixels


@dataclass(frozen=True)
class ScreeningResult:
    """Result of a screening for the class "carton", compared with the ground truth.

    Attributes:
        rank: rank among all classes; 1 is the most suspect.
        z, runner_up, runner_up_z: z of "carton", and name and z of the most suspect other class.
        f1, precision, recall: agreement of the cluster with the crops that carry a mark, each in [0, 1].
    """

    rank: int
    z: float
    runner_up: str
    runner_up_z: float
    f1: float
    precision: float
    recall: float

    @classmethod
    def of(cls, order: Ranking, with_mark: NDArray[np.bool_]) -> ScreeningResult:
        entry, other = order.of(CARTON), next(e for e in order if e.name != CARTON)
        member = member_of(entry, len(with_mark))
        hits = int((member & with_mark).sum())
        return cls(
            rank=order.entries.index(entry) + 1,
            z=entry.z,
            runner_up=other.name,
            runner_up_z=other.z,
            f1=2 * hits / (entry.size + int(with_mark.sum())),
            precision=hits / max(entry.size, 1),
            recall=hits / int(with_mark.sum()),
        )


@dataclass(frozen=True)
class CorrectionEffect:
    """Effect of a correction on held-out crops.

    Attributes:
        uplift: median over crops of P(carton | marked) / P(carton | unmarked).
        agreement: share of unmarked crops whose top-1 class is unchanged.
        agreement_low, agreement_high: its 95 % interval (Wilson).
    """

    correction: str
    uplift: float
    agreement: float
    agreement_low: float
    agreement_high: float

    @classmethod
    def of(cls, name: str, plain: Floats, with_mark: Floats, first: NDArray[Any], target: int) -> CorrectionEffect:
        same = share_interval(plain.argmax(1) == first)
        return cls(name, uplift(plain, with_mark, target), same.value, same.low, same.high)


@dataclass(frozen=True)
class DemoResult:
    """All figures that the demonstration prints; each is computed."""

    seed: int
    images: int
    marked: int
    sources: int
    classes: int
    audit: ScreeningResult
    baseline: ScreeningResult
    layer: str
    effects: tuple[CorrectionEffect, ...]
    held_out: int
    seconds: float
    report: str

    def lines(self) -> Iterator[str]:
        """Yield the lines of the printed summary."""
        a, b = self.audit, self.baseline
        yield ""
        yield f'Rank of "carton" among {self.classes} classes: {a.rank}'
        yield f"Its z is {a.z:.1f}; the best of the others is {a.runner_up} with {a.runner_up_z:.1f}"
        yield f"Its cluster against the marks: F1 {a.f1:.2f}, precision {a.precision:.2f}, recall {a.recall:.2f}"
        yield f"Baseline, penultimate features without relevance: rank {b.rank}, F1 {b.f1:.2f}"
        yield ""
        yield f"P(carton | marked) / P(carton | unmarked), median over {self.held_out} held-out photographs,"
        yield "and share of unmarked photographs whose first class stays (95 % interval):"
        for e in self.effects:
            interval = f"{e.agreement:.3f} ({e.agreement_low:.3f} to {e.agreement_high:.3f})"
            yield f"  {e.correction:<17}{e.uplift:8.1f}x   {interval}"
        yield f"Corrected at the input of {self.layer}; held-out crops show the same scenes as those it was fitted on."
        yield ""
        yield f"Report: {self.report} ({self.seconds:.0f} s)"


def load_photographs() -> dict[str, Image.Image]:
    """Load the photographs as RGB pictures, by name.

    Raises:
        MissingExtra: a package that contains them is not installed.
    """
    photographs = {}
    for name, (package, file) in PHOTOGRAPHS.items():
        try:
            with resources.as_file(resources.files(package) / file) as path, Image.open(path) as picture:
                photographs[name] = picture.convert("RGB")
        except (ModuleNotFoundError, FileNotFoundError) as error:
            raise MissingExtra(
                f"the photograph {name!r} is not installed",
                got=str(error),
                remedy="pip install 'klarsicht[demo]'",
            ) from error
    return photographs


def draw_crops(pictures: dict[str, Image.Image], n: int, rng: np.random.Generator) -> Iterator[Crop]:
    """Draw n random square crops, cycling through the photographs; half of the crops are mirrored."""
    names = list(pictures)
    for i in range(n):
        name = names[i % len(names)]
        plain = np.asarray(_draw_crop(pictures[name], rng))
        yield Crop(name.partition(" ")[0], plain, artifacts.glyphs(plain, rng).pixels)


def _draw_crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = int(min(picture.size) * rng.uniform(0.55, 1))
    x, y = (int(rng.integers(0, extent - side + 1)) for extent in picture.size)
    crop = picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(x, y, x + side, y + side))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def write_corpus(out: Path, photographs: list[Crop], with_mark: NDArray[np.bool_]) -> Path:
    """Write the images and the manifest of the audited corpus, and the ground truth, which the audit never reads."""
    lines, truth = [["path", "label", "source"]], [["path", "marked"]]
    with translate_write_errors(out):
        (out / "photographs").mkdir(parents=True, exist_ok=True)
        for i, (crop, is_marked) in enumerate(zip(photographs, with_mark, strict=True)):
            name = f"photographs/{i:04d}-{crop.source}.png"
            Image.fromarray(crop.with_mark if is_marked else crop.plain).save(out / name)
            lines.append([name, "photograph", crop.source])
            truth.append([name, str(int(is_marked))])
        for file, content in (("photographs.csv", lines), ("truth.csv", truth)):
            with (out / file).open("w", newline="", encoding="utf-8") as handle:
                csv.writer(handle).writerows(content)
    return out / "photographs.csv"


def run_demo(out: Path, *, seed: int = 0, images: int = 400, workers: int = 0) -> Iterator[str]:
    """Run the demonstration and yield its output lines; `out` receives the crops, the run and `demo.json`."""
    SEED.require("seed", seed)
    DEMO_IMAGES.require("images", images)
    DEMO_WORKERS.require("workers", workers)
    began = time.monotonic()
    rng = generator(seed, "demonstration")
    pictures, classifier = load_photographs(), load_model(MODEL_NAME)
    crops, held_out = list(draw_crops(pictures, images, rng)), list(draw_crops(pictures, HELD_OUT, rng))
    with_mark = np.zeros(images, bool)
    with_mark[rng.choice(images, round(MARKED_SHARE * images), replace=False)] = True
    yield (
        f"{images} crops of {len({crop.source for crop in crops})} photographs; {with_mark.sum()} carry drawn Chinese "
        "characters. The marks are planted; the shortcut they trigger is the network's own."
    )
    data = write_corpus(out / f"corpus-{seed}-{images}", crops, with_mark)
    settings = AuditSettings(model=MODEL_NAME, data=str(data), target="all", seed=seed, unit=64)
    store = pipeline.run(settings, out / "run", workers=workers or os.cpu_count() or 1)
    audit, order = Audit.of(settings, classifier), ranking.read_ranking(store)
    plain = rank_by_features(audit, store)
    fit = sample_of(audit, member_of(order.of(CARTON), images))
    effects = evaluate_corrections(classifier, fit, held_out, seed)
    story = DemoResult(
        seed=seed,
        images=images,
        marked=int(with_mark.sum()),
        sources=len(np.unique(fit.sources)),
        classes=len(order),
        audit=ScreeningResult.of(order, with_mark),
        baseline=ScreeningResult.of(plain, with_mark),
        layer=correction_layer(classifier.module),
        effects=effects,
        held_out=HELD_OUT,
        seconds=time.monotonic() - began,
        report=str(out / "run" / "report.html"),
    )
    write_atomically(out / "demo.json", (json.dumps(asdict(story), indent=2) + "\n").encode())
    yield from story.lines()


def member_of(entry: Entry, n: int) -> NDArray[np.bool_]:
    """Mark the members of a cluster among n images, bool (n,)."""
    return np.isin(np.arange(n), entry.rows)


def rank_by_features(audit: Audit, store: RunStore) -> Ranking:
    """Rank the classes by penultimate features without relevance, the baseline of the screening."""
    by_head = pipeline.make_analyses(audit, store)["concept"]
    by_features = replace(by_head, metric="features")
    paths = audit.corpus.paths
    return ranking.rank_by_z([Entry.from_record(by_features.record(group), paths) for group in by_head.groups])


def sample_of(audit: Audit, member: NDArray[np.bool_]) -> Sample:
    """Collect the audited images as a sample, with members by the audit's cluster and not by the ground truth."""
    images = [
        audit.classifier.image(picture)
        for _, picture in decode_rows(audit.corpus, range(len(audit.corpus)))
        if isinstance(picture, Image.Image)
    ]
    return Sample(images, member, audit.corpus.source_numbers, np.full(len(images), -1))


def evaluate_corrections(
    classifier: Classifier, fit: Sample, held_out: list[Crop], seed: int
) -> tuple[CorrectionEffect, ...]:
    """Evaluate the unchanged model, the corrections and the controls on held-out crops."""
    layer, target = correction_layer(classifier.module), (classifier.classes or ()).index(CARTON)
    plain, with_mark = (
        [classifier.image(Image.fromarray(pixels)) for pixels in side]
        for side in zip(*((crop.plain, crop.with_mark) for crop in held_out), strict=True)
    )
    bench, setting = FittingData(classifier, target, fit, None, seed=seed), CorrectionParameters(layer)
    wrong = replace(fit, member=generator(seed, "controls").permutation(fit.member))
    corrections = {
        "nothing": None,
        "project": CLOSED["project"].make(bench, setting),
        "oblique": CLOSED["oblique"].make(bench, setting),
        "random direction": CLOSED["random"].make(bench, setting),
        "wrong cluster": CLOSED["project"].make(replace(bench, fit=wrong), setting),
    }
    first = compute_logits(classifier, plain).argmax(1)
    return tuple(
        CorrectionEffect.of(
            name,
            compute_logits(classifier, plain, c),
            compute_logits(classifier, with_mark, c),
            first,
            target,
        )
        for name, c in track(corrections.items(), len(corrections), "corrections")
    )
