"""The row of zennit with CoRelAy beside those of left_out_families.py: the best of its clusters, picked by a person who
knows the answer.

    python benchmarks/audit/left_out_corelay.py --folder cases --seeds 103 104   (needs `corelay`)

zennit makes the relevance maps (EpsilonPlusFlat) of every class with an artifact, and CoRelAy's pipeline with its
default distance, graph and Laplacian clusters them by k-means for k of 2 to 20. CoRelAy calls no class and picks no
cluster. So each plant counts as named where any of these clusters reaches F1 of .5 with its carriers, or any of k = 2
does: bounds that no person who does not know the carriers can exceed. Of classes without artifact it says nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonPlusFlat

sys.path.insert(0, str(Path(__file__).parent))
import corelay_chain
import left_out_cases as cases
import planted_classes
from left_out_families import NAMED, append, read, share, truth

BATCH = 70


def relevance(case: cases.Case, label: int) -> np.ndarray:
    """Maps (n, 3, 32, 32) of the images of a class for its output."""
    composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])
    with Gradient(case.net, composite) as explain:
        return np.concatenate(
            [
                explain(
                    planted_classes.prepared(part).requires_grad_(), torch.eye(len(case.names))[[label] * len(part)]
                )[1]
                .detach()
                .numpy()
                for part in np.split(case.images[label], range(BATCH, case.images.shape[1], BATCH))
            ]
        )


def lines_of(case: cases.Case) -> list[dict]:
    lines = []
    for label, plant in case.plants.items():
        maps = relevance(case, label)
        best, first = 0.0, 0.0
        for normalised in (corelay_chain.by_sum, corelay_chain.by_absolute_sum):
            _, partitions = corelay_chain.spectral_clustering(normalised)(maps)
            best = max(best, corelay_chain.best_of(partitions, plant.carriers))
            first = max(first, corelay_chain.best_of(partitions[:1], plant.carriers))
        lines.append(truth(case, label) | {"best": best >= NAMED, "default": first >= NAMED, "f1": best})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = given.folder / "corelay.jsonl"
    for seed in given.seeds:
        append(file, lines_of(cases.load(given.folder, seed)))
    for part in cases.SHARES:
        mine = [li for li in read(file) if li["share"] == part]
        print(f"{part:.0%}: best of all clusters {share(mine, 'best')}; of two {share(mine, 'default')}")
    used = [li for li in read(file) if li["used"]]
    print(f"used: best of all clusters {share(used, 'best')}; of two {share(used, 'default')}")


if __name__ == "__main__":
    main()
