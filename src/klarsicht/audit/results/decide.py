"""Record the decision of a person on a class of a run from Python, as the explorer does in a browser."""

from __future__ import annotations

from pathlib import Path

from klarsicht.audit.results.ranking import read_ranking
from klarsicht.ground.run_folder.decisions import ARTIFACT, Change, ClassDecision, DecisionLog
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments


@check_arguments
def decide(
    run: str | Path | RunStore, name: str, decision: str, *, artifact: str | None = None, note: str | None = None,
    author: str = "unknown",
) -> ClassDecision:  # fmt: skip
    """Record a decision on a class of a ranked run; `rank`, `clean` and `clean_data` follow it.

    Args:
        name: the class, or its output.
        decision: "artifact", "legitimate" or "unsure".
        artifact, note: name of the artifact, and remarks; None leaves them as they are.
        author: who decides.

    Returns:
        The decision on the class that now counts.

    Raises:
        UsageError: no such class or decision, or a text that is too long.
        InputError, StoreError, RunDamaged: see `rank`.
    """
    store = RunStore.open(run)
    entry = read_ranking(store).of(name)
    rows = entry.judged.rows if entry.judged is not None and entry.judged.has_group else entry.rows
    base = tuple(rows) if decision == ARTIFACT else None  # members stay as they are when the run is quantified again
    log = DecisionLog(store.path)
    log.append(Change(entry.target, entry.name, decision, artifact, note, base), author)
    return log.decisions()[entry.target]
