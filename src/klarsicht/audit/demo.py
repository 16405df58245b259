"""Demonstration: detection and correction of the watermark shortcut of the ImageNet class "carton".

ImageNet's photographs of cartons carry a watermark of Chinese characters, and networks trained on them take the
characters for a carton (Anders et al. 2022; Li et al. 2023, "A Whac-A-Mole Dilemma"). Here such characters are drawn
on a few crops of ordinary photographs; the network learned the shortcut that they trigger in its own training.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from klarsicht.audit.cleaning.corrections.activations import Correction, compute_logits
from klarsicht.audit.cleaning.models.clean_model import clean
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.correction_tensors import correction_layer
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.ranking import Entry
from klarsicht.audit.results.words import format_p
from klarsicht.audit.verdicts.interventions.experiment import uplift
from klarsicht.audit.verdicts.quantification.screening import screen
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.ground.errors import MissingExtra
from klarsicht.ground.machine.disk import translate_write_errors, write_atomically
from klarsicht.ground.optional import install_command
from klarsicht.ground.progress import track
from klarsicht.ground.ranges import DEMO_COUNT, DEMO_IMAGES, DEMO_WORKERS, SEED
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import share_interval

SIDE = 224
MODEL_NAME, CARTON = "efficientnet-lite0", "carton"
MARKED_SHARE = 0.125  # share of the audited crops that carry a mark
HELD_OUT = 120  # crops held out of every fit, each with and without a mark
THREADS = 2  # of the network; last bits depend on it

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
class Agreement:
    """Agreement of a cluster with the crops that carry a mark, each figure in [0, 1]."""

    f1: float
    precision: float
    recall: float

    @classmethod
    def of(cls, entry: Entry, with_mark: NDArray[np.bool_]) -> Agreement:
        hits, marked = int(with_mark[list(entry.rows)].sum()), int(with_mark.sum())
        return cls(2 * hits / (entry.size + marked), hits / max(entry.size, 1), hits / marked)


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
    cluster: int
    agreement: Agreement
    shift: float
    low: float
    high: float
    p: float
    follows: bool
    effects: tuple[CorrectionEffect, ...]
    held_out: int
    seconds: float
    run: str
    correction: str

    def lines(self, command: str) -> Iterator[str]:
        """Yield the lines of the printed summary, with the next commands; `command` starts klarsicht."""
        one, run = self.agreement, shlex.quote(self.run)
        yield ""
        yield f"{self.cluster} of {self.images} photographs form a cluster that raises the class {CARTON}."
        yield f"Compared with the planted marks: precision {one.precision:.2f}, recall {one.recall:.2f}."
        relies = "relies" if self.follows else "is not shown to rely"
        yield f"The model {relies} on what they share: pasted on other photographs, it adds"
        yield f"{self.shift:.1f} logits ({self.low:.1f} to {self.high:.1f}) to {CARTON}, p {format_p(self.p)}."
        yield ""
        yield f"The corrected model on {self.held_out} further photographs of the same scenes:"
        yield f"{'':11}characters make {CARTON}   unmarked: same first class (95 %)"
        for e in self.effects:
            interval = f"{e.agreement:.3f} ({e.agreement_low:.3f} to {e.agreement_high:.3f})"
            yield f"{e.correction:<11}{e.uplift:>7.1f} times as probable   {interval}"
        yield ""
        yield f"This took {self.seconds:.0f} s. Next:"
        yield f"  {command} audit explore {run}    # look at the photographs, the map of the cluster, and decide"
        yield f"  {command} audit rank {run}       # the same in the terminal; {self.run}/report.html is the report"
        yield f"  {command} audit run --model {MODEL_NAME} --data YOUR/photographs --out my-run"


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
                remedy=f"{install_command('demo')}.",
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


@dataclass(frozen=True)
class DemoCorpus:
    """Corpus of the demonstration.

    Attributes:
        manifest: the CSV file.
        with_mark: bool (n,), whether each audited crop carries a mark.
        held_out: crops on which a correction is evaluated.
    """

    manifest: Path
    with_mark: NDArray[np.bool_]
    held_out: list[Crop]

    @classmethod
    def make(cls, out: Path, seed: int, images: int) -> DemoCorpus:
        """Draw the crops and write those that are audited."""
        rng, pictures = generator(seed, "demonstration"), load_photographs()
        crops, held_out = list(draw_crops(pictures, images, rng)), list(draw_crops(pictures, HELD_OUT, rng))
        with_mark = np.zeros(images, bool)
        with_mark[rng.choice(images, round(MARKED_SHARE * images), replace=False)] = True
        return cls(write_corpus(out / f"corpus-{seed}-{images}", crops, with_mark), with_mark, held_out)


def run_demo(
    out: Path, *, seed: int = 0, images: int = DEMO_COUNT, workers: int = 0, command: str = "klarsicht"
) -> Iterator[str]:  # fmt: skip
    """Run the demonstration and yield its output lines; `out` receives the crops, the run and `demo.json`.

    Steps: screening of the crops for the class, test whether the model uses what the cluster shares, correction of the
    model, and its effect on held-out crops.
    """
    SEED.require("seed", seed)
    DEMO_IMAGES.require("images", images)
    DEMO_WORKERS.require("workers", workers)
    began = time.monotonic()
    corpus = DemoCorpus.make(out, seed, images)
    yield (
        f"{images} crops of {len({name.partition(' ')[0] for name in PHOTOGRAPHS})} photographs; "
        f"{corpus.with_mark.sum()} carry drawn Chinese characters. The marks are planted; the shortcut they trigger is "
        "the network's own."
    )
    classifier, run = load_model(MODEL_NAME), out / "run"
    settings = AuditSettings(
        model=MODEL_NAME, data=str(corpus.manifest), target=CARTON, seed=seed, unit=64, threads=THREADS
    )
    pipeline.run(settings, run, workers=workers or max((os.cpu_count() or 1) // THREADS, 1))
    found = screen(run, classifier=classifier)
    correction = CleanSettings(method="oblique", layer=correction_layer(classifier.module), directions=1, strength=0.5)
    cleaned = clean(run, CARTON, correction, classifier=classifier)
    result = DemoResult(
        seed=seed,
        images=images,
        marked=int(corpus.with_mark.sum()),
        cluster=found.entry.size,
        agreement=Agreement.of(found.entry, corpus.with_mark),
        shift=found.effect.shift,
        low=found.effect.low,
        high=found.effect.high,
        p=found.p,
        follows=found.follows,
        effects=evaluate_corrections(
            classifier, {"before": None, "corrected": cleaned.choice.correction}, corpus.held_out
        ),
        held_out=HELD_OUT,
        seconds=time.monotonic() - began,
        run=str(run),
        correction=str(cleaned.folder),
    )
    write_atomically(out / "demo.json", (json.dumps(asdict(result), indent=2) + "\n").encode())
    yield from result.lines(command)


def evaluate_corrections(
    classifier: Classifier, corrections: Mapping[str, Correction | None], held_out: list[Crop]
) -> tuple[CorrectionEffect, ...]:
    """Evaluate corrections on held-out crops; None is the model as it is."""
    target = (classifier.classes or ()).index(CARTON)
    plain, with_mark = (
        [classifier.image(Image.fromarray(pixels)) for pixels in side]
        for side in zip(*((crop.plain, crop.with_mark) for crop in held_out), strict=True)
    )
    unchanged = compute_logits(classifier, plain)
    first = unchanged.argmax(1)
    return tuple(
        CorrectionEffect.of(
            name,
            unchanged if correction is None else compute_logits(classifier, plain, correction),
            compute_logits(classifier, with_mark, correction),
            first,
            target,
        )
        for name, correction in track(corrections.items(), len(corrections), "corrections")
    )
