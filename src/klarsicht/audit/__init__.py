"""Audit of a classifier: which images it gets right for the wrong reason, and how that is taken out of it.

Axes of arrays, in every docstring of this wing (a small letter is a count that the docstring names):

    N   images of a corpus
    B   images of a batch
    C   channels of an image or of a layer
    H   rows of pixels, downwards
    W   columns of pixels, to the right
    G   side of a pooled relevance map
    K   outputs of the model
    F   features that go into the model's last layer
    M   connected parts of relevance maps
    P   parts of one image, or positions of a layer
    T   tokens of a transformer
    D   numbers that describe one item that is compared
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from klarsicht.ground.progress import announce_loading

if TYPE_CHECKING:
    from klarsicht.audit.cleaning.corrections.packages import load_correction as load_correction
    from klarsicht.audit.cleaning.data.clean_data import clean_data as clean_data
    from klarsicht.audit.cleaning.data.training_weights import training_weights as training_weights
    from klarsicht.audit.cleaning.data.training_weights import weighted_sampler as weighted_sampler
    from klarsicht.audit.cleaning.models.clean_model import clean as clean
    from klarsicht.audit.cleaning.models.clean_model import clean_classes as clean_classes
    from klarsicht.audit.cleaning.models.evaluation import evaluate as evaluate
    from klarsicht.audit.cleaning.models.exchanged_parts import ExchangedParts as ExchangedParts
    from klarsicht.audit.cleaning.models.exchanged_parts import exchange_parts as exchange_parts
    from klarsicht.audit.cleaning.models.surroundings_correction import clean_surroundings as clean_surroundings
    from klarsicht.audit.cleaning.models.surroundings_correction import evaluate_surroundings as evaluate_surroundings
    from klarsicht.audit.explanation.data.corpus_formats import open_corpus as open_corpus
    from klarsicht.audit.explanation.doctor import diagnose as diagnose
    from klarsicht.audit.explanation.duplicates import find_copies_in as find_copies_in
    from klarsicht.audit.explanation.duplicates import find_duplicates as find_duplicates
    from klarsicht.audit.explanation.models.array_transforms import ArrayTransform as ArrayTransform
    from klarsicht.audit.explanation.models.classifier import load_model as load_model
    from klarsicht.audit.explanation.models.specifications import trusted_code as trusted_code
    from klarsicht.audit.explanation.pipeline import run as run
    from klarsicht.audit.explanation.relevance import rules as rules
    from klarsicht.audit.explanation.relevance.explainer import Explainer as Explainer
    from klarsicht.audit.explanation.relevance.explainer import attribute as attribute
    from klarsicht.audit.explanation.relevance.explainer import explain as explain
    from klarsicht.audit.explanation.settings import AuditSettings as AuditSettings
    from klarsicht.audit.explanation.spectral.spray import spray as spray
    from klarsicht.audit.results.decide import decide as decide
    from klarsicht.audit.results.ranking import read_ranking as rank  # noqa: F401 - by another name
    from klarsicht.audit.results.seen_groups import read_seen_groups as read_seen_groups
    from klarsicht.audit.results.sufficiency import read_sufficiency as read_sufficiency
    from klarsicht.audit.results.surroundings import read_surroundings as read_surroundings
    from klarsicht.audit.results.verdicts import read_verdicts as read_verdicts
    from klarsicht.audit.verdicts.content.find_content import find_content as find_content
    from klarsicht.audit.verdicts.quantification.check_pictures import check_pictures as check_pictures
    from klarsicht.audit.verdicts.quantification.quantification import quantify as quantify
    from klarsicht.audit.verdicts.quantification.screening import screen as screen
    from klarsicht.audit.verdicts.quantification.sufficiency import measure_sufficiency as measure_sufficiency
    from klarsicht.audit.verdicts.sensitivity.power import power as power

PUBLIC: Final = {  # name -> the module that defines it, and its name there where that differs; imported when asked for
    "ArrayTransform": "explanation.models.array_transforms",
    "AuditSettings": "explanation.settings",
    "ExchangedParts": "cleaning.models.exchanged_parts",
    "Explainer": "explanation.relevance.explainer",
    "attribute": "explanation.relevance.explainer",
    "check_pictures": "verdicts.quantification.check_pictures",
    "clean": "cleaning.models.clean_model",
    "clean_classes": "cleaning.models.clean_model",
    "clean_data": "cleaning.data.clean_data",
    "decide": "results.decide",
    "diagnose": "explanation.doctor",
    "evaluate": "cleaning.models.evaluation",
    "exchange_parts": "cleaning.models.exchanged_parts",
    "explain": "explanation.relevance.explainer",
    "find_copies_in": "explanation.duplicates",
    "find_duplicates": "explanation.duplicates",
    "find_content": "verdicts.content.find_content",
    "load_correction": "cleaning.corrections.packages",
    "load_model": "explanation.models.classifier",
    "measure_sufficiency": "verdicts.quantification.sufficiency",
    "open_corpus": "explanation.data.corpus_formats",
    "clean_surroundings": "cleaning.models.surroundings_correction",
    "evaluate_surroundings": "cleaning.models.surroundings_correction",
    "read_seen_groups": "results.seen_groups",
    "read_sufficiency": "results.sufficiency",
    "read_surroundings": "results.surroundings",
    "read_verdicts": "results.verdicts",
    "power": "verdicts.sensitivity.power",
    "quantify": "verdicts.quantification.quantification",
    "rank": "results.ranking:read_ranking",
    "rules": "explanation.relevance.composites:rules",
    "run": "explanation.pipeline",
    "screen": "verdicts.quantification.screening",
    "spray": "explanation.spectral.spray",
    "trusted_code": "explanation.models.specifications",
    "training_weights": "cleaning.data.training_weights",
    "weighted_sampler": "cleaning.data.training_weights",
}
__all__ = list(PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: `klarsicht --help` needs none of them."""
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = PUBLIC[name].partition(":")
    with announce_loading():
        return getattr(import_module(f"{__name__}.{module}"), attribute or name)


def __dir__() -> list[str]:
    return sorted(PUBLIC)
