"""Export of the explorer as one HTML file: its pages with the answers of a run inside. It opens without a server or an
installation, and is read-only.

Answers and pictures are JSON in an element of the page, from which requests.js reads instead of asking a server. The
modules of the pages are addressed as data by an import map, since browsers load no module from a file.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from klarsicht.audit.results.file_names import leave_out_folders
from klarsicht.explorer.class_evidence import seen_in_class
from klarsicht.explorer.exceptional_images import list_exceptions
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.optional import load
from klarsicht.ground.pictures.encoded_pictures import data_uri
from klarsicht.ground.progress import track

if TYPE_CHECKING:
    from fastapi.responses import Response

MOST_IMAGES: Final = 200  # of a class with pictures: those with the artifact, then others at equal steps
SIDES: Final = {"image": 128, "overlay": 128, "relevance": 32, "own": 128}  # pixels of each picture
UNSAVED: Final = {"windows": 0, "metrics": []}  # answers on a class that a copy does not have


def write_page(run: ExploredRun, targets: Sequence[int], out: Path) -> None:
    """Write the explorer of some classes as one HTML file, with pictures of MOST_IMAGES images of each at most.

    Raises:
        MissingExtra: the extra `explore` is not installed.
    """
    load("fastapi", "explore")
    content, reader = collect_answers(run, targets) | {"pictures": draw_pictures(run, targets)}, run.reader
    manifest = {**reader.manifest, "data": reader.data or reader.manifest.get("data", "")}
    shown = leave_out_folders(json.dumps(content), manifest, reader.store.path)
    write_atomically(out, render_page(shown).encode())


def collect_answers(run: ExploredRun, targets: Sequence[int]) -> dict[str, Any]:
    """Collect the server's answers: JSON by address, points as base64, and descriptions of images by row."""
    from klarsicht.explorer import answers

    listed = _json_of(answers.list_classes(run))
    listed["classes"] = [line for line in listed["classes"] if line["target"] in targets]
    told = {
        "/api/run": _json_of(answers.show_run(run)) | {"saved": True},
        "/api/progress": {"revision": listed["revision"], "records": listed["records"], "steps": []},
        "/api/classes": listed,
        "/api/findings": _json_of(answers.show_findings(run)),
        "/api/exceptions": _json_of(answers.show_exceptions(run)),
        "/api/corrections": _json_of(answers.show_corrections(run)),
        "/api/comparison": _json_of(answers.show_comparison(run)),
    }
    points, rows = {}, set[int]()
    for target in targets:
        told[f"/api/classes/{target}"] = _json_of(answers.show_class(run, target)) | UNSAVED
        told[f"/api/classes/{target}/masks"] = {"masks": []}
        points[f"/api/classes/{target}/points"] = b64encode(answers.show_points(run, target).body).decode()
        rows |= set(choose_images(run, target))
    described = [_json_of(answers.describe_images(run, str(row)))[0] for row in sorted(rows)]
    return {"answers": told, "points": points, "images": {str(one["row"]): one for one in described}}


def _json_of(answer: Response) -> Any:
    return json.loads(bytes(answer.body))


def choose_images(run: ExploredRun, target: int) -> list[int]:
    """Choose images of a class: those with the artifact, those of groups that no verdict names, and others at equal
    steps."""
    seen = (row for group in seen_in_class(run.reader, target) for row in group.rows)
    members = list(dict.fromkeys([*run.decisions.members(target), *seen]))[:MOST_IMAGES]
    others = sorted(set(map(int, run.reader.images().rows_of(target))) - set(members))
    left = MOST_IMAGES - len(members)
    chosen = others if len(others) <= left else others[:: -(-len(others) // left)] if left else []
    return sorted({*members, *chosen})


def draw_pictures(run: ExploredRun, targets: Sequence[int]) -> dict[str, str]:
    """Draw the pictures of the chosen images, as data addresses by row and kind; those that cannot be drawn are left
    out."""
    rows = sorted({row for target in targets for row in choose_images(run, target)})
    return dict(_draw_pictures(run, rows)) | dict(_draw_exceptions(run))


def _draw_pictures(run: ExploredRun, rows: Sequence[int]) -> Iterator[tuple[str, str]]:
    maps, placed = run.maps.exist, run.masks.seen_area is not None
    kinds = ["image", *(["overlay"] if maps and placed else []), *(["relevance"] if maps else [])]
    for row in track(rows, len(rows), "export"):
        for kind in kinds:
            try:
                content = run.pictures.draw(row, kind, SIDES[kind])
            except (ImageError, OSError):
                continue
            yield f"{row} {kind}", data_uri(content, "image/png" if kind == "relevance" else "image/jpeg")


def _draw_exceptions(run: ExploredRun) -> Iterator[tuple[str, str]]:
    for one in list_exceptions(run.reader)["classes"]:
        for row in (*(image["row"] for image in one["exceptions"]), *one["usual"]):
            for kind in ("image", "own"):
                with suppress(ImageError, OSError, UsageError):
                    yield f"{row} {kind}", data_uri(run.pictures.draw(row, kind, SIDES[kind]), "image/jpeg")


def render_page(content: str) -> str:
    """Put style, modules and content into the page of the explorer.

    Args:
        content: JSON.
    """
    from klarsicht.explorer.answers import PAGE, read_static

    files = {name: body.decode() for name, body in read_static().items()}
    modules = {name: _bare_imports(text) for name, text in files.items() if name.endswith(".js")}
    imports = {
        name: f"data:text/javascript;base64,{b64encode(text.encode()).decode()}" for name, text in modules.items()
    }
    inside = content.replace("<", "\\u003c")  # no text of the run can end the element
    head = (
        f"<style>{files['style.css']}</style>\n"
        f'<script type="application/json" id="saved">{inside}</script>\n'
        f'<script type="importmap">{json.dumps({"imports": imports})}</script>\n'
        '<script type="module">import "main.js"</script>\n</head>'
    )
    page = re.sub(r'<(?:link|script)[^>]*(?:href|src)="/static/[^>]*>(?:</script>)?\n', "", files[PAGE])
    return page.replace("</head>", head, 1)


def _bare_imports(text: str) -> str:
    """Let a module import others by bare names, which an import map resolves: an address relative to data is none."""
    return re.sub(r"from '\./([\w.]+)'", r"from '\1'", text)
