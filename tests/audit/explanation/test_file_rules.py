"""Rules of files that were written by a rule, and of files that were not; areas beside scikit-learn's."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from klarsicht.audit.explanation.data.corpus import Corpus
from klarsicht.audit.explanation.file_rules import MOST_FILES, find_file_rules, fit_rule, sample_rows
from klarsicht.audit.results.file_rules import ASKED, FileRule, describe_file_rules


def corpus_of(folder, save, each=20):
    paths, labels = [], []
    for label in ("cat", "dog"):
        for i in range(each):
            paths.append(str(folder / f"{label}{i:02d}.jpg"))
            labels.append(label)
            save(label, i, paths[-1])
    return Corpus(paths, paths, tuple(labels))


def test_the_rule_by_which_files_were_written_is_said(tmp_path):
    def save(label, i, path):
        wide = 60 + i if label == "dog" else 20 + i
        Image.new("RGB" if i % 2 else "L", (wide, 30)).save(path)

    first, second = find_file_rules(corpus_of(tmp_path, save))
    assert first.area == second.area == 1 and first.low > 0.8 and {first.name, second.name} == {"cat", "dog"}
    assert (first.own, first.n, first.others, first.m) == (20, 20, 0, 20)
    (said,) = describe_file_rules((first, second))  # they mirror each other
    assert said.startswith(f"{first.properties[0].capitalize()} of the files alone identifies {first.name} (AUC 1.000")
    assert "20 of 20 files of" in said and said.endswith("and 0 of 20 others.")
    assert first.properties[0] in ("width", "width over height")
    assert FileRule.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_tags_have_words_of_their_own(tmp_path):
    def save(label, i, path):
        Image.new("L", (20, 30)).save(path, **({"dpi": (300, 300)} if label == "dog" else {}))

    cat, dog = sorted(find_file_rules(corpus_of(tmp_path, save)), key=lambda rule: rule.name)
    assert cat.conditions == ("no resolution",) and dog.conditions == ("a resolution",)


def test_files_that_do_not_differ_by_class_identify_none(tmp_path):
    rng = np.random.default_rng(0)

    def save(label, i, path):
        Image.new("L", tuple(rng.integers(20, 60, 2).tolist())).save(path)

    found = find_file_rules(corpus_of(tmp_path, save))
    assert not any(rule.identifies for rule in found) and describe_file_rules(found) == [ASKED]


@pytest.mark.parametrize("images", ["equal", "unreadable"])
def test_equal_files_and_unreadable_ones_have_no_rule(tmp_path, images):
    def save(label, i, path):
        if images == "equal":
            Image.new("L", (20, 30)).save(path)
        else:
            Path(path).write_bytes(b"no image")

    rules = find_file_rules(corpus_of(tmp_path, save))
    assert rules == (() if images == "equal" else None)
    assert describe_file_rules(rules) == ([ASKED] if images == "equal" else [])


def test_random_labels_are_at_chance_over_many_trees():
    rng, areas = np.random.default_rng(0), []
    for _ in range(40):
        values, own = rng.normal(size=(60, 4)), rng.permutation(np.arange(60) < 30)
        areas.append(fit_rule("a", list("wxyz"), values, own, np.arange(60), 0).area)
    assert abs(np.mean(areas) - 0.5) < 0.06


def test_files_of_one_source_are_not_on_both_sides():
    """Every source has a width of its own, and says nothing of the class."""
    rng = np.random.default_rng(0)
    sources = np.repeat(np.arange(12), 10)
    own = rng.permutation(np.arange(12) < 6)[sources]
    width = rng.permutation(12).astype(float)[sources][:, None]
    together, parted = (fit_rule("a", ["width"], width, own, some, 0).area for some in (sources, np.arange(120)))
    assert together < parted


def test_large_corpora_are_sampled_evenly(tmp_path):
    paths = [str(tmp_path / f"{i}.jpg") for i in range(3 * MOST_FILES)]
    corpus = Corpus(paths, paths, tuple("ab"[i % 3 == 0] for i in range(len(paths))))
    labels = np.asarray(corpus.labels)[sample_rows(corpus, 0)]
    assert np.unique(labels, return_counts=True)[1].tolist() == [MOST_FILES // 2] * 2
