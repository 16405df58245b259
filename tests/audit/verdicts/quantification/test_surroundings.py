"""Surroundings of a drawn run, asked of two models by hand: one reads the square, one what surrounds it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit.conftest import in_brief
from tests.audit.verdicts.own_places.test_own_places import draw_squares
from torch import nn
from torch.nn.functional import avg_pool2d

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.surroundings import (
    EXCEPTIONS_FILE,
    SURROUNDINGS_LEVEL,
    ExceptionalImage,
    Surroundings,
    read_surroundings,
)
from klarsicht.audit.verdicts.quantification import natural_surroundings
from klarsicht.audit.verdicts.quantification.natural_surroundings import largest_ordinary_share, rank_among_natural
from klarsicht.audit.verdicts.quantification.opened_runs import open_run
from klarsicht.audit.verdicts.quantification.picture_questions import ASKED_DONORS, PictureQuestions
from klarsicht.audit.verdicts.quantification.surroundings import (
    examine_surroundings,
    write_surroundings,
)
from klarsicht.audit.verdicts.quantification.units import predictor
from klarsicht.ground.errors import StoreError
from klarsicht.ground.run_folder.store import RunStore

NAMES, N, ODD = ("dark", "light"), 400, 10


class Reads(nn.Module):
    """Logits by the red where there is most of it, which is in the square, or by the edge of the image."""

    def __init__(self, square):
        super().__init__()
        self.square, self.colours, self.head = square, nn.Conv2d(3, 3, 1, bias=False), nn.Linear(1, 2)
        with torch.no_grad():
            self.colours.weight.copy_(torch.eye(3)[..., None, None])
            self.head.weight.copy_(torch.tensor([[-20.0], [20.0]]))
            self.head.bias.zero_()

    def forward(self, x):
        x = self.colours(x)
        if self.square:
            red, excess = (avg_pool2d(a[:, None], 6, 1).flatten(1) for a in (x[:, 0], x[:, 0] - x[:, 1]))
            level = red.gather(1, excess.argmax(1, keepdim=True))[:, 0]
        else:
            level = x[:, :, [0, -1]].mean((1, 2, 3))
        return self.head(level[:, None] - 0.5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("squares")
    images, labels, odd, _ = draw_squares(N, ODD, np.random.default_rng(3))
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / NAMES[label]).mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / NAMES[label] / f"{i:03d}{'-odd' if odd[i] else ''}.png")
    return folder


def examined(corpus, out, square):
    classifier = load_model(Reads(square).eval(), classes=NAMES)
    settings = AuditSettings(model="object", data=str(corpus), method="HeadRelevance", batch=64)
    with in_brief(60):
        pipeline.run(settings, out, classifier=classifier, accept_labels=True)
    with open_run(out, level=0.05, workers=1, data=None, classifier=classifier) as (audit, work):
        return examine_surroundings(audit, work, 1)


def asked(out, square):
    """Yield what the model says of other images drawn in the same way, and whether it rests on surroundings."""
    classifier = load_model(Reads(square).eval(), classes=NAMES)
    images, *_ = draw_squares(8, 4, np.random.default_rng(9))
    with open_run(out, level=0.05, workers=1, data=None, classifier=classifier) as (_, work):
        questions = PictureQuestions(work, NAMES, np.array([-1]))
        with predictor(work) as predict:
            for image in images:
                target = int(predict(work.input_images.pixel_scale.inputs(image[None]))[0].argmax())
                for one in questions.ask(image, target, predict):
                    if one.part == "surroundings":
                        yield target, one


def test_why_surroundings_are_not_examined_is_said_and_said_again_where_they_are_asked_for(corpus, tmp_path, capsys):
    few = tmp_path / "few"
    for name, count in zip(NAMES, (100, 30), strict=True):
        (few / name).mkdir(parents=True)
        for path in sorted((corpus / name).iterdir())[:count]:
            (few / name / path.name).write_bytes(path.read_bytes())
    assert examined(few, tmp_path / "run", square=False) is None
    assert f"not examined: 30 images of {NAMES[1]}; at least 100" in capsys.readouterr().err
    with pytest.raises(StoreError, match=f"2 classes; the smallest, {NAMES[1]}, has 30 images"):
        read_surroundings(tmp_path / "run")


@pytest.mark.slow
def test_the_exceptions_are_named_and_a_model_that_reads_the_surroundings_is_said_to_rely_on_them(corpus, tmp_path):
    found = examined(corpus, tmp_path / "run", square=False)
    assert found == read_surroundings(tmp_path / "run")
    named = [one.path for one in found.exceptions]
    assert sum("odd" in path for path in named) == ODD and len(named) <= ODD + 10
    assert found.found and [one.name for one in found.relied_on] == list(NAMES)
    assert all(one.taken.value > 0.9 and one.taken_control.value < 0.1 for one in found)
    of_pictures = list(asked(tmp_path / "run", square=False))
    assert len(of_pictures) > 4  # of eight; no own places of a usual size are found in the others
    for target, one in of_pictures:
        assert one.rests and one.predicted == NAMES[1 - target]
        assert one.becomes == one.n - one.stays and one.stays <= 1  # own places at an edge are among what it reads
        assert one.n == one.stays_control == ASKED_DONORS


@pytest.mark.slow
def test_a_model_that_reads_the_square_is_not(corpus, tmp_path):
    found = examined(corpus, tmp_path / "run", square=True)
    assert found.found and found.relied_on == ()
    assert all(one.stays.value > 0.6 for one in found)
    assert not any(one.rests for _, one in asked(tmp_path / "run", square=True))


def read_pairs():
    return json.loads((Path(natural_surroundings.__file__).parent / "natural_surroundings.json").read_text())[
        "separate"
    ]


def test_p_is_the_share_of_natural_pairs_that_are_beyond():
    pairs = json.loads((Path(natural_surroundings.__file__).parent / "natural_surroundings.json").read_text())[
        "separate"
    ]
    for value in (-1.0, *pairs, 2.0):
        assert rank_among_natural(value) == (1 + sum(one >= value for one in pairs)) / (1 + len(pairs))


def test_the_largest_ordinary_share_is_one_beyond_which_everything_is_called():
    pairs = json.loads((Path(natural_surroundings.__file__).parent / "natural_surroundings.json").read_text())[
        "separate"
    ]
    most = largest_ordinary_share()
    assert most in pairs and rank_among_natural(most) > SURROUNDINGS_LEVEL
    assert rank_among_natural(most + 1e-9) <= SURROUNDINGS_LEVEL


@pytest.mark.parametrize(("p", "odd", "written"), [(0.02, 1, True), (0.9, 1, False), (0.02, 0, False)])
def test_exceptions_are_listed_in_a_file_only_of_a_shortcut_that_was_found(p, odd, written, tmp_path):
    store = RunStore.create(tmp_path / "run", settings={}, identity={}, index={}, independent=False)
    exceptions = (ExceptionalImage("a.png", "a", "b", -1.0),) * odd
    write_surroundings(SimpleNamespace(store=store), Surroundings((), exceptions, 0.5, p))
    assert (store.path / EXCEPTIONS_FILE).exists() == written
    assert read_surroundings(store).exceptions == exceptions
