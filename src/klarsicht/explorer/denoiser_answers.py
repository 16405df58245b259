"""Answers of the explorer about an audit of a denoiser, one for each address of `app.DENOISER_ROUTES`."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.responses import Response
from pydantic import Field

from klarsicht.explorer.answers import STATIC, answer_bytes, answer_json
from klarsicht.explorer.denoiser_strategies import DenoiserStrategies

PAGE: Final = "strategies.html"
MODULE: Final = "strategies.js"
SHARED: Final = {name: STATIC[name] for name in ("style.css", "icon.svg", "elements.js", "requests.js")}
SERVED: Final = {MODULE: "text/javascript", **SHARED}
"""Files of the page, with their types; no other file of the package can be asked for."""


async def strategies_of(request: Request) -> DenoiserStrategies:
    strategies: DenoiserStrategies = request.app.state.run
    return strategies


Strategies = Annotated[DenoiserStrategies, Depends(strategies_of)]
Number = Annotated[int, Field(ge=0, lt=2**31)]


@cache
def read_file(name: str) -> bytes:
    """Read a file of the page."""
    return (files("klarsicht.explorer") / "static" / name).read_bytes()


def show_page() -> Response:
    return answer_bytes(read_file(PAGE), "text/html; charset=utf-8")


def show_static(name: str) -> Response:
    if name not in SERVED:
        return answer_json({"error": "no such file"}, 404)
    return answer_bytes(read_file(name), f"{SERVED[name]}; charset=utf-8")


def show_strategies(strategies: Strategies) -> Response:
    return answer_json(strategies.facts | {"shapes": strategies.shapes, "folder": str(strategies.folder.resolve())})


def show_picture(strategies: Strategies, number: Number) -> Response:
    return answer_bytes(strategies.draw_picture(number), "image/png")


def show_labels(strategies: Strategies, number: Number) -> Response:
    return answer_bytes(strategies.read_labels(number), "application/octet-stream")
