"""Results of checking single pictures: the artifacts of a run that each carries, and the prediction without them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import escape

from klarsicht.audit.results.logit_effect import FLOOR
from klarsicht.audit.results.resolution import describe_least_p
from klarsicht.audit.results.words import (
    PART_NAMES,
    SURROUNDINGS,
    describe_level,
    describe_seen,
    format_count,
    format_p,
    name_artifact,
)
from klarsicht.ground.pictures import notebook

NOTEBOOK_PICTURES = 20  # pictures in a notebook
NO_WAY_OUT = "which cannot be removed from a single picture"
LITTLE = 0.25  # share of a picture shown, or of the input filled, below which it is said
ELSEWHERE = 39  # places, or clean images, where as much is taken out


@dataclass(frozen=True)
class CarriedArtifact:
    """Comparison of a picture with one known artifact.

    Attributes:
        name, target: the class whose artifact it is; JSON calls the name `class`.
        sign: the detection by which it is known.
        p: p-value of the picture among clean images of the run, times the number of known artifacts.
        like: how like carriers it is: 0 as the median clean image, 1 as the least alike tenth of the carriers.
        carried: whether p is at most the level and `like` one half at least: a picture that is odd otherwise is
            unlike clean images, too.
        place: top, left, height and width of the window, in shares of the picture as the model sees it; None without
            one.
        drop: fall of the class's level when the artifact is taken out; None where it is not carried or cannot be.
        p_drop: p-value of that fall among those when as much is taken out elsewhere; None likewise.
        without: class predicted without the artifact; None likewise.
        rests: whether the level falls by FLOOR at least, and p_drop is at most the level.
        number: of the artifact in its class, from 1; JSON calls it `artifact`.
    """

    name: str
    target: int
    sign: str
    p: float
    like: float
    carried: bool
    place: tuple[float, float, float, float] | None = None
    drop: float | None = None
    p_drop: float | None = None
    without: str | None = None
    rests: bool = False
    number: int = 1

    def to_json(self) -> dict[str, Any]:
        flat = asdict(self)
        name, number = flat.pop("name"), flat.pop("number")
        return {"class": name, **flat, "artifact": number}


@dataclass(frozen=True)
class PictureQuestion:
    """Change of a picture beside known artifacts, and its prediction then.

    Attributes:
        part: a part that was exchanged, a key of words.PART_NAMES, or a framing, one of words.FRAMING_NAMES.
        n: pictures with the part of an image of another class, and as many with that of one of the predicted class; 1
            of a framing.
        stays: how many of the first keep the prediction.
        stays_control: how many of the second do; None of a framing.
        predicted: the class predicted most often of the first.
        becomes: how many of the first are predicted so; None of a framing.
        drop, low, high: fall of the score of the predicted class, the mean of the first below that of the second, with
            its 95 % interval (Welch); of a framing below the picture as it is, without an interval (None).
    """

    part: str
    n: int
    stays: int
    stays_control: int | None
    predicted: str
    drop: float
    low: float | None
    high: float | None
    becomes: int | None = None

    @property
    def is_framing(self) -> bool:
        """Whether the picture was framed otherwise."""
        return self.stays_control is None

    @property
    def lowers(self) -> bool:
        """Whether the part of another class is shown to lower the score, by FLOOR at least by the lower end."""
        return self.low is not None and self.low >= FLOOR

    @property
    def rests(self) -> bool:
        """Whether the prediction is shown to rest on the part: the score falls, and no more than half keep it."""
        return self.lowers and 2 * self.stays <= self.n

    @property
    def reframes(self) -> bool:
        """Whether this framing changes the prediction."""
        return self.is_framing and self.stays == 0

    @property
    def unseen(self) -> float | None:
        """The fall below which nothing would be shown, in logits; None of a framing."""
        return None if self.low is None else FLOOR + self.drop - self.low

    def describe(self, name: str) -> str:
        """Say what the part of another class does to the prediction of a class of that name."""
        if self.rests and self.part == SURROUNDINGS:
            return (
                f"rests on the surroundings: on those of other classes it is {self.predicted} ({self.becomes} of "
                f"{self.n}), and the score of {name} falls by {self.drop:z.1f} logits ({self.low:z.1f} to "
                f"{self.high:z.1f}); on others of {name} {self.stays_control} of {self.n} stay {name}"
            )
        verb = "rests on" if self.rests else "not decided by"
        return (
            f"{verb} {PART_NAMES[self.part]}: with that of other classes the score of {name} falls by {self.drop:z.1f} "
            f"logits ({self.low:z.1f} to {self.high:z.1f}), and {self.stays} of {self.n} stay {name} "
            f"({self.stays_control} with that of other images of {name})"
        )


@dataclass(frozen=True)
class CheckedPicture:
    """A picture, the prediction, and the known artifacts.

    Attributes:
        path: its file.
        predicted, target: the class that the model predicts, and its output.
        probability: of that class.
        artifacts: each compared with the picture, the most probable first.
        why: why it could not be checked; empty where it was.
        shown: share of the picture that the model's transform leaves of it; 1 where it is not known.
        filled: share of what the model is shown that the picture fills, the rest being padding; 1 likewise.
        uncompared: whether the predicted class has a known artifact, the only one or not, that one picture cannot be
            compared with.
        questions: what else was asked; empty where the run has no other images of the predicted class.
        has_verdicts: whether the run was asked for artifacts.
    """

    path: str
    predicted: str
    target: int
    probability: float
    artifacts: tuple[CarriedArtifact, ...]
    why: str = ""
    shown: float = 1.0
    filled: float = 1.0
    uncompared: bool = False
    questions: tuple[PictureQuestion, ...] = ()
    has_verdicts: bool = True

    @property
    def carried(self) -> tuple[CarriedArtifact, ...]:
        """Artifacts that the picture carries."""
        return tuple(one for one in self.artifacts if one.carried)

    @property
    def rests(self) -> bool:
        """Whether the prediction rests on a known artifact: one of the predicted class, whose removal lowers it."""
        return any(one.rests and one.target == self.target for one in self.artifacts)

    @property
    def undecided(self) -> bool:
        """Whether nothing says if the prediction rests on the artifact of the predicted class: the picture is not
        compared with it, or carries it and it cannot be taken out."""
        kept = any(one.carried and one.drop is None and one.target == self.target for one in self.artifacts)
        return not self.rests and (self.uncompared or kept)

    @property
    def relies_on(self) -> tuple[str, ...]:
        """Names of all that the prediction is shown to rest on; its framing where most others change it."""
        parts = tuple(PART_NAMES[one.part] for one in self.questions if one.rests)
        framings = [one.reframes for one in self.questions if one.is_framing]
        framed = ("its framing",) * (sum(framings) > len(framings) / 2)
        return ("a known artifact",) * self.rests + parts + framed

    @property
    def reliance(self) -> str:
        """Words for all that the prediction is shown to rest on; "unknown" where a known artifact could not be asked
        for, "not shown" where nothing that was asked showed anything."""
        if self.why:
            return ""
        return ", ".join(self.relies_on) or ("unknown" if self.undecided else "not shown")

    @property
    def changes(self) -> bool:
        """Whether the model predicts another class without such an artifact."""
        own = [one for one in self.artifacts if one.rests and one.target == self.target]
        return any(one.without != self.predicted for one in own)

    def __repr__(self) -> str:
        return (
            f"CheckedPicture({Path(self.path).name!r}, {self.predicted!r}, rests on: {self.reliance or 'not checked'})"
        )

    def _repr_html_(self) -> str:
        return _table([self])

    def describe(self) -> str:
        """Say in words what was found."""
        return "; ".join(self.findings)

    @property
    def findings(self) -> list[str]:
        """Clauses on known artifacts, exchanged parts, framings and how much of the picture is seen."""
        if self.why:
            return [f"not checked: {self.why}"]
        sentences = [_describe(one) for one in self.carried] or [
            "no known artifact" if self.has_verdicts else "artifacts not asked for"
        ]
        own = any(one.target == self.target for one in self.artifacts)
        if self.uncompared:
            sentences.append(f"not compared with {'every' if own else 'the'} artifact of {self.predicted}")
        sentences += self._describe_questions()
        if self.shown < LITTLE:
            sentences.append(f"only {self.shown:.1%} of the picture is shown to the model")
        if self.filled < LITTLE:
            sentences.append(f"the picture fills only {self.filled:.1%} of what the model is shown")
        return sentences

    def _describe_questions(self) -> list[str]:
        """Say on what else the prediction rests, which framings change it, and what was asked without that."""
        sentences = [one.describe(self.predicted) for one in self.questions if one.lowers]
        silent = [one for one in self.questions if not one.lowers and one.unseen is not None]
        if silent:
            least = max(one.unseen or 0.0 for one in silent)
            names = " or ".join(PART_NAMES[one.part] for one in silent)
            sentences.append(f"not shown to rest on {names} (a fall below {least:.1f} logits would not be seen)")
        framings = [one for one in self.questions if one.is_framing]
        changes = [f"{one.part} ({one.predicted})" for one in framings if one.reframes]
        if framings:
            listed = f": {', '.join(changes)}" if changes else ""
            sentences.append(
                f"{len(changes)} of {format_count(len(framings), 'framing')} change the prediction{listed}"
            )
        return sentences

    def to_json(self) -> dict[str, Any]:
        flat = {
            name: getattr(self, name)
            for name in ("path", "predicted", "target", "probability", "why", "shown", "filled", "uncompared")
        }
        said = {name: getattr(self, name) for name in ("rests", "undecided", "changes")}
        said |= {"relies_on": list(self.relies_on), "questions": [asdict(one) for one in self.questions]}
        return flat | said | {"artifacts": [one.to_json() for one in self.artifacts], "verdict": self.describe()}


@dataclass(frozen=True)
class CheckedPictures:
    """Pictures that were checked against the artifacts of a run.

    Attributes:
        pictures: in the order that was asked for.
        known: artifacts that pictures were compared with, by their class: "carton", or "carton (artifact 2)".
        unknown: artifacts, likewise, that are what a group shares; one picture cannot be compared with it.
        level: of p.
        clean: images of the run that a picture is compared with.
        measurements: sentences on what `audit clean` measured of artifacts that pictures were not compared with.
    """

    pictures: tuple[CheckedPicture, ...]
    known: tuple[str, ...]
    unknown: tuple[str, ...]
    level: float
    clean: int
    measurements: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shown = sum(bool(one.relies_on) for one in self)
        return f"CheckedPictures({format_count(len(self), 'picture')}, {shown} shown to rely on something)"

    def _repr_html_(self) -> str:
        return f"{_table(self.pictures[:NOTEBOOK_PICTURES])}<p>{escape(self.limits)}</p>"

    def __iter__(self) -> Iterator[CheckedPicture]:
        return iter(self.pictures)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def limits(self) -> str:
        """Artifacts that the pictures were compared with, in words."""
        words = [f"Compared with the artifacts of {', '.join(self.known)}."] if self.known else []
        if self.unknown:
            whose = "that" if len(self.unknown) == 1 else "those"
            names = ", ".join(self.unknown)
            words.append(f"No picture could be compared with {whose} of {names}: only a group of images shows it.")
        words += [f"{one}." for one in self.measurements]
        none = "The run knows no artifact."
        if not all(one.has_verdicts for one in self):
            none = "The run was not asked for artifacts: `klarsicht audit quantify`."
        first = " ".join([*(words or [none]), describe_level(self.level)])
        return " ".join([first, self._asked, *filter(None, self._unreachable)])

    @property
    def _asked(self) -> str:
        """Say what was asked of pictures beside known artifacts, and that nothing shown is no proof."""
        questions = next((one.questions for one in self if one.questions), ())
        parts = [one for one in questions if not one.is_framing]
        exchanges = (
            f"Exchanged were {', '.join(PART_NAMES[one.part] for one in parts)}, each with {parts[0].n} images. "
            if parts
            else ""
        )
        framings = sum(one.is_framing for one in questions)
        tried = f"{exchanges}{framings} framings were tried. " if framings else "Nothing else was asked. "
        return f'{tried}"Not shown" is no proof: nothing else of the picture was changed.'

    @property
    def _unreachable(self) -> tuple[str, str]:
        """Say which claims the level leaves impossible; empty strings where none is."""
        if not self.known:
            return "", ""
        reference = f"{self.clean} clean images and {len(self.known)} known artifact{'s'[: len(self.known) > 1]}"
        return (
            describe_least_p(
                len(self.known) / (self.clean + 1),
                self.level,
                "no picture can be said to have one",
                f"It is compared with {reference}: raise --level to that, or audit more images.",
            ),
            describe_least_p(
                1 / (ELSEWHERE + 1),
                self.level,
                "no prediction can be said to rely on one",
                f"It is compared with {ELSEWHERE} other places: raise --level to that.",
            ),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "level": self.level,
            "clean": self.clean,
            "limits": self.limits,
            "known": list(self.known),
            "unknown": list(self.unknown),
            "pictures": [picture.to_json() for picture in self.pictures],
        }


def _table(pictures: Iterable[CheckedPicture]) -> str:
    """Write checked pictures as a table for a notebook."""
    header = ("picture", "", "predicted", "probability", "rests on", "found")
    rows = (
        (
            one.path,
            notebook.thumbnails([Path(one.path)]),
            one.predicted,
            f"{one.probability:.3f}",
            one.reliance,
            one.describe(),
        )
        for one in pictures
    )
    return notebook.table(header, rows)  # fmt: skip


def _describe(one: CarriedArtifact) -> str:
    sentence = f"{describe_seen(one.sign)} as in images of {name_artifact(one.name, one.number)} (p {format_p(one.p)})"
    if one.drop is None:
        return f"{sentence}, {NO_WAY_OUT}"
    effect = f"without it the score of {one.name} changes by {-one.drop:+z.2f} logits"
    if one.rests:
        return f"{sentence}: {effect}, and {one.without} is predicted"
    return f"{sentence}: {effect}, no more than elsewhere or by less than {FLOOR:g}"
