"""Composites of relevance propagation: the assignment of rules to layers with weights, as zennit names them.

Those of Kohlbrenner et al. (IJCNN 2020) and Lapuschkin et al. (Nature Communications 2019) are for convolutions.
`AttnLRP` has the rules of Achtibat et al. (ICML 2024) for attention, `CP-LRP` holds its weights fixed (Ali et al., ICML
2022), and layers get the epsilon rule; `GammaAttention` is AttnLRP with a small gamma for all layers (lab/benchmarks).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from torch import nn

from klarsicht.audit.explanation.relevance import rules
from klarsicht.audit.explanation.relevance.rules import Rule
from klarsicht.ground.errors import UsageError, unknown_name

LayerRules = Mapping[str | type[nn.Module], Rule]
"""Rules of layers with weights: by the name of the layer, or of a module that holds it, or by the type of either."""

Box = tuple[tuple[float, ...], tuple[float, ...]]
"""Lowest and highest pixel value of each channel, C numbers each, in units of the model input."""


@dataclass(frozen=True)
class Composite:
    """Assignment of relevance rules to convolutions, fully connected layers and the first layer or convolution, where
    None gives it the rule of its kind. The weights of attention receive half of the relevance, on to queries and keys,
    or are held fixed, and values receive all. `layers` are exceptions, see `LayerRules`."""

    convolution: Rule
    linear: Rule = rules.epsilon
    first: Rule | None = None
    first_is_convolution: bool = False
    attention_weights: bool = False
    layers: tuple[tuple[str | type[nn.Module], Rule], ...] = ()


PROPAGATIONS: Final[dict[str, Callable[[Box], Composite]]] = {
    "EpsilonPlusFlat": lambda box: Composite(rules.zplus, first=rules.flat),
    "EpsilonPlusFlatIgnoreBias": lambda box: Composite(rules.zplus_ignore_bias, first=rules.flat),
    "EpsilonGammaBox": lambda box: Composite(rules.gamma(0.25), first=rules.zbox(*box), first_is_convolution=True),
    "EpsilonAlpha2Beta1": lambda box: Composite(rules.alpha_beta(2.0, 1.0)),
    "GammaAttention": lambda box: Composite(rules.gamma(0.02), linear=rules.gamma(0.02), attention_weights=True),
    "AttnLRP": lambda box: Composite(rules.epsilon, attention_weights=True),
    "CP-LRP": lambda box: Composite(rules.epsilon),
}
"""Composites by name, as functions of the pixel bounds."""


def composite(name: str, box: Box) -> Composite:
    """Look up a composite by name; raises UsageError, which lists near matches, for an unknown one."""
    if name not in PROPAGATIONS:
        raise unknown_name("composite", name, PROPAGATIONS)
    return PROPAGATIONS[name](box)


def check_layer_rules(layer_rules: LayerRules, network: nn.Module) -> None:
    """Check rules of layers against a network; raises UsageError for a module that it does not have, a key that is
    neither a name nor a type of modules, and a rule that is no function."""
    modules = dict(network.named_modules())
    for key, rule in layer_rules.items():
        if not isinstance(key, str | type) or (isinstance(key, type) and not issubclass(key, nn.Module)):
            rule_of_keys = "the name of a module, or a class of torch.nn"
            raise UsageError("a rule belongs to no layer", got=repr(key), rule=rule_of_keys)
        if isinstance(key, str) and key not in modules:
            raise unknown_name("module", key, [name for name in modules if name])
        if isinstance(key, type) and not any(isinstance(module, key) for module in modules.values()):
            remedy = f"Types here: {', '.join(sorted({type(module).__name__ for module in modules.values()}))}."
            raise UsageError("the network has no module of a type", got=key.__name__, remedy=remedy)
        if not callable(rule):
            remedy = "Take one of audit.rules, such as audit.rules.gamma(0.25)."
            raise UsageError("a relevance rule", got=repr(rule), rule="a function (weight, bias)", remedy=remedy)
