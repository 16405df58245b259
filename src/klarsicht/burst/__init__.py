"""Burst denoising: many short noisy exposures become one clean photograph.

Axes of arrays, in every docstring of this wing (a small letter is a count that the docstring names):

    B   bursts of a batch
    N   frames of a burst
    C   channels: 1 grey, 3 RGB, 4 planes of a mosaic
    H   rows of pixels, downwards
    W   columns of pixels, to the right
    Y   rows of tiles
    X   columns of tiles
    K   side of a square kernel, odd
    T   taps of all kernels of a pixel, or samples along a tile's side
    G   points of a grid at which kernels are sampled
    S   kernel sizes, or pixels of one block
    D   shifts along one axis that are tried, or blocks of one frame
    F   frequencies
    R   rows of tiles of the HDR+ merge
    Q   columns of tiles of the HDR+ merge
    M   points of a curve of noise
    L   levels of light
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from klarsicht.burst.data.burst import Burst as Burst
    from klarsicht.burst.denoising.denoise import denoise as denoise
    from klarsicht.burst.denoising.pipeline import DenoiseSettings as DenoiseSettings
    from klarsicht.burst.network.checkpoints import load_network as load_network
    from klarsicht.burst.network.inference import denoise_burst as denoise_burst
    from klarsicht.burst.training.training import TrainSettings as TrainSettings
    from klarsicht.burst.training.training import train as train
    from klarsicht.numerics.imaging.sensor_noise import NoiseLevel as NoiseLevel

PUBLIC: Final = {  # name -> the module that defines it; imported when it is first asked for
    "Burst": "klarsicht.burst.data.burst",
    "DenoiseSettings": "klarsicht.burst.denoising.pipeline",
    "NoiseLevel": "klarsicht.numerics.imaging.sensor_noise",
    "TrainSettings": "klarsicht.burst.training.training",
    "denoise": "klarsicht.burst.denoising.denoise",
    "denoise_burst": "klarsicht.burst.network.inference",
    "load_network": "klarsicht.burst.network.checkpoints",
    "train": "klarsicht.burst.training.training",
}
__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `klarsicht --help` needs none of them."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(PUBLIC)
