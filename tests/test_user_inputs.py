"""Inputs of the public names: arrays of any library give the same, and what is wrong is one error with a remedy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.audit.conftest import network

from klarsicht import audit, burst
from klarsicht.audit.explanation.spectral.spray import Spray
from klarsicht.burst.denoising.pipeline import DenoiseSettings
from klarsicht.burst.training.training import TrainSettings
from klarsicht.ground.errors import CorpusError, InputError, KlarsichtError, UsageError

RNG = np.random.default_rng(0)
MAPS, LOGITS = RNG.random((40, 8, 8)), RNG.normal(size=40)
MAPS[:10, :3, :3] += 3
IMAGES = torch.rand(2, 3, 12, 12)
FRAMES = np.full((3, 1, 64, 64), 0.3, np.float32)
LEVEL = burst.NoiseLevel(0.01, 0.002)


def spray(items=MAPS, logits=LOGITS, **more) -> Spray:
    return audit.spray(items, logits, n_neighbors=5, **more)


def model():
    return audit.load_model(network(), classes=["a", "b", "c"])


def settings(**more):
    return audit.AuditSettings(**({"model": "x", "data": "y"} | more))


def unopened():
    return audit.Explainer(model())(IMAGES, [0, 1])


def closed():
    with audit.Explainer(model()) as explainer:
        pass
    return explainer(IMAGES, [0, 1])


def with_nan(array):
    return np.where(np.arange(array.size).reshape(array.shape) == 5, np.nan, array).astype(array.dtype)


def test_clusters_of_arrays_of_other_libraries_are_those_of_numpy():
    items, expected = MAPS.astype(np.float32), spray(MAPS.astype(np.float32))
    for given in (torch.tensor(items), torch.tensor(items, requires_grad=True), items.tolist(), items.reshape(40, -1)):
        found = spray(given, torch.tensor(LOGITS, requires_grad=True))
        np.testing.assert_array_equal(found.embedding, expected.embedding)
        np.testing.assert_array_equal(found.clusters, expected.clusters)


def test_explanations_of_arrays_and_lists_are_those_of_tensors():
    classifier, expected = model(), audit.explain(model(), IMAGES, torch.tensor([0, 1])).maps
    with audit.Explainer(classifier) as explainer:
        for batch, targets in ((IMAGES.numpy(), np.array([0, 1])), (IMAGES.tolist(), [0, 1])):
            np.testing.assert_array_equal(explainer(batch, targets).maps, expected)
            np.testing.assert_array_equal(audit.explain(classifier, batch, targets).maps, expected)


def test_model_and_data_of_settings_may_be_paths():
    assert settings(model=Path("a.pt"), data=Path("b")) == settings(model="a.pt", data="b")


def test_frames_of_a_burst_may_be_a_tensor():
    np.testing.assert_array_equal(burst.Burst(torch.tensor(FRAMES), LEVEL).frames, FRAMES)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: spray(with_nan(MAPS)), InputError, "not finite"),
        (lambda: spray(logits=with_nan(LOGITS)), InputError, "logits that are not finite; got item 5"),
        (lambda: spray(logits=["a"] * 40), InputError, "logits are not numbers"),
        (lambda: spray([["a", "b"]] * 40), InputError, "items are not numbers"),
        (lambda: spray(MAPS[:0]), InputError, "too few items to cluster; got 0"),
        (lambda: spray(MAPS[:, 0, 0]), InputError, "items of another shape"),
        (lambda: spray(MAPS[:, None]), InputError, r"maps\.sum\(1\)"),
        (lambda: spray(n_dimensions=2.5), UsageError, "argument n_dimensions must be an integer; got 2.5"),
        (lambda: spray(random_state="x"), UsageError, "random_state must be an integer"),
        (lambda: audit.load_model(network(), classes="abc"), UsageError, "argument classes must be a list; got 'abc'"),
        (lambda: audit.explain(model(), IMAGES, ["a", "z"]), UsageError, "unknown class; got 'z'"),
        (lambda: audit.explain(network(), IMAGES, [0, 1]), UsageError, "load_model"),
        (unopened, UsageError, "with Explainer"),
        (closed, UsageError, "with Explainer"),
        (lambda: audit.open_corpus(None), CorpusError, "no corpus; got NoneType"),
        (lambda: audit.load_correction(None), UsageError, "argument folder must be a path; got None"),
        (lambda: audit.run(settings(), None), UsageError, "argument out must be a path"),
        (lambda: audit.AuditSettings(model="x", data="y", batch=-1), UsageError, "setting batch"),
        (lambda: audit.AuditSettings(model="x", data="y", metricc=1), UsageError, "Did you mean metric"),
        (lambda: settings(metric="concept"), UsageError, "metric; got 'concept'; it should be a list or a tuple"),
        (lambda: settings(metric="concept"), UsageError, r'Write metric = \["concept"\]\.'),
        (lambda: settings(data=IMAGES), UsageError, r"setting data; got Tensor; .* corpus="),
        (lambda: settings(model=network()), UsageError, "setting model; got Marked; .* classifier="),
        (lambda: audit.AuditSettings("x", "y"), UsageError, r"AuditSettings\(model=..., data=...\)"),
        (lambda: TrainSettings(steps=-1), UsageError, "setting steps; got -1"),
        (lambda: TrainSettings(stepss=1), UsageError, "Did you mean steps"),
        (lambda: DenoiseSettings(memory="much"), UsageError, "setting memory; got 'much'"),
        (lambda: audit.run({"model": "x"}, "nowhere"), UsageError, "AuditSettings"),
        (lambda: audit.clean("nowhere"), UsageError, "arguments of clean; got missing .*'name'; needed: run, name"),
        (lambda: audit.rank("nowhere", observe=True), UsageError, "unexpected keyword argument 'observe'"),
        (lambda: audit.clean_data("a", "b", "remove"), UsageError, "Known: drop, inpaint, move, quarantine, weigh"),
        (lambda: audit.rank(None), UsageError, "audit.run returned"),
        (lambda: burst.Burst(list(FRAMES), LEVEL), InputError, r"np\.stack"),
        (lambda: burst.Burst(FRAMES, (0.01, 0.002)), UsageError, r"noise must be NoiseLevel; .*\(read=0.01"),
        (lambda: burst.NoiseLevel("a", 0.1), UsageError, "noise level; got .*'a'"),
        (lambda: burst.NoiseLevel(None, None), UsageError, "one number each"),
        (lambda: burst.load_network(None), UsageError, "argument path must be a path; got None"),
        (lambda: list(burst.denoise(None, "out.tif")), UsageError, "frames must be a path or a list; got None"),
        (lambda: list(burst.denoise("a.dng", "out.tif", {})), UsageError, r"DenoiseSettings\(...\)"),
        (lambda: burst.train({}, "photographs", "out.safetensors"), UsageError, r"TrainSettings\(...\)"),
        (lambda: burst.train(TrainSettings(), None, "out.safetensors"), UsageError, "photographs must be a path"),
        (lambda: burst.denoise_burst("swift", burst.Burst(FRAMES, LEVEL)), UsageError, "load_network"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_error_that_says_what_to_give(call, kind, words):
    with pytest.raises(KlarsichtError, match=words) as caught:
        call()
    assert type(caught.value) is kind


def test_frames_that_are_not_finite_are_refused():
    network_of_frames = burst.load_network("swift")
    with pytest.raises(InputError, match=r"frames\[0\]"):
        burst.denoise_burst(network_of_frames, burst.Burst(np.repeat(with_nan(FRAMES), 3, 1), LEVEL))
    with pytest.raises(UsageError, match=r"burst\.Burst"):
        burst.denoise_burst(network_of_frames, FRAMES)
    with pytest.raises(InputError, match=r"got a mean of 19660; .* Divide them by the code of white"):  # 0.3 x 65535
        burst.denoise_burst(network_of_frames, burst.Burst(np.repeat(FRAMES * 65535, 3, 1), LEVEL))
