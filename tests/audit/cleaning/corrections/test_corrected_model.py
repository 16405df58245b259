"""A correction built in gives what the correction gives, to rounding; the model it is copied from stays as it is."""

import copy
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.audit.conftest import write_corpus
from tests.audit.shortcut import FACTS, TARGET, Shortcut, classifier, place, sample
from torch import nn

from klarsicht.audit.cleaning.corrections import corrected_model, packages
from klarsicht.audit.cleaning.corrections.activations import compute_logits
from klarsicht.audit.cleaning.corrections.clarc import Erasure, Gate
from klarsicht.audit.cleaning.corrections.closed_form import CLOSED, CorrectionParameters, FittingData, JointCorrection
from klarsicht.audit.cleaning.corrections.retraining import RetrainedWeights
from klarsicht.audit.cleaning.models import clean_model
from klarsicht.audit.explanation import pipeline
from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.networks.outputs import as_logits
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.audit.explanation.settings import AuditSettings
from klarsicht.audit.results import ranking
from klarsicht.ground.errors import ModelError, RunMismatch, UsageError
from klarsicht.numerics.erasure import orthogonal_eraser


def correction(method="oblique", layer="last", **more):
    return CLOSED[method].make(
        FittingData(classifier(), TARGET, sample(200), place(), **more), CorrectionParameters(layer, 1, 0.75)
    )


@pytest.mark.parametrize("layer", ["last", "head"])
@pytest.mark.parametrize("method", ["oblique", "reactive", "restore"])
def test_an_erasure_built_in_is_the_erasure(tmp_path, method, layer):
    found, before = correction(method, layer), classifier()
    packages.save_correction(tmp_path, found, FACTS)
    after = corrected_model.corrected_classifier(before, tmp_path)
    images = sample(20, seed=1).images
    np.testing.assert_allclose(compute_logits(after, images), compute_logits(before, images, found), atol=1e-5)
    assert not np.allclose(compute_logits(after, images), compute_logits(before, images), atol=0.1)
    for name, value in Shortcut().state_dict().items():
        assert torch.equal(before.module.state_dict()[name], value)
    assert after.identity != before.identity


@pytest.mark.parametrize("rules", ["EpsilonPlusFlat", "GradientTimesInput"])
def test_relevance_passes_a_gate_as_it_passes_the_gates_share_of_the_erasure(tmp_path, rules):
    """Held fixed, a gate of .3 is an erasure of three tenths of the strength."""
    found, before = correction("reactive"), classifier()
    fixed = replace(found, gate=Gate(np.zeros(4, np.float32), float(np.log(0.3 / 0.7))))
    plain = replace(found, gate=None, strength=0.3 * found.strength)
    images, targets = torch.stack(list(sample(6, seed=1).images)), torch.zeros(6, dtype=torch.long)
    maps = [
        explain(
            replace(before, module=corrected_model.build_in(copy.deepcopy(before.module), one)),
            images,
            targets,
            method=rules,
        ).maps
        for one in (fixed, plain)
    ]
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4 * np.abs(maps[1]).max())


def test_padding_is_no_activation_and_is_not_erased():
    body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    rng = np.random.default_rng(0)
    v = rng.standard_normal((3, 1))
    found, x = Erasure("1", orthogonal_eraser(v, rng.standard_normal(3) + 5)), torch.rand(4, 3, 6, 6)
    with found.applied(body), torch.no_grad():
        expected = body(x)
    with torch.no_grad():
        np.testing.assert_allclose(corrected_model.build_in(body, found)(x), expected, atol=1e-5)


def timm_network(name, **shape):
    timm = pytest.importorskip("timm")
    return timm.create_model(name, num_classes=5, **shape)


def transformers_network(kind, **shape):
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{kind}Config")(num_labels=5, **shape)
    return getattr(transformers, f"{kind}ForImageClassification")(config)


SWIN = {"window_size": 4, "embed_dim": 24, "depths": (1, 1, 1, 1), "num_heads": (2, 2, 2, 2)}
SHALLOW = {"window_size": 4, "embed_dim": 24, "depths": [1, 1, 1], "num_heads": [2, 2, 2]}
STAGES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}


@pytest.mark.parametrize(
    ("build", "layer", "channels"),
    [
        (lambda: timm_network("swin_tiny_patch4_window7_224", img_size=64, **SWIN), "layers.2", 48),
        (lambda: timm_network("xcit_nano_12_p16_224", img_size=64, embed_dim=48, depth=2, num_heads=4), "blocks.1", 48),
        (lambda: timm_network("mambaout_femto"), "stages.3", 192),
        (lambda: transformers_network("ConvNext", **STAGES), "convnext.encoder.stages.1", 16),
        (lambda: transformers_network("Swin", image_size=64, **SHALLOW), "swin.encoder.layers.1", 48),
    ],
    ids=[
        "channels last",
        "tokens, own scales",
        "convolution, channels last",
        "norm of channels",
        "asked for its parts",
    ],
)
def test_an_erasure_built_into_any_network_is_the_erasure(build, layer, channels):
    torch.manual_seed(0)
    net, rng = build().eval(), np.random.default_rng(0)
    found = Erasure(layer, orthogonal_eraser(rng.standard_normal((channels, 1)), rng.standard_normal(channels)))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = as_logits(net(x))
        with found.applied(net):
            expected = as_logits(net(x))
        after = as_logits(corrected_model.build_in(net, found)(x))
    np.testing.assert_allclose(after, expected, atol=1e-5)
    assert (expected - before).abs().max() > 1e-3


class TakesRows(nn.Module):
    """Norm of the last axis of (B, 6, 4, 6): channels last, and as many rows as channels."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3))

    def forward(self, x):
        return self.body(x).mean((1, 2))


class TakesTokens(nn.Module):
    """Norm of tokens (B, 9, 6), of which the first is of another kind."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3))

    def forward(self, x):
        return self.body(x).mean(1)


def of_channels(channels, seed):
    rng = np.random.default_rng(seed)
    return orthogonal_eraser(rng.standard_normal((channels, 2)), rng.standard_normal(channels))


def shifted(eraser, seed):
    return replace(eraser, offset=np.random.default_rng(seed).standard_normal(len(eraser.reference)))


def features_gate(channels, axes):
    """A gate by means, maxima and correlations along axes that is open."""
    rng = np.random.default_rng(3)
    along = rng.standard_normal((channels, axes)).astype(np.float32)
    return Gate(rng.standard_normal(2 * axes + axes * (axes - 1) // 2).astype(np.float32), 50.0, along)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "layer", "shape", "more"),
    [
        (
            lambda: timm_network("vit_tiny_patch16_224", img_size=64, embed_dim=24, depth=2, num_heads=2),
            "blocks.1",
            (3, 64, 64),
            {"leading": (of_channels(24, 1),)},
        ),
        (TakesTokens, "body", (9, 6), {"leading": (shifted(of_channels(6, 1), 2),), "gate": features_gate(6, 4)}),
        (TakesRows, "body", (6, 4, 6), {"channels": -1}),
        (TakesRows, "body", (6, 4, 6), {"channels": -1, "gate": features_gate(6, 6)}),
    ],
    ids=["class token", "restored tokens", "as many rows as channels", "restored channels"],
)
def test_a_saved_erasure_is_the_same_built_in_exported_and_without_klarsicht(build, layer, shape, more, tmp_path):
    torch.manual_seed(0)
    net, channels = build().eval(), 24 if layer == "blocks.1" else 6
    found = Erasure(layer, of_channels(channels, 0), 0.75, **more)
    x = torch.rand(2, *shape)
    with torch.no_grad(), found.applied(net):
        expected = net(x)
    classifier = load_model((net, lambda _: torch.zeros(shape))) if len(shape) == 3 and shape[0] == 3 else None
    told = packages.save_correction(tmp_path, found, FACTS, classifier, x[0] if classifier else None)
    again, _ = packages.load_correction(tmp_path)
    spec = importlib.util.spec_from_file_location("corrected", tmp_path / packages.LOADER)
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    with torch.no_grad():
        with again.applied(net):
            assert torch.equal(net(x), expected)
        np.testing.assert_allclose(alone.corrected(copy.deepcopy(net))(x), expected, atol=1e-5)
        np.testing.assert_allclose(corrected_model.build_in(copy.deepcopy(net), again)(x), expected, atol=1e-5)
        if classifier is not None:
            assert told["exported"], told
            program = torch.export.load(tmp_path / packages.EXPORTED).module()
            np.testing.assert_allclose(program(x), expected, atol=1e-5)
        plain = net(x)
    assert (expected - plain).abs().max() > 1e-3


def test_a_layer_that_is_called_by_name_is_corrected():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x):
            return self.inner(input=x)

    net, rng = Named(), np.random.default_rng(0)
    found = Erasure("inner", orthogonal_eraser(rng.standard_normal((4, 1)), np.ones(4)))
    x = torch.rand(5, 4)
    expected = net.inner(torch.from_numpy(found.eraser(x.numpy())).float()).detach()
    with found.applied(net), torch.no_grad():
        np.testing.assert_allclose(net(x), expected, atol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(corrected_model.build_in(net, found)(x), expected, atol=1e-6)


def test_trained_weights_are_loaded_and_nothing_is_nothing():
    net = corrected_model.build_in(Shortcut(), RetrainedWeights({"head.weight": torch.zeros(3, 4)}))
    assert not net.head.weight.any()
    assert torch.equal(corrected_model.build_in(Shortcut(), JointCorrection()).head.weight, Shortcut().head.weight)


@pytest.mark.parametrize(
    ("method", "more"), [("reactive-class", {}), ("reactive", {"pooled": True}), ("oblique", {"pooled": True})]
)
def test_a_correction_that_looks_at_the_whole_image_is_refused(method, more):
    with pytest.raises(UsageError, match="audit evaluate"):
        corrected_model.build_in(Shortcut(), correction(method, **more))


@pytest.mark.slow
def test_the_loop_closes_the_cleaned_model_is_audited_by_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[4])
    write_corpus(tmp_path / "data", share=0.3)
    settings = AuditSettings(model="tests.audit.conftest:network", data=str(tmp_path / "data"))
    run = pipeline.run(settings, tmp_path / "run")
    folder = clean_model.clean(
        run.path, "b", clean_model.CleanSettings(method="oblique", layer="last", directions=1, images=60)
    ).folder
    again = pipeline.run(settings.with_values(model=str(folder)), tmp_path / "again", workers=2)
    before, after = (ranking.read_ranking(store).of("b") for store in (run, again))
    assert before.shift > 1 > 0.1 > abs(after.shift)


@pytest.mark.parametrize("name", ["object", "mine", "here"])
def test_a_model_built_in_python_is_asked_for(tmp_path, monkeypatch, name):
    """Whatever text its settings had, a folder of that name or not."""
    monkeypatch.chdir(tmp_path)
    Path("here").mkdir()
    packages.save_correction(tmp_path / "c", correction(), FACTS | {"model": name})
    with pytest.raises(ModelError, match=r"audit\.load_model\('c', classifier=model\)"):
        load_model("c")


def test_a_model_built_in_python_is_loaded_with_the_model_that_was_audited(tmp_path):
    before = classifier()
    identity = {"corpus": "any", "model": before.identity}
    packages.save_correction(tmp_path, correction(), FACTS | {"model": "mine", "identity": identity})
    after, images = load_model(tmp_path, classifier=before), sample(20, seed=1).images
    np.testing.assert_allclose(compute_logits(after, images), compute_logits(before, images, correction()), atol=1e-5)
    other = load_model((Shortcut().requires_grad_(False), before.transform))
    with torch.no_grad():
        other.module.head.bias += 1
    with pytest.raises(RunMismatch, match="another model"):
        load_model(tmp_path, classifier=other)
    with pytest.raises(UsageError, match="goes with a folder"):
        load_model(Shortcut(), classifier=before)
