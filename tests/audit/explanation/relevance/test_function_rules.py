"""Rules of torch functions: closed forms, input times gradient with what is held fixed detached, and laws."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torchvision.models import VisionTransformer

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.relevance import composites, rules
from klarsicht.audit.explanation.relevance.batch_norms import BatchNorm
from klarsicht.audit.explanation.relevance.composites import Composite
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.audit.explanation.relevance.function_calls import ModulePath, RulePlan
from klarsicht.audit.explanation.relevance.function_rules import RuleMode, find_norms_to_merge
from klarsicht.audit.explanation.relevance.propagation import Recorder, SoftmaxFunction
from klarsicht.ground.errors import NotConserving

EPSILON_EVERYWHERE = Composite(rules.epsilon)


@pytest.fixture(autouse=True)
def same_numbers():
    torch.manual_seed(4)


def propagate(f, *xs, R=None):
    """Relevance of each x for the outputs of f, and the balances."""
    xs = [x.clone().requires_grad_() for x in xs]
    recorder = Recorder(len(xs[0]))
    with RuleMode(RulePlan(EPSILON_EVERYWHERE, ModulePath()), recorder):
        y = f(*xs)
    R = torch.rand_like(y) if R is None else R
    return torch.autograd.grad(y, xs, R), recorder.entries, R, y.detach()


def draw(*shape):
    return torch.randn(2, *shape, dtype=torch.float64)


def test_a_sum_is_shared_in_proportion():
    a, b = torch.tensor([[6.0], [1.0]]), torch.tensor([[2.0], [3.0]])
    (of_a, of_b), _, _, _ = propagate(lambda a, b: a + b, a, b, R=torch.tensor([[8.0], [4.0]]))
    assert of_a.flatten().tolist() == pytest.approx([6, 1], rel=1e-5)
    assert of_b.flatten().tolist() == pytest.approx([2, 3], rel=1e-5)


def test_a_difference_and_scaled_sums_are_sums_of_what_is_added():
    a, b = draw(3), draw(3)
    for f, g in ((lambda a, b: a - b, -b), (lambda a, b: torch.add(a, b, alpha=3), 3 * b)):
        (of_a, of_b), _, R, _ = propagate(f, a, b)
        torch.testing.assert_close(of_a, R * a / (a + g), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(of_b, R * g / (a + g), rtol=1e-4, atol=1e-4)


def test_an_added_constant_absorbs_its_share():
    x = torch.tensor([[1.0], [2.0]])
    (of_x,), (entry,), _, _ = propagate(lambda x: 3 + x, x, R=torch.tensor([[4.0], [5.0]]))
    assert of_x.flatten().tolist() == pytest.approx([1, 2], rel=1e-5)
    assert entry.bias.tolist() == pytest.approx([3, 3], rel=1e-5)


@pytest.mark.parametrize("gated", [lambda x, g: x * g, lambda x, g: g * x, lambda x, g: x.mul(g)])
def test_a_gate_gets_nothing(gated):
    x, g = draw(5, 4, 4), draw(5, 1, 1)
    xs = [x.requires_grad_(), g.requires_grad_()]
    recorder = Recorder(2)
    with RuleMode(RulePlan(EPSILON_EVERYWHERE, ModulePath()), recorder):
        y = gated(*xs)
    R = torch.rand_like(y)
    of_x, of_g = torch.autograd.grad(y, xs, R, allow_unused=True)
    assert torch.equal(of_x, R) and of_g is None


def test_a_gate_of_the_same_size_is_known_by_its_sigmoid():
    x = draw(6)
    (of_x,), _, R, _ = propagate(lambda x: x * torch.sigmoid(x), x)  # through the signal alone
    assert torch.equal(of_x, R)
    (of_x,), _, R, _ = propagate(lambda x: functional.glu(x, -1), draw(6))
    assert torch.equal(of_x, torch.cat([R, torch.zeros_like(R)], 1))


def test_two_factors_of_equal_standing_get_half_each():
    a, b = draw(4), draw(4)
    (of_a, of_b), _, R, _ = propagate(lambda a, b: a * b, a, b)
    torch.testing.assert_close(of_a, R / 2, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(of_b, R / 2, rtol=1e-4, atol=1e-4)


def test_heads_stacked_before_the_images_are_summed_over_heads():
    """The first axis of the stack counts heads; books are of each image, for as many heads as images, too."""
    for heads in (2, 3):
        x, W = draw(5), torch.randn(heads, 4, 5, dtype=torch.float64)
        for mean in (lambda y: y.mean(0), lambda y: torch.sum(y, dim=0), lambda y: y.mean(dim=(0,))):
            (got,), entries, R, _ = propagate(lambda x, W=W, m=mean: m(torch.stack([x @ w.T for w in W])), x)
            leaf = x.clone().requires_grad_()
            y = mean(torch.stack([leaf @ w.T for w in W]))
            (gradient,) = torch.autograd.grad(y, leaf, R / y.detach())
            torch.testing.assert_close(got, x * gradient, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(entries[0].outgoing, R.sum(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: functional.avg_pool2d(x, 2),
        lambda x: x.mean((2, 3)),
        lambda x: torch.einsum("bchw,ck->bkhw", x, torch.ones(3, 5, dtype=x.dtype)),
        lambda x: x.flatten(2) @ torch.linspace(-1, 1, 16, dtype=x.dtype).reshape(16, 1),
        lambda x: x.flatten(1).cumsum(1),
    ],
)
def test_linear_functions_are_input_times_gradient_of_the_ratio(f):
    """Epsilon of z = A x is x . A^T (R / z), with A^T by autograd on the plain function."""
    x = draw(3, 4, 4)
    (got,), (entry,), R, z = propagate(f, x)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(leaf), leaf, R / (z + rules.EPSILON * torch.where(z >= 0, 1.0, -1.0)))
    torch.testing.assert_close(got, x * gradient)
    torch.testing.assert_close(entry.residual, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.GroupNorm(3, 6), nn.InstanceNorm1d(6, affine=True)])
def test_norms_are_affine_maps_with_their_deviation_held_fixed(norm):
    norm = norm.double().requires_grad_(False)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    x = draw(6, 6)
    (got,), entries, R, y = propagate(norm, x)
    torch.testing.assert_close(y, norm(x))
    s = R / (y + rules.EPSILON * torch.where(y >= 0, 1.0, -1.0))
    # written as a matrix of the deviations at x, image by image
    for i in range(2):
        held = y[i].flatten() - norm(x).detach()[i].flatten()
        assert abs(held).max() < 1e-12
        A = linear_part(norm, x[i])
        torch.testing.assert_close(got[i].flatten(), x[i].flatten() * (A.T @ s[i].flatten()), rtol=1e-6, atol=1e-9)
    assert sum(float(e.residual.abs().max()) for e in entries) < 1e-9


def linear_part(norm, x):
    """Matrix of x -> (x - mean) / deviation * weight of one sample (6, 6), the deviation taken at x, by loops."""
    n = x.numel()
    A = torch.zeros(n, n, dtype=torch.float64)
    groups = {
        nn.LayerNorm: [[r * 6 + c for c in range(6)] for r in range(6)],
        nn.GroupNorm: [[r * 6 + c for r in (2 * g, 2 * g + 1) for c in range(6)] for g in range(3)],
        nn.InstanceNorm1d: [[r * 6 + c for c in range(6)] for r in range(6)],
    }[type(norm)]
    flat = x.flatten()
    for members in groups:
        mean = sum(flat[m] for m in members) / len(members)
        deviation = math.sqrt(sum((flat[m] - mean) ** 2 for m in members) / len(members) + norm.eps)
        for i in members:
            weight = norm.weight[i % 6 if isinstance(norm, nn.LayerNorm) else i // 6]
            for j in members:
                A[i, j] = ((i == j) - 1 / len(members)) / deviation * weight
    return A


def test_attention_gives_relevance_to_values_by_its_weights():
    q, k, v = draw(1, 3, 4), draw(1, 3, 4), draw(1, 3, 4)
    A = (q @ k.transpose(-1, -2) / 2).softmax(-1)
    weights = {
        "fused": lambda v: functional.scaled_dot_product_attention(q, k, v),
        "written out": lambda v: ((q @ k.transpose(-1, -2)) * 0.5).softmax(-1) @ v,
    }
    for f in weights.values():
        (got,), _, R, y = propagate(f, v)
        by_hand = torch.zeros_like(v)
        for b in range(2):
            for i in range(3):  # token i of the output, its value c, from token j
                for c in range(4):
                    for j in range(3):
                        by_hand[b, 0, j, c] += A[b, 0, i, j] * v[b, 0, j, c] * R[b, 0, i, c] / y[b, 0, i, c]
        torch.testing.assert_close(got, by_hand, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("how", [lambda x, m: x * m, lambda x, m: m * x, lambda x, m: x.mul(m.expand_as(x))])
def test_what_is_multiplied_by_zero_gets_no_relevance(how):
    """As of `masked_fill`, which is the same function."""
    x, mask = draw(3, 4), torch.tensor([1.0, 0.0, 2.0, 0.0], dtype=torch.float64)
    (got,), (entry,), R, y = propagate(lambda x: how(x, mask), x)
    torch.testing.assert_close(got, R * (mask != 0))
    torch.testing.assert_close(entry.bias, (R * (mask == 0)).sum((1, 2)))
    assert torch.equal(y, x * mask)
    (got,), (entry,), R, y = propagate(lambda x: x * 0, x)
    assert not got.any() and not y.any()


def test_a_channel_of_weight_zero_gets_no_relevance():
    """The norm of such a channel is its bias, whatever the channel holds."""
    norm = torch.nn.BatchNorm2d(3).double().eval()
    norm.weight.data[1] = 0
    (got,), _, R, _ = propagate(norm, draw(3, 2, 2))
    torch.testing.assert_close(got, R * torch.tensor([1.0, 0.0, 1.0])[:, None, None])


def test_concatenated_and_chosen_constants_absorb_what_reaches_them():
    x, token = draw(3, 4), torch.ones(1, 1, 4, dtype=torch.float64)
    (got,), (entry,), R, _ = propagate(lambda x: torch.cat([token.expand(2, -1, -1), x], 1), x)
    assert torch.equal(got, R[:, 1:])
    torch.testing.assert_close(entry.bias, R[:, 0].sum(1))
    mask = torch.rand(2, 3, 4) < 0.5
    (got,), (entry,), R, _ = propagate(lambda x: x.masked_fill(mask, 2.0), x)
    torch.testing.assert_close(got, R * ~mask)
    torch.testing.assert_close(entry.bias, (R * mask).sum((1, 2)))


def test_padding_of_a_function_absorbs_the_border():
    (got,), (entry,), R, _ = propagate(lambda x: functional.pad(x, (1, 0, 0, 2), value=3.0), draw(1, 4, 4))
    assert torch.equal(got, R[..., :-2, 1:])
    torch.testing.assert_close(entry.bias, R.sum((1, 2, 3)) - R[..., :-2, 1:].sum((1, 2, 3)))


def test_windows_of_an_image_are_counted_to_it():
    x = draw(4, 6)
    (_,), (entry,), R, _ = propagate(lambda x: functional.linear(x.reshape(4, 2, 6), torch.ones(3, 6).double()), x)
    torch.testing.assert_close(entry.incoming, R.reshape(2, -1).sum(1))


def test_a_tensor_whose_first_axis_is_not_of_images_is_refused():
    with pytest.raises(NotConserving, match="first axis"):
        propagate(lambda x: functional.linear(x.movedim(0, 1), torch.ones(3, 6).double()), draw(5, 6))


def test_a_merged_norm_computes_layer_and_norm():
    conv, norm = nn.Conv2d(3, 4, 3, bias=False).double(), nn.BatchNorm2d(4).double().eval()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    norm.running_mean.normal_()
    x = draw(3, 5, 5)
    with torch.no_grad(), find_norms_to_merge() as found:
        want = norm(conv(x))
    W, b = found.norms[0].merge(conv.weight, None)
    torch.testing.assert_close(functional.conv2d(x, W, b), want)
    plain = BatchNorm(norm.running_mean, norm.running_var, None, None, norm.eps).merge(conv.weight, None)
    bare = (conv(x) - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
    torch.testing.assert_close(functional.conv2d(x, *plain), bare)


class HoldFixed(TorchFunctionMode):
    """Network with deviations, attention, slopes of activations and gates held fixed: LRP-epsilon without its epsilon
    is input times gradient of this network (Ali et al., ICML 2022)."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is functional.layer_norm:
            x = args[0]
            deviation = (x.var(-1, unbiased=False, keepdim=True) + kwargs["eps"]).sqrt().detach()
            return (x - x.mean(-1, keepdim=True)) / deviation * kwargs["weight"] + kwargs["bias"]
        if function in (functional.gelu, functional.relu):
            y = function(*args, **kwargs)
            return args[0] * (y / args[0]).detach()
        if function is functional.multi_head_attention_forward:
            return self.attend(*args, **kwargs)
        return function(*args, **kwargs)

    def __init__(self, attention_weights):
        super().__init__()
        self.attention_weights = attention_weights

    def product(self, a, b):
        """a @ b, whose gradient goes to b, or half to each factor."""
        if self.attention_weights:
            return (a @ b.detach() + a.detach() @ b) / 2
        return a.detach() @ b

    def attend(self, q, k, v, E, heads, W, b, _k, _v, _zero, _p, out_W, out_b, **_):
        def split(x, i):
            y = x.transpose(0, 1) @ W[i * E : (i + 1) * E].T + b[i * E : (i + 1) * E]
            return y.reshape(*y.shape[:2], heads, -1).transpose(1, 2)

        Q, K, V = (split(x, i) for i, x in enumerate((q, k, v)))
        A = (self.product(Q, K.transpose(-1, -2)) / math.sqrt(E // heads)).softmax(-1)
        y = self.product(A, V).transpose(1, 2).flatten(2)
        return (y @ out_W.T + out_b).transpose(0, 1), None


@pytest.mark.parametrize("attention_weights", [False, True])
def test_a_vision_transformer_is_input_times_gradient_of_what_is_not_held_fixed(monkeypatch, attention_weights):
    """Where attention weights receive relevance, half of it goes to each factor of a product, and the softmax is
    input times gradient (Achtibat et al., ICML 2024)."""
    plan = Composite(rules.epsilon, attention_weights=attention_weights)
    monkeypatch.setitem(composites.PROPAGATIONS, "EpsilonPlusFlat", lambda box: plan)
    network = VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    x, target = draw(3, 16, 16), torch.tensor([0, 2])
    model = load_model((network, lambda _: torch.zeros(3, 16, 16)))
    found = explain(model, x, target, method="EpsilonPlusFlat", map_side=16)
    assert abs(found.residual).max() < 1e-9
    leaf = x.clone().requires_grad_()
    with HoldFixed(attention_weights):
        logits = network(leaf)
    score = logits.gather(1, target[:, None])[:, 0]
    (gradient,) = torch.autograd.grad((score / score.detach()).sum(), leaf)
    want = (x * gradient).sum(1).numpy()
    assert abs(found.maps - want).max() < 1e-3 * abs(want).max()


LXT = [
    [0.00190941, 0.001892618, -0.001393082, -0.001969731],
    [-0.001402662, 0.001810215, 0.001739942, -0.00132837],
    [-0.001840227, -0.001279188, 0.001766205, 0.001609573],
    [0.000878515, -0.001788131, -0.001182973, 0.001774973],
]
"""Relevance of the patches of the network below by LXT 2.1 (its CP-LRP for torchvision's vision transformers, input
times gradient in float64, without an epsilon), over the logit."""


def test_patches_of_a_vision_transformer_agree_with_lxt(monkeypatch):
    monkeypatch.setattr(rules, "EPSILON", 1e-12)  # LXT has none there
    monkeypatch.setitem(composites.PROPAGATIONS, "EpsilonPlusFlat", lambda box: EPSILON_EVERYWHERE)
    network = VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=3).double().eval()
    with torch.no_grad():
        for k, p in enumerate(network.parameters()):
            wave = torch.sin(torch.arange(p.numel(), dtype=torch.float64) * (k + 1.7) + k)
            p.copy_(0.4 * wave.reshape(p.shape))
    x = torch.cos(torch.arange(3 * 256, dtype=torch.float64) * 0.37).reshape(1, 3, 16, 16)
    model = load_model((network, lambda _: torch.zeros(3, 16, 16)))
    found = explain(model, x, torch.tensor([2]), method="EpsilonPlusFlat", map_side=4)
    assert abs(found.maps[0] - torch.tensor(LXT).numpy()).max() < 1e-5 * abs(found.maps).max()


def test_softmax_is_its_first_order_expansion():
    x, mask = draw(3, 4), torch.tensor([0.0, 0.0, -math.inf, 0.5], dtype=torch.float64)
    leaf, recorder = x.clone().requires_grad_(), Recorder(2)
    y = SoftmaxFunction.apply("softmax", recorder, leaf, mask)
    torch.testing.assert_close(y, (x + mask).softmax(-1))
    R = torch.rand_like(y) * (mask > -math.inf)
    (got,) = torch.autograd.grad(y, leaf, R)
    for b in range(2):
        for i in range(3):
            J = torch.autograd.functional.jacobian(lambda v: (v + mask).softmax(-1), x[b, i])
            safe = torch.where(y[b, i] > 0, y[b, i].detach(), 1.0)
            torch.testing.assert_close(got[b, i], x[b, i] * (J.T @ (R[b, i] / safe)))
    assert abs(recorder.entries[0].residual).max() < 1e-12


def test_written_out_attention_is_as_the_fused_one():
    q, k, v, W = draw(1, 3, 4), draw(1, 3, 4), draw(1, 3, 4), torch.randn(4, 4, dtype=torch.float64)
    plan = Composite(rules.epsilon, attention_weights=True)

    def attend(written, x):
        query, key, value = functional.linear(q + x, W), functional.linear(k + x, W), v + x
        if written:
            return ((query @ key.transpose(-1, -2)) * 0.5).softmax(-1) @ value
        return functional.scaled_dot_product_attention(query, key, value)

    found = []
    for written in (True, False):
        x, recorder = draw(1, 3, 4) * 0 + 0.5, Recorder(2)
        x.requires_grad_()
        with RuleMode(RulePlan(plan, ModulePath()), recorder):
            y = attend(written, x)
        found.append(torch.autograd.grad(y, x, torch.ones_like(y))[0])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("network", "method"), [("attention", "GammaAttention"), ("none", "EpsilonPlusFlat")])
def test_auto_takes_the_composite_that_fits_the_network(network, method):
    layers = {
        "attention": VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3),
        "none": nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 196, 3)),
    }
    model = load_model((layers[network], lambda _: torch.zeros(3, 16, 16)))
    assert explain(model, torch.randn(1, 3, 16, 16), torch.tensor([0])).method == method


def test_what_is_written_into_a_product_in_place_is_as_what_is_joined_to_it():
    """As relative positions are written into attention by MViT (Li et al. 2022)."""

    def write(q, k, c):
        y = q @ k
        y[:, 1:] = y[:, 1:] + c
        return y

    def join(q, k, c):
        y = q @ k
        return torch.cat([y[:, :1], y[:, 1:] + c], 1)

    tensors, R = (draw(4, 3), draw(3, 5), draw(3, 5)), torch.rand(2, 4, 5, dtype=torch.float64)
    (written, _, _, y), (joined, _, _, expected) = (propagate(f, *tensors, R=R) for f in (write, join))
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(written, joined)


def test_a_change_in_place_whose_result_is_not_used_is_seen():
    class InPlace(nn.Module):
        def __init__(self, in_place):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.fc, self.in_place = nn.Linear(4, 3), in_place

        def forward(self, x):
            x = self.conv1(x)
            y = self.conv2(functional.relu(x))
            if self.in_place:
                y.mul_(0.5).clamp_(max=1.0)
                y += x
            else:
                y = (y * 0.5).clamp(max=1.0) + x
            return self.fc(y.mean((2, 3)))

    one, two = InPlace(True), InPlace(False)
    two.load_state_dict(one.state_dict())
    x, target = torch.randn(2, 3, 8, 8), torch.tensor([0, 2])
    found = [explain(load_model((m, lambda _: torch.zeros(3, 8, 8))), x, target).maps for m in (one, two)]
    assert (found[0] == found[1]).all()
