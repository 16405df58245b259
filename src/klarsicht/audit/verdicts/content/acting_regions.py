"""Find the region of an image that acts on an output, and describe the content of that region by the network itself.

The place is the last one of the network whose activations a have positions. Relevance of a channel at a position is
activation times gradient of the logit; between that place and the logit nearly all networks are linear, so that it adds
up to the logit but for biases. The content is the mean activation over positions, weighted by their relevance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import (
    arrange_in_grid,
    channel_axis,
    first_tensor,
    late_layer,
    temporary_hooks,
)
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import ModelError

LEAST_CELLS: Final = 4  # positions of a grid, at least


@dataclass(frozen=True)
class ActingRegions:
    """Regions of n images that act on one output.

    Attributes:
        relevance: float32 (n, h, w), of each position of the last grid; negative where it speaks against the output.
        content: float32 (n, C), mean activation over positions, weighted by their positive relevance.
    """

    relevance: Floats
    content: Floats

    @classmethod
    def join(cls, parts: Sequence[ActingRegions]) -> ActingRegions:
        """Join the regions of consecutive images."""
        return cls(np.concatenate([one.relevance for one in parts]), np.concatenate([one.content for one in parts]))


@dataclass(frozen=True)
class LastGrid:
    """Last place of a network whose activations have positions.

    Attributes:
        layer: name of a module.
        at_input: whether it is the module's input, else its output.
        channels: axis of the channels of a tensor of four axes, 1 or -1.
    """

    layer: str
    at_input: bool
    channels: int

    @classmethod
    def of(cls, classifier: Classifier) -> LastGrid:
        """Find the place on test images.

        It is the last input or output of a module, before the head has run, of four axes and LEAST_CELLS positions or
        more; of a network of tokens, whose last grid may not reach the logits, the input of the late layer.

        Raises:
            ModelError: there is none.
        """
        before_head: list[LastGrid] = []
        head, grids = classifier.module.get_submodule(classifier.head), list[LastGrid]()

        def note(name: str, module: nn.Module, a: Tensor | None, at_input: bool) -> None:
            if a is None or a.ndim != 4:
                return
            axis = channel_axis(module, a.shape) if at_input else 1
            cells = a[0].numel() // a.shape[axis]
            if cells >= LEAST_CELLS:
                grids.append(cls(name, at_input, axis))

        def enter(name: str, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
            note(name, module, first_tensor(inputs, named), True)
            if module is head:
                before_head.extend(grids[-1:])

        def leave(name: str, module: nn.Module, output: Any) -> None:
            note(name, module, output if isinstance(output, Tensor) else None, False)

        inside = [(name, m) for name, m in classifier.module.named_modules() if name]
        handles = [
            m.register_forward_pre_hook(lambda m, a, k, name=n: enter(name, m, a, k), with_kwargs=True)
            for n, m in inside
        ] + [m.register_forward_hook(lambda m, _, y, name=n: leave(name, m, y)) for n, m in inside]
        with temporary_hooks(handles), evaluation_mode(classifier.module), torch.no_grad():
            classifier.logits(classifier.test_inputs[:1])
        if before_head:
            return before_head[-1]
        late = late_layer(classifier.module, classifier.head)
        if late == classifier.head:
            raise ModelError(
                "the network has no place where content has positions", got=classifier.spec,
                rule="a layer before the head whose activations have rows and columns",
                remedy="Use another network; `klarsicht audit quantify` needs none.",
            )  # fmt: skip
        return cls(late, True, -1)

    @contextmanager
    def detach_grids(self, module: nn.Module) -> Iterator[list[Tensor]]:
        """Cut the network at the place inside the context: what follows is computed with gradients.

        Yields:
            the activations of the last computation, a leaf that requires a gradient, as the only element.
        """
        leaves: list[Tensor] = []

        def cut(a: Tensor) -> Tensor:
            leaf = a.detach().requires_grad_()
            leaves[:] = [leaf]
            return leaf

        def cut_input(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
            first, *rest = inputs
            return (cut(first), *rest), named

        layer = module.get_submodule(self.layer)
        handle = (
            layer.register_forward_pre_hook(cut_input, with_kwargs=True)
            if self.at_input
            else layer.register_forward_hook(lambda _, __, output: cut(output))
        )
        with temporary_hooks([handle]):
            yield leaves

    def find_regions(self, classifier: Classifier, images: Tensor, targets: Sequence[int]) -> dict[int, ActingRegions]:
        """Find the regions of images (B, C, H, W) that act on each of some outputs; the network up to the place is
        computed once."""
        aspect = images.shape[-2] / images.shape[-1]
        with evaluation_mode(classifier.module) as module, self.detach_grids(module) as leaves, torch.enable_grad():
            logits = classifier.logits(images)
            (leaf,) = leaves
            regions = {}
            for target in targets:
                (slope,) = torch.autograd.grad(logits[:, target].sum(), leaf, retain_graph=True)
                a, g = (arrange_in_grid(x.detach().float(), self.channels, aspect) for x in (leaf, slope))
                regions[target] = _weigh_positions(a, g)
        return regions


def _weigh_positions(a: Tensor, g: Tensor) -> ActingRegions:
    """Compute regions from activations and gradients (B, C, h, w)."""
    relevance = (a * g).sum(1)
    weight = relevance.clamp(min=0)
    weight = weight / weight.sum((1, 2), keepdim=True).clamp(min=1e-12)
    content = torch.einsum("bchw,bhw->bc", a, weight)
    return ActingRegions(relevance.cpu().numpy(), content.cpu().numpy())
