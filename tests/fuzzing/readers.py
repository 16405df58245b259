"""Readers of foreign files, each with sound files to damage: pictures of both wings, raw frames and their opcode lists,
manifests, settings, run folders, corrections, weights.

`Target.strike` writes a mutant in place of one file, reads it, and puts the sound file back. A reader may return, or
raise a KlarsichtError; anything else is a fault.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import torch
from PIL import Image
from tests.audit.conftest import network, write_corpus
from tests.audit.shortcut import FACTS
from tests.burst.conftest import write_dng
from tests.burst.files.test_linear_dng import codes_of
from tests.burst.files.test_linear_dng import write as write_linear_dng
from tests.burst.opcodes import gain_map, packed, tag, vignette, warp
from tests.fuzzing.mutators import Rng, mutate
from tests.vouched_files import vouched

from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data.class_names import read_class_map
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.report import page
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.status import read_progress
from klarsicht.audit.results import ranking
from klarsicht.burst.data.frame_store import FrameStore
from klarsicht.burst.data.lens_corrections import LISTS, read_corrections
from klarsicht.burst.data.photograph import Header, ReadSettings, Sensor
from klarsicht.burst.files import dng, reading
from klarsicht.burst.network.checkpoints import load_network, save_network
from klarsicht.burst.network.unet import NetworkSettings, build_network
from klarsicht.burst.noise import sources
from klarsicht.burst.training.training import TrainSettings
from klarsicht.ground import fit
from klarsicht.ground.errors import ImageError, KlarsichtError
from klarsicht.ground.pictures.array_images import ArrayForm, read_array
from klarsicht.ground.pictures.images import decode
from klarsicht.ground.pictures.tiff_tags import UNDEFINED, Entry, Tags
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.erasure import Eraser
from klarsicht.numerics.imaging.sensor_noise import NoiseLevel


@dataclass(frozen=True)
class Target:
    """A reader with the files that may be damaged. name: of the kind. files: the sound files. read: reads the damaged
    one."""

    name: str
    files: tuple[Path, ...]
    read: Callable[[Path], Any]

    def strike(self, rng: Rng) -> Fault | None:
        """Damage one file, read it, and put it back. Returns the fault, if it was one."""
        file = self.files[int(rng.integers(len(self.files)))]
        sound = file.read_bytes()
        mutant = mutate(sound, rng)
        file.write_bytes(mutant)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.read(file)
        except KlarsichtError as error:
            return None if str(error) else Fault(self.name, file, mutant, error)
        except Exception as error:
            return Fault(self.name, file, mutant, error)
        finally:
            file.write_bytes(sound)
        return None


@dataclass(frozen=True)
class Fault:
    """A mutant that a reader answered with anything but a KlarsichtError."""

    target: str
    file: Path
    mutant: bytes
    error: Exception


def targets(folder: Path) -> list[Target]:
    """Write the sound files into a folder and return all targets, whose kinds are mutated equally often."""
    made = (
        *(pictures, arrays, photographs, raw_frames, opcode_lists, manifests),
        *(settings, run_folders, corrections, weights),
    )
    return [Target(one.__name__, files, read) for one in made for files, read in one(folder / one.__name__)]


Files = tuple[tuple[Path, ...], Callable[[Path], Any]]


def _written(folder: Path, **contents: bytes) -> tuple[Path, ...]:
    """Write files: a_png=b"" is a.png."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, content in contents.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(content)
        found.append(path)
    return tuple(found)


def _scene(depth: type = np.uint8, size: tuple[int, int] = (40, 52), channels: int = 3, seed: int = 0) -> Any:
    """A smooth picture with some noise, so that compressed files have structure."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.stack([np.sin(x / (5 + c) + y / 9) for c in range(channels)], -1)
    noisy = 0.5 + 0.3 * waves + np.random.default_rng(seed).normal(0, 0.02, waves.shape)
    scaled = (np.clip(noisy, 0, 1) * np.iinfo(depth).max).astype(depth)
    return scaled[..., 0] if channels == 1 else scaled


def _pillow(kind: str, pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _tiff(pixels: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    kind = "minisblack" if pixels.ndim == 2 else "rgb"
    tifffile.imwrite(buffer, pixels, **{"photometric": kind, "metadata": None} | options)
    return buffer.getvalue()


def _exif() -> Image.Exif:
    exif = Image.Exif()
    exif[271], exif[272], exif[274] = "Example", "Example Two", 6
    exif.get_ifd(34665).update({33434: 0.01, 34855: 800, 33437: 2.8})
    return exif


def _tiffs() -> dict[str, bytes]:
    deep, grey = _scene(np.uint16), _scene(np.uint16, channels=1)
    pages = io.BytesIO()
    with tifffile.TiffWriter(pages) as file:
        for _ in range(2):
            file.write(grey, photometric="minisblack", metadata=None)
    return {
        "a_tif": _tiff(_scene(), rowsperstrip=8),
        "b_tif": _tiff(deep, rowsperstrip=8, byteorder=">"),
        "c_tif": _tiff(grey, compression="zlib", predictor=True),
        "d_tif": _tiff(_scene(size=(48, 64)), tile=(16, 16), compression="lzw"),
        "e_tif": _tiff(deep.transpose(2, 0, 1), planarconfig="separate", photometric="rgb"),
        "f_tif": _tiff(grey, bigtiff=True),
        "g_tif": pages.getvalue(),
        "h_tif": _tiff(_scene(), compression="packbits"),
    }


def _pngs_and_jpegs() -> dict[str, bytes]:
    icc = b"\0" * 200
    return {
        "a_png": _pillow("PNG", _scene(), exif=_exif(), icc_profile=icc),
        "b_png": imagecodecs.png_encode(_scene(np.uint16)),
        "c_png": imagecodecs.png_encode(_scene(np.uint16, channels=1)),
        "d_png": _pillow("PNG", _scene(channels=4)),
        "a_jpg": _pillow("JPEG", _scene(), exif=_exif(), icc_profile=icc),
        "b_jpg": _pillow("JPEG", _scene(channels=1), progressive=True),
    }


def pictures(folder: Path) -> Iterator[Files]:
    """Pictures of a corpus."""
    others = {
        kind.lower(): _pillow(kind, _scene())
        for kind in ("GIF", "BMP", "WEBP", "PPM", "TGA", "PCX", "JPEG2000", "AVIF")
        if kind in Image.SAVE
    }
    palette = io.BytesIO()
    Image.fromarray(_scene()).quantize(16).save(palette, "PNG", transparency=0)
    files = _written(
        folder, **_tiffs(), **_pngs_and_jpegs(), p_png=palette.getvalue(), **{f"x_{k}": v for k, v in others.items()}
    )
    yield files, decode
    yield files, lambda path: decode(path, white_level=4095)


def arrays(folder: Path) -> Iterator[Files]:
    """Images that a model takes as arrays."""
    arrays = {"a_npy": _scene(np.uint16, channels=1), "b_npy": _scene().astype(np.float32), "c_npy": _scene(channels=5)}
    content = {name: io.BytesIO() for name in arrays}
    for name, pixels in arrays.items():
        np.save(content[name], pixels)
    stored = {name: one.getvalue() for name, one in content.items()}
    bands = _tiff(_scene(np.uint16, channels=5), photometric="minisblack", planarconfig="contig")
    files = _written(folder, **stored, **_tiffs(), **_pngs_and_jpegs(), i_tif=bands)
    for form in (
        ArrayForm(1, "uint16", 0, 4095), ArrayForm(3, "float32", 0, 1), ArrayForm(5, "uint16", 0, 65535)
    ):  # fmt: skip
        yield files, partial(_read_form, form)


def _read_form(form: ArrayForm, file: Path) -> None:
    """Read an image as an array; one that is sound but of another form is refused, as it should be."""
    with suppress(ImageError):
        read_array(file, form, file.name)


def photographs(folder: Path) -> Iterator[Files]:
    """Frames of a burst that are no raw files."""
    floats = _tiff(_scene().astype(np.float32) / 255)
    files = _written(folder, **_tiffs(), **_pngs_and_jpegs(), z_tif=floats)
    yield files, reading.read
    yield files, lambda path: reading.read(path, ReadSettings(linear=True, white_level=65000))


def raw_frames(folder: Path) -> Iterator[Files]:
    """DNG files, and others that LibRaw reads."""
    folder.mkdir(parents=True)
    counts = _scene(np.uint16, (48, 64), 1) // 4
    extra = [(34855, 3, 1, 800, True), (33434, 5, 1, (1, 50), True), (50710, 1, 3, b"\0\1\2", True)]
    sound = [
        write_dng(folder / "a.dng", counts, extra=extra),
        write_dng(folder / "b.dng", counts, "GBRG", (600, 610, 620, 630)),
    ]
    three = (1e-4, 1e-6, 2e-4, 2e-6, 3e-4, 3e-6)
    sound.append(write_dng(folder / "c.dng", counts, profile=three, extra=extra, orientation=6))
    for compression in (None, 7):
        options = (
            {}
            if compression is None
            else {"compression": 7, "compressionargs": {"lossless": True, "bitspersample": 16}}
        )
        sound.append(write_linear_dng(folder / f"linear-{compression}.dng", codes_of(), **options))
    for ending in ("nef", "cr2", "arw", "orf", "raf"):
        sound.append(Path(shutil.copy(sound[0], folder / f"d.{ending}")))
    real = os.environ.get("KLARSICHT_RAW_FRAMES")  # little-endian 16-bit counts, 512 x 768, RGGB
    if real:
        frame = np.fromfile(real, "<u2").reshape(512, 768)[:128, :192]
        sound.append(write_dng(folder / "real.dng", frame, extra=extra))
    yield tuple(sound), reading.read


def opcode_lists(folder: Path) -> Iterator[Files]:
    """Opcode lists of DNG files, which are read and applied to a picture; and DNG files that hold them."""
    size = (48, 64)
    maps = [gain_map((y, x, *size), [[[1.0], [1.5]], [[1.2], [2.0]]], (2, 2)) for y in (0, 1) for x in (0, 1)]
    bulge, fix = warp([(0.97, 0.03, 0, 0, 0.001, 0)] * 3), vignette((0.2, 0.1, 0, 0, 0))
    skipped = (77, 1, b"unknown")
    lists = {2: packed(*maps), 3: packed(fix, bulge, skipped)}
    folder.mkdir(parents=True)
    for number, data in lists.items():
        (folder / f"{number}.list").write_bytes(data)
    light = np.full((3, *size), 0.4, np.float32)
    sensor = Sensor("RGGB", (0.0,) * 4, 65535.0)
    spool = FrameStore(folder / "light.f32", (1, 4, *size))
    spool.allocate()
    spool.write_frame(0, np.concatenate([light, light[:1]]))

    def apply(path: Path) -> None:
        data = path.read_bytes()
        tags = Tags({LISTS[int(path.stem)]: Entry(UNDEFINED, len(data), data)}, {}, {})
        header = Header(path, "rgb", size, 65535, sensor=sensor, lens=read_corrections(tags, size, path.name))
        dng.write(spool, header, [NoiseLevel(1e-3, 1e-4)] * 3, folder / "out.dng")
        assert all("\n" not in line for line in header.lens.lines(mosaic=False))

    yield tuple(folder / f"{number}.list" for number in lists), apply
    counts, extra = _scene(np.uint16, size, 1) // 4, [tag(number, data) for number, data in lists.items()]
    yield (write_dng(folder / "a.dng", counts, extra=extra),), reading.read


def manifests(folder: Path) -> Iterator[Files]:
    """Manifests of a corpus, as CSV and parquet, and class maps."""
    import pyarrow as pa
    from pyarrow import parquet

    lines = [("images/a.png", "cat", "s1", "train", "1", "4095"), ("images/b.png", "dog", "s2", "test", "0.5", "")]
    names = ("path", "label", "source", "split", "weight", "white_level")
    (folder / "images").mkdir(parents=True)
    for path, *_ in lines:
        (folder / path).write_bytes(_pillow("PNG", _scene()))
    text = "\n".join(",".join(line) for line in (names, *lines)) + "\n"
    files = _written(folder, m_csv=text.encode(), n_csv=b'path,label\nimages/a.png,"cat"\nimages/b.png,dog\n')
    table = pa.table({name: [line[i] for line in lines] for i, name in enumerate(names)})
    parquet.write_table(table, folder / "m.parquet")

    def read(path: Path) -> None:
        for _ in range(len(corpus := open_corpus(path))):
            _ = corpus.hash, corpus.source_numbers

    yield (*files, folder / "m.parquet"), read
    maps = _written(folder, map_csv=b"label,index\ncat,0\ndog,1\n")
    yield maps, lambda path: read_class_map(path, ("cat", "dog"), 2)


def settings(folder: Path) -> Iterator[Files]:
    """Settings as TOML, and calibrations of noise."""
    audited = AuditSettings(model="m", data="d", metric=("concept", "euclidean"))
    trained = TrainSettings(steps=100)
    files = _written(folder, audit_toml=audited.to_toml().encode(), train_toml=trained.to_toml().encode())
    yield files[:1], AuditSettings.from_toml
    yield files[1:], TrainSettings.from_toml
    noise = {"Example One": {"800": {"read": 0.01, "shot": 0.002, "frames": 8}, "100": {"read": 0.001, "shot": 1e-4}}}
    calibration = _written(folder, noise_json=json.dumps(noise).encode())
    yield calibration, lambda path: sources.read_calibration(path, "Example One", 800)


def run_folders(folder: Path) -> Iterator[Files]:
    """A finished run of `audit run`: its manifest, markers, tables, arrays, ranking and checksums; and the same
    with checksums of what is damaged, so that it reaches every parser."""
    write_corpus(folder / "data", per_class=25)
    chosen = AuditSettings(model="object", data=str(folder / "data"), neighbours=6, unit=40, batch=40)
    store = pipeline.run(chosen, folder / "run", classifier=load_model(network()))
    every = sorted(store.path.rglob("*"))
    found = tuple(p for p in every if p.suffix in (".json", ".parquet") or p.match("arrays.zarr/*/c.*"))

    def read(_: Path) -> None:
        opened = RunStore.open(store.path)
        read_progress(store.path)
        for name in ("logits", "maps"):
            _ = opened.array(name)[:]
        AuditSettings.of_run(opened.manifest)
        ranking.read_ranking(opened).to_json()
        page.write_report(opened)

    def read_vouched(file: Path) -> None:
        with vouched(store.path, file):
            read(file)

    for reader in (read, read_vouched):
        yield found, reader


def corrections(folder: Path) -> Iterator[Files]:
    """Corrections of a model, whose record is damaged, or a part with the record made right again."""
    eraser = Eraser(np.eye(4)[:, :2], np.eye(4)[:2], np.zeros(4))
    packages.save_correction(folder / "c", Erasure("last", eraser, 0.9, False, None), FACTS)
    record = folder / "c" / packages.RECORD
    sound = record.read_bytes()

    def read_part(path: Path) -> None:
        told = json.loads(sound)
        told["files"] = {path.name: packages._sha256(path)}
        record.write_bytes(json.dumps(told).encode())
        try:
            packages.load_correction(folder / "c")
        finally:
            record.write_bytes(sound)

    yield (record,), lambda path: packages.load_correction(path.parent)
    yield (folder / "c" / "erasure.npz",), read_part


def weights(folder: Path) -> Iterator[Files]:
    """Networks, and the state of a training."""
    folder.mkdir(parents=True)
    net = build_network(NetworkSettings(preset="kpn", width=0.125, colour="rgb", frames=3), 0)
    save_network(net, folder / "n.safetensors", {"steps": 7})
    yield (folder / "n.safetensors",), load_network
    state = {name: {"w": torch.zeros(8)} for name in ("model", "average", "optimiser")} | {
        "step": 3,
        "plan": {"steps": 9},
    }
    torch.save(state, folder / "state.pt")
    yield (folder / "state.pt",), lambda path: fit._load_state(path, torch.device("cpu"))


def exif_bomb(count: int = 4000) -> bytes:
    """EXIF whose tags all refer to the whole of it: 12 bytes a tag that ask for count times 12 bytes each."""
    size = 12 * count
    records = b"".join(struct.pack("<HHII", 40000 + i, 7, size, 8) for i in range(count))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", count) + records + b"\0\0\0\0" + bytes(8)


def chosen(some: Sequence[Target], names: Sequence[str]) -> list[Target]:
    """Return the targets of some kinds; all where none is named."""
    return [one for one in some if not names or one.name in names]


with suppress(ImportError):
    import rawpy  # noqa: F401 - loaded here, so that the first mutant does not wait for it
