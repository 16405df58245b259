"""Transport metrics beside POT: time, recall, purity, growth.

    OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 python benchmarks/audit/transport.py [--seeds 3] [--run RUN] [--json FILE]
    python benchmarks/audit/transport.py --only cores        (with both cores free)

Maps are the posed shapes of `shapes.py`, 1,300 of them (one class of ImageNet), or with --run the stored relevance maps
of an audit. Times are processor seconds of this process. POT solves random pairs and is charged its median pair for
every pair of the graph, since all pairs at once would take it 37 minutes and more; said in each line.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ot
from numpy.typing import NDArray

from klarsicht.ground.machine.stopwatch import Stopwatch
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.metrics import RotationInvariant
from klarsicht.numerics.neighbours import neighbour_graph, pairwise
from klarsicht.numerics.transport import gromov, wasserstein
from klarsicht.numerics.transport.gromov import Gromov
from klarsicht.numerics.transport.measures import PointMeasures, measures_from_maps
from klarsicht.numerics.transport.rotations import Shapes
from klarsicht.numerics.transport.sinograms import ANGLES, QUANTILES, Sinograms

sys.path.insert(0, str(Path(__file__).parent))
import shapes

Maps = NDArray[np.float32]
N, K, PAIRS = 1300, 10, 150
TRANSPORT = ("wasserstein", "wasserstein-t", "wasserstein-ts", "wasserstein-tsr", "sliced-rotation", "gromov")


def seconds(function: Callable[[], Any], repeats: int = 1) -> float:
    """Processor seconds, the least of the repeats."""
    taken = []
    for _ in range(repeats):
        began = time.process_time()
        function()
        taken.append(time.process_time() - began)
    return min(taken)


def median_pair(solve: Callable[[Any, Any], float], x: Any, y: Any) -> tuple[float, NDArray[np.float64]]:
    """Median processor seconds of one pair, and all values."""
    times, values = [], []
    for a, b in zip(x, y, strict=True):
        began = time.process_time()
        values.append(solve(a, b))
        times.append(time.process_time() - began)
    return float(np.median(times)), np.array(values)


def random_pairs(n: int, m: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    i = rng.integers(n, size=m)
    return i, (i + rng.integers(1, n, size=m)) % n


def inner(points: NDArray[np.floating]) -> NDArray[np.float64]:
    p = points.astype(np.float64)
    return np.sqrt(((p[:, None] - p[None]) ** 2).sum(-1))


def pot_gromov(x: Any, y: Any) -> float:
    return float(ot.gromov.gromov_wasserstein2(inner(x), inner(y), loss_fun="square_loss"))


def pot_w2(x: Any, y: Any) -> float:
    return float(ot.emd2([], [], ot.dist(x.astype(np.float64), y.astype(np.float64))))


def pairs(measures: PointMeasures, seed: int) -> dict[str, Any]:
    """One pair at a time: ours in one call for all of them, POT in a loop, distances inside shapes included in both."""
    scaled, (i, j) = measures.scale(), random_pairs(len(measures), PAIRS, seed)
    prepared = Shapes.of(scaled)
    many_i, many_j = random_pairs(len(measures), 4000, seed + 1)
    (
        gromov.squared_gromov_wasserstein(prepared, i, j, threads=1),
        wasserstein.squared_wasserstein(scaled.points[i], scaled.points[j], threads=1),
    )
    pot_gw, value_gw = median_pair(pot_gromov, scaled.points[i], scaled.points[j])
    pot_emd, value_emd = median_pair(pot_w2, scaled.points[i], scaled.points[j])
    ours_gw, once_gw = (
        seconds(lambda n=n: gromov.squared_gromov_wasserstein(prepared, many_i, many_j, n_starts=n, threads=1), 3)
        / 4000
        for n in (gromov.N_STARTS, 1)
    )
    ours_w2 = (
        seconds(lambda: wasserstein.squared_wasserstein(scaled.points[many_i], scaled.points[many_j], threads=1), 3)
        / 4000
    )
    found, once = (
        gromov.squared_gromov_wasserstein(prepared, i, j, n_starts=n, threads=1) for n in (gromov.N_STARTS, 1)
    )
    exact = wasserstein.squared_wasserstein(scaled.points[i], scaled.points[j], threads=1)
    return {
        "gromov, POT us": 1e6 * pot_gw, "gromov, ours us": 1e6 * ours_gw, "gromov ratio": pot_gw / ours_gw,
        "gromov objective, ours over POT": found.mean() / value_gw.mean(),
        "gromov, one start us": 1e6 * once_gw, "one start ratio": pot_gw / once_gw,
        "one start objective": once.mean() / value_gw.mean(),
        "emd2, POT us": 1e6 * pot_emd, "W2, ours us": 1e6 * ours_w2, "W2 ratio": pot_emd / ours_w2,
        "W2 largest relative gap": float(np.abs(exact / value_emd - 1).max()),
        "pot gromov": pot_gw, "pot emd2": pot_emd,
    }  # fmt: skip


def graphs(measures: PointMeasures, per_pair: dict[str, Any]) -> dict[str, Any]:
    """The graph of every metric, beside POT's pair times all pairs."""
    all_pairs = len(measures) * (len(measures) - 1) / 2
    out: dict[str, Any] = {}
    for name in TRANSPORT:
        taken = seconds(lambda name=name: neighbour_graph(measures, name, K), 2)
        peer = per_pair["pot gromov" if name in ("gromov", "sliced-rotation", "wasserstein-tsr") else "pot emd2"]
        out[name] = {"s": taken, "over POT, all pairs": peer * all_pairs / taken}
    counted = Counting()
    neighbour_graph(measures, counted, K)
    out["gromov"]["candidates"] = counted.pairs
    out["gromov"]["over POT, same candidates"] = per_pair["pot gromov"] * counted.pairs / out["gromov"]["s"]
    out["sliced-rotation"]["us a pair of the screening"] = screening(measures)
    return out


class Counting(Gromov):
    """Gromov that counts the pairs it solves."""

    pairs = 0

    def costs(self, rows: Any, i: Any, j: Any) -> Any:
        object.__setattr__(self, "pairs", self.pairs + len(i))
        return super().costs(rows, i, j)


def screening(measures: PointMeasures) -> float:
    """Microseconds a pair: all distances by cyclic shifts, and nothing else."""
    sinograms = Sinograms.of(measures.scale())
    n = len(measures)
    sinograms.distances(slice(0, 256))
    taken = seconds(lambda: [sinograms.distances(slice(b, min(b + 256, n))) for b in range(0, n, 256)], 3)
    return 1e6 * taken / n**2


def quality(measures: PointMeasures, kinds: NDArray[np.int64], maps: Maps) -> dict[str, float]:
    """Share of the K nearest neighbours that show the same shape."""
    rows = {"euclidean": maps.reshape(len(maps), -1)} | dict.fromkeys(TRANSPORT, measures)
    found = {m: float((kinds[neighbour_graph(r, m, K).indices] == kinds[:, None]).mean()) for m, r in rows.items()}
    mirrored = neighbour_graph(measures, RotationInvariant(reflection=True), K).indices
    return found | {"wasserstein-tsr, mirrored too": float((kinds[mirrored] == kinds[:, None]).mean())}


def recall(measures: PointMeasures) -> dict[str, Any]:
    """Of the graph against the full matrix of seven starts."""
    seven = np.argsort(_without_self(pairwise(measures, Gromov(n_starts=7, within=np.inf))), axis=1, kind="stable")[
        :, :K
    ]
    graph = neighbour_graph(measures, "gromov", K)
    hits = [len(np.intersect1d(a, b)) for a, b in zip(graph.indices, seven, strict=True)]
    return {"recall@10 against seven starts": float(np.mean(hits) / K)}


def _without_self(D: NDArray[np.float64]) -> NDArray[np.float64]:
    D = D.astype(np.float32).astype(np.float64)
    np.fill_diagonal(D, np.inf)
    return D


def growth(seed: int) -> dict[str, Any]:
    """Seconds against N at P = 64, and against P at N = 500; exponents by least squares."""
    out: dict[str, Any] = {"N": {}, "P": {}}
    for n in (500, 1000, 2000, 5000, 10000, 20000):
        measures = measures_from_maps(shapes.family(n, seed)[0])
        for name in ("wasserstein-t", "sliced-rotation", "wasserstein-tsr", "gromov"):
            if name == "wasserstein-t" and n > 5000:
                continue
            taken = seconds(lambda m=measures, name=name: neighbour_graph(m, name, K))
            out["N"].setdefault(name, []).append((n, taken))
    maps = shapes.family(500, seed)[0]
    for P in (16, 32, 64, 128, 256):
        measures = measures_from_maps(maps, P)
        for name in TRANSPORT:
            out["P"].setdefault(name, []).append((P, seconds(lambda m=measures, n=name: neighbour_graph(m, n, K))))
    for rows in (*out["N"].values(), *out["P"].values()):
        steps = np.log([row[:2] for row in rows[-4:]])
        rows.append(("exponent", float(np.polyfit(*steps.T, 1)[0])))
    return out


def memory(seed: int) -> dict[str, float | None]:
    """Mebibytes that the graph of 10,000 maps adds at its peak."""
    measures, added = measures_from_maps(shapes.family(10000, seed)[0]), {}
    for name in ("sliced-rotation", "wasserstein-tsr", "gromov"):
        neighbour_graph(measures[:200], name, K)  # compilers
        watch = Stopwatch()
        neighbour_graph(measures, name, K)
        added[name] = watch.cost.added_mib
    return added


def limit(measures: PointMeasures) -> dict[str, float]:
    """The sliced screening's multiply-adds over its time, as a share of what torch's matrix product reaches here."""
    import torch

    a = torch.rand(2048, 2048)
    peak = 2 * 2048**3 / seconds(lambda: a @ a, 5)
    work = 2 * ANGLES // 2 * (ANGLES // 2) * QUANTILES  # a pair: half the shifts, half a circle, both halves of it
    return {"GFLOP/s of a product": peak / 1e9, "share": 1e-9 * work / (1e-6 * screening(measures)) / (peak / 1e9)}


def cores(measures: PointMeasures) -> dict[str, float]:
    """Wall seconds of the gromov graph on one thread over those on two."""
    taken = {}
    for threads in (1, 2):
        metric, walls = Gromov(threads=threads), []
        for _ in range(3):
            began = time.perf_counter()
            neighbour_graph(measures, metric, K)
            walls.append(time.perf_counter() - began)
        taken[threads] = min(walls)
    return {"gromov, one thread over two": taken[1] / taken[2]}


def of_run(folder: Path) -> PointMeasures:
    maps = np.asarray(RunStore.open(folder).array("maps")[:], np.float32)
    measures = measures_from_maps(maps.reshape(-1, *maps.shape[-2:]))
    return measures[~measures.set_aside]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--run", type=Path, help="an audit whose relevance maps are compared too")
    parts = ["pairs", "graphs", "quality", "recall", "growth", "memory", "limit"]
    parser.add_argument("--only", nargs="+", default=parts)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", module="ot")
    report: dict[str, Any] = {}
    for seed in range(given.seeds):
        maps, kinds = shapes.family(N, seed)
        report[f"shapes, seed {seed}"] = measure(given.only, maps, kinds, seed)
        print(f"seed {seed}", json.dumps(report[f"shapes, seed {seed}"], indent=1, default=float), flush=True)
    if given.run:
        measures = of_run(given.run)
        per_pair = pairs(measures, 0)
        report["run"] = per_pair | {"maps": len(measures)} | {"graphs": graphs(measures, per_pair)}
        report["run"] |= recall(measures[:500])
        print("run", json.dumps(report["run"], indent=1, default=float), flush=True)
    if given.json:
        given.json.write_text(json.dumps(report, indent=1, default=float))


def measure(only: list[str], maps: Maps, kinds: NDArray[np.int64], seed: int) -> dict[str, Any]:
    measures = measures_from_maps(maps)
    found: dict[str, Any] = {}
    if "pairs" in only or "graphs" in only:
        found["pairs, P = 64"] = per_pair = pairs(measures, seed)
        found["pairs, P = 32"] = pairs(measures_from_maps(maps, 32), seed)
    if "graphs" in only:
        found["graphs"] = graphs(measures, per_pair)
    if "quality" in only:
        found["purity"] = quality(measures, kinds, maps)
    if "recall" in only:
        found["recall"] = recall(measures[:500])
    if "growth" in only and seed == 0:
        found["growth"] = growth(seed)
    if "memory" in only and seed == 0:
        found["memory"] = memory(seed)
    if "limit" in only:
        found["limit"] = limit(measures)
    if "cores" in only:
        found["cores"] = cores(measures)
    return found


if __name__ == "__main__":
    main()
