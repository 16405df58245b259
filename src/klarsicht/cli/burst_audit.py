"""`klarsicht burst audit`, and the map of strategies on the page of `klarsicht burst denoise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from klarsicht.cli.burst_photographs import BY_NETWORK, MEMORY, make_settings
from klarsicht.cli.echo import echo, echo_block, echo_json
from klarsicht.cli.options import AsJson, add_options, number
from klarsicht.cli.tables import table
from klarsicht.ground import ranges

BURSTS_HELP = "Folders, each with the photographs of one scene, or .npz files of `burst synth`."


@add_options(BY_NETWORK | MEMORY, make_settings)
def audit(
    bursts: Annotated[list[Path], typer.Argument(help=BURSTS_HELP)],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new folder for maps, arrays and a page.")],
    points: Annotated[int, number(ranges.KERNEL_POINTS, "Pixels drawn for the clusters, of all bursts.")] = 1500,
    seed: Annotated[int, number(ranges.SEED, "Draws these pixels.")] = 0,
    as_json: AsJson = False,
    *,
    settings: Any,
) -> None:
    """Find the strategies of a denoiser.

    The weights of many pixels are clustered as an audit clusters relevance. A map of each burst shows the strategies,
    and what was copied from a moved object.
    """
    from klarsicht.bridge import denoiser_audit

    result = denoiser_audit.audit_bursts(bursts, out, settings, points, seed)
    if as_json:
        echo_json(result.to_json())
        return
    echo_block(table(denoiser_audit.HEADER, result.rows, left_aligned=("strategy",)))
    for line in result.lines:
        echo(line)
    echo(f"page: {out / 'page.html'}")
