"""Printing of lines that may hold names from outside: what cannot be seen in them is escaped."""

from __future__ import annotations

import typer

from klarsicht.ground.names import printable, printable_lines


def echo(line: str = "", err: bool = False) -> None:
    """Print one line to standard output, or to standard error; a line break inside it is escaped."""
    typer.echo(printable(line), err=err)


def echo_block(text: str) -> None:
    """Print a text of several lines, a table or JSON, to standard output."""
    typer.echo(printable_lines(text))
