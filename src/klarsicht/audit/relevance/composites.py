"""Composites of relevance propagation: the assignment of rules to kinds of layers, and the unsupported layers.

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
from klarsicht.audit.relevance.propagation import (
    Recorder,
    Step,
    identity_step,
    padding_step,
    pass_through_step,
    replace_forwards,
    rule_step,
)
from klarsicht.audit.relevance.rules import Layer, Rule
from klarsicht.ground.errors import UnsupportedLayer, unknown_name

Box = tuple[tuple[float, ...], tuple[float, ...]]
"""Lowest and highest pixel value of each channel, C numbers each, in units of the model input."""

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
"""Layers whose gradient already conserves relevance: each output equals one input, or a weighted average of inputs."""

METHOD_REMEDY: Final = "Use a gradient method (GradientTimesInput, IntegratedGradients, SmoothGrad) or head relevance"


@dataclass(frozen=True)
class Composite:
    """Assignment of relevance rules to layers.

    Attributes:
        convolution: rule of convolutions.
        linear: rule of fully connected layers.
        first: rule of the first layer whose type is in `first_kinds`; None gives it the rule of its kind.
    """

    convolution: Rule
    linear: Rule = rules.epsilon
    first: Rule | None = None
    first_kinds: tuple[type[nn.Module], ...] = LINEARS


PROPAGATIONS: Final[dict[str, Callable[[Box], Composite]]] = {
    "EpsilonPlusFlat": lambda box: Composite(rules.zplus, first=rules.flat),
    "EpsilonGammaBox": lambda box: Composite(rules.gamma(0.25), first=rules.zbox(*box), first_kinds=CONVOLUTIONS),
    "EpsilonAlpha2Beta1": lambda box: Composite(rules.alpha2_beta1),
}
"""Composites by name, as functions of the pixel bounds."""


def composite(name: str, box: Box) -> Composite:
    """Look up a composite by name.

    Raises:
        UsageError: unknown name; the message lists near matches.
    """
    if name not in PROPAGATIONS:
        raise unknown_name("composite", name, PROPAGATIONS)
    return PROPAGATIONS[name](box)


def unsupported_layers(module: nn.Module) -> tuple[str, ...]:
    """List the layers without a rule, each as "Kind at name".

    These are leaf modules of unknown kind, subclasses that override a known forward, batch norms that cannot be merged,
    and modules with parameters outside any leaf.
    """
    return tuple(
        f"{type(child).__name__} at {name or 'the root'}{why}"
        for name, child in module.named_modules()
        if (why := _reason_unsupported(child)) is not None
    )


def _reason_unsupported(module: nn.Module) -> str | None:
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
    """Find the first of `kinds` whose computation the module has; a subclass with its own forward has none."""
    return next((kind for kind in kinds if isinstance(module, kind) and _computes_as(module, kind)), None)


def _computes_as(module: nn.Module, kind: type[nn.Module]) -> bool:
    same = all(
        getattr(type(module), f, None) is getattr(kind, f, None) for f in ("forward", "_conv_forward", "__call__")
    )
    return same and "forward" not in module.__dict__


def refuse_unsupported(module: nn.Module) -> None:
    """Raise UnsupportedLayer with the names of layers without a rule, before any relevance is computed."""
    if named := unsupported_layers(module):
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        raise UnsupportedLayer(
            "layers without a relevance rule",
            got=", ".join(named[:5]) + more,
            rule="relevance would silently become a gradient there",
            remedy=METHOD_REMEDY,
        )


@contextmanager
def record_merge_pairs(module: nn.Module) -> Iterator[list[tuple[str, str]]]:
    """Record pairs (layer, norm) during one forward pass: batch norms whose input is the output of a linear layer.

    The order of execution counts, not that of definition: in a DenseNet a norm is defined after one convolution but
    receives the outputs of many. Layers that run more than once are left out.
    """
    made: list[tuple[str, Tensor]] = []
    pairs: list[tuple[str, str]] = []
    handles: list[RemovableHandle] = []
    for name, child in module.named_modules():
        if _kind(child, LINEARS):
            handles.append(child.register_forward_hook(_record_output(made, name)))
        elif _kind(child, BATCH_NORMS):
            handles.append(child.register_forward_hook(_record_pair(made, pairs, name)))
    try:
        yield pairs
        once = Counter(name for name, _ in made)
        pairs[:] = [(layer, norm) for layer, norm in pairs if once[layer] == 1]
    finally:
        for handle in handles:
            handle.remove()


def _record_output(made: list[tuple[str, Tensor]], name: str) -> Callable[..., None]:
    return lambda module, inputs, output: made.append((name, output))


def _record_pair(made: list[tuple[str, Tensor]], pairs: list[tuple[str, str]], name: str) -> Callable[..., None]:
    return lambda module, inputs, output: pairs.extend((layer, name) for layer, z in made if z is inputs[0])


@contextmanager
def install_rules(module: nn.Module, plan: Composite, norms: Sequence[tuple[str, str]] = ()) -> Iterator[Recorder]:
    """Install the rules of a composite, so that backward passes propagate relevance until the context ends.

    On exit the parameters and forwards of the network are restored.

    Args:
        norms: pairs (layer, batch norm) to merge, from `record_merge_pairs`.

    Raises:
        UnsupportedLayer: a layer without a rule.
    """
    refuse_unsupported(module)
    merging = NamedMergeBatchNorm([((layer,), norm) for layer, norm in norms])
    canonised = ZennitComposite(canonizers=[merging, ResNetBottleneckCanonizer(), ResNetBasicBlockCanonizer()])
    with canonised.context(module):
        merged = {module.get_submodule(norm) for _, norm in norms}
        with replace_forwards(_steps(module, plan, merged)) as recorder:
            yield recorder


def _steps(module: nn.Module, plan: Composite, merged: set[nn.Module]) -> dict[nn.Module, Step]:
    steps: dict[nn.Module, Step] = {}
    first = plan.first
    for name, child in module.named_modules():
        if child in merged:
            steps[child] = identity_step(child)
        elif _kind(child, LINEARS):
            is_first = first is not None and _kind(child, plan.first_kinds) is not None
            steps[child] = rule_step(_affine(name, child, first if is_first and first else _rule(child, plan)))
            first = None if is_first else first
        elif _kind(child, SUMS):
            steps[child] = rule_step(_parameterless(name, child))
        elif _kind(child, CONSTANT_PADS):
            steps[child] = padding_step(child, name)
        elif _kind(child, (*ACTIVATIONS, *BATCH_NORMS)):
            steps[child] = pass_through_step(child)
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
