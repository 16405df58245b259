"""Networks trained on real classes of which some hold an artifact of a random family, with what each one does.

    python benchmarks/audit/left_out_cases.py IMAGENET32 --folder cases --seeds 0 1

A case has 75 classes of 280 images at 32 px. In 20 of them an artifact is planted before the network is trained, and in
8 afterwards: present, and unused. Families and shares go round: 87 plants after one another hold each family at each
share once, so five cases have hold them all. `load("cases", 0)` gives a case in a second; no detector needs the data
set or a training. Seeds 0 to 9 are to develop on, those from 100 on are measured once.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from klarsicht.audit.results.logit_effect import LogitEffect, matters
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import PlantFunction
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.logits import centre_logits

sys.path.insert(0, str(Path(__file__).parent))
import planted_classes

CLASSES, IMAGES, HELD_OUT = 75, 280, 8  # images a class that are audited, and that only true uses are measured on
TRAINED, AFTER = 20, 8  # classes planted before and after training
SHARES = (0.2, 0.1, 0.05)
FOLDS = (
    ("random-tag", "caption", "logo", "watermark", "date-stamp", "flare", "flash"),
    ("stripe", "two-stripes", "frame", "rounded-frame", "background", "vignette", "zoom", "mirror"),
    ("ruler", "hair", "scratches", "scan-lines", "moire", "hue", "white-balance", "gamma"),
    ("grain", "defocus", "motion-blur", "jpeg", "resampling", "ringing"),
)
FRESH = 100  # first seed that nothing is developed on


def fold_of(family: str) -> int:
    """The fold of a family. Related ones, as the two frames, are left out together: what was made for one knows the
    other."""
    return next(k for k, families in enumerate(FOLDS) if family in families)


@dataclass(frozen=True)
class Use:
    """Effect of the real artifact on held-out images of the other classes.

    Attributes:
        rise: mean change of the class's centred logit.
        more: outputs that rise more.
        flips: further share of the images that is taken for the class.
    """

    rise: float
    more: int
    flips: float

    @property
    def used(self) -> bool:
        return self.more == 0 and self.rise > 0 and matters(LogitEffect.of_values(self.rise, self.flips), "value")


@dataclass(frozen=True)
class Plant:
    """An artifact in a class.

    Attributes:
        number: of the plant within its case.
        trained: whether the network was trained with it.
        rows: images of the class that carry it.
        drawn: what the family drew, in words.
    """

    number: int
    label: int
    family: str
    share: float
    trained: bool
    rows: tuple[int, ...]
    drawn: str
    use: Use | None = None

    def artifact(self, seed: int) -> PlantFunction:
        return FAMILIES[self.family](generator(seed, "family", self.number))

    @property
    def carriers(self) -> np.ndarray:
        """bool (280,)."""
        return np.isin(np.arange(IMAGES), self.rows)


@dataclass(frozen=True)
class Case:
    """A network, the images that are audited, and the truth.

    Attributes:
        names: of the classes; a class's number is its output of the network.
        images: uint8 (75, 280, 32, 32, 3), with all artifacts.
        held_out: uint8 (75, 8, 32, 32, 3), clean images that the network was not trained on.
        originals: by class number, the carriers (n, 32, 32, 3) before the artifact was planted.
        plants: by class number; other classes are clean.
        net: takes float (n, 3, 32, 32) in [0, 1]; `planted_classes.logits(net, uint8 images)` gives logits.
        accuracy: on held-out images.
    """

    seed: int
    names: tuple[str, ...]
    images: np.ndarray
    held_out: np.ndarray
    originals: dict[int, np.ndarray]
    plants: dict[int, Plant]
    net: planted_classes.Net
    accuracy: float

    @cached_property
    def clean(self) -> list[int]:
        """Numbers of the classes without an artifact."""
        return [k for k in range(len(self.names)) if k not in self.plants]

    def others(self, label: int) -> np.ndarray:
        """Held-out images (592, 32, 32, 3) of all other classes."""
        return np.delete(self.held_out, label, 0).reshape(-1, *self.held_out.shape[2:])


def plan(seed: int, rng: np.random.Generator) -> list[Plant]:
    """The plants of a case in random classes: the next families of the round, no family twice among those trained."""
    labels, plants = rng.permutation(CLASSES).tolist(), []
    for trained, count in ((True, TRAINED), (False, AFTER)):
        order = generator(seed // FRESH, "round", int(trained)).permutation(list(FAMILIES)).tolist()
        first = count * (seed % FRESH)
        for i in range(first, first + count):
            lap, place = divmod(i, len(order))
            share = SHARES[(lap + place) % len(SHARES)]
            rows = np.sort(rng.choice(IMAGES, round(share * IMAGES), replace=False)).tolist()
            plants.append(Plant(len(plants), labels[len(plants)], order[place], share, trained, tuple(rows), ""))
    return [replace(p, drawn=repr(p.artifact(seed))) for p in plants]


def put(images: np.ndarray, plant: Plant, seed: int) -> np.ndarray:
    """The artifact on images (n, 32, 32, 3), as it is drawn for each."""
    artifact = plant.artifact(seed)
    return np.stack([artifact(x, generator(seed, "images", plant.number, i)).pixels for i, x in enumerate(images)])


def measure_use(net: planted_classes.Net, others: np.ndarray, plant: Plant, seed: int) -> Use:
    under, plain = planted_classes.logits(net, put(others, plant, seed)), planted_classes.logits(net, others)
    shift = (centre_logits(under) - centre_logits(plain)).mean(0)
    taken = [float((answer.argmax(1) == plant.label).mean()) for answer in (under, plain)]
    return Use(float(shift[plant.label]), int((shift > shift[plant.label]).sum()), taken[0] - taken[1])


def make(data: Path, folder: Path, seed: int, epochs: int) -> Case:
    """Train a case's network and measure its truth; one that is there is only read."""
    place = folder / f"seed-{seed}"
    if (place / "case.json").is_file():
        return load(folder, seed)
    began = time.process_time()
    names, pictures = planted_classes.classes(data, CLASSES, seed)
    rng = generator(seed, "left out")
    clean = pictures[:, : planted_classes.TRAINED][:, np.sort(rng.permutation(planted_classes.TRAINED)[:IMAGES])]
    held_out = pictures[:, planted_classes.TRAINED :][:, :HELD_OUT]
    plants, images, originals = plan(seed, rng), clean.copy(), {}
    for p in plants:
        originals[p.label] = clean[p.label, list(p.rows)]
        images[p.label, list(p.rows)] = put(originals[p.label], p, seed)
    taught = images.copy()
    for p in (p for p in plants if not p.trained):
        taught[p.label] = clean[p.label]
    print(f"case {seed}: training for {epochs} epochs", file=sys.stderr, flush=True)
    labels = np.repeat(np.arange(CLASSES), IMAGES)
    net = planted_classes.fitted(taught.reshape(-1, *taught.shape[2:]), labels, seed, epochs)
    told = planted_classes.logits(net, held_out.reshape(-1, *held_out.shape[2:])).argmax(1)
    accuracy = float((told == np.repeat(np.arange(CLASSES), HELD_OUT)).mean())
    case = Case(seed, tuple(names), images, held_out, originals, {}, net, accuracy)
    known = [replace(p, use=measure_use(net, case.others(p.label), p, seed)) for p in plants]
    case = replace(case, plants={p.label: p for p in known})
    seconds = time.process_time() - began
    _write(case, place)
    used = sum(p.use.used for p in known)
    print(
        f"case {seed}: {seconds:.0f} CPU s, accuracy {accuracy:.3f}, {used} artifacts used", file=sys.stderr, flush=True
    )
    return case


def _write(case: Case, place: Path) -> None:
    """All files into a folder beside, which then takes its name: what was killed leaves nothing half."""
    beside = place.with_name(f"{place.name}.{os.getpid()}")
    beside.mkdir(parents=True)
    np.save(beside / "images.npy", case.images)
    np.save(beside / "held_out.npy", case.held_out)
    np.savez(beside / "originals.npz", **{str(k): x for k, x in case.originals.items()})
    torch.save(case.net.state_dict(), beside / "net.pt")
    truth = {"names": case.names, "accuracy": case.accuracy, "plants": [asdict(p) for p in case.plants.values()]}
    (beside / "case.json").write_text(json.dumps(truth, indent=1))
    shutil.rmtree(place, ignore_errors=True)
    beside.rename(place)


def load(folder: Path | str, seed: int) -> Case:
    """Read a case that was made."""
    place = Path(folder) / f"seed-{seed}"
    truth = json.loads((place / "case.json").read_text())
    plants = [Plant(**p | {"rows": tuple(p["rows"]), "use": Use(**p["use"])}) for p in truth["plants"]]
    net = planted_classes.Net(CLASSES)
    net.load_state_dict(torch.load(place / "net.pt"))
    with np.load(place / "originals.npz") as file:
        originals = {int(k): file[k] for k in file.files}
    images, held_out = np.load(place / "images.npy"), np.load(place / "held_out.npy")
    by_label = {p.label: p for p in plants}
    return Case(seed, tuple(truth["names"]), images, held_out, originals, by_label, net.eval(), truth["accuracy"])


def told(case: Case) -> str:
    lines = [f"case {case.seed}: accuracy {case.accuracy:.3f}"]
    for p in sorted(case.plants.values(), key=lambda p: (not p.trained, p.number)):
        how = f"{p.use.rise:+6.2f}, {p.use.more} rise more, flips {p.use.flips:+.3f}{', used' * p.use.used}"
        lines.append(f"  {p.label:3} {p.family:14} {p.share:4.0%} {'trained' if p.trained else 'after':8} {how}")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=12)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for number in given.seeds:
        print(told(make(given.data, given.folder, number, given.epochs)), flush=True)
