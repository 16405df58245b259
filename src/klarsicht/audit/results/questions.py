"""Questions that the commands of an audit ask of a run, for the person who is responsible for the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from klarsicht.audit.results import sufficiency, surroundings, verdicts
from klarsicht.ground.run_folder.store import RunStore

COPIES_FILE: Final = "duplicates.json"  # written by `audit duplicates`
UNSURE_COPY: Final = "alike"  # no more than unrelated pictures of the corpus can be


@dataclass(frozen=True)
class Question:
    """A question, the command that asks it, what it cannot see, whether it was asked of a run, and whether it compares
    classes, which a run that screens for one class cannot."""

    command: str
    text: str
    unseen: str
    was_asked: Callable[[RunStore], bool]
    compares_classes: bool = True


QUESTIONS: Final = (
    Question(
        "audit quantify",
        "Do some images of a class share an artifact, and does the model use it?",
        "an artifact on every image of a class, unless it is noise, sharpness or compression; an artifact that no "
        "detector knows and that the model does not follow",
        lambda store: verdicts.is_quantified(store) or store.has_file("screening.json"),
        compares_classes=False,
    ),
    Question(
        "audit shortcuts",
        "Can a class be recognised by a part, the framing or the files alone, and does the model follow it?",
        "a shortcut on the object itself, apart from its colours",
        sufficiency.is_measured,
    ),
    Question(
        "audit shortcuts",
        "Do nearly all images of a class share their surroundings, and does the model follow these? Which images do "
        "not?",
        "surroundings without any exception",
        surroundings.is_examined,
    ),
    Question(
        "audit duplicates",
        "Are there copies across splits or labels?",
        "strongly cropped copies, and copies turned by other than quarter turns",
        lambda store: store.has_file(COPIES_FILE),
        compares_classes=False,
    ),
    Question(
        "audit power",
        "Which artifacts could this audit have missed?",
        "kinds of artifacts that were not planted",
        lambda store: store.has_table("power"),
    ),
)


def list_questions(store: RunStore) -> list[tuple[Question, bool]]:
    """List the questions that can be asked of a run, and whether each was."""
    classes = store.manifest["settings"]["target"] in ("label", "predicted")
    return [(one, one.was_asked(store)) for one in QUESTIONS if classes or not one.compares_classes]
