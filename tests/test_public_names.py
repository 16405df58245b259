"""Public names: each is imported late, documented with its arguments and errors, and used by an example that runs."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import network, picture

from klarsicht import audit, bridge, burst

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
NAMES = [(wing, name) for wing in (audit, burst, bridge) for name in wing.PUBLIC]
BLOCKS = re.findall(r"^```python\n(.+?)^```", PAGE.read_text(), re.M | re.S)


@pytest.mark.parametrize(("wing", "name"), NAMES, ids=[name for _, name in NAMES])
def test_a_public_name_is_documented_with_its_arguments_and_errors(wing, name):
    thing = getattr(wing, name)
    text = inspect.getdoc(thing)
    assert len(text.split()) > 12
    assert f"heading: {name}\n" in PAGE.read_text()
    if inspect.isfunction(thing):
        assert "Raises" in text or name == "explain", "errors"
        assert re.search(r"\([A-Z], |\([A-Z],\)|folder|file|spec|settings|run", text), "shapes, or what is read"
        told = set(re.findall(r"\w+", text)) | set(re.findall(r"\w+", PAGE.read_text()))
        assert set(inspect.signature(thing).parameters) <= told | {"classifier", "workers", "seed"}


@pytest.mark.parametrize("wing", [audit, bridge, burst], ids=lambda wing: wing.__name__)
def test_a_type_checker_sees_the_public_names_that_are_imported_late(wing):
    """Oracle: the syntax tree of the block that only type checkers read."""
    (block,) = (one for one in ast.parse(inspect.getsource(wing)).body if isinstance(one, ast.If))
    seen = {alias.asname: (one.module, alias.name) for one in block.body for alias in one.names}
    assert set(seen) == set(wing.PUBLIC)
    for name, (module, attribute) in seen.items():
        assert getattr(importlib.import_module(module), attribute) is getattr(wing, name)


def test_every_public_name_is_used_by_an_example():
    used = "\n".join(BLOCKS) + PAGE.read_text().split("## klarsicht.audit")[0]
    assert [name for wing, name in NAMES if f"{wing.__name__.split('.')[1]}.{name}" not in used] == []


@pytest.mark.slow
def test_the_examples_run(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for label, name in enumerate(("a", "carton", "c")):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for i in range(60):
            picture(label, name == "carton" and i < 18, rng).save(tmp_path / "photographs" / name / f"{i:03d}.png")
    frames = np.clip(0.3 + rng.normal(0, 0.02, (4, 3, 64, 64)), 0, 1).astype(np.float32)
    (tmp_path / "burst").mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray((frame.transpose(1, 2, 0) * 255).astype(np.uint8)).save(tmp_path / "burst" / f"{i}.png")
    monkeypatch.chdir(tmp_path)

    def transform(image):
        return torch.from_numpy(np.array(image.convert("RGB"), np.float32).transpose(2, 0, 1) / 255)

    maps = rng.random((60, 16, 16))
    maps[:15, :4, :4] += 3
    space = {
        "module": network(), "transform": transform, "names": ["a", "carton", "c"], "maps": maps, "frames": frames,
        "images": torch.rand(2, 3, 12, 12), "targets": torch.tensor([0, 1]), "logits": rng.normal(size=60),
    }  # fmt: skip
    for block in BLOCKS:
        exec(compile(block, str(PAGE), "exec"), space)
    assert space["found"].maps.shape == (2, 12, 12) and space["picture"].shape == (3, 64, 64)
    assert space["shown"].judgement.remaining < 0.5
    for result in (space["found"], space["verdicts"], audit.rank(space["run"]), space["groups"]):
        page = result._repr_html_()
        assert page.startswith("<") and "object at" not in page
    assert audit.rank(space["run"])._repr_html_().count("<img") >= 3


def test_names_are_imported_when_they_are_used():
    code = "import klarsicht.audit, klarsicht.burst, sys; dir(klarsicht.audit); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
    code = "import klarsicht; klarsicht.audit.rank; klarsicht.burst.Burst; print(klarsicht.__version__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).startswith("0.")
    with pytest.raises(AttributeError, match="has no attribute 'ranck'"):
        audit.ranck  # noqa: B018
    assert {"rank", "spray"} <= set(dir(audit))
