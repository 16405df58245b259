"""Finders of pictures with a mark: klarsicht's lists beside those of peers, on one network for moles.

    pip install corelay zennit "cleanlab[image]" datasets
    export PYTHONPATH=NETWORKS MOLES=moles
    python benchmarks/audit/isic_finders.py ISIC2017 --run run

The pictures are those of isic.py's training half that are benign and have marks; `run` is a run on that half,
quantified or not. A finder gives lists of pictures. *By itself* is a list that it gives without help: the better one
for the mark, where it gives several. *With help* is the best of everything that it could give, picked with the marks in
hand: a bound that no person exceeds who does not know them. Recall, precision and F1 of patches, rulers and dark
corners are printed.
Datalab's spurious-correlation scores tell of a property of all pictures, and name none; with help, the pictures beyond
the best threshold of the best property are taken.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import rgb2lab
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from isic import CLASSES, TRANSFORM, Row, network, read_images, read_rows, split_rows

TOLD = ("patches", "ruler", "dark_corner")
CLUSTERS, BATCH, RING, BEYOND = range(2, 21), 16, 0.7, 3.0
List = NDArray[np.bool_]


@dataclass(frozen=True)
class Set:
    """Pictures of the training half, their rows, which are benign (n,), and the network."""

    folder: Path
    rows: list[Row]
    images: Tensor
    net: nn.Module

    @property
    def benign(self) -> List:
        return np.array([row["melanoma"] == "0" for row in self.rows])


@dataclass(frozen=True)
class Found:
    """Lists (n,) of benign pictures: those that a finder gives by itself, and all that it could give."""

    own: list[List]
    every: list[List]


def score(members: List, truth: List) -> tuple[float, float, float]:
    """Return recall, precision and F1."""
    hits = int((members & truth).sum())
    return hits / truth.sum(), hits / max(1, members.sum()), 2 * hits / (members.sum() + truth.sum())


def partition(points: NDArray[np.floating]) -> Iterable[List]:
    """Give every cluster of k-means, for every number of clusters."""
    for k in CLUSTERS:
        labels = KMeans(k, n_init=4, random_state=0).fit_predict(points)
        yield from (labels == one for one in range(k))


def beyond(values: NDArray[np.floating]) -> Iterable[List]:
    """Give the pictures beyond each threshold of a number (n,), on either side."""
    for cut in np.unique(np.quantile(values, np.linspace(0.005, 0.995, 199))):
        yield values >= cut
        yield values <= cut


def by_klarsicht(data: Set, run: Path) -> Found:
    """Lists of the run: suspect cluster, verdict and groups that were seen; and all clusters that it chose from."""
    from klarsicht.audit.explanation import pipeline
    from klarsicht.audit.explanation.models.classifier import load_model
    from klarsicht.audit.verdicts.quantification import opened_runs

    names = [row["path"] for row, own in zip(data.rows, data.benign, strict=True) if own]
    lists = [*json.loads((run / "ranking.json").read_text())]
    if (run / "seen.json").exists():  # the run is quantified
        lists += json.loads((run / "quantification.json").read_text())["classes"]
        lists += json.loads((run / "seen.json").read_text())["groups"]
    members = [{Path(path).name for path in one["members"]} for one in lists if one["class"] == CLASSES[0]]
    own = [np.isin(names, list(one)) for one in members if one]
    classifier = load_model((data.net, TRANSFORM), classes=CLASSES)
    with opened_runs.open_run(run, level=0.05, workers=1, data=None, classifier=classifier) as (audit, work):
        for analysis in pipeline.make_analyses(audit, work.store).values():
            compared = analysis.comparable(next(group for group in analysis.groups if group.name == CLASSES[0]))
            files = np.array([Path(audit.corpus.paths[int(i)]).name for i in compared.rows])
            every = [np.isin(names, files[list(one)]) for one in analysis.clustering(compared).members]
    return Found(own, own + every)


def by_corelay(data: Set, run: Path) -> Found:
    """Clusters of zennit's maps by CoRelAy's spectral clustering; by itself, the two clusters of its default."""
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import EpsilonPlusFlat

    import corelay_chain

    x = data.images[torch.from_numpy(data.benign)]
    with Gradient(data.net, EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])) as explain:
        maps = [
            explain(part.clone().requires_grad_(), torch.eye(2)[[0] * len(part)])[1].detach().sum(1, keepdim=True)
            for part in x.split(BATCH)
        ]
    maps = nn.functional.avg_pool2d(torch.cat(maps), 4).numpy()
    own, every = [], []
    for normalised in (corelay_chain.by_sum, corelay_chain.by_absolute_sum):
        _, partitions = corelay_chain.spectral_clustering(normalised)(maps)
        clusters = [[labels == one for one in np.unique(labels)] for labels in partitions]
        own += clusters[0]
        every += [one for some in clusters for one in some]
    return Found(own, every)


@torch.no_grad()
def embed(data: Set) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute inputs of the head (n, F) and probabilities (n, 2)."""
    parts = [data.net.forward_head(data.net.forward_features(x), pre_logits=True) for x in data.images.split(64)]
    points = torch.cat(parts)
    return points.numpy(), data.net.classifier(points).softmax(1).numpy()


def by_embedding(data: Set, run: Path) -> Found:
    """Clusters of k-means on the inputs of the head; nothing by itself, as a person looks at them."""
    points = StandardScaler().fit_transform(embed(data)[0][data.benign])
    return Found([], list(partition(points)))


def colours(data: Set) -> NDArray[np.float64]:
    """Compute mean and deviation of L, a and b of the whole frame, its middle and its outer ring: (n, 18)."""
    side = data.images.shape[-1]
    ring = np.hypot(*(np.mgrid[:side, :side] / (side - 1) * 2 - 1)) > RING
    numbers = []
    for image in data.images:
        lab = rgb2lab((image.permute(1, 2, 0).numpy() + 1) / 2)
        numbers.append(np.concatenate([[*lab[m].mean(0), *lab[m].std(0)] for m in (ring | ~ring, ~ring, ring)]))
    return np.array(numbers)


def by_colours(data: Set, run: Path) -> Found:
    """Pictures three deviations away in a number, by itself; thresholds of each number, and clusters, with help."""
    points = StandardScaler().fit_transform(colours(data)[data.benign])
    every = [*partition(points), *(one for column in points.T for one in beyond(column))]
    return Found([np.abs(points).max(1) > BEYOND], every)


def by_regression(data: Set, run: Path) -> Found:
    """Benign pictures that colours alone call benign, out of fold: by itself above 0.95, with help any threshold."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    sure = cross_val_predict(model, colours(data), ~data.benign, cv=5, method="predict_proba")[data.benign, 0]
    return Found([sure > 0.95], list(beyond(sure)))


def by_datalab(data: Set, run: Path) -> Found:
    """Every issue that Datalab finds with images, features and probabilities; with help, thresholds of every score."""
    from cleanlab import Datalab
    from datasets import Dataset
    from datasets import Image as ImageColumn

    files = [str(data.folder / row["path"]) for row in data.rows]
    labels = [CLASSES[int(row["melanoma"])] for row in data.rows]
    pictures = Dataset.from_dict({"image": files, "label": labels}).cast_column("image", ImageColumn())
    points, probabilities = embed(data)
    lab = Datalab(pictures, label_name="label", image_key="image", verbosity=0)
    lab.find_issues(features=points, pred_probs=probabilities)
    told = lab.get_info("spurious_correlations")
    print(f"  spurious-correlation scores, threshold {told['threshold']}, below which a property is reported:")
    print("  " + ", ".join(f"{name} {value:.2f}" for name, value in told["correlations_df"].to_numpy()))
    issues = lab.get_issues()[data.benign]
    own = [issues[name].to_numpy(bool) for name in issues if name.startswith("is_") and name.endswith("_issue")]
    scores = [issues[name].to_numpy(float) for name in issues if name.endswith("_score")]
    properties = lab._imagelab.issues if hasattr(lab, "_imagelab") else None
    if properties is not None:
        scores += [properties[name].to_numpy(float)[data.benign] for name in properties if name.endswith("_score")]
    return Found([one for one in own if one.any()], [one for some in scores for one in beyond(some)])


FINDERS: dict[str, Callable[[Set, Path], Found]] = {
    "klarsicht": by_klarsicht,
    "zennit and CoRelAy": by_corelay,
    "cleanlab Datalab": by_datalab,
    "embeddings, k-means": by_embedding,
    "colours, thresholds and k-means": by_colours,
    "colours, logistic regression": by_regression,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--finders", nargs="+", choices=FINDERS, default=list(FINDERS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = split_rows(read_rows(given.data))["train"]
    data = Set(given.data, rows, read_images(given.data, rows), network()[0])
    known = np.array([row["patches"] != "" for row in rows])[data.benign]
    print(f"{known.sum()} benign pictures with marks")
    for name in given.finders:
        began = time.process_time()
        try:
            found = FINDERS[name](data, given.run)
        except ImportError as error:
            print(f"{name}: left out, {error}")
            continue
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name}: {time.process_time() - began:.0f} CPU s, peak {peak:.1f} GiB", flush=True)
        for mark in TOLD:
            truth = np.array([row[mark] == "1" for row in rows])[data.benign][known]
            cells = []
            for lists in (found.own, found.every):
                best = max((score(one[known], truth) for one in lists), key=lambda s: s[2], default=None)
                cells.append("none" if best is None else "recall {:.2f}, precision {:.2f}, F1 {:.2f}".format(*best))
            print(f"  {mark:12} of {truth.sum()}: by itself {cells[0]}; with help {cells[1]}", flush=True)


if __name__ == "__main__":
    main()
