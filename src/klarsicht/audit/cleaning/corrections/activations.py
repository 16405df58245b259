"""Compute logits of images, and activations at the input of a layer, with or without a correction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from klarsicht.audit.cleaning.corrections.clarc import Erasure, change_activations, find_layer
from klarsicht.audit.cleaning.corrections.samples import Images
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import channel_axis, first_tensor, leading_tokens
from klarsicht.audit.explanation.networks.residual_sums import ResidualSum, change_sum
from klarsicht.ground.arrays import Floats
from klarsicht.ground.errors import InputRefused, ModelError
from klarsicht.ground.progress import track_inside

FORWARD_BATCH = 64
JOINT_BATCH = 192  # images times corrections in one batch through the rest of a network
POSITIONS = 32  # of an image, at most, from which a covariance is estimated


class Correction(Protocol):
    """Protocol of a correction: it changes a network inside a context, and restores it bit by bit afterwards."""

    def applied(self, module: nn.Module) -> AbstractContextManager[nn.Module]: ...


@dataclass(frozen=True)
class Activations:
    """Activations of n images at the input of one layer; class token and registers are no positions. pooled: float32
    (n, C), means over positions. spread: float32 (n, C), maximum over positions minus the mean. positions: float32 (m,
    C), drawn from all images. has_positions: whether the input has positions, or is one vector for each image. leading:
    float32 (n, p, C), of the tokens before the positions. channels: axis of the channels of an input of four axes: 1 or
    -1."""

    pooled: Floats
    spread: Floats
    positions: Floats
    has_positions: bool
    leading: Floats
    channels: int

    def token(self, i: int) -> Activations:
        """Return the activations of one of the tokens before the positions, as if it were the only position."""
        rows = self.leading[:, i]
        return replace(self, pooled=rows, positions=rows)


def channels_last(a: Tensor, channels: int = 1) -> Tensor:
    """Reshape (B, C), (B, C, H, W), (B, H, W, C) or tokens (B, T, C) to (B, P, C)."""
    if a.ndim == 2:
        return a[:, None]
    return a.flatten(2).movedim(1, 2) if a.ndim > 3 and channels == 1 else a.flatten(1, -2)


def split_batches(images: Images, most: int = FORWARD_BATCH) -> Iterator[Images]:
    """Yield batches of at most `most` consecutive images of one shape, and show how many are done."""
    starts = [0]
    for i in range(1, len(images)):
        if i - starts[-1] == most or images[i].shape != images[starts[-1]].shape:
            starts.append(i)
    ends = [*starts[1:], len(images)]
    spans = [(start, end) for start, end in zip(starts, ends, strict=True) if end]
    return (images[start:end] for start, end in track_inside(spans, len(spans), "batches"))


def apply_correction(module: nn.Module, correction: Correction | None) -> AbstractContextManager[Any]:
    """Return the context in which the correction is applied to the module; None leaves the module unchanged."""
    return nullcontext() if correction is None else correction.applied(module)


def compute_logits(classifier: Classifier, images: Images, correction: Correction | None = None) -> Floats:
    """Compute logits (n, K) of a model, with a correction or without one."""
    with evaluation_mode(classifier.module), apply_correction(classifier.module, correction), torch.no_grad():
        return torch.cat([classifier.logits(torch.stack(list(b))) for b in split_batches(images)]).float().cpu().numpy()


def compute_logits_jointly(classifier: Classifier, images: Images, erasures: Sequence[Erasure]) -> list[Floats]:
    """Compute logits (n, K) under each of several erasures at one layer, computing the network up to the layer once;
    one after another where a connection bypasses the layer, or it is called twice, so that shapes do not fit."""
    k = len(erasures)

    def spread(a: Tensor) -> Tensor:
        return torch.cat([erasure(a) for erasure in erasures])

    found = []
    try:
        with (
            evaluation_mode(classifier.module) as module,
            change_activations(module, erasures[0].layer, spread),
            torch.no_grad(),
        ):
            for batch in split_batches(images, max(1, JOINT_BATCH // k)):
                y = classifier.logits(torch.stack(list(batch)))
                found.append(y.reshape(k, len(batch), y.shape[1]).float().cpu())
    except (InputRefused, RuntimeError):  # shapes that do not fit
        return [compute_logits(classifier, images, erasure) for erasure in erasures]
    return list(torch.cat(found, 1).numpy())


Summary = Callable[[Tensor, int, float, torch.Generator], tuple[Tensor, ...]]
"""Function from an input, the axis of its channels, height over width of the image and a generator to what is kept."""


class InputReader:
    """Reader of the input of one layer, or of a sum. Of several computations in a batch the last one counts. name: name
    of the layer or sum. summary: function to what is kept of each batch."""

    def __init__(self, name: str, summary: Summary) -> None:
        self.name, self.channels = name, 1
        self._summary, self._noise = summary, torch.Generator().manual_seed(0)
        self._parts: list[tuple[Tensor, ...]] = []

    def begin(self, aspect: float) -> None:
        """Begin a batch of images of that height over width."""
        self._aspect, self._state = aspect, self._noise.get_state()
        self._last: tuple[Tensor, ...] | None = None

    def read(self, a: Tensor, channels: int) -> Tensor:
        """Read an input, whose channels lie on that axis; return it unchanged."""
        self._noise.set_state(self._state)
        self._last, self.channels = self._summary(a, channels, self._aspect, self._noise), channels
        return a

    def end(self) -> None:
        """End the batch. Raises ModelError if nothing was read."""
        if self._last is None:
            raise ModelError(
                "the layer takes no part in the computation", got=repr(self.name), remedy="Name another by layer"
            )
        self._parts.append(self._last)

    def parts(self) -> list[Tensor]:
        """Return what is kept of all batches."""
        return [torch.cat(part) for part in zip(*self._parts, strict=True)]


def read_inputs(
    classifier: Classifier, images: Images, readers: Sequence[InputReader], correction: Correction | None = None
) -> None:
    """Read the inputs of layers, or sums, in one pass of the images. Raises UsageError: unknown layer; the message
    lists near matches; ModelError: a layer takes no part in the computation."""
    with ExitStack() as stack:
        module = stack.enter_context(evaluation_mode(classifier.module))
        stack.enter_context(apply_correction(module, correction))
        stack.enter_context(torch.no_grad())
        for reader in readers:
            stack.enter_context(read_input(module, reader))
        for batch in split_batches(images):
            for reader in readers:
                reader.begin(batch[0].shape[-2] / batch[0].shape[-1])
            classifier.logits(torch.stack(list(batch)))
            for reader in readers:
                reader.end()


@contextmanager
def read_input(module: nn.Module, reader: InputReader) -> Iterator[None]:
    """Read the input of a layer, or a sum, whenever it is computed inside the context."""
    inside, total = find_layer(module, reader.name), ResidualSum.parse(reader.name)
    if total is not None:
        with change_sum(module, total, lambda a: reader.read(a, channel_axis(inside, a.shape))):
            yield
        return

    def read(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        if (a := first_tensor(inputs, named)) is not None:
            reader.read(a, channel_axis(inside, a.shape))

    handle = inside.register_forward_pre_hook(read, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def compute_activations(
    classifier: Classifier, images: Images, layer: str, correction: Correction | None = None
) -> Activations:
    """Compute the activations at the input of a layer, or a sum; under a correction there, the corrected ones."""
    return compute_activations_at(classifier, images, (layer,), correction)[layer]


def compute_activations_at(
    classifier: Classifier, images: Images, layers: Sequence[str], correction: Correction | None = None,
    draws: bool = True,
) -> dict[str, Activations]:  # fmt: skip
    """Compute the activations at the input of several layers, or at sums, see read_inputs. Without draws, `positions`
    are empty."""

    def summary(a: Tensor, channels: int, aspect: float, noise: torch.Generator) -> tuple[Tensor, ...]:
        before = leading_tokens(a.shape, aspect)
        rows = channels_last(a, channels).float().cpu()
        leading, rows = rows[:, :before], rows[:, before:]
        pooled = rows.mean(1)
        drawn = _draw_positions(rows, noise) if draws else rows[:, :0].flatten(0, 1)
        has_positions = torch.full((len(a),), a.ndim > 2)
        # copies: a view would keep the whole input
        return pooled, rows.amax(1) - pooled, drawn.clone(), has_positions, leading.clone()

    readers = [InputReader(layer, summary) for layer in layers]
    read_inputs(classifier, images, readers, correction)
    found = {}
    for one in readers:
        pooled, spread, positions, has_positions, leading = (part.numpy() for part in one.parts())
        found[one.name] = Activations(pooled, spread, positions, bool(has_positions[-1]), leading, one.channels)
    return found


def compute_layer_inputs(classifier: Classifier, images: Images, layer: str) -> tuple[Tensor, int]:
    """Compute the whole input of a layer, or a sum, for images of one shape: (n, ...), and its axis of channels."""
    reader = InputReader(layer, lambda a, *_: (a.float().cpu().clone(),))
    read_inputs(classifier, images, (reader,))
    return reader.parts()[0], reader.channels


def _draw_positions(a: Tensor, noise: torch.Generator) -> Tensor:
    """Draw at most POSITIONS of each image, independently for each: (B, P, C) -> (B p, C)."""
    if a.shape[1] <= POSITIONS:
        return a.flatten(0, 1)
    at = torch.rand(a.shape[:2], generator=noise).argsort(1)[:, :POSITIONS]
    return a.gather(1, at[..., None].expand(-1, -1, a.shape[2])).flatten(0, 1)
