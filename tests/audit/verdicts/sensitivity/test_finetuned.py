"""Of two artifacts a network sees one, by construction: it learns that one, and its class is called poisoned."""

import copy
import json

import pytest
import torch
from tests.audit.conftest import in_brief
from tests.audit.verdicts.quantification.test_quantification import NAMES, NOISY, UNUSED, USED, write_corpus
from torch import nn

from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.report.page import PAGE
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.explanation.steps import audit_inputs
from klarsicht.audit.results.logit_effect import LogitEffect
from klarsicht.audit.verdicts.sensitivity import power
from klarsicht.audit.verdicts.sensitivity.finetuned import (
    FinetunedUnits,
    max_planted_classes,
    raises_class,
    require_trainable,
)
from klarsicht.ground.errors import ModelError, UsageError

CORNER = 6
SOME = range(2, 18)  # classes: the three that hold something, and 13 clean ones
K = len(SOME)


class SeesACorner(nn.Module):
    """Logits are random projections of the middle, and of the upper left corner what is learned: nothing at first."""

    def __init__(self):
        super().__init__()
        self.middle, self.head = nn.Conv2d(3, 8, 6, bias=False), nn.Linear(8 + 3 * CORNER**2, K)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.middle.weight.copy_(torch.randn(self.middle.weight.shape, generator=generator) / 4)
            self.head.weight.copy_(torch.randn(self.head.weight.shape, generator=generator) / 2)
            self.head.weight[:, 8:] = 0

    def forward(self, x):
        seen = self.middle(x[:, :, 13:19, 13:19] - 0.5), x[:, :, :CORNER, :CORNER] - 0.5
        return self.head(torch.cat([part.flatten(1) for part in seen], 1))


ASKED = {"kinds": ["tag", "mark"], "prevalences": [0.25], "classes": 2, "train": 3, "rate": 3e-2}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run whose second fine-tuning was stopped before it was written, and begun again: folder, classifier, its state,
    the lines of both courses as they were before the stop, those trained after it, and the result."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("poisoning")
    write_corpus(folder / "data", SOME)
    module = SeesACorner().eval()
    before = copy.deepcopy(module.state_dict())
    classifier = load_model(module, classes=[NAMES[k] for k in SOME])
    settings = AuditSettings(model="object", data=str(folder / "data"), method="HeadRelevance", batch=64)
    lines, again, run_course = [], [], FinetunedUnits.run_course

    def stopped(self, index):
        lines.append(run_course(self, index))
        if index == 1:
            raise KeyboardInterrupt
        return lines[0]

    def counted(self, index):
        again.append(index)
        return run_course(self, index)

    with in_brief(20 * K), pytest.MonkeyPatch.context() as patch:
        pipeline.run(settings, folder / "run", classifier=classifier)
        patch.setattr(FinetunedUnits, "run_course", stopped)
        with pytest.raises(KeyboardInterrupt):
            power.power(folder / "run", classifier=classifier, **ASKED)
        patch.setattr(FinetunedUnits, "run_course", counted)
        found = power.power(folder / "run", classifier=classifier, **ASKED)
    return folder / "run", classifier, before, lines, again, found


@pytest.mark.slow
def test_what_the_network_sees_is_learned_and_called_and_what_it_cannot_see_is_not(done):
    *_, found = done
    tags, marks = (found.finetuned.select(kind, 0.25) for kind in ("tag", "mark"))
    assert len(tags) == len(marks) == 2
    assert all(t["learned"] and t["poisoned"] and t["artifactual"] and t["rank"] == 0 for t in tags)
    assert all(abs(t["rise_before"]) < 0.2 and t["rise"] > 1 and t["turned"] > 0.5 for t in tags)
    assert not any(t["learned"] or t["poisoned"] for t in marks)
    assert all(t["used"] == t["learned"] for t in tags + marks)
    assert found.finetuned.format_limit("tag") == "25%" and found.finetuned.format_limit("mark") == "not learned"
    assert found.finetuned.clean == {"classes": 2 * (K - 3 - 2), "artifactual": 0, "poisoned": 0}
    assert not {t["target"] for t in found.finetuned.trials} & {SOME.index(k) for k in (USED, UNUSED, NOISY)}


@pytest.mark.slow
def test_a_training_that_was_stopped_is_done_again_to_the_same_lines_and_no_other(done):
    *_, lines, again, found = done
    assert again == [1]
    known = [{name: line.get(name) for name in found.finetuned.trials[0]} for course in lines for line in course]
    assert known == list(found.finetuned.trials)


@pytest.mark.slow
def test_the_model_stays_as_it_was_to_the_bit(done):
    _, classifier, before, *_ = done
    assert all(torch.equal(classifier.module.state_dict()[name], value) for name, value in before.items())
    assert all(p.requires_grad and p.grad is None for p in classifier.module.parameters())
    assert not classifier.module.training


@pytest.mark.slow
def test_the_files_and_the_page_tell_it(done):
    run, *_, found = done
    told = json.loads((run / power.POWER_FILE).read_text())["poisoned"]
    assert told["limits"] == {"tag": 0.25, "mark": None} and told["epochs"] == 3
    assert told["trials"] == list(found.finetuned.trials)
    page = (run / PAGE).read_text()
    assert "found down to" in page and "<td>2 of 2</td>" in page and "<td>not learned</td>" in page
    assert "A fine-tuned copy is not your training" in page and "would use them is unknown" not in page
    assert page.count('class="planted"') == 2


@pytest.mark.slow
def test_what_cannot_be_trained_is_refused_before_anything_is_looked_at(done, monkeypatch):
    run, classifier, *_ = done
    monkeypatch.setattr(
        "klarsicht.audit.verdicts.quantification.quantification.run_quantification", lambda *_: pytest.fail("looked")
    )
    with pytest.raises(UsageError, match="epochs"):
        power.power(run, classifier=classifier, train=0)
    frozen = load_model(copy.deepcopy(classifier.module).requires_grad_(False), classes=classifier.classes)
    with pytest.raises(ModelError, match="no parameter that learns"):
        power.power(run, classifier=frozen, train=1)


@pytest.mark.slow
def test_a_run_that_does_not_explain_labels_has_none_to_train_on(done):
    run, classifier, *_ = done
    settings = AuditSettings(model="object", data=str(run.parent / "data"), target="predicted", method="HeadRelevance")
    with pytest.raises(UsageError, match="no labels"):
        require_trainable(audit_inputs.Audit.of(settings, classifier))


@pytest.mark.parametrize(
    ("rise", "turned", "moved"), [(0.5, 0, True), (0.49, 0, False), (0.1, 0.02, True), (-0.1, 0.5, False)]
)
def test_a_class_is_moved_by_half_a_logit_or_two_images_of_a_hundred(rise, turned, moved):
    assert raises_class(LogitEffect.of_values(rise, turned)) == moved


def test_two_classes_in_five_hold_something_at_most():
    assert (max_planted_classes(10, 0), max_planted_classes(10, 3), max_planted_classes(24, 3)) == (4, 1, 6)
    for classes, taken in ((2, 0), (10, 4)):
        with pytest.raises(UsageError, match="no room"):
            max_planted_classes(classes, taken)
