"""Content of other things that ImageNet classes lean on: is the group found that people found, and does it act?

    PYTHONPATH=NETWORKS python benchmarks/audit/content_groups.py PHOTOGRAPHS SHORTCUTS --out OUT
    PYTHONPATH=NETWORKS python benchmarks/audit/content_groups.py PHOTOGRAPHS SHORTCUTS --out OUT --page

PHOTOGRAPHS is a folder of photographs, one of each of 500 classes; SHORTCUTS one of crops with `features.csv` (path,
class, feature), four pictures of each of fifty shortcuts of classes, which show the feature without the object (Neuhaus
et al., Spurious Features Everywhere). The pile of a class are all photographs that are not of it, and all crops.

    found       the group of `audit content` has an F1 of 0.6 or more with the four pictures
    first n     the same of the first n pictures by the class's probability; three in twelve: three stand among these
    probe       of the twenty first, by the features less their mean, the three to eight that are tightest against the
                rest, times the root of their number, plus 0.4 of their mean log-probability
    called      p of the group and the interval of its effect on other pictures both hold
    removed     called in the pile without the four pictures of the class
    elsewhere   called in the photographs alone, for fifty classes of which no shortcut is among the fifty

Odd rows of features.csv's features chose the settings, even rows did not: both are printed. What was computed stays in
OUT, and the same command goes on where it was stopped; --seconds stops it. --page prints the content that any network
was found to lean on, from what is in OUT: of the four pictures those in the group, how many times as probable the class
becomes on other pictures, and the share that becomes it.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.forward import open_observer
from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.results.content_groups import ContentEffect, ContentGroup, ContentPicture
from klarsicht.audit.results.words import ContentKind
from klarsicht.audit.verdicts.content.acting_regions import LastGrid
from klarsicht.audit.verdicts.content.content_search import MOST_LIKED, PicturePile
from klarsicht.audit.verdicts.content.region_transfers import Trial, cut_region, frame_of, transfer_regions
from klarsicht.ground.seeding import generator
from klarsicht.numerics.clustering.tight_groups import centred_cosines, measure_tightness
from klarsicht.numerics.statistics.logits import EXCLUSIVE

NETWORKS = {"SqueezeNet": "squeezenet", "MobileNetV2": "mobilenet", "EfficientNet-Lite0": ""}  # functions of `networks`
LITE = "efficientnet-lite0"  # whose outputs have names
F1, SHOWN, OTHER_CLASSES, BATCH = 0.6, 32, 50, 20
PROBED, PROBE_SHARE = 20, 0.4
HALF = 0.5  # Jaccard index
KINDS = ("found", "removed", "elsewhere")


def named(network: str) -> Classifier:
    """A network; outputs before the 1,000 classes are its own."""
    if not NETWORKS[network]:
        return load_model(LITE)
    return load_model(getattr(importlib.import_module("networks"), NETWORKS[network])())


def label(path: Path) -> str:
    """The class of a photograph, as the networks name it."""
    return path.stem.partition("_")[2].replace("_", " ")


@dataclass(frozen=True)
class Shortcut:
    """A class, a feature that others found, and the numbers of its pictures in the pile."""

    name: str
    feature: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Pictures:
    """Photographs, then crops.

    Attributes:
        labels: of each; empty of crops.
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...]
    shortcuts: tuple[Shortcut, ...]

    @classmethod
    def read(cls, photographs: Path, crops: Path) -> Pictures:
        plain = sorted(path for path in photographs.iterdir() if path.suffix == ".JPEG")
        lines = list(csv.DictReader((crops / "features.csv").open()))
        rows: dict[tuple[str, str], list[int]] = {}
        for i, line in enumerate(lines):
            rows.setdefault((line["class"], line["feature"]), []).append(len(plain) + i)
        files = (*plain, *(crops / line["path"] for line in lines))
        labels = (*map(label, plain), *("" for _ in lines))
        return cls(files, labels, tuple(Shortcut(*key, tuple(some)) for key, some in rows.items()))

    @property
    def photographs(self) -> int:
        return sum(map(bool, self.labels))


@dataclass(frozen=True)
class Seen:
    """A network, its names, and what it says of all pictures."""

    network: str
    names: tuple[str, ...]
    pictures: Pictures
    pile: PicturePile

    @classmethod
    def of(cls, network: str, pictures: Pictures, out: Path) -> Seen:
        file = out / f"{network}.npz"
        names = tuple(load_model(LITE).classes or ())
        if not file.exists():
            classifier, parts = named(network), []
            images = [classifier.image(Image.open(path).convert("RGB")) for path in pictures.files]
            with open_observer(classifier) as observe:
                starts = range(0, len(images), BATCH)
                parts.extend(observe(torch.stack(images[i : i + BATCH])) for i in starts)
            logits, features = (np.concatenate([getattr(p, n) for p in parts]) for n in ("logits", "features"))
            np.savez(file, logits=logits[:, -len(names) :], features=features)
        held = np.load(file)
        return cls(network, names, pictures, PicturePile(held["logits"], held["features"]))

    @cached_property
    def classifier(self):
        return named(self.network)

    @cached_property
    def grid(self) -> LastGrid:
        return LastGrid.of(self.classifier)

    def read(self, rows) -> np.ndarray:
        images = [self.classifier.image(Image.open(self.pictures.files[i]).convert("RGB")) for i in rows]
        return np.stack([PixelScale.of(self.classifier).levels(image) for image in images])

    def predict(self, levels: np.ndarray) -> np.ndarray:
        with evaluation_mode(self.classifier.module), torch.no_grad():
            y = self.classifier.logits(PixelScale.of(self.classifier).inputs(levels))
        return y[:, -len(self.names) :].double().numpy()

    def others(self, name: str, without: tuple[int, ...] = (), crops: bool = True) -> np.ndarray:
        every = np.arange(len(self.pictures.files) if crops else self.pictures.photographs)
        own = [i for i, one in enumerate(self.pictures.labels) if one == name]
        return np.setdiff1d(every, [*own, *without])

    def group(self, name: str, others: np.ndarray) -> tuple[ContentGroup, np.ndarray, np.ndarray]:
        """The group of a class without its effect, the rows of its pictures, and their order by probability."""
        target = self.names.index(name)
        first = self.pile.order(target, others)[:MOST_LIKED]
        found = self.pile.find_group(target, first, others, generator(0, "content", target))
        assert found is not None
        by_p = others[np.argsort(-EXCLUSIVE.log_probability(self.pile.logits[others], target), kind="stable")]
        place = (0.0, 0.0, 1.0, 1.0)
        pictures = tuple(ContentPicture(self.pictures.files[i].name, "", int(i), 0.0, place) for i in found.rows)
        return ContentGroup(name, target, len(others), pictures, found.p, found.likings), found.rows, by_p

    def effect(self, group: ContentGroup, rows: np.ndarray, others: np.ndarray) -> tuple[ContentEffect, list]:
        rng, target = (
            generator(0, "effect", group.target),
            group.target + self.classifier.n_classes - len(self.names),
        )
        images = torch.stack([self.classifier.image(Image.open(self.pictures.files[i]).convert("RGB")) for i in rows])
        acting = self.grid.find_regions(self.classifier, images, (target,))[target]
        regions = np.stack([cut_region(one, images.shape[2:]) for one in acting.relevance])
        rest = np.setdiff1d(others, rows)
        free = rest[~EXCLUSIVE.predicts(self.pile.logits[rest], group.target)]
        own, control = transfer_regions(self.read, self.predict, rows, regions, Trial.draw(free, rest, SHOWN, rng))
        return ContentEffect.of_logits(own, control, group.target, EXCLUSIVE, rng), [
            frame_of(one, images.shape[2:]) for one in acting.relevance
        ]


def f1(rows, truth) -> float:
    return 2 * len({*map(int, rows)} & {*truth}) / (len(rows) + len(truth))


def probe(seen: Seen, target: int, by_p: np.ndarray) -> np.ndarray:
    """The ten-minute probe."""
    rows = by_p[:PROBED]
    alike = centred_cosines(seen.pile.features[rows], seen.pile.features[rows])
    liked = EXCLUSIVE.log_probability(seen.pile.logits[rows], target)
    best, found = -np.inf, rows[:3]
    for seed in range(PROBED):
        members = [seed]
        while len(members) < 8:
            rest = np.setdiff1d(np.arange(PROBED), members)
            members.append(int(rest[alike[np.ix_(rest, members)].mean(1).argmax()]))
            if (m := len(members)) >= 3:
                merit = measure_tightness(alike, np.array(members)) * m**0.5 + PROBE_SHARE * liked[members].mean()
                if merit > best:
                    best, found = merit, rows[members]
    return found


def questions(seen: Seen) -> Iterator[tuple[str, str, np.ndarray, tuple[int, ...], str]]:
    """Kind, class, pile, true pictures and feature of everything that is asked."""
    for one in seen.pictures.shortcuts:
        yield "found", one.name, seen.others(one.name), one.rows, one.feature
    for one in seen.pictures.shortcuts:
        yield "removed", one.name, seen.others(one.name, one.rows), (), one.feature
    free = sorted({*seen.names} - {one.name for one in seen.pictures.shortcuts})
    for name in generator(0, "elsewhere").permutation(free)[:OTHER_CLASSES]:
        yield "elsewhere", str(name), seen.others(str(name), crops=False), (), ""


def answer(seen: Seen, kind: str, name: str, others, truth, feature: str, with_effect: bool) -> dict:
    """One line of results; the effect is measured of all groups of shortcuts, and of others that stand out."""
    group, rows, by_p = seen.group(name, others)
    line = {
        "kind": kind,
        "class": name,
        "feature": feature,
        "p": group.p,
        "stands out": group.stands_out,
        "rows": rows.tolist(),
    }
    if truth:
        places = np.flatnonzero(np.isin(by_p, truth))
        line |= {"f1": f1(rows, truth), "probe": f1(probe(seen, group.target, by_p), truth), "places": places.tolist()}
        line |= {f"first {n}": f1(by_p[:n], truth) for n in (4, 6, 8)}
    if with_effect and (truth or group.stands_out):
        effect, places = seen.effect(group, rows, others)
        pictures = tuple(
            ContentPicture(one.path, "", one.row, 0.0, place) for one, place in zip(group.pictures, places, strict=True)
        )
        whole = replace(group, pictures=pictures, effect=effect)
        line |= {
            "kind of verdict": whole.kind.value,
            "said": whole.describe(),
            "times": float(np.exp(effect.rise.value)),
        }
        line |= {"low": effect.rise.low, "turned": effect.turned.value, "control": effect.turned_control.value}
    return line


def table(network: str, lines: list[dict]) -> Iterator[str]:
    for part, some in (("odd", slice(0, None, 2)), ("even", slice(1, None, 2)), ("all", slice(None))):
        own = [line for line in lines if line["kind"] == "found"][some]
        counts = [sum(line[key] >= F1 for line in own) for key in ("first 4", "first 6", "first 8", "probe", "f1")]
        twelve = sum(sorted(line["places"])[2] < 12 for line in own)
        called = [sum(line.get("kind of verdict") == ContentKind.RELIES for line in own)]
        counts = [*counts[:3], twelve, *counts[3:], *called]
        yield f"| {network} | {part} | {len(own)} | " + " | ".join(map(str, counts)) + " |"
    for kind in KINDS[1:]:
        own = [line for line in lines if line["kind"] == kind]
        called = sum(line.get("kind of verdict") == ContentKind.RELIES for line in own)
        tight = sum(line["stands out"] for line in own)
        yield f"{network}, {kind}: of {len(own)} classes {tight} have a group that stands out, {called} are called"


def page(every: dict[str, list[dict]]) -> Iterator[str]:
    """The content that any network leans on, a line each, that of most networks first."""
    known = {
        network: {(one["class"], one["feature"]): one for one in lines if one["kind"] == "found"}
        for network, lines in every.items()
    }
    leans = {
        key: [network for network, of in known.items() if of.get(key, {}).get("kind of verdict") == ContentKind.RELIES]
        for of in known.values()
        for key in of
    }
    right = {key: sum(known[network][key]["f1"] >= F1 for network in networks) for key, networks in leans.items()}
    yield "| class | content | " + " | ".join(every) + " |"
    yield "|---" * (2 + len(every)) + "|"
    for key in sorted(leans, key=lambda key: (-right[key], -len(leans[key]), key)):
        if leans[key]:
            cells = [_cell(of.get(key), network in leans[key]) for network, of in known.items()]
            yield f"| {key[0]} | {key[1]} | " + " | ".join(cells) + " |"
    for network, of in known.items():
        called = [one for one in of.values() if one.get("kind of verdict") == ContentKind.RELIES]
        agree = sum(one["f1"] >= F1 for one in called)
        yield f"{network}: {len(called)} of {len(of)} classes lean on content, {agree} of them on what others found"
    for a, b in combinations(known, 2):
        pairs = [
            (known[a][key]["rows"], known[b][key]["rows"]) for key, networks in leans.items() if {a, b} <= {*networks}
        ]
        half = sum(len({*x} & {*y}) >= HALF * len({*x} | {*y}) for x, y in pairs)
        yield f"{a} and {b}: both in {len(pairs)} classes, with half or more of the pictures in common in {half}"


def _cell(one: dict | None, leans: bool) -> str:
    if one is None or not leans:
        return ""
    # F1 of six pictures with four is 2 k / 10
    shown = round(one["f1"] * (len(one["rows"]) + 4) / 2)
    times = re.search(r"[\d,.]+ times \([^)]+\)", one["said"])
    return f"{shown} of 4; {times[0] if times else '-'}; {100 * one['turned']:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("shortcuts", type=Path)
    parser.add_argument("--out", type=Path, default=Path("content-groups"))
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--groups", action="store_true", help="no effects")
    parser.add_argument("--seconds", type=float, default=np.inf)
    parser.add_argument("--page", action="store_true", help="print what is in OUT")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if given.page:
        files = {network: given.out / f"{network}-effects.jsonl" for network in given.networks}
        print(
            "\n".join(
                page({name: list(map(json.loads, file.read_text().splitlines())) for name, file in files.items()})
            )
        )
        return
    began, pictures = time.monotonic(), Pictures.read(given.photographs, given.shortcuts)
    for network in given.networks:
        seen = Seen.of(network, pictures, given.out)
        file = given.out / f"{network}-{'groups' if given.groups else 'effects'}.jsonl"
        done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        for kind, name, others, truth, feature in list(questions(seen))[len(done) :]:
            if time.monotonic() - began > given.seconds:
                break
            done.append(answer(seen, kind, name, others, truth, feature, not given.groups))
            with file.open("a") as lines:
                lines.write(json.dumps(done[-1]) + "\n")
        print("\n".join(table(network, done)), flush=True)


if __name__ == "__main__":
    main()
