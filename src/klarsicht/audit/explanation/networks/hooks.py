"""Forward hooks on named layers, and the default layers for concepts and appearance."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from klarsicht.ground.errors import ModelError, unknown_name

MOST_WEIGHTS: Final = 0.9  # share of the weights from which on a stage is the whole network


@contextmanager
def temporary_hooks(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end of the context."""
    hooks = list(handles)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def describe_changed_forward(network: nn.Module) -> tuple[str, ...]:
    """Describe the forward hooks of all layers, and each `forward` that was set on a layer itself: the layer, and the
    name and compiled code of the function. Empty for most networks. Hooks of torch itself, such as those of pruning,
    compute what the state dict holds, and are left out. What a function refers to is not read: a hook that only records
    would then differ after every image."""
    return tuple(
        f"{layer} {_describe_code(function)}"
        for layer, module in network.named_modules()
        for function in (
            *module._forward_pre_hooks.values(), *module._forward_hooks.values(),
            *([vars(module)["forward"]] if "forward" in vars(module) else ()),
        )
        if not (getattr(function, "__module__", None) or type(function).__module__).startswith("torch.")
    )  # fmt: skip


def _describe_code(function: Any) -> str:
    """Return the name of a function, or of the class of a callable object, and its byte code and constants in hex."""
    while isinstance(function, partial):
        function = function.func
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None) or getattr(type(function).__call__, "__code__", None)
    name = f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__qualname__)}"
    if code is None:
        return name
    constants = [one for one in code.co_consts if isinstance(one, str | int | float | bytes | None)]
    return f"{name} {code.co_code.hex()} {constants} {code.co_names}"


def called_layers(network: nn.Module, look: Callable[[], object]) -> tuple[str, ...]:
    """List the submodules that take part when `look` runs the network on one image, in the order in which they finish.
    What a network itself runs without gradients, such as the choice of a box, is left out: no relevance goes there."""
    layers: dict[str, None] = {}

    def record_name(name: str) -> None:
        if torch.is_grad_enabled():
            layers.setdefault(name)

    modules = network.named_modules()
    handles = (m.register_forward_hook(lambda *_, name=n: record_name(name)) for n, m in modules)
    with temporary_hooks(handles), torch.enable_grad():
        look()
    return tuple(layers)


def late_layer(network: nn.Module, head: str, layers: Collection[str] | None = None) -> str:
    """Choose the default concept layer: the last stage with weights before the head. A stage is a child of the first
    module that has several children with weights, not counting the child that contains the head; of a list of modules,
    which is never called itself, it is the last. A child with more than MOST_WEIGHTS of the weights, such as the blocks
    of a transformer beside its patch embedding, is looked into, unless it is a block. `layers` are the submodules that
    take part in the computation; None for all."""
    name = ""
    while stages := _stages(network.get_submodule(name), name, head, layers):
        name = stages[-1]
        sizes = [sum(p.numel() for p in network.get_submodule(stage).parameters()) for stage in stages]
        whole = sizes[-1] > MOST_WEIGHTS * sum(sizes) and not is_block(network, name)
        if len(stages) > 1 and not whole and (layers is None or name in layers):
            break
    return name or head


def _stages(module: nn.Module, name: str, head: str, layers: Collection[str] | None) -> list[str]:
    children = {f"{name}.{child}".lstrip("."): m for child, m in module.named_children()}
    inside = [
        stage
        for stage, m in children.items()
        if any(p.ndim >= 2 for p in m.parameters())
        and (layers is None or any(other == stage or other.startswith(f"{stage}.") for other in layers))
    ]
    return [s for s in inside if s != head and not head.startswith(f"{s}.")] or [s for s in inside if s != head]


def middle_layer(network: nn.Module, look: Callable[[], object]) -> str:
    """Choose the default appearance layer: the layer whose input resolution is halfway, in octaves, between that of the
    first and of the last layer; empty for a network without convolutions or blocks. Layers are convolutions, or the
    blocks of a network whose work is mostly done by fully connected layers at every position. Of one resolution the
    last to run is chosen, since its input contains all earlier features; where all blocks have one resolution, that in
    the middle; of two equally near ones the smaller. `look` runs the network on one image; what that runs without
    gradients is left out, as in `called_layers`."""
    convolutions: list[tuple[str, float]] = []
    blocks: list[tuple[str, float]] = []
    positionwise = 0

    def record_resolution(name: str, module: nn.Module) -> Callable[..., None]:
        def record(_: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], __: Any) -> None:
            nonlocal positionwise
            a = first_tensor(inputs, keywords)
            if a is None or not torch.is_grad_enabled():
                return
            positionwise += isinstance(module, nn.Linear) and a.ndim > 2
            if is_convolution(module):
                convolutions.append((name, math.log2(math.prod(a.shape[2:])) / 2))
            elif is_block(network, name) and a.ndim in (3, 4):
                positions = a.numel() // len(a) // a.shape[channel_axis(module, a.shape)]
                blocks.append((name, math.log2(positions) / 2))

        return record

    modules = network.named_modules()
    handles = (m.register_forward_hook(record_resolution(n, m), with_kwargs=True) for n, m in modules)
    with temporary_hooks(handles), torch.enable_grad():
        look()
    layers = blocks if positionwise > len(convolutions) and blocks else convolutions
    if layers is blocks and len({side for _, side in blocks}) == 1:
        return blocks[len(blocks) // 2][0]
    half = (layers[0][1] + layers[-1][1]) / 2 if layers else 0
    return min(reversed(layers), key=lambda layer: (abs(layer[1] - half), layer[1]), default=("", 0))[0]


def is_convolution(module: nn.Module) -> bool:
    """Test whether a module has a weight of four axes, or of five for volumes."""
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim in (4, 5)


def is_block(network: nn.Module, name: str) -> bool:
    """Test whether the submodule of that name is a block: a child of a ModuleList or Sequential that holds layers of
    its own, a convolution among them, or a norm and fully connected layers as blocks of transformers do."""
    if not name:
        return False
    module, parent = network.get_submodule(name), network.get_submodule(name.rpartition(".")[0])
    inside = isinstance(parent, nn.ModuleList | nn.Sequential)
    deep = not isinstance(module, nn.ModuleList | nn.Sequential) and any(True for _ in module.children())
    parts = list(module.modules())
    mixes_tokens = any("Norm" in type(m).__name__ for m in parts) and any(isinstance(m, nn.Linear) for m in parts)
    return inside and deep and (any(map(is_convolution, parts)) or mixes_tokens)


def takes_channels_last(layer: nn.Module) -> bool:
    """Test whether a layer's input has its channels in the last axis, as tokens have: its first module with a `weight`
    is a fully connected layer or a layer norm of the last axis. Scales that a block holds itself are no weights."""
    first = next((m for m in layer.modules() if isinstance(getattr(m, "weight", None), Tensor)), layer)
    of_channels = "2d" in type(first).__name__ or getattr(first, "data_format", "") == "channels_first"
    return isinstance(first, nn.Linear | nn.LayerNorm | nn.RMSNorm) and not of_channels


def first_tensor(inputs: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor | None:
    """Return the first tensor among the arguments of a module's call, and in lists and dictionaries among them."""
    return next(tensors_in((*inputs, *keywords.values())), None)


def tensors_in(a: Any) -> Iterator[Tensor]:
    """Iterate over the tensors in nested tuples, lists and dictionaries."""
    if isinstance(a, Tensor):
        yield a
    elif isinstance(a, (tuple, list)):
        for part in a:
            yield from tensors_in(part)
    elif isinstance(a, dict):
        yield from tensors_in(tuple(a.values()))


def exchange_tensors(a: Any, exchanged: Mapping[int, tuple[Tensor, Tensor]]) -> Any:
    """Exchange tensors, in nested tuples, lists and dictionaries, for others: by id, pairs of the old and the new one,
    as of additions in place that are computed out of place."""
    if not exchanged:
        return a
    if isinstance(a, Tensor):
        while (pair := exchanged.get(id(a))) is not None:
            a = pair[1]
    elif type(a) in (tuple, list):
        a = type(a)(exchange_tensors(part, exchanged) for part in a)
    elif type(a) is dict:
        a = {name: exchange_tensors(part, exchanged) for name, part in a.items()}
    return a


def replace_first_tensor(
    inputs: tuple[Any, ...], keywords: dict[str, Any], change: Callable[[Tensor], Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Change the first tensor among the arguments of a module's call, given by position or by name."""
    if inputs:
        return (change(inputs[0]), *inputs[1:]), keywords
    name = next(name for name, a in keywords.items() if isinstance(a, Tensor))
    return inputs, keywords | {name: change(keywords[name])}


class Tap:
    """Context manager that stores input and output of a named layer at its last call; raises UsageError, which lists
    near matches, for an unknown layer."""

    def __init__(self, module: nn.Module, layer: str) -> None:
        try:
            self._layer = module.get_submodule(layer)
        except AttributeError as error:
            raise unknown_name("layer", layer, [name for name, _ in module.named_modules() if name]) from error
        self._name = layer
        self._input: Tensor | None = None
        self.output: Any = None

    @property
    def input(self) -> Tensor:
        """Input at the last call. Raises ModelError if the layer was not called."""
        if self._input is None:
            what, remedy = "the layer takes no part in the computation", "Name another by layer"
            raise ModelError(what, got=repr(self._name), remedy=remedy)
        return self._input

    def __enter__(self) -> Self:
        self._handle = self._layer.register_forward_hook(self._keep, with_kwargs=True)
        return self

    def _keep(self, module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], output: Any) -> None:
        self._input, self.output = first_tensor(inputs, keywords), output

    @property
    def channels(self) -> int:
        """Axis of the channels of the input, see `channel_axis`."""
        return channel_axis(self._layer, self.input.shape)

    def sum_over_positions(self, a: Tensor) -> Tensor:
        """Sum a tensor of the shape of the layer's input over positions: -> (B, C)."""
        return sum_over_positions(a, channel_axis(self._layer, a.shape))

    def __exit__(self, *exception: object) -> None:
        self._handle.remove()
        self.clear()

    def clear(self) -> None:
        """Drop the stored tensors."""
        self._input = self.output = None


def channel_axis(layer: nn.Module, shape: Sequence[int]) -> int:
    """Find the axis of channels of a layer's input: 1 of images (B, C, H, W), -1 of tokens (B, T, C), of vectors (B, C)
    and of images with channels last, which the size of the layer's first weights tells; where it fits neither axis, or
    both, their kind, see `takes_channels_last`."""
    if len(shape) < 4:
        return -1
    sizes = (
        m.in_features
        if isinstance(m, nn.Linear)
        else m.normalized_shape[-1]
        if isinstance(m, nn.LayerNorm)
        else getattr(m, "in_channels", getattr(m, "num_channels", getattr(m, "num_features", None)))
        for m in layer.modules()
    )
    size = next((size for size in sizes if isinstance(size, int)), shape[1])
    if (size == shape[1]) != (size == shape[-1]):
        return 1 if size == shape[1] else -1
    return -1 if takes_channels_last(layer) else 1


def sum_over_positions(a: Tensor, channels: int = 1) -> Tensor:
    """Sum over positions: (B, C, H, W) or tokens (B, T, C) -> (B, C); (B, C) is returned unchanged. `channels` is the
    axis of the channels where there are four axes."""
    if a.ndim < 3:
        return a
    return a.flatten(2).sum(2) if a.ndim > 3 and channels == 1 else a.flatten(1, -2).sum(1)


def arrange_in_grid(a: Tensor, channels: int, aspect: float = 1.0) -> Tensor:
    """Arrange the positions of tokens (B, T, C) or of images (B, h, w, C) or (B, C, h, w), whose channels are the axis
    `channels`: -> (B, C, h, w). `aspect` is height over width of the image. Tokens before the grid belong to no
    position and are left out, see `leading_tokens`."""
    if a.ndim == 4:
        return a if channels == 1 else a.movedim(-1, 1)
    if a.ndim != 3:
        return a
    height, width = _grid(a.shape[1], aspect)
    return a[:, -height * width :].transpose(1, 2).reshape(len(a), -1, height, width)


def leading_tokens(shape: Sequence[int], aspect: float = 1.0) -> int:
    """Count the tokens before the grid of a layer's input (B, T, C), such as class token and registers; the grid is the
    largest of the image's aspect that the tokens fill. Inputs of other shapes have none."""
    return shape[1] - math.prod(_grid(shape[1], aspect)) if len(shape) == 3 else 0


def _grid(tokens: int, aspect: float) -> tuple[int, int]:
    height = max(1, int(math.sqrt(tokens * aspect) + 1e-6))
    return height, max(1, min(round(height / aspect), tokens // height))
