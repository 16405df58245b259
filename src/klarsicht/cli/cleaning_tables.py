"""Text output of `klarsicht audit clean`, `audit evaluate` and `audit clean-data`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from klarsicht.audit.cleaning.data.data_record import PROBABLE
from klarsicht.audit.results.correction_words import ON_OTHER_IMAGES, describe_counts, describe_lost, name_folders
from klarsicht.cli.echo import echo, echo_block
from klarsicht.cli.tables import table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from klarsicht.audit.cleaning.corrections.class_recalls import ClassRecalls
    from klarsicht.audit.cleaning.data.clean_data import CleanedCorpus
    from klarsicht.audit.cleaning.models.certificate import Certificate
    from klarsicht.audit.cleaning.models.clean_model import CleanedClasses, CleanedModel
    from klarsicht.audit.cleaning.models.evaluation import Evaluation, ModelEvaluation
    from klarsicht.audit.cleaning.models.group_accuracy import GroupComparison
    from klarsicht.audit.cleaning.models.judgement import CorrectionVerdict, Judgement, ShownClasses
    from klarsicht.numerics.statistics.intervals import Interval


def correction(result: CleanedModel, run: Path) -> None:
    """Print the best settings tried, the chosen correction and why it was chosen, its folder, and the verdict."""
    methods = {tried.method for tried in result.choice.tried}
    outcomes = result.choice.best_settings if len(methods) == 1 else result.choice.best_of_methods
    lines = [
        (
            "*" if tried is result.choice.chosen else "",
            " and ".join(part.method for part in tried.parts),
            " and ".join(part.setting.layer or "the model" for part in tried.parts),
            " and ".join(str(part.setting.directions) for part in tried.parts),
            " and ".join(f"{part.setting.strength:g}" for part in tried.parts),
            f"{tried.remaining:.0%}",
            f"{1 - tried.gained.low:.0%}",
            _percent(tried.outcome.harm),
            _percent(tried.outcome.harm_affected),
        )
        for tried in outcomes
    ]
    header = (
        "", "method", "layer", "directions", "strength", "effect left", "at most", "points lost (95 %)",
        "of the class (95 %)",
    )  # fmt: skip
    echo_block(table(header, lines, left_aligned=("", "method", "layer")))
    for path, why in result.record["skipped"]:
        echo(f"not read: {path}: {why}")
    artifact = result.artifact
    found = f"{len(artifact.members)} images with the artifact, by {artifact.origin}"
    members = found if artifact.planted is None else artifact.origin
    echo(f"{artifact.name}: {members}, {artifact.insertion_text}")
    if artifact.group_use:
        echo(f"what sets these images apart: {artifact.group_use}")
    echo(f"chosen: {result.choice.chosen}: {result.choice.reason}.")
    if result.use:
        echo(f"`audit quantify` did not show that the model uses the artifact of {artifact.name}: {result.use}")
    correction_folder(result.folder, result.record)
    if result.judgement.groups is not None:
        groups([result.judgement.groups])
    judgement(result.judgement, run, result.folder)


def loading_lines(folder: Path) -> None:
    """Print the lines of Python that load a corrected model."""
    echo("load it in Python:")
    echo("  from klarsicht import audit")
    echo(f"  net = audit.load_model({str(folder)!r}).module")


def joint_correction(result: CleanedClasses, run: Path) -> None:
    """Print one line per class, alone and together, the folder, and the verdict."""
    header = (
        "class", "correction", "effect left alone", "together", "flips before", "alone", "together",
        "points lost (95 %)", "of the class (95 %)",
    )  # fmt: skip
    lines = [
        (
            one.name,
            one.setting,
            *(f"{look.remaining:.0%}" if look.is_used else "not used" for look in (one.alone, one.together)),
            *(_percent(look.flips) for look in (one.alone.before, one.alone.after, one.together.after)),
            _percent(one.together.after.harm),
            _percent(one.together.after.harm_affected),
        )
        for one in result.judgement.classes
    ]
    echo_block(table(header, lines, left_aligned=("class", "correction")))
    for name, why in result.judgement.left_out:
        echo(f"not corrected: {name}: {why}")
    for order in result.judgement.orders:
        least = f"takes away at least {100 * order.gained:.0f} % of each effect"
        echo(f"the order {', then '.join(order.names)} {least}, on the images to choose on")
    why = "" if result.record["exported"] else f" ({result.record['why']})"
    echo(f"correction: {result.folder}{why}")
    loading_lines(result.folder)
    echo(f"certificate: {result.folder / 'certificate.html'}")
    if result.judgement.lost.trained_on:
        echo("the model was trained on these images: they cannot prove a correction harmless")
    echo(f"together: accuracy {_describe_lost(result.judgement.lost.measured)}")
    recalls(result.judgement.recalls)
    verdict(result.judgement, run, result.folder / result.record["corrections"][0]["folder"])
    lacking_classes(result.judgement.shown_classes)


def groups(comparisons: Sequence[GroupComparison]) -> None:
    """Print the share that is right of every group before and after, with average and worst group, and say where a
    group has few images."""
    lines = [
        (one.kind, old.label, old.side, str(old.right.n), _percent(old.right), _percent(new.right))
        for one in comparisons
        for old, new in zip(one.before.groups, one.after.groups, strict=True)
    ]
    if not lines:
        return
    header = ("shown", "class", "surroundings or group", "images", "right before, % (95 %)", "after, % (95 %)")
    echo_block(table(header, lines, left_aligned=header[:3]))
    for one in comparisons:
        echo(one.describe())
    for one in comparisons:
        if one.few:
            echo(one.few)


def correction_folder(folder: Path, record: dict[str, Any]) -> None:
    """Print where a correction lies, and how to load it."""
    echo(f"correction: {folder}" + ("" if record["exported"] else f" ({record['why']})"))
    loading_lines(folder)


def judgement(result: Judgement, run: Path, folder: Path) -> None:
    """Print effect and cost of a correction in a folder, on images on which nothing was fitted or chosen, the verdict,
    and of how many classes nothing is known."""
    before, after = result.before, result.after
    sentences = [f"{100 * result.remaining:.0f} % of the effect is left"] if result.is_used else []
    if before.flips.n:
        sentences.append(
            f"the artifact turns {_percent(before.flips)} % of other images into the class before, "
            f"{_percent(after.flips)} % after"
        )
    if after.member_fall.n and after.turned.n and result.is_used:
        taken = before.rise.value - after.rise.value
        sentences.append(
            f"the class score changes by {-after.member_fall.value:+z.2f} logits on images with the artifact, by "
            f"{-taken:+z.2f} where it is inserted"
        )
    sentences.append(f"accuracy {_describe_lost(after.harm)}")
    if after.harm_affected.n:
        sentences.append(f"that of the class {_describe_lost(after.harm_affected)}")
    clean = f", {after.harm.n} of them drawn from all clean ones," if after.harm.n < result.shown else ""
    echo(f"on {result.shown} images{clean} that were not used to make it: {'; '.join(sentences)}")
    for sentence in filter(None, (result.disagreement, result.on_new_draws)):
        echo(sentence)
    if result.origin.trained_on:
        evaluate = name_folders(ON_OTHER_IMAGES, str(run), str(folder))
        echo(f"the model was trained on these images ({result.origin.why}): evaluate it on others with {evaluate}")
    recalls(after.recalls)
    verdict(result, run, folder)
    lacking_classes(result.shown_classes)


def recalls(of_classes: ClassRecalls) -> None:
    """Print the share of clean images that is right of each class, before and after, and the mean over classes; of many
    classes those that lose most."""
    if len(of_classes.classes) < 2:
        return
    header = ("class", "clean images", "right before, % (95 %)", "after, % (95 %)", "points lost (95 %, all classes)")
    lines = [
        (one.name, str(one.loss.n), _percent(one.before), _percent(one.after), _percent(one.loss))
        for one in of_classes.table()
    ]
    mean = ("mean over classes", str(len(of_classes.truth)), *map(_percent, of_classes.mean()), "")
    echo_block(table(header, [*lines, mean], left_aligned=("class",)))


def verdict(result: CorrectionVerdict, run: Path, folder: Path) -> None:
    """Print the verdict on a correction in a folder, and the next step."""
    echo(f"verdict: {result.verdict}")
    echo(f"next: {name_folders(result.advice, str(run), str(folder))}")


def lacking_classes(shown: ShownClasses) -> None:
    """Print the classes of which nothing is known, if any."""
    if shown.lacking:
        echo(shown.lacking)


def corpus(result: CleanedCorpus, dry_run: bool) -> None:
    """Print the changed images with their action, or what was done to every image alike, the unreadable ones, and the
    counts."""
    alike = not result.classes
    changed = [line for line in result.lines if line.action not in ("keep", "skip")]
    header = ("action", "image", "label", "new file", "new label", "weight", "why")
    lines = [
        (one.action, one.path, one.label, one.new_path, one.new_label, f"{one.new_weight:g}", one.why)
        for one in changed
    ]
    if alike:
        echo(str(result.facts["method"]))
    elif lines:
        echo_block(table(header, lines, left_aligned=[name for name in header if name != "weight"]))
    for path, why in result.skipped:
        echo(f"not read: {path}: {why}")
    for name, why in result.left_out:
        echo(f"{name}: no artifact found: {why}")
    echo(f"{'every image alike' if alike else ', '.join(result.classes)}: {describe_counts(result.counts)}")
    for words in result.describe_left():
        echo(words)
    if probable := sum(line.why.startswith(PROBABLE) for line in changed):
        others = "1 other counts" if probable == 1 else f"{probable:,} others count"
        echo(
            f"{len(changed) - probable:,} of these are images of the finding; {others} by a probability of at least "
            f"{result.facts['above']:g} (--above): look at {'it' if probable == 1 else 'them'} (column `why`)"
        )
    if dry_run:
        echo("dry run: nothing written; the same command without --dry-run writes it")
    else:
        echo(f"manifest: {result.manifest}")
        echo("next: train on this manifest, then run `klarsicht audit run` on the new model")


def evaluations(evaluation: Evaluation, run: Path, folder: Path) -> None:
    """Print one column per correction, one line per figure, and the verdict."""
    figures = [_figures(look) for look in evaluation.evaluations]
    names = list(dict.fromkeys(name for one in figures for name in one))
    lines = [(name, *(one.get(name, "") for one in figures)) for name in names]
    header = ("95 % intervals", *(look.name for look in evaluation.evaluations))
    echo_block(table(header, lines, left_aligned=header))
    for path, why in evaluation.skipped:
        echo(f"not read: {path}: {why}")
    artifact = evaluation.record["artifact"]
    echo(f"{evaluation.record['class']}, the artifact {artifact['how']}")
    origin = evaluation.judgement.origin
    if origin.why and not origin.trained_on:
        echo(f"held-out images: {origin.why}")
    groups(evaluation.groups)
    judgement(evaluation.judgement, run, folder)


def certificate(evaluations: Certificate) -> None:
    """Print one line per correction, and which corrections may be called clean."""
    header = ("percent, 95 % intervals", "points lost", "of the class", "flips", "worst group", "probe", "verdict")
    lines = [
        (
            one.name + (f" ({one.seeds} seeds)" if one.seeds > 1 else ""),
            *(_percent(one.figures[name]) for name in ("harm", "harm_affected", "flips", "worst")),
            _percent(one.at),
            one.word,
        )
        for one in (evaluations.before, *evaluations.rows)
    ]
    echo_block(table(header, lines, left_aligned=(header[0], "verdict")))
    if trained := [one.name for one in evaluations.rows if one.trained_on]:
        echo(f"evaluated on images that the model was trained on: {', '.join(trained)}")
    clean = [one.name for one in evaluations.rows if one.clean == one.seeds]
    echo(f"{evaluations.name}: cleaned by {', '.join(clean) or 'none of them'}")


def _percent(interval: Interval) -> str:
    return (
        f"{100 * interval.value:z.1f} ({100 * interval.low:z.1f} to {100 * interval.high:z.1f})" if interval.n else ""
    )


def _describe_lost(interval: Interval) -> str:
    return describe_lost(interval.value, interval.low, interval.high) if interval.n else "is not known"


def _figures(look: ModelEvaluation) -> dict[str, str]:
    e, again = look.outcome, look.second_audit
    named = {
        "accuracy, clean images": e.accuracy,
        "accuracy, clean images of the class": e.affected,
        "accuracy, worst group": e.worst,
        "accuracy of others under the artifact": e.under,
        "flips to the class under the artifact": e.flips,
        "rise of the class's logit by the artifact": e.rise,
        "loss, clean images": e.harm,
        "loss, clean images of the class": e.harm_affected,
        "relevance on the artifact": look.relevance,
        **{f"probe at {layer}": p for layer, p in look.probes.items()},
    }
    told = {name: str(value) for name, value in named.items() if value.n}
    if again is not None:
        told["second audit"] = again.summary
    return told
