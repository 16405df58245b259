"""One class over a whole corpus: which images make the model think of it, and is what they share the cause?

Clusters of a run with a fixed target -> the one whose images' parts raise the class most, put on images that the model
takes least for it -> what that does to all outputs. Whatever is searched for is found a little: what the model takes
for a class raises it. So every output is searched for in the same way, and the effect counts by its rank among theirs.
There are no other classes to compare with, so nothing is said of how strange the images are: people look at them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from klarsicht.audit.data.groups import Group
from klarsicht.audit.models.classifier import Classifier
from klarsicht.audit.pipeline import Audit
from klarsicht.audit.quantify import quantification
from klarsicht.audit.report import page
from klarsicht.audit.results import ranking
from klarsicht.audit.results.ranking import Entry
from klarsicht.audit.results.specificity import Specificity
from klarsicht.audit.results.verdicts import LEVEL
from klarsicht.ground.errors import StoreError, UsageError
from klarsicht.ground.store import RunStore

FILE = "screening.json"
FOLLOWS = "followed: put on other images, it raises this class more than what is found for other outputs raises them"
QUIET = "no use shown"


@dataclass(frozen=True)
class Screening:
    """The cluster that makes the model think of a class.

    Attributes:
        entry: the cluster and its effect.
        labels: (label, members that carry it), most frequent first.
        outputs: of the model.
        level: of p, for the claim.
        standing: of the class among the outputs; None in a run that an earlier version screened.
        p: rank of the class's effect among those found for all outputs alike, (rank + 1) / outputs; of an earlier
            version, its rank among the outputs that its own cluster raises.
    """

    entry: Entry
    labels: tuple[tuple[str, int], ...]
    outputs: int
    level: float
    standing: Specificity | None = None

    @property
    def p(self) -> float:
        rank = self.entry.effect_rank if self.standing is None else self.standing.ahead
        assert rank is not None
        return (rank + 1) / self.outputs

    @property
    def follows(self) -> bool:
        return self.p <= self.level and (self.entry.effect_low or 0) > 0

    @property
    def verdict(self) -> str:
        return FOLLOWS if self.follows else QUIET

    def to_json(self) -> dict[str, Any]:
        told = asdict(self) | {"entry": self.entry.to_json(), "p": self.p, "verdict": self.verdict}
        return told | {"labels": [list(pair) for pair in self.labels]}


def screens(run: str | Path) -> bool:
    """Whether a run looks at the whole corpus for one class or for all of them."""
    return RunStore.open(run).manifest["settings"]["target"] not in ("label", "predicted")


def screen(
    run: str | Path, *, level: float = LEVEL, workers: int = 1, data: str | None = None,
    classifier: Classifier | None = None,
) -> Screening:  # fmt: skip
    """Which cluster of a screened corpus the model follows; written as JSON, and into ranking and page.

    Args: as those of quantification.quantify.

    Raises:
        UsageError: a run for every class at once, or without maps.
        StoreError: no cluster could be tried.
        RunMismatch: the model or the data are not those of the run any more.
    """
    with quantification.opened(
        run, level=level, workers=workers, data=data, classifier=classifier, grouped=one_class
    ) as (audit, work):
        store = work.store
        quantification.follow(audit, work, workers)
        found = read(store, level)
        store.write_json(FILE, found.to_json())
        store.write_table("ranking", ranking.read_ranking(store).to_table())
        page.write_report(store)
    return found


def one_class(audit: Audit, store: RunStore) -> tuple[Group, ...]:
    """The whole corpus, as one group."""
    if audit.settings.target in ("label", "predicted", "all") or not store.has_array("maps"):
        raise UsageError(
            "nothing to put on other images",
            got=f"target {audit.settings.target}, method {audit.settings.method}",
            rule="a screening for one class, by a method that makes relevance maps",
            remedy="Audit with --target CLASS and a --method that makes maps.",
        )
    return quantification.groups_of(audit, store)


def read(store: RunStore, level: float = LEVEL) -> Screening:
    """The screening of a run whose clusters were tried.

    Raises:
        StoreError: they were not, or there was none.
    """
    entries = [entry for entry in ranking.read_ranking(store) if entry.effect is not None]
    if not entries:
        raise StoreError(
            "no cluster could be tried",
            got=f"{store.table('corpus').num_rows} images",
            rule="a cluster with two members in either half of the corpus, and ten images to put its parts on",
        )
    labels = store.table("corpus")["label"].to_pylist()
    counted = Counter(labels[row] for row in entries[0].rows).most_common()
    (line,) = (line for line in store.table(ranking.FOLLOWED).to_pylist() if line["target"] == entries[0].target)
    outputs = store.array("logits").shape[1]
    return Screening(entries[0], tuple(counted), outputs, level, Specificity.from_line(line))
