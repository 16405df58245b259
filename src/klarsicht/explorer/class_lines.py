"""Lines of the list of classes: verdict, p, effect, prevalence and first images, from the result files of a run.

The files of a run are read as they lie, without the modules that wrote them: those import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from klarsicht.ground.run_folder.store import RunStore

RANKING_FILE, VERDICTS_FILE, FOLLOWED_TABLE = "ranking.json", "quantification.json", "followed"
POISONED, PRESENT, UNTESTED, SHARED, FOLLOWED, RAISES, NOTHING, SKIPPED, OBSERVED = LINE_KINDS = (
    "poisoned", "present", "untested", "shared", "followed", "raises", "nothing", "skipped", "observed",
)  # fmt: skip
"""Kinds of lines, the most urgent first; OBSERVED: of a run that has not been ranked yet."""
DETECTED_KINDS = (POISONED, PRESENT, UNTESTED)  # in which a detector found an artifact that other classes do not share
DRAWN_FIRST = 8  # members of a class whose thumbnails stand in its line, where the window is wide; three elsewhere


@dataclass(frozen=True)
class ClassLine:
    """One class in the list.

    Attributes:
        target, name: the class.
        kind: one of LINE_KINDS.
        verdict: the same in words, with those on further artifacts of the class.
        p: p-value of the detection; None before `audit quantify`.
        shift, low, high: effect on the class's logit of what was put on images of other classes, and its 95 % interval;
            None where nothing was put on.
        n, size: images of the class, and members of what was found in it.
        z, tau: of the cluster; None where the class was not ranked.
        metric, sign: under which metric the cluster was found, and by which detector; empty without.
        cluster, detected: rows of the run that are members of the cluster, and of the detection.
        by_detector: whether the found members are those of the detection.
        resembles: families of artifacts that the detected one is like; empty where none or not asked.
        further: rows of the members of each further artifact of the class.
    """

    target: int
    name: str
    kind: str
    verdict: str
    p: float | None = None
    shift: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    size: int = 0
    z: float | None = None
    tau: float | None = None
    metric: str = ""
    sign: str = ""
    cluster: tuple[int, ...] = ()
    detected: tuple[int, ...] = ()
    by_detector: bool = False
    resembles: tuple[str, ...] = ()
    further: tuple[tuple[int, ...], ...] = ()

    @property
    def found(self) -> tuple[int, ...]:
        """Rows of the members that the audit names: of the detection where there is one, else of the cluster."""
        return self.detected if self.by_detector else self.cluster

    def to_json(self) -> dict[str, Any]:
        """Return the figures, and the rows of the first members; the other rows are read with the class."""
        rows = ("cluster", "detected", "further")
        content = {name: value for name, value in asdict(self).items() if name not in rows}
        return content | {
            "prevalence": self.size / self.n if self.n else None,
            "first": list(self.found[:DRAWN_FIRST]),
        }


def read_class_lines(store: RunStore) -> list[ClassLine]:
    """Read the lines of all classes of a run, most urgent first; without a ranking, those analysed so far.

    Raises:
        RunDamaged: a file is missing or altered.
    """
    if not store.has_file(RANKING_FILE):
        return _observed_lines(store)
    with store.translate_parse_errors(RANKING_FILE):
        lines = {line.target: line for line in map(_ranked_line, store.read_json(RANKING_FILE))}
    if store.has_table(FOLLOWED_TABLE):
        with store.translate_parse_errors(FOLLOWED_TABLE):
            for record in store.table(FOLLOWED_TABLE).to_pylist():
                if record["target"] in lines:
                    lines[record["target"]] = _with_followed(lines[record["target"]], record)
    if store.has_file(VERDICTS_FILE):
        content = store.read_json(VERDICTS_FILE)
        with store.translate_parse_errors(VERDICTS_FILE):
            for record in content["classes"]:
                known = lines.get(record["target"], ClassLine(record["target"], record["class"], NOTHING, ""))
                lines[record["target"]] = _with_verdict(known, record)
            lines |= _skipped_lines(store, content["skipped"], lines)
    return sorted(lines.values(), key=_sort_key)


def _ranked_line(record: Mapping[str, Any]) -> ClassLine:
    words = str(record.get("verdict", ""))
    rows = tuple(map(int, record["rows"]))
    return ClassLine(
        target=int(record["target"]),
        name=str(record["class"]),
        kind=RAISES if words.startswith("raises") else NOTHING,
        verdict=words,
        n=int(record["n"]),
        size=len(rows),
        z=_number(record["z"]),
        tau=_number(record["tau"]),
        metric=str(record["metric"]),
        cluster=rows,
    )


def _with_followed(line: ClassLine, record: Mapping[str, Any]) -> ClassLine:
    """Put the cluster that the model follows in place of the line's own, with its effect on images of other classes."""
    rows = tuple(map(int, record["rows"]))
    return replace(
        line,
        cluster=rows,
        size=len(rows),
        n=int(record["n"]),
        metric=str(record["metric"]),
        z=_number(record["z"]),
        tau=_number(record["tau"]),
        shift=_number(record.get("effect")),
        low=_number(record.get("low")),
        high=_number(record.get("high")),
    )


def _with_verdict(line: ClassLine, record: Mapping[str, Any]) -> ClassLine:
    """Add the verdict of the quantification, which replaces what the ranking says of the cluster; z and tau stay."""
    kind, by_detector = _kind(record)
    detected_rows = tuple(map(int, record["rows"])) if by_detector else ()
    is_tried = bool(record.get("tried"))
    if kind == FOLLOWED:
        line = replace(line, cluster=tuple(map(int, record["rows"])))
    return replace(
        line,
        kind=kind,
        verdict="; ".join([str(record["verdict"]), *_describe_further(record)]),
        p=_number(record.get("p_decisive", max(record["extended"], record.get("p_own", 0.0)))),
        shift=_number(record["shift"]) if is_tried else line.shift,
        low=_number(record["low"]) if is_tried else line.low,
        high=_number(record["high"]) if is_tried else line.high,
        n=int(record["n"]),
        size=len(detected_rows) if by_detector else len(line.cluster),
        sign=str(record["sign"]),
        detected=detected_rows,
        by_detector=by_detector,
        resembles=tuple(map(str, record.get("resembles") or ())),
        further=tuple(tuple(map(int, one["rows"])) for one in record.get("further") or ()),
    )


def _describe_further(record: Mapping[str, Any]) -> list[str]:
    """Say of each further artifact of a class its detection, its members and its verdict."""
    return [
        f"artifact {i}: {one['sign']}, {one['size']} images, {one['verdict']}"
        for i, one in enumerate(record.get("further") or (), 2)
    ]


def _kind(record: Mapping[str, Any]) -> tuple[str, bool]:
    """Return the kind of a verdict, and whether its members are those of a detector; a class of which the model uses a
    further artifact is poisoned, too."""
    if record.get("shared"):
        return SHARED, True
    if record["artifactual"]:
        used = any(one["poisoned"] for one in (record, *(record.get("further") or ())))
        return (POISONED if used else PRESENT if record.get("tested", True) else UNTESTED), True
    return (FOLLOWED if record.get("followed") else NOTHING), False


def _skipped_lines(
    store: RunStore, rows: Iterable[tuple[str, str]], lines: Mapping[int, ClassLine]
) -> dict[int, ClassLine]:
    """Make lines of the classes that were not examined and have none yet."""
    number = {name: target for target, name in enumerate(store.manifest.get("names", ()))}
    given = {number[name]: (name, why) for name, why in rows if name in number and number[name] not in lines}
    return {target: ClassLine(target, name, SKIPPED, f"not examined: {why}") for target, (name, why) in given.items()}


def _observed_lines(store: RunStore) -> list[ClassLine]:
    """Make lines of the classes analysed so far: of each the cluster of largest z under any metric of the run."""
    best: dict[int, ClassLine] = {}
    for metric in store.manifest["settings"].get("metric", ()):
        name = f"suspects-{metric}"
        records = store.table(name).to_pylist() if store.has_table(name) else []
        with store.translate_parse_errors(name):
            for record in records:
                words = record["skipped"] or "observed, not ranked yet"
                line = replace(_ranked_line(record), kind=OBSERVED, verdict=words)
                if line.target not in best or (line.z or 0) > (best[line.target].z or 0):
                    best[line.target] = line
    return sorted(best.values(), key=_sort_key)


def _sort_key(line: ClassLine) -> tuple[int, float, float, int]:
    p = 1.0 if line.p is None else line.p
    return LINE_KINDS.index(line.kind), p, -(line.z or 0.0), line.target


def _number(value: Any) -> float | None:
    """Return a finite number, or None: JSON has no others."""
    return float(value) if isinstance(value, int | float) and abs(value) < float("inf") else None
