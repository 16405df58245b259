"""Printing of lines that may hold names from outside: what cannot be seen in them is escaped."""

from __future__ import annotations

import typer

from klarsicht.ground.names import printable, printable_lines
from klarsicht.ground.progress import end_loading


def echo(line: str = "", err: bool = False) -> None:
    """Print one line to standard output, or to standard error; a line break inside it is escaped."""
    end_loading()
    typer.echo(printable(line), err=err)


def echo_block(text: str) -> None:
    """Print a text of several lines, a table or JSON, to standard output."""
    end_loading()
    typer.echo(printable_lines(text))
