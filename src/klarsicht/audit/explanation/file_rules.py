"""Tell classes by properties of their files alone, with a shallow tree: what needs no pixel needs no object either."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from sklearn.tree import DecisionTreeClassifier

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.data.file_properties import Properties, read_properties
from klarsicht.audit.explanation.data.locations import is_url
from klarsicht.audit.results.file_rules import FileRule
from klarsicht.ground.arrays import Bools, Doubles, Ints
from klarsicht.ground.seeding import generator
from klarsicht.numerics.statistics.intervals import roc_area_score
from klarsicht.numerics.statistics.linear_discriminants import FOLDS, draw_folds

MOST_FILES: Final = 2000  # whose heads are read
REMOTE_FILES: Final = 200  # the same at URLs, where a whole file is fetched
LEAST_FILES: Final = 10  # of a class, and in a leaf of its tree at half as many
DEPTH: Final = 2  # of a tree: a rule of two conditions can be said


def find_file_rules(corpus: Corpus, seed: int = 0) -> tuple[FileRule, ...] | None:
    """Fit a tree for each class on the properties of the files, the best first; none where these do not differ. The
    area is that of trees that were fitted on other files, with sources kept together. None where pictures are no image
    files, or none can be read."""
    rows = sample_rows(corpus, seed)
    read = read_properties(corpus, rows.tolist())
    rows = rows[[one is not None for one in read]]
    if not len(rows):
        return None
    names, values = to_columns([one for one in read if one is not None])
    labels, sources = np.array([corpus.labels[row] for row in rows]), corpus.source_numbers[rows]
    counts = dict(zip(*np.unique(labels, return_counts=True), strict=True))
    large = [str(name) for name, count in counts.items() if count >= LEAST_FILES]
    if not names or len(counts) < 2:
        return ()
    found = (fit_rule(name, names, values, labels == name, sources, seed) for name in large)
    return tuple(sorted(found, key=lambda rule: (-rule.low, rule.name)))


def sample_rows(corpus: Corpus, seed: int) -> Ints:
    """Draw rows, as many of each class as there are, MOST_FILES at most; of many classes the first by name."""
    labels, most = np.asarray(corpus.labels), REMOTE_FILES if is_url(corpus.paths[0]) else MOST_FILES
    names = np.unique(labels)[: most // LEAST_FILES]
    rng, each = generator(seed, "files"), most // len(names)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == name))[:each] for name in names]))


def to_columns(read: Sequence[Properties]) -> tuple[list[str], Doubles]:
    """Make a table of properties (n, P) without those that are the same in every file; absent ones are -1."""
    every = list(dict.fromkeys(name for one in read for name in one))
    absent = {name: 0.0 if name.startswith("has ") else -1.0 for name in every}
    values = np.array([[one.get(name, absent[name]) for name in every] for one in read])
    differ = np.ptp(values, 0) > 0
    return [name for name, keep in zip(every, differ, strict=True) if keep], values[:, differ]


def fit_rule(name: str, names: Sequence[str], values: Doubles, own: Bools, sources: Ints, seed: int) -> FileRule:
    """Fit the tree of one class, and estimate its area on files that it was not fitted on. names, values: of the
    properties, (P,) and (n, P). own, sources: bool and int (n,), whether a file is of the class, and its source."""

    def fit(some: Bools) -> DecisionTreeClassifier:
        tree = DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=LEAST_FILES // 2, class_weight="balanced")
        return tree.set_params(random_state=0).fit(values[some], own[some])

    scores, fold = np.full(len(own), 0.5), draw_folds(own.astype(int), sources, seed)
    for number in range(FOLDS):
        away = fold == number
        if away.any() and len(set(own[~away].tolist())) == 2:
            scores[away] = fit(~away).predict_proba(values[away])[:, 1]
    area, tree = roc_area_score(scores, own, sources), fit(np.ones(len(own), bool)).tree_
    leaf = tree.apply(values.astype(np.float32))
    excess = {one: float((leaf[own] == one).mean() - (leaf[~own] == one).mean()) for one in set(leaf.tolist())}
    best = max(sorted(excess), key=lambda one: excess[one])
    used = dict.fromkeys(names[i].removeprefix("has ").removeprefix("a ") for i in tree.feature[tree.feature >= 0])
    return FileRule(
        name, tuple(used), conditions_of(tree, best, names),
        int((own & (leaf == best)).sum()), int(own.sum()), int((~own & (leaf == best)).sum()), int((~own).sum()),
        area.value, area.low, area.high,
    )  # fmt: skip


def conditions_of(tree: Any, leaf: int, names: Sequence[str]) -> tuple[str, ...]:
    """Say by which conditions a file comes to a leaf of a tree of scikit-learn."""
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    words: list[str] = []
    while leaf:
        parent = left.index(leaf) if leaf in left else right.index(leaf)
        name = names[tree.feature[parent]]
        words.insert(0, describe_condition(name, float(tree.threshold[parent]), above=leaf in right))
        leaf = parent
    return tuple(words)


def describe_condition(name: str, threshold: float, *, above: bool) -> str:
    """Say a condition: "width above 300", "no EXIF tags"."""
    if name.startswith("has "):
        return name.removeprefix("has ") if above else f"no {name.removeprefix('has ').removeprefix('a ')}"
    return f"{name} {'above' if above else 'at most'} {threshold:.4g}"
