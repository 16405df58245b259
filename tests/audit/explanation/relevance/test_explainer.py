"""Relevance of a batch: closed forms on linear networks, laws of pooling, and a model given back as it was."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchvision.models import resnet18

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.networks.hooks import late_layer
from klarsicht.audit.explanation.relevance.explainer import (
    METHODS,
    Explainer,
    activation_gradient,
    attribute,
    explain,
    head_relevance,
)
from klarsicht.audit.explanation.relevance.gradients import integrated_gradients
from klarsicht.audit.explanation.relevance.pooling import pool_relevance, pooling_matrix
from klarsicht.ground.errors import ModelError, UnsupportedLayer, UsageError

TARGET = torch.tensor([2, 0])


def network():
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )


def linear_network():
    """One linear map from pixels to logits, without bias: every gradient method has a closed form."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 5, bias=False))


@pytest.fixture(autouse=True)
def same_weights():
    torch.manual_seed(2)


@pytest.fixture
def x():
    return torch.randn(2, 3, 16, 12)


@pytest.mark.slow
@given(n=st.integers(1, 70), g=st.integers(1, 32))
def test_columns_of_a_pooling_matrix_sum_to_one_and_cells_are_of_equal_area(n, g):
    A = pooling_matrix(n, g)
    assert torch.allclose(A.sum(0), torch.ones(n, dtype=torch.float64), rtol=0, atol=1e-12)
    assert torch.allclose(A.sum(1), torch.full((g,), n / g, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (A >= 0).all()


def test_pooling_by_a_whole_factor_sums_blocks():
    R = torch.arange(2 * 3 * 8 * 6, dtype=torch.float64).reshape(2, 3, 8, 6)
    blocks = R.sum(1).reshape(2, 2, 4, 2, 3).sum((2, 4))
    assert (pool_relevance(R, 2) == blocks.float()).all()


def test_pooling_splits_a_pixel_by_area():
    assert pooling_matrix(3, 2).tolist() == [[1.0, 0.5, 0.0], [0.0, 0.5, 1.0]]


@given(h=st.integers(1, 40), w=st.integers(1, 40), side=st.integers(1, 32), seed=st.integers(0, 99))
def test_pooling_keeps_mass(h, w, side, seed):
    R = torch.randn(2, 3, h, w, generator=torch.Generator().manual_seed(seed))
    small = pool_relevance(R, side)
    assert small.shape == (2, *[min(side, h, w)] * 2)
    assert torch.allclose(small.double().sum((1, 2)), R.double().sum((1, 2, 3)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_holds_the_total_and_shapes_follow_the_batch(method, x):
    found = explain(load_model(network()), x, TARGET, method=method, map_side=8)
    assert found.maps.shape == (2, 8, 8) and found.maps.dtype == np.float32
    assert found.maps.sum((1, 2)) == pytest.approx(found.total, rel=1e-4, abs=1e-5)
    assert found.features.shape == found.head.shape == (2, 8)
    assert found.logits.shape == (2, 4)


def test_what_is_captured_is_what_the_network_computes(x):
    net = network().eval()
    found = explain(load_model(net), x, TARGET)
    features = net[:9](x)
    logits = net[9](features).detach()
    assert torch.allclose(torch.from_numpy(found.features), features, atol=1e-6)
    assert torch.allclose(torch.from_numpy(found.logits), logits, atol=1e-5)
    assert found.score == pytest.approx(logits[[0, 1], TARGET].numpy(), abs=1e-5)
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits, TARGET, reduction="none").numpy(), abs=1e-5)
    assert (found.prediction == logits.argmax(1).numpy()).all()


def test_head_relevance_adds_up_to_the_centred_logit_but_for_biases(x):
    net = network()
    nn.init.zeros_(net[9].bias)
    found = explain(load_model(net), x, TARGET)
    assert found.head.sum(1) == pytest.approx(found.centred, abs=1e-5)


def test_head_relevance_is_activation_times_gradient_at_a_linear_head(x):
    net = network()
    classifier = load_model(net)
    found = explain(classifier, x, TARGET)
    general = activation_gradient(classifier, x, TARGET, classifier.head)
    assert torch.allclose(torch.from_numpy(found.head), general, atol=1e-6)
    closed = head_relevance(torch.from_numpy(found.features), net[9].weight, TARGET)
    assert torch.allclose(closed, general, atol=1e-6)


class ConvHead(nn.Module):
    """Logits by a convolution and an average, as SqueezeNet has them."""

    def __init__(self):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 6, 3), nn.ReLU()
        self.head, self.pool = nn.Conv2d(6, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return self.pool(self.head(self.relu(self.conv(x)))).flatten(1)


@pytest.mark.parametrize("method", ["EpsilonPlusFlat", "GradientTimesInput"])
def test_a_head_that_is_no_linear_layer_gets_the_general_form(method, x):
    net = ConvHead()
    found = explain(load_model(net), x, TARGET, method=method)
    activations = net.relu(net.conv(x)).mean((2, 3))
    W = net.head.weight[:, :, 0, 0]
    assert torch.allclose(torch.from_numpy(found.head), activations * (W[TARGET] - W.mean(0)), atol=1e-6)


def test_concepts_are_the_relevance_that_reaches_a_cut(x):
    found = explain(load_model(network()), x, TARGET)  # the late layer is the second convolution, "4"
    above = {"9", "7", "4"}
    kept = sum(e.absorbed for e in found.balance.layers if e.name in above)
    assert found.concepts.shape == (2, 6)
    assert found.concepts.sum(1) == pytest.approx(1 - kept.numpy(), rel=1e-4)


@pytest.mark.parametrize("method", ["EpsilonPlusFlat", "GradientTimesInput"])
def test_concepts_at_a_named_layer(x, method):
    found = explain(load_model(network()), x, TARGET, method=method, layer="0")
    assert found.concepts.shape == (2, 3)
    assert found.concepts.sum(1) == pytest.approx(found.total, rel=1e-4)


def test_channels_are_the_relevance_that_reaches_the_middle_layer(x):
    found = explain(load_model(network()), x, TARGET, middle="4")
    kept = sum(e.absorbed for e in found.balance.layers if e.name in {"9", "7", "4"})
    assert found.channels.shape == (2, 6)
    assert found.channels.sum(1) == pytest.approx(1 - kept.numpy(), rel=1e-4)
    assert explain(load_model(network()), x, TARGET).channels is None


class Positive(nn.Module):
    """Above its middle layer no weight is negative and no bias is there, so that z-plus, gamma and epsilon agree."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.second = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, bias=False)
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4, bias=False)
        with torch.no_grad():
            self.second.weight.abs_()
            self.head.weight.abs_()

    def above(self, a):
        return self.head(self.flat(self.pool(self.relu(self.second(a)))))

    def forward(self, x):
        return self.above(self.relu(self.first(x)))


@pytest.mark.parametrize(
    ("method", "shares"),
    [("EpsilonPlusFlat", True), ("EpsilonGammaBox", True), ("GradientTimesInput", False), ("SmoothGrad", False)],
)
def test_channels_are_activation_times_gradient_where_rules_agree(method, shares, x):
    """Relevance starts with 1 at the logit, so it is the share of that logit; a gradient method's is not divided."""
    net = Positive()
    found = explain(load_model(net), x, TARGET, method=method, middle="second")
    a = net.relu(net.first(x)).detach().requires_grad_()
    logit = net.above(a)[[0, 1], TARGET]
    (gradient,) = torch.autograd.grad(logit.sum(), a)
    want = (a * gradient).sum((2, 3)) / (logit[:, None] if shares else 1)
    assert torch.allclose(torch.from_numpy(found.channels), want, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_channels_and_those_of_the_image_sum_to_its_total(method, x):
    found = explain(load_model(network()), x, TARGET, method=method, middle="0")
    assert found.channels.shape == (2, 3) and np.isfinite(found.channels).all()
    if method not in ("IntegratedGradients", "SmoothGrad"):  # whose maps are means over several images
        assert found.channels.sum(1) == pytest.approx(found.total, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "times_input"), [("GradientTimesInput", 1), ("IntegratedGradients", 1), ("SmoothGrad", 0)]
)
def test_gradient_methods_on_a_linear_network(method, times_input):
    net, x = linear_network(), torch.randn(2, 3, 4, 4)
    found = explain(load_model(net), x, TARGET, method=method)
    want = net[1].weight[TARGET].reshape(2, 3, 4, 4) * (x if times_input else 1)
    assert torch.allclose(torch.from_numpy(found.maps), want.sum(1), atol=1e-5)


def test_integrated_gradients_add_up_to_the_rise_of_the_logit(x):
    net = network().eval()
    found = explain(load_model(net), x, TARGET, method="IntegratedGradients")
    with torch.no_grad():
        rise = (net(x) - net(torch.zeros_like(x)))[[0, 1], TARGET].double().numpy()
    assert found.total == pytest.approx(rise, rel=0.1)
    assert found.residual == pytest.approx((rise - found.total) / abs(rise), abs=1e-4)
    assert found.conserving is True


def test_integrated_gradients_of_a_square():
    x = torch.tensor([[3.0, -2.0]])
    got = integrated_gradients(lambda z: 2 * z, x, torch.Generator())
    assert torch.allclose(got, x**2, rtol=1e-6)  # f = |x|^2 from 0: each pixel gives its own square


def test_methods_that_promise_nothing_say_so(x):
    found = explain(load_model(network()), x, TARGET, method="SmoothGrad")
    assert found.conserving is None and np.isnan(found.residual).all() and found.balance is None


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_given_back_as_it_was(method, x):
    net = network().train()
    net[1].eval()
    net[4].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    random_state = torch.get_rng_state()
    with Explainer(load_model(net), method) as explainer:
        explainer(x, TARGET)
        explainer(x, TARGET)
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == [p is not net[4].weight for p in net.parameters()]
    assert net[2].inplace and not any("forward" in vars(m) for m in net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_model_is_given_back_when_it_is_refused(x):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LogSigmoid(), nn.Flatten(), nn.Softmax(1), nn.Linear(560, 4)).train()
    with pytest.raises(UnsupportedLayer, match="no relevance can flow"):
        explain(load_model(net), x, TARGET)
    assert net.training and not any(m._forward_hooks or "forward" in vars(m) for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_the_same_batch_gives_the_same_bytes(method, x):
    with Explainer(load_model(network()), method) as explainer:
        one, two = explainer(x, TARGET), explainer(x.clone(memory_format=torch.preserve_format), TARGET)
    assert one.maps.tobytes() == two.maps.tobytes()
    assert one.concepts.tobytes() == two.concepts.tobytes()


def test_an_explainer_can_be_opened_again(x):
    explainer = Explainer(load_model(network()))
    with explainer:
        one = explainer(x, TARGET)
    with explainer:
        two = explainer(x, TARGET)
    assert one.maps.tobytes() == two.maps.tobytes()


def test_memory_format_does_not_matter(x):
    classifier = load_model(network())
    plain = explain(classifier, x, TARGET).maps
    last = explain(classifier, x.to(memory_format=torch.channels_last), TARGET).maps
    assert abs(plain - last).max() < 1e-5 * abs(plain).max()


def test_images_do_not_influence_each_other(x):
    classifier = load_model(network())
    both = explain(classifier, x, TARGET).maps
    alone = explain(classifier, x[1:], TARGET[1:]).maps
    assert abs(both[1:] - alone).max() < 1e-5 * abs(alone).max()


def test_one_forward_pass_for_a_batch(x):
    net, calls = network(), []
    with Explainer(load_model(net)) as explainer:
        explainer(x, TARGET)
        net[0].register_forward_hook(lambda *_: calls.append(1))
        explainer(x, TARGET)
    assert len(calls) == 1


def test_the_late_layer_is_the_last_stage_before_the_head():
    nested = nn.Sequential()
    nested.add_module("features", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)))
    nested.add_module("classifier", nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 2)))
    assert late_layer(nested, "classifier.2") == "features.2"
    assert late_layer(nn.Sequential(nested), "0.classifier.2") == "0.features.2"
    assert late_layer(linear_network(), "1") == "1"
    assert late_layer(resnet18(num_classes=2), "fc") == "layer4"


def test_faults_of_the_caller_are_named(x):
    classifier = load_model(network())
    with pytest.raises(UsageError, match="EpsilonPlusFlat"):
        Explainer(classifier, "EpsilonPlus")
    with pytest.raises(UsageError, match="out of range"):
        explain(classifier, x, torch.tensor([0, 4]))
    with pytest.raises(UsageError, match="unknown layer"):
        explain(classifier, x, TARGET, layer="40")
    with pytest.raises(UsageError, match="positive"):
        Explainer(classifier, map_side=0)


def test_an_answer_that_is_no_logits_is_refused(x):
    with pytest.raises(ModelError, match="logits"):
        explain(load_model(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())), x, TARGET)


def test_arrays_and_lists_are_explained_as_the_tensors_that_hold_the_same_numbers(x):
    classifier = load_model((network(), None))
    by_tensors = explain(classifier, x, TARGET, method="EpsilonPlusFlat")
    by_arrays = explain(classifier, x.detach().numpy(), TARGET.tolist(), method="EpsilonPlusFlat")
    assert np.array_equal(by_arrays.maps, by_tensors.maps)


def test_one_image_without_its_batch_and_another_number_of_targets_are_refused_with_a_remedy(x):
    classifier = load_model((network(), None))
    with pytest.raises(UsageError, match=r"\(B, C, D, H, W\)\. Stack"):
        explain(classifier, x[0].detach().numpy(), [0])
    with pytest.raises(UsageError, match=r"one for each of 2 images"):
        explain(classifier, x, [3])
    for none in (x[:0].detach(), (255 * x.detach()).to(torch.uint8)):
        with pytest.raises(UsageError, match=r"at least one image, of floats\. Give images as"):
            explain(classifier, none, [0] * len(none))


def test_a_class_against_another_is_the_relevance_of_the_difference_of_their_logits():
    """Of a linear map: x (w_t - w_o), as a share of the difference where relevance is propagated."""
    network, x, against = linear_network(), torch.randn(2, 3, 4, 4), torch.tensor([1, 4])
    W = network[1].weight.detach()
    want = x.flatten(1) * (W[TARGET] - W[against])
    by_gradient = explain(load_model(network), x, TARGET, against=against, method="GradientTimesInput")
    np.testing.assert_allclose(by_gradient.pixels.reshape(2, -1), want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(by_gradient.head, want, rtol=1e-5, atol=1e-6)
    propagated = explain(load_model(network), x, TARGET, against=against, method="CP-LRP").pixels
    np.testing.assert_allclose(propagated.reshape(2, -1), want / want.sum(1, keepdim=True), rtol=1e-3, atol=1e-5)


def test_a_difference_of_logits_is_that_of_a_network_with_one_layer_more(x):
    plain = nn.Sequential(*network_layers())
    difference = nn.Linear(4, 2, bias=False)
    difference.weight.data = torch.tensor([[0.0, -1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    whole = nn.Sequential(*plain, difference)
    for method in ("EpsilonPlusFlat", "IntegratedGradients"):
        got = explain(load_model(plain), x, 2, against=1, method=method)
        want = explain(load_model(whole), x, 0, method=method)
        np.testing.assert_allclose(got.pixels, want.pixels, rtol=1e-3, atol=1e-5)
        assert got.against.tolist() == [1, 1]


def network_layers():
    return [*network().eval().children()]


@pytest.mark.parametrize("method", ["EpsilonAlpha2Beta1", "GradientTimesInput"])
def test_inner_relevance_is_the_pixels_relevance_of_the_network_from_there_on(x, method):
    """Of the layers after a cut, as a network of its own, whose input are the cut's values."""
    layers = network_layers()
    head, rest = nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:])
    got = explain(load_model(nn.Sequential(*layers)), x, TARGET, method=method, middle="4")
    want = explain(load_model((rest, lambda _: head(x)[0])), head(x).detach(), TARGET, method=method)
    np.testing.assert_allclose(got.inner, want.pixels, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(got.channels, want.pixels.sum((2, 3)), rtol=1e-3, atol=1e-5)


def test_pixels_are_the_maps_before_pooling(x):
    found = explain(load_model(network()), x, TARGET, map_side=5)
    assert found.pixels.shape == x.shape
    np.testing.assert_allclose(pool_relevance(torch.tensor(found.pixels), 5), found.maps, atol=1e-6)


def test_attribution_for_other_libraries_is_the_relevance_of_every_value(x):
    net = network().eval()
    found = attribute(net, x.numpy(), TARGET.numpy(), device="cpu", method="EpsilonGammaBox")
    assert (found == explain(load_model(net), x, TARGET, method="EpsilonGammaBox").pixels).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rules": {"4.nowhere": len}}, "4.nowhere"),
        ({"rules": {nn.LSTM: len}}, "LSTM"),
        ({"rules": {nn.Linear: "epsilon"}}, "a relevance rule; got 'epsilon'"),
        ({"rules": {3: len}}, "belongs to no layer; got 3"),
        ({"rules": {"2": len}}, "a rule that no layer takes; got 2"),
        ({"rules": {"4": len}, "method": "SmoothGrad"}, "belong to relevance propagation; got SmoothGrad"),
        ({"against": TARGET}, "against itself"),
        ({"against": 9}, "out of range"),
    ],
)
def test_rules_and_contrasts_that_make_no_sense_are_refused(x, given, words):
    with pytest.raises(UsageError, match=words):
        explain(load_model(network()), x, TARGET, **given)
