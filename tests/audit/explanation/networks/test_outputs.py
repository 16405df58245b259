"""Answers of any form become logits; the link functions of torch are the oracle."""

import pytest
import torch
from torch import nn
from torch.nn.functional import softmax

from klarsicht.audit.explanation.models.classifier import load_model
from klarsicht.audit.explanation.networks.outputs import LogitPair, as_logits, is_distribution
from klarsicht.audit.explanation.relevance.explainer import explain
from klarsicht.ground.errors import ModelError


class Net(nn.Module):
    """Logits z of a small network, and an answer made of them by a function."""

    def __init__(self, classes=4, answer=lambda z: z, ending=None):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(6, classes)
        self.ending = ending
        self.answer = answer
        with torch.no_grad():
            self.head.weight.mul_(20)

    def logits(self, x):
        return self.head(self.body(x))

    def forward(self, x):
        z = self.logits(x)
        return self.answer(z if self.ending is None else self.ending(z))


X = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1))


class Answer:
    def __init__(self, logits):
        self.logits, self.loss = logits, None


FORMS = {
    "tensor": lambda z: z,
    "object": Answer,
    "dictionary": lambda z: {"logits": z, "features": torch.zeros(len(z), 9)},
    "only matrix": lambda z: {"out": z, "map": torch.zeros(len(z), 1, 2, 2)},
    "tuple": lambda z: (z, None),
    "list": lambda z: [torch.zeros(len(z), 2, 2), z],
}


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_found_in_answers_of_any_form(form):
    net = Net(answer=FORMS[form]).eval()
    classifier = load_model(net)
    assert classifier.module is net
    assert torch.equal(classifier.logits(X), net.logits(X))
    assert classifier.n_classes == 4


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"a": torch.zeros(2, 3), "b": torch.zeros(2, 5)}, "2 tensors of two axes among a, b"),
        ((None, 3), "0 tensors of two axes among 0, 1"),
        ((), "among nothing"),
        (torch.zeros(2, 3, 4), r"\(2, 3, 4\)"),
        ("text", "str"),
    ],
)
def test_answers_without_logits_are_described(answer, told):
    with pytest.raises(ModelError, match=told):
        as_logits(answer)


ENDINGS = {
    "softmax layer": {"ending": nn.Softmax(1)},
    "log-softmax layer": {"ending": nn.LogSoftmax(1)},
    "sigmoid layer": {"ending": nn.Sigmoid()},
    "softmax": {"answer": lambda z: z.softmax(1)},
    "log-softmax": {"answer": lambda z: z.log_softmax(1)},
    "sigmoid": {"answer": torch.sigmoid},
    "softmax in a dictionary": {"answer": lambda z: {"probabilities": z.softmax(1)}},
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_final_link_function_is_left_out_and_the_network_given_is_not_changed(ending):
    net = Net(**ENDINGS[ending]).eval()
    before, said = net.logits(X), net(X)
    classifier = load_model(net)
    torch.testing.assert_close(classifier.logits(X), before)
    assert ending.split()[0] in " ".join(classifier.notes)
    assert classifier.n_classes == 4
    assert torch.equal(net.logits(X), before)
    assert str(net(X)) == str(said)


@pytest.mark.parametrize("ending", ["softmax layer", "softmax", "sigmoid"])
def test_relevance_is_that_of_the_logits(ending):
    """Oracle: the same network without the ending."""
    targets = torch.tensor([0, 1, 2, 3, 0])
    bare = explain(load_model(Net().eval()).with_outputs(ending == "sigmoid"), X, targets, map_side=8)
    found = explain(load_model(Net(**ENDINGS[ending]).eval()), X, targets, map_side=8)
    assert torch.allclose(torch.from_numpy(found.maps), torch.from_numpy(bare.maps), atol=1e-6)
    assert torch.allclose(torch.from_numpy(found.head), torch.from_numpy(bare.head), atol=1e-6)


def test_a_network_that_was_cut_off_can_be_exported():
    """Cleaning exports the corrected model by torch.export."""
    classifier = load_model(Net(**ENDINGS["softmax"]).eval())
    program = torch.export.export(classifier.module, (X,)).module()
    torch.testing.assert_close(program(X), classifier.logits(X))


class Prototypes(nn.Module):
    """Class probabilities that no layer has logits of: softmax of negative distances to the outputs of a layer."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 4)

    def forward(self, x):
        return softmax(-(self.layer(x.mean((2, 3))) ** 2) * 30, 1)


def test_a_softmax_of_no_layer_is_undone_by_the_logarithm():
    net = Prototypes().eval()
    classifier = load_model(net)
    torch.testing.assert_close(classifier.logits(X), net(X).log())
    torch.testing.assert_close(classifier.logits(X).softmax(1), net(X))
    assert "undone" in classifier.notes[-1]


# one output

SINGLES = {
    "(B, 1)": {},
    "(B,)": {"answer": lambda z: z.squeeze(1)},
    "first column": {"answer": lambda z: z[:, 0]},
    "flat": {"answer": lambda z: z.view(-1)},
    "sigmoid layer": {"ending": nn.Sigmoid()},
    "sigmoid": {"answer": lambda z: z.sigmoid().squeeze(1)},
}


@pytest.mark.parametrize("form", SINGLES)
def test_one_output_becomes_two_logits_whose_softmax_is_its_sigmoid(form):
    net = Net(classes=1, **SINGLES[form]).eval()
    y = net.logits(X)[:, 0]
    classifier = load_model(net, classes=["hen"])
    torch.testing.assert_close(classifier.logits(X), torch.stack([-y / 2, y / 2], 1))
    torch.testing.assert_close(classifier.logits(X).softmax(1)[:, 1], y.sigmoid())
    assert classifier.classes == ("not hen", "hen")
    assert "two logits" in classifier.notes[-1] and "1 logit is a change of y by 2" in classifier.notes[-1]
    assert net.head.out_features == 1


def test_relevance_of_one_output_is_shared_evenly():
    """Laws: maps of the two classes are opposite, and head relevance sums to y / 2 less the bias."""
    net = Net(classes=1).eval()
    classifier = load_model(net)
    hen, other = (
        explain(classifier, X, torch.full((5,), target), method="GradientTimesInput", map_side=8) for target in (1, 0)
    )
    assert torch.allclose(torch.from_numpy(hen.maps), -torch.from_numpy(other.maps), atol=1e-6)
    expected = (net.logits(X)[:, 0] - net.head.bias) / 2
    torch.testing.assert_close(torch.from_numpy(hen.head.sum(1)), expected.detach())


def test_one_output_of_a_convolution():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = load_model(net.eval())
    torch.testing.assert_close(classifier.logits(X), net(X) * torch.tensor([[-0.5, 0.5]]))
    assert isinstance(classifier.module, nn.Sequential)


class Distance(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x):
        return self.layer(x.mean((2, 3))).square().sum(1) - 1


def test_one_output_of_no_layer_gets_a_layer_of_its_own():
    net = Distance().eval()
    classifier = load_model(net)
    assert isinstance(classifier.module, LogitPair)
    torch.testing.assert_close(classifier.logits(X), net(X)[:, None] * torch.tensor([[-0.5, 0.5]]))


@pytest.mark.parametrize("make", [{"ending": nn.Softmax(1)}, {"answer": lambda z: z.softmax(1)}])
def test_a_softmax_over_one_output_is_refused(make):
    with pytest.raises(ModelError, match="softmax over one output"):
        load_model(Net(classes=1, **make).eval())


def test_several_sigmoids_are_said_to_be_multi_label():
    several = load_model(Net(ending=nn.Sigmoid()).eval())
    assert "multi-label" in several.notes[-1] and several.independent
    assert not several.with_outputs(False).independent and several.with_outputs(None) is several
    for ending, classes in ((None, 4), (nn.Softmax(1), 4), (nn.Sigmoid(), 1)):
        assert not load_model(Net(classes, ending=ending).eval()).independent
    assert load_model(Net(ending=nn.LogSigmoid()).eval()).independent


def test_logits_between_0_and_1_are_not_taken_for_probabilities():
    net = Net(answer=lambda z: z.clamp(0, 1)).eval()
    assert load_model(net).module is net
    assert not is_distribution(torch.tensor([[0.2, 0.3]]))
    assert is_distribution(torch.tensor([[0.25, 0.75]]))
    assert not is_distribution(torch.ones(3, 1))
