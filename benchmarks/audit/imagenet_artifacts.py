"""Artifacts that several ImageNet networks share: marks put on photographs, all 1,000 classes, beyond any mark's rise.

    PYTHONPATH=NETWORKS python benchmarks/audit/imagenet_artifacts.py PHOTOGRAPHS --out OUT
    PYTHONPATH=NETWORKS python benchmarks/audit/imagenet_artifacts.py PHOTOGRAPHS --out OUT --figure FIGURE.png

PHOTOGRAPHS is a folder of photographs of many classes (500 of ImageNet here), NETWORKS a folder with a module
`networks`. One half of the photographs chooses, the other half confirms. Every mark of `imagenet_marks` is put on a few
photographs of the first half. The rise of a class is that of the logarithm of its probability, *beyond* what the middle
one of the random marks nearest in area does to that class on the same photograph. Of every group of marks the pairs of
a mark and a class that rise most by the second of the networks are measured once on the other half: the mean over
photographs, with intervals that hold for all pairs and networks together. Figures of every mark are written as they are
made; the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy import special, stats

sys.path.insert(0, str(Path(__file__).parent))
import imagenet_marks as marks
from carton import CARTON, label, square
from klarsicht.audit.explanation.models.classifier import Classifier, load_model
from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.ground.progress import track
from klarsicht.ground.seeding import generator

NETWORKS = {
    "SqueezeNet": "networks:squeezenet",
    "MobileNetV2": "networks:mobilenet",
    "EfficientNet-Lite0": "efficientnet-lite0",
}
NAMES_FROM = "EfficientNet-Lite0"  # whose outputs have names
SCREENED, CONFIRMED = slice(20), slice(100, 200)  # photographs of either half
CARTON_LOOKS = (
    "two rows of white Chinese characters", "two rows of black Chinese characters",
    "two rows of red Chinese characters",
    "two rows of faint white Chinese characters", "one row of white Chinese characters",
    "one column of white Chinese characters", "a page of white Chinese characters",
    "a small line of yellow Chinese characters", "two rows of white Katakana", "two rows of white Hangul",
    "two rows of white Latin capitals", "two rows of white digits", "two rows of white Arabic letters",
    "two rows of white Cyrillic letters",
)  # fmt: skip
"""Characters whose effect on "carton" is told one by one."""
RANDOM_MARKS, COMPARED = 24, 8  # drawn; the nearest in area, of which the middle one is taken
VISIBLE = 16  # grey levels by which a pixel changes that counts to a mark's area
OF_GROUP, OF_MARK, OF_CLASS = 8, 2, 2  # confirmed at most: of one group of marks, of one mark, of one class
FOREMOST = 10  # a class that is chosen is among so many that rise most under the mark
MATERIAL = np.log(2)  # least rise beyond random marks
LEVEL = 0.05  # of all intervals together


@dataclass(frozen=True)
class ColourOrder:
    """Puts RGB pixels into the channels that a network reads.

    Attributes:
        order: for each channel of the input, the colour that it holds.
    """

    scale: PixelScale
    order: tuple[int, ...]

    @classmethod
    def of(cls, classifier: Classifier) -> ColourOrder:
        """Find the order by transforming a red, a green and a blue picture."""
        scale = PixelScale.of(classifier)
        seen = []
        for colour in np.eye(3, dtype=np.uint8) * 255:
            picture = Image.fromarray(np.broadcast_to(colour, (256, 256, 3)).copy())
            seen.append(scale.levels(classifier.image(picture))[128, 128].argmax())
        return cls(scale, tuple(int(i) for i in np.argsort(seen)))

    def inputs(self, levels: Pixels) -> torch.Tensor:
        """Pixels uint8 (n, H, W, 3) as model inputs."""
        return self.scale.inputs(levels[..., self.order])


@dataclass(frozen=True)
class Network:
    classifier: Classifier
    colours: ColourOrder

    @classmethod
    def load(cls, name: str) -> Network:
        classifier = load_model(name)
        return cls(classifier, ColourOrder.of(classifier))

    def log_probabilities(self, levels: Pixels, batch: int = 20) -> Floats:
        """Logarithms of the probabilities of the 1,000 classes; a further output before them is left out."""
        some = (self.colours.inputs(levels[i : i + batch]) for i in range(0, len(levels), batch))
        with torch.no_grad():
            y = torch.cat([self.classifier.logits(x) for x in some])
        return np.asarray(special.log_softmax(y[:, -1000:].double().numpy(), 1), np.float32)


def halves(folder: Path) -> tuple[list[Path], list[Path]]:
    """Photographs that choose, and those that confirm."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
    order = np.random.default_rng(21).permutation(len(files))
    return [files[i] for i in order[: len(files) // 2]], [files[i] for i in order[len(files) // 2 :]]


def measure(
    networks: Mapping[str, Network], files: list[Path], some: Iterable[str], every: Mapping[str, marks.Mark], out: Path
) -> None:
    """Write the log-probabilities of photographs (networks, n, 1000) as they are and under each mark, and its area."""
    out.mkdir(parents=True, exist_ok=True)
    plain = np.stack([square(path) for path in files])
    asked = ["as it is", *some]
    for name in track(asked, len(asked), "marks"):
        file = out / f"{name.replace(' ', '_')}.npz"
        if file.exists():
            continue
        put = [x if name == asked[0] else every[name](x, generator(0, name, i)) for i, x in enumerate(plain)]
        changed = np.abs(np.stack(put).astype(int) - plain).max(3) > VISIBLE
        found = np.stack([one.log_probabilities(np.stack(put)) for one in networks.values()])
        part = file.with_suffix(".part.npz")
        np.savez(part, found=found.astype(np.float16), area=changed.mean())
        part.rename(file)


@dataclass(frozen=True)
class Measured:
    """Rises of the logarithm of each class's probability by each mark, (networks, n, 1000), and the marks' areas."""

    before: Floats
    rises: dict[str, Floats]
    area: dict[str, float]

    @classmethod
    def read(cls, out: Path) -> Measured:
        held = {file.stem.replace("_", " "): dict(np.load(file)) for file in sorted(out.glob("*.npz"))}
        before = held.pop("as it is")["found"].astype(np.float32)
        rises = {name: one["found"].astype(np.float32) - before for name, one in held.items()}
        return cls(before, rises, {name: float(one["area"]) for name, one in held.items()})

    def compared_with(self, name: str) -> list[str]:
        """The random marks nearest in area; a mark that changes the whole image, with random processing."""
        whole = [f"random {one}" for one in marks.WHOLE_IMAGE]
        others = [one for one in self.rises if one.startswith("random 0")]
        if marks.changes_whole_image(name):
            return [one for one in whole if one in self.rises]
        apart = [abs(np.log(max(self.area[one], 1e-3) / max(self.area[name], 1e-3))) for one in others]
        return [others[i] for i in np.argsort(apart)[:COMPARED]]

    def beyond(self, name: str) -> Floats:
        """Rises beyond the middle of the random marks, (networks, n, 1000)."""
        return self.rises[name] - np.median([self.rises[one] for one in self.compared_with(name)], 0)

    def probability(self, name: str) -> Floats:
        """Median probability of each class under a mark, (networks, 1000)."""
        return np.asarray(np.exp(np.median(self.before + self.rises[name], 1)))


@dataclass(frozen=True)
class Pair:
    """A mark and a class, and the mean rise beyond random marks by each network."""

    mark: str
    target: int
    beyond: tuple[float, ...]


def choose_pairs(seen: Measured, own: np.ndarray) -> list[Pair]:
    """The pairs that rise most by the second of the networks, of every group of marks, few of one mark and one class.

    By two networks the class is among the foremost under the mark, and rises for sure.

    Args:
        own: bool (n, 1000), photographs of the class itself, which do not count.
    """
    chosen: list[Pair] = []
    of_mark, of_class = Counter[str](), Counter[int]()
    for group, some in marks.GROUPS.items():
        found: list[Pair] = []
        for name in some:
            rise = seen.beyond(name)
            mean = np.ma.masked_array(rise, np.broadcast_to(own, rise.shape)).mean(1).filled(0)
            error = rise.std(1, ddof=1) / np.sqrt(rise.shape[1])
            sure = (mean - 2 * error > MATERIAL) & ((-mean).argsort(1).argsort(1) < FOREMOST)
            found += [Pair(name, int(i), tuple(map(float, mean[:, i]))) for i in np.flatnonzero(sure.sum(0) >= 2)]
        kept = 0
        for pair in sorted(found, key=lambda one: -np.median(one.beyond)):
            if of_mark[pair.mark] < OF_MARK and of_class[pair.target] < OF_CLASS and kept < OF_GROUP:
                chosen.append(pair)
                kept += 1
                of_mark[pair.mark] += 1
                of_class[pair.target] += 1
        told = f"{len(found)} pairs of a mark and a class by two networks or three, {kept} chosen"
        print(f"{group}: {len(some)} marks, {told}")
    return chosen


def confirm(pair: Pair, seen: Measured, own: np.ndarray, count: int, name: str) -> dict:
    """The figures of a pair on photographs that chose nothing; intervals hold for `count` pairs and all networks."""
    kept = ~own[:, pair.target]
    beyond, rises = (x[:, kept, pair.target] for x in (seen.beyond(pair.mark), seen.rises[pair.mark]))
    n = kept.sum()
    error = beyond.std(1, ddof=1) / np.sqrt(n)
    z = stats.t.ppf(1 - LEVEL / 2 / (count * len(NETWORKS)), n - 1)
    mean = beyond.mean(1)
    under = (seen.before + seen.rises[pair.mark])[:, kept]
    every = seen.beyond(pair.mark)[:, kept].mean(1)
    return {
        "mark": pair.mark,
        "class": name,
        "target": pair.target,
        "area": seen.area[pair.mark],
        "chosen by": list(pair.beyond),
        "beyond": mean.tolist(),
        "low": (mean - z * error).tolist(),
        "high": (mean + z * error).tolist(),
        "p": (2 * stats.t.sf(np.abs(mean / error), n - 1)).tolist(),
        "times": np.exp(np.median(rises, 1)).tolist(),
        "before": np.exp(np.median(seen.before[:, kept, pair.target], 1)).tolist(),
        "probability": np.exp(np.median(under[..., pair.target], 1)).tolist(),
        "rank": ((every > every[:, [pair.target]]).sum(1) + 1).tolist(),
        "first": (under.argmax(2) == pair.target).mean(1).tolist(),
        "first before": (seen.before[:, kept].argmax(2) == pair.target).mean(1).tolist(),
        "n": int(n),
        "shared": int((mean - z * error > MATERIAL).sum()),
    }


def neutral() -> Pixels:
    """A grey image that gets lighter downwards, for looking at marks."""
    return np.tile(np.linspace(90, 170, 224)[:, None, None], (1, 224, 3)).astype(np.uint8)


def draw_figure(found: list[dict], file: Path, columns: int = 6, side: int = 160) -> None:
    """The marks of findings on a neutral image, with what they are taken for."""
    by_mark: dict[str, list[str]] = {}
    for one in found:
        by_mark.setdefault(one["mark"], []).append(one["class"])
    height = side + 40
    sheet = Image.new("RGB", (columns * (side + 8), -(-len(by_mark) // columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (mark, classes) in enumerate(by_mark.items()):
        x, y = i % columns * (side + 8), i // columns * height
        picture = Image.fromarray(marks.CATALOGUE[mark](neutral(), generator(0, mark, 0)))
        sheet.paste(picture.resize((side, side), Image.Resampling.LANCZOS), (x, y))
        for j, line in enumerate(classes[:3]):
            draw.text((x, y + side + 1 + 12 * j), line[:28], fill="black")
    sheet.save(file)


def row(r: dict) -> str:
    def each(key: str, form: str) -> str:
        return ", ".join(format(v, form) for v in r[key])

    middle = zip(r["beyond"], r["low"], r["high"], strict=True)
    intervals = "; ".join(f"{m:+.1f} ({a:+.1f} to {b:+.1f})" for m, a, b in middle)
    first = ", ".join(f"{100 * v:.0f}" for v in r["first"])
    figures = (intervals, each("times", ".2g"), each("rank", "d"), first, str(r["shared"]))
    return f"| {r['mark']} | {r['class']} | {r['area']:.2f} | " + " | ".join(figures) + " |"


HEADER = (
    "mark", "class", "area", f"beyond random marks, nats (interval for all together): {'; '.join(NETWORKS)}",
    "times as probable", "rank of 1,000", "called so, %", "networks",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("imagenet-artifacts"))
    parser.add_argument("--figure", type=Path, help="the marks of confirmed findings on a neutral image")
    given = parser.parse_args()
    torch.set_num_threads(1)
    networks = {name: Network.load(model) for name, model in NETWORKS.items()}
    names = list(networks[NAMES_FROM].classifier.classes or ())
    controls = marks.random_marks(RANDOM_MARKS, 0) | marks.random_processing(0)
    every = marks.CATALOGUE | controls

    def of_own(files: list[Path]) -> np.ndarray:
        return np.array([[label(path) == name for name in names] for path in files])

    first, second = (files[some] for files, some in zip(halves(given.photographs), (SCREENED, CONFIRMED), strict=True))
    measure(networks, first, (*controls, *marks.CATALOGUE), every, given.out / "screened")
    screened = Measured.read(given.out / "screened")
    pairs = choose_pairs(screened, of_own(first))
    told = [asdict(one) | {"class": names[one.target]} for one in pairs]
    (given.out / "chosen.json").write_text(json.dumps(told, indent=1))
    asked = list(dict.fromkeys([*(one.mark for one in pairs), *CARTON_LOOKS]))
    needed = list(dict.fromkeys(c for name in asked for c in screened.compared_with(name)))
    measure(networks, second, (*asked, *needed), every, given.out / "confirmed")
    seen = replace(Measured.read(given.out / "confirmed"), area=screened.area)  # compared with the same random marks
    own = of_own(second)
    found = [confirm(one, seen, own, len(pairs), names[one.target]) for one in pairs]
    found.sort(key=lambda one: -np.median(one["beyond"]))
    target = names.index(CARTON)
    looks = [confirm(Pair(name, target, ()), seen, own, len(CARTON_LOOKS), CARTON) for name in CARTON_LOOKS]
    (given.out / "findings.json").write_text(json.dumps({"findings": found, "carton": looks}, indent=1))
    for some in (found, looks):
        print("| " + " | ".join(HEADER) + " |")
        print("|" + "---|" * len(HEADER))
        for one in some:
            print(row(one))
    print(f"{sum(one['shared'] >= 2 for one in found)} of {len(found)} hold by two networks or three, "
          f"{sum(one['shared'] == len(NETWORKS) for one in found)} by all")  # fmt: skip
    if given.figure:
        draw_figure([one for one in found if one["shared"] >= 2], given.figure)


if __name__ == "__main__":
    main()
