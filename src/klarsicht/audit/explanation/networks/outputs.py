"""Answers of networks as logits, one for each class. A network may answer with what a link function makes of logits
(softmax, log-softmax, sigmoid), or with the one logit y of a class against the rest. The link is removed, and y becomes
two logits (-y/2, y/2), whose softmax is (1 - sigmoid(y), sigmoid(y))."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, logsigmoid

from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import Tap
from klarsicht.ground.errors import ModelError

MULTI_LABEL: Final = "its outputs are independent of each other (multi-label)"
TOLERANCE: Final = 1e-4  # largest difference between an answer and the link function of the head's output
SUM_TOLERANCE: Final = 1e-3  # of probabilities that sum to one


def as_logits(answer: Any) -> Tensor:
    """Extract logits (B, K) from an answer: a tensor, or the attribute or key `logits`, else the only tensor with two
    axes. A tensor (B,) is one output. Raises ModelError where there is no such tensor, or there are several."""
    logits = getattr(answer, "logits", answer)
    if isinstance(logits, Mapping):
        logits = logits["logits"] if "logits" in logits else _only_matrix(logits)
    elif isinstance(logits, tuple | list):
        logits = _only_matrix(dict(enumerate(logits)))
    if isinstance(logits, Tensor) and logits.ndim == 1:
        return logits[:, None]
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        rule = "expected a tensor (B, classes)"
        raise ModelError("the model does not answer with logits", got=describe_answer(logits), rule=rule)
    return logits


def _only_matrix(parts: Mapping[Any, Any]) -> Tensor:
    matrices = {key: part for key, part in parts.items() if isinstance(part, Tensor) and part.ndim == 2}
    if len(matrices) != 1:
        got = f"{len(matrices)} tensors of two axes among {', '.join(map(str, parts)) or 'nothing'}"
        rule, remedy = "expected one tensor (B, classes)", "Return the logits alone, or under the name logits."
        raise ModelError("the model does not answer with logits", got=got, rule=rule, remedy=remedy)
    return next(iter(matrices.values()))


def describe_answer(answer: Any) -> str:
    """Describe a tensor by its shape, anything else by its class."""
    return f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else type(answer).__name__


@dataclass(frozen=True)
class Link:
    """Link function from logits (B, K) to what a network answers, its inverse up to a constant of each image, and the
    layers that compute it."""

    name: str
    function: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]
    modules: tuple[type[nn.Module], ...]


def _log(p: Tensor) -> Tensor:
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()


LINKS: Final = (
    Link("softmax", lambda z: z.softmax(1), _log, (nn.Softmax, nn.Softmax2d)),
    Link("log-softmax", lambda z: log_softmax(z, 1), lambda y: y, (nn.LogSoftmax,)),
    Link("sigmoid", torch.sigmoid, torch.logit, (nn.Sigmoid,)),
    Link("log-sigmoid", logsigmoid, lambda y: torch.logit(y.exp()), (nn.LogSigmoid,)),
)


class LogitsNetwork(nn.Module):
    """Network that returns the logits of `body` as a tensor, also where `body` returns an output object."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return as_logits(self.body(x))


class TruncatedNetwork(nn.Module):
    """Network that answers with what the layer `layer` of another gives, (B, K), and leaves out what follows."""

    def __init__(self, body: nn.Module, layer: str) -> None:
        super().__init__()
        self.body, self.layer = body, layer

    def forward(self, x: Tensor) -> Tensor:
        with Tap(self.body, self.layer) as tap:
            self.body(x)
            logits: Tensor = tap.output
        return logits if logits.ndim == 2 else logits.flatten(1)


class InvertedLink(nn.Module):
    """Network whose answers pass through the inverse of its link function."""

    def __init__(self, body: nn.Module, link: Link) -> None:
        super().__init__()
        self.body, self.link = body, link

    def forward(self, x: Tensor) -> Tensor:
        return self.link.inverse(as_logits(self.body(x)))


class LogitPair(nn.Module):
    """Network with one logit y, answering with (-y/2, y/2), (B, 2)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.pair = nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            self.pair.weight.copy_(torch.tensor([[-0.5], [0.5]]))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.pair(as_logits(self.body(x)))
        return result


def pair_layer(layer: Any) -> Any:
    """Copy a linear layer or convolution with one output y so that it has the two outputs (-y/2, y/2)."""
    pair = copy.deepcopy(layer)
    for name, value in layer.named_parameters():
        setattr(pair, name, nn.Parameter(torch.cat([-value, value]).detach() / 2, value.requires_grad))
    setattr(pair, "out_features" if isinstance(layer, nn.Linear) else "out_channels", 2)
    return pair


@dataclass(frozen=True)
class NetworkAnswers:
    """Answers of a network to n test images: logits (n, K), the output of the head (n, ...), None where it did not run,
    and the name of the last layer without parts, if its output is the answer; else empty."""

    logits: Tensor
    head: Tensor | None
    last: str


def run(module: nn.Module, head: str, images: Tensor) -> NetworkAnswers:
    """Run the network on test images (n, C, H, W), one by one: an exported program may take no batch."""
    logits, outputs, last = [], [], ""
    leaves = {m: name for name, m in module.named_modules() if next(m.children(), None) is None}
    ran: list[tuple[nn.Module, Any]] = []
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(module))
        stack.enter_context(torch.no_grad())
        tap = stack.enter_context(Tap(module, head))
        for leaf in leaves:
            stack.callback(leaf.register_forward_hook(lambda m, _, output: ran.append((m, output))).remove)
        for image in images[:, None]:
            answer = as_logits(module(image))
            logits.append(answer)
            outputs.append(tap.output)
            last = leaves[ran[-1][0]] if ran and _gives(ran[-1][1], answer) else ""
            ran.clear()
    known = all(isinstance(output, Tensor) for output in outputs)
    return NetworkAnswers(torch.cat(logits), torch.cat(outputs) if known else None, last)


def _gives(output: Any, answer: Tensor) -> bool:
    return isinstance(output, Tensor) and output.numel() == answer.numel() and _same(output.view(answer.shape), answer)


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)


def is_distribution(y: Tensor, tolerance: float = SUM_TOLERANCE) -> bool:
    """Test whether answers (n, K) are probabilities of K >= 2 classes."""
    return y.shape[1] > 1 and bool((y >= 0).all() and ((y.sum(1) - 1).abs() < tolerance).all())


def find_link(module: nn.Module, answers: NetworkAnswers) -> Link | None:
    """Find the link function of a network: by its last layer, by its head's output, else by the answers, which reveal a
    softmax and a log-softmax; numbers between 0 and 1 may be logits."""
    y, z = answers.logits, answers.head
    last = type(module.get_submodule(answers.last)) if answers.last else None
    if link := next((link for link in LINKS if last in link.modules), None):
        return link
    if z is not None and z.numel() == y.numel():
        z = z.reshape(y.shape)
        if _same(y, z):
            return None
        if link := next((link for link in LINKS if _same(y, link.function(z))), None):
            return link
    return next((k for k, p in zip(LINKS[:2], (y, y.exp()), strict=True) if is_distribution(p)), None)


def with_logits(module: nn.Module, head: str, images: Tensor) -> tuple[nn.Module, tuple[str, ...]]:
    """Return a network that answers with at least two logits, and what was changed, in words. A network that does so is
    returned as it is; else a copy is changed. Every change is verified on test images (n, C, H, W). Raises ModelError
    for a softmax over one output, which is always 1."""
    before = run(module, head, images)
    link, single = find_link(module, before), before.logits.shape[1] == 1
    if link is None and not single:
        return module, ()
    if single and link is not None and link.name == "softmax":
        remedy = "Remove it, or train with a sigmoid."
        raise ModelError("a softmax over one output", got="1 for every image", remedy=remedy)
    notes = [] if link is None else [f"its final {link.name} is left out: logits are audited"]
    if link is not None and link.name in ("sigmoid", "log-sigmoid") and not single:
        notes.append(MULTI_LABEL)
    if single:
        notes.append(
            "its one output y stands for two logits, (-y/2, y/2), not the class and the class: a score change of 1 "
            "logit is a change of y by 2"
        )
    bare = without_layers(module, head if single else "", before.last if link is not None else "", link)
    for changed in (bare, TruncatedNetwork(bare, head)):
        if _agrees(changed, head, images, before.logits, link):
            return changed, tuple(notes)
    inverted = copy.deepcopy(module) if link is None else InvertedLink(copy.deepcopy(module), link)
    if link is not None:
        notes[0] = f"its final {link.name} is undone by its inverse, as no layer gives the logits"
    return LogitPair(inverted) if single else inverted, tuple(notes)


def without_layers(module: nn.Module, head: str, last: str, link: Link | None) -> nn.Module:
    """Copy the network without its link layer `last`, and with a pair of outputs at `head`; "" leaves either."""
    network = copy.deepcopy(module)
    if last and link is not None and type(network.get_submodule(last)) in link.modules:
        _replace(network, last, nn.Identity())
    if head:
        _replace(network, head, pair_layer(network.get_submodule(head)))
    return network


def _replace(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, layer)


def _agrees(network: nn.Module, head: str, images: Tensor, answers: Tensor, link: Link | None) -> bool:
    """Test whether the link function of the changed network's logits gives the answers (n, K) of before."""
    name = f"body.{head}" if isinstance(network, TruncatedNetwork) else head
    try:
        after = run(network, name, images)
    except Exception:  # a changed network that fails is none; the network itself ran
        return False
    z = after.logits
    if find_link(network, after) is not None:  # log-softmax of itself is itself
        return False
    if answers.shape[1] == 1:
        if z.shape[1] != 2 or not _same(z[:, 0], -z[:, 1]):
            return False
        z = z[:, 1:] - z[:, :1]
    return z.shape == answers.shape and _same(z if link is None else link.function(z), answers)
