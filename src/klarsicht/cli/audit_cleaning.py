"""Commands of `klarsicht audit` that correct a model or a corpus for an artifact, and that evaluate corrections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Protocol

import typer

from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.explanation.data.locations import require_place
from klarsicht.audit.explanation.settings import ANY_DEVICE
from klarsicht.audit.results.words import SURROUNDINGS
from klarsicht.cli import cleaning_tables
from klarsicht.cli.echo import echo, echo_json
from klarsicht.cli.options import AsJson, Data, Device, RunFolder, Trust, add_settings, number, option
from klarsicht.cli.places import require_run_with_model, require_table
from klarsicht.ground import ranges
from klarsicht.ground.errors import EffectRemains, HarmExceeded, UsageError

Members = Annotated[Path | None, typer.Option(help="A text file of images that carry the artifact. [what was found]")]
FoundBy = Annotated[
    str | None,
    typer.Option(
        help="Source of the images with the artifact: cluster or detector. [detector, if it found an artifact]"
    ),
]
Mask = Annotated[Path | None, typer.Option(help="A picture, white where the artifact lies. [where relevance lies]")]
SHOWN_HELP = "Most images of each kind to evaluate on. [as `audit clean`: ten times as many as it was chosen on]"
OUT_HELP = "Folder of the certificate; of surroundings, of evaluation.json. [RUN/certificate, or the correction's]"
TEST_HELP = "Another corpus without the artifact, to evaluate on; of surroundings with --groups."
KIND_HELP = "A known artifact instead of a found one: a kind or family of `audit plant`, drawn on the images."
ACTION_HELP = "drop, weigh, move, quarantine, inpaint, or denoise: every image alike."
NOISE_HELP = "For denoise: READ,SHOT, deviation and variance at white. [estimated in the noisiest class]"
DENOISE = "denoise"
NOTED = "noted"  # the strongest part that `audit shortcuts` noted
PART_HELP = (
    "A part of every image: border, corners (all four), 'top left' or another corner, colours, spectrum, "
    "'fine texture' or resolution. May be repeated. Give noted for the strongest part that `audit shortcuts` flagged, "
    "or surroundings, which needs no --class. At most --overall is lost by it if no shortcut in them was shown."
)
GROUPS_HELP = (
    "True groups of the images: a column of the corpus's table, or a table with the columns path,group. "
    "[the sides that `audit shortcuts` found]"
)
BALANCED_HELP = (
    "A corpus of the same classes in which the shortcut says nothing of the class: three fifths of its images teach, "
    "the others show the result. Needs no --class and no --part."
)
BALANCED_AGAIN_HELP = "Balanced images of the correction, if they were moved. [those that it was made with]"
Groups = Annotated[str | None, typer.Option(help=GROUPS_HELP)]
Overall = Annotated[float | None, option(CleanSettings, "overall")]
Affected = Annotated[float | None, option(CleanSettings, "affected")]


class Judged(Protocol):
    """Result with a verdict."""

    def check(self) -> None:
        """Raise HarmExceeded or EffectRemains if the corrected model may not be called clean."""


def refuse_with_denoising(of_artifacts: Mapping[str, object]) -> None:
    """Refuse options that choose some of the images where all images are denoised. Raises UsageError."""
    if given := [option for option, value in of_artifacts.items() if value not in (None, [])]:
        rule = "a class that alone is denoised is known by its smoothness, so every image is"
        raise UsageError("options of one artifact with --action denoise", got=", ".join(given), rule=rule)


def refuse_with_surroundings(options: Mapping[str, object], rule: str, remedy: str) -> None:
    """Refuse options of other corrections where surroundings are cleaned or evaluated. Raises UsageError."""
    if given := [name for name, value in options.items() if value not in (None, [])]:
        raise UsageError(
            "options of other corrections with one of surroundings", got=", ".join(given), rule=rule, remedy=remedy
        )


def end_with(result: Judged, as_json: bool) -> int:
    """Return the exit code of a result whose verdict and next step were printed; of JSON, and of several corrections,
    the error says them. Raises HarmExceeded or EffectRemains."""
    try:
        result.check()
    except (HarmExceeded, EffectRemains) as error:
        if as_json:
            raise
        return error.exit_code
    return 0


@add_settings(
    CleanSettings,
    tuple(CleanSettings.model_fields),
    flags={"train": "--train/--closed-form", "pooled": "--pooled/--per-position"},
    defaults=dict.fromkeys(("layer", "directions", "strength"), "swept"),
)
def clean(
    run: RunFolder,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--class", help='Class to clean; "carton (artifact 2)" is its second artifact. [all that rely on one]'
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The correction's folder. [RUN/corrections/TARGET-METHOD, all or surroundings]")
    ] = None,
    found_by: FoundBy = None,
    members: Members = None,
    mask: Mask = None,
    kind: Annotated[str | None, typer.Option(help=KIND_HELP)] = None,
    part: Annotated[list[str] | None, typer.Option(help=PART_HELP)] = None,
    groups: Groups = None,
    fair_data: Annotated[str | None, typer.Option("--balanced", help=BALANCED_HELP)] = None,
    data: Data = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
    *,
    settings: CleanSettings,
) -> int:
    """Correct the model for the artifact of a class, and save it.

    The correction is chosen under a bound on harm. The command exits with 7 if it harms too much, and with 8 if it
    does not help. Without --class, or with several, one model is corrected for all these classes; if it was stopped,
    the same command resumes. With one class it begins again.
    """
    require_run_with_model(run, data)
    require_table(groups)
    if fair_data is not None:
        require_place(fair_data, "--balanced")
        if name is not None or part not in (None, [SURROUNDINGS]):
            what, rule = "--balanced with a class or a part", "they teach all classes at once"
            named = ", ".join([*(name or ()), *(part or ())])
            raise UsageError(what, got=named, rule=rule, remedy="Leave out --class and --part.")
        part = [SURROUNDINGS]
    from klarsicht.audit.cleaning.models import clean_model

    if groups is not None and (name is not None or part != [SURROUNDINGS]):
        what, rule = "--groups without --part surroundings", "groups take the place of the sides of surroundings"
        raise UsageError(what, got=groups, rule=rule, remedy="Or show them: `klarsicht audit evaluate --groups`.")
    if part is not None and SURROUNDINGS in part and (name is not None or part != [SURROUNDINGS]):
        what, rule = "surroundings with a class or another part", "they are cleaned of all classes at once"
        raise UsageError(
            what, got=", ".join([*(name or ()), *part]), rule=rule, remedy="Give --part surroundings alone."
        )
    if part == [SURROUNDINGS]:
        described = {"--found-by": found_by, "--members": members, "--mask": mask, "--kind": kind}
        refuse_with_surroundings(described, "surroundings are no artifact of one class", "Leave it out.")
        from klarsicht.audit.cleaning.models.surroundings_correction import clean_surroundings

        surroundings = clean_surroundings(
            run, settings, out=out, groups=groups, balanced=fair_data, data=data, device=device
        )
        if as_json:
            echo_json(surroundings.record)
        else:
            cleaning_tables.groups(surroundings.judgement.comparisons)
            if surroundings.change is not None:
                echo(surroundings.change.describe())
            cleaning_tables.correction_folder(surroundings.folder, surroundings.record)
            cleaning_tables.verdict(surroundings.judgement, run, surroundings.folder)
        return end_with(surroundings, as_json)
    if name is None or len(name) > 1:
        if members is not None or mask is not None or kind is not None or part:
            what, got = "--members, --mask, --kind and --part need one class", members or mask or kind or part
            raise UsageError(what, got=got, rule="they describe one artifact", remedy="Name the class: --class.")
        together = clean_model.clean_classes(
            run, name or (), settings, out=out, found_by=found_by, data=data, device=device
        )
        if as_json:
            echo_json(together.record)
        else:
            cleaning_tables.joint_correction(together, run)
        return end_with(together, as_json)
    parts = None if not part else [] if part == [NOTED] else part
    result = clean_model.clean(
        run, name[0], settings, out=out, found_by=found_by, members=members, mask=mask, kind=kind, part=parts,
        data=data, device=device,
    )  # fmt: skip
    if as_json:
        echo_json(result.record)
    else:
        cleaning_tables.correction(result, run)
    return end_with(result, as_json)


def evaluate(
    run: RunFolder,
    correction: Annotated[list[Path], typer.Option(help="A folder written by `audit clean`; may be given again.")],
    also: Annotated[
        list[Path] | None, typer.Option(help="A correction of another model, evaluated already: a further seed.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help=OUT_HELP)] = None,
    test: Annotated[str | None, typer.Option(help=TEST_HELP)] = None,
    images: Annotated[int | None, number(ranges.SHOWN_IMAGES, SHOWN_HELP)] = None,
    overall: Overall = None,
    affected: Affected = None,
    groups: Groups = None,
    fair_data: Annotated[str | None, typer.Option("--balanced", help=BALANCED_AGAIN_HELP)] = None,
    seed: Annotated[int, number(ranges.SEED, "Seed of samples, probes and controls.")] = 0,
    data: Data = None,
    device: Device = ANY_DEVICE,
    trust: Trust = False,
    as_json: AsJson = False,
) -> int:
    """Compare corrections before and after on held-out images.

    The command exits with 7 if one harms too much, and with 8 if none helps.
    """
    require_run_with_model(run, data)
    require_table(groups)
    for place, option_name in ((fair_data, "--balanced"), (test, "--test")):
        if place is not None:
            require_place(place, option_name)
    from klarsicht.audit.cleaning.corrections.packages import is_package, load_correction
    from klarsicht.audit.cleaning.models import evaluation
    from klarsicht.audit.cleaning.models.surroundings_correction import EVALUATION, evaluate_surroundings

    if len(correction) == 1 and is_package(correction[0]) and "surroundings" in load_correction(correction[0])[1]:
        refused = {"--affected": affected, "--also": also}
        rule = "it is judged by all groups together, on one model"
        refuse_with_surroundings(refused, rule, "Leave it out, or bound what may be lost by --overall.")
        evaluation_of_groups = evaluate_surroundings(
            run, correction[0], test=test, groups=groups, balanced=fair_data, overall=overall, images=images, seed=seed,
            out=out, data=data, device=device,
        )  # fmt: skip
        if as_json:
            echo_json(evaluation_of_groups.judgement.to_json())
        else:
            cleaning_tables.groups(evaluation_of_groups.judgement.comparisons)
            cleaning_tables.verdict(evaluation_of_groups.judgement, run, correction[0])
            echo(f"evaluation: {evaluation_of_groups.folder / EVALUATION}")
        return end_with(evaluation_of_groups, as_json)
    if fair_data is not None:
        what, rule = "--balanced for another correction", "balanced images are those of a correction by --balanced"
        raise UsageError(what, got=fair_data, rule=rule, remedy="Show other images by --test.")
    result = evaluation.certify(
        run, correction, also=also or (), out=out, test=test, images=images, overall=overall, affected=affected,
        groups=groups, data=data, seed=seed, device=device,
    )  # fmt: skip
    alone = len(result.certificate.evaluations) == 1
    if as_json:
        told = result.evaluations[0].to_json() if alone else result.certificate.to_json()
        echo_json(told)
    elif alone:
        cleaning_tables.evaluations(result.evaluations[0], run, correction[0])
    else:
        cleaning_tables.certificate(result.certificate)
        for one in result.evaluations:
            cleaning_tables.groups(one.groups)
    if not as_json:
        echo(f"certificate: {result.folder / 'certificate.html'}")
    return end_with(result, as_json or not alone)


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
    action: Annotated[str, typer.Option(help=ACTION_HELP)] = "drop",
    weight: Annotated[
        float | None, number(ranges.IMAGE_WEIGHT, "For weigh: weight of an image with the artifact. [0.1]")
    ] = None,
    label: Annotated[str | None, typer.Option(help="For move: the new label.")] = None,
    noise: Annotated[str | None, typer.Option(help=NOISE_HELP)] = None,
    above: Annotated[float, number(ranges.SHARE, "Probability from which an image counts as carrying it.")] = 0.5,
    found_by: FoundBy = None,
    members: Members = None,
    mask: Mask = None,
    seed: Annotated[int, number(ranges.SEED, "Seed of the detector's folds and parts.")] = 0,
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
    require_run_with_model(run, data)
    of_artifacts = {
        "--class": name, "--correction": correction, "--weight": weight, "--label": label, "--found-by": found_by,
        "--members": members, "--mask": mask,
    }  # fmt: skip
    if action == DENOISE:
        refuse_with_denoising(of_artifacts)
        from klarsicht.bridge.denoised_corpus import denoise_corpus
        from klarsicht.burst.noise.sources import parse_noise

        level = None if noise is None else parse_noise(noise)
        result = denoise_corpus(run, out, level, tables=tables, dry_run=dry_run, data=data, device=device)
    else:
        if noise is not None:
            raise UsageError("--noise goes with --action denoise", got=action, remedy="Leave --noise out.")
        from klarsicht.audit.cleaning.data import clean_data as cleaning

        result = cleaning.clean_data(
            run, out, action, name=name, correction=correction, above=above, weight=weight, label=label,
            found_by=found_by, members=members, mask=mask, seed=seed, tables=tables, dry_run=dry_run, data=data,
            device=device,
        )  # fmt: skip
    if as_json:
        echo_json(result.to_json())
    else:
        cleaning_tables.corpus(result, dry_run)
    result.check()
