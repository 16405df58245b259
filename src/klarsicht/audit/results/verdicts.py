"""What a quantified run says of each class: does its data hold an artifact, and does the model use it?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from klarsicht.audit.results.significance import FEWEST, Line
from klarsicht.ground.errors import unknown_name
from klarsicht.ground.store import RunStore
from klarsicht.numerics.statistics import conformal

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "quantification.json"
LEVEL = 0.05  # of p, for either claim
FLOOR = 0.5  # of a logit, by which a class must rise at least to be called poisoned: odds 1.6 times as good
FLIPPED = 0.02  # or of other images, that are taken for the class; either by the lower end of its 95 % interval
BARE = ("border", "noise", "blur", "light", "blocks")  # bring nothing of what a class shows to other images
POISONED = "poisoned: an artifact, and the model uses it"
PRESENT = "artifactual: present, no use shown"
CLASS_SPECIFIC = "windows of its own: look whether they are its nature"
SHARED_AND_USED = f"{CLASS_SPECIFIC}; the model uses them"
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
        p_own: of the score by itself, both halves together, among as many tests as there are signs.
        rows, members: images that carry it; where the class is poisoned, images that carry what is used.
        tried: the sign that was put on other images, and `how`.
        shift, low, high: of the class's centred logit, with a 95 % interval.
        z: of the shift among those of all outputs.
        p_use: of z among clean classes, tail drawn out; of what brings no content along, or where clean classes are
            few, that among the outputs if less: see `use`.
        rank: outputs that rise more.
        p_tiles: of a tile's rise among those of other windows put in its place; 1 where classes are many.
        flips, flips_control: share of other images taken for the class, with the artifact and with the control.
        flips_low: lower end of the 95 % interval of their difference.
        matters: whether the effect clears the floor, by its interval: FLOOR of a logit, or FLIPPED of the images.
        artifactual, poisoned: the two claims, at the level of the quantification.
        shared: in place of them where classes are too few to be compared: windows that no other class shares.
        used: whether what was found, put on other images, raises the class beyond the others and matters.
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
    p_own: float
    rows: tuple[int, ...]
    members: tuple[str, ...]
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
    artifactual: bool
    poisoned: bool
    shared: bool = False
    used: bool = False

    @property
    def noted(self) -> bool:
        """Whether there is something to look at."""
        return self.artifactual or self.shared

    @property
    def size(self) -> int:
        return len(self.rows)

    @property
    def prevalence(self) -> float:
        return self.size / max(self.n, 1)

    @property
    def matters(self) -> bool:
        return clears(self.low, self.flips_low)

    @property
    def verdict(self) -> str:
        if self.shared:
            return SHARED_AND_USED if self.used else CLASS_SPECIFIC
        return POISONED if self.poisoned else PRESENT if self.artifactual else NOTHING

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self) | {
            "size": self.size,
            "prevalence": self.prevalence,
            "matters": self.matters,
            "verdict": self.verdict,
        }
        return {"class": fields.pop("name"), **fields}


@dataclass(frozen=True)
class Quantification:
    """All classes: poisoned ones first, then artifactual ones, then by p.

    Attributes:
        floor: the smallest p that so many classes can give; 1 where they were too few to be compared.
        level: of p, for either claim.
        skipped: (class, why) of those that could not be examined.
    """

    verdicts: tuple[Verdict, ...]
    floor: float
    level: float
    skipped: tuple[tuple[str, str], ...] = ()

    @property
    def limits(self) -> str:
        """What p is worth with so many classes."""
        if self.floor < 1:
            return (
                f"p can be no smaller than {self.floor:.3f} with so many clean classes; below, a power law through "
                "their largest scores decides."
            )
        return (
            f"fewer than {FEWEST} classes cannot tell an artifact from what a class is by nature, and none is called; "
            "p is of the windows that a class shares by itself."
        )

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


def use(
    effects: Sequence[Line], artifactual: Sequence[bool], changes: Sequence[str], outputs: int, level: float = LEVEL
) -> list[float]:
    """p of each effect's z among those of the classes that hold no artifact; 1 where nothing was put on anything.

    A tile brings content of its class along, which raises the class by itself, and only other classes' tiles say how
    much. A blur brings nothing: were it nothing to the class, the class would be as good as any other output. Where
    clean classes are so few that no rank among them reaches the level, a tile is judged among the outputs as well; and
    where these are fewer than FEWEST, one that raises its class first of all, among other windows in its place.
    """
    values = np.array([effect["z"] for effect in effects], float)
    known = np.isfinite(values)
    null = known & ~np.array(artifactual, bool)
    p = np.ones(len(values))
    p[known] = conformal.tail(values[known], null[known]) if null.any() else 1.0
    few = null.sum() + 1 < 1 / level
    beside = known & (np.isin(changes, BARE) | few)
    rank = np.array([effect["rank"] for effect in effects])
    if outputs >= FEWEST:
        other = among_outputs(values, rank, outputs)
    else:
        tiles = np.array([effect["p_tiles"] for effect in effects])
        other = np.where(rank == 0, tiles, 1.0)
    return [float(v) for v in np.where(beside, np.minimum(p, other), p)]


def among_outputs(z: NDArray[np.floating[Any]], rank: NDArray[np.integer[Any]], outputs: int) -> NDArray[np.float64]:
    """p (n,) of an output that `rank` others exceed, (rank + 1) / outputs; of the first one also that of its z among
    the others, by Student's t, if less: ten outputs have no rank below a tenth."""
    ranked = (rank + 1) / outputs
    tail = special.stdtr(max(outputs - 2, 1), -np.nan_to_num(z))
    return np.where(rank == 0, np.minimum(ranked, tail), ranked)


def clears(low: float, flips_low: float) -> bool:
    """Whether an effect is large enough to matter, by the lower ends of its intervals."""
    return low >= FLOOR or flips_low >= FLIPPED


def ordered(verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    return tuple(sorted(verdicts, key=lambda v: (not v.poisoned, not v.artifactual, v.extended, -v.level, v.target)))


BEFORE: Line = {"p_own": 0.0, "flips_low": 0.0, "p_tiles": 1.0}  # of runs quantified before these were measured


def read_verdicts(run: str | Path | RunStore) -> Quantification:
    """The verdicts of a quantified run.

    Raises:
        StoreError: the run has not been quantified; `klarsicht audit quantify` does.
    """
    store = run if isinstance(run, RunStore) else RunStore.open(run)
    content = store.read_json(FILE)
    known = Verdict.__dataclass_fields__.keys() - {"name"}
    verdicts = []
    for line in content["classes"]:
        fields = BEFORE | {f: line[f] for f in known & line.keys()}
        fields |= {f: tuple(line[f]) for f in ("rows", "members")}
        verdicts.append(Verdict(name=line["class"], **fields))
    skipped = tuple((name, why) for name, why in content["skipped"])
    return Quantification(tuple(verdicts), content["floor"], content["level"], skipped)


def quantified(run: RunStore) -> bool:
    return (run.path / FILE).is_file()
