"""Compare corrections of one class in a certificate, or show those of several: remaining effect and cost of each, with
bounds.

    OUT/certificate.json
    OUT/certificate.html     a row for each correction, with drawn intervals; or for each class of a joint correction

Corrections that differ only in their seed or their model are seeds of one row. Its figures are means over seeds with
intervals by Student's t, but never narrower than those over images, since seeds may share images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from klarsicht import __version__
from klarsicht.audit.cleaning.corrections.harm import HARMFUL, HARMLESS, Bounds
from klarsicht.audit.cleaning.models.judgement import JointJudgement
from klarsicht.audit.results.correction_words import CleaningKind, describe_lost
from klarsicht.audit.results.words import format_count, join_words
from klarsicht.ground.errors import HarmExceeded, InputError, UsageError
from klarsicht.ground.machine.disk import read_regular_file, translate_write_errors, write_atomically
from klarsicht.ground.pages import load_template
from klarsicht.ground.run_folder.manifest import to_json
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval, mean_interval, student_quantile

FIGURES: Final = {
    "accuracy": "accuracy, clean images",
    "affected": "accuracy, clean images of the class",
    "worst": "accuracy, worst group",
    "under": "accuracy of others under the artifact",
    "flips": "flips to the class under the artifact",
    "rise": "rise of the class's logit by the artifact",
    "harm": "loss, clean images",
    "harm_affected": "loss, clean images of the class",
    "relevance on the artifact": "relevance on the artifact",
}
ENDS: Final = ("value", "low", "high", "n")
MARGIN: Final = 0.05  # share of a scale, on both sides of its values
AS_IT_IS, CORRECTED = 0, 1  # positions of the models of an evaluation
SHARE_RANGE: Final = (0.0, 1.0)
RANGES: Final = {
    "rise": (-math.inf, math.inf),
    "harm": (-1.0, 1.0),
    "harm_affected": (-1.0, 1.0),
}  # the others: SHARE_RANGE
TRAINED_ON: Final = "The model was trained on these images. On new ones it may lose more."
NOT_COVERED: Final = (
    "Not tested here: artifacts of other kinds or classes, and whether the model is accurate or safe enough for its "
    "use."
)
Facts = dict[str, Any]  # content of evaluation.json


@dataclass(frozen=True)
class CertificateRow:
    """Figures (by names of `FIGURES`) of one correction, or of the unchanged model, over images or over seeds.

    Attributes:
        at, after: accuracy of a new probe at the corrected layer, and the best of later layers.
        suspect: number of seeds in which the second audit finds the class suspect again, and number of seeds.
        clean: number of seeds in which the model may be called clean.
    """

    name: str
    figures: dict[str, Interval]
    at: Interval
    after: Interval
    suspect: tuple[int, int]
    verdicts: tuple[str, ...]
    kinds: tuple[str, ...]
    clean: int
    trained_on: bool = False

    @property
    def seeds(self) -> int:
        return len(self.verdicts)

    @property
    def word(self) -> str:
        """The label of the common verdict, or in how many seeds the model is clean."""
        common = len(set(self.kinds)) == 1
        return CleaningKind(self.kinds[0]).label if common and self.kinds[0] else self.verdict

    @property
    def verdict(self) -> str:
        """The common verdict, or in how many seeds the model is clean."""
        return self.verdicts[0] if len(set(self.verdicts)) == 1 else f"clean in {self.clean} of {self.seeds} seeds"

    def to_json(self) -> Facts:
        """Return the row as JSON values."""
        figures = {name: _interval_json(found) for name, found in self.figures.items()}
        probes = {"at": _interval_json(self.at), "after": _interval_json(self.after)}
        return asdict(self) | {"figures": figures} | probes | {"seeds": self.seeds, "verdict": self.verdict}


def _describe_carriers(name: str, members: int, origin: str) -> str:
    """Say how many images of a class carry an artifact, and who or what named them."""
    if not members:
        return f"The artifact of {name} is a known one: {origin}."
    source, _, what = origin.partition(": ")
    how = {"detector": "A detector saw what they share", "cluster": "They are a group by their explanations"}
    carriers = f"{format_count(members, 'image')} of {name} carry the artifact"
    return f"{carriers}. {how[source]}: {what}." if source in how else f"{carriers}, by {origin}."


def _describe_share(share: Interval) -> str:
    return f"{100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _interval_json(found: Interval) -> Facts | None:
    return asdict(found) if found.n else None


@dataclass(frozen=True)
class Certificate:
    """Evaluations of corrections of one class: the content of evaluation.json of each."""

    evaluations: tuple[Facts, ...]

    @property
    def name(self) -> str:
        """The class."""
        return str(self.evaluations[0]["class"])

    @property
    def bounds(self) -> Bounds:
        """Bounds of all evaluations."""
        return Bounds(**self.evaluations[0]["bounds"])

    @cached_property
    def before(self) -> CertificateRow:
        """Row of the unchanged models, each counted once."""
        once = {(_key(e["identity"]), e["settings"]["seed"]): e for e in self.evaluations}
        return make_row("nothing", list(once.values()), AS_IT_IS)

    @cached_property
    def rows(self) -> tuple[CertificateRow, ...]:
        """One row for each correction method with its settings, in the order given."""
        grouped: dict[str, list[Facts]] = {}
        for found in self.evaluations:
            grouped.setdefault(_key(_shared_settings(found)), []).append(found)
        methods = [_method(some) for some in grouped.values()]
        names = [
            method if methods.count(method) == 1 else f"{method} ({_differing_settings(some[0], grouped.values())})"
            for method, some in zip(methods, grouped.values(), strict=True)
        ]
        return tuple(make_row(name, some, CORRECTED) for name, some in zip(names, grouped.values(), strict=True))

    def losses_within_bounds(self, one: CertificateRow) -> dict[str, bool]:
        """Return for each loss whether its whole interval is within the bound, on images that were not trained on."""
        limits = {"harm": self.bounds.overall, "harm_affected": self.bounds.affected}
        return {
            name: bool(one.figures[name].n and not one.trained_on and one.figures[name].high <= most)
            for name, most in limits.items()
        }

    @property
    def outcome(self) -> str:
        """The corrections that clean the model and whether a loss is excluded, or why none does, in a sentence."""
        clean = [one for one in self.rows if one.clean == one.seeds]
        kinds = {kind for one in clean or self.rows for kind in one.kinds}
        unlike = "the model is cleaned" if clean else "no correction cleans the model"
        claim = CleaningKind(*kinds).claim if len(kinds) == 1 else unlike
        seeds = ", in every seed" if self.most_seeds > 1 else ""
        by = f" (correction: {join_words([one.name for one in clean])}{seeds})" if clean else ""
        return f"{claim[0].upper()}{claim[1:]}{by}."

    @property
    def most_seeds(self) -> int:
        """Number of seeds of the correction that has most."""
        return max(one.seeds for one in self.rows)

    def describe(self) -> tuple[str, ...]:
        """Say in sentences what the artifact is, what it did before and does after each correction, what that costs,
        and what was not tested."""
        artifact, before = self.evaluations[0]["artifact"], self.before.figures
        sentences = [_describe_carriers(self.name, artifact["members"], artifact["origin"])] if artifact else []
        if (was := before["flips"]).n:
            sentences.append(
                f"Inserted into other images, the artifact turns {_describe_share(was)} of them into {self.name} as "
                "long as the model is not corrected."
            )
        for one in self.rows:
            after = one.figures
            if was.n and after["flips"].n:
                sentences.append(f"After the correction {one.name}, it turns {_describe_share(after['flips'])}.")
            if before["accuracy"].n and after["accuracy"].n and (loss := after["harm"]).n:
                was_right, is_right = (f"{100 * look['accuracy'].value:.1f} %" for look in (before, after))
                sentences.append(
                    f"Accuracy on images without the artifact: {was_right} before, {is_right} after. The model "
                    f"{describe_lost(loss.value, loss.low, loss.high)}."
                )
            if one.trained_on:
                sentences.append(TRAINED_ON)
        return (*sentences, NOT_COVERED)

    def check(self) -> None:
        """Check that a correction may be called clean in all of its seeds. Raises HarmExceeded if none may."""
        if not any(one.clean == one.seeds for one in self.rows):
            raise HarmExceeded(
                "no correction cleans the model", got="; ".join(f"{one.name}: {one.word}" for one in self.rows)
            )

    def to_json(self) -> Facts:
        """Return the content of certificate.json."""
        shown = [one.to_json() | {"proven": self.losses_within_bounds(one)} for one in self.rows]
        told = {"class": self.name, "bounds": asdict(self.bounds), "before": self.before.to_json()}
        return told | {"corrections": shown, "evaluations": list(self.evaluations)}


def read_certificate(folders: Iterable[str | Path]) -> Certificate:
    """Read the evaluations of corrections. Raises InputError for a folder without one, UsageError for more than one
    class, or different bounds."""
    found = tuple(_evaluation(Path(folder)) for folder in folders)
    for what in ("class", "bounds"):
        if len(values := {_key(one[what]) for one in found}) > 1:
            raise UsageError(f"corrections of different {what}", got=", ".join(sorted(values)), rule="the same for all")
    return Certificate(found)


def make_row(name: str, evaluations: Sequence[Facts], look: int) -> CertificateRow:
    """Make a row from one model of each evaluation, AS_IT_IS or CORRECTED."""
    looks = [found["looks"][look] for found in evaluations]
    probes = [list((one["probes"] or {}).values()) for one in looks]
    again = [one["second audit"]["suspect"] for one in looks if one["second audit"]]
    return CertificateRow(
        name,
        {figure: combine_seeds([one[figure] for one in looks], RANGES.get(figure, SHARE_RANGE)) for figure in FIGURES},
        combine_seeds([found[0] if found else None for found in probes], SHARE_RANGE),
        combine_seeds(
            [max(filter(None, found[1:]), key=lambda p: p["value"], default=None) for found in probes], SHARE_RANGE
        ),
        (sum(again), len(again)),
        tuple(found["verdict"] if look == CORRECTED else "as it is" for found in evaluations),
        tuple(found["kind"] if look == CORRECTED else "" for found in evaluations),
        sum(found["clean"] for found in evaluations) if look == CORRECTED else 0,
        any(found["images"]["trained on"] for found in evaluations),
    )


def combine_seeds(seeds: Sequence[Facts | None], within: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Combine one figure of several seeds, clipped: a single seed keeps its interval, more seeds have that of their
    mean."""
    known = [Interval(*(found[name] for name in ENDS)) for found in seeds if found]
    if len(known) < 2:
        return known[0] if known else NO_INTERVAL
    among = mean_interval(np.array([found.value for found in known]), student_quantile(len(known)))
    low = min(among.low, float(np.mean([found.low for found in known])))
    high = max(among.high, float(np.mean([found.high for found in known])))
    return Interval(among.value, max(low, within[0]), min(high, within[1]), len(known))


def _evaluation(folder: Path) -> Facts:
    try:
        found: Facts = json.loads(read_regular_file(folder / "evaluation.json"))
        return {name: found[name] for name in KNOWN} | {name: found.get(name, "") for name in BESIDE_VERDICT}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "no evaluation in this folder", got=f"{folder}: {type(error).__name__}: {error}",
            remedy="Evaluate the correction with `klarsicht audit evaluate`.",
        ) from error  # fmt: skip


KNOWN: Final = ("class", "target", "identity", "settings", "chosen", "bounds", "verdict", "kind", "clean", "remaining",
                "shown on", "images", "looks")  # fmt: skip
BESIDE_VERDICT: Final = (
    "disagreement",
    "on new draws",
    "recalls",
    "artifact",
    "next",
)  # where there is anything to say


def _method(seeds: Sequence[Facts]) -> str:
    """Return the method of a row: the one that was chosen in all of its seeds, or else the one that was asked for."""
    chosen = {one["chosen"]["method"] for one in seeds}
    return str(chosen.pop() if len(chosen) == 1 else seeds[0]["settings"]["method"])


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _shared_settings(found: Facts) -> Facts:
    """Return the settings that seeds of one row have in common."""
    return {name: value for name, value in found["settings"].items() if name != "seed"}


def _differing_settings(one: Facts, all_: Iterable[Sequence[Facts]]) -> str:
    """Return the settings in which a correction differs from others of its method."""
    same = [some[0] for some in all_ if _method(some) == _method([one])]
    names = [name for name in _shared_settings(one) if len({_key(other["settings"][name]) for other in same}) > 1]
    return ", ".join(f"{name} {one['settings'][name]}" for name in names)


@dataclass(frozen=True)
class Column:
    """Figure of certificate.FIGURES on a scale that all rows share, in percent, with its largest permitted value and
    that of the unchanged model (`before`)."""

    title: str
    figure: str
    bound: float | None
    before: Interval
    low: float
    high: float

    def position(self, value: float) -> float:
        """Return the position of a share on the scale, 0 to 100."""
        return min(max(100 * (100 * value - self.low) / (self.high - self.low), 0), 100)

    def is_broken(self, row: CertificateRow) -> bool:
        """Test whether the whole interval of a row is beyond the bound."""
        found = row.figures[self.figure]
        return bool(found.n and self.bound is not None and found.low > self.bound)

    def is_proven(self, row: CertificateRow) -> bool:
        """Test whether the whole interval of a row is within the bound, on images that were not trained on."""
        found = row.figures[self.figure]
        return bool(found.n and self.bound is not None and found.high <= self.bound and not row.trained_on)


def render_page(found: Certificate) -> str:
    """Render the certificate of one class."""
    return load_template("klarsicht.audit", "certificate.html.j2").render(**template_context(found))


def template_context(found: Certificate) -> dict[str, Any]:
    shown, bounds = (found.before, *found.rows), found.bounds
    asked = (
        ("loss, clean images", "harm", bounds.overall),
        ("loss, clean images of the class", "harm_affected", bounds.affected),
        ("flips to the class under the artifact", "flips", None),
        ("accuracy, worst group", "worst", None),
        ("accuracy of others under the artifact", "under", None),
    )
    columns = [column for title, name, bound in asked if (column := make_column(title, name, bound, shown)) is not None]
    trained = [one.name for one in found.rows if one.trained_on]
    facts = {"name": found.name, "version": __version__, "overall": 100 * bounds.overall, "points": format_points}
    facts |= {"affected": 100 * bounds.affected, "found": found}
    return facts | {
        "columns": columns, "lines": shown, "trained": trained, "evaluations": found.evaluations,
        "of_share": _format_share,
    }  # fmt: skip


def make_column(title: str, figure: str, bound: float | None, lines: Sequence[CertificateRow]) -> Column | None:
    """Make the column of a figure; None where no row has it."""
    known = [line.figures[figure] for line in lines if line.figures[figure].n]
    if not known:
        return None
    ends = [100 * end for found in known for end in (found.low, found.high)] + [0.0]
    ends += [] if bound is None else [200 * bound]
    room = MARGIN * (max(ends) - min(ends)) or 1.0
    return Column(title, figure, bound, lines[0].figures[figure], min(ends) - room, max(ends) + room)


def describe_joint(judgement: JointJudgement) -> tuple[str, ...]:
    """Say in sentences what each artifact did before and does after all corrections, what they cost together, and what
    was not tested."""
    sentences = []
    for one in judgement.classes:
        before, after = one.alone.before.flips, one.together.after.flips
        sentences.append(
            f"Inserted into other images, the artifact of {one.name} turns {_describe_share(before)} of them into "
            f"{one.name} before the corrections, and {_describe_share(after)} after them."
            if before.n and after.n
            else f"Whether the artifact of {one.name} turns other images into {one.name} could not be measured."
        )
    sentences += [f"{name} is not corrected: {why}." for name, why in judgement.left_out]
    if (loss := judgement.lost.measured).n:
        amount = describe_lost(loss.value, loss.low, loss.high)
        sentences.append(f"On images without any of the artifacts, the model {amount}.")
    return (*sentences, *([TRAINED_ON] if judgement.lost.trained_on else []), NOT_COVERED)


def render_joint_page(found: JointJudgement) -> str:
    """Render the certificate of several classes."""
    answer = {HARMLESS: "proven", HARMFUL: "broken"}.get(found.harm.answer, "")
    page = load_template("klarsicht.audit", "joint_certificate.html.j2")
    said: dict[str, Any] = {"claim": found.kind.claim, "sentences": describe_joint(found)}
    said["recalls"] = [one.to_json() for one in found.recalls.table()]
    return page.render(
        version=__version__, found=found, answer=answer, points=format_points, of_share=_format_share, **said
    )


def _format_share(share: Facts) -> str:
    """Format a share of a record and its interval, in percent."""
    return " (".join(format_points(Interval(*(share[name] for name in ENDS)))) + ")"


def format_points(found: Interval, digits: int = 1) -> tuple[str, str]:
    """Format a share and its interval in percent; empty strings without an interval."""
    value, low, high = (f"{100 * end:z.{digits}f}" for end in (found.value, found.low, found.high))
    return (value, f"{low} to {high}") if found.n else ("", "")


def write_certificate(out: Path, page: str, facts: dict[str, Any]) -> None:
    """Write the page and its figures, each atomically."""
    with translate_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "certificate.html", page.encode())
    write_atomically(out / "certificate.json", to_json(facts))
