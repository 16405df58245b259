"""Commands of `klarsicht audit` that correct a model or a corpus for an artifact, and that evaluate corrections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.settings import ANY_DEVICE, AuditSettings
from klarsicht.cli import cleaning_tables
from klarsicht.cli.echo import echo, echo_block
from klarsicht.cli.options import Trust, number, option
from klarsicht.cli.places import require_run
from klarsicht.ground.errors import UsageError
from klarsicht.ground.ranges import IMAGE_WEIGHT, SEED, SHARE, SHOWN_IMAGES

RunFolder = Annotated[Path, typer.Argument(help="A run folder written by `audit run`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
Data = Annotated[str | None, typer.Option(help="Present place of the corpus, if it moved.")]
Device = Annotated[str, option(AuditSettings, "device")]
Members = Annotated[Path | None, typer.Option(help="A text file of images that carry the artifact. [what was found]")]
FoundBy = Annotated[
    str | None,
    typer.Option(
        help="Source of the images with the artifact: cluster or detector. [detector, if it found an artifact]"
    ),
]
Mask = Annotated[Path | None, typer.Option(help="A picture, white where the artifact lies. [where relevance lies]")]
SHOWN_HELP = "Most images of each kind to evaluate on. [as `audit clean`: ten times as many as it was chosen on]"
KIND_HELP = "A known artifact instead of a found one: a kind or family of `audit plant`, drawn on the images."
NOTED = "noted"  # the strongest part that `audit shortcuts` noted
PART_HELP = (
    "A part of every image of the class: border, colours, spectrum, resolution, 'top left' and other corners; may be "
    "repeated. noted: the strongest part that `audit shortcuts` flagged."
)
Overall = Annotated[float | None, option(CleanSettings, "overall")]
Affected = Annotated[float | None, option(CleanSettings, "affected")]


def clean(
    run: RunFolder,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--class", help='Class to clean; "carton (artifact 2)" is its second artifact. [all that rely on one]'
        ),
    ] = None,
    method: Annotated[str | None, option(CleanSettings, "method")] = None,
    train: Annotated[bool | None, option(CleanSettings, "train", "--train/--closed-form")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The correction's folder. [RUN/corrections/TARGET-METHOD, or all]")
    ] = None,
    found_by: FoundBy = None,
    members: Members = None,
    mask: Mask = None,
    kind: Annotated[str | None, typer.Option(help=KIND_HELP)] = None,
    part: Annotated[list[str] | None, typer.Option(help=PART_HELP)] = None,
    direction: Annotated[str | None, option(CleanSettings, "direction")] = None,
    layer: Annotated[str | None, option(CleanSettings, "layer", default="swept")] = None,
    directions: Annotated[int | None, option(CleanSettings, "directions", default="swept")] = None,
    strength: Annotated[float | None, option(CleanSettings, "strength", default="swept")] = None,
    pooled: Annotated[bool | None, option(CleanSettings, "pooled", "--pooled/--per-position")] = None,
    overall: Overall = None,
    affected: Affected = None,
    least_effect: Annotated[float | None, option(CleanSettings, "least_effect")] = None,
    images: Annotated[int | None, option(CleanSettings, "images")] = None,
    fewest_clean: Annotated[int | None, option(CleanSettings, "fewest_clean")] = None,
    lessons: Annotated[int | None, option(CleanSettings, "lessons")] = None,
    steps: Annotated[int | None, option(CleanSettings, "steps")] = None,
    batch: Annotated[int | None, option(CleanSettings, "batch")] = None,
    rate: Annotated[float | None, option(CleanSettings, "rate")] = None,
    seed: Annotated[int | None, option(CleanSettings, "seed")] = None,
    settings: Annotated[Path | None, typer.Option(help="A TOML file of settings; options override it.")] = None,
    data: Data = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Correct the model for the artifact of a class, and save it.

    The correction is chosen under a bound on harm. The command exits with 7 if it harms too much, and with 8 if it
    does not help. Without --class, or with several, one model is corrected for all these classes. If it was stopped,
    the same command resumes.
    """
    options: dict[str, Any] = {
        "method": method,
        "train": train,
        "direction": direction,
        "layer": layer,
        "directions": directions,
        "strength": strength,
        "pooled": pooled,
        "overall": overall,
        "affected": affected,
        "least_effect": least_effect,
        "images": images,
        "fewest_clean": fewest_clean,
        "lessons": lessons,
        "steps": steps,
        "batch": batch,
        "rate": rate,
        "seed": seed,
    }
    clean_settings = CleanSettings.read(settings, options)
    require_run(run, data)
    from klarsicht.audit.cleaning.models import clean_model

    if name is None or len(name) > 1:
        if members is not None or mask is not None or kind is not None or part:
            raise UsageError(
                "members, a mask, a kind or a part without one class", got=members or mask or kind or part,
                rule="they are of one class's artifact", remedy="Name the class: --class.",
            )  # fmt: skip
        together = clean_model.clean_classes(
            run, name or (), clean_settings, out=out, found_by=found_by, data=data, device=device
        )
        if as_json:
            echo_block(json.dumps(together.record, indent=2))
        else:
            cleaning_tables.joint_correction(together)
        return together.check()
    result = clean_model.clean(
        run,
        name[0],
        clean_settings,
        out=out,
        found_by=found_by,
        members=members,
        mask=mask,
        kind=kind,
        part=None if not part else [] if part == [NOTED] else part,
        data=data,
        device=device,
    )
    if as_json:
        echo_block(json.dumps(result.record, indent=2))
    else:
        cleaning_tables.correction(result)
    return result.check()


def evaluate(
    run: RunFolder,
    correction: Annotated[list[Path], typer.Option(help="A folder written by `audit clean`; may be given again.")],
    also: Annotated[
        list[Path] | None, typer.Option(help="A correction of another model, evaluated already: a further seed.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The certificate's folder. [RUN/certificate]")] = None,
    test: Annotated[str | None, typer.Option(help="Another corpus without the artifact, to evaluate on.")] = None,
    images: Annotated[int | None, number(SHOWN_IMAGES, SHOWN_HELP)] = None,
    overall: Overall = None,
    affected: Affected = None,
    seed: Annotated[int, number(SEED, "Seed of samples, probes and controls.")] = 0,
    data: Data = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Compare corrections before and after on held-out images.

    The command exits with 7 if one harms too much, and with 8 if none helps.
    """
    require_run(run, data)
    from klarsicht.audit.cleaning.models import evaluation

    result = evaluation.certify(
        run, correction, also=also or (), out=out, test=test, images=images, overall=overall, affected=affected,
        data=data, seed=seed, device=device,
    )  # fmt: skip
    alone = len(result.certificate.evaluations) == 1
    if as_json:
        told = result.evaluations[0].to_json() if alone else result.certificate.to_json()
        echo_block(json.dumps(told, indent=2))
    elif alone:
        cleaning_tables.evaluations(result.evaluations[0])
    else:
        cleaning_tables.certificate(result.certificate)
    if not as_json:
        echo(f"certificate: {result.folder / 'certificate.html'}")
    result.check()


def clean_data(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="A new folder for the manifest, the record and new files.")],
    name: Annotated[
        list[str] | None,
        typer.Option("--class", help="Class whose artifact is removed; or --correction. [all that rely on one]"),
    ] = None,
    correction: Annotated[
        Path | None, typer.Option(help="A folder written by `audit clean`, for its artifact.")
    ] = None,
    action: Annotated[str, typer.Option(help="drop, weigh, move, quarantine or inpaint.")] = "drop",
    weight: Annotated[
        float | None, number(IMAGE_WEIGHT, "For weigh: weight of an image with the artifact. [0.1]")
    ] = None,
    label: Annotated[str | None, typer.Option(help="For move: the new label.")] = None,
    above: Annotated[float, number(SHARE, "Probability from which an image counts as carrying it.")] = 0.5,
    found_by: FoundBy = None,
    members: Members = None,
    mask: Mask = None,
    seed: Annotated[int, number(SEED, "Seed of the detector's folds and parts.")] = 0,
    tables: Annotated[str, typer.Option(help="Manifest and record as csv or parquet.")] = "csv",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would change; write nothing.")] = False,
    data: Data = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
) -> None:
    """Write a new corpus without the artifact of a class.

    Without --class: without those of all classes whose artifact the model uses. A manifest, a record and new files are
    written; old files stay. The command exits with 8 if a class has no artifact.
    """
    require_run(run, data)
    from klarsicht.audit.cleaning.data import clean_data as cleaning

    result = cleaning.clean_data(
        run, out, action, name=name, correction=correction, above=above, weight=weight, label=label,
        found_by=found_by, members=members, mask=mask, seed=seed, tables=tables, dry_run=dry_run, data=data,
        device=device,
    )  # fmt: skip
    if as_json:
        echo_block(json.dumps(result.to_json(), indent=2))
    else:
        cleaning_tables.corpus(result, dry_run)
    result.check()
