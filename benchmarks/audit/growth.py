"""Growth of the cost of graph, embedding and clusters with a class's number of maps, beside CoRelAy on the same maps.

    pip install corelay h5py
    python benchmarks/audit/growth.py --maps 1000 5000 20000 50000 [--peer 1000 6000 12000]

Synthetic relevance at 28 x 28 pixels: two to four blobs anywhere on each map, and on one in twenty of them half of the
relevance on a tag of three pixels in a corner. Each run is a process of its own with one thread, after a small one that
compiles and loads. klarsicht: 10 neighbours, 8 dimensions, every candidate cluster of the thorough sweep, and the
choice of one of them. CoRelAy: its default distance, graph and Laplacian, 10 neighbours, 8 eigenvectors, k-means for
k = 2 (its default) and, timed apart, for k = 2 to 20, of which the best is picked with the tags in hand.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import log
from pathlib import Path
from statistics import linear_regression
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
SIDE, TAGGED, SEED = 28, 0.05, 0
NEIGHBOURS, DIMENSIONS, CLUSTERS = 10, 8, range(2, 21)


def maps(count: int) -> tuple[Any, Any]:
    """float32 (count, SIDE^2), and which carry the tag."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    y, x = np.mgrid[:SIDE, :SIDE]
    tagged = rng.random(count) < TAGGED
    made = np.abs(rng.normal(0, 0.02, (count, SIDE, SIDE)))
    for k in range(count):
        for _ in range(rng.integers(2, 5)):
            v, u, s = *rng.uniform(4, SIDE - 4, 2), rng.uniform(1.5, 4)
            made[k] += np.exp(-((y - v) ** 2 + (x - u) ** 2) / (2 * s * s))
        if tagged[k]:
            made[k, 1:4, 1:4] += made[k].sum() / 9
    return made.reshape(count, -1).astype(np.float32), tagged


def f1(member: Any, tagged: Any) -> float:
    return float(2 * (member & tagged).sum() / (member.sum() + tagged.sum()))


@contextmanager
def clocked(told: dict[str, float], name: str) -> Iterator[None]:
    began = time.process_time()
    yield
    told[name] = time.process_time() - began


def klarsicht(count: int) -> dict[str, float]:
    import numpy as np

    from klarsicht.audit.explanation.spectral import clustering
    from klarsicht.numerics.clustering.candidates import SWEEPS

    def analysed(given: Any, tagged: Any, told: dict[str, float]) -> Any:
        evidence = clustering.TargetLogits(
            np.where(tagged, 1.0, 0.0) + rng.normal(0, 1, len(given)), np.arange(len(given))
        )
        with clocked(told, "embedding"):
            embedded = clustering.embed_items(
                given, evidence, distance="euclidean", neighbours=NEIGHBOURS, dimensions=DIMENSIONS, seed=SEED
            )
        with clocked(told, "clusters"):
            return clustering.Clustering.of(embedded, SWEEPS["thorough"], SEED), evidence

    rng = np.random.default_rng(SEED)
    analysed(*maps(300), {})
    given, tagged = maps(count)
    told = {"before": settled()}
    found, evidence = analysed(given, tagged, told)
    suspect = found.suspect(evidence)
    member = np.isin(np.arange(count), suspect.members)
    best = max(f1(one, tagged) for one in found.members)
    return told | {"F1": f1(member, tagged), "best F1": best, "peak": held() - told["before"]}


def corelay(count: int) -> dict[str, float]:
    from corelay.pipeline.spectral import SpectralClustering
    from corelay.processor.affinity import SparseKNN
    from corelay.processor.clustering import KMeans
    from corelay.processor.embedding import EigenDecomposition
    from corelay.processor.flow import Parallel

    from klarsicht.audit.explanation.spectral.clustering import divide_by_absolute_sum

    def pipeline(clusters: range) -> Any:
        return SpectralClustering(
            preprocessing=divide_by_absolute_sum,
            affinity=SparseKNN(n_neighbors=NEIGHBOURS, symmetric=True),
            embedding=EigenDecomposition(n_eigval=DIMENSIONS, is_output=True),
            clustering=Parallel([KMeans(n_clusters=k) for k in clusters], broadcast=True, is_output=True),
        )

    pipeline(CLUSTERS)(maps(300)[0])
    given, tagged = maps(count)
    told = {"before": settled()}
    with clocked(told, "default"):
        _, (halves,) = pipeline(range(2, 3))(given)
    told["peak"] = held() - told["before"]
    with clocked(told, "all k"):
        _, partitions = pipeline(CLUSTERS)(given)

    def best(labelled: list[Any]) -> float:
        return max(f1(labels == label, tagged) for labels in labelled for label in set(labels.tolist()))

    return told | {"F1": best([halves]), "best F1": best(list(partitions))}


def settled() -> float:
    """MiB held now; from here on the peak is counted anew (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return held()


def held() -> float:
    """MiB, at most since then."""
    return float(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


SIDES: dict[str, Callable[[int], dict[str, float]]] = {"klarsicht": klarsicht, "corelay": corelay}


def apart(side: str, count: int) -> dict[str, float]:
    """In a process of its own with one thread."""
    command = [sys.executable, __file__, "--side", side, "--maps", str(count)]
    one = dict.fromkeys(THREADS, "1")
    done = subprocess.run(command, env=os.environ | one, check=True, capture_output=True, text=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=int, nargs="*", default=[1000, 5000, 20000, 50000])
    parser.add_argument("--peer", type=int, nargs="*", default=[])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        print(json.dumps(SIDES[asked.side](asked.maps[0])))
        return
    for side, counts in (("klarsicht", asked.maps), ("corelay", asked.peer)):
        taken = {}
        for count in counts:
            told = apart(side, count)
            taken[count] = told["default"] if side == "corelay" else told["embedding"] + told["clusters"]
            cells = [f"{name} {value:.3g}" for name, value in told.items() if name != "before"]
            print(f"{side}, {count:,} maps: {', '.join(cells)} (CPU s, MiB)", flush=True)
        if len(taken) > 1:
            print(f"{side}: time grows as N to the power of {exponent(taken):.2f}")


def exponent(taken: dict[int, float]) -> float:
    """Of the power of N that fits the seconds best."""
    slope, _ = linear_regression([log(n) for n in taken], [log(seconds) for seconds in taken.values()])
    return slope


if __name__ == "__main__":
    main()
