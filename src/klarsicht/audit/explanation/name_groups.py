"""Guess of names for artifacts and clusters of a run: words that a model of pictures and texts finds on images of the
group more than on other images of the class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from klarsicht.audit.explanation.data.corpus import Corpus, decode_rows
from klarsicht.audit.explanation.models.text_image_models import TextImageModel, load_text_image_model
from klarsicht.audit.explanation.steps.audit_inputs import select_data, settings_of_run
from klarsicht.audit.explanation.steps.unchanged_inputs import require_corpus
from klarsicht.audit.results.group_names import NAMES_FILE, GroupName, ImageGroup, NameGuess, list_groups
from klarsicht.ground.arrays import Floats, Ints
from klarsicht.ground.errors import ImageError, UsageError
from klarsicht.ground.machine.disk import read_regular_file, translate_faults
from klarsicht.ground.pictures.array_images import ArrayForm
from klarsicht.ground.progress import track
from klarsicht.ground.run_folder.store import RunStore
from klarsicht.ground.seeding import generator

IMAGES_SCORED: Final = 32  # of a group, and as many others of its class
WORDS_SHOWN: Final = 3
LEAST_WORD_GAIN: Final = 0.01  # of the score over that of other images
VOCABULARY: Final = (
    *("text", "Chinese characters", "a web address", "a signature", "a watermark", "a logo", "a date stamp"),
    *("a barcode", "a price tag", "a sticker", "a label with letters", "a number", "an arrow", "a ruler", "a grid"),
    *("a picture frame", "a white border", "a black border", "dark corners", "a round black mask", "a collage"),
    *("a screenshot", "a drawing", "a stripe", "a checkerboard", "a coloured patch", "a bright spot", "a dark spot"),
    *("a white background", "a black background", "a blurred background", "a blurred picture", "a noisy picture"),
    *("a grey picture", "a red tint", "a green tint", "a blue tint", "an overexposed picture", "a dark picture"),
    *("a person", "a face", "a hand", "fingers", "a glove", "hair", "clothes", "food", "a plate", "a table", "a cup"),
    *("an indoor room", "a wall", "a shelf", "packaging", "a wire fence", "a cage", "a net", "a rope", "a shadow"),
    *("a reflection", "a lens flare", "grass", "trees", "flowers", "sand", "snow", "water", "sky", "clouds", "rocks"),
    *("a road", "a building", "a car", "a boat", "an animal", "a bird", "a dog", "a cat", "a fish", "an insect"),
    *("ink marks on skin", "a bandage", "gel bubbles", "a cable", "an electrode", "a tube", "an implant", "a marker"),
)
"""Words that are tried where the user states none: what artifacts and surroundings of photographs and medical images
often are."""


def name_groups(run: str | Path | RunStore, spec: str, vocabulary: Path | None = None, data: Any = None) -> None:
    """Guess names of the artifacts and suspect clusters of a run by a model of pictures and texts, and write them into
    the run, beside its verdicts.

    Args:
        spec: `hf:FOLDER`, see `load_text_image_model`, whose errors are raised.
        vocabulary: a file with a word or a few on each line; by default VOCABULARY.
        data: where the corpus is now, if it moved.

    Raises:
        UsageError: the vocabulary has less than two words.
        StoreError: the run has not been ranked.
        InputError, RunMismatch: no run in the folder, or data that differ from those of the run.
    """
    words = VOCABULARY if vocabulary is None else read_vocabulary(vocabulary)
    store = RunStore.open(run)
    groups, model = list_groups(store), load_text_image_model(spec)
    corpus = open_images(store, data)
    names = [guess_name(store, corpus, model, words, group) for group in track(groups, len(groups), "names")]
    record = {"vocabulary": list(words), "groups": [name.to_json() for name in names if name is not None]}
    store.write_json(NAMES_FILE, record)


def open_images(store: RunStore, data: Any = None) -> Corpus:
    """Open the images of a run again; raises as `name_groups`."""
    settings = settings_of_run(store, data)
    corpus = select_data(settings, None if isinstance(data, str) else data)
    require_corpus(store, corpus)
    form = store.manifest.get("array_form")
    return corpus.as_arrays(ArrayForm.from_json(form)) if form else corpus


def read_vocabulary(file: Path) -> tuple[str, ...]:
    """Read the words of a file, one or a few on each line, each once; raises UsageError for less than two."""
    with translate_faults(file):
        lines = read_regular_file(file).decode("utf-8-sig", "replace").splitlines()
    words = tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(words) < 2:
        rule = "two words at least, a line each: scores say which of them fits best"
        raise UsageError("the vocabulary is too small", got=f"{len(words)} in {file}", rule=rule)
    return words


def guess_name(
    store: RunStore, corpus: Corpus, model: TextImageModel, words: Sequence[str], group: ImageGroup
) -> GroupName | None:  # fmt: skip
    """Guess the words for one group; None where none of its images, or no other, can be read."""
    rng = generator(0, f"names {group.target} {group.number}")
    others = np.setdiff1d(rows_of_class(store, group.target), np.array(group.rows, np.int64))
    both = [_score_rows(corpus, model, words, _sample(rows, rng)) for rows in (np.array(group.rows, np.int64), others)]
    if not all(map(len, both)):
        return None
    score, elsewhere = (scores.mean(0) for scores in both)
    gain = score - elsewhere
    best = [i for i in np.argsort(-gain, kind="stable")[:WORDS_SHOWN] if gain[i] >= LEAST_WORD_GAIN]
    guesses = (NameGuess(words[i], round(float(score[i]), 4), round(float(elsewhere[i]), 4)) for i in best)
    return GroupName(group, tuple(guesses), model.name)


def _sample(rows: Ints, rng: np.random.Generator) -> Ints:
    return rows if len(rows) <= IMAGES_SCORED else np.sort(rng.choice(rows, IMAGES_SCORED, replace=False))


def _score_rows(corpus: Corpus, model: TextImageModel, words: Sequence[str], rows: Ints) -> Floats:
    """Score the images that can be read by every word, (n, words)."""
    images = [image for _, image in decode_rows(corpus, map(int, rows)) if not isinstance(image, ImageError)]
    pictures = [corpus.as_picture(image) for image in images]
    return model.score_words(pictures, words) if pictures else np.zeros((0, len(words)))


def rows_of_class(store: RunStore, target: int) -> Ints:
    """Return the usable rows of the images that a class is compared on."""
    compared_by = store.manifest["settings"]["target"]
    images = store.table("images", "attribution", ("skipped", "predicted"))
    usable = np.array(images["skipped"].to_pylist()) == ""
    if compared_by == "label":
        index = store.manifest["index"]
        usable &= np.array([index.get(label) == target for label in store.texts("corpus", "label")])
    elif compared_by == "predicted":
        usable &= np.asarray(images["predicted"].to_numpy()) == target
    return np.flatnonzero(usable)
