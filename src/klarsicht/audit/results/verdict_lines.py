"""Table of verdicts: its lines, their headlines, and its columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from klarsicht.audit.results import words
from klarsicht.audit.results.class_verdict import SET_APART, WHOLE_SHARE, UseResult, Verdict
from klarsicht.audit.results.logit_effect import describe_floor
from klarsicht.audit.results.words import PASTED, format_count, format_p, format_share
from klarsicht.ground.pictures import notebook

UNKNOWN_RUN: Final = "RUN"  # in a command that names no folder
FEWEST_WITHOUT: Final = 11  # images of a class without its artifact: of fewer, two fifths are not the five to fit on


@dataclass(frozen=True)
class VerdictLine:
    """Line of the table of verdicts: artifact `number` of the class at `position`, both from 1, or a class in which
    nothing was found, of so many `classes`, at a `level` of p, in the folder of a `run`, of which `has_cleaning` says
    whether model and data can be cleaned."""

    position: int
    number: int
    name: str
    verdict: Verdict
    classes: int
    level: float
    run: str = field(default=UNKNOWN_RUN, compare=False)
    has_cleaning: bool = field(default=True, compare=False)

    def __repr__(self) -> str:
        return f"VerdictLine({self.name!r}, {self.verdict.kind.label!r}, {self.describe_images()})"

    def _repr_html_(self) -> str:
        return notebook.table([column.heading for column in VERDICT_COLUMNS.values()], [self.texts])

    @property
    def texts(self) -> tuple[str, ...]:
        """The cells of all VERDICT_COLUMNS."""
        return tuple(column.text(self) for column in VERDICT_COLUMNS.values())

    @property
    def is_detected(self) -> bool:
        """Whether a detector found the artifact: else its strongest detection, and the effect of that, are chance."""
        return self.verdict.artifactual or self.verdict.shared

    def describe_images(self) -> str:
        """Return how many images of the class have the artifact; how many there are where none was found."""
        one = self.verdict
        whole = f"{one.n} of {one.n}" if one.texture else f"0 of {one.n}"
        return f"{one.size} of {one.n}" if one.has_group else whole

    @property
    def headline(self) -> str:
        """One to three sentences: the artifact, its use by the model, and the judgement that only a person can make."""
        return self.headline_at("")

    def headline_at(self, place: str) -> str:
        """Return the headline with the place of the artifact in its images, see `detection_rows.read_places`."""
        texture = self.verdict.texture
        found = "" if texture and not self.verdict.has_group else self._describe_group(place)
        return " ".join(filter(None, (found, texture)))

    def _describe_group(self, place: str) -> str:
        """Describe what some images share, and its use; or say that nothing was found."""
        verdict = self.verdict
        if verdict.followed:
            return (
                f"The model follows a group of {self._images}, and no detector knows what they share. Inserted into "
                f"images of other classes, parts of these raise {verdict.name}. It may be natural."
            )
        if not self.is_detected:
            return f"No artifact was found in {format_count(verdict.n, 'image')} of {verdict.name}."
        further = "" if self.number == 1 else "a further trait: "
        shared = f"{self._images} share {further}{words.describe_seen(verdict.detection.sign)}{place and f', {place}'}."
        judgement = words.describe_few_classes(self.classes, verdict.name) if verdict.shared else ""
        return " ".join(filter(None, (shared, self._use(place), judgement)))

    @property
    def _images(self) -> str:
        return f"{self.verdict.size:,} of {format_count(self.verdict.n, 'image')} of {self.verdict.name}"

    def _use(self, place: str) -> str:
        """Say whether the model uses the artifact, and why that is not known or not shown."""
        use, verdict = self.verdict.use, self.verdict
        if verdict.cut_out:
            return f"{verdict.cut_out[0].upper()}{verdict.cut_out[1:]}."
        if not use.tried:
            return "Whether the model uses it is not known: it could not be inserted into other images."
        way = "pasted on" if use.how in PASTED else "applied to"
        effect = words.describe_effect(use.shift, use.flips, use.flips_control, verdict.name)
        effect = f"{way} images of other classes, {effect}"
        if verdict.used:
            more = f" It may do more: {self._missing_share(way)}." if use.is_partial else ""
            return f"The model uses it: {effect}.{more} {self._nature(place)}"
        size = f"{use.shift:+z.2f} logits (95 % interval {use.low:+z.2f} to {use.high:+z.2f})"
        if not verdict.tested:
            why = self._missing_share(way)
            if use.inserted_share >= WHOLE_SHARE:
                why = f"{way} images of other classes, it changes the score by {size}, which may count or not"
            return f"Whether the model uses it is not known: {why}."
        if not use.matters:
            return (
                f"The model is not shown to use it: {way} images of other classes, it changes the score by {size}, "
                f"less than counts ({describe_floor()})."
            )
        chance = use.p_use > self.level
        reason = f"p (used) is {format_p(use.p_use)}" if chance else "its own detection is not significant"
        return f"The model is not shown to use it: {effect}, but {reason}."

    def _nature(self, place: str) -> str:
        """Say whether what the model uses is a mark, a processing of the files, or content."""
        use = self.verdict.use
        if use.is_content and use.is_still_told and use.remainder is not None:
            return words.describe_content(words.describe_remainder(use.remainder))
        if use.is_content and use.separation is not None:
            return words.describe_content(words.describe_separation(use.separation, SET_APART))
        return words.describe_nature(use.how, use.is_seen, place, self.verdict.detection.sign)

    def _missing_share(self, way: str) -> str:
        """Say how little of the difference between the images with the artifact and others of the class was inserted:
        of the appearance, as the table has it, and of the score; and in how many images the embedding recognises it."""
        use = self.verdict.use
        shares = (use.covered, "of the difference in appearance"), (use.explained, "of the difference in score")
        listed = " and ".join(f"{format_share(share)} {what}" for share, what in shares if share is not None)
        recognition = "" if use.recognition is None else f"is recognised in {format_share(use.recognition)} of these"
        phrases = filter(None, (listed and f"covers {listed}", recognition))
        return f"what could be {way} other images {' and '.join(phrases)}"

    def next_step(self, run: str | None = None) -> tuple[str, str]:
        """Return advice, and the command for a run folder, by default its own; both empty where nothing was found."""
        without_it, is_mark = self.verdict.n - self.verdict.size, self.verdict.use.how in PASTED
        few_lack_it = is_mark and without_it < FEWEST_WITHOUT
        return words.choose_next_step(
            self.verdict.kind, self.name, run or self.run, few_lack_it=few_lack_it, has_cleaning=self.has_cleaning
        )


@dataclass(frozen=True)
class VerdictColumn:
    """Column of the table of verdicts; `is_text` where its cells are words, which are aligned left."""

    heading: str
    text: Callable[[VerdictLine], str]
    is_text: bool = False


def _where_inserted(text: Callable[[UseResult], str]) -> Callable[[VerdictLine], str]:
    """Describe the use of an artifact; empty where no detector found one, or nothing was inserted."""
    return lambda line: text(line.verdict.use) if line.is_detected and line.verdict.use.tried else ""


VERDICT_COLUMNS: Final[dict[str, VerdictColumn]] = {
    "class": VerdictColumn("class", lambda line: line.name, is_text=True),
    "verdict": VerdictColumn("verdict", lambda line: line.verdict.kind.label, is_text=True),
    "p": VerdictColumn("p (artifact)", lambda line: format_p(line.verdict.detection.p)),
    "p_use": VerdictColumn("p (used)", _where_inserted(lambda use: format_p(use.p_use))),
    "images": VerdictColumn("images with it", lambda line: line.describe_images()),
    "shift": VerdictColumn(
        "score change (logits, 95 %)",
        _where_inserted(lambda use: f"{use.shift:+z.2f} ({use.low:+z.2f} to {use.high:+z.2f})"),
    ),
    "flips": VerdictColumn(
        "predicted as it (without)",
        _where_inserted(lambda use: f"{100 * use.flips:.1f} % ({100 * use.flips_control:.1f} %)"),
    ),
    "detector": VerdictColumn(
        "detector", lambda line: line.verdict.describe_detection() if line.is_detected else "", is_text=True
    ),
    "inserted": VerdictColumn(
        "inserted into other classes",
        _where_inserted(lambda use: words.describe_insertion(use.how, use.covered)),
        is_text=True,
    ),
}
"""The table of verdicts, by the names of its columns: of the command line, the report and notebooks."""
