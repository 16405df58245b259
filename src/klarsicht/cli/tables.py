"""What commands print for people: plain columns, never cut, so that they survive a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from klarsicht.audit.quantify.screening import Screening
    from klarsicht.audit.results.ranking import Ranking
    from klarsicht.audit.results.verdicts import Quantification
    from klarsicht.audit.sensitivity.finetuned_results import Learned
    from klarsicht.audit.sensitivity.power import Power
    from klarsicht.audit.status import Step


BESIDE = ("by plain features",)  # what is named without relevance


def table(header: Sequence[str], lines: Sequence[Sequence[str]], left: Sequence[str]) -> str:
    """Columns two spaces apart; those named in `left` are aligned left, numbers right."""
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]

    def row(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if name in left else cell.rjust(width)
            for cell, width, name in zip(cells, widths, header, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(row, (header, *lines)))


def ranking(found: Ranking, top: int) -> None:
    lines = [
        (str(i), e.name, e.metric, f"{e.z:.2f}", f"{e.shift:+.2f}", f"{e.tau:.2f}", f"{e.size} of {e.n}", e.verdict)
        + ((e.beside,) if found.beside else ())
        for i, e in enumerate(found.entries[:top], 1)
    ]
    header = ("#", "class", "metric", "z", "shift", "tau", "size", "verdict") + (BESIDE if found.beside else ())
    typer.echo(table(header, lines, left=("class", "metric", "verdict", *BESIDE)))


def verdicts(found: Quantification, top: int) -> None:
    lines = [
        (v.name, f"{v.p:.3f}", f"{v.q:.3f}", f"{v.size} of {v.n}", v.sign, f"{v.z:.1f}", f"{v.p_use:.3f}", v.verdict)
        for v in found.verdicts[:top]
    ]
    header = ("class", "p", "q", "size", "sign", "z of use", "p of use", "verdict")
    typer.echo(table(header, lines, left=("class", "sign", "verdict")))
    typer.echo(f"{found.limits[0].upper()}{found.limits[1:]} Either claim at {found.level:g}.")
    for name, why in found.skipped:
        typer.echo(f"not examined: {name}: {why}")


def screening(found: Screening, top: int) -> None:
    entry = found.entry
    typer.echo(f"{entry.name}: {entry.size} of {entry.n} images, by {entry.metric}: {found.verdict}")
    typer.echo(
        f"put on other images it raises the logit by {entry.effect:+.2f} ({entry.effect_low:+.2f} to "
        f"{entry.effect_high:+.2f}), the next output by {entry.effect_runner_up:+.2f}; "
        f"{entry.effect_rank} of {found.outputs} outputs rise more"
    )
    for line in found.standing.told(found.outputs) if found.standing else ():
        typer.echo(line)
    typer.echo(f"p {found.p:.3f}; the claim at {found.level:g}")
    if entry.beside:
        typer.echo(f"plain features, without relevance, name {entry.beside}")
    typer.echo("their labels: " + ", ".join(f"{label} {count}" for label, count in found.labels[:top]))


def power(found: Power) -> None:
    lines = [
        (kind, found.told(kind), *(found.cell(kind, share) for share in found.prevalences)) for kind in found.kinds
    ]
    header = ("kind", "found down to", *(f"{share:.0%}" for share in found.prevalences))
    typer.echo(table(header, lines, left=("kind", "found down to")))
    typer.echo(f"Classes called artifactual at p {found.level:g}, of those planted.")
    if found.learned:
        learned(found.learned)
    else:
        typer.echo("Whether a model would use such an artifact is unknown: --train fine-tunes copies of it to tell.")


def learned(found: Learned) -> None:
    lines = [
        (kind, found.told(kind), *(found.cell(kind, share) for share in found.prevalences)) for kind in found.kinds
    ]
    header = ("kind", "called poisoned down to", *(f"{share:.0%}" for share in found.prevalences))
    typer.echo()
    typer.echo(table(header, lines, left=("kind", "called poisoned down to")))
    typer.echo("Called poisoned/learned of planted; the limit is that of those that were learned.")
    for note in found.notes():
        typer.echo(note)


def steps(found: Sequence[Step]) -> None:
    lines = [(step.name, str(step.done), str(step.units), "complete" if step.complete else "") for step in found]
    typer.echo(table(("step", "done", "of", "state"), lines, left=("step", "state")))
