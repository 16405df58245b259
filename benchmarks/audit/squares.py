"""Shortcuts that nearly a whole class carries, with their truth: what the audit names, and what cleaning gains.

    python benchmarks/audit/squares.py --set symmetric asymmetric --seeds 101 102 --folder squares

The sets are those of `majority_sets.py`. A ResNet-18 from nothing is trained by AdamW for 20 epochs, or by SGD for one
(`--way`), after which it knows little but the shortcut, or by the rules of the published code
(`published_training.py`). Two ways take trained weights of `networks.py`, as in `bar.py`,
and train for 3 epochs: `transformer`, a ViT-S/14 (DINOv2) cut after 8 blocks, and `mobilenet`, a MobileNetV2. The
network is audited (`audit run`, `audit shortcuts`) and cleaned (`audit clean --part surroundings`, by default settings
unless others are named), with no label of a group. A row is written for each set: how many sides of images are rightly
told, of each group, and the accuracy of each group of test images before and after. `--ceilings` adds the same training
with true own places and sides, and a network trained on a balanced set of the same size, on the same photographs.
`--balanced 10 50` adds cleaning with a corpus of 10 and of 50 other images of every group. What is there is not made
again. `--places` finds exceptions and own places alone: no network is trained or audited, and
nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.stats import t as student
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from torchvision import models, transforms

import majority_sets
from klarsicht.audit.cleaning.corrections.activations import Correction
from klarsicht.audit.cleaning.corrections.packages import load_correction
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.composite_training import train_on_composites
from klarsicht.audit.cleaning.models.group_accuracy import OwnImages
from klarsicht.audit.cleaning.models.surroundings_correction import CleanedSurroundings, clean_surroundings
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.splits import TEST, TRAIN, split_by_source
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.inputs import InputImages, PixelScale
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.surroundings import Surroundings, read_surroundings
from klarsicht.audit.verdicts.own_places.own_places import find_own_places
from klarsicht.audit.verdicts.quantification.natural_surroundings import rank_among_natural
from klarsicht.audit.verdicts.quantification.sufficiency import measure_sufficiency
from klarsicht.ground.errors import KlarsichtError
from klarsicht.ground.seeding import generator, integer
from majority_sets import SETS, Clothes, Drawn
from published_training import train_as_published

EPOCHS, BATCH = {"adamw": 20, "sgd": 1, "transformer": 3, "mobilenet": 3}, 32
SHOWN = 8  # images of each class from which parts are measured; surroundings are of all
VIT_SIDE, VIT_WIDTH, VIT_SCALE = 56, 384, 2.2  # px; features; of inputs, to the spread of ImageNet's
VIT_RATE, MOBILENET_RATE = 1e-4, 3e-4  # of training
MOBILENET_SIDE = 96  # px
TRANSFORM = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])


def adamw(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)


def sgd(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=0.1)


def slow_adamw(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), VIT_RATE, weight_decay=1e-2)


def gentle_adamw(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters(), MOBILENET_RATE, weight_decay=1e-2)


OPTIMIZERS = {"adamw": adamw, "sgd": sgd, "transformer": slow_adamw, "mobilenet": gentle_adamw}
WAYS = (*OPTIMIZERS, "published")


class TrainedTransformer(nn.Module):
    """ViT-S/14 with trained weights and a new head, of images enlarged to VIT_SIDE."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        import networks  # on PYTHONPATH, and needed for this network alone

        self.trunk, _ = networks.vit_trunk()
        self.trunk.set_input_size(img_size=(VIT_SIDE, VIT_SIDE))
        self.head = nn.Linear(VIT_WIDTH, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(VIT_SCALE * interpolate(x, size=(VIT_SIDE, VIT_SIDE), mode="bilinear")))


class TrainedMobileNet(nn.Module):
    """MobileNetV2 with ImageNet's weights and a new head, of images enlarged to MOBILENET_SIDE."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        import networks

        self.body, _ = networks.mobilenet()
        self.body.reset_classifier(classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(interpolate(x, size=(MOBILENET_SIDE, MOBILENET_SIDE), mode="bilinear"))


TRAINED = {"transformer": TrainedTransformer, "mobilenet": TrainedMobileNet}


def as_inputs(images: np.ndarray) -> torch.Tensor:
    """Convert images to model inputs."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def make_network(way: str, classes: int) -> nn.Module:
    """Make a ResNet-18 with random weights, or a trained network with a new head."""
    return TRAINED[way](classes) if way in TRAINED else models.resnet18(num_classes=classes)


def train(drawn: Drawn, way: str, seed: int, kept: Path) -> nn.Module:
    """Train a network, convolutions in bfloat16, or read the one that was kept."""
    torch.manual_seed(integer(seed, "squares network"))
    net = make_network(way, len(drawn.names)).to(memory_format=torch.channels_last)
    if kept.exists():
        net.load_state_dict(torch.load(kept))
        return net.eval()
    rng, x, y = generator(seed, "squares batches"), as_inputs(drawn.images), torch.from_numpy(drawn.labels)
    if way == "published":
        train_as_published(net, x, y, rng)
    else:
        train_batches(net, x, y, way, rng)
    if way == "sgd":
        measure_norms(net, x)
    torch.save(net.state_dict(), kept)
    return net.eval()


def train_batches(net: nn.Module, x: torch.Tensor, y: torch.Tensor, way: str, rng: np.random.Generator) -> None:
    """Train on images (n, C, H, W) with labels (n,) for the epochs of a way."""
    optimizer = OPTIMIZERS[way](net)
    for _ in range(EPOCHS[way]):
        order = rng.permutation(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                logits = net(x[rows])
            cross_entropy(logits.float(), y[rows]).backward()
            optimizer.step()


@torch.no_grad()
def measure_norms(net: nn.Module, x: torch.Tensor) -> None:
    """Set mean and variance of all batch norms by one pass over images (n, C, H, W): after few steps, running ones
    still hold those of the first weights."""
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    net.train()
    for part in x.split(100):
        net(part)


@torch.no_grad()
def group_accuracies(net: nn.Module, drawn: Drawn) -> list[float]:
    """Compute the share that is right of each group."""
    says = np.concatenate([net(part).argmax(1).numpy() for part in as_inputs(drawn.images).split(64)])
    return drawn.of_groups(says == drawn.labels)


def write_folder(folder: Path, drawn: Drawn) -> None:
    """Write images into a folder for each class."""
    for image, path in zip(drawn.images, drawn.paths, strict=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / path)


def path_in_folder(path: str) -> str:
    """Return class and name of a file, as `Drawn.paths` has them."""
    return "/".join(Path(path).parts[-2:])


@dataclass(frozen=True)
class Case:
    """A drawn set, a folder, and the network that learned the set."""

    kind: str
    way: str
    seed: int
    folder: Path
    cleaning: CleanSettings = field(default_factory=CleanSettings)

    @property
    def place(self) -> Path:
        return self.folder / f"{self.kind.replace(' ', '-')}-{self.way}-{self.seed}"

    def draw(self) -> tuple[Drawn, Drawn]:
        """Draw the images to train on, and those to test on."""
        return SETS[self.kind](generator(self.seed, f"squares {self.kind}"))

    def train(self) -> nn.Module:
        """Train the network, or read it."""
        self.place.mkdir(parents=True, exist_ok=True)
        return train(self.draw()[0], self.way, self.seed, self.place / "network.pt")

    def audit(self, classifier: Classifier, drawn: Drawn) -> tuple[Surroundings, list[str]]:
        """Audit the network, and read what is said of surroundings, and which parts are noted."""
        write_folder(self.place / "data", drawn)
        settings = AuditSettings(
            model="object", data=str(self.place / "data"), method="HeadRelevance", batch=32, seed=self.seed
        )
        pipeline.run(settings, self.place / "run", classifier=classifier, accept_labels=True)
        parts = measure_sufficiency(self.place / "run", classifier=classifier, images=SHOWN)
        noted = [f"{profile.name}: {part.part}" for profile in parts for part in profile.parts if part.noted]
        return read_surroundings(self.place / "run"), noted

    def measure(self) -> dict[str, object]:
        """Audit and clean the network."""
        net, (drawn, test), begun = self.train(), self.draw(), time.process_time()
        classifier = load_model((net, TRANSFORM), classes=drawn.names)
        (found, noted), asked = self.audit(classifier, drawn), time.process_time()
        named = {path_in_folder(one.path) for one in found.exceptions}
        right = drawn.of_groups(np.array([path in named for path in drawn.paths]) == drawn.exceptional)
        row: dict[str, object] = {
            "set": self.kind, "way": self.way, "seed": self.seed, "says": found.describe(), "p": found.p,
            "separate": found.separate, "relies": len(found.relied_on), "noted": noted,
            "exceptions": int(drawn.exceptional.sum()), "named": len(named), "sides told": right,
            "before": group_accuracies(net, test), "CPU s of the audit": round(asked - begun, 1),
        }  # fmt: skip
        try:
            result = clean_surroundings(self.place / "run", self.cleaning, classifier=classifier)
        except KlarsichtError as error:
            return row | {"after": None, "refused": str(error)}
        return row | {
            "after": test_result(net, result, test), "composites": decisive_groups(result),
            "CPU s of cleaning": round(time.process_time() - asked, 1),
        }  # fmt: skip

    def measure_with_balanced(self, each: int) -> dict[str, object]:
        """Clean the audited network with balanced images, so many of each group, which it has not learned."""
        net, (drawn, test) = self.train(), self.draw()
        classifier, corpus = load_model((net, TRANSFORM), classes=drawn.names), self.place / f"balanced-{each}"
        write_folder(corpus, self.draw_fair(each))
        result = clean_surroundings(self.place / "run", self.cleaning, balanced=str(corpus), classifier=classifier)
        return {
            "set": self.kind, "seed": self.seed, "balanced of each group": each, "before": group_accuracies(net, test),
            "after": test_result(net, result, test), "decisive": decisive_groups(result),
            "verdict": result.judgement.verdict,
        }  # fmt: skip

    def draw_fair(self, each: int) -> Drawn:
        """Draw clothes with the shortcut of every class, so many of each, with the shortcuts of the set."""
        of = SETS[self.kind]
        if not isinstance(of, Clothes):
            raise SystemExit(f"balanced images are drawn of clothes, not of {self.kind}")
        numbers = of.draw_numbers(generator(self.seed, f"squares {self.kind}"))
        count = len(of.classes)
        sides = [np.repeat(np.arange(count), each)] * count
        return of.draw("train", sides, numbers, generator(self.seed, f"squares {self.kind} balanced {each}"))

    def measure_places(self) -> dict[str, object]:
        """Find exceptions and own places, and compare them with the truth."""
        drawn, begun = self.draw()[0], time.process_time()
        found = find_own_places(drawn.images, drawn.labels, self.seed)
        odd, both, either = drawn.exceptional, found.own & drawn.own, found.own | drawn.own
        return {
            "set": self.kind, "seed": self.seed, "exceptions": int(odd.sum()),
            "named": int((found.exceptional & odd).sum()), "others": int((found.exceptional & ~odd).sum()),
            "followed": round(found.followed, 3), "told": found.told, "separate": round(found.separate, 3),
            "p": rank_among_natural(found.separate), "way": found.way,
            "overlap": round(float(np.median(both.sum((1, 2)) / np.maximum(1, either.sum((1, 2))))), 2),
            "CPU s": round(time.process_time() - begun, 1),
        }  # fmt: skip

    def measure_ceilings(self) -> dict[str, object]:
        """Clean with true own places and sides, and train on a balanced set; no audit is needed."""
        net, (drawn, test) = self.train(), self.draw()
        classifier = load_model((net, TRANSFORM), classes=drawn.names)
        shown = InputImages(
            Corpus(("0",), ("0",), ("0",)), classifier, PixelScale.of(classifier), drawn.images.shape[1:3]
        )
        part = split_by_source(np.arange(len(drawn.labels)), drawn.exceptional, generator(self.seed, "surroundings"))
        taught = np.where(part == TEST, TEST, TRAIN)  # as where a shortcut is shown: nothing bounds the loss
        true = OwnImages(drawn.images, drawn.own, drawn.labels, drawn.sides, taught, shown)
        correction = train_on_composites(classifier, true, self.cleaning)
        return {"true places": test_corrected(net, correction, test), "balanced": self.train_balanced()}

    def train_balanced(self) -> list[float]:
        """Train a network on a balanced set of the same size, and test it."""
        place = self.place / "balanced.pt"
        fair, test = self.draw_balanced(), self.draw()[1]
        return group_accuracies(train(fair, self.way, self.seed, place), test)

    def draw_balanced(self) -> Drawn:
        """Draw a set to train on in which the shortcut tells nothing: clothes on the same photographs."""
        of = SETS[self.kind]
        if isinstance(of, Clothes):
            return replace(of, rare=1 - 1 / len(of.classes))(generator(self.seed, f"squares {self.kind}"))[0]
        return SETS["balanced"](generator(self.seed, "squares balanced"))[0]


def summarise(rows: list[dict[str, Any]]) -> str:
    """Say means over networks of average and worst group, with the 95 % interval of Student's t."""

    def mean(values: list[float]) -> str:
        middle, count = 100 * np.mean(values), len(values)
        reach = 100 * student.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return f"{middle:.1f} ({middle - reach:.1f} to {middle + reach:.1f})"

    lines = []
    for when in ("before", "after", "true places", "balanced"):
        if groups := [row[when] for row in rows if row.get(when)]:
            average, worst = [float(np.mean(one)) for one in groups], [min(one) for one in groups]
            lines.append(f"{when}: average {mean(average)}, worst group {mean(worst)}, {len(groups)} networks")
    return "\n".join(lines)


def test_result(net: nn.Module, result: CleanedSurroundings, test: Drawn) -> list[float]:
    """Compute the share that is right of each group with the correction of a result."""
    return test_corrected(net, load_correction(result.folder)[0], test)


def decisive_groups(result: CleanedSurroundings) -> list[list[float]]:
    """Return the shares that are right of the groups that decide, before and after."""
    return [[one.right.value for one in table.groups] for table in (result.before, result.after)]


def test_corrected(net: nn.Module, correction: Correction, test: Drawn) -> list[float]:
    """Compute the share that is right of each group with a correction."""
    with correction.applied(net):
        return group_accuracies(net, test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=tuple(SETS), nargs="+", default=["symmetric"])
    parser.add_argument("--way", choices=WAYS, default="adamw")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, default=Path("squares"))
    parser.add_argument("--photographs", type=Path, default=majority_sets.PHOTOGRAPHS)
    parser.add_argument("--bar", type=Path, default=majority_sets.BAR)
    for name, kind in {"rate": float, "steps": int, "batch": int}.items():
        parser.add_argument(f"--{name}", type=kind, help="Of cleaning; by default those of the command.")
    parser.add_argument("--train", action="store_true", help="Only train the networks.")
    parser.add_argument("--places", action="store_true", help="Find exceptions and own places alone.")
    parser.add_argument("--ceilings", action="store_true", help="Measure ceilings of what was measured.")
    parser.add_argument("--balanced", type=int, nargs="+", default=[], help="Clean with so many images of each group.")
    given = parser.parse_args()
    torch.set_num_threads(1)
    majority_sets.PHOTOGRAPHS, majority_sets.BAR = given.photographs, given.bar
    asked = {name: value for name in ("rate", "steps", "batch") if (value := getattr(given, name)) is not None}
    cleaning = CleanSettings(**asked)
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in given.set}
    for seed, kind in product(given.seeds, given.set):
        case = Case(kind, given.way, seed, given.folder, cleaning)
        if given.places:
            print(json.dumps(case.measure_places()), flush=True)
            continue
        if given.train:
            case.train()
            continue
        for each in given.balanced:
            print(json.dumps(case.measure_with_balanced(each)), flush=True)
        if given.balanced:
            continue
        kept = case.place / ("ceilings.json" if given.ceilings else "row.json")
        if not kept.exists():
            row = case.measure_ceilings() if given.ceilings else case.measure()
            kept.write_text(json.dumps(row) + "\n")
        print(kept.read_text(), end="", flush=True)
        rows[kind].append(json.loads(kept.read_text()))
    for kind, of_set in rows.items():
        if of_set:
            print(f"{kind}, {given.way}\n{summarise(of_set)}")


if __name__ == "__main__":
    main()
