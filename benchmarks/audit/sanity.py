"""Measure for each preset whether its maps depend on the weights: the rank correlation with maps of redrawn weights.

    python benchmarks/audit/sanity.py PHOTOGRAPHS --model SPEC [--model SPEC ...] [--images 6] [--methods ...]

PHOTOGRAPHS is a folder of pictures, of which some at equal steps are explained for the class that is predicted. The
measure is that of `audit doctor --sanity`, on networks that were trained: a model is given as for `audit run`. A
correlation of 1 is a map that does not depend on what was learned (Adebayo et al., NeurIPS 2018).
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import torch
from PIL import Image

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance.explainer import METHODS
from klarsicht.audit.explanation.relevance.randomisation import correlate_with_redrawn
from klarsicht.ground.errors import KlarsichtError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    files = sorted(f for f in asked.photographs.rglob("*") if f.suffix.lower() in {".jpg", ".jpeg", ".png"})
    files = files[:: max(1, len(files) // asked.images)][: asked.images]
    print("| network | method | correlation after the redraw | s |\n|---|---|---|---|")
    for spec in asked.model:
        classifier = load_model(spec)
        x = torch.stack([classifier.image(Image.open(file).convert("RGB")) for file in files])
        with torch.no_grad():
            targets = classifier.logits(x).argmax(1)
        for method in asked.methods:
            began = time.process_time()
            try:
                value = f"{correlate_with_redrawn(classifier, x, targets, method):.2f}"
            except KlarsichtError as error:
                value = f"refused: {str(error)[:80]}"
            print(f"| {spec} | {method} | {value} | {time.process_time() - began:.0f} |", flush=True)


if __name__ == "__main__":
    main()
