"""Sums of two activations inside a network, as at the end of a residual block: list, read and change them.

A sum is named after the innermost module whose code adds, and its number among the sums of that module's call, from 1:
`layer4.1:sum1`; those that the network's own code adds are `:sum1` and so on. Sums are found by a torch function mode
while they are computed: `x + y`, `x += y`, `torch.add`, or the operators of an exported program.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from klarsicht.audit.explanation.networks.hooks import (
    exchange_tensors,
    first_tensor,
    temporary_hooks,
    tensors_in,
)
from klarsicht.ground.errors import ModelError
from klarsicht.ground.ranges import parse_digits

Change = Callable[[Tensor], Tensor]
SUM_MARK: Final = ":sum"
IN_PLACE_ADDITIONS: Final = frozenset({Tensor.add_, Tensor.__iadd__, torch.ops.aten.add_.Tensor})
ADDITIONS: Final = IN_PLACE_ADDITIONS | {
    torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, torch.ops.aten.add.Tensor,
}  # fmt: skip


@dataclass(frozen=True)
class ResidualSum:
    """Name of a sum: the module whose call is counted, "" for the network, and the number among the sums of the call,
    those of modules inside included, from 1."""

    module: str
    number: int

    @classmethod
    def parse(cls, name: str) -> Self | None:
        """Read `MODULE:sumN`; None for the name of a module."""
        module, mark, number = name.rpartition(SUM_MARK)
        return cls(module, int(number)) if mark and parse_digits(number) is not None else None

    def __str__(self) -> str:
        return f"{self.module}{SUM_MARK}{self.number}"


def is_sum(function: Any, args: tuple[Any, ...]) -> bool:
    """Test whether a call of a torch function adds two activations that have positions."""
    if function not in ADDITIONS or len(args) < 2:
        return False
    a, b = args[:2]
    return isinstance(a, Tensor) and isinstance(b, Tensor) and a.is_floating_point() and 2 < a.ndim == b.ndim


class SumMode(TorchFunctionMode):
    """Mode that changes one sum, of a number from 1 among those that are computed in the mode. An addition in place is
    computed out of place, and whoever uses its first argument afterwards gets the changed sum. `change` must not add
    two activations itself: these would count."""

    def __init__(self, number: int, change: Change) -> None:
        super().__init__()
        self.number, self.change, self.count = number, change, 0
        self.replaced: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = (exchange_tensors(given, self.replaced) for given in (args, kwargs or {}))
        self.count += is_sum(function, args)
        if self.count != self.number or not is_sum(function, args):
            return function(*args, **kwargs)
        if function not in IN_PLACE_ADDITIONS:
            return self.change(function(*args, **kwargs))
        found = self.change(torch.add(*args, **kwargs))
        self.replaced[id(args[0])] = args[0], found
        return found


class SumHooks:
    """Hooks that change one sum of a module's call, see SumMode."""

    def __init__(self, number: int, change: Change) -> None:
        self.number, self.change = number, change
        self.running: list[SumMode] = []  # of calls that have not ended, the innermost last

    def attach(self, module: nn.Module) -> list[Any]:
        """Attach the hooks to the module; return their handles."""
        return [
            module.register_forward_pre_hook(self.begin),
            module.register_forward_hook(self.end, prepend=True, always_call=True),
        ]

    def begin(self, module: nn.Module, inputs: Any) -> None:
        """Enter the mode."""
        self.running.append(SumMode(self.number, self.change))
        self.running[-1].__enter__()  # type: ignore[no-untyped-call]

    def end(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        """Leave the mode; return the output. Raises ModelError where the call computed fewer sums."""
        if not self.running:  # the call failed before the mode was entered
            return output
        mode = self.running.pop()
        mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if output is not None and mode.count < self.number:
            raise ModelError(
                "the network does not compute this sum", got=f"sum {self.number} of {mode.count} in a module",
                rule="a correction belongs to the network that it was fitted on",
            )  # fmt: skip
        return exchange_tensors(output, mode.replaced)


@contextmanager
def change_sum(network: nn.Module, name: ResidualSum, change: Change) -> Iterator[None]:
    """Change a sum of the network inside the context."""
    with temporary_hooks(SumHooks(name.number, change).attach(network.get_submodule(name.module))):
        yield


@dataclass
class ComputedSum:
    """A sum of two activations of one shape, as it was computed: its name; the sum, and what functions of it alone make
    of it in the same shape; and for each other function that uses one of these, the modules that run then."""

    name: ResidualSum
    forms: list[Tensor]
    readers: list[frozenset[str]] = field(default_factory=list)

    def is_input_of(self, module: str, arguments: Tensor | None) -> bool:
        """Test whether a form is the input of a module, in which alone it is used."""
        return any(form is arguments for form in self.forms) and all(module in running for running in self.readers)


class SumList(TorchFunctionMode):
    """Mode that lists the sums of a network with their names: `running` are the modules that run, innermost last, each
    with the number of sums in its call so far."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[str, list[int]]] = []
        self.found: list[ComputedSum] = []

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        counted = is_sum(function, args)
        alike = counted and args[0].shape == args[1].shape
        output = function(*args, **(kwargs or {}))
        if isinstance(output, Tensor | tuple | list):
            self._note_use([*tensors_in((args, kwargs or {}))], output)
        if counted and self.running:
            for _, count in self.running:
                count[0] += 1
            name, (number,) = self.running[-1]
            if alike:
                self.found.append(ComputedSum(ResidualSum(name, number), [output]))
        return output

    def _note_use(self, used: list[Tensor], output: Any) -> None:
        running = frozenset(name for name, _ in self.running)
        for one in self.found:
            if any(a is form for a in used for form in one.forms):
                if len(used) == 1 and isinstance(output, Tensor) and output.shape == one.forms[0].shape:
                    one.forms.append(output)
                else:
                    one.readers.append(running)


def list_sums(network: nn.Module, look: Callable[[], object], beside: Collection[str] = ()) -> tuple[str, ...]:
    """List the sums of two activations of one shape, in the order of their computation. `look` runs the network on at
    least two images, so that what is alike for all images differs in shape. Left out is a sum whose name stands for
    several, as in a module that is called more than once, and one that is used only in a module of `beside`, whose
    input it is, if need be after an activation."""
    inputs: list[tuple[str, Tensor | None]] = []
    mode = SumList()

    def begin(name: str) -> Callable[..., None]:
        def enter(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            mode.running.append((name, [0]))
            if name in beside:
                inputs.append((name, first_tensor(arguments, keywords)))

        return enter

    def end(*_: Any) -> None:
        mode.running.pop()

    handles = []
    for name, module in network.named_modules():
        if isinstance(module, torch.jit.ScriptModule):  # takes no hooks, and no mode sees what it computes
            continue
        handles.append(module.register_forward_pre_hook(begin(name), with_kwargs=True))
        handles.append(module.register_forward_hook(end, always_call=True))
    with temporary_hooks(handles), mode:
        look()
    times = Counter(one.name for one in mode.found)
    return tuple(
        str(one.name)
        for one in mode.found
        if times[one.name] == 1 and not any(one.is_input_of(module, given) for module, given in inputs)
    )
