"""Text output of `klarsicht audit`: plain columns, never truncated, so that they can be piped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any

from klarsicht.audit.results.words import describe_level, format_count, format_p
from klarsicht.cli.echo import echo, echo_block
from klarsicht.ground.names import printable
from klarsicht.ground.step_words import describe_step, is_measured_beside

if TYPE_CHECKING:
    from klarsicht.audit.explanation.doctor import Diagnosis
    from klarsicht.audit.explanation.duplicates import Duplicates
    from klarsicht.audit.explanation.status import Step
    from klarsicht.audit.results.checked_picture import CheckedPictures
    from klarsicht.audit.results.content_groups import ContentGroups
    from klarsicht.audit.results.ranking import Ranking
    from klarsicht.audit.results.seen_groups import SeenGroup
    from klarsicht.audit.results.sufficiency import Sufficiency
    from klarsicht.audit.results.surroundings import Surroundings
    from klarsicht.audit.results.verdicts import Quantification
    from klarsicht.audit.verdicts.forecast import Forecast, StepCost
    from klarsicht.audit.verdicts.quantification.screening import Screening
    from klarsicht.audit.verdicts.sensitivity.finetuned_results import FinetunedResults
    from klarsicht.audit.verdicts.sensitivity.power import Power
    from klarsicht.ground.run_folder.verification import Verification

SHOWN = 20  # files without a checksum that are named
PICTURES_EXPLAINED = 10  # up to which each is explained
SEEN_PRINTED = 10  # groups that no verdict names; the report shows more

BESIDE = ("without relevance",)  # column of the cluster found without relevance
DECIDED = ("decision",)  # column of what a person decided


def table(header: Sequence[str], lines: Sequence[Sequence[str]], left_aligned: Sequence[str]) -> str:
    """Format columns two spaces apart; those named in `left_aligned` are left-aligned, the others right-aligned."""
    lines = [tuple(map(printable, line)) for line in lines]
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]

    def row(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if name in left_aligned else cell.rjust(width)
            for cell, width, name in zip(cells, widths, header, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join(map(row, (header, *lines)))


def _print_columns(columns: Mapping[str, Any], lines: Sequence[Any]) -> None:
    """Print the `texts` of lines under the headings of their columns, of which those of words are left-aligned."""
    words = [column.heading for column in columns.values() if column.is_text]
    echo_block(table([column.heading for column in columns.values()], [line.texts for line in lines], words))


def ranking(entries: Ranking, top: int) -> None:
    """Print the first classes of a ranking."""
    lines = [
        (str(i), e.name, e.kind.label, e.metric, f"{e.z:.2f}", f"{e.shift:+z.2f}", f"{e.tau:.2f}", f"{e.size} of {e.n}")
        + ((e.beside,) if entries.beside else ())
        + ((e.decision,) if entries.decided else ())
        for i, e in enumerate((entry.as_named for entry in entries.entries[:top]), 1)
    ]
    further = (BESIDE if entries.beside else ()) + (DECIDED if entries.decided else ())
    header = ("#", "class", "verdict", "metric", "z", "score difference", "separation", "images", *further)
    echo_block(table(header, lines, left_aligned=("class", "metric", "verdict", *BESIDE, *DECIDED)))


def verdicts(
    quantification: Quantification, top: int, run: str, places: Mapping[tuple[int, int], str],
    groups: Sequence[SeenGroup] = (),
) -> None:  # fmt: skip
    """Print the first verdicts of a quantification as a table, then each artifact in sentences, with the next step, and
    the first groups that no verdict names."""
    from klarsicht.audit.results.verdict_lines import VERDICT_COLUMNS

    lines = [line for line in quantification.lines if line.position <= top]
    _print_columns(VERDICT_COLUMNS, lines)
    echo(f"{quantification.limits[0].upper()}{quantification.limits[1:]} {describe_level(quantification.level)}")
    for name, why in quantification.skipped:
        echo(f"not examined: {name}: {why}")
    to_review = [line for line in lines if line.verdict.needs_review]
    for line in to_review:
        echo()
        echo(line.headline_at(places.get((line.verdict.target, line.number), "")))
        echo("next: {}: {}".format(*line.next_step(run)))
    if groups:
        from klarsicht.audit.results.seen_groups import NOT_TESTED, ONLY_YOU

        echo()
        if count := sum(group.is_used for group in groups):
            echo(f"seen, used: {format_count(count, 'group')} of images. {ONLY_YOU}")
        if count < len(groups):
            echo(f"seen, not called: {format_count(len(groups) - count, 'group')} of images. {NOT_TESTED}")
    groups = sorted(groups, key=lambda group: not group.is_used)
    for group in groups[:SEEN_PRINTED]:
        echo(f"- {group.headline}")
    if groups:
        members = f"--class {quote(groups[0].name)} --members LIST"
        echo(f"next: look at their images: klarsicht audit explore {quote(run)}")
        echo(f"next: list those of an artifact, and test its use: klarsicht audit clean {quote(run)} {members}")
    if not to_review:
        echo(f"next: ask for what whole classes share: klarsicht audit shortcuts {quote(run)}")
        echo(f"next: measure which artifacts this audit could have found: klarsicht audit power {quote(run)}")


def duplicates(copies: Duplicates, top: int) -> None:
    """Print what copies there are, and the first groups."""
    lines = []
    for i, group in enumerate(copies.groups[:top], 1):
        crossing = [
            what for what, is_so in (("splits", group.crosses_splits), ("labels", group.crosses_labels)) if is_so
        ]
        first = " | ".join(group.keys[:3]) + (" | ..." if len(group.keys) > 3 else "")  # names of classes have commas
        size, labels = str(len(group.rows)), " | ".join(dict.fromkeys(group.labels))
        figures = (f"{group.correlation:.2f}", f"{group.mutual:.0%}")
        lines.append((str(i), size, group.kind, *figures, " and ".join(crossing), labels, first))
    if lines:
        header = ("#", "images", "kind", "correlation", "mutual", "across", "labels", "paths")
        echo_block(table(header, lines, left_aligned=("kind", "across", "labels", "paths")))
    echo(copies.describe())


def screening(result: Screening, top: int) -> None:
    """Print the result of screening for one class."""
    entry, effect = result.entry, result.effect
    echo(f"{entry.name}: {entry.size} of {format_count(entry.n, 'image')}, by {entry.metric}: {result.verdict}")
    echo(
        f"score change when inserted into other images: {effect.shift:+.2f} ({effect.low:+.2f} to "
        f"{effect.high:+.2f}) logits; of the next output {effect.runner_up:+.2f}; {effect.rank} of {result.outputs} "
        "outputs change more"
    )
    for line in result.standing.describe(result.outputs):
        echo(line)
    echo(f"p {format_p(result.p)}; significance level {result.level:g}")
    if result.limits:
        echo(result.limits)
    if entry.beside:
        echo(f"without relevance: {entry.beside}")
    echo("labels of these images: " + ", ".join(f"{label} {count}" for label, count in result.labels[:top]))


def sufficiency(profiles: Sufficiency, top: int) -> None:
    """Print the table of parts of the first classes, then the strongest of each in sentences."""
    from klarsicht.audit.results.file_rules import describe_file_rules
    from klarsicht.audit.results.sufficiency import PART_COLUMNS

    shown = profiles.profiles[:top]
    _print_columns(PART_COLUMNS, [line for line in profiles.lines if line.profile in shown])
    echo(profiles.limits)
    headlines = [line.headline for line in profiles.headlines if line.profile in shown]
    for sentence in (*headlines, *describe_file_rules(profiles.files)[:top]):
        echo()
        echo(sentence)


def surroundings(found: Surroundings, top: int, file: str) -> None:
    """Print what was found of surroundings that nearly a whole class shares, and the clearest exceptions."""
    run = file.rpartition("/")[0]
    echo()
    for line in found.describe():
        echo(line)
    if found.found and found.exceptions:
        lines = [(one.path, one.label, one.side, f"{one.margin:.2f}") for one in found.exceptions[:top]]
        echo_block(table(("exception", "class", "surroundings of", "margin"), lines, ("exception", "class")))
        echo(f"all {len(found.exceptions)} exceptions: {file}, with pictures in {run}/report.html")
    if found.relied_on:
        echo(f"next: train the model on other surroundings: klarsicht audit clean {run} --part surroundings")


def content(found: ContentGroups, top: int) -> None:
    """Print the first content groups, and those that stand out in sentences with their pictures."""
    shown = found.groups[:top]
    lines = [
        (one.name, one.kind.label, f"{len(one.pictures)} of {one.n}" if one.pictures else "", format_p(one.p),
         *one.effect_texts)
        for one in shown
    ]  # fmt: skip
    header = ("class", "verdict", "pictures", "p (group)", "probability (95 %)", "become it (other content)")
    echo_block(table(header, lines, left_aligned=("class", "verdict")))
    for one in shown:
        if one.stands_out:
            echo()
            echo(one.describe())
            for picture in one.pictures:
                echo(f"- {picture.path}")


def pictures(results: CheckedPictures) -> None:
    """Print for each picture the prediction and what it is shown to rest on; then what was found, of many pictures only
    of those that rest on something or could not be checked."""
    lines = [(one.path, one.predicted, "" if one.why else f"{one.probability:.2f}", one.reliance) for one in results]
    header = ("picture", "predicted", "probability", "relies on")
    echo_block(table(header, lines, left_aligned=("picture", "predicted", "relies on")))
    for one in results:
        if len(results) <= PICTURES_EXPLAINED or one.relies_on or one.undecided or one.why:
            echo()
            echo(one.path)
            echo_block("\n".join(f"- {words}" for words in one.findings))
    echo()
    echo(results.limits)


def power(result: Power) -> None:
    """Print the detection limits of planted artifacts."""
    _print_limits(result)
    echo(f"Classes in which the artifact was found at p {result.level:g}, of those planted.")
    if result.finetuned:
        finetuned(result.finetuned)
    else:
        echo("Whether a model would use such an artifact is unknown: --train fine-tunes copies of it to tell.")


def finetuned(results: FinetunedResults) -> None:
    """Print the detection limits of artifacts that fine-tuned copies learned."""
    echo()
    _print_limits(results)
    echo("Found/learned of planted; the limit is that of those that were learned.")
    for note in results.notes():
        echo(note)


def _print_limits(results: Power | FinetunedResults) -> None:
    """Print one line per kind of artifact: its detection limit, and the counts at each prevalence."""
    from klarsicht.audit.verdicts.sensitivity.detection_limits import format_percent

    lines = [
        (kind, results.format_limit(kind), *(results.format_counts(kind, share) for share in results.prevalences))
        for kind in results.kinds
    ]
    header = ("kind", "found down to", *map(format_percent, results.prevalences))
    echo_block(table(header, lines, left_aligned=("kind", "found down to")))


def diagnosis(result: Diagnosis) -> None:
    """Print what an audit of a model and a corpus would give."""
    width = max(len(name) for name, _ in result.facts)
    for name, value in result.facts:
        echo(f"{name.ljust(width)}  {value}")
    echo()
    state = {True: "yes", False: "no", None: ""}
    speeds = (t.images_per_second for t in result.methods)
    lines = [
        (t.name, state[t.works], "" if math.isnan(speed) else f"{speed:.1f}", t.told)
        for t, speed in zip(result.methods, speeds, strict=True)
    ]
    header = ("method", "works", "images/s", "why, or how far it conserves")
    echo_block(table(header, lines, left_aligned=(header[0], header[1], header[3])))
    ending = result.refused and result.refused.with_options  # the error that the command ends with
    for one in result.missing:
        if one != ending:
            echo(f"missing: {one}")


def cost(forecast: Forecast) -> None:
    """Print what an audit will cost, by step, and `audit quantify` after it."""
    from klarsicht.audit.verdicts.forecast import add_steps

    _steps_of_cost((*forecast.steps, add_steps(forecast.steps)))
    if forecast.quantification:
        echo()
        echo("audit quantify, after it:")
        _steps_of_cost((*forecast.quantification, add_steps(forecast.quantification)))
    processes = "1 process" if forecast.workers == 1 else f"{forecast.workers} processes, memory in each"
    echo(
        f"forecast for {format_count(forecast.images, 'image')}, {format_count(forecast.classes, 'label')}, "
        f"{processes}; elapsed times are those of the machine's present load"
    )


def _steps_of_cost(steps: Sequence[StepCost]) -> None:
    lines = [
        (one.step, duration(one.cpu_seconds), duration(one.wall_seconds), f"{one.disk_bytes / 1e9:.3f}",
         "" if one.peak_bytes is None else f"{one.peak_bytes / 1e9:.2f}", one.sample, one.law)
        for one in steps
    ]  # fmt: skip
    header = ("step", "processor", "elapsed", "disk, GB", "memory, GB", "measured on", "grows with")
    echo()
    echo_block(table(header, lines, left_aligned=("step", "measured on", "grows with")))


def duration(seconds: float) -> str:
    """Write seconds as seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def steps(progress: Sequence[Step]) -> None:
    """Print the progress of a run by step."""
    lines = [
        (step.name, describe_step(step.name), str(step.done), str(step.units), _state_of(step)) for step in progress
    ]
    echo_block(table(("step", "what", "done", "of", "state"), lines, left_aligned=("step", "what", "state")))
    for step in progress:
        if step.commands:
            echo(f"{step.name}: {len(step.commands)} of {step.shares} shares are missing; to make them:")
            for command in step.commands:
                echo(f"  {command}")


def _state_of(step: Step) -> str:
    if step.complete:
        return "complete"
    return (
        "not complete: the same `audit power` goes on; the audit is complete without it"
        if is_measured_beside(step.name)
        else ""
    )


def verification(result: Verification) -> None:
    """Print which files of a run are not as they were written."""
    for damage in result.damaged:
        echo(f"damaged: {damage}")
    for file in result.unverified[:SHOWN]:
        echo(f"unverified: {file}")
    if len(result.unverified) > SHOWN:
        echo(f"unverified: {len(result.unverified) - SHOWN} more files")
    echo(
        f"files as they were written: {result.files}; damaged: {len(result.damaged)}; "
        f"without a checksum: {len(result.unverified)}."
    )
