"""Groups of images that detectors saw and no verdict names: seen, not called."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from klarsicht.audit.results.class_verdict import Verdict
from klarsicht.audit.results.detection_rows import describe_places, read_detections
from klarsicht.audit.results.rows import SignRow
from klarsicht.audit.results.significance import SAME, class_strategy
from klarsicht.audit.results.verdicts import Quantification, require_quantified
from klarsicht.audit.results.words import describe_effect, describe_seen, format_count, format_p, join_words
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.split_half import combined_p

SEEN_FILE = "seen.json"
MOST_SEEN: Final = 5  # groups of a class
MOST_CARRIERS: Final = 0.5  # share of a group's images that a verdict names; more are its artifact once more
NOT_TESTED: Final = (
    "Unless a line says so, whether the model uses what these images share was not tested. Not tested is not the same "
    "as not used: look at the images."
)

ONLY_YOU: Final = "Only you can say whether what they share belongs to the class: look at the images."


@dataclass(frozen=True)
class SeenGroup:
    """Group of images of a class that a detector saw, and no verdict names.

    Attributes:
        name: the class; JSON calls it `class`.
        target: its output of the model.
        n: images of it that were examined.
        sign: the detection that saw the group.
        p: of its score by chance within the class, corrected for all detections of the class.
        place: of what they share, see `detection_rows.describe_places`; empty without one.
        why: why no verdict names the group.
        effect: what it does to the class on images of other classes, where it was put on them all the same; else empty.
        rows, members: its images, as rows of the run and paths.
        use: what the places that set its images apart do to the class on images of other classes, in words; empty
            where it was not measured.
        is_used: whether that shows that the model uses it.
    """

    name: str
    target: int
    n: int
    sign: str
    p: float
    place: str
    why: str
    effect: str
    rows: tuple[int, ...]
    members: tuple[str, ...]
    use: str = ""
    is_used: bool = False

    @property
    def headline(self) -> str:
        """The group in a sentence."""
        where = self.place and f", {self.place}"
        images = f"{len(self.rows):,} of {format_count(self.n, 'image')} of {self.name}"
        sentence = f"{images} share {describe_seen(self.sign)}{where} (p {format_p(self.p)} within the class)."
        tried = f" Inserted into images of other classes, {self.effect}, which proves nothing." if self.effect else ""
        measured = f" {self.use[0].upper()}{self.use[1:]}." if self.use else ""
        return sentence + tried + measured

    def to_json(self) -> dict[str, Any]:
        flat = asdict(self)
        return {"class": flat.pop("name"), **flat}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> SeenGroup:
        """Read a record of `to_json`."""
        lists = {name: tuple(record[name]) for name in ("rows", "members")}
        known: dict[str, Any] = {"use": "", "is_used": False, **record, "name": record["class"], **lists}
        return cls(**{field: known[field] for field in cls.__dataclass_fields__})


def describe_seen_groups(groups: Sequence[SeenGroup]) -> str:
    """Say how many groups were seen, of which classes, and whether the model uses what they share."""
    names, uses = join_words(tuple(dict.fromkeys(group.name for group in groups))), sum(one.is_used for one in groups)
    whom = "it" if len(groups) == 1 else "them" if uses == len(groups) else f"{uses} of them"
    use = f"The model uses {whom}" if uses else describe_unused(groups)
    verb = "shares" if len(groups) == 1 else "share"
    count = f"{format_count(len(groups), 'group')} of images of {names}"
    return f"{count} {verb} something that no verdict names. {use}: look at the images."


def describe_unused(groups: Sequence[SeenGroup]) -> str:
    """Say of groups that the model is not shown to use how many of them were tested."""
    count = sum(bool(group.use) for group in groups)
    if not count:
        return "Nothing shows whether the model uses it"
    whom = "it" if len(groups) == 1 else "any of them" if count == len(groups) else f"any of the {count} tested"
    return f"The model is not shown to use {whom}"


def list_seen_groups(store: RunStore, found: Quantification) -> tuple[SeenGroup, ...]:
    """List the groups that detectors saw in the classes of a quantified run and no verdict names, by class: those whose
    score chance within the class gives with a p of at most the level, at most MOST_SEEN of a class. Groups that share a
    patch come first, then those of the largest score; of groups of the same images one is listed, and none of which
    verdicts name most images."""
    detections, paths = read_detections(store, found), store.texts("corpus", "path")
    why = (
        "other classes of the run have groups as strong"
        if class_strategy(len(found)).compares_classes
        else "the run has too few classes to show whether it is part of the class"
    )
    return tuple(
        replace(group, members=tuple(paths[row] for row in group.rows))
        for verdict in found
        for group in _seen_in_class(verdict, detections.get((verdict.target, 1), ()), found.level, why)
    )


def _seen_in_class(verdict: Verdict, signs: Sequence[SignRow], level: float, why: str) -> Iterable[SeenGroup]:
    """Yield the groups that were seen in a class, without paths."""
    groups = [set(one.rows) for one in verdict.artifacts if one.has_group]
    carriers, count = set().union(*groups), 0
    for sign in sorted(signs, key=lambda sign: (not sign["places"], -sign["score"])):
        rows, p = set(sign["rows"]), float(combined_p(sign["score"], len(signs)))
        if p > level or len(rows) < 2 or len(rows & carriers) > MOST_CARRIERS * len(rows) or count == MOST_SEEN:
            continue
        if any(len(rows & other) >= SAME * len(rows | other) for other in groups):
            continue
        groups.append(rows)
        count += 1
        use, effect = verdict.use, ""
        if use.tried == sign["sign"]:
            effect = describe_effect(use.shift, use.flips, use.flips_control, verdict.name)
        yield SeenGroup(
            verdict.name, verdict.target, verdict.n, sign["sign"], p, describe_places(sign), why, effect,
            tuple(sorted(rows)), (),
        )  # fmt: skip


def write_seen_groups(store: RunStore, groups: Sequence[SeenGroup]) -> None:
    """Write the groups of a run as one record."""
    store.write_json(SEEN_FILE, {"told": NOT_TESTED, "groups": [group.to_json() for group in groups]})


@check_arguments
def read_seen_groups(run: str | Path | RunStore) -> tuple[SeenGroup, ...]:
    """Read the groups of a quantified run that detectors saw and no verdict names, by class.

    Raises:
        StoreError: the run has not been quantified; `klarsicht audit quantify` does so.
        RunDamaged: they are altered.
    """
    store = RunStore.open(run)
    require_quantified(store)
    return load_seen_groups(store)


def load_seen_groups(store: RunStore) -> tuple[SeenGroup, ...]:
    """Read the groups of a run; none where it was not quantified.

    Raises:
        RunDamaged: they are altered.
    """
    if not store.has_file(SEEN_FILE):
        return ()
    with store.translate_parse_errors(SEEN_FILE):
        return tuple(map(SeenGroup.from_json, store.read_json(SEEN_FILE)["groups"]))
