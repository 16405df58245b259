"""Commands that are disturbed, their inputs, and a digest of what they write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from klarsicht.ground.run_folder.checksums import Checksum

SIDE, EACH, CLASSES = 12, 20, "ab"
MODEL = """
import torch
from torch import nn


def network():
    K = 2
    first, last, head = nn.Conv2d(3, K + 1, 1, bias=False), nn.Conv2d(K + 1, K + 1, 1, bias=False), nn.Linear(K + 1, K)
    with torch.no_grad():
        mix = torch.randn(K, 3, generator=torch.Generator().manual_seed(0))
        first.weight.copy_(torch.cat([mix, torch.ones(1, 3)])[:, :, None, None])
        last.weight.copy_(torch.eye(K + 1)[:, :, None, None])
        head.weight.copy_(torch.cat([torch.eye(K), torch.zeros(K, 1)], 1))
        head.weight[1, K] = 9.0  # class b also by white
        head.bias.zero_()
    return nn.Sequential(first, nn.ReLU(), last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
"""
TRAINING = "\n".join(
    ('preset = "kpn"', "width = 0.125", "frames = 2", "size = 32", "scale = 1", "batch = 1", "steps = 6", "every = 2",
     "uses = 1")
)  # fmt: skip


@dataclass(frozen=True)
class Command:
    """A command line whose results lie in the folder it runs in.

    Attributes:
        line: its words; paths are relative to the folder.
        after: the command whose results it needs.
        workers: whether it starts two worker processes.
    """

    line: str
    after: str = ""
    workers: bool = False


COMMANDS = {
    "audit run": Command(
        "audit run --model kills_model:network --data ../data --out run --metric euclidean --unit 20 --neighbours 6"
    ),
    "audit run --workers 2": Command(
        "audit run --model kills_model:network --data ../data --out run --metric euclidean --unit 20 --neighbours 6 "
        "--workers 2",
        workers=True,
    ),
    "audit quantify": Command("audit quantify run", after="audit run"),
    "audit quantify --workers 2": Command("audit quantify run --workers 2", after="audit run", workers=True),
    "audit clean": Command(
        "audit clean run --class b --method oblique --layer 2 --images 16 --found-by cluster --fewest-clean 3",
        after="audit run",
    ),
    "audit clean --method augment": Command(
        "audit clean run --class b --method augment --layer 2 --images 16 --steps 4 --batch 8 --found-by cluster "
        "--fewest-clean 3",
        after="audit run",
    ),
    "audit evaluate": Command("audit evaluate run --correction run/corrections/1-oblique --overall 1 --affected 1 "
                              "--images 16", after="audit clean"),
    "audit clean-data": Command(
        "audit clean-data run --class b --action inpaint --out cleaned --found-by cluster", after="audit run"
    ),
    "audit plant": Command("audit plant ../data --out planted --kind tag --share 0.3"),
    "burst train": Command("burst train --photos ../photographs --out net.safetensors --settings ../training.toml"),
    "burst denoise": Command("burst denoise ../frames -o out.tif --noise 0.02,0.001 --threads 1 --page page.html"),
    "burst explain": Command("burst explain ../frames -o shown --noise 0.02,0.001 --threads 1"),
    "burst synth": Command("burst synth ../photographs --out bursts --gain 1"),
}  # fmt: skip


def write_inputs(folder: Path) -> None:
    """Write a corpus of two classes with a mark on a third of one, its network, photographs and a burst."""
    from PIL import Image

    rng = np.random.default_rng(0)
    colours = rng.integers(40, 120, (len(CLASSES), 3))
    for label, name in enumerate(CLASSES):
        (folder / "data" / name).mkdir(parents=True)
        for i in range(EACH):
            pixels = (rng.integers(0, 60, (SIDE, SIDE, 3)) + colours[label]).astype(np.uint8)
            if name == "b" and i % 3 == 0:
                pixels[:4, :4] = 255
            Image.fromarray(pixels).save(folder / "data" / name / f"{i:03d}.png")
    (folder / "kills_model.py").write_text(MODEL)
    (folder / "training.toml").write_text(TRAINING)
    (folder / "photographs").mkdir()
    for i in range(2):
        smooth = np.kron(rng.integers(0, 255, (32, 48, 3)), np.ones((16, 16, 1))).astype(np.uint8)
        Image.fromarray(smooth).save(folder / "photographs" / f"{i}.png")
    (folder / "frames").mkdir()
    scene = np.kron(rng.integers(40, 200, (12, 16, 3)), np.ones((8, 8, 1)))
    for i in range(3):
        noisy = np.roll(scene, i, 1) + rng.normal(0, 4, scene.shape)
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / "frames" / f"{i}.png")


DATED = ("manifest.json", "report.html", "certificate.html")


def digest(folder: Path) -> dict[str, str]:
    """Hash every file below a folder, but for the date of a run and the locks, which name processes. Of a checksum of a
    file with a date, hashed is whether it admits this file alone."""
    found, dates = {}, [json.loads(file.read_bytes()).get("created", "") for file in folder.rglob("manifest.json")]
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        if path.parent.name == "checksums" and path.stem in DATED:
            file = path.parent.with_name(path.stem)
            content = repr(file.exists() and json.loads(content) == [Checksum.of_file(file).to_json()]).encode()
        if path.name in DATED:
            for date in filter(None, dates):
                content = content.replace(date.encode(), b"DATE").replace(date[:16].replace("T", " ").encode(), b"DATE")
        if path.name not in ("lock", ".lock"):
            found[str(path.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def differences(here: Mapping[str, str], whole: Mapping[str, str]) -> list[str]:
    """Files that one side alone has, or whose bytes differ."""
    return sorted(name for name in here.keys() | whole.keys() if here.get(name) != whole.get(name))
