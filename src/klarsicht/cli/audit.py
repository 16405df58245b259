"""`klarsicht audit`: detect shortcuts of an image classifier and correct the model or the data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from klarsicht.audit.explanation.data.locations import require_place
from klarsicht.audit.explanation.settings import ANY_DEVICE, AuditSettings
from klarsicht.cli import audit_cleaning, audit_exploring, tables
from klarsicht.cli.echo import echo, echo_block
from klarsicht.cli.help_pages import CommandGroup
from klarsicht.cli.options import Trust, number, option
from klarsicht.cli.places import require_audit, require_model, require_run
from klarsicht.ground.errors import InputError
from klarsicht.ground.machine import memory
from klarsicht.ground.ranges import (
    EPOCHS,
    LEARNING_RATE,
    LINES,
    P_LEVEL,
    PLANTED_CLASSES,
    PREVALENCE,
    SAMPLE_SECONDS,
    SEED,
    SHARE,
    SHOWN_IMAGES,
    WORKERS,
)  # fmt: skip
from klarsicht.ground.run_folder.shards import SHARD_HELP

app = typer.Typer(
    help="Find what a classifier should not have used, and clean it.", cls=CommandGroup, no_args_is_help=True
)


@app.callback()
def prepare_memory() -> None:
    memory.keep_freed_memory()


RunFolder = Annotated[Path, typer.Argument(help="A run folder written by `audit run`.")]
NOTED = 5  # kinds of files left out that are said one by one
POWER_HELP = "An artifact to plant, a kind or family of `audit plant`; may be repeated. [all kinds, no family]"
PLANT_HELP = (  # the names stand in audit.verdicts.synthetic, which the help would load for a second
    "The same in every image: tag, text, border, glyphs, mark, noise, blur, cast, blocks. Or a family, from which "
    "--seed draws. Marks: random-tag, caption, date-stamp, watermark, stripe, two-stripes, frame, rounded-frame, "
    "ruler, logo, flare, flash, hair, scratches, scan-lines, moire, background. Changes of the image: vignette, hue, "
    "white-balance, gamma, grain, defocus, motion-blur, jpeg, resampling, ringing, zoom, mirror."
)
PICTURES_HELP = "Pictures, folders of pictures, or files of several pictures, as `audit run` reads them."
ACCEPT_HELP = "Audit the labels as they are, although predictions match them better in another order."
COST_HELP = "Forecast hours, disk and memory of `audit run` and `audit quantify` by step, from a sample computed here."
Device = Annotated[str, option(AuditSettings, "device")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]


@app.command()
def run(
    model: Annotated[str | None, option(AuditSettings, "model")] = None,
    data: Annotated[str | None, option(AuditSettings, "data")] = None,
    out: Annotated[Path, typer.Option(help="The run folder; run the same command again to resume.")] = Path("run"),
    target: Annotated[str | None, option(AuditSettings, "target")] = None,
    metric: Annotated[list[str] | None, option(AuditSettings, "metric")] = None,
    method: Annotated[str | None, option(AuditSettings, "method")] = None,
    class_map: Annotated[Path | None, option(AuditSettings, "class_map")] = None,
    path_column: Annotated[str | None, option(AuditSettings, "path_column")] = None,
    label_column: Annotated[str | None, option(AuditSettings, "label_column")] = None,
    source_column: Annotated[str | None, option(AuditSettings, "source_column")] = None,
    label_separator: Annotated[str | None, option(AuditSettings, "label_separator")] = None,
    label_columns: Annotated[list[str] | None, option(AuditSettings, "label_columns")] = None,
    decode: Annotated[str | None, option(AuditSettings, "decode")] = None,
    independent: Annotated[bool | None, option(AuditSettings, "independent", "--independent/--exclusive")] = None,
    split: Annotated[str | None, option(AuditSettings, "split")] = None,
    parts: Annotated[bool | None, option(AuditSettings, "parts", "--parts/--no-parts")] = None,
    parts_layer: Annotated[str | None, option(AuditSettings, "parts_layer")] = None,
    map_side: Annotated[int | None, option(AuditSettings, "map_side")] = None,
    neighbours: Annotated[int | None, option(AuditSettings, "neighbours")] = None,
    dimensions: Annotated[int | None, option(AuditSettings, "dimensions")] = None,
    batch: Annotated[int | None, option(AuditSettings, "batch")] = None,
    batch_memory: Annotated[float | None, option(AuditSettings, "batch_memory")] = None,
    unit: Annotated[int | None, option(AuditSettings, "unit")] = None,
    threads: Annotated[int | None, option(AuditSettings, "threads")] = None,
    white_level: Annotated[int | None, option(AuditSettings, "white_level")] = None,
    megapixels: Annotated[float | None, option(AuditSettings, "megapixels")] = None,
    max_skipped: Annotated[float | None, option(AuditSettings, "max_skipped")] = None,
    seed: Annotated[int | None, option(AuditSettings, "seed")] = None,
    workers: Annotated[int, number(WORKERS, "Processes; results do not depend on it.")] = 1,
    device: Annotated[str | None, option(AuditSettings, "device")] = None,
    readers: Annotated[int | None, option(AuditSettings, "readers")] = None,
    shard: Annotated[str | None, typer.Option(help=SHARD_HELP)] = None,
    accept_labels: Annotated[bool, typer.Option("--accept-labels", help=ACCEPT_HELP)] = False,
    settings: Annotated[Path | None, typer.Option(help="A TOML file of settings; options override it.")] = None,
    trust: Trust = False,
) -> None:
    """Audit a model: relevance, clusters, a ranking and a report.

    If it was stopped, the same command resumes.
    """
    options: dict[str, Any] = {
        "model": model,
        "data": data,
        "target": target,
        "metric": tuple(metric) if metric else None,
        "method": method,
        "class_map": None if class_map is None else str(class_map),
        "path_column": path_column,
        "label_column": label_column,
        "source_column": source_column,
        "label_separator": label_separator,
        "label_columns": tuple(label_columns) if label_columns else None,
        "decode": decode,
        "independent": independent,
        "split": split,
        "parts": parts,
        "parts_layer": parts_layer,
        "map_side": map_side,
        "neighbours": neighbours,
        "dimensions": dimensions,
        "batch": batch,
        "batch_memory": batch_memory,
        "unit": unit,
        "threads": threads,
        "white_level": white_level,
        "megapixels": megapixels,
        "max_skipped": max_skipped,
        "seed": seed,
        "device": device,
        "readers": readers,
    }
    audit_settings = AuditSettings.read(settings, options)
    require_audit(audit_settings, out)
    from klarsicht.audit.explanation import pipeline
    from klarsicht.audit.explanation.report.page import notes
    from klarsicht.audit.results import ranking

    store = pipeline.run(audit_settings, out, workers=workers, shard=shard, accept_labels=accept_labels)
    for note in notes(store, store.table("images", "attribution")):
        echo(f"note: {note}", err=True)
    note_left_out(store.manifest["left_out"])
    tables.ranking(ranking.read_ranking(store), 10)
    echo(f"report: {store.path / 'report.html'}")


def note_left_out(left_out: Sequence[tuple[str, str]]) -> None:
    """Say on standard error which files and folders hold no image of the corpus, by (what, why)."""
    for what, why in left_out[:NOTED]:
        echo(f"note: left out: {what}: {why}", err=True)
    if more := len(left_out[NOTED:]):
        echo(f"note: left out: {more} more, which the report lists", err=True)


@app.command()
def doctor(
    model: Annotated[str | None, option(AuditSettings, "model")] = None,
    data: Annotated[str | None, option(AuditSettings, "data")] = None,
    target: Annotated[str | None, option(AuditSettings, "target")] = None,
    metric: Annotated[list[str] | None, option(AuditSettings, "metric")] = None,
    method: Annotated[str | None, option(AuditSettings, "method")] = None,
    class_map: Annotated[Path | None, option(AuditSettings, "class_map")] = None,
    path_column: Annotated[str | None, option(AuditSettings, "path_column")] = None,
    label_column: Annotated[str | None, option(AuditSettings, "label_column")] = None,
    source_column: Annotated[str | None, option(AuditSettings, "source_column")] = None,
    label_separator: Annotated[str | None, option(AuditSettings, "label_separator")] = None,
    label_columns: Annotated[list[str] | None, option(AuditSettings, "label_columns")] = None,
    decode: Annotated[str | None, option(AuditSettings, "decode")] = None,
    independent: Annotated[bool | None, option(AuditSettings, "independent", "--independent/--exclusive")] = None,
    split: Annotated[str | None, option(AuditSettings, "split")] = None,
    batch: Annotated[int | None, option(AuditSettings, "batch")] = None,
    batch_memory: Annotated[float | None, option(AuditSettings, "batch_memory")] = None,
    device: Annotated[str | None, option(AuditSettings, "device")] = None,
    cost: Annotated[bool, typer.Option("--cost", help=COST_HELP)] = False,
    seconds: Annotated[float, number(SAMPLE_SECONDS, "Seconds for each sample of --cost, about.")] = 60,
    workers: Annotated[int, number(WORKERS, "Processes over which --cost divides the hours.")] = 1,
    settings: Annotated[Path | None, typer.Option(help="A TOML file of settings; options override it.")] = None,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Check what an audit of this model and corpus would give.

    Prints the methods, their conservation, layers, speed and what is missing. Where `audit run` would refuse the model
    or the corpus, it ends with the same error.
    """
    options = {
        "model": model,
        "data": data,
        "target": target,
        "metric": tuple(metric) if metric else None,
        "method": method,
        "class_map": None if class_map is None else str(class_map),
        "path_column": path_column,
        "label_column": label_column,
        "source_column": source_column,
        "label_separator": label_separator,
        "label_columns": tuple(label_columns) if label_columns else None,
        "decode": decode,
        "independent": independent,
        "split": split,
        "batch": batch,
        "batch_memory": batch_memory,
        "device": device,
    }
    audit_settings = AuditSettings.read(settings, options)
    require_audit(audit_settings)
    from klarsicht.audit.explanation.doctor import diagnose
    from klarsicht.audit.verdicts.forecast import forecast

    # first, since it also measures what is paid once in a process
    foretold = forecast(audit_settings, seconds=seconds, workers=workers) if cost else None
    result = diagnose(audit_settings)
    if as_json:
        echo_block(json.dumps(result.to_json() | ({"cost": foretold.to_json()} if foretold else {}), indent=2))
    else:
        tables.diagnosis(result)
        if foretold:
            tables.cost(foretold)
    if result.refused is not None:
        raise result.refused


@app.command()
def rank(
    run: RunFolder,
    as_json: AsJson = False,
    top: Annotated[int, number(LINES, "Rows to print.")] = 20,
    by_z: Annotated[
        bool, typer.Option("--by-z", help="The clusters and the order of `audit run`, by z alone, an observation.")
    ] = False,
) -> None:
    """Print the classes of a run, most suspect first.

    The last line says in which order.
    """
    from klarsicht.audit.results import ranking

    entries = ranking.read_ranking(run, observed=by_z)
    if as_json:
        echo_block(json.dumps(entries.to_json(), indent=2))
    else:
        tables.ranking(entries, top)
        echo(f"order: {'by z, an observation of `audit run`' if by_z else entries.order}")


@app.command()
def quantify(
    run: RunFolder,
    level: Annotated[float, number(P_LEVEL, "Significance level of both tests: artifact, and its use.")] = 0.05,
    data: Annotated[str | None, typer.Option(help="Present place of the corpus, if it moved.")] = None,
    workers: Annotated[int, number(WORKERS, "Processes; results do not depend on it.")] = 1,
    shard: Annotated[str | None, typer.Option(help=SHARD_HELP)] = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
    top: Annotated[int, number(LINES, "Rows to print.")] = 20,
) -> None:
    """Test which classes hold an artifact that the model uses.

    If the run has one class as its target: which images of any class make the model think of it. If it was stopped,
    the same command resumes.
    """
    require_run(run, data)
    from klarsicht.audit.results.detection_rows import read_places
    from klarsicht.audit.verdicts.quantification import quantification, screening
    from klarsicht.ground.run_folder.store import RunStore

    result = (screening.screen if screening.is_screening(run) else quantification.quantify)(
        run, level=level, workers=workers, data=data, shard=shard, device=device
    )
    if as_json:
        echo_block(json.dumps(result.to_json(), indent=2))
    elif isinstance(result, screening.Screening):
        tables.screening(result, top)
    else:
        tables.verdicts(result, top, str(run), read_places(RunStore.open(run), result))
        echo(f"report: {run / 'report.html'}")


@app.command()
def duplicates(
    run: RunFolder,
    data: Annotated[str | None, typer.Option(help="Present place of the corpus, if it moved.")] = None,
    workers: Annotated[int, number(WORKERS, "Processes; results do not depend on it.")] = 1,
    shard: Annotated[str | None, typer.Option(help=SHARD_HELP)] = None,
    trust: Trust = False,
    max_skipped: Annotated[float | None, option(AuditSettings, "max_skipped")] = None,
    as_json: AsJson = False,
    top: Annotated[int, number(LINES, "Rows to print.")] = 20,
) -> None:
    """Find exact and near copies among the images of a run.

    Copies are found across labels and splits, too. If it was stopped, the same command resumes.
    """
    require_run(run, data)
    from klarsicht.audit.explanation.duplicates import find_duplicates

    copies = find_duplicates(run, data=data, workers=workers, shard=shard, max_skipped=max_skipped)
    if as_json:
        echo_block(json.dumps(copies.to_json(), indent=2))
    else:
        tables.duplicates(copies, top)


@app.command()
def shortcuts(
    run: RunFolder,
    images: Annotated[int, number(SHOWN_IMAGES, "Most images of a class; each is shown once for every part.")] = 64,
    level: Annotated[float, number(P_LEVEL, "Significance level: parts with p below it are flagged.")] = 0.05,
    data: Annotated[str | None, typer.Option(help="Present place of the corpus, if it moved.")] = None,
    workers: Annotated[int, number(WORKERS, "Processes; results do not depend on it.")] = 1,
    shard: Annotated[str | None, typer.Option(help=SHARD_HELP)] = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
    top: Annotated[int, number(LINES, "Classes to print.")] = 20,
) -> None:
    """Measure which part of an image is enough to tell its class.

    Parts are the border, corners, background, colours and spectrum.
    """
    require_run(run, data)
    from klarsicht.audit.verdicts.quantification.sufficiency import measure_sufficiency

    profiles = measure_sufficiency(
        run, images=images, level=level, workers=workers, data=data, shard=shard, device=device
    )
    if as_json:
        echo_block(json.dumps(profiles.to_json(), indent=2))
    else:
        tables.sufficiency(profiles, top)


@app.command()
def power(
    run: RunFolder,
    kind: Annotated[list[str] | None, typer.Option(help=POWER_HELP)] = None,
    prevalence: Annotated[
        list[float] | None,
        number(PREVALENCE, "Share of a class that gets the artifact; may be repeated. [0.2 0.1 0.05 0.02 0.01]"),
    ] = None,
    classes: Annotated[int, number(PLANTED_CLASSES, "Classes in which each artifact is planted.")] = 5,
    level: Annotated[float, number(P_LEVEL, "Significance level: artifacts with p below it count as found.")] = 0.05,
    train: Annotated[
        int | None, number(EPOCHS, "Epochs: fine-tune copies of the model on planted images, and audit those too.")
    ] = None,
    rate: Annotated[float, number(LEARNING_RATE, "Learning rate of that training (Adam).")] = 3e-4,
    data: Annotated[str | None, typer.Option(help="Present place of the corpus, if it moved.")] = None,
    workers: Annotated[int, number(WORKERS, "Processes; results do not depend on it.")] = 1,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Measure which artifacts `audit quantify` could have found.

    Plants known artifacts in this corpus, and looks for them.
    """
    require_run(run, data)
    from klarsicht.audit.verdicts.sensitivity.power import power as measure_power

    result = measure_power(
        run, kinds=kind, prevalences=prevalence, classes=classes, level=level, workers=workers, data=data,
        train=train, rate=rate, device=device,
    )  # fmt: skip
    if as_json:
        echo_block(json.dumps(result.to_json(), indent=2))
    else:
        tables.power(result)


@app.command()
def check(
    pictures: Annotated[list[Path], typer.Argument(help=PICTURES_HELP)],
    run: Annotated[Path, typer.Option(help="A run folder with results of `audit quantify`.")],
    level: Annotated[
        float,
        number(
            P_LEVEL,
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
    require_run(run, data)
    from klarsicht.audit.verdicts.quantification.check_pictures import check_pictures

    results = check_pictures(run, pictures, level=level, data=data, device=device)
    if as_json:
        echo_block(json.dumps(results.to_json(), indent=2))
    else:
        tables.pictures(results)
    if all(one.why for one in results):
        raise InputError(
            "none of the pictures could be checked", got=len(results), remedy="Give photographs or a folder"
        )


@app.command()
def report(
    run: RunFolder,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print it to report.pdf, too; needs an installed Chromium.")
    ] = False,
) -> None:
    """Write the HTML report of a run again, and print its path."""
    require_run(run)
    from klarsicht.audit.explanation.report import page
    from klarsicht.audit.explanation.report.pdf import print_pdf

    written = page.write_report(run)
    echo(str(written))
    if pdf:
        echo(str(print_pdf(written)))


@app.command()
def status(
    run: RunFolder,
    as_json: AsJson = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every file with its checksum; name the others.")
    ] = False,
) -> None:
    """Print how far a run has come, or verify its files."""
    from klarsicht.audit.explanation.status import read_progress
    from klarsicht.ground.run_folder.store import RunStore
    from klarsicht.ground.run_folder.verification import verify as verify_files

    if verify:
        result = verify_files(RunStore.open(run))
        if as_json:
            echo_block(json.dumps(result.to_json(), indent=2))
        else:
            tables.verification(result)
        result.require_intact()
    steps = read_progress(run)
    if as_json and not verify:
        echo_block(json.dumps([step.to_json() for step in steps], indent=2))
    elif not as_json:
        tables.steps(steps)


@app.command()
def plant(
    data: Annotated[str, typer.Argument(help="A corpus as for `audit run`; it is not changed.")],
    out: Annotated[Path, typer.Option(help="A new folder for the planted corpus, its manifest and the truth.")],
    kind: Annotated[str, typer.Option(help=PLANT_HELP)],
    label: Annotated[str | None, typer.Option("--class", help="Plant in this class only. [every class]")] = None,
    share: Annotated[float, number(SHARE, "Share of the images that get the artifact.")] = 0.1,
    seed: Annotated[int, number(SEED, "Seed that chooses the images and draws the artifact of a family.")] = 0,
    model: Annotated[
        str | None, typer.Option(help="A model that takes arrays: images are read and written as it takes them.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Plant a known artifact in a copy of a corpus.

    The copy and its truth are there to test an audit with.
    """
    require_place(data)
    if model is not None:
        require_model(model)
    from klarsicht.audit.explanation.data.corpus_formats import open_corpus
    from klarsicht.audit.explanation.models.classifier import load_model
    from klarsicht.audit.verdicts.synthetic import artifacts

    corpus = open_corpus(data) if model is None else open_corpus(data).as_arrays(load_model(model).form)
    truth = artifacts.plant_corpus(corpus, out, kind=kind, label=label, share=share, seed=seed)
    echo(f"{truth.planted} of {truth.images} images carry the {kind}; manifest: {truth.manifest}")


app.command()(audit_cleaning.clean)
app.command()(audit_cleaning.evaluate)
app.command()(audit_cleaning.clean_data)
app.command()(audit_exploring.explore)
app.command()(audit_exploring.export)
