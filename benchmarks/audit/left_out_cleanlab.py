"""The row of cleanlab's spurious-correlation score beside those of left_out_families.py; needs `cleanlab[image]`.

    python benchmarks/audit/left_out_cleanlab.py --folder cases --seeds 0 1

cleanlab says of a whole data set how well one property of the images (darkest and brightest pixels, entropy, blur)
tells the labels. Here it is asked of every class by itself, against as many images of the others; the class's score is
that of its most telling property, and becomes p as the scores of our detectors do. It names no images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from cleanlab.datalab.internal.spurious_correlation import SpuriousCorrelations
from cleanvision.issue_managers import image_property
from PIL import Image

from klarsicht.audit.results.significance import LEVEL
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics import conformal

sys.path.insert(0, str(Path(__file__).parent))
import left_out_cases as cases
from left_out_families import append, tables, truth

PROPERTIES = {
    "dark": image_property.BrightnessProperty("dark"),
    "light": image_property.BrightnessProperty("light"),
    "low_information": image_property.EntropyProperty(),
    "blurry": image_property.BlurrinessProperty(),
}


def properties(images: np.ndarray) -> pd.DataFrame:
    """CleanVision's numbers of images (n, 32, 32, 3)."""
    rows = []
    for image in images:
        found = {}
        for name, one in PROPERTIES.items():
            values = one.calculate(Image.fromarray(image))
            found |= {f"{name} {column}": values[column] for column in one.score_columns if column in values}
        rows.append(found)
    return pd.DataFrame(rows).astype(float)


def judged(case: cases.Case) -> list[dict]:
    n, per = len(case.names), case.images.shape[1]
    numbers = properties(case.images.reshape(-1, *case.images.shape[2:]))
    owner, scores = np.repeat(np.arange(n), per), []
    for label in range(n):
        others = generator(case.seed, "cleanlab", label).choice(np.flatnonzero(owner != label), per, replace=False)
        rows = np.concatenate([np.flatnonzero(owner == label), others])
        told = SpuriousCorrelations(numbers.iloc[rows], (owner[rows] == label).astype(int)).calculate_correlations()
        scores.append([1 - told["score"].min()])
    found = conformal.maximum_over_detectors(np.array(scores))
    return [
        truth(case, label)
        | {"artifactual": bool(found.extended[label] <= LEVEL and found.null.any()), "f1": 0.0, "sign": "cleanlab"}
        | {"p": float(found.p[label]), "extended": float(found.extended[label])}
        for label in range(n)
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    for seed in given.seeds:
        append(given.folder / "cleanlab.jsonl", judged(cases.load(given.folder, seed)))
    print(tables(given.folder / "cleanlab.jsonl", None))
