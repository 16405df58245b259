"""Names of artifacts and clusters that a model of pictures and texts guesses, with scores: they stand beside verdicts,
and no verdict reads them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

from klarsicht.audit.results import ranking, verdicts
from klarsicht.ground.run_folder.store import RunStore

NAMES_FILE: Final = "names.json"
SUSPECT_CLUSTER: Final = 0  # number of the suspect cluster of a class; artifacts count from 1


@dataclass(frozen=True)
class NameGuess:
    """Word, and its mean score in [0, 1] on images of a group and on other images of the class."""

    word: str
    score: float
    others: float

    def describe(self) -> str:
        return f"{self.word} {self.score:.2f} ({self.others:.2f})"


@dataclass(frozen=True)
class ImageGroup:
    """Images of a class that share an artifact, with its number, or that are its suspect cluster; `rows` of the run."""

    target: int
    name: str
    number: int
    rows: tuple[int, ...]

    @property
    def label(self) -> str:
        return "the suspect cluster" if self.number == SUSPECT_CLUSTER else f"artifact {self.number}"


@dataclass(frozen=True)
class GroupName:
    """Words that fit the images of a group better than other images of its class, the best first."""

    group: ImageGroup
    guesses: tuple[NameGuess, ...]
    model: str

    @property
    def words(self) -> str:
        """List the words with their scores."""
        return ", ".join(guess.describe() for guess in self.guesses) or "no word fits it better than other images"

    def describe(self) -> str:
        """Say the words in a sentence that says what they are."""
        return f"A guess of {self.model} for {self.group.label}, no finding: {self.words}."

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> GroupName:
        group = record["group"]
        known = ImageGroup(group["target"], group["name"], group["number"], tuple(group["rows"]))
        return cls(known, tuple(NameGuess(**one) for one in record["guesses"]), record["model"])


def list_groups(store: RunStore) -> list[ImageGroup]:
    """List the artifacts of a run that a person should look at, and the suspect cluster of each class."""
    groups = []
    if verdicts.is_quantified(store):
        lines = [line for line in verdicts.read_verdicts(store).lines if line.verdict.has_group]
        groups = [ImageGroup(one.verdict.target, one.verdict.name, one.number, one.verdict.rows) for one in lines]
    clusters = ranking.read_ranking(store, observed=True)
    return groups + [ImageGroup(one.target, one.name, SUSPECT_CLUSTER, tuple(one.rows)) for one in clusters if one.rows]


def read_names(store: RunStore) -> tuple[GroupName, ...]:
    """Read the names of groups whose images are still those that were named; none where nothing was named."""
    if not store.has_file(NAMES_FILE):
        return ()
    with store.translate_parse_errors(NAMES_FILE):
        names = [GroupName.from_json(record) for record in store.read_json(NAMES_FILE)["groups"]]
    groups = {*list_groups(store)}
    return tuple(one for one in names if one.group in groups)
