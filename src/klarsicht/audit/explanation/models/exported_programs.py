"""Programs of torch.export as networks. An exported program has no layers, so that no relevance rule can be attached:
its last fully connected operation is made a layer again, for gradients, penultimate features and head relevance."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from klarsicht.audit.explanation.models.program_inspection import require_plain_program
from klarsicht.ground.errors import ModelError
from klarsicht.ground.foreign import foreign_errors
from klarsicht.ground.trust import is_trusted

_ATEN: Final = torch.ops.aten
_LINKS: Final[dict[Any, nn.Module]] = {
    _ATEN.softmax.int: nn.Softmax(1),
    _ATEN.log_softmax.int: nn.LogSoftmax(1),
    _ATEN.sigmoid.default: nn.Sigmoid(),
}
"""Operations that may follow the last fully connected one, as layers."""

_SAME: Final = (
    _ATEN.flatten.using_ints, _ATEN.view.default, _ATEN.reshape.default, _ATEN.squeeze.dim, _ATEN.clone.default,
    _ATEN.alias.default, _ATEN.dropout.default,
)  # fmt: skip
"""Operations that change nothing, where the shape stays."""


class ExportedNetwork(nn.Sequential):
    """Exported program as the layers `body`, `head` and, if it has one, `link`, with C input channels and the (height,
    width) that it takes, None where it takes any."""

    def __init__(self, layers: dict[str, nn.Module], channels: int, size: tuple[int, int] | None) -> None:
        super().__init__(OrderedDict(layers))
        self.channels, self.size = channels, size


def load(path: Path) -> nn.Module:
    """Load a program of torch.export as body, head and, if it has one, its last softmax or sigmoid. Raises
    UntrustedCode where loading it would run code of the file's own, and ModelError where it does not end in a fully
    connected operation on one image tensor."""
    if not path.is_file():
        raise ModelError("no such file", got=str(path))
    with path.open("rb") as file, foreign_errors(ModelError, "the file holds no program of torch.export", of=str(path)):
        if not is_trusted():
            require_plain_program(file, str(path))
            file.seek(0)
        program = torch.export.load(file)
        unlifted = program.module(check_guards=False)
    network = rebuild(unlifted, str(path))
    return network.eval()


def rebuild(program: fx.GraphModule, name: str) -> ExportedNetwork:
    """Rebuild a program as layers; raises ModelError as `load`."""
    inputs = [node for node in program.graph.nodes if node.op == "placeholder"]
    answer = _skip(_answer(program.graph))
    link = copy.deepcopy(_LINKS.get(answer.target)) if answer is not None else None
    last = _skip(answer.args[0] if answer is not None and link is not None else answer)
    if len(inputs) != 1 or not isinstance(last, fx.Node) or last.target is not _ATEN.linear.default:
        got = f"{len(inputs)} inputs" if len(inputs) != 1 else f"{getattr(last, 'target', 'several outputs')}"
        raise ModelError(
            "the exported program does not end in a fully connected layer", got=f"{name}: {got}",
            rule="one image tensor in, logits = features @ weights.T + bias out",
            remedy="Load the network that was exported.",
        )  # fmt: skip
    parts: dict[str, nn.Module] = {"body": _body(program, last.args[0]), "head": _head(program, last)}
    _, channels, *size = inputs[0].meta["val"].shape
    fixed = (size[0], size[1]) if all(isinstance(side, int) for side in size) else None
    return ExportedNetwork(parts | ({"link": link} if link is not None else {}), int(channels), fixed)


def _answer(graph: fx.Graph) -> fx.Node | None:
    """Find the output with two axes; None where there are several or none."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    found: Any = output.args[0]
    nodes = [node for node in (found if isinstance(found, tuple | list) else (found,)) if isinstance(node, fx.Node)]
    logits = [node for node in nodes if getattr(node.meta.get("val"), "ndim", 2) == 2]
    return logits[0] if len(logits) == 1 else None


def _skip(node: Any) -> Any:
    """Go back over operations that change nothing."""
    while isinstance(node, fx.Node) and node.target in _SAME and isinstance(before := node.args[0], fx.Node):
        if before.meta["val"].shape != node.meta["val"].shape:
            break
        node = before
    return node


def _body(program: fx.GraphModule, features: Any) -> fx.GraphModule:
    """Cut the program after the node `features`; its weights become buffers with flat names."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    tensors: dict[str, Tensor] = {}
    for node in program.graph.nodes:
        if node.op in ("output", "call_module"):
            continue
        copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.op == "get_attr":
            flat = str(node.target).replace(".", "_")
            copies[node].target, tensors[flat] = flat, _tensor(program, node.target)
        if node is features:
            break
    graph.output(copies[features])
    used = {node.target for node in graph.nodes if node.op == "get_attr"}
    return fx.GraphModule({key: value for key, value in tensors.items() if key in used}, graph)


def _head(program: fx.GraphModule, last: fx.Node) -> nn.Linear:
    weight, *bias = (_tensor(program, node.target) for node in last.args[1:] if isinstance(node, fx.Node))
    head = nn.Linear(weight.shape[1], weight.shape[0], bias=bool(bias))
    with torch.no_grad():
        head.weight.copy_(weight)
        if bias:
            head.bias.copy_(bias[0])
    return head


def _tensor(program: fx.GraphModule, target: Any) -> Tensor:
    folder, _, name = str(target).rpartition(".")
    value: Tensor = getattr(program.get_submodule(folder), name)
    return value.detach()
