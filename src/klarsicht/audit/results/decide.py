"""Record the decision of a person on a class of a run from Python, as the explorer does in a browser."""

from __future__ import annotations

from pathlib import Path

from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.ranking import Entry, read_ranking
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
        name: the class, or its output; it has a cluster or a verdict.
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
    ranking = read_ranking(store)
    classes: list[Verdict | Entry] = [*ranking.entries, *ranking.other_verdicts]
    # a class may be called as another's output: names first
    same = [one for one in classes if one.name == name] or [one for one in classes if str(one.target) == name]
    subject = same[0] if same else ranking.of(name)
    verdict, cluster = (subject, ()) if isinstance(subject, Verdict) else (subject.judged, subject.rows)
    rows = verdict.rows if verdict is not None and verdict.has_group else cluster
    base = tuple(rows) if decision == ARTIFACT else None  # members stay as they are when the run is quantified again
    log = DecisionLog(store.path)
    log.append(Change(subject.target, subject.name, decision, artifact, note, base), author)
    return log.decisions()[subject.target]
