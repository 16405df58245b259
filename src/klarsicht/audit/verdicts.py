"""What a quantified run says of each class: does its data hold an artifact, and does the model use it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klarsicht.ground.errors import unknown_name
from klarsicht.ground.store import RunStore
from klarsicht.numerics.conformal import maximum, tail

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "quantification.json"
LEVEL = 0.05  # of p, for either claim
POISONED = "poisoned: an artifact, and the model uses it"
PRESENT = "artifactual: present, no use shown"
NOTHING = "nothing found"


@dataclass(frozen=True)
class Verdict:
    """One class.

    Attributes:
        name: the class; JSON calls it `class`.
        target: its output of the model.
        n: images examined, without repeats.
        repeats: images left out because they repeat another one.
        sign: the detector that stood out most, and its setting.
        score: surprise in nats on held-out images; `level`: the same in units of the clean classes' tail.
        p: rank among presumed-clean classes, no smaller than one over their number.
        extended: the same with a power-law tail below that floor.
        q: false-discovery rate of `extended` over classes.
        rows, members: images that carry the sign.
        how: how it was put on other images.
        shift, low, high: of the class's centred logit, with a 95 % interval.
        z: of the shift among those of all outputs; `p_use`: of z among clean classes, tail drawn out.
        rank: outputs that rise more.
        flips, flips_control: share of other images taken for the class, with the artifact and with the control.
        artifactual, poisoned: the two claims, at the level of the quantification.
    """

    name: str
    target: int
    n: int
    repeats: int
    sign: str
    score: float
    level: float
    p: float
    extended: float
    q: float
    rows: tuple[int, ...]
    members: tuple[str, ...]
    how: str
    shift: float
    low: float
    high: float
    z: float
    p_use: float
    rank: int
    flips: float
    flips_control: float
    artifactual: bool
    poisoned: bool

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def prevalence(self) -> float:
        return self.size / max(self.n, 1)

    @property
    def verdict(self) -> str:
        return POISONED if self.poisoned else PRESENT if self.artifactual else NOTHING

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self) | {"size": self.size, "prevalence": self.prevalence, "verdict": self.verdict}
        return {"class": fields.pop("name"), **fields}


@dataclass(frozen=True)
class Quantification:
    """All classes: poisoned ones first, then artifactual ones, then by p.

    Attributes:
        floor: the smallest p that so many classes can give.
        level: of p, for either claim.
        skipped: (class, why) of those that could not be examined.
    """

    verdicts: tuple[Verdict, ...]
    floor: float
    level: float
    skipped: tuple[tuple[str, str], ...] = ()

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, position: int) -> Verdict:
        return self.verdicts[position]

    def of(self, name: str) -> Verdict:
        """The verdict on a class. Raises UsageError for one that was not examined; near matches are listed."""
        for verdict in self.verdicts:
            if name in (verdict.name, str(verdict.target)):
                return verdict
        raise unknown_name("class in this quantification", name, [v.name for v in self.verdicts])

    def to_table(self) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_pylist([verdict.to_json() for verdict in self.verdicts])

    def to_pandas(self) -> Any:
        """A pandas DataFrame; needs pandas."""
        return self.to_table().to_pandas()

    def to_json(self) -> dict[str, Any]:
        return {
            "floor": self.floor,
            "level": self.level,
            "skipped": [list(pair) for pair in self.skipped],
            "classes": [verdict.to_json() for verdict in self.verdicts],
        }


@dataclass(frozen=True)
class Chosen:
    """For every examined class the sign that stands out most: a line of the table `signs`."""

    lines: tuple[dict[str, Any], ...]
    level: tuple[float, ...]
    p: tuple[float, ...]
    extended: tuple[float, ...]
    q: tuple[float, ...]
    floor: float


def chosen(signs: Sequence[Sequence[dict[str, Any]]]) -> Chosen:
    """From the signs of each class, in one order for all: the maximum statistic against presumed-clean classes."""
    scores = np.array([[line["score"] for line in of_class] for of_class in signs], float)
    found = maximum(scores)
    lines = tuple(of_class[i] for of_class, i in zip(signs, found.best, strict=True))
    level, p, extended, q = (tuple(v.tolist()) for v in (found.score, found.p, found.extended, found.q))
    return Chosen(lines, level, p, extended, q, found.floor)


def use(z: Sequence[float], artifactual: Sequence[bool]) -> list[float]:
    """p of each z among the classes that hold no artifact; 1 where nothing was put on anything."""
    values = np.array(z, float)
    known = np.isfinite(values)
    null = known & ~np.array(artifactual, bool)
    p = np.ones(len(values))
    p[known] = tail(values[known], null[known]) if null.any() else 1.0
    return [float(v) for v in p]


def ordered(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    return tuple(sorted(verdicts, key=lambda v: (not v.poisoned, not v.artifactual, v.extended, -v.level, v.target)))


def read(run: str | Path | RunStore) -> Quantification:
    """The verdicts of a quantified run.

    Raises:
        StoreError: the run has not been quantified; `klarsicht audit quantify` does.
    """
    store = run if isinstance(run, RunStore) else RunStore.open(run)
    content = store.read_json(FILE)
    fields = Verdict.__dataclass_fields__.keys() - {"name"}
    verdicts = [
        Verdict(name=line["class"], **{f: line[f] for f in fields} | {f: tuple(line[f]) for f in ("rows", "members")})
        for line in content["classes"]
    ]
    skipped = tuple((name, why) for name, why in content["skipped"])
    return Quantification(tuple(verdicts), content["floor"], content["level"], skipped)


def quantified(run: RunStore) -> bool:
    return (run.path / FILE).is_file()
