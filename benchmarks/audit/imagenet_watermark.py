"""The watermark of ImageNet-W on three ImageNet networks, in published units, before and after `audit clean`.

    pip install --no-deps imagenet-w
    PYTHONPATH=NETWORKS python benchmarks/audit/imagenet_watermark.py PHOTOGRAPHS --out OUT

PHOTOGRAPHS and NETWORKS as in `imagenet_carton.py`, whose audit and correction are used where OUT holds them. The
package carries the authors' watermark: characters of their font at half opacity. One half of the photographs is audited
for "carton", and the correction is fitted there with characters that klarsicht draws, without the watermark. The other
half is measured once, each photograph with and without:

    top-1      of the photographs as they are
    gap        top-1 under the watermark less top-1, in points: the ImageNet-W gap
    called     share of photographs that the watermark turns into a carton, in points

The *carton gap* is the rise of top-1 among cartons. There is one photograph of a carton, so its place is taken by
the last row. Intervals of 95 % by a bootstrap over photographs. Li et al. (2023), arXiv 2212.04825.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch
from imagenet_w import AddWatermark
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from carton import CARTON, label
from imagenet_artifacts import NETWORKS, halves
from imagenet_carton import KIND, named, write_manifest
from klarsicht.audit.cleaning.corrections.activations import Correction, compute_logits
from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.explanation.settings import AuditSettings

RESAMPLED = 2000
Right = NDArray[np.bool_]


def points(values: NDArray[np.floating]) -> tuple[float, float, float]:
    """Return the mean of values (n,) in points, with its 95 % interval."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(RESAMPLED, len(values)))].mean(1)
    return 100 * float(values.mean()), *(100 * np.quantile(means, [0.025, 0.975])).tolist()


def correct(network: str, classifier: Classifier, first: list[Path], out: Path) -> tuple[Correction | None, str]:
    """Audit a network for cartons, and clean it of characters: the correction, and what was said."""
    run = out / network / "run"
    settings = AuditSettings(
        model=network, data=str(write_manifest(first, out / "photographs.csv")), target=CARTON,
        method="GradientTimesInput", metric=("euclidean",),
    )  # fmt: skip
    if not (run / "ranking.json").exists():
        pipeline.run(settings, run, classifier=classifier)
    place = out / network / "correction"
    cleaned = clean_model.clean(
        run, CARTON, CleanSettings(layer=classifier.head), out=place, kind=KIND, classifier=classifier
    )
    return cleaned.choice.correction, f"{cleaned.choice.chosen}; {cleaned.judgement.verdict}"


def answers(classifier: Classifier, files: list[Path], correction: Correction | None) -> NDArray[np.intp]:
    """Return the class predicted of each photograph as it is, and under the watermark: (2, n)."""
    scale, plain = PixelScale.of(classifier), [classifier.image(Image.open(path).convert("RGB")) for path in files]
    levels = [scale.levels(image) for image in plain]
    draw = AddWatermark(levels[0].shape[0])
    marked = [scale.inputs(np.asarray(draw(Image.fromarray(one)))[None])[0] for one in levels]
    return np.stack([compute_logits(classifier, some, correction).argmax(1) for some in (plain, marked)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("imagenet-carton"))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    first, second = halves(given.photographs)
    for network in given.networks:
        began = time.process_time()
        classifier = named(network)
        names = list(classifier.classes or ())
        truth, carton = np.array([names.index(label(path)) for path in second]), names.index(CARTON)
        correction, said = correct(network, classifier, first, given.out)
        for what, one in {"as it is": None, "cleaned": correction}.items():
            plain, marked = answers(classifier, second, one)
            right, under = (seen == truth for seen in (plain, marked))
            called = ((marked == carton).astype(float) - (plain == carton))[truth != carton]
            figures = {
                "top-1": points(right.astype(float)),
                "gap": points(under.astype(float) - right),
                "called": points(called),
            }
            cells = "; ".join("{} {:.1f} ({:.1f} to {:.1f})".format(name, *value) for name, value in figures.items())
            print(f"{network}, {what}: {cells}; {len(second)} photographs", flush=True)
            with (given.out / "watermark.jsonl").open("a") as lines:
                lines.write(json.dumps({"network": network, "what": what} | figures) + "\n")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{network}: {said}; {time.process_time() - began:.0f} CPU s, peak {peak:.1f} GiB", flush=True)


if __name__ == "__main__":
    main()
