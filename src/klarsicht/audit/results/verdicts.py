"""Verdicts on the classes of a quantified run, and their file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.significance import class_strategy
from klarsicht.audit.results.verdict_lines import UNKNOWN_RUN, VERDICT_COLUMNS, VerdictLine
from klarsicht.audit.results.words import name_artifact
from klarsicht.ground.errors import InputError, StoreError, UsageError, unknown_name
from klarsicht.ground.optional import load
from klarsicht.ground.pictures import notebook
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments

if TYPE_CHECKING:
    import pyarrow as pa

NOTEBOOK_CLASSES = 20  # classes in a notebook
VERDICTS_FILE = "quantification.json"


@dataclass(frozen=True)
class Quantification:
    """Verdicts on all classes: used artifacts first, then other artifacts, each by harm, then by p.

    Attributes:
        floor: the smallest p that so many classes can give; 1 where they were too few to be compared.
        level: of p, for either claim.
        skipped: (class, reason) of those that could not be examined.
        run: its folder, which the commands of next steps name; RUN where it is not known.
        has_cleaning: whether its model and data can be cleaned, see `has_cleaning`.
    """

    verdicts: tuple[Verdict, ...]
    floor: float
    level: float
    skipped: tuple[tuple[str, str], ...] = ()
    run: str = field(default=UNKNOWN_RUN, compare=False)
    has_cleaning: bool = field(default=True, compare=False)

    @property
    def limits(self) -> str:
        """Resolution of p with so many classes, in words, and whether it can reach the level."""
        return class_strategy(len(self)).describe_limits(self.floor, self.level)

    @property
    def lines(self) -> tuple[VerdictLine, ...]:
        """The lines of the table of verdicts, in order: every artifact of a class has one."""
        return tuple(
            VerdictLine(position, number, name, one, len(self), self.level, self.run, self.has_cleaning)
            for position, verdict in enumerate(self.verdicts, 1)
            for number, (name, one) in enumerate(verdict.named_artifacts, 1)
        )

    def __iter__(self) -> Iterator[Verdict]:
        return iter(self.verdicts)

    def __len__(self) -> int:
        return len(self.verdicts)

    def __getitem__(self, position: int | str) -> Verdict:
        return self.of(position) if isinstance(position, str) else self.verdicts[position]

    def of(self, name: str | int) -> Verdict:
        """Return the verdict on a class, by name or output, or on a further artifact of one: "carton (artifact 2)".

        Raises:
            UsageError: the class was not examined; the message lists near matches.
        """
        # a class may be called as another's output, or as another's further artifact
        known = {name_artifact(str(v.target), i): one for v in self for i, one in enumerate(v.artifacts, 1)}
        known |= {name: one for v in self for name, one in v.named_artifacts} | {v.name: v for v in self}
        if str(name) not in known and (why := dict(self.skipped).get(str(name))):
            raise UsageError("this class was not examined", got=str(name), rule=why, remedy="Name another class.")
        if str(name) not in known:
            raise unknown_name("class in this quantification", str(name), [v.name for v in self])
        return known[str(name)]

    def of_target(self, target: int) -> Verdict | None:
        """Return the verdict on the class of an output; None where it was not examined."""
        return next((verdict for verdict in self.verdicts if verdict.target == target), None)

    def to_table(self) -> pa.Table:
        """Return one row for each class; `further` and `searches` are the numbers of these."""
        import pyarrow as pa

        counts = ({"further": len(one.further), "searches": len(one.searches)} for one in self.verdicts)
        return pa.Table.from_pylist([one.to_json() | n for one, n in zip(self.verdicts, counts, strict=True)])

    def to_pandas(self) -> Any:
        """Make a pandas DataFrame, a line a class. Raises MissingExtra where pandas is not installed."""
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


@check_arguments
def read_verdicts(run: str | Path | RunStore) -> Quantification:
    """Read the verdicts of a quantified run.

    Raises:
        StoreError: the run has not been quantified; `klarsicht audit quantify` does so.
        RunDamaged: the verdicts are missing or altered.
        InputError: another version made them, with other figures.
    """
    store = RunStore.open(run)
    require_quantified(store)
    content = store.read_json(VERDICTS_FILE)
    with store.translate_parse_errors(VERDICTS_FILE):
        try:
            verdicts = tuple(Verdict.from_json(line) for line in content["classes"])
        except KeyError as missing:
            raise InputError(
                f"another version of klarsicht made {VERDICTS_FILE}",
                got=f"no {missing.args[0]}",
                remedy=f"Run klarsicht audit quantify {shlex.quote(str(store.path))} again.",
            ) from missing
        skipped = tuple((name, why) for name, why in content["skipped"])
        levels = content["floor"], content["level"]
        return Quantification(verdicts, *levels, skipped, str(store.path), has_cleaning(store))


def has_cleaning(run: RunStore) -> bool:
    """Say whether the model and the data of a run can be cleaned: its classes exclude each other, and each image has
    one label."""
    settings = run.manifest["settings"]
    return not (run.manifest.get("independent") or settings.get("label_separator") or settings.get("label_columns"))


def is_quantified(run: RunStore) -> bool:
    """Say whether the run has been quantified."""
    return run.has_file(VERDICTS_FILE)


def require_quantified(run: RunStore) -> None:
    """Raise StoreError where the run has not been quantified."""
    if not is_quantified(run):
        remedy = f"Run klarsicht audit quantify {shlex.quote(str(run.path))}."
        raise StoreError("the run has not been quantified", got=run.path, remedy=remedy)
