"""Make the notebooks of this folder from the tutorials of the site, and run them.

    pip install nbclient ipykernel
    python examples/make_notebooks.py            # all, in a temporary folder; takes a quarter of an hour
    python examples/make_notebooks.py FOLDER a-burst
    python examples/make_notebooks.py --text     # runs nothing: takes over the text, if no cell of code has changed

The page is the source: its blocks of Python and of the shell are cells, its text stands between them, and the outputs
that it quotes are left out, since the notebook has its own.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

HERE = Path(__file__).parent
PAGES = HERE.parent / "docs" / "tutorials"
NAMES = ("my-classifier", "my-data-set", "a-burst")
PICTURE = re.compile(r"^!\[.*\n", re.M)
CONTROL, PROGRESS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]"), re.compile("\u2501|^loading: ")
BLOCK = re.compile(r"^```(\w+)\n(.+?)^```\n", re.M | re.S)


def cells_of(page: str) -> list[tuple[str, str]]:
    """Split a page into (kind, text): kind is markdown, python or sh; quoted outputs and pictures are left out."""
    cells, end = [], 0
    for block in BLOCK.finditer(page):
        cells.append(("markdown", page[end : block.start()]))
        if block[1] in ("python", "sh"):
            cells.append((block[1], block[2]))
        end = block.end()
    cells.append(("markdown", page[end:]))
    written = [
        (kind, re.sub(r"^!\[.*\n", "", text, flags=re.M) if kind == "markdown" else text) for kind, text in cells
    ]
    return [(kind, text.strip("\n")) for kind, text in written if text.strip()]


def notebook_of(page: str) -> dict[str, Any]:
    """Make a notebook, without outputs, of the text of a page."""
    made = []
    for i, (kind, text) in enumerate(cells_of(page)):
        text = re.sub(r"\]\(\.\./(.+?)\.md(#.+?)?\)", r"](../docs/\1.md\2)", text) if kind == "markdown" else text
        source = re.sub(r"^(?=\w)", "!", text, flags=re.M) if kind == "sh" else text
        cell = {"id": str(i), "metadata": {}, "source": source.splitlines(keepends=True)}
        made.append(cell | ({"cell_type": "markdown"} if kind == "markdown" else {
            "cell_type": "code", "execution_count": None, "outputs": [],
        }))  # fmt: skip
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": made, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def run(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a notebook in a folder with the scripts of this one, and return it with tidy outputs."""
    import nbformat
    from nbclient import NotebookClient

    for script in HERE.glob("*.py"):
        shutil.copy(script, folder)
    done = nbformat.reads(json.dumps(notebook), as_version=4)
    NotebookClient(done, timeout=None, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in done.cells:
        cell.metadata = {}
    done.metadata = notebook["metadata"]
    plain = json.loads(nbformat.writes(done).replace(f"{folder.resolve()}/", ""))  # a folder of this machine
    for cell in plain["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = tidy(cell["outputs"])
    return plain


def tidy(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join what a cell printed, without standard error, progress bars and colours, and keep the smaller form of a
    picture."""
    printed = "".join("".join(one["text"]) for one in outputs if one.get("name") == "stdout")
    lines = [line.rpartition("\r")[2] for line in CONTROL.sub("", printed.replace("\r\n", "\n")).split("\n")]
    text = "".join(f"{line}\n" for line in lines if line.strip() and not PROGRESS.search(line))
    shown = [one for one in outputs if one["output_type"] != "stream" and not is_progress(one)]
    for one in shown:
        if {"image/png", "image/jpeg"} <= one.get("data", {}).keys():
            del one["data"]["image/png"]
    stream = {"name": "stdout", "output_type": "stream", "text": text.splitlines(keepends=True)}
    return ([stream] if text else []) + shown


def is_progress(output: dict[str, Any]) -> bool:
    """Say whether an output is the bar that klarsicht shows below a cell while a step runs."""
    return "".join(output.get("data", {}).get("text/html", "")).startswith("<progress")


def with_outputs(notebook: dict[str, Any], old: dict[str, Any]) -> dict[str, Any]:
    """Give the cells of code of a notebook the outputs of an older one that has the same cells of code."""
    new, known = ([cell for cell in one["cells"] if cell["cell_type"] == "code"] for one in (notebook, old))
    if [cell["source"] for cell in new] != [cell["source"] for cell in known]:
        raise SystemExit("a cell of code has changed: run the notebook")
    for cell, before in zip(new, known, strict=True):
        cell |= {"outputs": before["outputs"], "execution_count": before["execution_count"]}
    return notebook


def main(folder: Path | None, names: Sequence[str]) -> None:
    for name in names:
        file, made = HERE / f"{name}.ipynb", notebook_of((PAGES / f"{name}.md").read_text())
        if folder is None:
            made = with_outputs(made, json.loads(file.read_text()))
        else:
            (folder / name).mkdir(parents=True, exist_ok=True)
            made = run(made, folder / name)
        file.write_text(json.dumps(made, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    where = sys.argv[1] if len(sys.argv) > 1 else mkdtemp()
    main(None if where == "--text" else Path(where), sys.argv[2:] or NAMES)
