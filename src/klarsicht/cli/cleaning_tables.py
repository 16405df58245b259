"""Text output of `klarsicht audit clean`, `audit evaluate` and `audit clean-data`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from klarsicht.cli.echo import echo, echo_block
from klarsicht.cli.tables import table

if TYPE_CHECKING:
    from klarsicht.audit.cleaning.certificate import Certificate
    from klarsicht.audit.cleaning.clean_classes import CleanedClasses
    from klarsicht.audit.cleaning.clean_model import CleanedModel
    from klarsicht.audit.cleaning.evaluation import Evaluation, ModelEvaluation
    from klarsicht.audit.cleaning.judgement import Judgement
    from klarsicht.audit.cleaning.shown_classes import ShownClasses
    from klarsicht.audit.data_cleaning.clean_data import CleanedCorpus
    from klarsicht.numerics.statistics.intervals import Interval


def correction(found: CleanedModel) -> None:
    """Print the best settings tried, the chosen correction and why it was chosen, its folder, and the verdict."""
    methods = {tried.method for tried in found.choice.tried}
    shown = found.choice.best_settings if len(methods) == 1 else found.choice.best_of_methods
    lines = [
        (
            "*" if tried is found.choice.chosen else "",
            " and ".join(part.method for part in tried.parts),
            " and ".join(part.setting.layer or "the model" for part in tried.parts),
            " and ".join(str(part.setting.directions) for part in tried.parts),
            " and ".join(f"{part.setting.strength:g}" for part in tried.parts),
            f"{tried.remaining:.0%}",
            f"{1 - tried.gained.low:.0%}",
            _percent(tried.outcome.harm),
            _percent(tried.outcome.harm_affected),
        )
        for tried in shown
    ]
    header = (
        "", "method", "layer", "directions", "strength", "effect left", "at most", "points lost (95 %)",
        "of the class (95 %)",
    )  # fmt: skip
    echo_block(table(header, lines, left=("", "method", "layer")))
    for path, why in found.record["skipped"]:
        echo(f"not read: {path}: {why}")
    artifact = found.artifact
    members = f"{len(artifact.members)} members by {artifact.origin}" if artifact.planted is None else artifact.origin
    echo(f"{artifact.name}: {members}, {artifact.insertion_text}")
    echo(f"chosen: {found.choice.chosen}: {found.choice.reason}.")
    if found.use:
        echo(f"audit quantify says of {artifact.name}: {found.use}. Its artifact is not shown to be used by the model.")
    echo(f"correction: {found.folder}" + ("" if found.record["exported"] else f" ({found.record['why']})"))
    judgement(found.judgement, found.shown, found.classes)


def joint_correction(found: CleanedClasses) -> None:
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
        for one in found.judgement.classes
    ]
    echo_block(table(header, lines, left=("class", "correction")))
    for name, why in found.judgement.left_out:
        echo(f"not corrected: {name}: {why}")
    for order in found.judgement.orders:
        least = f"at least {order.gained:.0%} of each effect taken away"
        echo(f"order {', then '.join(order.names)}: {least}, on images to choose on")
    why = "" if found.record["exported"] else f" ({found.record['why']})"
    echo(f"correction: {found.folder}{why}")
    echo(f"certificate: {found.folder / 'certificate.html'}")
    if any(one.together.origin.trained_on for one in found.judgement.classes):
        echo("the model was trained on the images shown: they prove nothing harmless")
    echo(f"together: points lost {_percent(found.judgement.lost)}; verdict: {found.judgement.verdict}.")
    if found.judgement.shown_classes.lacking:
        echo(found.judgement.shown_classes.lacking)


def judgement(found: Judgement, shown: int, classes: ShownClasses) -> None:
    """Print effect and cost of a correction on images on which nothing was fitted or chosen, the verdict, and of how
    many classes nothing is known."""
    before, after = found.before, found.after
    told = [f"effect left {found.remaining:.0%}"] if found.is_used else []
    if before.flips.n:
        told.append(f"flips to the class, in percent, {_percent(before.flips)} before, {_percent(after.flips)} after")
    if after.member_fall.n and after.turned.n and found.is_used:
        taken = before.rise.value - after.rise.value
        told.append(f"logits taken from carriers {after.member_fall.value:z.2f}, from others {taken:z.2f}")
    told.append(f"points lost {_percent(after.harm)}")
    if after.harm_affected.n:
        told.append(f"of the class {_percent(after.harm_affected)}")
    clean = f", {after.harm.n} of them drawn from all clean ones," if after.harm.n < shown else ""
    echo(f"on {shown} images{clean} that nothing was fitted or chosen on: {'; '.join(told)}")
    if found.origin.trained_on:
        echo(f"the model was trained on these images ({found.origin.why}): show it on others by audit evaluate --test")
    echo(f"verdict: {found.verdict}.")
    if classes.lacking:
        echo(classes.lacking)


def corpus(found: CleanedCorpus, dry_run: bool) -> None:
    """Print the changed images with their action, the unreadable ones, and the counts."""
    changed = [line for line in found.lines if line.action not in ("keep", "skip")]
    header = ("action", "image", "label", "new file", "new label", "weight")
    lines = [(one.action, one.path, one.label, one.new_path, one.new_label, f"{one.new_weight:g}") for one in changed]
    if lines:
        echo_block(table(header, lines, left=header[:-1]))
    for path, why in found.skipped:
        echo(f"not read: {path}: {why}")
    for name, why in found.left_out:
        echo(f"{name}: no artifact: {why}")
    echo(f"{', '.join(found.classes)}: " + ", ".join(f"{n} {action}" for action, n in sorted(found.counts.items())))
    echo("dry run: nothing written" if dry_run else f"manifest: {found.manifest}")


def evaluations(found: Evaluation) -> None:
    """Print one column per correction, one line per figure, and the verdict."""
    figures = [_figures(look) for look in found.evaluations]
    names = list(dict.fromkeys(name for one in figures for name in one))
    lines = [(name, *(one.get(name, "") for one in figures)) for name in names]
    header = ("95 % intervals", *(look.name for look in found.evaluations))
    echo_block(table(header, lines, left=header))
    for path, why in found.skipped:
        echo(f"not read: {path}: {why}")
    artifact = found.record["artifact"]
    how = f", the artifact {artifact['how']}" if "how" in artifact else ""  # absent in records of earlier versions
    echo(f"{found.record['class']}{how}")
    if found.origin.why and not found.origin.trained_on:
        echo(f"held-out images: {found.origin.why}")
    judgement(found.judgement, found.images, found.classes)


def certificate(found: Certificate) -> None:
    """Print one line per correction, and which corrections may be called clean."""
    header = ("percent, 95 % intervals", "points lost", "of the class", "flips", "worst group", "probe", "verdict")
    lines = [
        (
            one.name + (f" ({one.seeds} seeds)" if one.seeds > 1 else ""),
            *(_percent(one.figures[name]) for name in ("harm", "harm_affected", "flips", "worst")),
            _percent(one.at),
            one.word,
        )
        for one in (found.before, *found.rows)
    ]
    echo_block(table(header, lines, left=(header[0], "verdict")))
    if trained := [one.name for one in found.rows if one.trained_on]:
        echo(f"shown on images that the model was trained on: {', '.join(trained)}")
    clean = [one.name for one in found.rows if one.clean == one.seeds]
    echo(f"{found.name}: may be called clean: {', '.join(clean) or 'none'}.")


def _percent(found: Interval) -> str:
    return f"{100 * found.value:z.1f} ({100 * found.low:z.1f} to {100 * found.high:z.1f})" if found.n else ""


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
