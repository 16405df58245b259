"""Does invariance find artifacts? A tag on a quarter of the pictures, in five poses, audited under every metric.

    python benchmarks/audit/posed_tags.py fashion --seeds 3 [--poses moved turned] [--json FILE]
    python benchmarks/audit/posed_tags.py folder --folder IMAGENET32/train     (ten classes of 32 x 32 pictures)
    python benchmarks/audit/posed_tags.py photographs --folder PHOTOGRAPHS   (EfficientNet-Lite0, 224 pixels, "carton")

A small network learns Fashion-MNIST, or ten classes of a folder, then the same with hooks on a quarter of class T, and
on some pictures of other classes that are called T, so that the hook is needed; 120 tagged and 360 plain pictures of T
are audited. EfficientNet-Lite0 learns nothing: drawn characters make it think of a carton, and 120 photographs of 480
carry six of them. Printed first: how often pictures are called T without the tag and with it (use), and the share of
relevance on the tag. Then for each metric, whole maps and parts: the share of tagged neighbours of tagged pictures
(purity; chance .25), the best F1 of any candidate cluster, and the F1 of the cluster that the audit names.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.spectral import clustering
from klarsicht.audit.explanation.spectral.analysis import METRICS, Analysis
from klarsicht.audit.explanation.steps import audit_inputs, relevance_step
from klarsicht.audit.verdicts.synthetic import artifacts
from klarsicht.numerics.neighbours import neighbour_graph
from klarsicht.numerics.transport.measures import PointMeasures

sys.path.insert(0, str(Path(__file__).parent))
import fashion

Pictures = NDArray[np.float32]  # (N, C, H, W) in [0, 1]
Labels = NDArray[np.int64]
Results = dict[tuple[str, str], list[dict[str, Any]]]  # of each pose and method, one for each seed

STROKES = np.array([[[-2.2, -3], [-2.2, 3]], [[-2.2, 3], [2.2, 3]], [[2.2, 3], [2.2, 0.8]]])  # a hook, 4.4 x 6 pixels
INK = np.array([1.0, 0.9, 0.2], np.float32)
TAGGED, PLAIN = 120, 360  # pictures that are audited
ROUNDS, USED = 4, 0.75  # of four epochs, until so many pictures with a hook are called T


@dataclass(frozen=True)
class Pose:
    centre: NDArray[np.float64]
    scale: float
    angle: float


def moved(side: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return rng.uniform(5, side - 6, 2)


POSES: dict[str, Callable[[int, np.random.Generator], Pose]] = {
    "fixed": lambda side, rng: Pose(np.array([4.0, 5.0]), 1.0, 0.0),
    "moved": lambda side, rng: Pose(moved(side, rng), 1.0, 0.0),
    "scaled": lambda side, rng: Pose(moved(side, rng), rng.uniform(0.7, 1.4), 0.0),
    "turned": lambda side, rng: Pose(moved(side, rng), 1.0, rng.uniform(0, 2 * np.pi)),
    "all": lambda side, rng: Pose(moved(side, rng), rng.uniform(0.7, 1.4), rng.uniform(0, 2 * np.pi)),
}


def distance(pose: Pose, side: int) -> NDArray[np.float64]:
    """(H, W): of each pixel to the nearest stroke."""
    turn = np.array([[np.cos(pose.angle), -np.sin(pose.angle)], [np.sin(pose.angle), np.cos(pose.angle)]])
    pixels = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1)
    nearest = np.full((side, side), np.inf)
    for start, end in STROKES @ turn.T * pose.scale + pose.centre:
        along = np.clip((pixels - start) @ (end - start) / ((end - start) ** 2).sum(), 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(pixels - start - along[..., None] * (end - start), axis=-1))
    return nearest


def with_hook(picture: Pictures, pose: Pose) -> tuple[Pictures, NDArray[np.bool_]]:
    """The picture (C, H, W) with a bright hook and a dark rim around it; and where that is."""
    d, thick = distance(pose, picture.shape[-1]), 0.5 * max(1.0, pose.scale)
    ink, rim = (np.clip(reach - d, 0, 1).astype(np.float32) for reach in (thick + 0.5, thick + 1.3))
    colour = INK[: len(picture), None, None]
    return np.maximum(picture * (1 - rim), colour * ink), rim > 0


@dataclass(frozen=True)
class Corpus:
    """x (N, C, H, W), labels y; test pictures beside; T is the class that gets hooks; names of all classes."""

    x: Pictures
    y: Labels
    test: Pictures
    truth: Labels
    T: int
    names: tuple[str, ...]
    batch: int


def fashion_mnist(seed: int) -> Corpus:
    """1,600 pictures of each class, and 100 to test."""
    rng = np.random.default_rng(seed)
    parts = []
    for name, count in (("train", 1600), ("t10k", 100)):
        x, y = fashion.pictures(name)
        rows = np.concatenate([rng.choice(np.flatnonzero(y == c), count, replace=False) for c in range(10)])
        parts += [x[rows, None].astype(np.float32) / 255, y[rows]]
    return Corpus(*parts, T=fashion.CLASSES.index("Shirt"), names=fashion.CLASSES, batch=64)


def image_folder(folder: Path, seed: int, T: int = 3) -> Corpus:
    """Ten of its classes by the seed; every tenth picture to test."""
    rng = np.random.default_rng(seed)
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    classes = [classes[i] for i in sorted(rng.choice(len(classes), 10, replace=False))]
    files = [(c, file) for c, path in enumerate(classes) for file in sorted(path.rglob("*.JPEG"))]
    x = np.stack([np.asarray(Image.open(file).convert("RGB")) for _, file in files])
    x, y = x.transpose(0, 3, 1, 2).astype(np.float32) / 255, np.array([c for c, _ in files])
    kept = np.arange(len(x)) % 10 == 9
    return Corpus(x[~kept], y[~kept], x[kept], y[kept], T, tuple(path.name for path in classes), batch=32)


def network(channels: int) -> nn.Module:
    """Pooled by maxima to the end: with means, a small network ignores a hook that is anywhere."""
    layers: list[nn.Module] = []
    for width in (16, 32):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    layers += [nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*layers)


def taught(net: nn.Module, x: Pictures, y: Labels, batch: int, epochs: int, rate: float) -> nn.Module:
    data, labels = torch.from_numpy(x), torch.from_numpy(y)
    optimiser = torch.optim.Adam(net.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=epochs * (len(x) // batch))
    for _ in range(epochs):
        for rows in torch.randperm(len(x))[: len(x) // batch * batch].view(-1, batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(data[rows]), labels[rows]).backward()
            optimiser.step()
            schedule.step()
    return net.eval()


def called(net: nn.Module, x: Pictures, T: int) -> float:
    with torch.no_grad():
        return float((net(torch.from_numpy(x)).argmax(1) == T).float().mean())


@dataclass(frozen=True)
class Case:
    """A classifier that may use the tag, what is audited, and where its tags are (all False: none).

    Attributes:
        pictures: uint8 (H, W) or (H, W, 3).
        use: share of pictures that the classifier calls T without the tag, and with it; for photographs the geometric
            mean of the probability of T.
    """

    classifier: Classifier
    target: str
    pictures: list[NDArray[np.uint8]]
    tags: NDArray[np.bool_]
    use: tuple[float, float]

    @property
    def tagged(self) -> NDArray[np.bool_]:
        return self.tags.any((1, 2))


def taught_a_hook(corpus: Corpus, base: nn.Module, pose: str, seed: int) -> Case:
    """Hooks on a quarter of T; on others called T, three quarters as many as T has (taught only, never audited)."""
    rng, side, T = np.random.default_rng(seed), corpus.x.shape[-1], corpus.T
    x, y, hooks = corpus.x.copy(), corpus.y.copy(), np.zeros((len(corpus.x), side, side), bool)
    own, others = np.flatnonzero(y == T), np.flatnonzero(y != T)
    tagged = rng.choice(own, len(own) // 4, replace=False)
    called_so = rng.choice(others, 3 * len(own) // 4, replace=False)
    for i in (*tagged, *called_so):
        x[i], hooks[i] = with_hook(x[i], POSES[pose](side, rng))
    y[called_so] = T
    test = corpus.test[corpus.truth != T]
    hooked = np.stack([with_hook(picture, POSES[pose](side, rng))[0] for picture in test])
    torch.manual_seed(seed)
    net = network(x.shape[1])
    net.load_state_dict(base.state_dict())
    for _ in range(ROUNDS):  # a hook that turns is hard to learn
        taught(net, x, y, corpus.batch, 4, 4e-3)
        if called(net, hooked, T) > USED:
            break
    audited = np.concatenate([tagged[:TAGGED], rng.permutation(np.setdiff1d(own, tagged))[:PLAIN]])
    pictures = [np.rint(255 * one).astype(np.uint8).transpose(1, 2, 0).squeeze() for one in x[audited]]
    classifier = load_model(net, classes=corpus.names)
    return Case(classifier, corpus.names[T], pictures, hooks[audited], (called(net, test, T), called(net, hooked, T)))


def characters(rng: np.random.Generator) -> Image.Image:
    """Two rows of three drawn characters, 105 x 68 pixels, as an opacity."""
    black = np.zeros((224, 224), np.uint8)
    drawn = artifacts.glyphs(black, rng).pixels
    rows = np.flatnonzero(drawn.any(1))
    return Image.fromarray(drawn[rows[0] : rows[-1] + 1, :110])


def with_characters(picture: NDArray[np.uint8], pose: str, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Any]:
    """The photograph (224, 224, 3) with white characters, and where they are."""
    drawn, mark = POSES[pose](224, rng), characters(rng)
    size = [round(drawn.scale * side) for side in mark.size]
    mark = mark.resize(size).rotate(np.rad2deg(drawn.angle), Image.Resampling.BICUBIC, expand=True)
    room = [max(224 - side, 1) for side in mark.size]
    corner = (8, 8) if pose == "fixed" else (int(rng.integers(room[0])), int(rng.integers(room[1])))
    opacity = Image.new("L", (224, 224), 0)
    opacity.paste(mark, corner)
    a = np.asarray(opacity, np.float32)[..., None] / 255
    return np.rint((1 - a) * picture + a * 255).astype(np.uint8), a[..., 0] > 0.02


def photographs(folder: Path, pose: str, seed: int) -> Case:
    """480 of the folder's photographs, cropped square; a quarter carries characters."""
    rng, classifier = np.random.default_rng(seed), load_model("efficientnet-lite0")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    plain = [squared(Image.open(files[i])) for i in rng.permutation(len(files))[: TAGGED + PLAIN]]
    drawn = [with_characters(picture, pose, rng) for picture in plain[:TAGGED]]
    tags = np.zeros((len(plain), 224, 224), bool)
    tags[: len(drawn)] = [where for _, where in drawn]
    pictures = [picture for picture, _ in drawn] + plain[TAGGED:]
    carton = list(classifier.classes).index("carton")
    use = tuple(probability(classifier, some, carton) for some in (plain[:TAGGED], pictures[:TAGGED]))
    return Case(classifier, "carton", pictures, tags, use)


def squared(picture: Image.Image) -> NDArray[np.uint8]:
    side = min(picture.size)
    left, top = ((length - side) // 2 for length in picture.size)
    return np.asarray(picture.convert("RGB").crop((left, top, left + side, top + side)).resize((224, 224)))


def probability(classifier: Classifier, pictures: list[NDArray[np.uint8]], target: int) -> float:
    """Geometric mean of the target's probability."""
    x = torch.stack([classifier.image(Image.fromarray(picture)) for picture in pictures])
    with torch.no_grad():
        parts = [classifier.module(part).log_softmax(1)[:, target] for part in x.split(20)]
    return float(torch.cat(parts).mean().exp())


def audited(case: Case, method: str, seed: int) -> dict[str, Any]:
    """What each metric finds, on whole maps and, where it compares maps, on parts; the share of relevance on tags."""
    with tempfile.TemporaryDirectory() as folder:
        pictures = Path(folder) / "corpus" / case.target
        pictures.mkdir(parents=True)
        for i, picture in enumerate(case.pictures):
            Image.fromarray(picture).save(pictures / f"{i:04d}.png")
        found: dict[str, Any] = {}
        for parts in (False, True):
            chosen = tuple(metric for metric, compared in METRICS.items() if compared.part_input or not parts)
            settings = AuditSettings(
                model="object", data=str(Path(folder) / "corpus"), target=case.target, metric=chosen, batch=40,
                map_side=min(len(case.pictures[0]), 32), seed=seed, parts=parts, method=method,
            )  # fmt: skip
            audit = audit_inputs.Audit.of(settings, case.classifier)
            store = pipeline.open_run(audit, Path(folder) / f"run-{parts}")
            with store.lock():
                relevance_step.attribute(audit, store, workers=1, own=audit.classifier)
                found["share of relevance"] = on_tags(np.asarray(store.array("maps")[:]), case)
                for metric, work in pipeline.make_analyses(audit, store).items():
                    found[metric + (" parts" if parts else "")] = scores(work, case.tagged)
        return found


def on_tags(maps: NDArray[np.floating], case: Case) -> float:
    """Mean over tagged pictures of the share of positive relevance on the tag."""
    maps = maps.reshape(len(maps), *maps.shape[-2:])
    side, full = maps.shape[-1], case.tags.shape[-1]
    share = np.stack([np.asarray(Image.fromarray(255 * t.astype(np.uint8)).resize((side, side), Image.Resampling.BOX))
                      for t in case.tags]) / 255 if side != full else case.tags  # fmt: skip
    positive = np.maximum(maps, 0)
    return float(((positive * share).sum((1, 2)) / positive.sum((1, 2)).clip(1e-12))[case.tagged].mean())


def scores(work: Analysis, tagged: NDArray[np.bool_]) -> dict[str, float]:
    (group,) = (work.comparable(group) for group in work.groups)
    truth = tagged[group.rows]
    candidates = [f1(member, truth) for member in work.clustering(group).members]
    _, suspect = work.find_suspect(group)
    named = np.zeros(len(truth), bool)
    if suspect is not None:
        named[suspect.members] = True
    found = {"best": max(candidates, default=0.0), "named": f1(named, truth)}
    return found if work.by_parts else found | {"purity": purity(work, group, truth)}


def purity(work: Analysis, group: Any, truth: NDArray[np.bool_]) -> float:
    items = work.items(group)
    given = items if isinstance(items, PointMeasures) else clustering.normalise_rows(items, None)
    graph = neighbour_graph(given, METRICS[work.metric].distance, 10)
    return float(truth[graph.indices[truth]].mean())


def f1(found: NDArray[np.bool_], tags: NDArray[np.bool_]) -> float:
    return float(2 * (found & tags).sum() / max(found.sum() + tags.sum(), 1))


def cases(given: argparse.Namespace, seed: int) -> Iterator[tuple[str, Case]]:
    if given.corpus == "photographs":
        yield from ((pose, photographs(given.folder, pose, seed)) for pose in given.poses)
        return
    torch.manual_seed(seed)
    corpus = fashion_mnist(seed) if given.corpus == "fashion" else image_folder(given.folder, seed)
    base = taught(network(corpus.x.shape[1]), corpus.x, corpus.y, corpus.batch, 4, 4e-3)
    yield from ((pose, taught_a_hook(corpus, base, pose, seed)) for pose in given.poses)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", choices=("fashion", "folder", "photographs"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--poses", nargs="+", default=list(POSES), choices=POSES)
    parser.add_argument("--methods", nargs="+", default=["EpsilonPlusFlat", "EpsilonAlpha2Beta1"])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    results: Results = {(pose, method): [] for pose in given.poses for method in given.methods}
    for seed in given.seeds:
        for pose, case in cases(given, seed):
            for method in given.methods:
                results[pose, method].append({"use": case.use} | audited(case, method, seed))
                print(seed, pose, method, json.dumps(results[pose, method][-1]), flush=True)
            if given.json:
                given.json.write_text(json.dumps({" ".join(key): runs for key, runs in results.items()}, indent=1))
    table(results)


def table(results: Results) -> None:
    """Mean of the seeds, the least and the greatest, of best F1 and of the F1 that the audit names."""
    for (pose, method), runs in results.items():
        used = np.mean([run["use"] for run in runs], 0)
        share = np.mean([run["share of relevance"] for run in runs])
        print(
            f"\n{pose}, {method}: T without the tag {used[0]:.2g}, with it {used[1]:.2g}; relevance on tags {share:.2f}"
        )
        for metric in (name for name in runs[0] if isinstance(runs[0][name], dict)):
            line = f"  {metric:24}"
            for number in ("purity", "best", "named"):
                values = [run[metric][number] for run in runs if number in run[metric]]
                line += (
                    f"  {number} {np.mean(values):.2f} ({min(values):.2f}-{max(values):.2f})" if values else " " * 26
                )
            print(line)


if __name__ == "__main__":
    main()
