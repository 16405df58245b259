"""`klarsicht audit`: detect shortcuts of an image classifier and correct the model or the data."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from klarsicht.audit.explanation.data.locations import require_place
from klarsicht.audit.explanation.settings import LOCAL_ENGINE, AuditSettings, split_engine
from klarsicht.cli import audit_cleaning, audit_gates, audit_stability, audit_verdicts, tables
from klarsicht.cli.echo import echo, echo_json, echo_result
from klarsicht.cli.help_pages import CommandGroup
from klarsicht.cli.options import (
    AsJson,
    Data,
    EngineText,
    RunFolder,
    ShardText,
    Since,
    Top,
    Trust,
    Workers,
    add_settings,
    number,
    option,
)
from klarsicht.cli.places import require_audit, require_model, require_run
from klarsicht.ground import ranges
from klarsicht.ground.errors import UsageError
from klarsicht.ground.machine import memory
from klarsicht.ground.run_folder.store import RunStore

app = typer.Typer(
    help="Find what a classifier should not have used, and clean it.", cls=CommandGroup, no_args_is_help=True
)
INDEPENDENT = {"independent": "--independent/--exclusive"}
DIAGNOSED = (
    "model", "data", "target", "metric", "method", "class_map", "path_column", "label_column", "source_column",
    "label_separator", "label_columns", "decode", "independent", "split", "batch", "batch_memory", "device",
)  # fmt: skip
"""Settings that `audit doctor` reads."""


@app.callback()
def prepare_memory() -> None:
    memory.keep_freed_memory()


NOTED = 5  # kinds of files left out that are said one by one
PLANT_HELP = (  # the names stand in audit.verdicts.synthetic, which the help would load for a second
    "The same in every image: tag, text, border, glyphs, mark, noise, blur, cast, blocks. Or a family, from which "
    "--seed draws. Marks: random-tag, caption, date-stamp, watermark, stripe, two-stripes, frame, rounded-frame, "
    "ruler, logo, flare, flash, hair, scratches, scan-lines, moire, background. Changes of the image: vignette, hue, "
    "white-balance, gamma, grain, defocus, motion-blur, jpeg, resampling, ringing, zoom, mirror."
)
NAMES_HELP = "A CLIP of yours (hf:FOLDER) that guesses words for artifacts and clusters; no verdict uses them."
ACCEPT_HELP = "Audit the labels as they are, although predictions match them better in another order."
COST_HELP = "Forecast hours, disk and memory of `audit run` and `audit quantify` by step, from a sample computed here."


@app.command()
@add_settings(AuditSettings, tuple(AuditSettings.model_fields), INDEPENDENT)
def run(
    out: Annotated[Path, typer.Option(help="The run folder; run the same command again to resume.")] = Path("run"),
    workers: Workers = 1,
    shard: ShardText = None,
    accept_labels: Annotated[bool, typer.Option("--accept-labels", help=ACCEPT_HELP)] = False,
    trust: Trust = False,
    *,
    settings: AuditSettings,
) -> None:
    """Audit a model: relevance, clusters, a ranking and a report.

    If it was stopped, the same command resumes.
    """
    require_audit(settings, out)
    from klarsicht.audit.explanation import pipeline
    from klarsicht.audit.explanation.report.caveats import collect_caveats
    from klarsicht.audit.results import ranking

    store = pipeline.run(settings, out, workers=workers, shard=shard, accept_labels=accept_labels)
    for note in collect_caveats(store, store.table("images", "attribution")):
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
@add_settings(AuditSettings, DIAGNOSED, INDEPENDENT)
def doctor(
    cost: Annotated[bool, typer.Option("--cost", help=COST_HELP)] = False,
    seconds: Annotated[float, number(ranges.SAMPLE_SECONDS, "Seconds for each sample of --cost, about.")] = 60,
    workers: Annotated[int, number(ranges.WORKERS, "Processes over which --cost divides the hours.")] = 1,
    sanity: Annotated[
        bool, typer.Option("--sanity", help="Also compare the maps with those of the network with redrawn weights.")
    ] = False,
    trust: Trust = False,
    as_json: AsJson = False,
    *,
    settings: AuditSettings,
) -> None:
    """Check what an audit of this model and corpus would give.

    Prints the methods, their conservation, layers, speed and what is missing. Where `audit run` would refuse the model
    or the corpus, it ends with the same error.
    """
    require_audit(settings)
    from klarsicht.audit.explanation.doctor import diagnose
    from klarsicht.audit.verdicts.forecast import forecast

    # first, since it also measures what is paid once in a process
    foretold = forecast(settings, seconds=seconds, workers=workers) if cost else None
    result = diagnose(settings, sanity=sanity)
    result = result.without_relevance_time() if foretold else result
    if as_json:
        echo_json(result.to_json() | ({"cost": foretold.to_json()} if foretold else {}))
    else:
        tables.diagnosis(result)
        if foretold:
            tables.cost(foretold)
    if result.refused is not None:
        raise result.refused


app.command()(audit_verdicts.rank)


app.command()(audit_verdicts.quantify)


@app.command()
def duplicates(
    run: Annotated[str, typer.Argument(metavar="RUN|DATA", help="A run folder, or a corpus as `audit run` reads it.")],
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the copies of a corpus that has no run.")] = None,
    decode: Annotated[str | None, option(AuditSettings, "decode")] = None,
    path_column: Annotated[str | None, option(AuditSettings, "path_column")] = None,
    label_column: Annotated[str | None, option(AuditSettings, "label_column")] = None,
    source_column: Annotated[str | None, option(AuditSettings, "source_column")] = None,
    workers: Workers = 1,
    shard: ShardText = None,
    engine: EngineText = LOCAL_ENGINE,
    trust: Trust = False,
    max_skipped: Annotated[float | None, option(AuditSettings, "max_skipped")] = None,
    as_json: AsJson = False,
    top: Top = 20,
) -> None:
    """Find exact, near and mirrored copies in a run or a corpus.

    Copies are found across labels and splits, and turned by quarter turns, too. A corpus needs no model. If it was
    stopped, the same command resumes, for a corpus with --out.
    """
    columns = {
        "decode": decode, "path_column": path_column, "label_column": label_column, "source_column": source_column
    }  # fmt: skip
    is_run = RunStore(Path(run)).exists
    if is_run or data is not None:
        require_run(Path(run), data, engine)
        for name, value in (columns | {"out": out}).items():
            if value is not None:
                got, rule = "--" + name.replace("_", "-"), "this option is for a corpus without a run"
                raise UsageError("a run reads its corpus as it did", got=got, rule=rule)
    else:
        split_engine(engine)
        require_place(run, "the run or corpus")
    from klarsicht.audit.explanation.duplicates import find_copies_in, find_duplicates

    if is_run:
        copies = find_duplicates(run, data=data, workers=workers, shard=shard, max_skipped=max_skipped, engine=engine)
    else:
        copies = find_copies_in(
            run, out, workers=workers, shard=shard, max_skipped=max_skipped, engine=engine, **columns
        )
    echo_result(copies, as_json, tables.duplicates, top)


app.command()(audit_verdicts.shortcuts)


app.command()(audit_verdicts.content)


app.command()(audit_verdicts.power)


app.command()(audit_verdicts.check)


@app.command()
def report(
    run: RunFolder,
    since: Since = None,
    names: Annotated[str | None, typer.Option(help=NAMES_HELP)] = None,
    vocabulary: Annotated[Path | None, typer.Option(help="A file with the words for --names, a line each.")] = None,
    data: Data = None,
    trust: Trust = False,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="Print it to report.pdf, too; needs an installed Chromium.")
    ] = False,
) -> None:
    """Write the HTML report of a run again, and print its path."""
    require_run(run, data)
    if names is not None:
        from klarsicht.audit.explanation.name_groups import name_groups

        name_groups(run, names, vocabulary, data)
    elif vocabulary is not None:
        raise UsageError("a vocabulary without a model", got=vocabulary, remedy="Give --names hf:FOLDER, too.")
    from klarsicht.audit.explanation.report import page
    from klarsicht.audit.explanation.report.pdf import print_pdf

    written = page.write_report(run, since)
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
    from klarsicht.ground.run_folder.verification import verify as verify_files

    if verify:
        result = verify_files(RunStore.open(run))
        echo_result(result, as_json, tables.verification)
        result.require_intact()
    steps = read_progress(run)
    if as_json and not verify:
        echo_json([step.to_json() for step in steps])
    elif not as_json:
        tables.steps(steps)


@app.command()
def plant(
    data: Annotated[str, typer.Argument(help="A corpus as for `audit run`; it is not changed.")],
    out: Annotated[Path, typer.Option(help="A new folder for the planted corpus, its manifest and the truth.")],
    kind: Annotated[str, typer.Option(help=PLANT_HELP)],
    label: Annotated[str | None, typer.Option("--class", help="Plant in this class only. [every class]")] = None,
    share: Annotated[float, number(ranges.SHARE, "Share of the images that get the artifact.")] = 0.1,
    seed: Annotated[int, number(ranges.SEED, "Seed that chooses the images and draws the artifact of a family.")] = 0,
    model: Annotated[
        str | None, typer.Option(help="A model that takes arrays: images are read and written as it takes them.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Plant a known artifact in a copy of a corpus.

    The copy and its truth are there to test an audit with.
    """
    require_place(data, "the corpus")
    if model is not None:
        require_model(model)
    from klarsicht.audit.explanation.data.corpus_formats import open_corpus
    from klarsicht.audit.explanation.models.classifier import load_model
    from klarsicht.audit.verdicts.synthetic import artifacts

    corpus = open_corpus(data) if model is None else open_corpus(data).as_arrays(load_model(model).form)
    truth = artifacts.plant_corpus(corpus, out, kind=kind, label=label, share=share, seed=seed)
    echo(f"{truth.planted} of {truth.images} images carry the {kind}; manifest: {truth.manifest}")


app.command()(audit_stability.stability)
app.command()(audit_cleaning.clean)
app.command()(audit_cleaning.evaluate)
app.command()(audit_cleaning.clean_data)
app.command()(audit_gates.gate)
app.command()(audit_gates.compare)

RunningFolder = Annotated[Path, typer.Argument(help="A run folder written by `audit run`, also while it is written.")]
ExploredFolder = Annotated[
    Path, typer.Argument(help="A folder of `audit run`, also while written, or of `burst audit`.")
]
AuthorName = Annotated[
    str | None, typer.Option(help="Name of the person who decides, stored in each record. [your user name]")
]


@app.command()
def explore(
    run: ExploredFolder,
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback it needs a token.")] = "127.0.0.1",
    port: Annotated[int, number(ranges.PORT, "Port to listen on; 0: any free one.")] = 8735,
    token: Annotated[
        bool, typer.Option("--token", help="Ask for a token on loopback, too: other users of this machine reach it.")
    ] = False,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")] = True,
    author: AuthorName = None,
    since: Since = None,
    data: Data = None,
    trust: Trust = False,
) -> None:
    """Show a run in the browser, and record decisions.

    Shows classes with their verdicts, embeddings and images. Ctrl-C ends it.
    """
    from klarsicht.explorer.serve import serve_run

    serve_run(
        run, host=host, port=port, author=author or user_name(), data=data, since=since, token=token, browser=browser,
        tell=lambda address: echo(f"open {address} (Ctrl-C ends)"),
    )  # fmt: skip


@app.command()
def export(
    run: RunningFolder,
    to: Annotated[str, typer.Option(help="page, csv, parquet, datasets, cleanlab, coco, virelay, fiftyone or atlas.")],
    out: Annotated[
        Path | None, typer.Option(help="A new file, or folder for virelay and fiftyone. [the format's own name]")
    ] = None,
    name: Annotated[list[str] | None, typer.Option("--class", help="Only this class; may be repeated. [all]")] = None,
    data: Data = None,
    trust: Trust = False,
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
