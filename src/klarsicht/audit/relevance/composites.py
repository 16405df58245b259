"""Relevance methods by name: which rule each kind of layer gets, and which layers have none.

The composites are those of Kohlbrenner et al. (IJCNN 2020) and Lapuschkin et al. (Nature Communications 2019)
as zennit names them. zennit also supplies the canonizers that merge batch norms and name the additions of
torchvision's residual blocks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from torchvision.ops import StochasticDepth
from zennit.canonizers import NamedMergeBatchNorm
from zennit.core import Composite as ZennitComposite
from zennit.layer import Sum
from zennit.torchvision import ResNetBasicBlockCanonizer, ResNetBottleneckCanonizer

from klarsicht.audit.relevance import rules
from klarsicht.audit.relevance.propagation import Recorder, Step, padded, passed, removed, ruled, steps_in_place
from klarsicht.audit.relevance.rules import Layer, Rule
from klarsicht.ground.errors import UnsupportedLayer, unknown_name

Box = tuple[tuple[float, ...], tuple[float, ...]]
"""Lowest and highest value of a pixel in each channel, in the units the model takes."""

CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
LINEARS: Final = (*CONVOLUTIONS, nn.Linear)
BATCH_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
SUMS: Final = (
    *(Sum, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
)
ACTIVATIONS: Final = (
    *(
        nn.ReLU,
        nn.ReLU6,
        nn.LeakyReLU,
        nn.PReLU,
        nn.RReLU,
        nn.ELU,
        nn.CELU,
        nn.SELU,
        nn.GELU,
        nn.SiLU,
        nn.Mish,
    ),
    *(
        nn.Hardswish,
        nn.Hardtanh,
        nn.Softplus,
        nn.Tanh,
        nn.Softsign,
        nn.Hardshrink,
        nn.Softshrink,
        nn.Threshold,
    ),
)
CONSTANT_PADS: Final = (
    *(nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
    *(nn.ConstantPad1d, nn.ConstantPad2d, nn.ConstantPad3d),
)

PRESERVING: Final = (
    *(nn.Identity, nn.Flatten, nn.Unflatten, StochasticDepth, nn.Sequential, nn.ModuleList, nn.ModuleDict),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.FractionalMaxPool2d),
    *(nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d, nn.ReplicationPad2d),
    *(nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle, nn.Upsample),
)
"""Layers whose gradient already hands relevance down without loss: each output is one input, or an average of
weights."""

REMEDY: Final = "Use a gradient method (GradientTimesInput, IntegratedGradients, SmoothGrad) or head relevance"


@dataclass(frozen=True)
class Composite:
    """The rule of the first layer among `first_kinds`, of the other convolutions, and of fully connected
    layers."""

    convolution: Rule
    linear: Rule = rules.epsilon
    first: Rule | None = None
    first_kinds: tuple[type[nn.Module], ...] = LINEARS


PROPAGATIONS: Final[dict[str, Callable[[Box], Composite]]] = {
    "EpsilonPlusFlat": lambda box: Composite(rules.zplus, first=rules.flat),
    "EpsilonGammaBox": lambda box: Composite(rules.gamma(0.25), first=rules.zbox(*box), first_kinds=CONVOLUTIONS),
    "EpsilonAlpha2Beta1": lambda box: Composite(rules.alpha2_beta1),
}
"""Composites by name; each is given the bounds of the pixels."""


def composite(name: str, box: Box) -> Composite:
    """Raises UsageError naming near matches."""
    if name not in PROPAGATIONS:
        raise unknown_name("composite", name, PROPAGATIONS)
    return PROPAGATIONS[name](box)


def unsupported(module: nn.Module) -> tuple[str, ...]:
    """Layers without a rule, each as "Kind at name": leaves of unknown kind, kinds that override a known
    forward, batch norms that cannot be merged, and parameters held outside any leaf."""
    return tuple(
        f"{type(child).__name__} at {name or 'the root'}{why}"
        for name, child in module.named_modules()
        if (why := _objection(child)) is not None
    )


def _objection(module: nn.Module) -> str | None:
    leaf = next(module.children(), None) is None
    if not leaf:
        held = [name for name, _ in module.named_parameters(recurse=False)]
        return f" (holds {', '.join(held)} beside its layers)" if held else None
    if isinstance(module, BATCH_NORMS):
        whole = None not in (module.weight, module.bias, module.running_mean, module.running_var)
        return None if whole else " (without weight, bias or running statistics)"
    known = (*LINEARS, *SUMS, *ACTIVATIONS, *CONSTANT_PADS, *PRESERVING)
    if isinstance(module, known):
        return None if _kind(module, known) else " (a forward of its own)"
    ours = not type(module).__module__.startswith("torch.")
    bare = next(module.parameters(), None) is None and next(module.buffers(), None) is None
    return None if ours and bare else ""


def _kind(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> type[nn.Module] | None:
    """The one of `kinds` whose computation this module does: a subclass with its own forward is another
    kind."""
    return next((kind for kind in kinds if isinstance(module, kind) and _computes_as(module, kind)), None)


def _computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    same = all(
        getattr(type(module), f, None) is getattr(kind, f, None) for f in ("forward", "_conv_forward", "__call__")
    )
    return same and "forward" not in module.__dict__


def refuse_unsupported(module: nn.Module) -> None:
    """Raises UnsupportedLayer naming the layers, before any relevance is computed."""
    if named := unsupported(module):
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        raise UnsupportedLayer(
            "layers without a relevance rule",
            got=", ".join(named[:5]) + more,
            rule="relevance would silently become a gradient there",
            remedy=REMEDY,
        )


@contextmanager
def watched_norms(module: nn.Module) -> Iterator[list[tuple[str, str]]]:
    """Fills, while the network runs once, with (layer, norm): batch norms fed directly by a linear layer.

    Order of execution decides, not order of definition: in a DenseNet a norm is defined after one convolution
    and fed by many.
    """
    made: list[tuple[str, Tensor]] = []
    pairs: list[tuple[str, str]] = []
    handles: list[RemovableHandle] = []
    for name, child in module.named_modules():
        if _kind(child, LINEARS):
            handles.append(child.register_forward_hook(_noting(made, name)))
        elif _kind(child, BATCH_NORMS):
            handles.append(child.register_forward_hook(_pairing(made, pairs, name)))
    try:
        yield pairs
        once = Counter(name for name, _ in made)
        pairs[:] = [(layer, norm) for layer, norm in pairs if once[layer] == 1]
    finally:
        for handle in handles:
            handle.remove()


def _noting(made: list[tuple[str, Tensor]], name: str) -> Callable[..., None]:
    return lambda module, inputs, output: made.append((name, output))


def _pairing(made: list[tuple[str, Tensor]], pairs: list[tuple[str, str]], name: str) -> Callable[..., None]:
    return lambda module, inputs, output: pairs.extend((layer, name) for layer, z in made if z is inputs[0])


@contextmanager
def installed(module: nn.Module, plan: Composite, norms: Sequence[tuple[str, str]] = ()) -> Iterator[Recorder]:
    """The network propagates relevance until the context ends; then it has its parameters and forwards back.

    `norms` are the batch norms to merge, from `watched_norms`. Raises UnsupportedLayer.
    """
    refuse_unsupported(module)
    merging = NamedMergeBatchNorm([((layer,), norm) for layer, norm in norms])
    canonised = ZennitComposite(canonizers=[merging, ResNetBottleneckCanonizer(), ResNetBasicBlockCanonizer()])
    with canonised.context(module):
        merged = {module.get_submodule(norm) for _, norm in norms}
        with steps_in_place(_steps(module, plan, merged)) as recorder:
            yield recorder


def _steps(module: nn.Module, plan: Composite, merged: set[nn.Module]) -> dict[nn.Module, Step]:
    steps: dict[nn.Module, Step] = {}
    first = plan.first
    for name, child in module.named_modules():
        if child in merged:
            steps[child] = removed(child)
        elif _kind(child, LINEARS):
            is_first = first is not None and _kind(child, plan.first_kinds) is not None
            steps[child] = ruled(_affine(name, child, first if is_first and first else _rule(child, plan)))
            first = None if is_first else first
        elif _kind(child, SUMS):
            steps[child] = ruled(_parameterless(name, child))
        elif _kind(child, CONSTANT_PADS):
            steps[child] = padded(child, name)
        elif _kind(child, (*ACTIVATIONS, *BATCH_NORMS)):
            steps[child] = passed(child)
    return steps


def _rule(module: nn.Module, plan: Composite) -> Rule:
    return plan.convolution if _kind(module, CONVOLUTIONS) else plan.linear


def _affine(name: str, module: Any, rule: Rule) -> Layer:
    weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
    if _kind(module, CONVOLUTIONS):
        return Layer(name, module._conv_forward, rule, weight, bias, channel=1)
    linear: Any = functional.linear
    return Layer(name, linear, rule, weight, bias, channel=-1)


def _parameterless(name: str, module: nn.Module) -> Layer:
    def affine(x: Tensor, W: Tensor | None, b: Tensor | None) -> Tensor:
        result: Tensor = type(module).forward(module, x)
        return result

    return Layer(name, affine, rules.epsilon)
