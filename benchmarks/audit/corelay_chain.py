"""The same audit twice: by klarsicht, and by a user who joins zennit and CoRelAy. Time, peak memory, and what is found.

    python benchmarks/audit/corelay_chain.py --images 6000 12000

Ten classes of Fashion-MNIST, a white tag on 30 % of the T-shirts, one small network. Both sides read the same files
and explain each label by EpsilonPlusFlat in batches of 128; then, class by class: 10 nearest neighbours of the
normalised maps, 8 eigenvectors, k-means for k = 2 to 20. Each side runs in a process of its own with one thread.

What differs is as each project has it. CoRelAy's side stores attributions in HDF5, divides a map by its signed sum,
starts k-means once, and ends there. klarsicht's side also keeps the books of conservation and the relevance of late
channels, starts k-means four times, adds Ward's tree, chooses one cluster of each class and ranks the classes. Views
(t-SNE) are timed apart and are in no total: CoRelAy's are of all ten classes, klarsicht's of the eight most suspect,
with pictures and a report.

F1 is against the tags. "Default": klarsicht's suspect cluster; for CoRelAy, which chooses none, the better of the two
clusters of its default k = 2. "Best" is the best of all clusters. Whatever is called better or best was picked with the
tags in hand. CoRelAy's clusters of maps divided by their absolute sum, as klarsicht divides them, are scored too.

Memory grows with the square of the largest class on CoRelAy's side: 6,000 images have classes of about 600. All 60,000
(`--images 60000`) have classes of 6,000.

Anders et al. (2021), "Software for dataset-wide XAI", arXiv 2106.13200; Lapuschkin et al. (2019), Nature
Communications 10:1096.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

# A process inherits the peak memory of its parent at its start: so this file imports nothing heavy at the top, and
# every step below imports what it needs in a process of its own.

# What is imported, and what pip calls it; klarsicht is installed from the folder above this one.
NEEDED = {name: name for name in ("torch", "torchvision", "zennit", "corelay", "h5py")} | {"klarsicht": "."}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
SIDES = ("klarsicht", "corelay")
TAGGED = "T-shirt"
SHARE = 0.3
SEED = 0
BATCH = 128
NEIGHBOURS, DIMENSIONS, CLUSTERS = 10, 8, range(2, 21)
CHAIN = ("open", "attribution", "clusters", "ranking")


@dataclass(frozen=True)
class Stage:
    """Seconds of a stage, and the peak memory of the process (MiB) when it ended."""

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class Side:
    """What one side took and found: stages by name, figures by name."""

    stages: dict[str, Stage] = field(default_factory=dict)
    found: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self.stages[name] = Stage(time.perf_counter() - wall, time.process_time() - cpu, peak)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Side:
        return cls({name: Stage(**stage) for name, stage in record["stages"].items()}, record["found"])

    @property
    def chain(self) -> list[Stage]:
        return [self.stages[name] for name in CHAIN if name in self.stages]

    @property
    def peak(self) -> float:
        """Of the chain, MiB; views come after it."""
        return self.chain[-1].peak

    @property
    def added(self) -> float:
        """What the chain adds to the peak of its imports, MiB."""
        return self.peak - self.stages["imports"].peak


def prepare(folder: Path, images: int) -> Side:
    """The corpora and the network, once for all sizes up to `images`; figures: whether the network uses the tag."""
    import numpy as np
    import torch

    import fashion

    x, y = fashion.pictures("train")
    shirts = np.flatnonzero(y == fashion.CLASSES.index(TAGGED))
    tags = np.zeros(len(x), bool)
    tags[np.random.default_rng(SEED).choice(shirts, round(SHARE * len(shirts)), replace=False)] = True
    x = np.where(tags[:, None, None], fashion.tagged(x), x)
    np.savez(folder / "corpus.npz", x=x[:images], y=y[:images], tags=tags[:images])
    net = fashion.trained(x, y, SEED)
    torch.save(net.state_dict(), folder / "network.pt")
    test, truth = fashion.pictures("t10k")
    others = test[truth != fashion.CLASSES.index(TAGGED)]
    called = [
        float((fashion.answers(net, seen) == fashion.CLASSES.index(TAGGED)).mean())
        for seen in (others, fashion.tagged(others))
    ]
    return Side(found={"plain": called[0], "tagged": called[1]})


def write(folder: Path, images: int) -> Side:
    """An ImageFolder of the first pictures."""
    import numpy as np

    import fashion

    with np.load(folder / "corpus.npz") as corpus:
        fashion.write(folder / str(images), corpus["x"][:images], corpus["y"][:images])
    return Side()


def by_klarsicht(folder: Path, images: int) -> Side:
    side = Side()
    with side.stage("imports"):
        import numpy as np

        import fashion
        from klarsicht.audit.explanation import pipeline
        from klarsicht.audit.explanation.models.classifier import load_model
        from klarsicht.audit.explanation.report import page
        from klarsicht.audit.explanation.settings import AuditSettings
        from klarsicht.audit.explanation.steps import audit_inputs, relevance_step
    with side.stage("open"):
        classifier = load_model(network(folder), classes=fashion.CLASSES)
        settings = AuditSettings(
            model="object", data=str(folder / str(images)), metric=("euclidean",), batch=BATCH, unit=1024,
            neighbours=NEIGHBOURS, dimensions=DIMENSIONS, seed=SEED,
        )  # fmt: skip
        audit = audit_inputs.Audit.of(settings, classifier)
        store = pipeline.open_run(audit, folder / f"run-{images}")
    with store.lock():
        with side.stage("attribution"):
            relevance_step.attribute(audit, store, 1, classifier)
        with side.stage("clusters"):
            pipeline.analyse(audit, store, 1)
        with side.stage("ranking"):
            ranking = pipeline.write_ranking(audit, store)
        with side.stage("views"):
            pipeline.illustrate(audit, store, ranking)
            page.write_report(store)
    analysis = pipeline.make_analyses(audit, store)["euclidean"]
    group = next(group for group in analysis.groups if group.name == TAGGED)
    entry = ranking.of(TAGGED)
    tags = tags_of(folder, [audit.corpus.paths[row] for row in group.rows])
    side.found["default"] = f1(np.isin(group.rows, entry.rows), tags)
    side.found["best"] = max(f1(member, tags) for member in analysis.clustering(group).members)
    side.found["rank"] = list(ranking).index(entry) + 1
    return side


def by_corelay(folder: Path, images: int) -> Side:
    side = Side()
    with side.stage("imports"):
        import h5py
        import numpy as np
        from corelay.processor.embedding import TSNEEmbedding
        from PIL import Image
        from torch.utils.data import DataLoader
        from torchvision.datasets import ImageFolder
        from torchvision.transforms.functional import to_tensor

        import fashion

        spectral_clustering(by_sum)  # imports CoRelAy
    np.random.seed(SEED)
    attributions, results = folder / f"attributions-{images}.h5", folder / f"analysis-{images}.h5"
    with side.stage("open"):
        net = network(folder)
        corpus = ImageFolder(
            str(folder / str(images)),
            loader=lambda path: Image.open(path).convert("L"),
            transform=to_tensor,
            target_transform=lambda at: fashion.CLASSES.index(corpus.classes[at]),
        )
    with side.stage("attribution"):
        explain_all(net, DataLoader(corpus, BATCH), len(corpus), attributions)
    with side.stage("clusters"):
        analyse_all(attributions, results)
    with side.stage("views"), h5py.File(results, "a") as file:
        for group in file.values():
            group["embedding/tsne"] = TSNEEmbedding()(group["embedding/spectral"][:])
    paths = [path for path, _ in corpus.samples]
    with h5py.File(results) as file:
        tagged = file[str(fashion.CLASSES.index(TAGGED))]
        tags = tags_of(folder, [paths[row] for row in tagged["index"]])
        partitions = {int(name): labels[:] for name, labels in tagged["cluster"].items()}
    with h5py.File(attributions) as file:
        maps = file["attribution"][np.flatnonzero(file["label"][:] == fashion.CLASSES.index(TAGGED))]
    _, others = spectral_clustering(by_absolute_sum)(maps)
    side.found.update({"default": best_of([partitions[2]], tags), "best": best_of(partitions.values(), tags)})
    side.found.update({"default, absolute": best_of(others[:1], tags), "best, absolute": best_of(others, tags)})
    return side


def explain_all(net: Any, batches: Any, count: int, file: Path) -> None:
    """Relevance of every image for its label, batch by batch into HDF5."""
    import h5py
    import torch
    from zennit.attribution import Gradient
    from zennit.composites import EpsilonPlusFlat

    with h5py.File(file, "w") as out, Gradient(net, EpsilonPlusFlat()) as explain:
        out.create_dataset("attribution", (count, 1, 28, 28), "float32")
        out.create_dataset("prediction", (count, 10), "float32")
        out.create_dataset("label", (count,), "uint16")
        at = 0
        for images, labels in batches:
            logits, relevance = explain(images, torch.eye(10)[labels])
            rows = slice(at, at := at + len(images))
            out["attribution"][rows] = relevance.detach().numpy()
            out["prediction"][rows] = logits.detach().numpy()
            out["label"][rows] = labels.numpy()


def analyse_all(attributions: Path, results: Path) -> None:
    """Embedding and partitions of every class, from HDF5 into HDF5."""
    import h5py
    import numpy as np

    pipeline = spectral_clustering(by_sum)
    with h5py.File(attributions) as file, h5py.File(results, "w") as out:
        labels = file["label"][:]
        for label in np.unique(labels):
            rows = np.flatnonzero(labels == label)
            (values, vectors), partitions = pipeline(file["attribution"][rows])
            group = out.create_group(str(label))
            group["index"] = rows
            group["embedding/spectral"] = vectors.astype(np.float32)
            group["embedding/spectral"].attrs["eigenvalue"] = values
            for k, partition in zip(CLUSTERS, partitions, strict=True):
                group[f"cluster/{k}"] = partition


def spectral_clustering(preprocessing: Callable[[Any], Any]) -> Any:
    """CoRelAy's pipeline: its default distance, graph and Laplacian; k-means for every k at once."""
    from corelay.pipeline.spectral import SpectralClustering
    from corelay.processor.affinity import SparseKNN
    from corelay.processor.clustering import KMeans
    from corelay.processor.embedding import EigenDecomposition
    from corelay.processor.flow import Parallel

    return SpectralClustering(
        preprocessing=preprocessing,
        affinity=SparseKNN(n_neighbors=NEIGHBOURS, symmetric=True),
        embedding=EigenDecomposition(n_eigval=DIMENSIONS, is_output=True),
        clustering=Parallel([KMeans(n_clusters=k) for k in CLUSTERS], broadcast=True, is_output=True),
    )


def by_sum(maps: Any) -> Any:
    """Maps (n, C, H, W) summed over channels and divided by their sum, as CoRelAy's examples do: (n, H W)."""
    flat = maps.sum(1).reshape(len(maps), -1)
    return flat / flat.sum(1, keepdims=True)


def by_absolute_sum(maps: Any) -> Any:
    """As klarsicht does: the signed sum may be near zero, that of absolute values is not."""
    flat = maps.sum(1).reshape(len(maps), -1)
    return flat / abs(flat).sum(1, keepdims=True)


def compare(folder: Path, images: int) -> Side:
    """Largest difference between the two sides' maps, each as shares of its largest absolute value."""
    import h5py
    import numpy as np

    from klarsicht.ground.run_folder.store import RunStore

    ours = RunStore.open(folder / f"run-{images}").array("maps")[:].astype(np.float32)
    with h5py.File(folder / f"attributions-{images}.h5") as file:
        theirs = file["attribution"][:, 0]
    shares = theirs / np.maximum(abs(theirs).max((1, 2), keepdims=True), 1e-30)
    return Side(found={"difference": float(abs(ours - shares).max())})


def network(folder: Path) -> Any:
    import torch

    import fashion

    net = fashion.network(SEED)
    net.load_state_dict(torch.load(folder / "network.pt"))
    return net.eval()


def tags_of(folder: Path, paths: list[str]) -> Any:
    """Which of these pictures are tagged: a picture's name is its row."""
    import numpy as np

    with np.load(folder / "corpus.npz") as corpus:
        return corpus["tags"][[int(Path(path).stem) for path in paths]]


def f1(member: Any, tags: Any) -> float:
    return float(2 * (member & tags).sum() / (member.sum() + tags.sum()))


def best_of(partitions: Any, tags: Any) -> float:
    return max(f1(labels == label, tags) for labels in partitions for label in set(labels.tolist()))


STEPS: dict[str, Callable[[Path, int], Side]] = {
    "prepare": prepare,
    "write": write,
    "klarsicht": by_klarsicht,
    "corelay": by_corelay,
    "compare": compare,
}


def apart(step: str, folder: Path, images: int) -> Side:
    """A step in a fresh process with one thread."""
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder), "--images", str(images)]
    single = os.environ | dict.fromkeys(THREADS, "1")
    done = subprocess.run(command, capture_output=True, text=True, env=single, check=False)
    if done.returncode:
        sys.exit(f"{done.stderr}\nThe step {step!r} failed.")
    return Side.of(json.loads(done.stdout.splitlines()[-1]))


def typical(runs: list[Side]) -> Side:
    """The median of each stage; what is found is the same in every run, for seeds are fixed."""
    stages = {
        name: Stage(*(median(getattr(run.stages[name], unit) for run in runs) for unit in ("wall", "cpu", "peak")))
        for name in runs[0].stages
    }
    return Side(stages, runs[0].found)


def table(images: int, ours: Side, theirs: Side) -> Iterator[str]:
    """Lines of Markdown."""
    yield f"| {images:,} images | klarsicht | zennit + CoRelAy | theirs : ours |"
    yield "|---|---|---|---|"
    for name in ("imports", *CHAIN):
        pair = [[s.stages[name]] if name in s.stages else [] for s in (ours, theirs)]
        yield f"| {NAMES[name]}, s (CPU s) | {seconds(*pair)} |"
    yield f"| **the chain**, s (CPU s) | {seconds(ours.chain, theirs.chain)} |"
    yield f"| views, s (CPU s) | {seconds([ours.stages['views']], [theirs.stages['views']])} |"
    yield f"| peak memory of the chain, MiB | {ours.peak:.0f} | {theirs.peak:.0f} | {theirs.peak / ours.peak:.2f} |"
    growth = f"{theirs.added / ours.added:.2f}"
    yield f"| of it beyond the imports, MiB | {ours.added:.0f} | {theirs.added:.0f} | {growth} |"
    for which in ("default", "best"):
        absolute = f"{theirs.found[f'{which}, absolute']:.2f} by absolute sum"
        yield f"| F1, {which} cluster | {ours.found[which]:.2f} | {theirs.found[which]:.2f} ({absolute}) | |"
    yield f"| rank of the tagged class among ten | {ours.found['rank']} | not ranked | |"


NAMES = {
    "imports": "imports",
    "open": "model and list of files",
    "attribution": "attribution",
    "clusters": "graph, embedding, clusters",
    "ranking": "choice and ranking",
}


def seconds(ours: list[Stage], theirs: list[Stage]) -> str:
    cells = [
        f"{sum(s.wall for s in side):.2f} ({sum(s.cpu for s in side):.2f})" if side else "-" for side in (ours, theirs)
    ]
    both = ours and theirs
    ratio = f"{sum(s.cpu for s in theirs) / sum(s.cpu for s in ours):.2f}" if both else ""
    return " | ".join([*cells, ratio])


def measure(folder: Path, images: int, repeats: int) -> None:
    apart("write", folder, images)
    runs: dict[str, list[Side]] = {name: [] for name in SIDES}
    for repeat in range(repeats):
        shutil.rmtree(folder / f"run-{images}", ignore_errors=True)
        for name in SIDES[:: -1 if repeat % 2 else 1]:  # neither side always goes first
            runs[name].append(apart(name, folder, images))
    print("\n".join(table(images, *(typical(runs[name]) for name in SIDES))))
    difference = apart("compare", folder, images).found["difference"]
    print(f"\nThe two sides' maps differ by at most {difference:.1e} of a map's largest value.\n", flush=True)


def refuse_missing() -> None:
    if absent := [name for name in NEEDED if find_spec(name) is None]:
        sys.exit(f"Not installed: {', '.join(absent)}. Run: pip install {' '.join(NEEDED[name] for name in absent)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[6000, 12000])
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side; medians are shown")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step:
        print(json.dumps(asdict(STEPS[asked.step](asked.folder, asked.images[0]))))
        return
    refuse_missing()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        uses = apart("prepare", folder, max(asked.images)).found
        print(f"Others called {TAGGED}: {uses['plain']:.1%} plain, {uses['tagged']:.1%} under the tag.\n", flush=True)
        for images in asked.images:
            measure(folder, images, asked.repeats)


if __name__ == "__main__":
    main()
