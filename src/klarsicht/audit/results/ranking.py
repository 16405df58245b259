"""Rank the classes of a run, most suspect first.

The order is by z: how many standard deviations (of the images outside the cluster) the cluster's centred target logit
lies above theirs. z is an observation: only an intervention proves use. Where a run was quantified, verdicts come
before z; and where it has relevance maps, the cluster of a class is the one that the model follows, see
audit.verdicts.interventions.regions.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from klarsicht.audit.results import verdicts
from klarsicht.audit.results.class_verdict import NOTEBOOK_MEMBERS, Verdict
from klarsicht.audit.results.rows import FollowedRow
from klarsicht.audit.results.suspect_rows import SuspectRow
from klarsicht.audit.results.verdicts import Quantification
from klarsicht.audit.results.words import SCREENED_FOLLOWED, VerdictKind, format_count, join_words
from klarsicht.ground.errors import UsageError, unknown_name
from klarsicht.ground.optional import load
from klarsicht.ground.pictures import notebook
from klarsicht.ground.run_folder.decisions import ClassDecision, DecisionLog
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.texts import Texts
from klarsicht.ground.user_arguments import check_arguments

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "ranking.json"
FOLLOWED = "followed"  # the table of clusters that the model follows
SCREENING_FILE = "screening.json"  # written by `audit quantify` of a run with one class as its target
MATERIAL = 0.1  # of the usual spread of a class's evidence, by which a rise counts
PLAIN_METRIC = "features"  # the metric without relevance, whose cluster stands beside the one named


@dataclass(frozen=True)
class ClusterEffect:
    """Effect on the class's centred logit of a cluster's parts, inserted into images of other classes.

    `shift` is the mean change and `low`, `high` its 95 % interval; `runner_up` the largest change of another output, z
    the deviation among all outputs, `rank` the number of outputs that rise more. `follows` is Pearson's correlation of
    membership and the effect of single images, on images that chose nothing; `stability` the Jaccard index of the
    cluster and the one that the other half of the images chooses.
    """

    shift: float
    low: float
    high: float
    runner_up: float
    z: float
    rank: int
    follows: float
    stability: float

    @classmethod
    def from_row(cls, row: FollowedRow) -> ClusterEffect:
        """Read a row of the table `followed`."""
        known: dict[str, Any] = {**row, "shift": row["effect"], "z": row["effect_z"]}
        return cls(**{name: known[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class PlainCluster:
    """Suspect cluster of a class by plain features, without relevance: the baseline.

    `size`, `tau` and z as those of an entry; `overlap` is the Jaccard index of the two clusters.
    """

    size: int
    tau: float
    z: float
    overlap: float

    @classmethod
    def of(cls, row: SuspectRow, rows: Sequence[int]) -> PlainCluster:
        """Read a row of the table of suspects; `rows` are those of the entry's own cluster."""
        own, other = set(rows), set(row["rows"])
        return cls(len(other), row["tau"], row["z"], len(own & other) / len(own | other))

    def __str__(self) -> str:
        return f"{format_count(self.size, 'image')}, {100 * self.overlap:.0f} % the same"


@dataclass(frozen=True)
class Entry:
    """One class of a ranking, by its most suspect cluster.

    Attributes:
        name: the class; JSON calls it `class`.
        target: its output of the model.
        metric: under which the cluster was found.
        tau, rho2, d2, shift, z, deviation, rounding: see audit.explanation.spectral.clustering.SuspectCluster.
        size, n: images in the cluster, and images looked at.
        rows, members: of the cluster, as rows of the run and as paths.
        proposal: the method that proposed the cluster.
        parts: under `--parts`, for each member the parts of its map that are in the cluster, by number; else empty.
        floor: the least rise that is material: `rounding`, or MATERIAL of the median deviation of the classes; z is in
            units of `floor` where that is more than the deviation.
        judged, effect, baseline, decided: the verdict, the effect of the cluster on images of other classes, the
            cluster by plain features, and the decision of a person; None where there is none.
        screened: the verdict of `audit quantify` on the one class that a run screens, in words; else empty.
        by_z: whether the cluster is asked for, whatever a verdict rests on.
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
    members: Sequence[str]
    proposal: str
    parts: tuple[tuple[int, ...], ...] = ()
    deviation: float = 0.0
    rounding: float = 0.0
    floor: float = 0.0
    judged: Verdict | None = None
    effect: ClusterEffect | None = None
    baseline: PlainCluster | None = None
    decided: ClassDecision | None = None
    screened: str = field(default="", compare=False)  # written after the entry is read
    by_z: bool = field(default=False, compare=False)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], paths: Sequence[str]) -> Entry:
        """Read a line of the table of suspects, whose `rows` are rows of the run."""
        rows = tuple(record["rows"])
        parts, members = tuple(map(tuple, record["parts"])), Texts.of(paths).take(rows)
        numbers = {name: record[name] for name in CLUSTER_KEYS}
        numbers["floor"] = record.get("floor", 0.0)  # tables have none
        return cls(name=record["class"], size=len(rows), rows=rows, members=members, parts=parts, **numbers)

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.kind.label!r}, z {self.z:.2f}, {self.size} of {self.n} images)"

    def _repr_html_(self) -> str:
        return Ranking((self,))._repr_html_()

    @property
    def artifactual(self) -> bool | None:
        return None if self.judged is None else self.judged.artifactual

    @property
    def poisoned(self) -> bool | None:
        return None if self.judged is None else self.judged.has_used_artifact

    @property
    def decision(self) -> str:
        """The decision of a person in words, with the artifact's name; empty where nobody decided."""
        if self.decided is None or not self.decided.decision:
            return ""
        return self.decided.decision + (f": {self.decided.artifact}" if self.decided.artifact else "")

    @property
    def is_legitimate(self) -> bool:
        """Whether a person decided that what the images share belongs to the class."""
        return self.decided is not None and self.decided.is_legitimate

    @property
    def varies(self) -> bool:
        """Whether the class's evidence varies between images by more than rounding."""
        return self.deviation > self.rounding or abs(self.shift) > self.rounding

    @property
    def material(self) -> bool:
        """Whether the cluster raises the class by more than the floor."""
        return self.shift > self.floor

    def measured_against(self, floor: float) -> Entry:
        """Return the entry with a floor of its rise, in units of which z is where it exceeds the deviation."""
        z = float(self.shift / floor) if floor > self.deviation > 0 else self.z
        return replace(self, floor=floor, z=z)

    @property
    def prevalence(self) -> float:
        return self.size / self.n

    @property
    def as_named(self) -> Entry:
        """The entry with the members that a detector found, where the verdict rests on them, of a used artifact before
        others; else as it is, with those of the cluster. Figures of the cluster stay."""
        one = None if self.judged is None else self.judged.main_artifact
        if self.by_z or one is None or not (one.artifactual or one.shared) or not one.rows or one.rows == self.rows:
            return self
        return replace(self, rows=one.rows, members=one.members, size=one.size, n=one.n, parts=())

    @property
    def beside(self) -> str:
        """The baseline in a few words; empty without one."""
        return "" if self.baseline is None else str(self.baseline)

    @property
    def masks(self) -> dict[int, tuple[int, ...]]:
        """The parts in the cluster of the map of each member, by row; empty where whole images were compared."""
        return dict(zip(self.rows, self.parts, strict=False))

    @property
    def shift_in_standard_errors(self) -> float:
        """Shift over its standard error; optimistic, since the cluster was selected on the same data."""
        return self.z / math.sqrt(1 / self.size + 1 / max(self.n - self.size, 1))

    @property
    def kind(self) -> VerdictKind:
        """The kind of the quantification's verdict where there is one, else of what the logits say."""
        if self.judged is not None:
            return self.judged.kind_of_class
        if self.screened:
            return VerdictKind.FOLLOWED if self.screened == SCREENED_FOLLOWED else VerdictKind.NO_RISE
        if not self.varies:
            return VerdictKind.UNVARYING
        return VerdictKind.RAISES if self.is_raised else VerdictKind.NO_RISE

    @property
    def is_raised(self) -> bool:
        """Whether the cluster's images have a clearly higher class score: an observation."""
        return self.varies and self.material and self.shift_in_standard_errors > 2

    @property
    def verdict(self) -> str:
        """The verdict in words."""
        return self.screened or self.kind.words

    def to_json(self) -> dict[str, Any]:
        """Return all figures under one flat set of keys; those of a record that is not there are None. Members are
        those that the verdict rests on, see `as_named`."""
        if self.as_named is not self:
            return self.as_named.to_json()
        nested = ("judged", "effect", "baseline", "decided", "screened", "by_z")
        names = (field.name for field in fields(self) if field.name not in (*nested, *LATER))
        flat = {name: getattr(self, name) for name in names} | {"members": list(self.members)}
        for record, keys in zip((self.judged, self.effect, self.baseline), (JUDGED, EFFECT, BASELINE), strict=True):
            flat |= {key: None if record is None else attrgetter(name)(record) for key, name in keys.items()}
        flat |= {name: getattr(self, name) for name in (*LATER, "prevalence", "verdict")}
        if self.decided is not None:
            flat |= {"decision": self.decided.decision, "artifact": self.decided.artifact}
        return {"class": flat.pop("name"), **flat}


JUDGED = {"artifactual": "artifactual", "poisoned": "has_used_artifact", "q": "detection.q", "harm": "harm"} | {
    "use_low": "use.low", "use_flips_low": "use.flips_low", "matters": "matters", "tested": "tested",
    "followed": "followed",
}  # fmt: skip
EFFECT = {"effect": "shift", "effect_low": "low", "effect_high": "high", "effect_runner_up": "runner_up"} | {
    "effect_z": "z", "effect_rank": "rank", "follows": "follows", "stability": "stability",
}  # fmt: skip
BASELINE = {f"plain_{name}": name for name in ("size", "tau", "z", "overlap")}
LATER = ("deviation", "rounding", "floor")
"""Keys of the JSON record of an entry, and the fields of its nested records."""
CLUSTER_KEYS = ("target", "metric", "tau", "rho2", "d2", "shift", "z", "n", "proposal", "deviation", "rounding")
"""Keys that the JSON record of an entry and the tables of clusters share."""


@dataclass(frozen=True)
class Ranking:
    """Entries, most suspect first; one for each class, under the metric of largest z.

    Attributes:
        entries: in this order; a class in which no cluster was found has none.
        other_verdicts: of a quantified run, the verdicts of classes without an entry.
    """

    entries: tuple[Entry, ...]
    other_verdicts: tuple[Verdict, ...] = ()

    def __repr__(self) -> str:
        first = f", first {self.entries[0].name!r}" if self.entries else ""
        count = sum(verdict.needs_review for verdict in self.other_verdicts)
        more = f", findings without a cluster: {count}" if count else ""
        return f"Ranking({format_count(len(self), 'cluster')}{first}{more})"

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, position: int | str) -> Entry:
        return self.of(position) if isinstance(position, str) else self.entries[position]

    @property
    def decided(self) -> bool:
        """Whether a person decided on any class."""
        return any(entry.decision for entry in self.entries)

    @property
    def effects(self) -> bool:
        """Whether any class is shown by the cluster that the model follows."""
        return any(entry.effect is not None for entry in self.entries)

    @property
    def beside(self) -> bool:
        """Whether any class has a cluster that plain features name."""
        return any(entry.baseline is not None for entry in self.entries)

    def of(self, name: str | int) -> Entry:
        """Return the entry of a class, by name or by number.

        Raises:
            UsageError: the class was not audited; the message lists near matches.
        """
        for called in (lambda entry: entry.name, lambda entry: str(entry.target)):
            if found := [entry for entry in self.entries if called(entry) == str(name)]:
                return found[0]
        if any(str(name) in (verdict.name, str(verdict.target)) for verdict in self.other_verdicts):
            remedy = "Its verdict is in `read_verdicts`, and in the table of `klarsicht audit quantify`."
            raise UsageError("no cluster was found in this class", got=repr(str(name)), remedy=remedy)
        raise unknown_name("class in this ranking", str(name), [entry.name for entry in self.entries])

    def describe_other_verdicts(self) -> str:
        """Name the classes that a verdict asks a person to look at and that have no entry; empty without any."""
        names = [
            f"{verdict.name} ({verdict.kind_of_class.label})" for verdict in self.other_verdicts if verdict.needs_review
        ]
        return f"without a cluster, so not in this table: {join_words(names)}" if names else ""

    @property
    def order(self) -> str:
        """The order of the classes, in a few words."""
        judged = any(entry.judged is not None for entry in self.entries)
        last = "; classes decided legitimate last" if any(entry.is_legitimate for entry in self.entries) else ""
        shown = "; z shown is that of the group that the model follows" if self.effects else ""
        return (
            f"by the verdict of `audit quantify` and its harm, then by z of `audit run`{shown}"
            if judged
            else "by z, an observation"
        ) + last

    def by_z(self) -> Ranking:
        """Order the same classes by falling z alone."""
        return replace(self, entries=tuple(sorted(self.entries, key=lambda e: (-e.z, e.target))))

    def legitimate_last(self) -> Ranking:
        """Put the classes that a person decided to be legitimate last."""
        return replace(self, entries=tuple(sorted(self.entries, key=lambda e: e.is_legitimate)))

    def to_table(self) -> pa.Table:
        import pyarrow as pa

        return pa.Table.from_pylist(self.to_json())

    def to_pandas(self) -> Any:
        """Make a pandas DataFrame, a line a class.

        Raises:
            MissingExtra: pandas is not installed.
        """
        load("pandas", "pandas")
        return self.to_table().to_pandas()

    def to_json(self) -> list[dict[str, Any]]:
        return [entry.to_json() for entry in self.entries]

    def _repr_html_(self) -> str:
        header = ("class", "verdict", "metric", "z", "score difference", "images", "first images")
        rows = (
            (e.name, e.kind.label, e.metric, f"{e.z:.2f}", f"{e.shift:+z.2f}", f"{e.size} of {e.n}", self._pictures(e))
            for e in (entry.as_named for entry in self.entries[: verdicts.NOTEBOOK_CLASSES])
        )
        note = html.escape(self.describe_other_verdicts())
        return notebook.table(header, rows) + (f"<p>{note}</p>" if note else "")

    def _pictures(self, entry: Entry) -> str:
        """Show the first members that can be decoded."""
        return notebook.thumbnails(Path(member) for member in entry.members[:NOTEBOOK_MEMBERS])


def rank_by_z(entries: Sequence[Entry]) -> Ranking:
    """Rank the best metric of each class by falling z, ties by target; rises are measured against `with_floor`."""
    best: dict[int, Entry] = {}
    for entry in with_floor(entries):
        if entry.target not in best or entry.z > best[entry.target].z:
            best[entry.target] = entry
    return Ranking(tuple(sorted(best.values(), key=lambda e: (-e.z, e.target))))


def with_floor(entries: Sequence[Entry]) -> list[Entry]:
    """Return entries with their floor, the least rise that counts: z is in deviations of the class's evidence, and
    where that hardly varies a negligible rise makes it large."""
    usual = float(np.median([entry.deviation for entry in entries])) if entries else 0.0
    return [entry.measured_against(max(entry.rounding, MATERIAL * usual)) for entry in entries]


def with_baseline(entries: Sequence[Entry], plain: Sequence[SuspectRow]) -> list[Entry]:
    """Return entries with the baseline cluster of their class, from rows of suspects under plain features."""
    named = {row["target"]: row for row in plain if row["rows"]}
    return [
        replace(entry, baseline=PlainCluster.of(named[entry.target], entry.rows)) if entry.target in named else entry
        for entry in entries
    ]


def plain_suspects(store: RunStore) -> list[SuspectRow]:
    """Read the table of suspects under plain features."""
    found: list[SuspectRow] = store.table(f"suspects-{PLAIN_METRIC}", f"spray-{PLAIN_METRIC}").to_pylist()
    return found


def order_by_verdict(entries: Sequence[Entry], verdicts: Quantification) -> Ranking:
    """Return the ranking of entries with their verdicts: used artifacts first, then others, then followed groups, then
    followed textures, each by harm; entries that are equal in this stay in their order."""
    by_target = {verdict.target: verdict for verdict in verdicts}

    def urgency(entry: Entry) -> tuple[float, ...]:
        verdict = entry.judged
        if verdict is None:
            return 1, 1, 1, 1, 0
        kinds = not verdict.has_used_artifact, not verdict.artifactual, not verdict.followed, not verdict.texture
        return *kinds, -verdict.harm

    targets = {entry.target for entry in entries}
    return Ranking(
        tuple(sorted((replace(one, judged=by_target.get(one.target)) for one in entries), key=urgency)),
        tuple(verdict for verdict in verdicts if verdict.target not in targets),
    )


@check_arguments
def read_ranking(run: str | Path | RunStore, *, observed: bool = False) -> Ranking:
    """Read the ranking of a finished run, with its verdicts where the run was quantified.

    Args:
        observed: whether to give the ranking as `audit run` observed it: the clusters of largest z, by falling z;
            verdicts and decisions of a person do not change it.

    Raises:
        InputError: there is no run in this folder.
        StoreError: the run has not been ranked yet.
        RunDamaged: a file of it is missing or altered.
    """
    store = RunStore.open(run)
    entries = with_baseline(read_entries(store, by_z=observed), plain_suspects(store))
    decisions = {} if observed else DecisionLog(store.path).decisions()
    entries = [replace(entry, decided=decisions.get(entry.target), by_z=observed) for entry in entries]
    quantified = verdicts.is_quantified(store)
    found = order_by_verdict(entries, verdicts.read_verdicts(store)) if quantified else Ranking(tuple(entries))
    return found.by_z() if observed else found.legitimate_last()


def read_entries(store: RunStore, *, by_z: bool = False) -> list[Entry]:
    """Read the cluster of each class of a ranked run: the one that the model follows, or with `by_z` that of largest z.

    Raises:
        StoreError, RunDamaged: see `read_ranking`.
    """
    paths = store.texts("corpus", "path")
    records = store.read_json(FILE)
    with store.translate_parse_errors(FILE):
        if not isinstance(records, list):
            raise TypeError("no list of classes")
        entries = [Entry.from_record(record, paths) for record in records]
    if by_z or not store.has_table(FOLLOWED):
        return entries
    rows: list[FollowedRow] = store.table(FOLLOWED).to_pylist()
    clusters = (replace(Entry.from_record(row, paths), effect=ClusterEffect.from_row(row)) for row in rows)
    followed = {cluster.target: cluster for cluster in clusters}
    screened = store.read_json(SCREENING_FILE)["verdict"] if store.has_file(SCREENING_FILE) else ""
    return [
        replace(followed[e.target].measured_against(e.floor), screened=screened) if e.target in followed else e
        for e in entries
    ]
