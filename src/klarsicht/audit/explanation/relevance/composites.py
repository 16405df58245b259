"""Composites of relevance propagation: the assignment of rules to layers with weights, of Kohlbrenner et al. (IJCNN
2020) and Lapuschkin et al. (Nature Communications 2019) as zennit names them. `GammaAttention` is for transformers: the
rules of Achtibat et al. (ICML 2024) for attention, with a small gamma for all layers (lab/benchmarks)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from klarsicht.audit.explanation.relevance import rules
from klarsicht.audit.explanation.relevance.rules import Rule
from klarsicht.ground.errors import unknown_name

Box = tuple[tuple[float, ...], tuple[float, ...]]
"""Lowest and highest pixel value of each channel, C numbers each, in units of the model input."""


@dataclass(frozen=True)
class Composite:
    """Assignment of relevance rules to convolutions, fully connected layers and the first layer or convolution, where
    None gives it the rule of its kind. The weights of attention receive half of the relevance, on to queries and keys,
    or are held fixed, and values receive all."""

    convolution: Rule
    linear: Rule = rules.epsilon
    first: Rule | None = None
    first_is_convolution: bool = False
    attention_weights: bool = False


PROPAGATIONS: Final[dict[str, Callable[[Box], Composite]]] = {
    "EpsilonPlusFlat": lambda box: Composite(rules.zplus, first=rules.flat),
    "EpsilonPlusFlatIgnoreBias": lambda box: Composite(rules.zplus_ignore_bias, first=rules.flat),
    "EpsilonGammaBox": lambda box: Composite(rules.gamma(0.25), first=rules.zbox(*box), first_is_convolution=True),
    "EpsilonAlpha2Beta1": lambda box: Composite(rules.alpha2_beta1),
    "GammaAttention": lambda box: Composite(rules.gamma(0.02), linear=rules.gamma(0.02), attention_weights=True),
}
"""Composites by name, as functions of the pixel bounds."""


def composite(name: str, box: Box) -> Composite:
    """Look up a composite by name; raises UsageError, which lists near matches, for an unknown one."""
    if name not in PROPAGATIONS:
        raise unknown_name("composite", name, PROPAGATIONS)
    return PROPAGATIONS[name](box)
