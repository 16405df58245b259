"""`klarsicht audit stability`: how alike relevance stays when the noise of images is added again and taken off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.cli.echo import echo, echo_block, echo_json
from klarsicht.cli.options import AsJson, Data, Device, RunFolder, Top, Trust, number
from klarsicht.cli.places import require_run_with_model
from klarsicht.cli.tables import table
from klarsicht.ground import ranges


def stability(
    run: RunFolder,
    images: Annotated[
        int, number(ranges.STABILITY_IMAGES, "Images of each class; each is explained three times.")
    ] = 10,
    noise: Annotated[
        str | None,
        typer.Option(help="READ,SHOT of every image: deviation, and variance at white. [estimated from each]"),
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="A network's file, the denoiser. [the one that ships]")
    ] = None,
    seed: Annotated[int, number(ranges.SEED, "Draws images and noise.")] = 0,
    data: Data = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
    top: Top = 20,
) -> None:
    """Measure how stable explanations are under noise.

    The relevance of some images is compared with that of the same images with more of their noise, and without it. The
    report gets the results.
    """
    require_run_with_model(run, data)
    from klarsicht.audit.results.stability import STABILITY_COLUMNS
    from klarsicht.bridge.explanation_stability import measure_stability
    from klarsicht.burst.noise.sources import parse_noise

    level = None if noise is None else parse_noise(noise)
    result = measure_stability(
        run, images=images, noise=level, checkpoint=checkpoint or "swift", seed=seed, data=data, device=device
    )
    if as_json:
        echo_json(result.to_json())
        return
    echo_block(table(tuple(STABILITY_COLUMNS), [one.texts for one in result.classes[:top]], left_aligned=("class",)))
    echo(result.cost)
