"""The explorer's web application: its table of routes, and the answers that tell errors."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from klarsicht.explorer import answers, denoiser_answers
from klarsicht.explorer.answers import answer_json
from klarsicht.explorer.denoiser_strategies import DenoiserStrategies
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground import errors

ROUTES: Final = (
    ("GET", "/", answers.show_page),
    ("GET", "/static/{name}", answers.show_static),
    ("GET", "/favicon.ico", answers.show_icon),
    ("GET", "/api/run", answers.show_run),
    ("GET", "/api/progress", answers.show_progress),
    ("GET", "/api/findings", answers.show_findings),
    ("GET", "/api/exceptions", answers.show_exceptions),
    ("GET", "/api/corrections", answers.show_corrections),
    ("GET", "/api/comparison", answers.show_comparison),
    ("GET", "/api/classes", answers.list_classes),
    ("GET", "/api/classes/{target}", answers.show_class),
    ("GET", "/api/classes/{target}/points", answers.show_points),
    ("GET", "/api/classes/{target}/masks", answers.show_masks),
    ("GET", "/api/classes/{target}/history", answers.show_history),
    ("GET", "/api/classes/{target}/members.txt", answers.save_members),
    ("GET", "/api/classes/{target}/masks.zip", answers.save_masks),
    ("GET", "/api/classes/{target}/coco.json", answers.save_coco),
    ("GET", "/api/images", answers.describe_images),
    ("GET", "/api/images/{row}/picture", answers.show_picture),
    ("POST", "/api/mean", answers.show_mean),
    ("POST", "/api/decisions", answers.decide),
    ("POST", "/api/undo", answers.undo),
)
"""Method, path and function of every address."""


DENOISER_ROUTES: Final = (
    ("GET", "/", denoiser_answers.show_page),
    ("GET", "/static/{name}", denoiser_answers.show_static),
    ("GET", "/favicon.ico", answers.show_icon),
    ("GET", "/api/strategies", denoiser_answers.show_strategies),
    ("GET", "/api/bursts/{number}/picture", denoiser_answers.show_picture),
    ("GET", "/api/bursts/{number}/labels", denoiser_answers.show_labels),
)
"""The same of an audit of a denoiser."""

STATUSES: Final = {
    errors.ImageError: 404,
    errors.UsageError: 400,
    errors.RunDamaged: 410,
    errors.RunLocked: 409,
    errors.StoreError: 409,
    errors.MissingExtra: 501,
    errors.KlarsichtError: 422,
}
"""Status of an answer that tells an error, by the first class that it is of."""


def make_app(run: ExploredRun) -> FastAPI:
    """Make the application for a run. It answers whoever reaches it: `request_guard` decides who does."""
    answers.read_static()
    return _make_app(run, ROUTES)


def make_denoiser_app(strategies: DenoiserStrategies) -> FastAPI:
    """Make the application for an audit of a denoiser, as `make_app`."""
    return _make_app(strategies, DENOISER_ROUTES)


def _make_app(content: ExploredRun | DenoiserStrategies, routes: tuple[tuple[str, str, Any], ...]) -> FastAPI:
    app = FastAPI(title="klarsicht audit explore", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.run = content
    for method, path, answer in routes:
        app.add_api_route(path, answer, methods=[method], response_model=None)
    for kind, answer_fault in FAULTS.items():
        app.add_exception_handler(kind, answer_fault)
    return app


def status_of(error: errors.KlarsichtError) -> int:
    """Return the status of an answer that tells an error."""
    return next(status for kind, status in STATUSES.items() if isinstance(error, kind))


async def _answer_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, errors.KlarsichtError)
    return answer_json({"error": error.with_options}, status_of(error))


async def _answer_refusal(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return answer_json({"error": str(error.detail)}, error.status_code)


async def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(map(str, first.get("loc", ())))
    return answer_json({"error": f"{where}: {first.get('msg', 'not valid')}"}, 422)


async def _answer_fault(_: Request, error: Exception) -> Response:
    """Tell the page of a fault of klarsicht itself: the server prints nothing of a request."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    told = f"a fault of klarsicht itself: {type(error).__name__}: {error} ({where}). Please report it."
    return answer_json({"error": told}, 500)


FAULTS: Final = {
    errors.KlarsichtError: _answer_error,
    RequestValidationError: _answer_invalid,
    HTTPException: _answer_refusal,
    Exception: _answer_fault,
}
"""What answers an error of each class."""
