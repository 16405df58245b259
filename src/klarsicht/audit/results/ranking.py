"""All classes, most suspect first.

The order is by z: how many standard deviations (of the images outside the cluster) the cluster's centred target
logit lies above theirs. tau says that a group exists; many classes see the same group; the class that *uses* it is
the one whose logit the group raises most. This is an observation: only an intervention proves use. Where a run was
quantified, its verdicts go before: poisoned classes first, then artifactual ones; and where its images have maps, the
cluster of a class is the one that the model follows, see audit.interventions.region_insertion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klarsicht.audit.results import verdicts
from klarsicht.audit.results.verdicts import POISONED, PRESENT, Quantification, Verdict
from klarsicht.ground.errors import unknown_name
from klarsicht.ground.store import RunStore

if TYPE_CHECKING:
    import pyarrow as pa

RAISES = "raises the target (observational)"
FOLLOWED = "followed"  # the table of clusters that the model follows
QUIET = "no cluster clearly raises the target"
UNVARYING = "evidence does not vary"
MATERIAL = 0.1  # of the usual spread of a class's evidence, by which a rise counts
PLAIN = "features"  # the metric without relevance, whose cluster stands beside the one named


@dataclass(frozen=True)
class Entry:
    """One class of a ranking, by its most suspect cluster.

    Attributes:
        name: the class; JSON calls it `class`.
        target: index of the class among the model's outputs.
        metric: the metric under which the cluster was found.
        tau, rho2, d2, shift, z: see audit.spray.clustering.SuspectCluster.
        size: images in the cluster.
        n: images looked at.
        rows: rows of the run that are members.
        deviation, rounding: see audit.spray.clustering.SuspectCluster; in runs of earlier versions not known, and 0.
        floor: the least rise that is material: `rounding`, or MATERIAL of the usual deviation of this run's classes,
            the median; z is in units of `floor` where that is more than the deviation.
        members: their paths.
        parts: under `--parts`, for each member the parts of its map that are in the cluster, by number; else empty.
        proposal: what proposed the cluster.
        artifactual, poisoned, q: what the quantification says of the class; None before `audit quantify`.
        use_low, use_flips_low: lower ends of the 95 % intervals of the logit that the artifact adds on images of other
            classes, and of the share of them that it turns into this class; `matters`: whether either clears the floor,
            see audit.results.verdicts.
        effect, effect_low, effect_high: what the members' parts, put on images of other classes, do to the class's
            centred logit, with a 95 % interval; None where that was not tried.
        effect_runner_up, effect_z, effect_rank: that beside all other outputs, see audit.interventions.effect.
        follows: how well membership goes with the effect of single images: Pearson's correlation, held out.
        stability: Jaccard index of the cluster and that which the other half of the images chooses.
        plain_size, plain_tau, plain_z: of the suspect cluster that plain features name, without relevance; None where
            they name none, or the run is of a version that did not ask them.
        plain_overlap: Jaccard index of that cluster and this one: 1 where relevance made no difference.
    """

    name: str
    target: int
    metric: str
    tau: float
    rho2: float
    d2: float
    shift: float
    z: float
    size: int
    n: int
    rows: tuple[int, ...]
    members: tuple[str, ...]
    proposal: str
    parts: tuple[tuple[int, ...], ...] = ()
    artifactual: bool | None = None
    poisoned: bool | None = None
    q: float | None = None
    use_low: float | None = None
    use_flips_low: float | None = None
    matters: bool | None = None
    effect: float | None = None
    effect_low: float | None = None
    effect_high: float | None = None
    effect_runner_up: float | None = None
    effect_z: float | None = None
    effect_rank: int | None = None
    follows: float | None = None
    stability: float | None = None
    plain_size: int | None = None
    plain_tau: float | None = None
    plain_z: float | None = None
    plain_overlap: float | None = None
    deviation: float = 0.0
    rounding: float = 0.0
    floor: float = 0.0

    @property
    def varies(self) -> bool:
        """Whether the class's evidence varies between images by more than rounding."""
        return self.deviation > self.rounding or abs(self.shift) > self.rounding

    @property
    def material(self) -> bool:
        """Whether the cluster raises the class by more than the floor."""
        return self.shift > self.floor

    def above(self, floor: float) -> Entry:
        """The entry with its rise measured against a floor."""
        z = self.shift / floor if floor > self.deviation > 0 else self.z
        return replace(self, floor=floor, z=z)

    @property
    def prevalence(self) -> float:
        return self.size / self.n

    @property
    def beside(self) -> str:
        """What plain features name, in a few words; empty where they were not asked."""
        if self.plain_overlap is None:
            return ""
        return f"{self.plain_size}, tau {self.plain_tau:.2f}, z {self.plain_z:.2f}, overlap {self.plain_overlap:.2f}"

    @property
    def masks(self) -> dict[int, tuple[int, ...]]:
        """For each member row, the parts of its map that are in the cluster; empty where whole images were compared."""
        return dict(zip(self.rows, self.parts, strict=False))

    @property
    def errors(self) -> float:
        """The shift in standard errors, as if the cluster had been chosen blindly; it was not, so this flatters."""
        return self.z / math.sqrt(1 / self.size + 1 / max(self.n - self.size, 1))

    @property
    def verdict(self) -> str:
        """That of the quantification where it found something, else what the logits say."""
        if self.artifactual:
            return POISONED if self.poisoned else PRESENT
        if not self.varies:
            return UNVARYING
        return RAISES if self.material and self.errors > 2 else QUIET

    def to_json(self) -> dict[str, Any]:
        fields = asdict(self) | {"prevalence": self.prevalence, "verdict": self.verdict}
        return {"class": fields.pop("name"), **fields}


@dataclass(frozen=True)
class Ranking:
    """Entries, most suspect first; one for each class, under the metric of largest z. More metrics, more chances:
    z of the best of several is a little larger than z of one."""

    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, position: int) -> Entry:
        return self.entries[position]

    @property
    def beside(self) -> bool:
        """Whether any class has a cluster that plain features name."""
        return any(entry.beside for entry in self.entries)

    def of(self, name: str) -> Entry:
        """The entry of a class, by name or by number.

        Raises:
            UsageError: the class was not audited; near matches are listed.
        """
        for called in (lambda entry: entry.name, lambda entry: str(entry.target)):
            if found := [entry for entry in self.entries if called(entry) == name]:
                return found[0]
        raise unknown_name("class in this ranking", name, [entry.name for entry in self.entries])

    def to_table(self) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_pylist([entry.to_json() for entry in self.entries])

    def to_pandas(self) -> Any:
        """A pandas DataFrame; needs pandas."""
        return self.to_table().to_pandas()

    def to_json(self) -> list[dict[str, Any]]:
        return [entry.to_json() for entry in self.entries]


def ranked(entries: Sequence[Entry]) -> Ranking:
    """The best metric of each class, all classes by falling z; ties by target. A rise is measured against the floor of
    these entries: see `floored`."""
    best: dict[int, Entry] = {}
    for entry in floored(entries):
        if entry.target not in best or entry.z > best[entry.target].z:
            best[entry.target] = entry
    return Ranking(tuple(sorted(best.values(), key=lambda e: (-e.z, e.target))))


def floored(entries: Sequence[Entry]) -> list[Entry]:
    """Give entries the rise that each must exceed: z knows no scale, and is large by nothing where evidence hardly
    varies."""
    usual = float(np.median([entry.deviation for entry in entries])) if entries else 0.0
    return [entry.above(max(entry.rounding, MATERIAL * usual)) for entry in entries]


def entry_of(record: dict[str, Any], paths: Sequence[str]) -> Entry:
    """An entry from a line of the table of suspects, whose `rows` are rows of the run."""
    rows = tuple(record["rows"])
    numbers = {name: record[name] for name in ("target", "metric", "tau", "rho2", "d2", "shift", "z", "n", "proposal")}
    numbers |= {name: record.get(name) or 0.0 for name in ("deviation", "rounding", "floor")}
    parts = tuple(tuple(of_one) for of_one in record.get("parts", ()))
    members = tuple(paths[r] for r in rows)
    return Entry(name=record["class"], size=len(rows), rows=rows, members=members, parts=parts, **numbers)


def followed(record: dict[str, Any], paths: Sequence[str]) -> Entry:
    """An entry from a line of the table of clusters that the model follows."""
    effect = {f"effect_{name}": record[name] for name in ("low", "high", "runner_up", "rank")}
    effect |= {name: record[name] for name in ("effect", "effect_z", "follows", "stability")}
    return replace(entry_of(record, paths), **effect)


def with_plain(entries: Sequence[Entry], plain: Sequence[dict[str, Any]]) -> list[Entry]:
    """Entries with what plain features name in the same class: lines of their table of suspects."""
    named = {line["target"]: line for line in plain if line["rows"]}
    return [
        replace(entry, **beside(entry, named[entry.target])) if entry.target in named else entry for entry in entries
    ]


def beside(entry: Entry, plain: dict[str, Any]) -> dict[str, Any]:
    """The fields of an entry that the cluster of plain features fills."""
    own, other = set(entry.rows), set(plain["rows"])
    numbers = {"plain_size": len(other), "plain_tau": plain["tau"], "plain_z": plain["z"]}
    return numbers | {"plain_overlap": len(own & other) / len(own | other)}


def plain_suspects(store: RunStore) -> list[dict[str, Any]]:
    """Lines of the table of suspects under plain features; none in a run of a version that did not ask them."""
    name = f"suspects-{PLAIN}"
    found: list[dict[str, Any]] = store.table(name).to_pylist() if store.has_table(name) else []
    return found


def told_by(verdict: Verdict) -> dict[str, Any]:
    """The fields of an entry that a verdict fills."""
    claims = {name: getattr(verdict, name) for name in ("artifactual", "poisoned", "q", "matters")}
    return claims | {"use_low": verdict.low, "use_flips_low": verdict.flips_low}


def judged(entries: Sequence[Entry], found: Quantification) -> Ranking:
    """Entries with their verdicts; classes of one kind stay in their order."""
    by_target = {verdict.target: verdict for verdict in found}
    with_verdicts = [
        replace(entry, **told_by(verdict)) if (verdict := by_target.get(entry.target)) else entry for entry in entries
    ]
    return Ranking(tuple(sorted(with_verdicts, key=lambda e: (not e.poisoned, not e.artifactual))))


def read_ranking(run: str | Path | RunStore) -> Ranking:
    """The ranking of a finished run, with its verdicts where it was quantified.

    Raises:
        StoreError: the run has not been ranked yet.
    """
    store = run if isinstance(run, RunStore) else RunStore.open(run)
    paths = store.table("corpus")["path"].to_pylist()
    entries = [entry_of(record, paths) for record in store.read_json("ranking.json")]
    if store.has_table(FOLLOWED):
        tried = {record["target"]: followed(record, paths) for record in store.table(FOLLOWED).to_pylist()}
        entries = [tried.get(entry.target, entry).above(entry.floor) for entry in entries]
    entries = with_plain(entries, plain_suspects(store))
    return judged(entries, verdicts.read_verdicts(store)) if verdicts.quantified(store) else Ranking(tuple(entries))
