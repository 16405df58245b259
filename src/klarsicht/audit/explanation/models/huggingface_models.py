"""Image classifiers of transformers from a folder of `save_pretrained`, with their image processor and class names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from PIL import Image
from torch import Tensor, nn

from klarsicht.audit.explanation.models.entry_point import Source, Transform
from klarsicht.audit.explanation.models.specifications import HF_PREFIX, require_saved_model
from klarsicht.ground import optional
from klarsicht.ground.errors import ModelError
from klarsicht.ground.foreign import foreign_errors
from klarsicht.ground.trust import is_trusted

HF_EXTRA: Final = "hf"
LOCAL: Final = {"local_files_only": True, "trust_remote_code": False}


@dataclass(frozen=True)
class ProcessorTransform:
    """Image processor of transformers as a transform: picture -> pixel values (C, H, W)."""

    processor: Any

    def __call__(self, picture: Image.Image) -> Tensor:
        pixels: Tensor = self.processor(images=picture, return_tensors="pt")["pixel_values"][0]
        return pixels


def load(spec: str, checkpoint: str | Path | None = None) -> Source:
    """Load the network of `hf:FOLDER` in evaluation mode, its transform, and its class names unless these are
    placeholders. Nothing is downloaded, and code in the folder is not run; weights in a pickle are read only where code
    is trusted, else UntrustedCode is raised. Raises MissingExtra without transformers, and ModelError where the folder
    holds no image classifier, no image processor, or only some of the weights."""
    folder = Path(spec.removeprefix(HF_PREFIX))
    require_saved_model(folder)
    transformers: Any = optional.load("transformers", HF_EXTRA)
    module = read_network(transformers.AutoModelForImageClassification, folder, spec)
    remedy = "Save it beside the model: processor.save_pretrained(FOLDER)."
    with quiet(transformers), foreign_errors(ModelError, "no image processor of the model", of=spec, remedy=remedy):
        processor = transformers.AutoImageProcessor.from_pretrained(folder, **LOCAL)
    return Source(module.eval(), ProcessorTransform(processor), names_of(module), spec)


def as_transform(transform: Transform | None) -> Transform | None:
    """Return a transform, or an image processor of transformers as one."""
    is_processor = _is_of_transformers(transform, "ImageProcessingMixin")
    return ProcessorTransform(transform) if is_processor else transform


def names_of(module: nn.Module) -> tuple[str, ...] | None:
    """Return the class names of a network of transformers; None of another one, where they are placeholders, and where
    its last layer has another number of outputs, because the head was exchanged."""
    config: Any = module.config if _is_of_transformers(module, "PreTrainedModel") else None
    if not isinstance(names := getattr(config, "id2label", None), dict):
        return None
    heads = [layer.out_features for layer in module.modules() if isinstance(layer, nn.Linear)]
    if not names or len(names) != (heads or [len(names)])[-1]:
        return None
    ordered = tuple(str(names.get(i, f"LABEL_{i}")) for i in range(len(names)))
    return None if ordered == tuple(f"LABEL_{i}" for i in range(len(names))) else ordered


def _is_of_transformers(thing: object, base: str) -> bool:
    """Say whether a thing has a base class of transformers of that name, which is not imported for it."""
    return any(kind.__name__ == base and kind.__module__.startswith("transformers.") for kind in type(thing).__mro__)


def read_network(kind: Any, folder: Path, spec: str) -> Any:
    """Read a network of a kind of transformers, such as `AutoModel`, with all its weights; raises as `load`."""
    transformers: Any = optional.load("transformers", HF_EXTRA)
    remedy = "Save the model again: model.save_pretrained(FOLDER)."
    with quiet(transformers), foreign_errors(ModelError, "transformers cannot load the model", of=spec, remedy=remedy):
        only_tensors = None if is_trusted() else True
        network, facts = kind.from_pretrained(folder, **LOCAL, use_safetensors=only_tensors, output_loading_info=True)
    if lacking := sorted(facts["missing_keys"]):
        got, rule = f"{folder}: {', '.join(lacking[:4])}", "transformers would draw them at random"
        remedy = "Save the fine-tuned model, with its head."
        raise ModelError("the folder lacks weights of the classifier", got=got, rule=rule, remedy=remedy)
    return network


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Silence progress bars and advice of transformers, whose loggers are restored afterwards."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
