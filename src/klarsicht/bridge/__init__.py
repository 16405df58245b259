"""The bridge between the wings: denoisers are audited as classifiers are, and corpora of classifiers denoised.

The letters of arrays are those of `klarsicht.burst`: N frames, C channels, H and W the sides of a picture, K the side
of a kernel; n are the valid frames, G points, m measures, and h, w the sides of a map.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from klarsicht.bridge.denoised_corpus import denoise_corpus as denoise_corpus
    from klarsicht.bridge.denoiser_audit import audit_bursts as audit_bursts
    from klarsicht.bridge.denoiser_audit import audit_denoiser as audit_denoiser
    from klarsicht.bridge.explanation_stability import measure_stability as measure_stability
    from klarsicht.bridge.strategy_pictures import StrategyMap as StrategyMap

PUBLIC: Final = {  # name -> the module that defines it; imported when it is first asked for
    "StrategyMap": "klarsicht.bridge.strategy_pictures",
    "audit_bursts": "klarsicht.bridge.denoiser_audit",
    "audit_denoiser": "klarsicht.bridge.denoiser_audit",
    "denoise_corpus": "klarsicht.bridge.denoised_corpus",
    "measure_stability": "klarsicht.bridge.explanation_stability",
}
__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(PUBLIC)
