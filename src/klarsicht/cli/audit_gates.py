"""Commands of `klarsicht audit` for pipelines: stop on a finding, and compare two runs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from klarsicht.cli.echo import echo, echo_block, echo_json
from klarsicht.cli.options import AsJson, RunFolder, Top
from klarsicht.cli.tables import table
from klarsicht.ground.errors import AlarmRaised
from klarsicht.ground.machine.disk import write_atomically
from klarsicht.ground.run_folder.store import RunStore

if TYPE_CHECKING:
    from klarsicht.audit.results.alarms import Alarm

CAUSE_NAMES: Final = "relies, artifact, shortcut, leak, label, harm"  # help loads no module that reads a run
FAIL_HELP = f"Causes to stop for, separated by commas: {CAUSE_NAMES}. [all that the run was asked for]"
COMPARED_HELP = f"Causes to compare, separated by commas: {CAUSE_NAMES}. [all that both runs were asked for]"
SINCE_HELP = "An earlier run: only alarms that it did not raise count."
Causes = Annotated[str, typer.Option("--fail-on", help=FAIL_HELP)]


def gate(
    run: RunFolder,
    fail_on: Causes = "",
    since: Annotated[Path | None, typer.Option(help=SINCE_HELP)] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the alarms as JUnit XML to this file.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Write the alarms as SARIF to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Stop a pipeline on a finding, by exit code.

    A finding that a person marked as legitimate in the explorer does not count. A cause that the run was not asked for
    is an error: what was not tested does not pass.
    """
    from klarsicht.audit.results.alarm_files import to_junit, to_sarif
    from klarsicht.audit.results.alarms import CAUSES, asked_causes, compare_runs, read_alarms

    store = RunStore.open(run)
    causes = split_causes(fail_on) or asked_causes(store)
    alarms = read_alarms(store, causes) if since is None else compare_runs(RunStore.open(since), store, causes).new
    for file, write in ((junit, to_junit), (sarif, to_sarif)):
        if file is not None:
            write_atomically(file, write(alarms, causes).encode())
    if as_json:
        echo_json({"causes": list(causes), "alarms": [asdict(alarm) for alarm in alarms]})
    else:
        print_alarms([("accepted" if alarm.accepted_by else "alarm", alarm) for alarm in alarms])
    if open_alarms := [alarm for alarm in alarms if not alarm.accepted_by]:
        counts = [f"{sum(alarm.cause == cause for alarm in open_alarms)} {cause}" for cause in causes]
        worst = CAUSES[open_alarms[0].cause]
        raise AlarmRaised("the gate is closed", got=", ".join(counts), exit_code=worst.exit_code)
    echo(f"The gate is open: no alarm for {', '.join(causes)}.", err=as_json)


def compare(
    before: Annotated[Path, typer.Argument(help="A run folder.")],
    after: Annotated[Path, typer.Argument(help="Another run: of another model, or of other data.")],
    causes: Annotated[str, typer.Option(help=COMPARED_HELP)] = "",
    as_json: AsJson = False,
    top: Top = 20,
) -> None:
    """List findings of two runs: new, gone, same.

    An artifact is the same if its class is, and at least half of its images.
    """
    from klarsicht.audit.results.alarms import compare_runs

    comparison = compare_runs(RunStore.open(before), RunStore.open(after), split_causes(causes))
    if as_json:
        echo_json(comparison.to_json())
        return
    print_alarms([(state, alarm) for state, alarms in comparison.by_state().items() for alarm in alarms][:top])
    echo(comparison.describe())


def split_causes(text: str) -> tuple[str, ...]:
    """Split names at commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def print_alarms(rows: list[tuple[str, Alarm]]) -> None:
    """Print alarms, each with its state."""
    if rows:
        header = ("state", "cause", "class or image", "images")
        lines = [(state, one.cause, one.subject, str(len(one.images) or "")) for state, one in rows]
        echo_block(table(header, lines, left_aligned=header[:3]))
    for _, alarm in rows:
        echo(f"- {alarm.message}")
