"""Screen a whole corpus for one class: find the cluster that raises the class, and test whether its shared content is
the cause.

A search always finds some effect, since content that the model assigns to a class raises it. Every output is therefore
searched in the same way, and the effect counts by its rank among theirs. There are no other classes to compare with;
whether the images are unusual is left to a person.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from klarsicht.audit.explanation.data.groups import Group
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.report import page
from klarsicht.audit.explanation.settings import ANY_DEVICE, LOCAL_ENGINE
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.results import ranking
from klarsicht.audit.results.ranking import ClusterEffect, Entry
from klarsicht.audit.results.resolution import describe_least_p
from klarsicht.audit.results.rows import FollowedRow
from klarsicht.audit.results.significance import LEVEL, rank_among_outputs
from klarsicht.audit.results.specificity import Specificity
from klarsicht.audit.results.words import SCREENED_FOLLOWED, SCREENED_NOTHING
from klarsicht.audit.verdicts.quantification import opened_runs, quantification
from klarsicht.ground.errors import StoreError, UsageError
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments


@dataclass(frozen=True)
class Screening:
    """Cluster that raises the logit of a class, and its effect.

    Attributes:
        labels: (label, members that carry it), most frequent first.
        outputs: number of outputs of the model.
        level: of p, for the claim.
        standing: comparison of the class with the other outputs.
    """

    entry: Entry
    labels: tuple[tuple[str, int], ...]
    outputs: int
    level: float
    standing: Specificity

    @property
    def effect(self) -> ClusterEffect:
        assert self.entry.effect is not None
        return self.entry.effect

    @property
    def p(self) -> float:
        """Rank of the class's effect among those found for all outputs alike, (rank + 1) / outputs."""
        return float(rank_among_outputs(self.standing.ahead, self.outputs))

    @property
    def follows(self) -> bool:
        """Whether the model follows the cluster, at the level."""
        return self.p <= self.level and self.effect.low > 0

    @property
    def verdict(self) -> str:
        return SCREENED_FOLLOWED if self.follows else SCREENED_NOTHING

    @property
    def limits(self) -> str:
        """Say that so few outputs have no rank at the level; empty where they have."""
        return describe_least_p(
            1 / self.outputs, self.level, "no cluster is called followed",
            f"It is the rank among the model's {self.outputs} outputs: raise --level to that, or look at the effect.",
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return the content of screening.json."""
        told = asdict(self) | {"entry": self.entry.to_json(), "p": self.p, "verdict": self.verdict}
        told |= {"limits": self.limits}
        return told | {"labels": [list(pair) for pair in self.labels]}


def is_screening(run: str | Path) -> bool:
    """Say whether a run screens the whole corpus, for one class or for all of them."""
    return RunStore.open(run).manifest["settings"]["target"] not in ("label", "predicted")


@check_arguments
def screen(
    run: str | Path | RunStore, *, level: float = LEVEL, workers: int = 1, data: Any = None,
    classifier: Classifier | None = None, shard: str | None = None, device: str = ANY_DEVICE,
    engine: str = LOCAL_ENGINE,
) -> Screening:  # fmt: skip
    """Find the cluster of a screened corpus that the model follows; write it as JSON, and into ranking and report.

    Args:
        level: of p, below which the cluster is called followed.
        run, workers, data, classifier, shard, device, engine: see quantification.quantify.

    Raises:
        UsageError: a run for every class at once, or without maps, or a level out of range.
        StoreError: no cluster could be tried.
        RunMismatch: model or data differ from those of the run.
    """
    with opened_runs.open_run(
        run, level=level, workers=workers, data=data, classifier=classifier, grouped=whole_corpus_group, shard=shard,
        device=device, engine=engine,
    ) as (audit, work):  # fmt: skip
        store = work.store
        quantification.announce(work)
        quantification.find_followed_clusters(audit, work, workers)
        found = read_screening(store, level)
        audit.sharing.once(f"screened.{level}", lambda: write_screening(store, found))
    return found


def write_screening(store: RunStore, screening: Screening) -> None:
    """Write a screening as JSON, and into ranking and report."""
    store.write_json(ranking.SCREENING_FILE, screening.to_json())
    store.write_table("ranking", ranking.read_ranking(store).to_table())
    page.write_report(store)


def whole_corpus_group(audit: Audit, store: RunStore) -> tuple[Group, ...]:
    """Return the whole corpus as one group; raises UsageError for a run for every class at once, or without maps."""
    if audit.settings.target in ("label", "predicted", "all") or not store.has_array("maps"):
        raise UsageError(
            "nothing to insert into other images",
            got=f"target {audit.settings.target}, method {audit.settings.method}",
            rule="a screening for one class, by a method that makes relevance maps",
            remedy="Audit with --target CLASS and a --method that makes maps.",
        )
    return opened_runs.usable_groups(audit, store)


def read_screening(store: RunStore, level: float = LEVEL) -> Screening:
    """Read the screening of a run; raises StoreError where no cluster was tried."""
    entries = [entry for entry in ranking.read_ranking(store) if entry.effect is not None]
    if not entries:
        raise StoreError(
            "no cluster could be tried",
            got=f"{store.table('corpus').num_rows} images",
            rule="a cluster with two members in either half of the corpus, and ten images to put its parts on",
        )
    labels = store.table("corpus")["label"].to_pylist()
    counted = Counter(labels[row] for row in entries[0].rows).most_common()
    rows: list[FollowedRow] = store.table(ranking.FOLLOWED).to_pylist()
    (row,) = (row for row in rows if row["target"] == entries[0].target)
    outputs = store.array("logits").shape[1]
    return Screening(entries[0], tuple(counted), outputs, level, Specificity.from_row(row))
