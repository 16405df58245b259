"""Answers of the explorer: for each address of `app.ROUTES` one about a run, or a decision that a page sends. Arguments
are parts of the request, which FastAPI reads and checks by their annotations."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from klarsicht.audit.results.seen_groups import NOT_TESTED
from klarsicht.audit.results.verdict_lines import VERDICT_COLUMNS
from klarsicht.explorer import coco, corrections, findings, point_clouds
from klarsicht.explorer.class_evidence import describe_shortcuts, guess_names, seen_in_class
from klarsicht.explorer.compared_run import list_comparison
from klarsicht.explorer.exceptional_images import describe_surroundings, list_exceptions
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.names import printable, printable_lines
from klarsicht.ground.ranges import parse_digits
from klarsicht.ground.run_folder.decisions import MAX_NAME, MAX_NOTE

STATIC: Final = {
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        ("main.js", "elements.js", "requests.js", "virtual.js", "classes.js", "class_page.js", "scatter.js",
         "lasso.js", "gallery.js", "findings.js", "exceptions.js", "corrections.js", "comparison.js"),
        "text/javascript",
    ),
}  # fmt: skip
"""Files of the pages, with their types; no other file of the package can be asked for."""
PAGE: Final = "index.html"
MAX_SIDE, MAX_ROWS_NAMED = 2048, 500
NOT_KEPT: Final = {"cache-control": "no-store"}


async def run_of(request: Request) -> ExploredRun:
    run: ExploredRun = request.app.state.run
    return run


Run = Annotated[ExploredRun, Depends(run_of)]
Row = Annotated[int, Field(ge=0, lt=2**31)]
Target = Annotated[int, Field(ge=0, lt=2**31)]
Side = Annotated[int, Query(ge=16, le=MAX_SIDE)]


class RequestBody(BaseModel):
    """Body of a request; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class DecisionRequest(RequestBody):
    """Decision on a class; see ClassDecisions.decide."""

    target: Target
    decision: Literal["artifact", "legitimate", "unsure", ""] | None = None
    artifact: Annotated[str, Field(max_length=MAX_NAME)] | None = None
    note: Annotated[str, Field(max_length=MAX_NOTE)] | None = None
    add: list[Row] = []
    remove: list[Row] = []


class UndoRequest(RequestBody):
    """Number of a record that is to count no more."""

    number: Row


class RowsRequest(RequestBody):
    """Images of a selection."""

    rows: list[Row]
    side: Annotated[int, Field(ge=16, le=MAX_SIDE)] = 224


@cache
def read_static() -> dict[str, bytes]:
    """Read the files of the pages, all at once: those of one version."""
    folder = files("klarsicht.explorer") / "static"
    return {name: (folder / name).read_bytes() for name in (PAGE, *STATIC)}


def show_page() -> Response:
    return answer_bytes(read_static()[PAGE], "text/html; charset=utf-8")


def show_static(name: str) -> Response:
    if name not in STATIC:
        return answer_json({"error": "no such file"}, 404)
    return answer_bytes(read_static()[name], f"{STATIC[name]}; charset=utf-8")


def show_icon() -> Response:
    """Answer the question of a page that names no icon."""
    return show_static("icon.svg")


def show_run(run: Run) -> Response:
    manifest = run.reader.manifest
    settings = manifest["settings"]
    return answer_json(
        {
            "model": settings["model"],
            "data": run.reader.data or manifest.get("data", ""),
            "target": settings["target"],
            "metrics": settings["metric"],
            "created": manifest["created"],
            "version": manifest["klarsicht"],
            "author": run.decisions.author,
            "folder": str(run.reader.store.path.resolve()),
            "maps": run.maps.exist,
            "overlay": run.maps.exist and run.masks.seen_area is not None,
            "names": run.reader.names,
            "saved": False,
        }
    )


def show_progress(run: Run) -> Response:
    return answer_json(state_of(run) | {"steps": run.reader.list_steps()})


def show_findings(run: Run) -> Response:
    return answer_json(asdict(findings.list_findings(run)))


def show_exceptions(run: Run) -> Response:
    return answer_json(list_exceptions(run.reader))


def show_corrections(run: Run) -> Response:
    return answer_json(corrections.list_corrections(run))


def show_comparison(run: Run) -> Response:
    return answer_json(list_comparison(run))


def list_classes(run: Run) -> Response:
    state = state_of(run) | {"surroundings": describe_surroundings(run.reader)}  # before what it counts is read
    decided, lines = run.decisions.by_target(), run.results.lines()
    listed = [line.to_json() | {"decided": decision_json(run, target)} for target, line in lines.items()]
    others = [target for target in decided if target not in lines]
    headings = {name: column.heading for name, column in VERDICT_COLUMNS.items()}
    return answer_json(state | {"headings": headings, "classes": listed, "decided_elsewhere": others})


def show_class(run: Run, target: Target, metric: str = "") -> Response:
    cloud, line = point_clouds.read_points(run, target, metric), run.results.line(target)
    return answer_json(
        line.to_json()
        | {
            "decided": decision_json(run, target),
            "members": list(run.decisions.members(target)),
            "found": list(line.found),
            "metrics": run.results.metrics(target),
            "eigenvalues": cloud.eigenvalues,
            "eigengap": cloud.eigengap,
            "points": len(cloud.rows),
            "windows": len(run.results.windows(target)),
            "hints": run.maps.are_hints,
            "overlays": sorted(run.results.drawn_overlays(target)),
            "seen": [{"headline": one.headline, "rows": list(one.rows)} for one in seen_in_class(run.reader, target)],
            "not_tested": NOT_TESTED,
            "shortcuts": describe_shortcuts(run.reader, target),
            "names": guess_names(run.reader, target),
        }
    )


def show_points(run: Run, target: Target, metric: str = "") -> Response:
    return answer_bytes(point_clouds.encode_points(run, target, metric), "application/octet-stream")


def show_masks(run: Run, target: Target) -> Response:
    return answer_json({"masks": list(run.masks.by_source(target))})


def show_history(run: Run, target: Target) -> Response:
    records = run.decisions.log.records()
    mine = {record["number"] for record in records if record.get("target") == target}
    return answer_json([record for record in records if record["number"] in mine or record.get("undo") in mine])


def save_members(run: Run, target: Target) -> Response:
    images = run.reader.images()
    text = "".join(f"{images.key(row)}\n" for row in run.decisions.members(target))
    content = text.encode("utf-8", "surrogateescape")
    return answer_bytes(content, "text/plain; charset=utf-8", f"members-{target}.txt")


def save_masks(run: Run, target: Target, source: str = "") -> Response:
    return answer_bytes(coco.zip_masks(run, target, source), "application/zip", f"masks-{target}.zip")


def save_coco(run: Run, target: Target, source: str = "") -> Response:
    content = json.dumps(coco.describe_classes(run, [target], source)).encode()
    return answer_bytes(content, "application/json", f"coco-{target}.json")


def describe_images(run: Run, rows: Annotated[str, Query(max_length=12 * MAX_ROWS_NAMED)]) -> Response:
    numbers = [number for text in rows.split(",") if (number := parse_digits(text)) is not None][:MAX_ROWS_NAMED]
    described = run.reader.images().describe(numbers, run.reader.names)
    bounds = run.maps.bounds(numbers) if numbers and run.maps.exist else [None] * len(numbers)
    return answer_json([image | {"bound": bound} for image, bound in zip(described, bounds, strict=True)])


def show_picture(
    run: Run, row: Row, kind: str = "image", side: Side = 96, target: Target | None = None, source: str = ""
) -> Response:
    content = run.pictures.draw(row, kind, side, target, source)
    media = "image/png" if content[:4] == b"\x89PNG" else "image/jpeg"
    return Response(content, media_type=media, headers={"cache-control": "private, max-age=600"})


def show_mean(run: Run, request: RowsRequest) -> Response:
    content, count = run.maps.draw_mean(request.rows, request.side)
    return Response(content, media_type="image/png", headers=NOT_KEPT | {"x-images": str(count)})


def decide(run: Run, request: DecisionRequest) -> Response:
    fields = request.model_dump(exclude={"target"})
    return answer_record(run, run.decisions.decide(request.target, **fields), request.target)


def undo(run: Run, request: UndoRequest) -> Response:
    log = run.decisions.log
    number = log.undo(request.number, run.decisions.author)
    return answer_record(run, number, log.records()[request.number]["target"])


def answer_record(run: ExploredRun, number: int, target: int) -> Response:
    """Tell the number of a record and the decision on its class."""
    return answer_json({"number": number, "target": target, "decided": decision_json(run, target)})


def state_of(run: ExploredRun) -> dict[str, Any]:
    """Return texts and numbers that change with the results of a run, and with the decisions on it."""
    return {"revision": run.results.revision, "records": run.decisions.record_count}


def decision_json(run: ExploredRun, target: int) -> dict[str, Any] | None:
    """Return the decision on a class, with numbers of members in place of rows; None without a decision."""
    decision = run.decisions.by_target().get(target)
    if decision is None:
        return None
    members = None if decision.members is None else len(decision.members)
    return decision.to_json() | {"members": members, "removed": len(decision.removed)}


def answer_bytes(content: bytes, media: str, name: str = "") -> Response:
    """Answer with bytes of a media type; with a name, they are saved as a file."""
    saved = {"content-disposition": f'attachment; filename="{name}"'} if name else {}
    return Response(content, media_type=media, headers=NOT_KEPT | saved)


def answer_json(content: Any, status: int = 200) -> Response:
    """Answer with JSON in which every text is printable; numbers that JSON does not have are null."""
    text = json.dumps(as_json(content), allow_nan=False)
    return Response(text.encode(), status, media_type="application/json", headers=NOT_KEPT)


def as_json(content: Any) -> Any:
    """Make content that JSON can hold, of printable texts; notes of a person keep their lines."""
    if isinstance(content, dict):
        return {
            str(name): printable_lines(value) if name == "note" and isinstance(value, str) else as_json(value)
            for name, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [as_json(value) for value in content]
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, float) and not abs(content) < float("inf"):
        return None
    return content
