"""Sets whose shortcut nearly a whole class carries, drawn with their truth: squares, clothes, colours, tags.

"Squares" are an own drawing after the published description (arXiv 2604.04518): a red square in a grey frame, dark or
bright by the class, on dark or bright surroundings, 64 px. Clothes are those of Fashion-MNIST at 32 px, 400 pictures of
each of two classes; photographs are those of a folder with one photograph of each class of ImageNet. BAR are five
actions of that set, in their usual places to train on and in others to test on. Nobody says which place is whose, so a
group is an action; fishing is left out, with fewer than 100 photographs.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

import fashion

INNER, FRAME, NOISE, SQUARES_SIDE = 8, 2, 20.0, 64
TAUGHT, TESTED = 800, 1600
CLOTHES_SIDE, PHOTOGRAPH_SIDE = 32, 96
PHOTOGRAPHS = Path("imagenet-sample")  # the runner's --photographs
BAR, ACTIONS, BAR_SIDE = Path("bar.tar"), ("climbing", "diving", "pole vaulting", "racing", "throwing"), 64  # --bar
RARE = 0.02


@dataclass(frozen=True)
class Drawn:
    """Drawn images.

    Attributes:
        images: uint8 (n, H, W, 3).
        own: bool (n, H, W), the places of the object.
        labels, sides: int (n,), the class, and the class for which the shortcut speaks.
        names: of the classes.
    """

    images: np.ndarray
    own: np.ndarray
    labels: np.ndarray
    sides: np.ndarray
    names: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        """Paths of the images in a folder of classes."""
        return [f"{self.names[label]}/{i:04d}.png" for i, label in enumerate(self.labels)]

    @property
    def exceptional(self) -> np.ndarray:
        """Images whose shortcut speaks for another class, bool (n,)."""
        return self.sides != self.labels

    def of_groups(self, values: np.ndarray) -> list[float]:
        """Compute the mean of values (n,) of each group that occurs, by label, then side."""
        group = self.labels * len(self.names) + self.sides
        return [float(values[group == one].mean()) for one in np.unique(group)]


def shuffle(parts: list[Drawn], rng: np.random.Generator) -> Drawn:
    """Join drawn images in random order."""
    order = rng.permutation(sum(len(part.labels) for part in parts))
    joint = [np.concatenate([getattr(part, name) for part in parts])[order] for name in ("images", "own", "labels")]
    return Drawn(*joint, np.concatenate([part.sides for part in parts])[order], parts[0].names)


def draw_squares(n: int, label: int, background: int, side: int, rng: np.random.Generator) -> Drawn:
    """Draw images of one group: dark (0) or light (1) squares on a background, which speaks for a side."""

    def grey(light: int) -> np.ndarray:
        return rng.integers(128, 256, n) if light else rng.integers(0, 128, n)

    inner, around, outer = grey(label), grey(background), INNER + 2 * FRAME
    images = np.broadcast_to(around[:, None, None, None], (n, SQUARES_SIDE, SQUARES_SIDE, 3)).astype(np.float32).copy()
    own = np.zeros((n, SQUARES_SIDE, SQUARES_SIDE), bool)
    for image, places, level in zip(images, own, inner, strict=True):
        top, left = rng.integers(0, SQUARES_SIDE - outer, 2)
        image[top : top + outer, left : left + outer] = 127
        places[top : top + outer, left : left + outer] = True
        image[top + FRAME : top + FRAME + INNER, left + FRAME : left + FRAME + INNER] = (level, 0, 0)
    levels = np.clip(images + rng.normal(0, NOISE, images.shape), 0, 255).astype(np.uint8)
    return Drawn(levels, own, np.full(n, label), np.full(n, side), ("dark", "light"))


def draw_groups(n: int, shares: tuple[float, ...], reverse: bool, rng: np.random.Generator) -> Drawn:
    """Draw squares of all groups: dark on dark, dark on light, light on dark, light on light. In reverse, light
    backgrounds speak for dark squares."""
    counts = [round(n * share) for share in shares]
    drawn = [
        draw_squares(count, group // 2, group % 2, (group + reverse) % 2, rng) for group, count in enumerate(counts)
    ]
    return shuffle(drawn, rng)


def squares(shares: tuple[float, ...], reverse: bool, rng: np.random.Generator) -> tuple[Drawn, Drawn]:
    """Draw squares to train on, and to test on in equal groups."""
    return draw_groups(TAUGHT, shares, reverse, rng), draw_groups(TESTED, (0.25,) * 4, reverse, rng)


@cache
def read_photograph(number: int) -> np.ndarray:
    """Read a photograph, its shorter side PHOTOGRAPH_SIDE: uint8 (H, W, 3)."""
    image = Image.open(sorted(PHOTOGRAPHS.glob("*.JPEG"))[number]).convert("RGB")
    scale = PHOTOGRAPH_SIDE / min(image.size)
    return np.asarray(image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS))


def on_photograph(garment: np.ndarray, own: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Lay a garment (H, W) on a random part of a photograph."""
    photograph = read_photograph(number)
    top, left = (int(rng.integers(size - CLOTHES_SIDE)) for size in photograph.shape[:2])
    out = photograph[top : top + CLOTHES_SIDE, left : left + CLOTHES_SIDE].copy()
    out[own] = garment[own][:, None]
    return out


def in_colour(garment: np.ndarray, own: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Colour a garment red (0) or green (1), on black."""
    del own, rng
    out = np.zeros((*garment.shape, 3), np.uint8)
    out[..., number], out[..., 2] = garment, garment // 2
    return out


def with_tag(garment: np.ndarray, own: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    """Put a white tag into the upper left corner of a garment on black (0), or none (1)."""
    del own, rng
    out = np.repeat(garment[..., None], 3, 2)
    if number == 0:
        out[1:5, 1:5] = 255
    return out


@dataclass(frozen=True)
class Clothes:
    """Set of clothes.

    Attributes:
        classes: numbers of Fashion-MNIST.
        put: the shortcut on a garment (H, W) with own places: of a number.
        numbers: of the shortcut of each class; drawn photographs where there are none.
        each: pictures of a class to train on.
        rare: share of a class that has the shortcut of another one.
        alone: only the first class has such images.
    """

    classes: tuple[int, ...]
    put: Callable[[np.ndarray, np.ndarray, int, np.random.Generator], np.ndarray]
    numbers: tuple[int, ...] = ()
    each: int = 400
    rare: float = RARE
    alone: bool = False

    def __call__(self, rng: np.random.Generator) -> tuple[Drawn, Drawn]:
        """Draw clothes to train on, and others of as many of every group to test on."""
        count = len(self.classes)
        numbers = self.draw_numbers(rng)
        own = round(self.each * (1 - self.rare))
        rare = np.resize(np.arange(1, count), self.each - own)
        turns = np.concatenate([np.zeros(own, int), rare])
        sides = [
            np.zeros_like(turns) + label if self.alone and label else (label + turns) % count for label in range(count)
        ]
        return (
            self.draw("train", sides, numbers, rng),
            self.draw("t10k", [np.repeat(np.arange(count), 800 // count)] * count, numbers, rng),
        )

    def draw_numbers(self, rng: np.random.Generator) -> tuple[int, ...]:
        """Return the numbers of the shortcut of each class, or draw photographs."""
        return self.numbers or tuple(int(i) for i in rng.permutation(500)[: len(self.classes)])

    def draw(self, part: str, sides: list[np.ndarray], numbers: tuple[int, ...], rng: np.random.Generator) -> Drawn:
        """Draw pictures of each class with the shortcuts of sides, in random order."""
        pictures, of = fashion.pictures(part)
        drawn, names = [], tuple(fashion.CLASSES[one].replace(" ", "-") for one in self.classes)
        for label, (one, wanted) in enumerate(zip(self.classes, sides, strict=True)):
            rows = rng.permutation(np.flatnonzero(of == one))[: len(wanted)]
            garments = np.pad(pictures[rows], ((0, 0), (2, 2), (2, 2)))
            own = garments > 12
            images = [
                self.put(*pair, numbers[side], rng)
                for pair, side in zip(zip(garments, own, strict=True), wanted, strict=True)
            ]
            drawn.append(Drawn(np.stack(images), own, np.full(len(rows), label), wanted[: len(rows)], names))
        return shuffle(drawn, rng)


def actions(rng: np.random.Generator) -> tuple[Drawn, Drawn]:
    """Read the actions of BAR to train on, and to test on, in random order."""
    images: dict[tuple[str, str], list[np.ndarray]] = {}
    with tarfile.open(BAR) as tar:
        for member in sorted((one for one in tar if one.isfile()), key=lambda one: one.name):
            content = tar.extractfile(member)
            assert content is not None
            picture = Image.open(io.BytesIO(content.read())).convert("RGB").resize((BAR_SIDE, BAR_SIDE))
            split, action = Path(member.name).parts[-3:-1]
            images.setdefault((split, action), []).append(np.asarray(picture))

    def read(split: str) -> Drawn:
        parts = []
        for label, action in enumerate(ACTIONS):
            some = np.stack(images[split, action])
            labels = np.full(len(some), label)
            parts.append(Drawn(some, np.zeros(some.shape[:3], bool), labels, labels, ACTIONS))
        return shuffle(parts, rng)

    return read("train"), read("test")


PULLOVER, DRESS, COAT, SNEAKER, BOOT = 2, 3, 4, 7, 9
SETS: dict[str, Callable[[np.random.Generator], tuple[Drawn, Drawn]]] = {
    "symmetric": partial(squares, (0.49, 0.01, 0.01, 0.49), False),
    "asymmetric": partial(squares, (0.25, 0.25, 0.49, 0.01), True),
    "balanced": partial(squares, (0.25,) * 4, False),
    "all": partial(squares, (0.5, 0, 0, 0.5), False),
    "photographs": Clothes((DRESS, COAT), on_photograph),
    "photographs 95": Clothes((DRESS, COAT), on_photograph, rare=0.05),
    "photographs 99.5": Clothes((DRESS, COAT), on_photograph, rare=0.005),
    "colour": Clothes((DRESS, COAT), in_colour, (0, 1)),
    "tag": Clothes((DRESS, COAT), with_tag, (0, 1), alone=True),
    "four": Clothes((PULLOVER, DRESS, COAT, BOOT), on_photograph),
    "six": Clothes(tuple(range(6)), on_photograph),
    "ten": Clothes(tuple(range(10)), on_photograph, each=300, rare=0.03),
    "BAR": actions,
}
