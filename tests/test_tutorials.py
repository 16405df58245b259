"""Tutorials run by night, block by block, as a reader types them; the notebooks hold the blocks of their pages."""

import csv
import json
import re
import runpy
import shlex
import shutil
from pathlib import Path

import pytest

from klarsicht.audit import load_correction
from klarsicht.audit.results.verdicts import read_verdicts
from klarsicht.cli.app import run

ROOT = Path(__file__).parents[1]
EXAMPLES, PAGES = ROOT / "examples", ROOT / "docs" / "tutorials"
MAKER = runpy.run_path(str(EXAMPLES / "make_notebooks.py"))


def text_of(cell):
    return "".join(cell["source"])


@pytest.mark.parametrize("name", MAKER["NAMES"])
def test_a_notebook_holds_the_blocks_of_its_page_and_what_they_gave(name):
    cells = json.loads((EXAMPLES / f"{name}.ipynb").read_text())["cells"]
    assert [text_of(cell) for cell in cells] == [
        text_of(cell) for cell in MAKER["notebook_of"]((PAGES / f"{name}.md").read_text())["cells"]
    ]
    outputs = [one for cell in cells if cell["cell_type"] == "code" for one in cell["outputs"]]
    assert outputs and all(one["output_type"] != "error" for one in outputs)


def test_a_page_is_split_into_text_python_and_shell():
    page = "# A\n\nText.\n\n```python\na = 1\n```\n\n```text\n1\n```\n\n![b](b.png)\n\n```sh\nklarsicht x\n```\nEnd.\n"
    assert MAKER["cells_of"](page) == [
        ("markdown", "# A\n\nText."), ("python", "a = 1"), ("sh", "klarsicht x"), ("markdown", "End."),
    ]  # fmt: skip
    cells = MAKER["notebook_of"]("See [b](../b.md#c).\n\n```sh\nklarsicht x\n```\n")["cells"]
    assert [text_of(cell) for cell in cells] == ["See [b](../docs/b.md#c).", "!klarsicht x"]


def test_outputs_are_those_that_a_reader_wants():
    bar, text = "\x1b[?25l\rreading \u2501\u2501 2/8\r\n", "\x1b[32mdone\x1b[0m\r\nof 3\rof 5\n"
    streams = [{"output_type": "stream", "name": "stdout", "text": [one]} for one in (bar, text)]
    error = {"output_type": "stream", "name": "stderr", "text": ["a warning"]}
    picture = {"output_type": "display_data", "data": {"image/png": "a", "image/jpeg": "b"}}
    progress = {"output_type": "display_data", "data": {"text/html": ["<progress max=8 value=8></progress> reading"]}}
    printed, shown = MAKER["tidy"]([streams[0], error, progress, picture, streams[1]])
    assert "".join(printed["text"]) == "done\nof 5\n"
    assert shown["data"] == {"image/jpeg": "b"}


def test_outputs_are_kept_while_the_code_is_the_same():
    old = MAKER["notebook_of"]("One.\n\n```python\na\n```\n")
    old["cells"][1] |= {"outputs": ["b"], "execution_count": 3}
    new = MAKER["with_outputs"](MAKER["notebook_of"]("Two.\n\n```python\na\n```\n\nThree.\n"), old)
    assert [cell.get("outputs") for cell in new["cells"]] == [None, ["b"], None]
    with pytest.raises(SystemExit, match="has changed"):
        MAKER["with_outputs"](MAKER["notebook_of"]("One.\n\n```python\nc\n```\n"), old)


def run_page(name, folder, monkeypatch):
    """Run the blocks of a tutorial in a folder with the scripts of the examples; return the names that they made."""
    for script in EXAMPLES.glob("*.py"):
        shutil.copy(script, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    space = {}
    for kind, text in MAKER["cells_of"]((PAGES / f"{name}.md").read_text()):
        if kind == "python" and (file := re.match(r"# (\w+\.py)\n", text)):
            Path(file[1]).write_text(text)
        elif kind == "python":
            exec(compile(text, f"{name}.md", "exec"), space)
        elif kind == "sh":
            for line in text.splitlines():
                assert run(shlex.split(line)[1:]) == 0, line
    return space


@pytest.mark.slow
def test_a_burst(tmp_path, monkeypatch):
    """The mean of eight frames would gain 9 dB; some is lost where the hand moved."""
    space = run_page("a-burst", tmp_path, monkeypatch)
    assert space["psnr"](space["clean"]) - space["psnr"](space["first"]) > 9
    assert space["picture"].shape == (3, 128, 128)


@pytest.mark.nightly
def test_my_classifier(tmp_path, monkeypatch):
    pytest.importorskip("timm")
    space = run_page("my-classifier", tmp_path, monkeypatch)
    labelled = {f"photographs/coffee/{i:03d}.png" for i in range(32)}
    found = {str(Path(path)) for path in space["found"].members}
    assert len(found & labelled) / len(found) > 0.9 and len(found & labelled) > 16
    assert space["found"].poisoned and space["share"] < 0.2


@pytest.mark.slow
def test_my_data_set(tmp_path, monkeypatch):
    """Fifteen copies were made; of the photographs of coffee with a name, most are found and none is left as it was."""
    pytest.importorskip("timm")
    space = run_page("my-data-set", tmp_path, monkeypatch)
    copies = {(tmp_path / "again" / f"{i}.jpg").resolve() for i in range(15)}
    assert len(copies & space["leaked"]) >= 13 and len(space["leaked"] - copies) < 4
    assert space["verdicts"].of("coffee").poisoned and space["new"].counts["drop"] > 16
    assert space["share"] < 0.2
    with (tmp_path / "cleaned.csv").open() as table:
        kept = {(tmp_path / row["path"]).resolve() for row in csv.DictReader(table)}
    assert len(kept) == len(space["kept"]) > 300 and not kept & space["leaked"]
    dropped = {(tmp_path / f"photographs/coffee/{i:03d}.png").resolve() for i in range(32)}
    assert len(kept & dropped) < 16


@pytest.mark.slow
def test_two_classes_and_patients(tmp_path, monkeypatch):
    """The letter is in the images of patients who lay: the report names the class, and no folder of the machine."""
    pytest.importorskip("pydicom")
    space = run_page("two-classes-and-patients", tmp_path, monkeypatch)
    verdict = read_verdicts("run").of("effusion")
    found = {str(Path(path)) for path in verdict.members}
    assert found and len(found & space["lettered"]) == len(found)
    report = Path("run/report.html").read_text()
    assert "of effusion share" in report and str(tmp_path) not in report
    assert load_correction("cleaned")[1]["shown"]["verdict"].startswith("clean")
