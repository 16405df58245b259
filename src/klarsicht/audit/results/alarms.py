"""Alarms of a run: what a pipeline should stop for, by cause, with the images; and two runs compared by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from klarsicht.audit.results import sufficiency, surroundings, verdicts
from klarsicht.audit.results.correction_words import CleaningKind
from klarsicht.audit.results.questions import COPIES_FILE, UNSURE_COPY
from klarsicht.audit.results.words import VerdictKind
from klarsicht.ground.errors import InputError, unknown_name
from klarsicht.ground.run_folder.decisions import DecisionLog
from klarsicht.ground.run_folder.store import RunStore

CERTIFICATE_FILE, CERTIFICATE_PAGE = "certificate/certificate.json", "certificate/certificate.html"  # in a run
SAME_IMAGES = 0.5  # least Jaccard index of the images of one alarm in two runs
USED: Final = (VerdictKind.POISONED, VerdictKind.CONTEXT, VerdictKind.ACTS, VerdictKind.SHARED_AND_USED)
UNUSED: Final = (VerdictKind.PRESENT, VerdictKind.UNTESTED, VerdictKind.SHARED)


@dataclass(frozen=True)
class Alarm:
    """Finding that a pipeline should stop for.

    Attributes:
        cause: a name of CAUSES.
        subject: the class, or the images that are copies.
        message: the finding in sentences.
        images: names of the images that show it, relative to the corpus.
        accepted_by: who decided that it is legitimate; "" where nobody did.
    """

    cause: str
    subject: str
    message: str
    images: tuple[str, ...] = ()
    accepted_by: str = ""

    def is_same(self, other: Alarm) -> bool:
        """Test whether another run raises this alarm, too: for the same cause and subject, and of at least SAME_IMAGES
        of the images of both where both name some."""
        if (self.cause, self.subject) != (other.cause, other.subject):
            return False
        mine, others = {*self.images}, {*other.images}
        return not (mine and others) or len(mine & others) >= SAME_IMAGES * len(mine | others)


@dataclass(frozen=True)
class Cause:
    """Cause of alarms: its exit code, what it says, the command that asks, whether it was asked of a run, and the
    alarms of a run."""

    exit_code: int
    text: str
    command: str
    was_asked: Callable[[RunStore], bool]
    read: Callable[[RunStore], Iterator[Alarm]]


def read_used_artifacts(store: RunStore) -> Iterator[Alarm]:
    """Yield the artifacts, fine textures of whole classes and surroundings that the model relies on."""
    yield from _read_artifacts(store, "relies", (*USED, VerdictKind.TEXTURE))
    if surroundings.is_examined(store):
        for one in surroundings.read_surroundings(store).classes:
            if one.relies:
                yield Alarm("relies", one.name, one.describe())


def read_unused_artifacts(store: RunStore) -> Iterator[Alarm]:
    """Yield the artifacts that some images of a class share, and whose use was not shown."""
    yield from _read_artifacts(store, "artifact", UNUSED)


def _read_artifacts(store: RunStore, cause: str, kinds: Sequence[VerdictKind]) -> Iterator[Alarm]:
    keys, decisions = store.texts("corpus", "key"), DecisionLog(store.path).decisions()
    for line in verdicts.read_verdicts(store).lines:
        if line.verdict.kind in kinds:
            decision = decisions.get(line.verdict.target)
            author = decision.author if decision is not None and decision.is_legitimate else ""
            rows = line.verdict.rows if line.verdict.has_group else ()
            yield Alarm(cause, line.name, line.headline, tuple(keys[row] for row in rows), author)


def read_shortcuts(store: RunStore) -> Iterator[Alarm]:
    """Yield the parts, framings and file properties by which a class is recognised."""
    profiles = sufficiency.read_sufficiency(store)
    for line in profiles.headlines:
        yield Alarm("shortcut", line.profile.name, line.headline)


def read_copies(store: RunStore, cause: str) -> Iterator[Alarm]:
    """Yield groups of copies across splits (`leak`) or labels (`label`)."""
    where = {"leak": "splits", "label": "labels"}[cause]
    for group in store.read_json(COPIES_FILE)["groups"]:
        if group[f"crosses_{where}"] and group["kind"] != UNSURE_COPY:
            keys = tuple(group["keys"])
            among = ", ".join(sorted({*group[where]}))
            message = f"{len(keys)} images are copies of one another and lie in several {where}: {among}."
            yield Alarm(cause, keys[0], message, keys)


def read_harm(store: RunStore) -> Iterator[Alarm]:
    """Yield corrections whose verdict by `audit evaluate` is that they cost more accuracy than their bounds allow."""
    record = store.read_json(CERTIFICATE_FILE)
    for row in record["corrections"]:
        for kind, words in zip(row["kinds"], row["verdicts"], strict=True):
            if kind == CleaningKind.HARMFUL:
                yield Alarm("harm", record["class"], f"The correction {row['name']} is {words}.")


def _reads_copies(cause: str) -> Callable[[RunStore], Iterator[Alarm]]:
    return lambda store: read_copies(store, cause)


def _has(file: str) -> Callable[[RunStore], bool]:
    return lambda store: store.has_file(file)


CAUSES: Final = {
    "relies": Cause(20, "the model relies on it", "audit quantify", verdicts.is_quantified, read_used_artifacts),
    "artifact": Cause(
        21, "an artifact, use not shown", "audit quantify", verdicts.is_quantified, read_unused_artifacts
    ),
    "shortcut": Cause(22, "a part is enough", "audit shortcuts", sufficiency.is_measured, read_shortcuts),
    "leak": Cause(23, "copies across splits", "audit duplicates", _has(COPIES_FILE), _reads_copies("leak")),
    "label": Cause(24, "copies across labels", "audit duplicates", _has(COPIES_FILE), _reads_copies("label")),
    "harm": Cause(
        25, "a correction costs too much", "audit evaluate --correction FOLDER", _has(CERTIFICATE_FILE), read_harm
    ),
}
"""Causes of alarms, the gravest first."""


def read_alarms(store: RunStore, causes: Sequence[str]) -> tuple[Alarm, ...]:
    """Read the alarms of a run for some causes, in the order of CAUSES.

    Raises:
        UsageError: an unknown cause.
        InputError: the run was not asked for one, or there is none: what was not tested must not pass.
    """
    if not causes:
        remedy = f"Run `klarsicht audit quantify {store.path}` first, or another command that finds alarms."
        raise InputError(
            "the run was asked for nothing", got=store.path, rule="not tested is not passed", remedy=remedy
        )
    for name in causes:
        if name not in CAUSES:
            raise unknown_name("cause", name, CAUSES)
    alarms: list[Alarm] = []
    for name, cause in CAUSES.items():
        if name in causes:
            if not cause.was_asked(store):
                raise InputError(
                    f"the run was not asked for the cause {name}", got=store.path, rule="not tested is not passed",
                    remedy=f"Run `klarsicht {cause.command} {store.path}` first, or leave {name} out of --fail-on.",
                )  # fmt: skip
            alarms.extend(cause.read(store))
    return tuple(alarms)


def asked_causes(store: RunStore) -> tuple[str, ...]:
    """List the causes that a run was asked for."""
    return tuple(name for name, cause in CAUSES.items() if cause.was_asked(store))


@dataclass(frozen=True)
class RunComparison:
    """Alarms of two runs, of two models or two versions of data: those of the second alone, of the first alone, and of
    both, as the second says them; and the causes that both runs were asked for."""

    new: tuple[Alarm, ...]
    gone: tuple[Alarm, ...]
    same: tuple[Alarm, ...]
    causes: tuple[str, ...]

    def describe(self) -> str:
        """Count them in a sentence."""
        return (
            f"{len(self.new)} new, {len(self.gone)} gone, {len(self.same)} the same; asked: {', '.join(self.causes)}."
        )

    def to_json(self) -> dict[str, Any]:
        lists = {state: [asdict(one) for one in alarms] for state, alarms in self.by_state().items()}
        return {"causes": list(self.causes), **lists}

    def by_state(self) -> dict[str, tuple[Alarm, ...]]:
        """Return the alarms by their state, new ones first."""
        return {"new": self.new, "gone": self.gone, "same": self.same}


def compare_runs(before: RunStore, after: RunStore, causes: Sequence[str] = ()) -> RunComparison:
    """Compare the alarms of two runs for some causes, by default all that both were asked for. Raises as
    `read_alarms`, and InputError where no cause is common to both."""
    common = tuple(causes) or tuple(name for name in asked_causes(before) if name in asked_causes(after))
    if not common:
        got, remedy = f"{before.path} and {after.path}", "Give both the same commands, such as `audit quantify`."
        raise InputError("the runs have no finding in common to compare", got=got, remedy=remedy)
    old, new = list(read_alarms(before, common)), read_alarms(after, common)
    same, fresh = [], []
    for alarm in new:
        match = next((one for one in old if one.is_same(alarm)), None)
        if match is None:
            fresh.append(alarm)
        else:
            same.append(alarm)
            old.remove(match)
    return RunComparison(tuple(fresh), tuple(old), tuple(same), common)
