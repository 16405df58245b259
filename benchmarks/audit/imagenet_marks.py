"""Marks to put on photographs: what networks may have learned to take for a class, and random marks beside them.

`CATALOGUE` maps a description to a function (pixels uint8 (H, W, 3), rng) -> pixels: characters of several scripts and
layouts, stripes, frames, fields of one colour, grids, dots, and draws of the families of `audit plant`. What is written
and where it lies is drawn anew for every photograph. `random_marks` are what a mark of some area does whatever it
shows: a few shapes of random kinds and colours at random places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from klarsicht.audit.verdicts.synthetic import glyphs
from klarsicht.audit.verdicts.synthetic.families import FAMILIES
from klarsicht.audit.verdicts.synthetic.planted_image import Colour, composite, draw_opacity, random_colour
from klarsicht.ground.arrays import Floats, Pixels
from klarsicht.ground.seeding import generator

Mark = Callable[[Pixels, np.random.Generator], Pixels]

COLOURS: dict[str, Colour] = {
    "white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128), "red": (220, 20, 20),
    "orange": (255, 140, 0), "yellow": (250, 230, 30), "green": (30, 160, 40), "cyan": (30, 200, 220),
    "blue": (30, 50, 210), "violet": (130, 40, 180), "pink": (250, 150, 190), "brown": (120, 72, 30),
}  # fmt: skip
FONT = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
LETTERS = {
    "Latin capitals": "ABCDEFGHIJKLMNOPRSTUVWXYZ",
    "Latin small letters": "abcdefghijklmnoprstuvwxyz",
    "digits": "0123456789",
    "Cyrillic letters": "БГДЖЗИЛПФЦЧШЩЭЮЯ",
    "Greek letters": "ΓΔΘΛΞΠΣΦΨΩαβγδλμ",
    "Arabic letters": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "Hebrew letters": "אבגדהוזחטיכלמנסעפצקרשת",
    "Georgian letters": "აბგდევზთიკლმნოპჟრსტუფქღყშ",
}
_BOX = ((0, 0, 1, 0), (1, 0, 1, 1), (0, 0, 0, 1), (0, 1, 1, 1))
KATAKANA: tuple[glyphs.Strokes, ...] = (
    ((0.15, 0.25, 0.85, 0.25), (0, 0.8, 1, 0.8)),
    ((0.4, 0, 0.4, 1), (0.4, 0.4, 0.9, 0.65)),
    ((0.05, 0.3, 0.95, 0.3), (0.95, 0.3, 0.8, 1), (0.45, 0, 0.05, 1)),
    _BOX,
    ((0.1, 0.1, 0.9, 0.1), (0.9, 0.1, 0.9, 0.9), (0.1, 0.5, 0.9, 0.5), (0.1, 0.9, 0.9, 0.9)),
    ((0.1, 0.25, 0.85, 0.2), (0.05, 0.6, 0.95, 0.55), (0.45, 0, 0.6, 1)),
    ((0.1, 0, 0.1, 0.6), (0.9, 0, 0.9, 0.4), (0.9, 0.4, 0.5, 1)),
)
_CONSONANTS: tuple[glyphs.Strokes, ...] = (
    ((0, 0, 1, 0), (1, 0, 0.8, 1)), ((0, 0, 0, 1), (0, 1, 1, 1)), _BOX, ((0, 0, 1, 0), (0, 0, 0, 1), (0, 1, 1, 1)),
    ((0.5, 0, 0, 1), (0.5, 0, 1, 1)),
)  # fmt: skip
_VOWEL: glyphs.Strokes = ((0.75, 0, 0.75, 1), (0.75, 0.45, 1, 0.45))
HANGUL: tuple[glyphs.Strokes, ...] = tuple(
    (*((0.5 * a, 0.15 + 0.6 * b, 0.5 * c, 0.15 + 0.6 * d) for a, b, c, d in one), *_VOWEL) for one in _CONSONANTS
)
STROKES = {"Chinese characters": glyphs.GLYPHS, "Katakana": KATAKANA, "Hangul": HANGUL}
LAYOUTS = {  # rows, columns, side of a cell as a share of the image's side
    "two rows of": (2, 6, 0.155),
    "one row of": (1, 6, 0.155),
    "one column of": (6, 1, 0.155),
    "a page of": (9, 11, 0.088),
    "a small line of": (1, 8, 0.06),
}


def written(script: str, layout: str, colour: Colour, opacity: float = 1.0) -> Mark:
    """Characters of a script in rows and columns, drawn anew and placed anew on every photograph."""
    rows, columns, share = LAYOUTS[layout]

    def mark(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        side = pixels.shape[0]
        cell = share * side
        top, left = rng.uniform(0.01, 0.98 - share * rows), rng.uniform(0.01, 0.98 - share * columns)
        chosen = rng.integers(1 << 30, size=(rows, columns))

        def draw(canvas: ImageDraw.ImageDraw, scale: int) -> None:
            for (i, j), index in np.ndenumerate(chosen):
                x, y = scale * (left * side + j * cell), scale * (top * side + i * cell)
                _draw_character(canvas, script, int(index), x, y, 0.88 * cell * scale)

        return composite(pixels, opacity * draw_opacity(pixels.shape, draw, 2), colour).pixels

    return mark


def _draw_character(canvas: ImageDraw.ImageDraw, script: str, index: int, x: float, y: float, size: float) -> None:
    if script in STROKES:
        alphabet = STROKES[script]
        for a, b, c, d in alphabet[index % len(alphabet)]:
            ends = (x + a * size, y + b * size, x + c * size, y + d * size)
            canvas.line(ends, fill=255, width=max(1, round(0.07 * size)))
        return
    letters = LETTERS[script]
    canvas.text((x + size / 2, y + size / 2), letters[index % len(letters)], fill=255, anchor="mm",
                font=ImageFont.truetype(str(FONT), round(size)))  # fmt: skip


def painted(opacity: Callable[[int, np.random.Generator], Floats], colour: Colour) -> Mark:
    """A colour where an opacity (side, side), drawn for every photograph, says so."""
    return lambda pixels, rng: composite(pixels, opacity(pixels.shape[0], rng), colour).pixels


def _coordinates(side: int) -> tuple[Floats, Floats]:
    at = (np.arange(side, dtype=np.float32) + 0.5) / side
    return at[:, None], at[None, :]


def lines(angle: float, period: float, thickness: float) -> Callable[[int, np.random.Generator], Floats]:
    """Parallel lines at an angle (0: level), a period and a thickness as shares of the side; the phase is drawn."""

    def opacity(side: int, rng: np.random.Generator) -> Floats:
        y, x = _coordinates(side)
        across = math.cos(math.radians(angle)) * y + math.sin(math.radians(angle)) * x
        return np.asarray((across / period + rng.random()) % 1 < thickness / period, np.float32)

    return opacity


def crossed(angle: float, period: float, thickness: float) -> Callable[[int, np.random.Generator], Floats]:
    one, other = lines(angle, period, thickness), lines(angle + 90, period, thickness)
    return lambda side, rng: np.maximum(one(side, rng), other(side, rng))


def dots(period: float, radius: float, shifted: bool = False) -> Callable[[int, np.random.Generator], Floats]:
    """A lattice of discs; `shifted`: every second row by half a period."""

    def opacity(side: int, rng: np.random.Generator) -> Floats:
        y, x = _coordinates(side)
        v, u = y / period + rng.random(), x / period + rng.random()
        u = u + 0.5 * (np.floor(v) % 2) if shifted else u
        return np.asarray(np.hypot(v % 1 - 0.5, u % 1 - 0.5) * period < radius, np.float32)

    return opacity


def rings(period: float, thickness: float) -> Callable[[int, np.random.Generator], Floats]:
    def opacity(side: int, rng: np.random.Generator) -> Floats:
        y, x = _coordinates(side)
        cy, cx = rng.uniform(0.3, 0.7, 2)
        return np.asarray(np.hypot(y - cy, x - cx) / period % 1 < thickness / period, np.float32)

    return opacity


def chequers(period: float) -> Callable[[int, np.random.Generator], Floats]:
    def opacity(side: int, rng: np.random.Generator) -> Floats:
        y, x = _coordinates(side)
        v, u = np.floor(y / period + rng.random()), np.floor(x / period + rng.random())
        return np.asarray((v + u) % 2, np.float32)

    return opacity


def frame(width: float, sides: str = "tblr") -> Callable[[int, np.random.Generator], Floats]:
    """Bands along sides of the image (t, b, l, r), a share of the side wide."""

    def opacity(side: int, rng: np.random.Generator) -> Floats:
        y, x = _coordinates(side)
        near = {"t": y < width, "b": y > 1 - width, "l": x < width, "r": x > 1 - width}
        out = np.zeros((side, side), np.float32)
        for one in sides:
            out[np.broadcast_to(near[one], out.shape)] = 1
        return out

    return opacity


def disc_left(radius: float) -> Callable[[int, np.random.Generator], Floats]:
    """All but a disc in the middle, as seen through a tube."""

    def opacity(side: int, rng: np.random.Generator) -> Floats:
        y, x = _coordinates(side)
        return np.asarray(np.hypot(y - 0.5, x - 0.5) > radius, np.float32)

    return opacity


def rectangle(area: float, ratio: float = 1.0) -> Callable[[int, np.random.Generator], Floats]:
    """A rectangle of an area (a share), `ratio` times as wide as high, at a place that is drawn."""

    def opacity(side: int, rng: np.random.Generator) -> Floats:
        h, w = (max(1, round(side * math.sqrt(area * f))) for f in (1 / ratio, ratio))
        out = np.zeros((side, side), np.float32)
        top, left = rng.integers(side - h + 1), rng.integers(side - w + 1)
        out[top : top + h, left : left + w] = 1
        return out

    return opacity


def disc(radius: float, hole: float = 0.0) -> Callable[[int, np.random.Generator], Floats]:
    def opacity(side: int, rng: np.random.Generator) -> Floats:
        y, x = _coordinates(side)
        cy, cx = rng.uniform(radius, 1 - radius, 2)
        r = np.hypot(y - cy, x - cx)
        return np.asarray((r < radius) & (r >= hole), np.float32)

    return opacity


def several(opacity: Callable[[int, np.random.Generator], Floats], count: int):
    return lambda side, rng: np.max([opacity(side, rng) for _ in range(count)], 0)


def tinted(colour: Colour, strength: float) -> Mark:
    """Every pixel towards a colour: (1 - s) x + s x c / 255."""
    gain = (1 - strength) + strength * np.asarray(colour, np.float32) / 255
    return lambda pixels, rng: _rounded(pixels * gain)


def grey(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return np.repeat(np.asarray(Image.fromarray(pixels).convert("L"))[..., None], 3, 2)


def sepia(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return _rounded(grey(pixels, rng) * np.array([1.07, 0.86, 0.62]))


def negative(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return 255 - pixels


def thresholded(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    level = grey(pixels, rng)
    return np.where(level > np.median(level), 255, 0).astype(np.uint8)


def posterised(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    return (pixels // 64 * 85).astype(np.uint8)


def speckled(share: float) -> Mark:
    """Black and white pixels strewn over a share of the image."""

    def mark(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        hit = rng.random(pixels.shape[:2])[..., None] < share
        return np.where(hit, 255 * rng.integers(0, 2, (*pixels.shape[:2], 1)), pixels).astype(np.uint8)

    return mark


def noisy(deviation: float, coloured: bool) -> Mark:
    return lambda pixels, rng: _rounded(
        pixels + rng.normal(0, deviation, (*pixels.shape[:2], 3 if coloured else 1)).astype(np.float32)
    )


def mosaic(cells: int) -> Mark:
    """Shown in cells x cells squares."""

    def mark(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        small = Image.fromarray(pixels).resize((cells, cells), Image.Resampling.BOX)
        return np.asarray(small.resize(pixels.shape[1::-1], Image.Resampling.NEAREST))

    return mark


def halftone(period: float) -> Mark:
    """Black dots on white, the larger the darker the photograph is there."""

    def mark(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        side = pixels.shape[0]
        y, x = _coordinates(side)
        dark = 1 - grey(pixels, rng)[..., 0] / 255
        away = np.hypot(y / period % 1 - 0.5, x / period % 1 - 0.5)
        return np.repeat(np.where(away < 0.75 * np.sqrt(dark) * 0.8, 0, 255).astype(np.uint8)[..., None], 3, 2)

    return mark


def kaleidoscope(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """The left upper quarter, mirrored to the others."""
    h, w = (n // 2 for n in pixels.shape[:2])
    upper = np.concatenate([pixels[:h, :w], pixels[:h, :w][:, ::-1]], 1)
    return np.concatenate([upper, upper[::-1]], 0)


def tiled(times: int) -> Mark:
    """The photograph times x times, each as small."""

    def mark(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        side = pixels.shape[0]
        small = np.asarray(Image.fromarray(pixels).resize((-(-side // times),) * 2, Image.Resampling.BOX))
        return np.tile(small, (times, times, 1))[:side, :side]

    return mark


def shrunk(share: float, colour: Colour) -> Mark:
    """The photograph in the middle of a field of one colour, as on a page."""

    def mark(pixels: Pixels, rng: np.random.Generator) -> Pixels:
        side = pixels.shape[0]
        small = round(share * side)
        out = np.empty_like(pixels)
        out[...] = colour
        corner = (side - small) // 2
        out[corner : corner + small, corner : corner + small] = np.asarray(
            Image.fromarray(pixels).resize((small, small), Image.Resampling.BOX)
        )
        return out

    return mark


def of_family(name: str, draw: int) -> Mark:
    """The n-th draw of a family of `audit plant`."""
    artifact = FAMILIES[name](generator(draw, f"imagenet {name}"))
    return lambda pixels, rng: artifact(pixels, rng).pixels


def _rounded(values: Floats) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _characters() -> Iterator[tuple[str, Mark]]:
    for script in (*STROKES, *LETTERS):
        for layout in ("two rows of", "one column of"):
            yield f"{layout} white {script}", written(script, layout, COLOURS["white"])
    for script in ("Chinese characters", "Latin capitals", "digits", "Arabic letters"):
        for layout in ("one row of", "a page of"):
            yield f"{layout} white {script}", written(script, layout, COLOURS["white"])
        yield f"a page of black {script}", written(script, "a page of", COLOURS["black"])
    for script in ("Chinese characters", "Latin capitals", "digits"):
        yield f"two rows of black {script}", written(script, "two rows of", COLOURS["black"])
        yield f"a small line of yellow {script}", written(script, "a small line of", COLOURS["yellow"])
    for script in ("Chinese characters", "Latin capitals"):
        yield f"two rows of red {script}", written(script, "two rows of", COLOURS["red"])
        yield f"two rows of faint white {script}", written(script, "two rows of", COLOURS["white"], 0.4)


def _patterns() -> Iterator[tuple[str, Mark]]:
    for name in ("white", "black", "red", "blue", "yellow", "green"):
        yield f"one broad upright {name} stripe", painted(rectangle(0.12, 0.12), COLOURS[name])
    for name in ("white", "black", "red"):
        yield f"upright {name} bars", painted(lines(90, 0.09, 0.022), COLOURS[name])
        yield f"level {name} bars", painted(lines(0, 0.09, 0.022), COLOURS[name])
    for name in ("white", "black"):
        yield f"slanted {name} lines", painted(lines(45, 0.09, 0.022), COLOURS[name])
        yield f"fine level {name} lines", painted(lines(0, 0.03, 0.008), COLOURS[name])
        yield f"a {name} grid", painted(crossed(0, 0.12, 0.018), COLOURS[name])
        yield f"a fine {name} grid", painted(crossed(0, 0.04, 0.008), COLOURS[name])
        yield f"a slanted {name} grid", painted(crossed(45, 0.12, 0.018), COLOURS[name])
        yield f"{name} dots in rows", painted(dots(0.1, 0.028), COLOURS[name])
        yield f"small {name} dots, shifted", painted(dots(0.05, 0.014, True), COLOURS[name])
        yield f"{name} rings in each other", painted(rings(0.08, 0.02), COLOURS[name])
        yield f"ten {name} discs", painted(several(disc(0.05), 10), COLOURS[name])
        yield f"{name} chequers", painted(chequers(0.1), COLOURS[name])
    yield "large red dots, shifted", painted(dots(0.16, 0.045, True), COLOURS["red"])
    yield "yellow rings strewn", painted(several(disc(0.09, 0.06), 6), COLOURS["yellow"])


def _frames_and_fields() -> Iterator[tuple[str, Mark]]:
    for name in ("white", "black", "grey", "red", "blue", "brown", "yellow"):
        yield f"a {name} frame", painted(frame(0.1), COLOURS[name])
    for name in ("white", "black"):
        yield f"{name} bands above and below", painted(frame(0.16, "tb"), COLOURS[name])
        yield f"{name} bands left and right", painted(frame(0.16, "lr"), COLOURS[name])
        yield f"{name} all around a disc", painted(disc_left(0.46), COLOURS[name])
        yield f"shrunk to the middle of {name}", shrunk(0.55, COLOURS[name])
    yield "a blue band below", painted(frame(0.2, "b"), COLOURS["blue"])
    yield "a white band below", painted(frame(0.2, "b"), COLOURS["white"])
    for name in ("white", "black", "red", "yellow", "green", "cyan", "blue", "pink", "orange", "brown"):
        yield f"a {name} rectangle", painted(rectangle(0.1, 1.4), COLOURS[name])
    for name in ("white", "black", "red", "orange"):
        yield f"a {name} disc", painted(disc(0.17), COLOURS[name])
    yield "a white ring", painted(disc(0.3, 0.26), COLOURS["white"])


def _whole() -> Iterator[tuple[str, Mark]]:
    for name in ("red", "yellow", "green", "cyan", "blue", "violet", "pink", "brown"):
        yield f"a {name} tint", tinted(COLOURS[name], 0.6)
    yield from (("grey", grey), ("sepia", sepia), ("negative", negative), ("black and white alone", thresholded))
    yield from (("four levels a channel", posterised), ("mirrored to four quarters", kaleidoscope))
    yield from (("speckles on 5 %", speckled(0.05)), ("speckles on 20 %", speckled(0.2)))
    yield from (("grey noise", noisy(40, False)), ("coloured noise", noisy(40, True)))
    yield from (("a mosaic of 28 x 28", mosaic(28)), ("a mosaic of 14 x 14", mosaic(14)))
    yield from (("halftone", halftone(0.036)), ("tiled 2 x 2", tiled(2)), ("tiled 4 x 4", tiled(4)))


def _families() -> Iterator[tuple[str, Mark]]:
    drawn = {
        "random-tag": 2, "date-stamp": 2, "watermark": 3, "ruler": 3, "logo": 3, "flare": 2, "vignette": 1,
        "scratches": 2, "scan-lines": 3, "moire": 2, "defocus": 1, "motion-blur": 1, "jpeg": 1, "ringing": 1,
        "background": 3, "hair": 2, "flash": 1, "rounded-frame": 2,
    }  # fmt: skip
    for name, count in drawn.items():
        for draw in range(count):
            yield f"{name}, draw {draw}", of_family(name, draw)


GROUPS: dict[str, dict[str, Mark]] = {
    "characters": dict(_characters()),
    "patterns": dict(_patterns()),
    "frames and fields": dict(_frames_and_fields()),
    "whole images": dict(_whole()),
    "families": dict(_families()),
}
CATALOGUE: dict[str, Mark] = {name: mark for some in GROUPS.values() for name, mark in some.items()}
SPREAD = ("moire", "scan-lines", "defocus", "motion-blur", "jpeg", "ringing", "vignette", "flash", "watermark")
"""Families that change the whole image, as all of the group "whole images" do."""


def changes_whole_image(name: str) -> bool:
    """Whether a mark of the catalogue has no area of its own."""
    return name in GROUPS["whole images"] or name.partition(",")[0] in SPREAD


def _shapes(area: float, rng: np.random.Generator) -> Mark:
    """Shapes of one random kind, number and set of colours that cover about an area, at places drawn anew."""
    kind = ("rectangle", "ellipse", "triangle", "line", "noise")[rng.integers(5)]
    count, colours = int(rng.integers(1, 13)), [random_colour(rng) for _ in range(3)]

    def mark(pixels: Pixels, one: np.random.Generator) -> Pixels:
        side, out = pixels.shape[0], pixels
        covered = np.zeros(pixels.shape[:2], bool)
        for i in range(200):
            if covered.mean() >= area:
                break
            canvas = Image.new("L", (side, side), 0)
            _draw_shape(ImageDraw.Draw(canvas), kind, area / count, side, one)
            opacity = np.asarray(canvas, np.float32) / 255
            if kind == "noise":
                grains = one.integers(0, 256, pixels.shape).astype(np.uint8)
                out = np.where(opacity[..., None] > 0, grains, out)
            else:
                out = composite(out, opacity, colours[i % len(colours)]).pixels
            covered |= opacity > 0
        return np.asarray(out)

    return mark


def _draw_shape(draw: ImageDraw.ImageDraw, kind: str, area: float, side: int, rng: np.random.Generator) -> None:
    """A shape of about an area, a share of the image, white."""
    ratio = math.exp(rng.uniform(-0.8, 0.8))
    h, w = (side * math.sqrt(area * f) / 2 for f in (ratio, 1 / ratio))
    cy, cx = rng.uniform(0, side, 2)
    box = (cx - w, cy - h, cx + w, cy + h)
    if kind == "ellipse":
        draw.ellipse(box, fill=255)
    elif kind == "triangle":
        draw.polygon([(cx - 1.4 * w, cy + h), (cx + 1.4 * w, cy + h), (cx, cy - 1.4 * h)], fill=255)
    elif kind == "line":
        angle, long = rng.uniform(0, np.pi), rng.uniform(0.3, 0.9) * side
        dx, dy = math.cos(angle) * long / 2, math.sin(angle) * long / 2
        width = max(1, round(4 * h * w / long))
        draw.line((cx - dx, cy - dy, cx + dx, cy + dy), fill=255, width=width)
    else:
        draw.rectangle(box, fill=255)


def random_marks(count: int, seed: int) -> dict[str, Mark]:
    """Random marks whose areas are spread by logarithm from a fiftieth of the image to three fifths."""
    areas = np.exp(np.linspace(math.log(0.02), math.log(0.6), count))
    return {f"random {a:.3f}": _shapes(float(a), generator(seed, "random mark", i)) for i, a in enumerate(areas)}


WHOLE_IMAGE: Sequence[str] = (
    "grain", "hue", "white-balance", "gamma", "jpeg", "resampling", "scan-lines", "moire", "ringing", "motion-blur",
)  # fmt: skip


def random_processing(seed: int) -> dict[str, Mark]:
    """One random draw of each family that changes the whole image."""
    return {f"random {name}": of_family(name, 1000 + seed) for name in WHOLE_IMAGE}
