"""Before and after: verdicts on figures written by hand, and a correction shown end to end."""

import json
from dataclasses import replace

import pytest
from pyarrow import parquet
from tests.audit.conftest import network, picture, write_corpus

from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.closed_form import JointCorrection
from klarsicht.audit.cleaning.corrections.harm import Bounds
from klarsicht.audit.cleaning.corrections.outcomes import Outcome
from klarsicht.audit.cleaning.models import clean_model, evaluation
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.evaluation import Evaluation, ModelEvaluation, probe_layers
from klarsicht.audit.cleaning.models.judgement import Judgement, ShownClasses
from klarsicht.audit.cleaning.models.training_images import UNKNOWN, ImageOrigin
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.explorer.corrections import list_corrections
from klarsicht.explorer.explored_run import ExploredRun
from klarsicht.ground.errors import CorpusError, EffectRemains, HarmExceeded, RunMismatch
from klarsicht.numerics.statistics.intervals import NO_INTERVAL, Interval
from klarsicht.numerics.statistics.paired_loss import NO_LOSS, PairedLoss

SURE = PairedLoss(0.0, -0.001, 0.001, 10_000)
EFFECT = Outcome(SURE, SURE, SURE, SURE, SURE, Interval(1.0, 0.9, 1.1, 99), SURE, SURE)


def lost(value, half, n=400):
    return PairedLoss(value, value - half, value + half, n, round(abs(value) * n) + 2)


def judged(rise, harm=SURE, affected=SURE, before=EFFECT.rise, origin=UNKNOWN):
    """An evaluation where the artifact raised by 1 before and by `rise` after."""
    first = replace(EFFECT, rise=before)
    after = replace(EFFECT, rise=replace(before, value=rise), harm=harm, harm_affected=affected)
    looks = tuple(
        ModelEvaluation(name, effect, {}, NO_INTERVAL, None) for name, effect in (("nothing", first), ("x", after))
    )
    return Evaluation({}, looks, Judgement(first, after, Bounds(0.005, 0.02), origin), ())


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (judged(0.1), "cleaned: 10 % of the artifact's effect is left"),
        (judged(-0.4), "cleaned: 40 % of the artifact's effect is left"),
        (judged(0.6), "correction does not help: it leaves 60 % of the artifact's effect"),
        (judged(-0.7), "correction does not help: it leaves 70 % of the artifact's effect"),
        (judged(0.0, before=Interval(0.1, -0.1, 0.3, 99)),
         "no use shown: inserted into other images, it changes the class score by 0.10 logits (-0.10 to 0.30)"),
        (judged(0.0, harm=lost(0.02, 0.01)),
         "harmful: the model loses 2.00 points (1.00 to 3.00) on clean images, more than the 0.50 allowed"),
        (judged(0.0, harm=lost(0.0175, 0.013)),
         "cleaned, loss not excluded: 0 % of the artifact's effect is left; the model loses 1.75"),
        (judged(0.0, affected=lost(0.0, 0.1)),
         "cleaned, loss not excluded: 0 % of the artifact's effect is left; the model loses 0.00 points (-10.00 to"),
        (judged(0.0, affected=NO_LOSS),
         "cleaned, loss not excluded: 0 % of the artifact's effect is left; no clean images of the class to measure"),
        (judged(0.0, origin=ImageOrigin(True, "x")),
         "cleaned, loss not excluded: 0 % of the artifact's effect is left; the model loses 0.00"),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_figures(found, verdict):
    assert found.verdict.startswith(verdict)
    assert found.verdict.startswith(found.judgement.kind.label) and found.judgement.kind.advice


def test_harm_beyond_its_bound_and_an_effect_that_remains_are_errors_with_their_own_exit_codes():
    judged(0.1).check()
    with pytest.raises(
        HarmExceeded, match=r"loses 5\.00 points .* on clean images of the class, more than the 2\.00 allowed"
    ) as caught:
        judged(0.0, affected=lost(0.05, 0.02)).check()
    assert caught.value.exit_code == 7
    with pytest.raises(EffectRemains, match="it leaves 60 % of the artifact's effect") as caught:
        judged(0.6).check()
    assert caught.value.exit_code == 8
    with pytest.raises(EffectRemains, match="not shown to use the artifact") as caught:
        judged(0.0, before=Interval(0.1, -0.1, 0.3, 99)).check()
    assert caught.value.exit_code == 8


def test_probes_look_at_the_corrected_layer_and_after_it():
    classifier = load_model(network(), classes=["a", "b", "c"])
    record = {"choice": {"chosen": {"layer": "last"}}, "layers": ["first", "last", "head"]}
    assert probe_layers(record, Erasure("last", None), classifier) == ("last", "head")
    for layer, probed in (("", "last"), ("relu", "relu")):
        chosen = record | {"choice": {"chosen": {"layer": layer}}}
        assert probe_layers(chosen, JointCorrection(), classifier) == (probed, "head")


@pytest.fixture(scope="module")
def cleaned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cleaned")
    write_corpus(folder / "data", share=0.3)
    store = pipeline.run(
        AuditSettings(model="object", data=str(folder / "data")),
        folder / "run",
        classifier=load_model(network(), classes=["a", "b", "c"]),
    )
    asked = CleanSettings(method="oblique", layer="last", images=60)
    return store, clean_model.clean(
        store.path, "b", asked, classifier=load_model(network(), classes=["a", "b", "c"])
    ).folder


@pytest.mark.slow
def test_before_after_and_the_control_are_shown(cleaned):
    store, folder = cleaned
    found = evaluation.evaluate(store.path, folder, classifier=load_model(network(), classes=["a", "b", "c"]))
    before, after, control = found.evaluations
    assert [look.name for look in found.evaluations] == ["nothing", "oblique", "random direction"]
    assert after.outcome.rise.value < 0.1 * before.outcome.rise.value < control.outcome.rise.value
    assert before.probes["last"].low > 0.9
    assert after.probes["last"].value < 0.9
    assert before.second_audit.suspect
    assert not after.second_audit.suspect
    assert json.loads((folder / "evaluation.json").read_text())["verdict"] == found.verdict
    answers = parquet.read_table(folder / evaluation.ANSWERS).to_pylist()
    predicted = store.table("images", "attribution")["predicted"].to_pylist()
    plain = {line["row"]: line for line in answers if not line["artifact"]}
    assert all(line["before"] == predicted[row] for row, line in plain.items())
    pasted = [line for line in answers if line["artifact"]]
    for side, look in (("before", before), ("after", after)):
        right = sum(line[side] == line["label"] for line in pasted) / len(pasted)
        assert right == pytest.approx(look.outcome.under.value)
    (shown,) = list_corrections(ExploredRun.of(store))
    assert shown["evaluation"]["verdict"] == found.verdict and not shown["unread"]
    assert len(shown["changed"]) == sum(line["before"] != line["after"] for line in answers)


@pytest.mark.slow
def test_evaluate_says_of_the_same_images_what_clean_said(cleaned, tmp_path, monkeypatch):
    """Chosen on 8 of each kind, shown on 80 by both; probes and the second audit look at 8."""
    store, _ = cleaned
    classifier = load_model(network(), classes=["a", "b", "c"])
    asked = CleanSettings(method="oblique", layer="last", directions=1, strength=0.75, images=8)
    made = clean_model.clean(store.path, "b", asked, out=tmp_path, classifier=classifier)
    probed = []
    monkeypatch.setattr(
        evaluation, "probe_layer", lambda c, t, layer, train, shown, seed: probed.append(len(shown.images))
    )
    monkeypatch.setattr(evaluation, "audit_again", lambda c, few, *_: probed.append(len(few)))
    monkeypatch.setattr(ModelEvaluation, "to_json", lambda self: {})
    seen = evaluation.evaluate(store.path, tmp_path, classifier=classifier)
    assert seen.judgement.to_json() == made.judgement.to_json()
    assert (seen.before.outcome, seen.after.outcome) == (made.judgement.before, made.judgement.after)
    assert seen.judgement.shown == made.judgement.shown > 3 * 8
    assert seen.judgement.shown_classes == made.judgement.shown_classes == ShownClasses(3, 3)
    assert probed and max(probed) <= 3 * 8
    few = evaluation.evaluate(store.path, tmp_path, classifier=classifier, images=9)
    assert few.judgement.shown <= 3 * 9 and few.before.outcome.accuracy.n == 9


def test_a_corpus_without_the_artifact_can_be_shown_instead(cleaned, tmp_path):
    import numpy as np

    store, folder = cleaned
    rng = np.random.default_rng(5)
    for label, name in enumerate("abc"):
        (tmp_path / name).mkdir()
        for i in range(8):
            picture(label, False, rng).save(tmp_path / name / f"{i}.png")
    classifier = load_model(network(), classes=["a", "b", "c"])
    found = evaluation.evaluate(store.path, folder, test=str(tmp_path), classifier=classifier)
    assert found.judgement.shown == 24
    assert not found.judgement.origin.trained_on
    assert "of another corpus" in found.judgement.origin.why
    assert found.before.outcome.accuracy.n == 24
    assert not (folder / evaluation.ANSWERS).exists()  # rows of another corpus are none of the run
    (tmp_path / "test.csv").write_text("image,label\na/0.png,a\n")
    with pytest.raises(CorpusError, match=r"got columns image, label; .*\. Name its columns as in the table of"):
        evaluation.evaluate(store.path, folder, test=str(tmp_path / "test.csv"), classifier=classifier)


def test_a_correction_of_another_run_is_refused(cleaned, tmp_path):
    _, folder = cleaned
    classifier = load_model(network(), classes=["a", "b", "c"])
    write_corpus(tmp_path / "data", per_class=30, seed=9)
    other = pipeline.run(
        AuditSettings(model="object", data=str(tmp_path / "data")), tmp_path / "run", classifier=classifier
    )
    with pytest.raises(RunMismatch, match="another run"):
        evaluation.evaluate(other.path, folder, classifier=classifier)
