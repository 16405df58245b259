"""Checks that corpus and model are those of a run, by the hashes in its manifest."""

from __future__ import annotations

from collections.abc import Mapping

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.ground.errors import RunMismatch
from klarsicht.ground.run_folder.store import RunStore


def require_corpus(store: RunStore, corpus: Corpus) -> None:
    """Check that a corpus is that of the run. Raises RunMismatch, which names images that are gone or new."""
    if _is_that_of_run(store, "corpus", corpus.hash):
        return
    remedy = "Bring the images back as they were (--data, if they moved), or audit again into another folder."
    differences = describe_differences(store, corpus) if store.has_table("corpus") else ""
    raise RunMismatch("the corpus changed since the run", rule=differences, remedy=remedy)


def require_model(store: RunStore, classifier: Classifier) -> None:
    """Check that a model is that of the run; raises RunMismatch."""
    if not _is_that_of_run(store, "model", classifier.identity):
        rule = "its weights, code or transform are others"
        remedy = "Bring back those of the run, or audit again into another folder."
        raise RunMismatch("the model changed since the run", rule=rule, remedy=remedy)


def require_class_map(store: RunStore, index: Mapping[str, int]) -> None:
    """Check that a class map maps labels to the outputs of the run; raises RunMismatch."""
    known = store.manifest.get("index", index)
    if known != index:
        label = next(label for label in sorted({*known, *index}) if known.get(label) != index.get(label))
        got = f"{label}: output {index.get(label, 'none')}; the run has {known.get(label, 'none')}"
        remedy = "Bring back the --class-map of the run, or audit again into another folder."
        raise RunMismatch("the class map changed since the run", got=got, remedy=remedy)


def _is_that_of_run(store: RunStore, what: str, now: str) -> bool:
    """Tell whether a hash, by its name in the run's identity, is that of the run, or unknown there."""
    return bool(store.manifest["identity"].get(what, now) == now)


def describe_differences(store: RunStore, corpus: Corpus) -> str:
    """Say how the images of a corpus differ by name from those of the run, one of each kind by name."""
    then, now = store.texts("corpus", "key"), corpus.keys
    differences = [
        f"{len(names)} image{'s' * (len(names) > 1)} {what}, first {min(names)}"
        for what, names in (("gone", {*then} - {*now}), ("new", {*now} - {*then}))
        if names
    ]
    return ", ".join(differences) or "the same names, but a file or a label is another one"
