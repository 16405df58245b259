"""Commands of `klarsicht audit` that say what classes hold, and what the model uses of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from klarsicht.audit.explanation.settings import ANY_DEVICE, LOCAL_ENGINE
from klarsicht.cli import tables
from klarsicht.cli.echo import echo, echo_json, echo_result
from klarsicht.cli.options import (
    AsJson,
    Data,
    Device,
    EngineText,
    RunFolder,
    ShardText,
    Top,
    Trust,
    Workers,
    number,
)
from klarsicht.cli.places import require_run_with_model, split_run
from klarsicht.ground import ranges
from klarsicht.ground.errors import InputError, TooManySkipped
from klarsicht.ground.run_folder.store import RunStore

POWER_HELP = "An artifact to plant, a kind or family of `audit plant`; may be repeated. [all kinds, no family]"
REGION_HELP = (
    "Region whose inside and outside are compared. A mask file, bright inside; a CSV with columns path,mask; or "
    "file.py:callable, from a picture to its mask. [the half of the frame where aligned pictures are most alike]"
)
REFERENCE_HELP = (
    "Folder with a sub-folder for each class of other pictures of the same apparatus. A part is only flagged if it "
    "identifies a class better than any of these."
)
PICTURES_HELP = "A run folder with results of `audit quantify` or `audit shortcuts`, then pictures or folders."


def rank(
    run: RunFolder,
    as_json: AsJson = False,
    top: Top = 20,
    by_z: Annotated[
        bool, typer.Option("--by-z", help="The clusters and the order of `audit run`, by z alone, an observation.")
    ] = False,
) -> None:
    """Print the classes of a run, most suspect first.

    The last line says in which order.
    """
    from klarsicht.audit.results import ranking

    entries = ranking.read_ranking(run, observed=by_z)
    if note := "" if by_z else entries.describe_other_verdicts():
        echo(f"note: {note}", err=True)
    if as_json:
        echo_json(entries.to_json())
    else:
        tables.ranking(entries, top)
        echo(f"order: {'by z, an observation of `audit run`' if by_z else entries.order}")


def quantify(
    run: RunFolder,
    level: Annotated[float, number(ranges.P_LEVEL, "Significance level of both tests: artifact, and its use.")] = 0.05,
    data: Data = None,
    workers: Workers = 1,
    shard: ShardText = None,
    engine: EngineText = LOCAL_ENGINE,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
    top: Top = 20,
) -> None:
    """Test which classes hold an artifact that the model uses.

    If the run has one class as its target: which images of any class make the model think of it. If it was stopped,
    the same command resumes.
    """
    require_run_with_model(run, data, engine)
    from klarsicht.audit.results.detection_rows import read_places
    from klarsicht.audit.results.seen_groups import read_seen_groups
    from klarsicht.audit.verdicts.quantification import quantification, screening

    result = (screening.screen if screening.is_screening(run) else quantification.quantify)(
        run, level=level, workers=workers, data=data, shard=shard, device=device, engine=engine
    )
    if as_json:
        echo_json(result.to_json())
    elif isinstance(result, screening.Screening):
        tables.screening(result, top)
    else:
        store = RunStore.open(run)
        tables.verdicts(result, top, str(run), read_places(store, result), read_seen_groups(store))
        echo(f"report: {run / 'report.html'}")


def shortcuts(
    run: RunFolder,
    images: Annotated[
        int, number(ranges.SHOWN_IMAGES, "Most images of a class; each is shown once for every part.")
    ] = 64,
    level: Annotated[
        float, number(ranges.P_LEVEL, "Significance level: parts with p of at most this are flagged.")
    ] = 0.05,
    data: Data = None,
    workers: Workers = 1,
    shard: ShardText = None,
    engine: EngineText = LOCAL_ENGINE,
    region: Annotated[str | None, typer.Option(help=REGION_HELP)] = None,
    reference: Annotated[str | None, typer.Option(help=REFERENCE_HELP)] = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
    top: Annotated[int, number(ranges.LINES, "Classes to print.")] = 20,
) -> None:
    """Measure which part of an image is enough to tell its class.

    Parts are the border, corners, background, colours, spectrum, fine texture and a region. Framing and files are
    tried.
    """
    require_run_with_model(run, data, engine)
    from klarsicht.audit.results.surroundings import EXCEPTIONS_FILE, is_examined, read_surroundings
    from klarsicht.audit.verdicts.quantification.sufficiency import measure_sufficiency

    profiles = measure_sufficiency(
        run, images=images, level=level, workers=workers, data=data, shard=shard, device=device, region=region,
        reference=reference, engine=engine,
    )  # fmt: skip
    store = RunStore.open(run)
    found = read_surroundings(store) if is_examined(store) else None
    if as_json:
        echo_json(profiles.to_json() | {"surroundings": None if found is None else found.to_json()})
        return
    tables.sufficiency(profiles, top)
    if found is not None:
        tables.surroundings(found, top, f"{run}/{EXCEPTIONS_FILE}")


def content(
    run: RunFolder,
    name: Annotated[
        list[str] | None, typer.Option("--class", help="Only this class; may be repeated. [those of the run]")
    ] = None,
    images: Annotated[int, number(ranges.SHOWN_IMAGES, "Most pictures that get the content of a group.")] = 100,
    level: Annotated[
        float, number(ranges.P_LEVEL, "Significance level: groups more alike than random ones have at most this p.")
    ] = 0.05,
    data: Data = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
    top: Top = 20,
) -> None:
    """Find the content of other things that a class leans on.

    Looks among pictures that are not of the class for a group that it likes and that is alike, and puts its content on
    other pictures.
    """
    require_run_with_model(run, data)
    from klarsicht.audit.verdicts.content.find_content import find_content

    found = find_content(run, classes=name, images=images, level=level, data=data, device=device)
    echo_result(found, as_json, tables.content, top)
    if not as_json:
        echo(f"pictures: {run / 'content.html'}")


def power(
    run: RunFolder,
    kind: Annotated[list[str] | None, typer.Option(help=POWER_HELP)] = None,
    prevalence: Annotated[
        list[float] | None,
        number(ranges.PREVALENCE, "Share of a class that gets the artifact; may be repeated. [0.2 0.1 0.05 0.02 0.01]"),
    ] = None,
    classes: Annotated[int, number(ranges.PLANTED_CLASSES, "Classes in which each artifact is planted.")] = 5,
    level: Annotated[
        float, number(ranges.P_LEVEL, "Significance level: artifacts with p of at most this count as found.")
    ] = 0.05,
    train: Annotated[
        int | None,
        number(ranges.EPOCHS, "Epochs: fine-tune copies of the model on planted images, and audit those too."),
    ] = None,
    rate: Annotated[float, number(ranges.LEARNING_RATE, "Learning rate of that training (Adam).")] = 3e-4,
    data: Data = None,
    workers: Workers = 1,
    engine: EngineText = LOCAL_ENGINE,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Measure which artifacts `audit quantify` could have found.

    Plants known artifacts in this corpus, and looks for them.
    """
    require_run_with_model(run, data, engine)
    from klarsicht.audit.verdicts.sensitivity.power import power as measure_power

    result = measure_power(
        run, kinds=kind, prevalences=prevalence, classes=classes, level=level, workers=workers, data=data,
        train=train, rate=rate, device=device, engine=engine,
    )  # fmt: skip
    echo_result(result, as_json, tables.power)


def check(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN PICTURE", help=PICTURES_HELP)],
    named_run: Annotated[Path | None, typer.Option("--run", help="The run folder. [the first of the paths]")] = None,
    level: Annotated[
        float,
        number(
            ranges.P_LEVEL,
            "Significance level of both tests: the picture carries an artifact, and its prediction rests on it.",
        ),
    ] = 0.05,
    data: Annotated[str | None, typer.Option(help="Present place of the run's corpus, if it moved.")] = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Check if the prediction for a picture rests on an artifact.

    Looks for the artifacts that the run knows, and predicts again without them.
    """
    run, pictures = split_run(paths, named_run)
    require_run_with_model(run, data)
    from klarsicht.audit.verdicts.quantification.check_pictures import check_pictures

    results = check_pictures(run, pictures, level=level, data=data, device=device)
    echo_result(results, as_json, tables.pictures)
    failures = [one for one in results if one.why]
    if len(failures) == len(results):
        remedy = "Give photographs or a folder."
        raise InputError("none of the pictures could be checked", got=len(results), remedy=remedy)
    if failures:
        raise TooManySkipped(
            "some pictures could not be checked", got=f"{len(failures)} of {len(results)}, first {failures[0].path}",
            rule="the others are printed above", remedy="Repair these files, or leave them out.",
        )  # fmt: skip
