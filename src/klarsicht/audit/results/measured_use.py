"""Record in the run how far the model uses an artifact, as `audit clean` measured it, and read it again."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from klarsicht.audit.results.words import format_share, name_artifact
from klarsicht.ground.run_folder.store import RunStore

MEASURED_FILE = "measured-use.json"


@dataclass(frozen=True)
class MeasuredUse:
    """Effect of an artifact on the audited model, inserted into images of other classes by `audit clean`.

    Attributes:
        name, target, number: the class, its output, and the number of its artifact, from 1.
        images: other images that it was inserted into.
        turned, low, high: share of these that it turned into the class, and its 95 % interval.
        verdict: on the correction, in words.
    """

    name: str
    target: int
    number: int
    images: int
    turned: float
    low: float
    high: float
    verdict: str

    def describe(self) -> str:
        """Describe the effect in words."""
        name = name_artifact(self.name, self.number)
        turns = f"turns {format_share(self.turned)} of {self.images:,} other images into the class"
        ends = f"{format_share(self.low)} to {format_share(self.high)}"
        return f"`audit clean` measured that the artifact of {name} {turns} ({ends})"


def read_measured_uses(run: RunStore) -> tuple[MeasuredUse, ...]:
    """Read the uses that were measured, one an artifact. Raises RunDamaged."""
    if not run.has_file(MEASURED_FILE):
        return ()
    content = run.read_json(MEASURED_FILE)
    with run.translate_parse_errors(MEASURED_FILE):
        return tuple(MeasuredUse(**line) for line in content)


def record_measured_use(run: RunStore, use: MeasuredUse) -> None:
    """Record a use in place of an earlier one of the same artifact."""
    others = (one for one in read_measured_uses(run) if (one.target, one.number) != (use.target, use.number))
    every = sorted((*others, use), key=lambda one: (one.target, one.number))
    run.write_json(MEASURED_FILE, [asdict(one) for one in every])
