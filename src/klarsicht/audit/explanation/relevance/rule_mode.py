"""Mode in which a network's torch functions carry relevance backwards, whoever calls them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from klarsicht.audit.explanation.networks.hooks import tensors_in
from klarsicht.audit.explanation.relevance.batch_norms import NormsToMerge
from klarsicht.audit.explanation.relevance.function_calls import (
    Function,
    FunctionCall,
    PassState,
    RulePlan,
    carries_relevance,
    changes_in_place,
)
from klarsicht.audit.explanation.relevance.function_rules import (
    FUNCTION_RULES,
    LAYER_FUNCTIONS,
    SELECTIONS,
    find_functions,
)
from klarsicht.audit.explanation.relevance.propagation import Recorder


class RuleMode(TorchFunctionMode):
    """Mode in which torch functions carry relevance backwards, for one forward pass.

    Args:
        plan: rules.
        recorder: receives the balances of the backward pass.
    """

    def __init__(self, plan: RulePlan, recorder: Recorder) -> None:
        super().__init__()
        self.state = PassState(plan, recorder, plan.composite.first)
        self.calls = 0
        self.replaced: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, function: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = self._current(args), self._current(kwargs or {})
        call = FunctionCall(self.state, function, self.calls)
        self.calls += function in LAYER_FUNCTIONS
        if not any(map(carries_relevance, tensors_in((args, kwargs)))):
            return function(*args, **kwargs)
        if (rule := FUNCTION_RULES.get(function)) is not None:
            output = rule(call, *args, **kwargs)
            if changes_in_place(function):
                self.replaced[id(args[0])] = args[0], output
            return output
        output = function(*args, **kwargs)
        if function not in SELECTIONS and any(map(carries_relevance, tensors_in(output))):
            self.state.plan.without_rule[call.name] += 1
        return output

    def _current(self, a: Any) -> Any:
        """Exchange tensors that a function changed in place, which rules compute out of place, for what they became."""
        if not self.replaced:
            return a
        if isinstance(a, Tensor):
            while (entry := self.replaced.get(id(a))) is not None:
                a = entry[1]
        elif type(a) in (tuple, list):
            a = type(a)(self._current(part) for part in a)
        elif isinstance(a, dict):
            a = {name: self._current(value) for name, value in a.items()}
        return a


def find_norms_to_merge() -> NormsToMerge:
    """Make the mode that finds, during one plain forward pass, the batch norms to merge."""
    return NormsToMerge(LAYER_FUNCTIONS, frozenset(find_functions("linear conv1d conv2d conv3d")))


def computes_attention(functions: Collection[Function]) -> bool:
    """Test whether the functions that a network calls compute attention: by a function of its own, or written out as
    softmax and matrix product."""
    fused = {functional.scaled_dot_product_attention, functional.multi_head_attention_forward}
    written = (find_functions("softmax"), find_functions("matmul __matmul__ bmm einsum"))
    return bool(fused & set(functions)) or all(set(kind) & set(functions) for kind in written)
