"""The explorer's web application: pages from files of this package, answers about one run, and decisions on it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from klarsicht.explorer import coco, corrections
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.explorer.findings import list_findings
from klarsicht.ground.errors import (
    ImageError,
    KlarsichtError,
    MissingExtra,
    RunDamaged,
    RunLocked,
    StoreError,
    UsageError,
)
from klarsicht.ground.names import printable, printable_lines
from klarsicht.ground.ranges import parse_digits
from klarsicht.ground.run_folder.decisions import MAX_NAME, MAX_NOTE

STATIC: Final = {
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    **dict.fromkeys(
        ("main.js", "elements.js", "requests.js", "virtual.js", "classes.js", "class_page.js", "scatter.js",
         "lasso.js", "gallery.js", "findings.js", "corrections.js"),
        "text/javascript",
    ),
}  # fmt: skip
"""Files of the pages, with their types; no other file of the package can be asked for."""
MAX_SIDE, MAX_ROWS_NAMED = 2048, 500
Row = Annotated[int, Field(ge=0, lt=2**31)]
Target = Annotated[int, Field(ge=0, lt=2**31)]
Side = Annotated[int, Query(ge=16, le=MAX_SIDE)]


class RequestBody(BaseModel):
    """Body of a request; an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class DecisionRequest(RequestBody):
    """Decision on a class; see ExploredRun.decide."""

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


def make_app(run: ExploredRun) -> FastAPI:
    """Make the application for a run. It answers whoever reaches it: `request_guard` decides who does."""
    app = FastAPI(title="klarsicht audit explore", docs_url=None, redoc_url=None, openapi_url=None)
    static = files("klarsicht.explorer") / "static"
    contents = {name: (static / name).read_bytes() for name in STATIC}
    page = (static / "index.html").read_bytes()

    app.add_exception_handler(KlarsichtError, _answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_refusal)
    app.add_exception_handler(Exception, _answer_fault)

    def get(path: str, answer: Callable[..., Any]) -> None:
        app.add_api_route(path, answer, methods=["GET"], response_model=None)

    def post(path: str, answer: Callable[..., Any]) -> None:
        app.add_api_route(path, answer, methods=["POST"], response_model=None)

    def show_page() -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers=_NOT_KEPT)

    def show_static(name: str) -> Response:
        if name not in contents:
            return answer_json({"error": "no such file"}, 404)
        return Response(contents[name], media_type=f"{STATIC[name]}; charset=utf-8", headers=_NOT_KEPT)

    def show_run() -> Response:
        manifest = run.manifest
        settings = manifest["settings"]
        return answer_json(
            {
                "model": settings["model"],
                "data": run.data or manifest.get("data", ""),
                "target": settings["target"],
                "metrics": settings["metric"],
                "created": manifest["created"],
                "version": manifest["klarsicht"],
                "author": run.author,
                "folder": str(run.store.path.resolve()),
                "maps": run.has_maps,
                "overlay": run.has_maps and run.seen_area is not None,
                "names": run.names,
            }
        )

    def show_progress() -> Response:
        return answer_json({"revision": run.revision, "records": run.record_count, "steps": run.progress()})

    def list_classes() -> Response:
        progress = {"revision": run.revision, "records": run.record_count}  # before what they count is read
        decisions = run.decisions()
        found = [line.to_json() | {"decided": decision_json(run, line.target)} for line in run.lines().values()]
        others = [target for target in decisions if target not in run.lines()]
        return answer_json(progress | {"classes": found, "decided_elsewhere": others})

    def show_class(target: Target, metric: str = "") -> Response:
        cloud, line = run.points(target, metric), run.line(target)
        return answer_json(
            line.to_json()
            | {
                "decided": decision_json(run, target),
                "members": list(run.members(target)),
                "found": list(line.found),
                "metrics": run.metrics(target),
                "eigenvalues": cloud.eigenvalues,
                "eigengap": cloud.eigengap,
                "points": len(cloud.rows),
                "windows": len(run.windows(target)),
                "hints": run.maps_are_hints,
            }
        )

    def show_masks(target: Target) -> Response:
        return answer_json({"masks": list(run.masks(target))})

    def show_points(target: Target, metric: str = "") -> Response:
        return Response(run.point_bytes(target, metric), media_type="application/octet-stream", headers=_NOT_KEPT)

    def describe_images(rows: Annotated[str, Query(max_length=12 * MAX_ROWS_NAMED)]) -> Response:
        numbers = [number for text in rows.split(",") if (number := parse_digits(text)) is not None][:MAX_ROWS_NAMED]
        return answer_json(run.images().describe(numbers, run.names))

    def show_picture(
        row: Row, kind: str = "image", side: Side = 96, target: Target | None = None, source: str = ""
    ) -> Response:
        content = run.draw(row, kind, side, target, source)
        media = "image/png" if content[:4] == b"\x89PNG" else "image/jpeg"
        return Response(content, media_type=media, headers={"cache-control": "private, max-age=600"})

    def show_mean(request: RowsRequest) -> Response:
        content, count = run.mean_relevance(request.rows, request.side)
        return Response(content, media_type="image/png", headers=_NOT_KEPT | {"x-images": str(count)})

    def decide(request: DecisionRequest) -> Response:
        number = run.decide(
            request.target, decision=request.decision, artifact=request.artifact, note=request.note, add=request.add,
            remove=request.remove,
        )  # fmt: skip
        return answer_record(number, request.target)

    def undo(request: UndoRequest) -> Response:
        number = run.log.undo(request.number, run.author)
        return answer_record(number, run.log.records()[request.number]["target"])

    def answer_record(number: int, target: int) -> Response:
        return answer_json({"number": number, "target": target, "decided": decision_json(run, target)})

    def show_history(target: Target) -> Response:
        records = run.log.records()
        mine = {record["number"] for record in records if record.get("target") == target}
        kept = [record for record in records if record["number"] in mine or record.get("undo") in mine]
        return answer_json(kept)

    def save_members(target: Target) -> Response:
        images = run.images()
        text = "".join(f"{images.key(row)}\n" for row in run.members(target))
        return Response(
            text.encode("utf-8", "surrogateescape"),
            media_type="text/plain; charset=utf-8",
            headers=_NOT_KEPT | {"content-disposition": f'attachment; filename="members-{target}.txt"'},
        )

    def save_masks(target: Target, source: str = "") -> Response:
        headers = _NOT_KEPT | {"content-disposition": f'attachment; filename="masks-{target}.zip"'}
        return Response(coco.zip_masks(run, target, source), media_type="application/zip", headers=headers)

    def save_coco(target: Target, source: str = "") -> Response:
        headers = _NOT_KEPT | {"content-disposition": f'attachment; filename="coco-{target}.json"'}
        content = json.dumps(coco.describe_classes(run, [target], source)).encode()
        return Response(content, media_type="application/json", headers=headers)

    def show_findings() -> Response:
        return answer_json(list_findings(run).to_json())

    def show_corrections() -> Response:
        return answer_json(corrections.list_corrections(run))

    get("/", show_page)
    get("/static/{name}", show_static)
    get("/favicon.ico", lambda: show_static("icon.svg"))  # of pages that name no icon
    get("/api/run", show_run)
    get("/api/progress", show_progress)
    get("/api/classes", list_classes)
    get("/api/classes/{target}", show_class)
    get("/api/classes/{target}/points", show_points)
    get("/api/classes/{target}/masks", show_masks)
    get("/api/classes/{target}/history", show_history)
    get("/api/classes/{target}/members.txt", save_members)
    get("/api/classes/{target}/masks.zip", save_masks)
    get("/api/classes/{target}/coco.json", save_coco)
    get("/api/images", describe_images)
    get("/api/images/{row}/picture", show_picture)
    get("/api/findings", show_findings)
    get("/api/corrections", show_corrections)
    post("/api/mean", show_mean)
    post("/api/decisions", decide)
    post("/api/undo", undo)
    return app


_NOT_KEPT: Final = {"cache-control": "no-store"}


def decision_json(run: ExploredRun, target: int) -> dict[str, Any] | None:
    """Return the decision on a class without its rows, whose numbers of members are told; None without a decision."""
    decision = run.decisions().get(target)
    if decision is None:
        return None
    members = None if decision.members is None else len(decision.members)
    return decision.to_json() | {"members": members, "removed": len(decision.removed)}


def answer_json(content: Any, status: int = 200) -> Response:
    """Answer with JSON in which every text is printable; numbers that JSON does not have are null."""
    text = json.dumps(as_json(content), allow_nan=False)
    return Response(text.encode(), status, media_type="application/json", headers=_NOT_KEPT)


def as_json(content: Any) -> Any:
    """Make content that JSON can hold, with texts as `names.printable` shows them; notes of a person keep their
    lines."""
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


def status_of(error: KlarsichtError) -> int:
    """Return the status of an answer that tells an error."""
    if isinstance(error, ImageError):
        return 404
    if isinstance(error, UsageError):
        return 400
    if isinstance(error, RunDamaged):
        return 410
    if isinstance(error, RunLocked | StoreError):
        return 409
    return 501 if isinstance(error, MissingExtra) else 422


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, KlarsichtError)
    return answer_json({"error": str(error)}, status_of(error))


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer_json({"error": str(error.detail)}, error.status_code)


async def _answer_fault(_: Request, error: Exception) -> Response:
    """Tell the page of a fault of klarsicht itself: the server prints nothing of a request."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    told = f"a fault of klarsicht itself: {type(error).__name__}: {error} ({where}). Please report it."
    return answer_json({"error": told}, 500)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(map(str, first.get("loc", ())))
    return answer_json({"error": f"{where}: {first.get('msg', 'not valid')}"}, 422)
