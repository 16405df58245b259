"""Evidence on a class beside its verdict: groups that detectors saw and no verdict names, and what the class can be
recognised by."""

from __future__ import annotations

from typing import Any

from klarsicht.audit.results.group_names import NAMES_FILE, read_names
from klarsicht.audit.results.ranking import FILE as RANKING_FILE
from klarsicht.audit.results.seen_groups import SEEN_FILE, SeenGroup, load_seen_groups
from klarsicht.audit.results.sufficiency import (
    PART_COLUMNS,
    SUFFICIENCY_FILE,
    is_measured,
    read_sufficiency,
)
from klarsicht.audit.results.verdicts import VERDICTS_FILE
from klarsicht.audit.results.words import describe_detector
from klarsicht.explorer.run_reader import RunReader


def seen_in_class(reader: RunReader, target: int) -> tuple[SeenGroup, ...]:
    """Return the groups of a class that detectors saw and no verdict names."""
    groups = reader.keep("seen", reader.stamp(SEEN_FILE), lambda: load_seen_groups(reader.store))
    return tuple(group for group in groups if group.target == target)


def guess_names(reader: RunReader, target: int) -> list[str]:
    """Return what a model of pictures and texts guessed of the artifacts and the cluster of a class, in sentences."""
    stamp = reader.stamp(NAMES_FILE, VERDICTS_FILE, RANKING_FILE)
    names = reader.keep("names", stamp, lambda: read_names(reader.store))
    return [name.describe() for name in names if name.group.target == target]


def name_seen(group: SeenGroup) -> str:
    """Name a group in the tables of exports."""
    return f"seen, {'used' if group.is_used else 'not called'}: {describe_detector(group.sign)}"


def describe_shortcuts(reader: RunReader, target: int) -> dict[str, Any] | None:
    """Describe the parts by which a class can be recognised: headlines, headings and rows of its table, those that
    matter first, and the limits; None where this was not measured."""
    if not is_measured(reader.store):
        return None
    profiles = reader.keep("shortcuts", reader.stamp(SUFFICIENCY_FILE), lambda: read_sufficiency(reader.store))
    profile = next((one for one in profiles if one.target == target), None)
    if profile is None:
        return None
    columns = [column for name, column in PART_COLUMNS.items() if name != "class"]
    headlines = [line.headline for line in profiles.headlines if line.profile.target == target]
    return {
        "headlines": headlines or [line.headline for line in profile.lines if line.evidence.noted][:1],
        "headings": [column.heading for column in columns],
        "rows": [[column.text(line) for column in columns] for line in profile.lines],
        "limits": profiles.limits,
    }
