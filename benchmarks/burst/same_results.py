"""Results of two states of the sources, compared to the bit: before and after a change that must not change any.

    python benchmarks/burst/same_results.py make OUT [--exact] [--raw FILE --size 768x512]     # two CPU minutes
    python benchmarks/burst/same_results.py compare A B          # exits 1, naming every file that differs
    python benchmarks/burst/same_results.py compare A B --codes 1     # pictures alone, up to so many codes

Made are the outputs of `denoise`, `explain`, `check` and `calibrate` for bursts of Bayer frames (as RGB, as planes, in
tiles, with corrections of the lens), X-Trans frames, an exposure bracket, a turned camera, 16-bit TIFF and 8-bit PNG
files, all with shaken frames, a hot pixel and an object that moves; a set of synthetic bursts; scores of an evaluation
without their cost; and a network that was trained for a few steps. FILE: counts of a real sensor behind RGGB, 16 bits
each, from which a burst is cut. Compared are all files, byte by byte. Sums in another order change bfloat16 results by
up to some hundredths of the noise, and may tip a test of a window: changes up to rounding are compared with --exact
and --codes, codes of the files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import struct
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from skimage import data
from skimage.transform import rotate

from klarsicht.burst import train
from klarsicht.burst.denoising.denoise import denoise
from klarsicht.burst.denoising.explain import explain
from klarsicht.burst.denoising.held_out import check_held_out
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.burst.evaluation.comparison import evaluate_all
from klarsicht.burst.noise.calibration import calibrate
from klarsicht.burst.synthesis.export import write_set
from klarsicht.burst.synthesis.scenes import Geometry
from klarsicht.burst.training.training import TrainSettings
from klarsicht.ground.errors import InputError

X_TRANS = "GGRGGBGGBGGRBRGRBGGGBGGRGGRGGBRBGBRG"
BLACK, WHITE, READ, SHOT = 600, 16383, 0.01, 2e-3
SHIFTS = ((0, 0), (2, -4), (-6, 8), (4, 4), (-2, 0))
COST = {"cpu_s_per_mpx", "peak_mib"}


def scene_light(size: tuple[int, int], frame: int, turned: bool = False) -> np.ndarray:
    """Return linear light (H, W, 3) of a shaken frame, with a bright patch that moves."""
    picture = data.retina() / 255.0
    if turned:
        picture = rotate(picture, 0.25 * frame, order=3)
    y, x = (500 + shift for shift in SHIFTS[frame])
    light = picture[y : y + size[0], x : x + size[1]] ** 2.2
    light[40:72, 60 + 6 * frame : 92 + 6 * frame] = (0.5, 0.3, 0.2)
    return light


def add_noise(light: np.ndarray, seed: int) -> np.ndarray:
    z = np.random.default_rng(seed).standard_normal(light.shape)
    noisy = light + np.sqrt(READ**2 + SHOT * light) * z
    noisy[101, 151] = 0.9  # a hot pixel
    return noisy


def sample(light: np.ndarray, cell: str) -> np.ndarray:
    side = math.isqrt(len(cell))
    colours = np.array(["RGB".index(letter) for letter in cell]).reshape(side, side)
    y, x = np.indices(light.shape[:2])
    return np.take_along_axis(light, colours[y % side, x % side][..., None], 2)[..., 0]


def write_dng(path: Path, counts: np.ndarray, cell: str, extra: tuple = (), profile: bool = True) -> None:
    side = math.isqrt(len(cell))
    blacks = 2 if side == 2 else 1
    matrix = [n for v in (0.9, -0.3, -0.1, -0.5, 1.4, 0.1, -0.1, 0.3, 0.7) for n in (round(v * 10000), 10000)]
    tags = [
        (271, 2, 0, "Example", True), (272, 2, 0, "Example One", True), (34855, 3, 1, 400, True),
        (33421, 3, 2, (side, side), True), (33422, 1, side**2, bytes("RGB".index(c) for c in cell), True),
        (50706, 1, 4, bytes([1, 4, 0, 0]), True), (50708, 2, 0, "Example One", True),
        (50713, 3, 2, (blacks, blacks), True), (50714, 4, blacks**2, (BLACK,) * blacks**2, True),
        (50717, 4, 1, WHITE, True), (50721, 10, 9, matrix, True), (50728, 5, 3, (1, 2, 1, 1, 2, 3), True),
        (50778, 3, 1, 21, True), (274, 3, 1, 6, True), *extra,
    ]  # fmt: skip
    if profile:
        tags.append((51041, 12, 2, (SHOT, READ**2), True))
    values = counts.clip(0, WHITE).astype(np.uint16)
    tifffile.imwrite(path, values, photometric=32803, extratags=tags, metadata=None, rowsperstrip=16)


def lens_tags(size: tuple[int, int]) -> tuple:
    """Return OpcodeList2 with a gain map, and OpcodeList3 with a vignette and a warp."""
    area = (0, 0, *size, 0, 1, 1, 1, 2, 2)
    gain_map = struct.pack(">10I4dI4f", *area, 1.0, 1.0, 0.0, 0.0, 1, 1.0, 1.2, 1.1, 1.3)
    vignette = struct.pack(">7d", 0.2, 0.05, 0, 0, 0, 0.5, 0.5)
    warp = struct.pack(">I8d", 1, 1.0, -0.02, 0.01, 0, 0, 0, 0.5, 0.5)

    def pack(*opcodes: tuple[int, bytes]) -> bytes:
        parts = (struct.pack(">I4BII", number, 1, 3, 0, 0, 0, len(part)) + part for number, part in opcodes)
        return struct.pack(">I", len(opcodes)) + b"".join(parts)

    lists = {51009: pack((9, gain_map)), 51022: pack((3, vignette), (1, warp))}
    return tuple((tag, 7, len(part), part, True) for tag, part in lists.items())


def write_bursts(folder: Path, raw: np.ndarray | None) -> dict[str, dict]:
    """Write the bursts, and return the settings of each."""
    size = (160, 192)
    mosaics = {"bayer": ("RGGB", ()), "lens": ("GBRG", lens_tags(size)), "xtrans": (X_TRANS, ())}
    for name in (*mosaics, "turned", "bracket", "tiff", "png", "raw"):
        (folder / name).mkdir(parents=True)
    for k in range(len(SHIFTS)):
        light = scene_light(size, k)
        for name, (cell, extra) in mosaics.items():
            counts = add_noise(sample(light, cell), k) * (WHITE - BLACK) + BLACK
            write_dng(folder / name / f"{k}.dng", np.rint(counts), cell, extra)
        turned = add_noise(sample(scene_light((256, 320), k, turned=True), "RGGB"), k) * (WHITE - BLACK) + BLACK
        write_dng(folder / "turned" / f"{k}.dng", np.rint(turned), "RGGB")
        stops = (0, -2, 2, 0, 0)[k]
        bright = add_noise(sample(light, "RGGB") * 2.0**stops, k) * (WHITE - BLACK) + BLACK
        seconds = (33434, 5, 1, (2 ** (2 + stops), 100), True)
        write_dng(folder / "bracket" / f"{k}.dng", np.rint(bright), "RGGB", (seconds,))
        curve = np.clip(add_noise(light, k), 0, 1) ** (1 / 2.2)
        tifffile.imwrite(folder / "tiff" / f"{k}.tif", np.rint(curve * 65535).astype(np.uint16), photometric="rgb")
        Image.fromarray(np.rint(curve.mean(-1) * 255).astype(np.uint8)).save(folder / "png" / f"{k}.png")
        if raw is not None:
            y, x = (96 + shift for shift in SHIFTS[k])
            part = raw[y : y + 160, x : x + 192].astype(float)
            noise = np.random.default_rng(k).standard_normal(part.shape) * np.sqrt(400 + part / 8)
            write_dng(folder / "raw" / f"{k}.dng", np.rint(part + noise), "RGGB", profile=False)
    runs = {name: {} for name in ("bayer", "lens", "xtrans", "turned", "bracket", "tiff", "png")}
    runs |= {"bayer planes": {"bayer": "planes"}, "bayer strength": {"strength": 0.6, "keep_hot_pixels": True}}
    return runs | ({"raw": {}, "raw planes": {"bayer": "planes"}} if raw is not None else {})


def make(out: Path, raw: np.ndarray | None, exact: bool = False) -> None:
    bursts = out / "bursts"
    for name, chosen in write_bursts(bursts, raw).items():
        frames, settings = bursts / name.split()[0], DenoiseSettings(threads=1, exact=exact, **chosen)
        folder = out / name.replace(" ", "-")
        folder.mkdir()
        lines = list(denoise(frames, folder / "all", settings))
        for ending in ("tif", "png") if name == "lens" else ():
            lines += denoise(frames, folder / f"picture.{ending}", settings)
        if name in ("bayer", "png"):
            lines += explain([frames], folder / "explained", settings)
        if name in ("bayer", "xtrans", "turned", "tiff", "raw planes"):
            lines += calibrate([frames], folder / "noise.json", "Example One", 400)
            try:
                notes, verdict = check_held_out([frames], settings, out / "work" / name)
                lines += [*notes, *verdict.lines, repr(verdict)]
            except InputError as error:
                lines.append(str(error))
        said = "\n".join(lines).replace(str(out), "OUT")
        (folder / "lines.txt").write_text(said + "\n")
    photographs = out / "photographs"
    photographs.mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(photographs / f"{name}.png")
    small = Geometry(scale=2, height=64, width=96, reach=8)
    for name in ("mosaic-moving", "x-trans-shaken"):
        write_set(photographs, out / name, name=name, gains=[4], seed=3, geometry=small)
    for name in ("grey-moving", "mosaic-still", "bayer-shaken"):
        rows = ("single", "mean", "align+mean", "hdr+", "swift")
        record = evaluate_all(rows=rows, gains=(4,), name=name, exact=True).record
        text = json.dumps({key: without_cost(record[key]) for key in ("protocol", "rows", "absent")}, indent=1)
        (out / f"evaluation-{name}.json").write_text(text)
    for options in ({"preset": "bpn"}, {"colour": "rgb", "mosaics": ("bayer",)}):
        settings = TrainSettings(width=0.125, steps=2, batch=1, size=32, scale=2, every=2, **options)
        train(settings, photographs, out / f"{options.get('preset', 'swift')}.safetensors")


def without_cost(values: object) -> object:
    return {k: without_cost(v) for k, v in values.items() if k not in COST} if isinstance(values, dict) else values


def hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each file, without the state of trainings, which holds seconds."""
    files = [file for file in folder.rglob("*") if file.is_file() and ".run" not in str(file.parent)]
    files = [file for file in files if file.relative_to(folder).parts[0] not in ("bursts", "work")]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


PICTURES = {".dng", ".tif", ".png"}


def read_codes(file: Path) -> np.ndarray:
    """Return the codes of a picture; of a DNG those of its largest page, not of its preview."""
    if file.suffix == ".png":
        return np.asarray(Image.open(file)).astype(np.int64)
    with tifffile.TiffFile(file) as stored:
        pages = [stored.pages[0], *(stored.pages[0].pages or ())]
        return max(pages, key=lambda page: page.size).asarray().astype(np.int64)


def differing_codes(one: Path, other: Path, most: int) -> list[str]:
    """Name the pictures of two folders that differ by more codes than `most`, with the largest and the root mean square
    difference."""
    found = []
    for name in sorted({*hashes(one), *hashes(other)}):
        if Path(name).suffix not in PICTURES:
            continue
        if not ((one / name).is_file() and (other / name).is_file()):
            found.append(f"{name}: in one alone")
            continue
        off = np.abs(read_codes(one / name) - read_codes(other / name))
        if off.max() > most:
            found.append(f"{name}: at most {off.max()} codes, rms {np.sqrt(np.square(off).mean()):.3g}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("make", "compare"))
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--raw", type=Path)
    parser.add_argument("--size", default="768x512")
    parser.add_argument("--exact", action="store_true", help="networks in float32")
    parser.add_argument("--codes", type=int, help="of pictures that still count as equal; other files are not compared")
    options = parser.parse_args()
    if options.action == "make":
        width, height = map(int, options.size.split("x"))
        raw = None if options.raw is None else np.fromfile(options.raw, np.uint16).reshape(height, width)
        make(options.folders[0].resolve(), raw, options.exact)
        return
    if options.codes is not None:
        beyond = differing_codes(*options.folders, options.codes)
        print("\n".join(beyond) or f"no picture differs by more than {options.codes} codes")
        raise SystemExit(bool(beyond))
    one, other = map(hashes, options.folders)
    differing = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    print("\n".join(differing) or f"{len(one)} files are equal")
    raise SystemExit(bool(differing))


if __name__ == "__main__":
    main()
