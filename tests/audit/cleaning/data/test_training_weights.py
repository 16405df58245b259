"""Weights of a cleaned corpus for a loop of one's own: against torchvision's own data set, and counted draws."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.audit.conftest import write_corpus
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import to_tensor

from klarsicht import audit
from klarsicht.audit.cleaning.data import image_actions
from klarsicht.audit.cleaning.data.clean_data import clean_corpus
from klarsicht.audit.explanation.data.corpus_formats import open_corpus
from klarsicht.ground.errors import InputError, UsageError


@pytest.fixture(params=["csv", "parquet"])
def case(request, tmp_path):
    """A function that cleans 36 images of the last three of each class, and the files in another order."""
    write_corpus(tmp_path / "data", per_class=12, share=0)
    corpus = open_corpus(tmp_path / "data")
    carries = np.array([int(Path(path).stem) >= 9 for path in corpus.paths])

    def clean(name, **more):
        action = image_actions.make_action(name, **more) if isinstance(name, str) else name
        clean_corpus(corpus, carries, action, tmp_path / "new", tables=request.param)
        return tmp_path / "new"

    return clean, ImageFolder(tmp_path / "data", transform=to_tensor)


def carried(files):
    return np.array([int(Path(file).stem) >= 9 for file in files])


@pytest.mark.parametrize(("action", "weight"), [("drop", 0), ("weigh", 0.25), ("quarantine", 0)])
def test_weights_are_those_of_the_files_of_a_data_set(case, action, weight):
    clean, folder = case
    files = [path for path, _ in folder.samples][::-1]
    new = clean(action, **({"weight": weight} if action == "weigh" else {}))
    np.testing.assert_array_equal(audit.training_weights(new, files), np.where(carried(files), weight, 1))
    np.testing.assert_array_equal(
        audit.training_weights(new), [1.0] * 27 if not weight else [1, *[1] * 8, *[0.25] * 3] * 3
    )


def test_a_loader_draws_by_the_weights(case):
    clean, folder = case
    files = [path for path, _ in folder.samples]
    sampler = audit.weighted_sampler(clean("weigh", weight=0.25), files, draws=20_000)
    drawn = np.bincount(list(sampler), minlength=36)
    expected = 20_000 * np.where(carried(files), 0.25, 1) / (27 + 9 * 0.25)
    assert (np.abs(drawn - expected) < 5 * np.sqrt(expected)).all()
    sampler = audit.weighted_sampler(clean("weigh", weight=0.25), files, seed=3)
    labels = torch.cat([y for _, y in DataLoader(folder, 8, sampler=sampler)])
    assert len(labels) == 36
    again = audit.weighted_sampler(clean("weigh", weight=0.25), files, seed=3)
    assert list(again) == list(audit.weighted_sampler(clean("weigh", weight=0.25), files, seed=3))


def test_a_dropped_image_is_never_drawn_and_an_epoch_has_as_many_as_are_left(case):
    clean, folder = case
    files = [path for path, _ in folder.samples]
    drawn = list(audit.weighted_sampler(clean("drop"), files))
    assert len(drawn) == 27 and not carried([files[i] for i in drawn]).any()


def test_an_old_file_that_a_new_one_stands_for_has_no_weight(case):
    clean, folder = case
    files = [path for path, _ in folder.samples]
    dark = image_actions.make_pass_action(lambda picture: picture.point(lambda value: value // 2), "half as bright")
    new = clean(dark)
    np.testing.assert_array_equal(audit.training_weights(new, files), ~carried(files))
    np.testing.assert_array_equal(audit.training_weights(new, sorted((new / "images").iterdir())), [1.0] * 9)


def test_what_no_weight_can_say_is_refused(case, tmp_path):
    clean, folder = case
    files = [path for path, _ in folder.samples]
    with pytest.raises(InputError, match="no cleaned corpus"):
        audit.training_weights(tmp_path, files)
    new = clean("move", label="tag")
    with pytest.raises(UsageError, match="other labels"):
        audit.training_weights(new, files)
    with pytest.raises(InputError, match="does not know; got 1 of 37"):
        other = tmp_path / "other"
        clean_corpus(open_corpus(tmp_path / "data"), carried(files), image_actions.make_action("drop"), other)
        audit.training_weights(other, [*files, "strange.png"])
    kind = "csv" if (other / "record.csv").is_file() else "parquet"
    (other / f"record.{kind}").write_text("path\nx\n")
    with pytest.raises(InputError, match="cannot be read"):
        audit.training_weights(other, files)
    with pytest.raises(InputError, match="no image to draw"):
        clean_corpus(
            open_corpus(tmp_path / "data"), carried(files) | True, image_actions.make_action("drop"), tmp_path / "z"
        )
        audit.weighted_sampler(tmp_path / "z", files)
