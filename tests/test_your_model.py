"""The page "Your model": each door's example runs, as it stands there."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from klarsicht.cli.app import run

PAGE = Path(__file__).parents[1] / "docs" / "your-model.md"
SECTIONS = dict(re.findall(r"^## (.+?)\n(.+?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S))
COMMANDS = [line for line in PAGE.read_text().splitlines() if line.startswith("klarsicht ")]


def blocks(section, language):
    return re.findall(rf"^```{language}\n(.+?)^```", SECTIONS[section], re.M | re.S)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).eval()


def torchvision_space():
    return {"torch": torch, "net": torchvision.models.resnet18(weights=None, num_classes=3)}


def timm_space():
    timm = pytest.importorskip("timm")
    return {"timm_net": timm.create_model("mobilenetv3_small_050", pretrained=False, num_classes=3)}


def transformers_space():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8,
        id2label={0: "a", 1: "b", 2: "c"}, label2id={"a": 0, "b": 1, "c": 2},
    )  # fmt: skip
    processor = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    return {"vit": transformers.ViTForImageClassification(config), "processor": processor}


def own_space():
    torch.save(network().state_dict(), "mine.pt")
    return {}


def arrays_space():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    torch.save(net.state_dict(), "slices.pt")
    for label in "abc":
        Path("slices", label).mkdir(parents=True)
        for i in range(3):
            np.save(Path("slices", label, f"{i}.npy"), np.random.default_rng(i).integers(0, 4096, (64, 64), np.uint16))
    return {}


def exported_space():
    return {"torch": torch, "net": network()}


SPACES = {
    "torchvision": torchvision_space,
    "timm": timm_space,
    "transformers": transformers_space,
    "Your own code": own_space,
    "Arrays": arrays_space,
    "torch.export": exported_space,
}


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for label in "abc":
        (tmp_path / "photographs" / label).mkdir(parents=True)
        for i in range(3):
            pixels = rng.integers(0, 255, (64, 64, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photographs" / label / f"{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "klarsicht.audit.explanation.doctor.BUDGET", 0.0
    )  # whether the door opens; not how fast the model is
    return tmp_path


@pytest.mark.parametrize("door", SPACES)
def test_a_door_s_example_runs(photographs, monkeypatch, capsys, door):
    space = SPACES[door]()
    for block in blocks(door, "python"):
        if file := re.match(r"# (\w+\.py)\n", block):
            Path(file[1]).write_text(block)
        else:
            exec(compile(block, str(PAGE), "exec"), space)
    commands = [line for block in blocks(door, "sh") for line in block.splitlines()]
    assert commands
    for command in commands:
        assert run(shlex.split(command)[1:]) == 0, capsys.readouterr().err
        assert "3 classes" in capsys.readouterr().out


def test_the_example_from_python_runs(photographs, capsys):
    (block,) = blocks("From Python", "python")
    transform = torchvision.transforms.ToTensor()
    exec(compile(block, str(PAGE), "exec"), {"net": network(), "transform": transform})
    assert capsys.readouterr().out == "4 3 ()\n"


def test_every_command_of_the_page_is_run():
    assert len(COMMANDS) == sum(block.count("\n") for door in SPACES for block in blocks(door, "sh"))
