"""Commands of `klarsicht audit` that show a run in a browser and export it."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from klarsicht.cli.echo import echo
from klarsicht.cli.options import number
from klarsicht.ground.ranges import PORT

RunFolder = Annotated[Path, typer.Argument(help="A run folder written by `audit run`, also while it is written.")]
DataNow = Annotated[str | None, typer.Option(help="Present place of the corpus, if it moved.")]
AuthorName = Annotated[
    str | None, typer.Option(help="Name of the person who decides, stored in each record. [your user name]")
]


def explore(
    run: RunFolder,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback it needs a token.")] = "127.0.0.1",
    port: Annotated[int, number(PORT, "Port to listen on; 0: any free one.")] = 8735,
    token: Annotated[
        bool, typer.Option("--token", help="Ask for a token on loopback, too: other users of this machine reach it.")
    ] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    author: AuthorName = None,
    data: DataNow = None,
) -> None:
    """Show a run in the browser, and record decisions.

    Shows classes with their verdicts, embeddings and images. Ctrl-C ends it.
    """
    from klarsicht.explorer.serve import serve_run

    serve_run(
        run, host=host, port=port, author=author or user_name(), data=data, token=token, browser=browser,
        tell=lambda address: echo(f"open {address} (Ctrl-C ends)"),
    )  # fmt: skip


def export(
    run: RunFolder,
    to: Annotated[str, typer.Option(help="csv, parquet, coco, virelay, fiftyone or atlas.")],
    out: Annotated[
        Path | None, typer.Option(help="A new file, or folder for virelay and fiftyone. [the format's own name]")
    ] = None,
    name: Annotated[list[str] | None, typer.Option("--class", help="Only this class; may be repeated. [all]")] = None,
    data: DataNow = None,
) -> None:
    """Export findings and decisions of a run for other programs."""
    from klarsicht.explorer.export import export_run

    echo(str(export_run(run, to, out, classes=name or (), data=data)))


def user_name() -> str:
    """Return the name of the user of this process, or "unknown"."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"
