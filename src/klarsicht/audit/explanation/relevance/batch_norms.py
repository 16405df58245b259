"""Batch norms merged into the layers whose outputs they receive, by the order of execution: in a DenseNet a norm is
defined after one convolution but receives the outputs of many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from klarsicht.audit.explanation.networks.hooks import tensors_in


@dataclass(frozen=True)
class BatchNorm:
    """Batch norm in evaluation: (z - mean) / sqrt(variance + eps) . weight + bias, (C,) each."""

    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float

    def merge(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return weight (C, ...) and bias (C,) of the layer that computes a layer and this norm."""
        wide = self.variance + self.eps
        scale = wide**-0.5 if self.weight is None else self.weight / wide**0.5
        shifted = (0 if bias is None else bias) - self.mean
        merged = shifted * scale + (0 if self.bias is None else self.bias)
        return (weight * scale.reshape(-1, *[1] * (weight.ndim - 1))).detach(), merged.detach()


class NormsToMerge(TorchFunctionMode):
    """Mode that finds, during a forward pass, the batch norms whose input is the output of a layer and of nothing else:
    of the numbered calls of the functions `layers`, those of `mergeable` may take a norm."""

    def __init__(self, layers: Collection[Callable[..., Any]], mergeable: Collection[Callable[..., Any]]) -> None:
        super().__init__()
        self.layers, self.mergeable = layers, mergeable
        self.calls = 0
        self.functions: set[Callable[..., Any]] = set()
        self._outputs: dict[int, tuple[Tensor, int]] = {}
        self._uses: Counter[int] = Counter()
        self._norms: dict[int, BatchNorm] = {}

    @property
    def norms(self) -> dict[int, BatchNorm]:
        """Batch norm by the number of the layer call whose output it alone receives."""
        return {number: norm for number, norm in self._norms.items() if self._uses[number] == 1}

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        output = function(*args, **kwargs)
        self.functions.add(function)
        if any(True for _ in tensors_in(output)):  # not a shape or another fact of a tensor
            for used in tensors_in((args, kwargs)):
                if id(used) in self._outputs:
                    self._uses[self._outputs[id(used)][1]] += 1
        if function in self.layers:
            if function in self.mergeable:
                self._outputs[id(output)] = output, self.calls
            self.calls += 1
        elif function is functional.batch_norm:
            self._note(*args, **kwargs)
        return output

    def _note(
        self, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
    ) -> None:  # fmt: skip
        made = self._outputs.get(id(input))
        if made is not None and not training and running_mean is not None and running_var is not None:
            self._norms[made[1]] = BatchNorm(running_mean, running_var, weight, bias, eps)
