"""Verdict on each class of a quantified run: whether its data contain an artifact, and whether the model uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from klarsicht.audit.results import words
from klarsicht.audit.results.logit_effect import LogitEffect, describe_floor, matters
from klarsicht.audit.results.rows import EffectRow
from klarsicht.audit.results.significance import class_strategy
from klarsicht.audit.results.words import PASTED, VerdictKind, format_count, format_p, name_artifact
from klarsicht.ground.errors import unknown_name
from klarsicht.ground.optional import load
from klarsicht.ground.pictures import notebook
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.numerics.statistics.intervals import Interval

if TYPE_CHECKING:
    import pyarrow as pa

NOTEBOOK_CLASSES = 20  # classes in a notebook
VERDICTS_FILE = "quantification.json"
LEVEL = 0.05  # of p, for either claim
WHOLE_SHARE = 0.5  # of the carriers' difference, and of their evidence, from which use counts as tested
LISTS: Final = ("rows", "members", "resembles")  # fields of a verdict


@dataclass(frozen=True)
class DetectionResult:
    """Detection that exceeds the clean classes most, and its significance.

    Attributes:
        sign: the detector and its setting.
        score: surprisal in nats on held-out images; `level` is the same in units of the clean classes' tail.
        p: conformal rank among presumed-clean classes; `extended` below one over their number by a power-law tail.
        q: false-discovery rate of `extended` over classes.
        p_own: p of the score by itself, both halves together, Bonferroni-corrected for the number of detections.
    """

    sign: str
    score: float
    level: float
    p: float
    extended: float
    q: float
    p_own: float

    @property
    def p_decisive(self) -> float:
        """The larger of `extended` and `p_own`: the class is artifactual where it is at most the level."""
        return max(self.extended, self.p_own)


@dataclass(frozen=True)
class UseResult:
    """Effect of the artifact on the class's logit, inserted into images of other classes.

    Attributes:
        tried: the detection that was inserted; empty where none was.
        how: where it was inserted, or its size.
        shift, low, high: mean change of the class's centred logit, and its 95 % interval.
        z: of the shift among those of all outputs.
        p_use: p-value of z, see `significance.p_values_of_use`.
        rank: number of outputs that rise more.
        flips, flips_control: share of other images predicted as the class, with the artifact and with the control.
        flips_low: lower end of the 95 % interval of their difference.
        p_tiles: p-value of a tile's rise among those of other windows in its place, or of shared content among those of
            random artifacts; 1 where outputs are many.
        change: kind of the insertion, a name of insertion.CHANGES or rows.SHARED_CONTENT; empty where none was made.
        covered: share of the difference between carriers and others of their class that was inserted.
        explained: share of the carriers' evidence for their class that the artifact brings to others of the class;
            either is None where they do not differ significantly.
    """

    tried: str
    how: str
    shift: float
    low: float
    high: float
    z: float
    p_use: float
    rank: int
    flips: float
    flips_control: float
    flips_low: float
    p_tiles: float
    change: str = ""
    covered: float | None = None
    explained: float | None = None

    @classmethod
    def of(cls, effect: EffectRow, p_use: float) -> UseResult:
        """Read a row of the table `effects`; NaN, the z of classes without insertion, is 0: JSON has no NaN."""
        known: dict[str, Any] = {**effect, "tried": effect["sign"], "p_use": p_use}
        known["z"] = effect["z"] if np.isfinite(effect["z"]) else 0.0
        known |= {name: None if np.isnan(known[name]) else known[name] for name in ("covered", "explained")}
        return cls(**{name: known[name] for name in cls.__dataclass_fields__})

    @property
    def effect(self) -> LogitEffect:
        """The effect; numbers of images, and the upper end of the share that is turned, are not stored."""
        turned = Interval(self.flips - self.flips_control, self.flips_low, float("nan"), 0)
        return LogitEffect(Interval(self.shift, self.low, self.high, 0), turned)

    @property
    def matters(self) -> bool:
        """Whether the effect is shown to matter, see `logit_effect.matters`."""
        return matters(self.effect)

    def describe_effect(self, name: str) -> str:
        """Say what the artifact does to the class `name` on images of other classes."""
        return words.describe_effect(self.shift, self.flips, self.flips_control, name)

    @property
    def inserted_share(self) -> float:
        """The smaller of the shares that are known of what was inserted, 1 where none is."""
        return min((share for share in (self.covered, self.explained) if share is not None), default=1.0)

    @property
    def tested(self) -> bool:
        """Whether something was inserted, and at least WHOLE_SHARE of what separates the images with the artifact."""
        return bool(self.tried) and self.inserted_share >= WHOLE_SHARE


@dataclass(frozen=True)
class Verdict:
    """Verdict on one class.

    Attributes:
        name: the class; JSON calls it `class`.
        target: its output of the model.
        n, repeats: images examined, and images left out because they repeat another one.
        detection: the strongest detection and its significance.
        rows, members: images that carry it, as rows and paths; where an artifact is used, those that carry the used
            one.
        use: its effect on images of other classes.
        artifactual, poisoned: the two claims, at the level of the quantification.
        shared: in place of them where classes are too few to be compared: windows that no other class shares.
        used: whether the inserted artifact raises the class beyond the other outputs, and by more than the floor.
        followed: where no detector found anything, whether a cluster of the class raises it on other images, and stands
            apart, more than clusters of other classes do; `rows` and `members` are then those of the cluster.
        resembles: families of artifacts that shift the learned embedding as the carriers do, most alike first.
        further: verdicts on further artifacts of the class, each on its images without the members of those before.
    """

    name: str
    target: int
    n: int
    repeats: int
    detection: DetectionResult
    rows: tuple[int, ...]
    members: tuple[str, ...]
    use: UseResult
    artifactual: bool
    poisoned: bool
    shared: bool = False
    used: bool = False
    followed: bool = False
    resembles: tuple[str, ...] = ()
    further: tuple[Verdict, ...] = ()

    @property
    def artifacts(self) -> tuple[Verdict, ...]:
        """The verdict itself, and those on further artifacts of the class."""
        return (self, *self.further)

    @property
    def named_artifacts(self) -> tuple[tuple[str, Verdict], ...]:
        """Each artifact of the class with its name: that of the class, and the number of a further one."""
        return tuple((name_artifact(self.name, i), one) for i, one in enumerate(self.artifacts, 1))

    @property
    def has_used_artifact(self) -> bool:
        """Whether the model uses any artifact of the class: a rare one may be used, and the frequent one not."""
        return any(one.poisoned for one in self.artifacts)

    @property
    def needs_review(self) -> bool:
        """Whether a person should look at the class."""
        return self.artifactual or self.shared or self.followed

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def prevalence(self) -> float:
        return self.size / max(self.n, 1)

    @property
    def matters(self) -> bool:
        return self.use.matters

    @property
    def tested(self) -> bool:
        """Whether the use was shown, or enough was put on to say that it was not."""
        return self.used or self.use.tested

    def describe_detection(self) -> str:
        """Return what the images share, the setting of the detector, and the families that the artifact resembles."""
        resemblance = f"; like {' or '.join(self.resembles)}" if self.resembles else ""
        return words.describe_detector(self.detection.sign) + resemblance

    @property
    def kind(self) -> VerdictKind:
        """The kind of the verdict on this artifact."""
        if self.shared:
            return VerdictKind.SHARED_AND_USED if self.used else VerdictKind.SHARED
        if not self.artifactual:
            return VerdictKind.FOLLOWED if self.followed else VerdictKind.NOTHING
        if self.poisoned:
            return VerdictKind.POISONED
        return VerdictKind.PRESENT if self.tested else VerdictKind.UNTESTED

    @property
    def kind_of_class(self) -> VerdictKind:
        """The kind of the verdict on the class: that of its artifact, unless the model uses a further one."""
        return VerdictKind.POISONED if self.has_used_artifact else self.kind

    @property
    def verdict(self) -> str:
        """The verdict on this artifact in words."""
        return self.kind.words

    def to_json(self) -> dict[str, Any]:
        """Return all figures under one flat set of keys."""
        flat: dict[str, Any] = {}
        for key, value in asdict(replace(self, further=())).items():
            flat |= value if key in ("detection", "use") else {key: value}
        flat["further"] = [one.to_json() for one in self.further]
        flat |= {name: getattr(self, name) for name in ("size", "prevalence", "matters", "tested", "verdict")}
        flat["p_decisive"] = self.detection.p_decisive
        return {"class": flat.pop("name"), **flat}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Verdict:
        """Read a record of `to_json`."""
        known = record | {"name": record["class"]} | {name: tuple(record[name]) for name in LISTS}
        known["further"] = tuple(map(cls.from_json, record["further"]))
        for name, kind in (("detection", DetectionResult), ("use", UseResult)):
            known[name] = kind(**{field: record[field] for field in kind.__dataclass_fields__})
        return cls(**{field: known[field] for field in cls.__dataclass_fields__})


@dataclass(frozen=True)
class VerdictLine:
    """Line of the table of verdicts: artifact `number` of the class at `position`, both from 1, or a class in which
    nothing was found, of so many `classes`, at a `level` of p."""

    position: int
    number: int
    name: str
    verdict: Verdict
    classes: int
    level: float

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
        return f"{one.size} of {one.n}" if one.needs_review else f"0 of {one.n}"

    def headline(self, place: str = "") -> str:
        """Say in one to three sentences what was found, whether the model uses it, and what only a person can say.

        Args:
            place: of the artifact in its images, see `detection_rows.read_places`; empty without one.
        """
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
        return " ".join(filter(None, (shared, self._use(), judgement)))

    @property
    def _images(self) -> str:
        return f"{self.verdict.size:,} of {format_count(self.verdict.n, 'image')} of {self.verdict.name}"

    def _use(self) -> str:
        """Say whether the model uses the artifact, and why that is not known or not shown."""
        use, verdict = self.verdict.use, self.verdict
        if not use.tried:
            return "Whether the model uses it is not known: it could not be inserted into other images."
        way = "pasted on" if use.how in PASTED else "applied to"
        effect = f"{way} images of other classes, {use.describe_effect(verdict.name)}"
        if verdict.used:
            return f"The model uses it: {effect}."
        if not verdict.tested:
            return f"Whether the model uses it is not known: {self._missing_share(way)}."
        if not use.matters:
            size = f"{use.shift:+z.2f} logits (95 % interval {use.low:+z.2f} to {use.high:+z.2f})"
            return (
                f"The model is not shown to use it: {way} images of other classes, it changes the score by {size}, "
                f"less than counts ({describe_floor()})."
            )
        chance = use.p_use > self.level
        reason = f"p (used) is {format_p(use.p_use)}" if chance else "its own detection is not significant"
        return f"The model is not shown to use it: {effect}, but {reason}."

    def _missing_share(self, way: str) -> str:
        """Say how little of the artifact could be inserted: of its pixels, or of its evidence for the class."""
        use, inserted = self.verdict.use, f"what could be {way} other images"
        if use.covered is not None and use.explained is not None and use.explained < use.covered:
            evidence = f"brings {use.explained:.0%} of their evidence for {self.verdict.name}"
            return f"{inserted} covers {use.covered:.0%} of the difference in pixels, but {evidence}"
        return f"{inserted} is only {use.inserted_share:.0%} of what sets these apart"

    def next_step(self, run: str = "RUN") -> tuple[str, str]:
        """Return advice, and the command for a run folder; both empty where nothing was found."""
        return words.choose_next_step(self.verdict.kind, self.name, run)


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
    "p": VerdictColumn("p (artifact)", lambda line: format_p(line.verdict.detection.p_decisive)),
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


@dataclass(frozen=True)
class Quantification:
    """Verdicts on all classes: used artifacts first, then other artifacts, then by p.

    Attributes:
        floor: the smallest p that so many classes can give; 1 where they were too few to be compared.
        level: of p, for either claim.
        skipped: (class, reason) of those that could not be examined.
    """

    verdicts: tuple[Verdict, ...]
    floor: float
    level: float
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def limits(self) -> str:
        """Resolution of p with so many classes, in words, and whether it can reach the level."""
        return class_strategy(len(self)).describe_limits(self.floor, self.level)

    @property
    def lines(self) -> tuple[VerdictLine, ...]:
        """The lines of the table of verdicts, in order: every artifact of a class has one."""
        return tuple(
            VerdictLine(position, number, name, one, len(self), self.level)
            for position, verdict in enumerate(self.verdicts, 1)
            for number, (name, one) in enumerate(verdict.named_artifacts, 1)
        )

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, position: int) -> Verdict:
        return self.verdicts[position]

    def of(self, name: str) -> Verdict:
        """Return the verdict on a class, by name or output, or on a further artifact of one: "carton (artifact 2)".

        Raises:
            UsageError: the class was not examined; the message lists near matches.
        """
        by_name = {v.name: v for v in self.verdicts}
        by_name = {name: one for v in self.verdicts for name, one in v.named_artifacts} | by_name
        if name in by_name:  # a class may be called as another's output, or as another's further artifact
            return by_name[name]
        for verdict in self.verdicts:
            for i, one in enumerate(verdict.artifacts, 1):
                if name == name_artifact(str(verdict.target), i):
                    return one
        raise unknown_name("class in this quantification", name, [v.name for v in self.verdicts])

    def of_target(self, target: int) -> Verdict | None:
        """Return the verdict on the class of an output; None where it was not examined."""
        return next((verdict for verdict in self.verdicts if verdict.target == target), None)

    def to_table(self) -> pa.Table:
        """Return one row for each class; `further` is the number of its further artifacts."""
        import pyarrow as pa

        return pa.Table.from_pylist([one.to_json() | {"further": len(one.further)} for one in self.verdicts])

    def to_pandas(self) -> Any:
        """Make a pandas DataFrame, a line a class.

        Raises:
            MissingExtra: pandas is not installed.
        """
        load("pandas", "pandas")
        return self.to_table().to_pandas()

    def __repr__(self) -> str:
        poisoned, artifactual = sum(v.has_used_artifact for v in self), sum(v.artifactual for v in self)
        found = f"{artifactual} with an artifact, {poisoned} of them used"
        return f"Quantification({len(self)} classes, {found}, level {self.level:g})"

    def _repr_html_(self) -> str:
        return notebook.table(
            [column.heading for column in VERDICT_COLUMNS.values()],
            [line.texts for line in self.lines if line.position <= NOTEBOOK_CLASSES],
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "floor": self.floor, "level": self.level, "limits": self.limits,
            "skipped": [list(pair) for pair in self.skipped],
            "classes": [verdict.to_json() for verdict in self.verdicts],
        }  # fmt: skip


def order_verdicts(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Sort verdicts: classes with a used artifact, artifactual ones, followed ones, then by p."""
    return tuple(
        sorted(
            verdicts,
            key=lambda v: (
                not v.has_used_artifact,
                not v.artifactual,
                not v.followed,
                v.detection.extended,
                -v.detection.level,
                v.target,
            ),
        )
    )


def read_verdicts(run: str | Path | RunStore) -> Quantification:
    """Read the verdicts of a quantified run.

    Raises:
        StoreError: the run has not been quantified; `klarsicht audit quantify` does so.
        RunDamaged: the verdicts are missing or altered.
    """
    store = RunStore.open(run)
    content = store.read_json(VERDICTS_FILE)
    with store.translate_parse_errors(VERDICTS_FILE):
        verdicts = tuple(Verdict.from_json(line) for line in content["classes"])
        skipped = tuple((name, why) for name, why in content["skipped"])
        return Quantification(verdicts, content["floor"], content["level"], skipped)


def is_quantified(run: RunStore) -> bool:
    """Say whether the run has been quantified."""
    return run.has_file(VERDICTS_FILE)
