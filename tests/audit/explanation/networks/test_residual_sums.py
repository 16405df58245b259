"""Sums of two branches: their names against the code of networks, changed ones against the network written out."""

import pytest
import torch
from torch import nn

from klarsicht.audit.explanation.networks.residual_sums import ResidualSum, change_sum, list_sums
from klarsicht.ground.errors import ModelError


class Block(nn.Module):
    """x + f(x), by one of the ways in which people write it."""

    def __init__(self, way):
        super().__init__()
        self.f, self.way = nn.Conv2d(4, 4, 1), way

    def forward(self, x):
        y = torch.tanh(self.f(x))
        if self.way == "+=":
            y += x
        elif self.way == "add_":
            y.add_(x)
        elif self.way == "alpha":
            y = torch.add(y, x, alpha=1)
        else:
            y = x + y
        return y


WAYS = ("+", "+=", "add_", "alpha")


class Network(nn.Module):
    """Two blocks, a sum of its own between them, and sums that are none of two activations of one shape."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.head = Block(way), Block(way), nn.Linear(4, 3)
        self.shift = nn.Parameter(torch.rand(1, 4, 5, 5))

    def forward(self, x):
        x = x + self.shift  # one of them is the same for all images
        x = x + 1
        x = self.one(x)
        x = self.two(x + x.flip(1))
        return self.head(x.mean((2, 3)) + x.amax((2, 3)))  # no positions


def written_out(net, x, change, at):
    """The network with one of its sums changed: at block one, between, or at block two."""

    def block(b, x, on):
        y = x + torch.tanh(b.f(x))
        return change(y) if on else y

    x = block(net.one, x + net.shift + 1, at == "one:sum1")
    x = x + x.flip(1)
    x = change(x) if at == ":sum3" else x
    x = block(net.two, x, at == "two:sum1")
    return net.head(x.mean((2, 3)) + x.amax((2, 3)))


@pytest.mark.parametrize("way", WAYS)
def test_sums_are_named_and_changed_whatever_the_code_looks_like(way):
    net, x = Network(way).eval(), torch.rand(2, 4, 5, 5)
    with torch.no_grad():
        plain = net(x)
        names = list_sums(net, lambda: net(x))
        assert names == ("one:sum1", ":sum3", "two:sum1")
        for name in names:
            with change_sum(net, ResidualSum.parse(name), lambda a: 3 - 2 * a):
                torch.testing.assert_close(net(x), written_out(net, x, lambda a: 3 - 2 * a, name))
                torch.testing.assert_close(net(x[:1]), net(x)[:1])  # one image: the same numbers
        torch.testing.assert_close(net(x), plain, atol=0, rtol=0)  # given back


def test_a_sum_that_is_the_input_of_a_layer_or_has_several_calls_is_left_out():
    net, x = Network("+").eval(), torch.rand(2, 4, 5, 5)
    net.two = net.one
    with torch.no_grad():
        assert list_sums(net, lambda: net(x)) == (":sum3",)  # one:sum1 is computed twice
        net = Network("+").eval()
        assert list_sums(net, lambda: net(x), beside=("two",)) == ("one:sum1", "two:sum1")


def test_a_sum_is_looked_at_also_where_it_is_changed():
    net, x = Network("+=").eval(), torch.rand(2, 4, 5, 5)
    name = ResidualSum("one", 1)
    start = x + net.shift + 1
    expected = start + torch.tanh(net.one.f(start))
    seen = []
    with torch.no_grad(), change_sum(net, name, lambda a: seen.append(a) or a):
        net(x)
    with torch.no_grad(), change_sum(net, name, torch.neg), change_sum(net, name, lambda a: seen.append(a) or a):
        net(x)
    torch.testing.assert_close(seen, [expected, -expected])


def test_two_sums_of_one_module_and_one_twice_are_changed_in_order():
    net, x = Network("+=").eval(), torch.rand(2, 4, 5, 5)

    def change(a):
        return 2 * a + 1

    with torch.no_grad():
        with (
            change_sum(net, ResidualSum("", 3), change),
            change_sum(net, ResidualSum("two", 1), change),
            change_sum(net, ResidualSum("two", 1), torch.exp),
        ):
            found = net(x)
        between = net.one(x + net.shift + 1)
        between = change(between + between.flip(1))
        last = torch.exp(change(between + torch.tanh(net.two.f(between))))
        torch.testing.assert_close(found, net.head(last.mean((2, 3)) + last.amax((2, 3))))


def test_a_network_without_that_sum_is_refused_and_one_that_fails_is_given_back():
    net, x = Network("+").eval(), torch.rand(2, 4, 5, 5)
    with pytest.raises(ModelError, match="sum 2 of 1"), change_sum(net, ResidualSum("one", 2), torch.exp):
        net(x)
    with pytest.raises(RuntimeError), change_sum(net, ResidualSum("one", 1), torch.exp):
        net(torch.rand(2, 3, 5, 5))
    with torch.no_grad():
        torch.testing.assert_close(net(x), written_out(net, x, None, ""), atol=0, rtol=0)


def test_sums_of_an_exported_program_are_found():
    net, x = Network("+=").eval(), torch.rand(2, 4, 5, 5)
    program = torch.export.export(net, (x,)).module()
    with torch.no_grad():
        assert list_sums(program, lambda: program(x)) == (":sum2", ":sum3", ":sum4")  # the first adds the shift
        with change_sum(program, ResidualSum("", 4), torch.exp):
            torch.testing.assert_close(program(x), written_out(net, x, torch.exp, "two:sum1"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_part_hides_its_sums_and_no_others():
    net, x = Network("+").eval(), torch.rand(2, 4, 5, 5)
    net.one = torch.jit.trace(net.one, x)
    with torch.no_grad():
        assert list_sums(net, lambda: net(x)) == (":sum2", "two:sum1")  # the first adds the shift


def test_names_are_read_as_they_are_written():
    for name in (ResidualSum("layer4.1", 12), ResidualSum("", 1)):
        assert ResidualSum.parse(str(name)) == name
    assert ResidualSum.parse("layer4.1") is None
    assert ResidualSum.parse("odd:sum") is None
