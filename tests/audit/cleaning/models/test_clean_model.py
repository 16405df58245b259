"""The easy door of cleaning, on an audited network whose shortcut is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.audit import honest
from tests.audit.conftest import SIDE, Marked, network, picture, write_corpus
from torch.nn.modules.module import register_module_forward_pre_hook

from klarsicht.audit.cleaning.artifacts import artifact
from klarsicht.audit.cleaning.corrections import packages
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.samples import Case
from klarsicht.audit.cleaning.models import clean_model, correction_choice, evaluation
from klarsicht.audit.cleaning.models.audited_run import AuditedRun
from klarsicht.audit.cleaning.models.clean_settings import CleanSettings
from klarsicht.audit.cleaning.models.judgement import ShownClasses
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.data import splits
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results.measured_use import read_measured_uses
from klarsicht.cli import cleaning_tables
from klarsicht.ground.errors import EffectRemains, HarmExceeded, InputError, RunMismatch, UsageError

ASKED = CleanSettings(method="oblique", layer="last", images=60)


def of(module):
    return load_model(module, classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """A finished run and the names of the marked images."""
    folder = tmp_path_factory.mktemp("audited")
    marked = write_corpus(folder / "data", share=0.3)
    settings = AuditSettings(model="object", data=str(folder / "data"))
    return pipeline.run(settings, folder / "run", classifier=of(network())), marked


@pytest.mark.slow
def test_cleaning_takes_the_shortcut_away_and_leaves_the_model_alone(audited, tmp_path):
    store, _ = audited
    classifier = of(network())
    found = clean_model.clean(store.path, "b", ASKED, out=tmp_path / "c", classifier=classifier)
    told = (str(found.folder), "'b'", found.judgement.verdict)
    (known,) = read_measured_uses(store)
    turned = found.judgement.before.turned
    assert (known.name, known.images, known.turned, known.low) == ("b", turned.n, turned.value, turned.low)
    assert Path(found) == found.folder and found._repr_html_().count("<table>") == 3
    assert len(repr(found)) < 100 + sum(map(len, told)) and all(word in repr(found) for word in told)
    for name, value in network().state_dict().items():
        assert torch.equal(classifier.module.state_dict()[name], value)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in classifier.module.modules())
    correction, record = packages.load_correction(found.folder)
    assert (record["class"], record["target"], record["settings"]["method"]) == ("b", 1, "oblique")
    dark, white = torch.zeros(3, SIDE, SIDE), torch.zeros(3, SIDE, SIDE)
    white[:, :4, :4] = 1
    plain, after = (compute_logits(classifier, [dark, white], c) for c in (None, correction))
    rise = [y[1, 1] - y[1].mean() - (y[0, 1] - y[0].mean()) for y in (plain, after)]
    assert rise[0] > 1
    assert abs(rise[1]) < 0.1 * rise[0]


@pytest.mark.slow
def test_the_exported_model_gives_the_corrected_logits(audited, tmp_path):
    store, _ = audited
    classifier = of(network())
    found = clean_model.clean(store.path, "b", ASKED, out=tmp_path / "c", classifier=classifier)
    x = torch.rand(5, 3, SIDE, SIDE)
    alone = torch.export.load(tmp_path / "c" / "model.pt2").module()(x)
    np.testing.assert_allclose(alone.detach(), compute_logits(classifier, list(x), found.choice.correction), atol=1e-4)


@pytest.mark.slow
def test_parts_share_no_source_and_nothing_is_fitted_on_what_is_shown(audited, tmp_path, monkeypatch):
    store, _ = audited
    asked, drawn = [], Case.sample

    def sample(self, part, most, rng):
        asked.append((part, drawn(self, part, most, rng)))
        return asked[-1][1]

    monkeypatch.setattr(Case, "sample", sample)
    found = clean_model.clean(store.path, "b", ASKED, out=tmp_path / "c", classifier=of(network()))
    assert sorted(part for part, _ in asked) == [splits.TRAIN, splits.VALIDATION, splits.TEST]
    assert all((found.artifact.part[s.rows] == part).all() for part, s in asked)
    sources = [set(s.sources) for _, s in asked]
    assert len(sources[0] | sources[1] | sources[2]) == sum(map(len, sources))


@pytest.mark.slow
def test_leaked_parts_are_refused(tmp_path):
    """Two images of one source, one fitted on and one shown: the record was tampered with, or the corpus changed."""
    write_corpus(tmp_path / "data", share=0.3)
    lines = ["path,label,source"]
    for name in "abc":
        lines += [f"data/{name}/{i:03d}.png,{name},{name}{i // 2}" for i in range(60)]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    settings = AuditSettings(model="object", data=str(tmp_path / "m.csv"))
    pipeline.run(settings, tmp_path / "run", classifier=of(network()))
    found = clean_model.clean(tmp_path / "run", "b", ASKED, classifier=of(network()))
    assert evaluation.evaluate(tmp_path / "run", found.folder, classifier=of(network())).judgement.shown
    kept = dict(np.load(found.folder / "artifact.npz"))
    kept["part"] = np.where(np.arange(len(kept["part"])) % 2, splits.TRAIN, splits.TEST).astype(np.int8)
    np.savez(found.folder / "artifact.npz", **kept)
    record = json.loads((found.folder / "correction.json").read_text())
    record["artifact files"]["artifact.npz"] = packages._sha256(found.folder / "artifact.npz")
    (found.folder / "correction.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="fitted on"):
        evaluation.evaluate(tmp_path / "run", found.folder, classifier=of(network()))


def test_members_may_be_listed_and_the_place_drawn(audited, tmp_path):
    store, marked = audited
    (tmp_path / "list.txt").write_text("\n".join(sorted(marked)))
    picture = np.zeros((SIDE, SIDE), np.uint8)
    picture[:4, :4] = 255
    Image.fromarray(picture).save(tmp_path / "mask.png")
    patient = AuditedRun.of(store.path, classifier=of(network()))
    found, audited_class = patient.build_artifact("b", members=tmp_path / "list.txt", mask=tmp_path / "mask.png")
    assert {audited_class.corpus.keys[row] for row in found.members} == marked
    assert found.origin == "list: list.txt, mask"
    np.testing.assert_array_equal(found.place.masks[0], picture > 0)


def test_a_mask_or_a_list_that_says_nothing_is_refused(audited, tmp_path):
    store, _ = audited
    patient = AuditedRun.of(store.path, classifier=of(network()))
    Image.new("L", (SIDE, SIDE), 255).save(tmp_path / "all.png")
    with pytest.raises(InputError, match="marks nothing, or everything"):
        patient.build_artifact("b", mask=tmp_path / "all.png")
    (tmp_path / "list.txt").write_text("b/000.png\nnot-there.png")
    with pytest.raises(InputError, match=r"1 of 2: not-there\.png"):
        patient.build_artifact("b", members=tmp_path / "list.txt")
    with pytest.raises(InputError, match="cannot be read"):
        patient.build_artifact("b", members=tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("changes", "near"),
    [({"method": "obliqe"}, "oblique"), ({"direction": "patern"}, "pattern"), ({"layer": "lasd"}, "last")],
)
def test_wrong_names_are_told_with_near_ones(audited, changes, near):
    with pytest.raises(UsageError, match=near):
        clean_model.clean(audited[0].path, "b", ASKED.with_values(**changes), classifier=of(network()))


def test_another_model_is_refused(audited):
    other = Marked().eval()
    with torch.no_grad():
        other.head.weight += 1
    with pytest.raises(RunMismatch, match="model"):
        clean_model.clean(audited[0].path, "b", ASKED, classifier=of(other))


@pytest.mark.slow
def test_without_a_method_all_in_closed_form_are_tried_and_the_table_is_in_the_record(audited, tmp_path):
    store, _ = audited
    asked = CleanSettings(images=60)
    found = clean_model.clean(store.path, "b", asked, out=tmp_path / "c", classifier=of(network()))
    tried = found.record["choice"]["tried"]
    assert {one["method"] for one in tried} == {
        "project",
        "oblique",
        "reactive",
        "reactive-class",
        "restore",
        "inpaint",
    }
    for method in ("project", "oblique", "reactive", "reactive-class"):
        assert {one["layer"] for one in tried if one["method"] == method} == {"last", "head"}
    best = max(one["gained at least"] for one in tried if one["within the bounds"])
    chosen = next(
        one for one in tried if all(one[name] == value for name, value in found.record["choice"]["chosen"].items())
    )
    assert chosen["gained at least"] > best - 0.3
    assert found.record["choice"]["reason"].startswith(
        f"{sum(one['within the bounds'] for one in tried)} of {len(tried)} "
    )
    assert found.judgement.remaining < 0.3
    assert found.record["shown"]["verdict"] == found.judgement.verdict


@pytest.mark.slow
def test_what_is_announced_is_of_images_that_nothing_was_fitted_or_chosen_on(audited, tmp_path):
    """Counted here image by image: a gain of half a point was announced once where nearly one was lost."""
    store, _ = audited
    classifier = of(network())
    found = clean_model.clean(store.path, "b", ASKED.with_values(images=500), out=tmp_path / "c", classifier=classifier)
    case = found.artifact.case(AuditedRun.of(store.path, classifier=of(network())).audited_class(1, "concept"))
    rows = np.flatnonzero((found.artifact.part == splits.TEST) & case.clean)
    images = [classifier.image(case.corpus.decode(row)) for row in rows]
    right = [
        compute_logits(classifier, images, c).argmax(1) == case.labels[rows] for c in (None, found.choice.correction)
    ]
    told = found.record["shown"]["after"]["harm"]
    assert (told["value"], told["n"]) == (right[0].mean() - right[1].mean(), len(rows))


def test_classes_of_the_model_of_which_there_is_no_clean_image_are_said_to_be_unknown(audited, tmp_path, capsys):
    store, _ = audited
    asked = ASKED.with_values(directions=1, strength=1.0)
    found = clean_model.clean(store.path, "b", asked, out=tmp_path / "c", classifier=of(network()))
    assert (found.record["shown"]["classes"], found.record["shown"]["outputs"]) == (3, 3)
    cleaning_tables.correction(found, Path("run"))
    assert "of the model's" not in capsys.readouterr().out
    case = found.artifact.case(AuditedRun.of(store.path, classifier=of(network())).audited_class(1, "concept"))
    sample = case.sample(splits.TEST, 8, np.random.default_rng(0))
    test = correction_choice.make_test(case, found.artifact, sample, asked)
    fewer = ShownClasses.of(test, replace(case, clean=case.clean & (case.labels < 2)))
    cleaning_tables.correction(replace(found, judgement=replace(found.judgement, shown_classes=fewer)), Path("run"))
    assert "clean images are of 2 of the model's 3 classes: what is lost of others" in capsys.readouterr().out


def test_methods_that_train_join_when_asked_for(audited, tmp_path):
    store, _ = audited
    asked = CleanSettings(train=True, images=60, layer="last", directions=1, strength=1.0, steps=3, lessons=60)
    found = clean_model.clean(store.path, "b", asked, out=tmp_path / "c", classifier=of(network()))
    assert {one.method for one in found.choice.tried} > {"augment", "augment-latent", "penalise"}
    with pytest.raises(UsageError, match="--train with a method"):
        clean_model.clean(store.path, "b", asked.with_values(method="oblique"), classifier=of(network()))


def unused_network():
    """The mark is seen, and speaks for nothing."""
    unused = Marked().eval()
    with torch.no_grad():
        unused.head.weight[1, 3] = 0.0
    return unused


@pytest.fixture(scope="module")
def unused(audited, tmp_path_factory):
    """A finished run of a network that does nothing with the mark, and a list of the marked images."""
    folder = tmp_path_factory.mktemp("unused")
    settings = AuditSettings(model="object", data=audited[0].manifest["data"])
    (folder / "list.txt").write_text("\n".join(sorted(audited[1])))
    return pipeline.run(settings, folder / "run", classifier=of(unused_network())), folder / "list.txt"


@pytest.mark.slow
def test_an_artifact_that_is_not_used_is_said_to_be_so(unused, tmp_path):
    run, members = unused
    found = clean_model.clean(
        run.path, "b", ASKED, members=members, classifier=of(unused_network()), out=tmp_path / "c"
    )
    assert not found.judgement.is_used
    assert found.judgement.verdict.startswith(
        "no use shown: it could be inserted into no other images, and images with it score "
    )
    with pytest.raises(EffectRemains, match="the model is not shown to use the artifact"):
        found.check()


@pytest.mark.slow
def test_without_a_method_nothing_is_tried_for_an_artifact_that_is_not_used_and_the_answer_is_the_same(
    unused, tmp_path
):
    """The answer is that of a correction that is fitted all the same, and of one whose search is not cut short. Beyond
    what the artifact takes, whose place must raise the class, it sees less than half of the images of a search."""
    (run, members), seen = unused, {}

    def count_images(name, work):
        model, images = of(unused_network()), []
        # of all modules: a hook of the network would make it another model
        handle = register_module_forward_pre_hook(
            lambda module, given: images.append(len(given[0])) if module is model.module else None
        )
        found = work(model)
        handle.remove()
        seen[name] = sum(images)
        return found

    def cleaned(name, **more):
        settings, out = CleanSettings(images=60, **more), tmp_path / name
        return count_images(
            name, lambda model: clean_model.clean(run.path, "b", settings, members=members, classifier=model, out=out)
        )

    count_images(
        "artifact", lambda model: AuditedRun.of(run.path, classifier=model).build_artifact("b", members=members)
    )
    found, fitted = cleaned("auto"), cleaned("named", method="oblique", layer="last")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(correction_choice, "is_raised", lambda before: True)
        searched = cleaned("searched")
    for other in (fitted, searched):
        assert not other.judgement.is_used
        assert found.judgement.verdict == other.judgement.verdict
        assert found.judgement.before == other.judgement.before
        with pytest.raises(EffectRemains) as errors:
            found.check()
        with pytest.raises(EffectRemains) as expected:
            other.check()
        assert str(errors.value) == str(expected.value)
    assert seen["auto"] - seen["artifact"] < (seen["searched"] - seen["artifact"]) / 2
    assert [one.method for one in found.choice.tried] == ["nothing"]
    assert found.choice.reason == "the model is not shown to use the artifact, so no correction was tried"
    correction, record = packages.load_correction(found.folder)
    assert record["choice"]["chosen"]["method"] == "nothing"
    x = list(torch.rand(5, 3, SIDE, SIDE))
    model = of(unused_network())
    np.testing.assert_array_equal(compute_logits(model, x, correction), compute_logits(model, x))
    assert evaluation.evaluate(run.path, found.folder, classifier=model).verdict.startswith("no use shown")
    with pytest.raises(UsageError, match="last"):
        cleaned("unknown", layer="lasd")


@pytest.mark.slow
def test_what_is_used_by_less_than_matters_is_not_corrected_unless_asked_for(audited, tmp_path):
    """White, 3 in all, in place of 190 levels, on a ninth of the picture, at weight 1: too little to turn any. None of
    some fifty images turned shows that it is less than 10 %, and not that it is less than 2."""

    def faint():
        model = Marked().eval()
        with torch.no_grad():
            model.head.weight[1, 3] = 1.0
        return of(model)

    settings = AuditSettings(model="object", data=audited[0].manifest["data"])
    run = pipeline.run(settings, tmp_path / "run", classifier=faint())
    (tmp_path / "list.txt").write_text("\n".join(sorted(audited[1])))

    def cleaned(name, **more):
        return clean_model.clean(
            run.path, "b", CleanSettings(images=60, **more), members=tmp_path / "list.txt", classifier=faint(),
            out=tmp_path / name,
        )  # fmt: skip

    found = cleaned("auto", least_effect=5.0, layer="last", directions=1)
    assert found.judgement.before.rise.value == pytest.approx(2 / 3 * (3 - 190 / 255) / 9, rel=0.15)
    assert found.judgement.before.turned.value == 0
    assert found.judgement.is_used and found.judgement.is_below_least
    assert found.choice.chosen.method == "nothing"  # of some fifty images none can show half a point
    assert {one.method for one in found.choice.tried} == {"reactive", "reactive-class", "restore", "inpaint", "nothing"}
    tried = f"and none of {len(found.choice.tried) - 1} tried settings is shown to take half of it away at no cost"
    assert found.choice.reason == (
        f"the effect of the artifact is too small to correct, {tried}, so the model is left as it is"
    )
    assert found.judgement.verdict.startswith(
        "effect too small: it could be inserted into no other images, and images with it score "
    )
    assert found.judgement.verdict.endswith("corrections begin at 2.5 logits, or 10 % of other images")
    with pytest.raises(EffectRemains, match=r"too small to correct.*least_effect"):
        found.check()
    named = cleaned("named", least_effect=5.0, method="oblique", layer="last", directions=1, strength=1.0)
    assert not named.choice.untried and named.judgement.helps
    named.check()
    before = found.judgement.before
    assert not correction_choice.find_reason_to_leave(before, CleanSettings())
    why = correction_choice.find_reason_to_leave(before, CleanSettings(least_effect=5.0))
    assert why == "the effect of the artifact is too small to correct"
    free = cleaned("free", least_effect=5.0, layer="last", directions=1, overall=0.1, affected=0.1)
    assert (
        free.judgement.is_below_least and free.choice.free and free.choice.chosen.method in correction_choice.SELECTIVE
    )
    assert free.judgement.remaining < 0.5
    free.check()  # it takes the artifact away, and none of its images' answers changed
    assert free.judgement.after.harm.changed == 0


def test_a_correction_that_is_no_help_is_not_made_unless_it_is_named(audited, tmp_path, monkeypatch):
    """One that leaves the effect as it is, here a quarter of an erasure, is fitted all the same when it is named."""
    store, _ = audited

    def cleaned(name, **more):
        asked = CleanSettings(images=60, layer="last", directions=1, strength=0.25, **more)
        return clean_model.clean(store.path, "b", asked, out=tmp_path / name, classifier=of(network()))

    monkeypatch.setattr(correction_choice, "CANDIDATES", {"oblique": correction_choice.CANDIDATES["oblique"]})
    named, found = cleaned("named", method="oblique"), cleaned("auto")
    assert named.judgement.remaining == pytest.approx(0.75, abs=0.05)
    assert found.judgement.refused.remaining == named.judgement.remaining
    assert found.record["shown"]["refused"]["remaining"] == named.judgement.remaining
    correction, record = packages.load_correction(found.folder)
    assert record["choice"]["chosen"]["method"] == "nothing"
    assert [one["method"] for one in record["choice"]["tried"]] == ["oblique", "nothing"]
    x = list(torch.rand(5, 3, SIDE, SIDE))
    np.testing.assert_array_equal(*(compute_logits(of(network()), x, one) for one in (None, correction)))
    share = f"{100 * named.judgement.remaining:.0f} %"
    left = f"{share} of the score difference between images with the artifact and clean ones"
    assert found.judgement.verdict == f"no correction helps: the best one leaves {left}"
    assert left in found.choice.reason and found.choice.reason.endswith("so the model is left as it is")
    with pytest.raises(EffectRemains, match=r"no correction helps, so the model stays as it is.*`method`"):
        found.check()
    with pytest.raises(EffectRemains, match="the correction does not help"):
        named.check()


def test_losses_are_measured_on_clean_images_that_nothing_was_fitted_on_or_is_shown_on(audited):
    patient = AuditedRun.of(audited[0].path, classifier=of(network()))
    found, audited_class = patient.build_artifact("b")
    case, asked = found.case(audited_class), CleanSettings(images=20)
    data, _ = correction_choice.prepare_data(case, found, asked)
    draw = correction_choice.draw_clean(case, data, asked)
    free = case.clean & (case.part != splits.TEST)
    free[data.fit.rows] = False
    assert set(draw.rows) == set(np.flatnonzero(free))  # sources are single images; 200 of them at most


def test_a_correction_is_shown_on_more_images_than_it_is_chosen_on_as_far_as_they_fit_the_memory(audited, monkeypatch):
    patient = AuditedRun.of(audited[0].path, classifier=of(network()))
    found, audited_class = patient.build_artifact("b")
    case = found.case(audited_class)
    assert correction_choice.count_shown(case, 60) == 600
    each = 4 * 3 * SIDE * SIDE
    monkeypatch.setattr(correction_choice, "MOST_MEMORY", 100 * each)
    assert correction_choice.count_shown(case, 60) == 100
    monkeypatch.setattr(correction_choice, "MOST_MEMORY", 10 * each)
    assert correction_choice.count_shown(case, 60) == 60


@pytest.mark.slow
def test_one_clean_image_of_the_class_is_too_few_to_compare_members_with(tmp_path):
    """Of sixty images of b 57 are marked: one or two of the others are among those to fit on."""
    marked = write_corpus(tmp_path / "data", share=0.95)
    (tmp_path / "list.txt").write_text("\n".join(sorted(marked)))
    settings = AuditSettings(model="object", data=str(tmp_path / "data"))
    run = pipeline.run(settings, tmp_path / "run", classifier=of(network()))

    def cleaned(**more):
        return clean_model.clean(
            run.path, "b", ASKED.with_values(**more), members=tmp_path / "list.txt", classifier=of(network())
        )

    with pytest.raises(InputError, match=r"too few clean images .* at least 5.* `fewest_clean`"):
        cleaned()
    assert cleaned(fewest_clean=1).choice.chosen.method == "oblique"


@pytest.fixture(scope="module")
def natural(tmp_path_factory):
    """A run of a network that does nothing wrong, and a list of images that have more of their class."""
    folder = tmp_path_factory.mktemp("natural")
    (folder / "list.txt").write_text("\n".join(honest.write_corpus(folder / "data")))
    settings = AuditSettings(model="object", data=str(folder / "data"))
    return pipeline.run(settings, folder / "run", classifier=of(honest.network())), folder / "list.txt"


@pytest.mark.slow
def test_one_image_of_the_class_that_carries_the_artifact_is_no_reason_to_refuse(tmp_path):
    """Screened for b, of which there is one image, marked like a third of a and of c."""
    rng, names = np.random.default_rng(0), []
    for label, name, n in ((0, "a", 60), (1, "b", 1), (2, "c", 60)):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(n):
            picture(label, i < 20, rng).save(tmp_path / "data" / name / f"{i:03d}.png")
            names += [f"{name}/{i:03d}.png"] * (i < 20)
    (tmp_path / "list.txt").write_text("\n".join(names))
    settings = AuditSettings(model="object", data=str(tmp_path / "data"), target="b")
    run = pipeline.run(settings, tmp_path / "run", classifier=of(network()))
    found = clean_model.clean(run.path, "b", ASKED, members=tmp_path / "list.txt", classifier=of(network()))
    assert found.choice.chosen.remaining < 0.1


def test_the_class_itself_cannot_be_cleaned_away(natural, tmp_path):
    store, members = natural
    found = clean_model.clean(
        store.path, "b", ASKED.with_values(strength=1.0), members=members, classifier=of(honest.network())
    )
    seen = evaluation.evaluate(store.path, found.folder, classifier=of(honest.network()))
    assert seen.verdict.startswith("harmful")
    with pytest.raises(HarmExceeded, match="of the class"):
        seen.check()
    everything = tmp_path / "all.txt"
    everything.write_text("\n".join(f"b{i:03d}.png" for i in range(60)))
    with pytest.raises(InputError, match="without the artifact"):
        clean_model.clean(store.path, "b", ASKED, members=everything, classifier=of(honest.network()))


def test_a_saved_artifact_is_the_one_that_was_made(audited, tmp_path):
    store, _ = audited
    patient = AuditedRun.of(store.path, classifier=of(network()))
    found, audited_class = patient.build_artifact("b", seed=3)
    found.save(tmp_path, audited_class.corpus)
    again = artifact.load_artifact(tmp_path)
    np.testing.assert_array_equal(again.members, found.members)
    np.testing.assert_array_equal(again.part, found.part)
    np.testing.assert_array_equal(again.place.colour, found.place.colour)
