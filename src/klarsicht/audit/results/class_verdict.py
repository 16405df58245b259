"""Verdict on a class: whether some of its images share an artifact, and whether the model uses it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from klarsicht.audit.results import words
from klarsicht.audit.results.logit_effect import FLOOR, LogitEffect, matters
from klarsicht.audit.results.rows import NO_EFFECT, SHARED_CONTENT, EffectRow
from klarsicht.audit.results.words import VerdictKind, format_count, name_artifact
from klarsicht.ground.pictures import notebook
from klarsicht.numerics.statistics.intervals import Interval

NOTEBOOK_MEMBERS = 4  # members of each class in a notebook
WHOLE_SHARE = 0.5  # of each of SHARES, from which use counts as tested
SHARES = ("covered", "explained", "recognition")  # by which it is measured how much of an artifact was inserted
STILL_APART = 0.65  # of pairs of an image with the artifact and another with it inserted: from here on, content
SET_APART = 0.9  # of pairs of an image with the artifact and another one that an embedding tells apart: it sees it


@dataclass(frozen=True)
class DetectionResult:
    """Detection that exceeds the clean classes most, and its significance.

    Attributes:
        sign: the detector and its setting.
        score: surprisal in nats on held-out images; `level` is the same in units of the clean classes' tail.
        p_rank: conformal rank among presumed-clean classes, below one over their number by a power-law tail.
        q: false-discovery rate of `p_rank` over classes.
        p_own: p of the score by itself, both halves together, Bonferroni-corrected for the number of detections.
    """

    sign: str
    score: float
    level: float
    p_rank: float
    q: float
    p_own: float

    @property
    def p(self) -> float:
        """The larger of `p_rank` and `p_own`: the class is artifactual where it is at most the level."""
        return max(self.p_rank, self.p_own)


@dataclass(frozen=True)
class UseResult:
    """Effect of the artifact on the class's logit, inserted into images of other classes.

    Attributes:
        tried: the detection that was inserted; empty where none was.
        how: where it was inserted, or its size.
        shift, low, high: mean change of the class's centred logit, and its 95 % interval.
        z, p_use: of the shift among those of all outputs, and its p-value.
        rank: number of outputs that rise more.
        flips, flips_control: share of other images predicted as the class, with the artifact and with the control.
        flips_low: lower end of the 95 % interval of their difference.
        p_tiles: p-value of a tile's rise among those of other windows in its place, or of shared content among those of
            random artifacts; 1 where outputs are many.
        change: kind of the insertion, a name of insertion.CHANGES or rows.SHARED_CONTENT; empty where none was made.
        covered: share of the difference between carriers and others of their class that was inserted.
        explained: share of the carriers' evidence that it brings to others; either is None where they hardly differ.
        recognition: share of other images of the class that the embedding takes for carriers once it is put on them;
            None where the embedding does not set carriers apart.
        remainder: share of pairs of an image with the artifact and another one with it inserted that the outputs of the
            model still tell apart, 0.5 by chance; None where it was not measured.
        separation: share of pairs of an image with the artifact and another one of the class that the embedding tells
            apart; None where there is no embedding, or few images.
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
    recognition: float | None = None
    remainder: float | None = None
    separation: float | None = None

    @classmethod
    def of(cls, effect: EffectRow, p_use: float) -> UseResult:
        """Read a row of the table `effects`; NaN, the z of classes without insertion, is 0: JSON has no NaN."""
        known: dict[str, Any] = {**NO_EFFECT, **effect, "tried": effect["sign"], "p_use": p_use}
        known["z"] = effect["z"] if np.isfinite(effect["z"]) else 0.0
        known |= {name: None if np.isnan(known[name]) else known[name] for name in (*SHARES, "remainder", "separation")}
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

    @property
    def recognisable(self) -> bool:
        """Whether the embedding recognises what was inserted, as far as it knows: else the effect is that of something
        else. Windows of the images themselves need not be recognised."""
        return self.recognition is None or self.how in words.CUT_OUT or self.recognition >= WHOLE_SHARE

    @property
    def inserted_share(self) -> float:
        """The smallest of the shares that are known of what was inserted, 1 where none is; recognition counts where an
        effect is not shown to matter, or what was inserted is an imitation."""
        names = SHARES[:2] if self.how in words.CUT_OUT and self.matters else SHARES
        return min((share for name in names if (share := getattr(self, name)) is not None), default=1.0)

    @property
    def is_partial(self) -> bool:
        """Whether less than WHOLE_SHARE of what separates the images with the artifact was inserted, by appearance or
        by score."""
        return any(share is not None and share < WHOLE_SHARE for share in (self.covered, self.explained))

    @property
    def is_content(self) -> bool:
        """Whether the images share what they show, and no mark or processing: no embedding sets them apart, and with an
        estimated change in others the model is moved, or with anything in others still tells them apart. An estimated
        change imitates colours so well that nothing is left to tell."""
        is_estimate = (
            self.separation is not None and self.change == SHARED_CONTENT and not words.reads_files(self.tried)
        )
        return not self.is_embedded and (is_estimate or self.is_still_told)

    @property
    def is_still_told(self) -> bool:
        """Whether the model tells images with the artifact from others in which it was inserted."""
        return self.remainder is not None and self.remainder >= STILL_APART

    @property
    def is_embedded(self) -> bool:
        """Whether an embedding, which sees artifacts and no content, sets the images apart: that of the run, or the one
        that comes along."""
        return self.recognition is not None or (self.separation is not None and self.separation >= SET_APART)

    @property
    def is_seen(self) -> bool:
        """Whether anything but the model sees what was put on in the images: a window or a measured strength, an
        embedding, or a detector of a property of files."""
        return self.change != SHARED_CONTENT or self.is_embedded or words.reads_files(self.tried)

    @property
    def is_inconclusive(self) -> bool:
        """Whether the rise is measured to be one that matters, and not shown to be."""
        return self.low < FLOOR <= self.shift

    @property
    def tested(self) -> bool:
        """Whether at least WHOLE_SHARE of what separates the images with the artifact was inserted, and the effect is
        known well enough to say whether it matters."""
        return bool(self.tried) and self.inserted_share >= WHOLE_SHARE and (self.matters or not self.is_inconclusive)


@dataclass(frozen=True)
class Verdict:
    """Verdict on one class.

    Attributes:
        name: the class; JSON calls it `class`.
        target: its output of the model.
        n, repeats: images examined, and images left out because they repeat another one.
        detection: the strongest detection and its significance.
        rows, members: images with the artifact, the used one where one is used, as rows and paths.
        use: its effect on images of other classes.
        artifactual, poisoned: the two claims, at the level of the quantification; what the model uses is no artifact
            where it is content.
        shared: in place of them where classes are too few to be compared: windows that no other class shares.
        used: whether the inserted artifact raises the class beyond the other outputs, and by more than the floor.
        followed: whether a cluster, without any detection, stands apart and raises the class on other images more than
            clusters of other classes do; `rows` and `members` are then its images.
        resembles: families of artifacts that shift the learned embedding as the carriers do, most alike first.
        further: verdicts on further artifacts of the class, each on its images without the members of those before.
        texture: what the fine texture of all images of the class tells and does, in sentences, where the model follows
            it; else empty.
        cut_out: what it does to the class where it is cut out of its images and pasted into others, in words, if that
            shows a use which nothing else could test; else empty.
        searches: (number, detection) of the searches that found its images, from 1, where these are not the one of its
            number: one mark may be found in parts, see `same_marks`.
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
    texture: str = ""
    cut_out: str = ""
    searches: tuple[tuple[int, str], ...] = ()

    @property
    def artifacts(self) -> tuple[Verdict, ...]:
        """The verdict itself, and those on further artifacts of the class."""
        return (self, *self.further)

    @property
    def main_artifact(self) -> Verdict:
        """The verdict that `kind_of_class` is of: on the first artifact that the model uses, else on the first one."""
        return next((one for one in self.artifacts if one.poisoned), self)

    @property
    def named_artifacts(self) -> tuple[tuple[str, Verdict], ...]:
        """Each artifact of the class with its name: that of the class, and the number of a further one."""
        return tuple((name_artifact(self.name, i), one) for i, one in enumerate(self.artifacts, 1))

    @property
    def has_used_artifact(self) -> bool:
        """Whether the model uses any artifact of the class: a rare one may be used, and the frequent one not."""
        return any(one.poisoned for one in self.artifacts)

    @property
    def harm(self) -> float:
        """The largest share of images of other classes, beyond that under the control, that an artifact of the class
        turns into it; 0 where none was found."""
        found = (one.use for one in self.artifacts if one.artifactual or one.shared)
        return max((use.flips - use.flips_control for use in found), default=0.0)

    @property
    def has_group(self) -> bool:
        """Whether some of the images are named, which a person should look at."""
        return self.artifactual or self.shared or self.followed

    @property
    def needs_review(self) -> bool:
        """Whether a person should look at the class: at some of its images, or at how all of them were made."""
        return self.has_group or bool(self.texture)

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
        """Whether the use was shown, or enough was inserted to say that it was not."""
        return self.used or self.use.tested

    def describe_detection(self) -> str:
        """Return what the images share, the setting of the detector, and the families that the artifact resembles."""
        resemblance = f"; like {' or '.join(self.resembles)}" if self.resembles else ""
        return words.describe_detector(self.detection.sign) + resemblance

    @property
    def kind(self) -> VerdictKind:
        """The kind of the verdict on this artifact."""
        if self.shared:
            return VerdictKind.SHARED_AND_USED if self.used or self.cut_out else VerdictKind.SHARED
        if not self.artifactual:
            unnamed = VerdictKind.TEXTURE if self.texture else VerdictKind.NOTHING
            return VerdictKind.FOLLOWED if self.followed else unnamed
        unused = VerdictKind.PRESENT if self.tested else VerdictKind.ACTS if self.cut_out else VerdictKind.UNTESTED
        return VerdictKind.POISONED if self.poisoned else VerdictKind.CONTEXT if self.used else unused

    @property
    def kind_of_class(self) -> VerdictKind:
        """The kind of the verdict on the class: that of its artifact, unless the model uses a further one."""
        return VerdictKind.POISONED if self.has_used_artifact else self.kind

    @property
    def verdict(self) -> str:
        """The verdict on this artifact in words."""
        return self.kind.words

    def __repr__(self) -> str:
        return f"Verdict({self.name!r}, {self.kind.label!r}, {format_count(self.size, 'image')} of {self.n})"

    def _repr_html_(self) -> str:
        use, has_effect = self.use, bool(self.use.tried)
        return notebook.facts([
            ("class", self.name), ("verdict", self.verdict), ("images with it", f"{self.size} of {self.n}"),
            ("p (artifact)", words.format_p(self.detection.p)),
            ("detector", self.describe_detection() if self.artifactual or self.shared else ""),
            ("score change (logits, 95 %)", f"{use.shift:+z.2f} ({use.low:+z.2f} to {use.high:+z.2f})" * has_effect),
            ("predicted as it (without)", f"{100 * use.flips:.1f} % ({100 * use.flips_control:.1f} %)" * has_effect),
            ("first images", notebook.thumbnails(Path(member) for member in self.members[:NOTEBOOK_MEMBERS])),
        ])  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return all figures under one flat set of keys."""
        flat: dict[str, Any] = {}
        for key, value in asdict(replace(self, further=())).items():
            flat |= value if key in ("detection", "use") else {key: value}
        flat["further"] = [one.to_json() for one in self.further]
        flat |= {"size": self.size, "prevalence": self.prevalence, "matters": self.matters, "tested": self.tested}
        flat |= {"verdict": self.verdict, "p": self.detection.p, "harm": self.harm}
        return {"class": flat.pop("name"), **flat}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Verdict:
        """Read a record of `to_json`. Raises KeyError: it lacks a figure, as one of an earlier version may."""
        known = (
            {"separation": None, "texture": "", "cut_out": ""}
            | record
            | {name: tuple(record[name]) for name in ("rows", "members", "resembles")}
        )
        known |= {"name": record["class"], "further": tuple(map(cls.from_json, record["further"]))}
        known["searches"] = tuple((number, sign) for number, sign in record.get("searches", ()))
        for name, kind in (("detection", DetectionResult), ("use", UseResult)):
            known[name] = kind(**{field: known[field] for field in kind.__dataclass_fields__})
        return cls(**{field: known[field] for field in cls.__dataclass_fields__})


def order_verdicts(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Sort verdicts: classes with a used artifact, artifactual ones, followed ones, those followed by their fine
    texture; each by harm, then by p."""

    def urgency(v: Verdict) -> tuple[float, ...]:
        found = v.detection
        kinds = not v.has_used_artifact, not v.artifactual, not v.followed, not v.texture
        return *kinds, -v.harm, found.p_rank, -found.level, v.target

    return tuple(sorted(verdicts, key=urgency))
