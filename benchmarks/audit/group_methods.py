"""Methods of others, on Squares, beside `squares.py`: DFR, GroupDRO, JTT, P-ClArC and RR-ClArC, which ask for groups,
and BNNR.

    python benchmarks/audit/squares.py --set symmetric asymmetric --seeds 102 --folder squares
    python benchmarks/audit/group_methods.py --set symmetric asymmetric --seed 102 --folder squares
    pip install bnnr
    python benchmarks/audit/group_methods.py --set symmetric --seed 102 --folder squares --bnnr standard icd

Each of the first five is written literally after its paper, with the network, optimizer and length of `squares.py`.
The first three are not tuned: a balanced set to tune on is what nobody has here. Both of ClArC are tried at four layers
and several strengths, and what is best in the worst group of the images to train on is measured. A group is a class and
a side. Sides are *named*, by `audit shortcuts` in the run that `squares.py` made, or *true*, or for JTT its *own*
errors. BNNR trains a network on
with augmentations, of which it keeps what validates best: those of *standard*, its default, or of *icd*, which mask
what its saliency maps show; all else is as it comes. A row is a method: average and worst group.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models

from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator, integer
from majority_sets import SETS, Drawn
from squares import BATCH, EPOCHS, Case, adamw, as_inputs, group_accuracies, path_in_folder

REFITS, L1 = 10, 1.0  # DFR: balanced draws whose heads are averaged, and the inverse strength of the penalty
STEP = 0.01  # GroupDRO: step of the weights of groups
LAYERS = ("layer1", "layer2", "layer3", "layer4")  # ClArC: at the output of these
STRENGTHS = (0.5, 1.0, 1.5, 2.0)  # P-ClArC: of the pattern that are taken off
PENALTIES, FINE_EPOCHS, FINE_RATE = (1.0, 10.0, 100.0), 3, 1e-4  # RR-ClArC
REPEATS, FIRST_EPOCHS = 50, 1  # JTT: copies of an error, and epochs of the network that makes the errors (CelebA)

Loss = Callable[[Tensor, Tensor, np.ndarray], Tensor]  # of logits, labels and rows


def fit(drawn: Drawn, seed: int, weights: np.ndarray, loss: Loss, epochs: int = EPOCHS["adamw"]) -> nn.Module:
    """Train a ResNet-18 from nothing on images drawn in proportion to weights (n,)."""
    torch.manual_seed(integer(seed, "squares network"))
    net = models.resnet18(num_classes=len(drawn.names)).to(memory_format=torch.channels_last)
    optimizer, rng = adamw(net), generator(seed, "weighted batches")
    x, y = as_inputs(drawn.images), torch.from_numpy(drawn.labels)
    for _ in range(epochs * (len(x) // BATCH)):
        rows = rng.choice(len(x), BATCH, p=weights / weights.sum())
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(x[rows])
        loss(logits.float(), y[rows], rows).backward()
        optimizer.step()
    return net.eval()


def mean_loss(logits: Tensor, labels: Tensor, rows: np.ndarray) -> Tensor:
    """Compute the mean cross entropy."""
    del rows
    return cross_entropy(logits, labels)


def balance(groups: np.ndarray) -> np.ndarray:
    """Weigh images (n,) so that every group is drawn as often."""
    return 1 / np.bincount(groups)[groups]


def group_dro(drawn: Drawn, groups: np.ndarray, seed: int) -> nn.Module:
    """Minimise the loss of the worst group online, group-balanced (Sagawa et al. 2020, algorithm 1)."""
    q = torch.ones(int(groups.max()) + 1) / (groups.max() + 1)

    def loss(logits: Tensor, labels: Tensor, rows: np.ndarray) -> Tensor:
        each, of = cross_entropy(logits, labels, reduction="none"), torch.from_numpy(groups[rows])
        means = torch.stack([each[of == g].mean() if (of == g).any() else each.sum() * 0 for g in range(len(q))])
        q.mul_(torch.exp(STEP * means.detach()))
        q.div_(q.sum())
        return (q.clone() * means).sum()

    return fit(drawn, seed, balance(groups), loss)


def just_train_twice(drawn: Drawn, errors: np.ndarray, seed: int) -> nn.Module:
    """Train on errors, bool (n,), as often as REPEATS copies of them (Liu et al. 2021, algorithm 1)."""
    return fit(drawn, seed, np.where(errors, REPEATS, 1.0), mean_loss)


def own_errors(drawn: Drawn, seed: int) -> np.ndarray:
    """Mark images, bool (n,), on which a network that was trained shortly is wrong."""
    net = fit(drawn, seed, np.ones(len(drawn.labels)), mean_loss, FIRST_EPOCHS)
    with torch.no_grad():
        says = np.concatenate([net(part).argmax(1).numpy() for part in as_inputs(drawn.images).split(64)])
    return np.asarray(says != drawn.labels)


@torch.no_grad()
def refit_head(net: nn.Module, drawn: Drawn, groups: np.ndarray, seed: int) -> nn.Module:
    """Fit the last layer again on balanced draws of groups, by sparse logistic regression, and average it (DFR,
    Kirichenko et al. 2023; on the images that trained the network, since no others have groups)."""
    head, net.fc = net.fc, nn.Identity()
    features = np.concatenate([net(part).numpy() for part in as_inputs(drawn.images).split(64)])
    middle, spread = features.mean(0), features.std(0) + 1e-6
    rng, fewest = generator(seed, "balanced draws"), np.bincount(groups)[np.unique(groups)].min()
    weights, offsets = [], []
    for _ in range(REFITS):
        rows = np.concatenate([rng.choice(np.flatnonzero(groups == g), fewest, False) for g in np.unique(groups)])
        model = LogisticRegression(C=L1, l1_ratio=1, solver="liblinear", random_state=0)
        model.fit((features[rows] - middle) / spread, drawn.labels[rows])
        weights.append(model.coef_[0])
        offsets.append(model.intercept_[0])
    direction = np.mean(weights, 0) / spread
    head.weight[:] = torch.tensor(np.stack([0 * direction, direction]))
    head.bias[:] = torch.tensor(np.array([0, np.mean(offsets) - direction @ middle]))
    net.fc = head
    return net


@dataclass(frozen=True)
class Pattern:
    """Difference of the sides of a class at the output of a layer, per channel.

    Attributes:
        direction: of length 1, float32 (C,).
        middle: mean of the group means, float32 (C,).
        strength: how many times the pattern is taken off.
    """

    direction: Tensor
    middle: Tensor
    strength: float = 1.0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """Take the pattern off activations (n, C, H, W), at each place (P-ClArC, Anders et al. 2022)."""
        del module, inputs
        amount = torch.einsum("nchw,c->nhw", out - self.middle[:, None, None], self.direction)
        return out - self.strength * amount[:, None] * self.direction[:, None, None]


@torch.no_grad()
def find_pattern(net: nn.Module, layer: str, drawn: Drawn) -> Pattern:
    """Find the pattern of the sides: the difference of means within each class, which is the pattern CAV of balanced
    groups (Pahde et al. 2022)."""
    outputs: list[Tensor] = []
    handle = net.get_submodule(layer).register_forward_hook(lambda *args: outputs.append(args[-1].mean((2, 3))))
    for part in as_inputs(drawn.images).split(64):
        net(part)
    handle.remove()
    features, group = torch.cat(outputs), 2 * drawn.labels + drawn.sides
    means = torch.stack([features[group == one].mean(0) for one in range(4)])
    direction = (means[1] - means[0]) + (means[3] - means[2])
    return Pattern(direction / direction.norm(), means.mean(0))


def best_of(tried: Iterator[nn.Module], drawn: Drawn) -> nn.Module:
    """Return the network that is best in the worst group of images."""
    return max(tried, key=lambda net: min(group_accuracies(net, drawn)))


def project_pattern(case: Case, drawn: Drawn) -> Iterator[nn.Module]:
    """Yield the network with the pattern taken off, at each layer and strength (P-ClArC)."""
    for layer in LAYERS:
        pattern = find_pattern(case.train(), layer, drawn)
        for strength in STRENGTHS:
            net = case.train()
            net.get_submodule(layer).register_forward_hook(replace(pattern, strength=strength))
            yield net


def penalise_pattern(case: Case, drawn: Drawn) -> Iterator[nn.Module]:
    """Yield the network trained on, with a penalty on the squared cosine of the pattern and the gradient of the
    difference of both outputs, at each layer and strength (RR-ClArC, Dreyer et al. 2024)."""
    x, y = as_inputs(drawn.images), torch.from_numpy(drawn.labels)
    for layer, penalty in product(LAYERS, PENALTIES):
        net, rng = case.train(), generator(case.seed, "penalised batches")
        pattern, outputs = find_pattern(net, layer, drawn).direction, {}
        net.get_submodule(layer).register_forward_hook(lambda *args, of=outputs: of.update(last=args[-1]))
        optimizer = torch.optim.AdamW(net.parameters(), FINE_RATE, weight_decay=1e-2)
        for _ in range(FINE_EPOCHS):
            for rows in np.array_split(rng.permutation(len(x)), len(x) // BATCH):
                logits = net(x[rows])
                difference = (logits[:, 1] - logits[:, 0]).sum()
                (slope,) = torch.autograd.grad(difference, outputs["last"], create_graph=True)
                angle = cosine_similarity(slope.sum((2, 3)), pattern[None])
                optimizer.zero_grad()
                (cross_entropy(logits, y[rows]) + penalty * angle.square().mean()).backward()
                optimizer.step()
        yield net


def read_named_sides(case: Case, drawn: Drawn) -> np.ndarray:
    """Read the sides that `audit shortcuts` told, int (n,)."""
    store, number = RunStore.open(case.place / "run"), {path: i for i, path in enumerate(drawn.paths)}
    paths, sides = store.texts("corpus", "path"), drawn.labels.copy()
    for row in store.table("places", "surroundings").to_pylist():
        sides[number[path_in_folder(paths[row["row"]])]] = row["side"]
    return sides


def train_on_by_bnnr(case: Case, drawn: Drawn, preset: str) -> nn.Module:
    """Train a network on by `bnnr.quick_run` with four fifths of the images, and the last fifth to validate."""
    import bnnr  # a peer, which only these rows need
    from bnnr.presets import get_preset

    x, y = as_inputs(drawn.images).contiguous(), torch.from_numpy(drawn.labels).long()
    order = generator(case.seed, "validation").permutation(len(y))
    known, kept = (
        TensorDataset(x[rows], y[rows], torch.from_numpy(rows)) for rows in np.split(order, [4 * len(y) // 5])
    )
    net, place = case.train().to(memory_format=torch.contiguous_format), case.place / f"bnnr-{preset}"
    last = [[one for one in net.modules() if isinstance(one, nn.Conv2d)][-1]]
    tried = get_preset(preset, model=net, target_layers=last)
    loaders = DataLoader(known, BATCH, shuffle=True), DataLoader(kept, BATCH)
    scale = {"denormalization_mean": [0.5] * 3, "denormalization_std": [0.5] * 3}  # of `as_inputs`
    folders = {"checkpoint_dir": place / "checkpoints", "report_dir": place / "reports"}
    bnnr.quick_run(net, *loaders, augmentations=tried, **folders, **scale)
    return net.eval()


def measure(case: Case) -> Iterator[tuple[str, list[float]]]:
    """Yield the accuracy of each group of test images under each method."""
    drawn, test = case.draw()
    sides = {"named": read_named_sides(case, drawn), "true": drawn.sides}
    if (sides["named"] == sides["true"]).all():
        sides = {"named and true": drawn.sides}
    groups = {kind: drawn.labels * len(drawn.names) + one for kind, one in sides.items()}
    for kind, one in groups.items():
        yield f"DFR, {kind} groups", group_accuracies(refit_head(case.train(), drawn, one, case.seed), test)
    for kind, one in groups.items():
        yield f"GroupDRO, {kind} groups", group_accuracies(group_dro(drawn, one, case.seed), test)
        odd = sides[kind] != drawn.labels
        yield f"JTT, {kind} exceptions", group_accuracies(just_train_twice(drawn, odd, case.seed), test)
    for kind, one in sides.items():
        told = replace(drawn, sides=one)
        yield f"P-ClArC, {kind} groups", group_accuracies(best_of(project_pattern(case, told), told), test)
        yield f"RR-ClArC, {kind} groups", group_accuracies(best_of(penalise_pattern(case, told), told), test)
    errors = own_errors(drawn, case.seed)
    found = f"JTT, its own {int(errors.sum())} errors, {int((errors & drawn.exceptional).sum())} exceptions among them"
    yield found, group_accuracies(just_train_twice(drawn, errors, case.seed), test)


def measure_bnnr(case: Case, presets: Sequence[str]) -> Iterator[tuple[str, list[float]]]:
    """Yield the accuracy of each group of test images before and after BNNR trained the network on."""
    drawn, test = case.draw()
    yield "as it is", group_accuracies(case.train(), test)
    for preset in presets:
        yield f"BNNR, {preset}", group_accuracies(train_on_by_bnnr(case, drawn, preset), test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=tuple(SETS)[:2], nargs="+", default=["symmetric"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("squares"))
    parser.add_argument("--bnnr", nargs="+", metavar="PRESET", help="only BNNR, with presets of its own")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for kind in given.set:
        case, rows = Case(kind, "adamw", given.seed, given.folder), {}
        for method, groups in measure_bnnr(case, given.bnnr) if given.bnnr else measure(case):
            rows[method] = groups
            (case.place / ("bnnr.json" if given.bnnr else "methods.json")).write_text(json.dumps(rows) + "\n")
            average, worst = 100 * np.mean(groups), 100 * min(groups)
            print(f"{kind}, {method}: average {average:.1f}, worst group {worst:.1f}", flush=True)


if __name__ == "__main__":
    main()
