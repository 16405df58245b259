"""Several corrections of one network together, for artifacts of several classes or at several layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from torch import nn

from klarsicht.audit.cleaning.corrections.clarc import Erasure
from klarsicht.audit.cleaning.corrections.feature_inpainting import FeatureInpainting

LayerCorrection = Erasure | FeatureInpainting
"""Correction of the input of one layer, or of a sum, which can be built in as a layer of its own."""


@dataclass(frozen=True)
class JointCorrection:
    """Erasures and inpaintings that are applied together; at one layer the first comes first: a' = e_k(... e_1(a)).

    Corrections of one layer do not commute in general: a later oblique erasure may bring back what an earlier one took,
    and an erasure changes what an inpainting locates.

    Attributes:
        parts: the corrections.
    """

    parts: tuple[LayerCorrection, ...]

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[nn.Module]:
        """Correct the module inside the context only; its weights do not change."""
        with ExitStack() as stack:
            for part in self.parts:
                stack.enter_context(part.applied(module))
            yield module

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the parts matters: two of them are at one layer."""
        return len({part.layer for part in self.parts}) < len(self.parts)

    @property
    def reversed(self) -> JointCorrection:
        """The same corrections in reversed order."""
        return JointCorrection(self.parts[::-1])
