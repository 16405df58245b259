"""Printing of lines that may hold names from outside: what cannot be seen in them is escaped."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import typer

from klarsicht.ground.names import printable, printable_lines
from klarsicht.ground.progress import hear


def echo(line: str = "", err: bool = False) -> None:
    """Print one line to standard output, or to standard error; a line break inside it is escaped."""
    hear()
    typer.echo(printable(line), err=err)


def echo_block(text: str) -> None:
    """Print a text of several lines, a table or JSON, to standard output."""
    hear()
    typer.echo(printable_lines(text))


def echo_json(content: Any) -> None:
    """Print plain values as JSON to standard output."""
    echo_block(json.dumps(content, indent=2))


def echo_result(result: Any, as_json: bool, table: Callable[..., None], *arguments: Any) -> None:
    """Print a result as JSON, or by a function of it and further arguments."""
    if as_json:
        echo_json(result.to_json())
    else:
        table(result, *arguments)
