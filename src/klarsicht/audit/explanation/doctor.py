"""Check of what an audit of this model and corpus would give, before hours are spent on it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from klarsicht.audit.explanation.data.corpus import decode_rows
from klarsicht.audit.explanation.data.label_order import Order
from klarsicht.audit.explanation.file_rules import find_file_rules
from klarsicht.audit.explanation.models.classifier import Classifier
from klarsicht.audit.explanation.models.correction_tensors import correction_tensors
from klarsicht.audit.explanation.models.forward import Observation, open_observer
from klarsicht.audit.explanation.models.inputs import PixelScale
from klarsicht.audit.explanation.models.specifications import TIMM_PREFIX, TIMM_SIZE
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import late_layer, middle_layer
from klarsicht.audit.explanation.relevance.explainer import METHODS, explain
from klarsicht.audit.explanation.relevance.image_batches import prepare
from klarsicht.audit.explanation.relevance.randomisation import correlate_with_redrawn
from klarsicht.audit.explanation.settings import HEAD_RELEVANCE, AuditSettings
from klarsicht.audit.explanation.spectral.analysis import head_weight
from klarsicht.audit.explanation.spectral.clustering import MIN_IMAGES
from klarsicht.audit.explanation.steps.audit_inputs import Audit
from klarsicht.audit.explanation.steps.relevance_step import check_logits
from klarsicht.audit.results.file_rules import describe_file_rules
from klarsicht.audit.results.significance import FEW_CLASSES, class_strategy
from klarsicht.audit.results.words import format_count, join_words
from klarsicht.ground.arrays import Bools
from klarsicht.ground.errors import CorpusError, InputError, KlarsichtError
from klarsicht.ground.machine.memory import resident_bytes
from klarsicht.ground.pictures import notebook
from klarsicht.ground.user_arguments import check_arguments
from klarsicht.numerics.statistics.intervals import share_interval
from klarsicht.numerics.statistics.logits import logit_scale

TRIED_IMAGES: Final = 8  # images that are tried, spread over the corpus
EXPLAINED: Final = 1  # of them, by each method
RELEVANCE_TIME: Final = "relevance of the corpus"  # name of the fact
BATCH_SECONDS: Final = 5.0  # that relevance of all tried images may take, by the speed of one
MANY_PASSES: Final = ("IntegratedGradients", "SmoothGrad")
LABELLED: Final = 24  # images of a label that are predicted, at most
LABEL_BUDGET: Final = 5.0  # seconds for their predictions
ENOUGH_LABELLED: Final = 30  # of them, from which it is said that they are predicted by chance
LEFT_OUT: Final = 5  # files and folders without an image that are named
FILE_RULES: Final = 5  # classes that files alone identify, of which it is said
BUDGET: Final = 6.0  # seconds for all methods; those that would begin later are not tried


@dataclass(frozen=True)
class MethodTrial:
    """One relevance method tried on a few images: whether it gives maps (head relevance: whether it applies), None
    where there was no time to try; how far it conserves relevance, or why it does not apply; and its speed on one
    thread, NaN where it was not measured."""

    name: str
    works: bool | None
    told: str
    images_per_second: float = float("nan")


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of a model and a corpus before an audit: (name, value) of facts, the methods, tried, what an audit
    would lack and how to get it, and the error with which `audit run` would end, or None."""

    facts: tuple[tuple[str, str], ...]
    methods: tuple[MethodTrial, ...]
    missing: tuple[str, ...]
    refused: KlarsichtError | None = None

    def __repr__(self) -> str:
        state = "refused" if self.refused else f"{format_count(len(self.missing), 'thing')} missing"
        return f"Diagnosis({len(self.methods)} methods tried, {state})"

    def _repr_html_(self) -> str:
        missing = (("missing", one) for one in self.missing)
        return notebook.facts([*self.facts, *((one.name, one.told) for one in self.methods), *missing])

    def without_relevance_time(self) -> Diagnosis:
        """Leave out the time of relevance, which a forecast measures on more images."""
        return replace(self, facts=tuple(fact for fact in self.facts if fact[0] != RELEVANCE_TIME))

    def to_json(self) -> dict[str, Any]:
        trials = [asdict(trial) for trial in self.methods]
        for trial in trials:
            if np.isnan(trial["images_per_second"]):
                trial["images_per_second"] = None
        refused = None if self.refused is None else str(self.refused)
        return {"facts": dict(self.facts), "methods": trials, "missing": list(self.missing), "refused": refused}


@check_arguments
def diagnose(
    settings: AuditSettings, *, sanity: bool = False, classifier: Classifier | None = None, corpus: Any = None
) -> Diagnosis:
    """Load model and corpus, try every method on a few images, and say what an audit would give; nothing is written.

    Args:
        settings: of the audit, as for `run`.
        sanity: whether maps are compared with those of the network with its weights redrawn, too.
        classifier, corpus: a model and a corpus built in Python, in place of those that the settings name.

    Raises:
        UsageError, CorpusError, ModelError, MissingExtra: model or corpus cannot be opened.
        InputError: none of the images that were tried can be used.
    """
    began = time.perf_counter()
    audit = Audit.of(settings, classifier, corpus)
    load_seconds = time.perf_counter() - began
    rows, batch, reasons = _sample(audit)
    with open_observer(audit.classifier) as observe:
        observe(batch[:1])
        began = time.perf_counter()
        observation = observe(batch)
        speed = len(batch) / (time.perf_counter() - began)
    targets = torch.from_numpy(observation.prediction)
    methods = _try_methods(audit, batch[:EXPLAINED], targets[:EXPLAINED])
    checks = (lambda: audit.index, lambda: audit.targets, lambda: check_logits(audit.classifier, observation))
    errors = [error for check in checks if (error := _error_of(check))]
    targets_of, predictions = ((), ()) if errors else _predict_labelled(audit)
    facts = (
        *_model_facts(audit, batch, load_seconds),
        *_corpus_facts(audit, rows, observation, np.array(targets_of) == np.array(predictions)),
        *_file_facts(audit),
        ("speed", f"{speed:.1f} images a second without relevance, on {audit.classifier.device.type}, one batch"),
        *(_redrawn(audit, batch, targets) if sanity else ()),
        *_duration(audit, methods, batch, targets),
        ("memory", f"{resident_bytes() / 1e9:.1f} GB in use after the trial"),
    )
    order = Order.of(np.array(targets_of, int), np.array(predictions, int), audit.classifier.n_classes)
    refusal = errors[0] if errors else _error_of(lambda: order.require_given(audit.names))
    errors += [error] if (error := _error_of(lambda: PixelScale.of(audit.classifier))) else []
    by_chance = [] if refusal else _describe_chance(targets_of, predictions)
    unused = _describe_left_out(audit.corpus.left_out)
    missing = (*(error.with_options for error in errors), *by_chance, *unused, *_missing(audit, methods), *reasons)
    return Diagnosis(facts, methods, missing, refusal)


def _error_of(check: Callable[[], object]) -> KlarsichtError | None:
    """Return the error of ours that a check raises; None without one."""
    try:
        check()
    except KlarsichtError as error:
        return error
    return None


def _predict_labelled(audit: Audit) -> tuple[Sequence[int], Sequence[int]]:
    """Predict as many images of each label as can be in LABEL_BUDGET seconds, and return their outputs by label and by
    prediction; none where other classes than the labels are explained."""
    if audit.settings.target != "label":
        return (), ()
    numbers, labels = audit.corpus.image_numbers, np.asarray(audit.targets)
    labels = np.where(np.bincount(numbers)[numbers] == 1, labels, -1)  # of several labels none is the order's
    rows_of = [np.flatnonzero(labels == label)[:LABELLED] for label in np.unique(labels[labels >= 0])]
    in_turn = [int(rows[i]) for i in range(LABELLED) for rows in rows_of if i < len(rows)]
    targets, predictions, began = list[int](), list[int](), time.perf_counter()
    with open_observer(audit.classifier) as observe:
        for row, picture in decode_rows(audit.corpus, in_turn):
            if time.perf_counter() - began > LABEL_BUDGET:
                break
            image = picture if isinstance(picture, Exception) else prepare(audit.classifier, picture)
            if isinstance(image, Tensor):
                targets.append(int(audit.targets[row]))
                predictions.append(int(observe(image[None]).prediction[0]))
    return targets, predictions


def _describe_chance(targets: Sequence[int], predictions: Sequence[int]) -> list[str]:
    """Say if no more images are predicted as their label than one constant prediction would be; nothing of few."""
    if len(targets) < ENOUGH_LABELLED:
        return []
    constant = max(Counter(targets).values()) / len(targets)
    right = share_interval(np.array(targets) == np.array(predictions))
    if right.low > constant or constant == 1:
        return []
    return [
        f"{right.value:.0%} of {right.n} images are predicted as their label, and {constant:.0%} would be by chance: "
        "check the transform, its normalisation, the weights and the class map"
    ]


def _describe_left_out(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """Say which files and class folders hold no image of the corpus, the first LEFT_OUT of them."""
    named = [f"{what} ({why})" for what, why in left_out[:LEFT_OUT]]
    named += [f"{len(left_out) - LEFT_OUT} more"] if len(left_out) > LEFT_OUT else []
    return [f"left out of the audit: {join_words(named)}"] if named else []


def _sample(audit: Audit) -> tuple[list[int], Tensor, tuple[str, ...]]:
    """Read images of the commonest input shape, spread over the corpus: rows, (B, C, H, W), reasons of the others."""
    candidates = np.unique(np.linspace(0, len(audit.corpus) - 1, TRIED_IMAGES).astype(int)).tolist()
    inputs: dict[int, Tensor] = {}
    reasons: dict[str, int] = Counter()
    _ = audit.corpus[candidates].hash  # notes which of these cannot be read
    for row, picture in decode_rows(audit.corpus, candidates):
        image = picture if isinstance(picture, Exception) else prepare(audit.classifier, picture)
        if isinstance(image, Tensor):
            inputs[row] = image
        else:
            reasons[str(image)] += 1
    if not inputs:
        what, remedy = f"none of {len(candidates)} images can be used", "Check the data and the model."
        raise InputError(what, got=next(iter(reasons)), remedy=remedy)
    shape = Counter(tuple(image.shape) for image in inputs.values()).most_common(1)[0][0]
    rows = [row for row, image in inputs.items() if tuple(image.shape) == shape]
    told = tuple(f"{count} of {len(candidates)} images cannot be used: {reason}" for reason, count in reasons.items())
    return rows, torch.stack([inputs[row] for row in rows]), told


def _model_facts(audit: Audit, batch: Tensor, load_seconds: float) -> list[tuple[str, str]]:
    classifier = audit.classifier
    module, weights = classifier.module, sum(p.numel() for p in classifier.module.parameters())
    with evaluation_mode(module), torch.no_grad():
        middle = middle_layer(module, lambda: classifier.logits(batch[:1]))
    names = "with names" if classifier.classes else "without names"
    return [
        ("model", f"{classifier.spec}: {weights / 1e6:.1f} million weights, loaded in {load_seconds:.1f} s"),
        *(("changed", note) for note in classifier.notes),
        ("outputs", f"{classifier.n_classes} classes, {names}{', independent' if classifier.independent else ''}"),
        ("input", describe_input(classifier.spec, tuple(batch.shape[1:]), classifier.takes)),
        ("head", classifier.head),
        ("concept layer", late_layer(module, classifier.head)),
        ("middle layer", middle or "none: the network has no convolutions"),
        ("cleaning would try", _cleaning(classifier, batch[0])),
    ]


def describe_input(spec: str, shape: tuple[int, ...], takes: str) -> str:
    """Describe the input (C, H, W) of a model; of timm's, ask whether the model was trained at that size."""
    size = f"{' x '.join(map(str, shape))}, {takes}"
    return f"{size}; {TIMM_SIZE}" if spec.startswith(TIMM_PREFIX) else size


def _cleaning(classifier: Classifier, image: Tensor) -> str:
    if classifier.independent:
        return "nothing: outputs are independent"
    return ", ".join(correction_tensors(classifier, image))


def _corpus_facts(audit: Audit, rows: list[int], observation: Observation, is_right: Bools) -> list[tuple[str, str]]:
    """Describe the corpus, and how many images are predicted as their label: those tried first, or, where they are
    more and each has one label, those of which `is_right` says it."""
    corpus, images = audit.corpus, int(audit.corpus.image_numbers.max()) + 1
    pairs = f", {len(corpus)} pairs of an image and a label" if images < len(corpus) else ""
    facts = [("corpus", f"{format_count(images, 'image')}, {format_count(len(corpus.classes), 'label')}{pairs}")]
    try:
        index = audit.index
        labels = np.array([index.get(corpus.labels[row], -1) for row in rows])
    except CorpusError:
        return facts
    known = labels >= 0
    if known.any():
        scale = logit_scale(audit.classifier.independent)
        right = [scale.predicts(y, label) for y, label in zip(observation.logits[known], labels[known], strict=True)]
        more = len(is_right) > len(right) and not audit.classifier.independent
        share = share_interval(is_right if more else np.array(right))
        described = f"{share.value:.0%} of {share.n} ({share.low:.0%} to {share.high:.0%})"
        facts.append(("predicted as their label", described))
    return facts


def _file_facts(audit: Audit) -> list[tuple[str, str]]:
    """Say which classes files alone identify; nothing where pictures are no image files."""
    sentences = describe_file_rules(find_file_rules(audit.corpus))[:FILE_RULES]
    return [("files", " ".join(sentences))] if sentences else []


def _try_methods(audit: Audit, batch: Tensor, targets: Tensor) -> tuple[MethodTrial, ...]:
    """Try the methods, those of one backward pass first; a reason that was given is not repeated."""
    began = time.perf_counter()
    trials: dict[str, MethodTrial] = {}
    for method in sorted(METHODS, key=lambda name: name in MANY_PASSES):
        if time.perf_counter() - began > BUDGET:
            trials[method] = MethodTrial(method, None, f"not tried: {BUDGET:g} s were over")
            continue
        trial = _try_method(audit, method, batch, targets)
        same = next((other.name for other in trials.values() if other.told == trial.told and not trial.works), None)
        trials[method] = replace(trial, told=f"as {same}") if same else trial
    linear = head_weight(audit.classifier) is not None
    head = MethodTrial(HEAD_RELEVANCE, linear, "no maps" if linear else "the head is no fully connected layer")
    return (head, *(trials[method] for method in METHODS))


def _try_method(audit: Audit, method: str, batch: Tensor, targets: Tensor) -> MethodTrial:
    began = time.perf_counter()
    try:
        relevance = explain(audit.classifier, batch, targets, method=method, map_side=audit.settings.map_side)
    except KlarsichtError as error:
        return MethodTrial(method, False, error.with_options)
    speed = len(batch) / (time.perf_counter() - began)
    if relevance.balance is not None:
        described = describe_absorption(float(np.median(relevance.absorbed)), bool(relevance.conserving))
        named = described if method == relevance.method else f"{relevance.method}, {described}"
        return MethodTrial(method, True, named, speed)
    left = float(np.median(np.abs(relevance.residual)))
    description = "promises no conservation" if np.isnan(left) else f"leaves {left:.1%} of the logit unexplained"
    return MethodTrial(method, True, description, speed)


def _redrawn(audit: Audit, batch: Tensor, targets: Tensor) -> list[tuple[str, str]]:
    """Say how much the maps depend on what the network has learned; raises as `explain`."""
    settings = audit.settings
    if settings.method == HEAD_RELEVANCE:
        return [("redrawn weights", "not compared: head relevance makes no maps")]
    correlation = correlate_with_redrawn(
        audit.classifier, batch, targets, settings.method, settings.map_side, settings.seed
    )
    return [("redrawn weights", f"maps change to a rank correlation of {correlation:.2f} (1: they show no learning)")]


def describe_absorption(share: float, is_conserving: bool) -> str:
    """Describe how much relevance reaches the pixels, by the share that biases and stabilisers absorb; a negative share
    is what biases add."""
    use = "maps can be read" if is_conserving else "maps are hints only"
    if share > 1:
        return f"{use}: biases and stabilisers absorb more than the relevance ({share:.0%} of it), and turn its sign"
    kept = f"biases and stabilisers {'absorb' if share >= 0 else 'add'} {abs(share):.0%}"
    return f"{use}: {1 - share:.0%} of the relevance reaches the pixels, {kept}"


def _duration(audit: Audit, methods: tuple[MethodTrial, ...], batch: Tensor, targets: Tensor) -> list[tuple[str, str]]:
    """Estimate the time of the relevance step by the method of the settings. Its trial was of one image, and of the
    first method it loaded what all share, so all images are explained once more where that is quick."""
    method, n = audit.settings.method, len(audit.corpus)
    speed = next((t.images_per_second for t in methods if t.name == method), float("nan"))
    if np.isnan(speed):
        return []
    if len(batch) / speed <= BATCH_SECONDS:
        speed = _try_method(audit, method, batch, targets).images_per_second
    return [(RELEVANCE_TIME, f"about {_describe_seconds(n / speed)} by {method}")]


def _describe_seconds(seconds: float) -> str:
    """Write seconds up to a minute, and minutes beyond."""
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


def _class_sizes(audit: Audit) -> Counter[str]:
    """Count the images of each class, of labels without an output those of each label; nothing where classes are not
    those of labels."""
    if audit.settings.target != "label":
        return Counter()
    has_outputs = _error_of(lambda: audit.index) is None
    return Counter(audit.names[target] for target in audit.targets) if has_outputs else Counter(audit.corpus.labels)


def _missing(audit: Audit, methods: tuple[MethodTrial, ...]) -> list[str]:
    """List what an audit would lack, each with its remedy."""
    lines, sizes = list[str](), _class_sizes(audit)
    if few := [label for label, size in sorted(sizes.items()) if size < MIN_IMAGES]:
        shown = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
        lines.append(f"{len(few)} of {len(sizes)} classes have fewer than {MIN_IMAGES} images and are skipped: {shown}")
    if not class_strategy(audit.classifier.n_classes).compares_classes:
        lines.append(
            f"{FEW_CLASSES}: `audit quantify` can test little of what it sees. Look at the groups that it shows, run "
            "`audit shortcuts`, with `--reference` and other pictures of the same apparatus if you have any; more "
            "classes, or at least 1,000 images, allow more tests"
        )
    if not audit.corpus.sources:
        lines.append("no column source: images of one origin (patient, video) would count as independent")
    if all(trial.works is False for trial in methods if trial.name != HEAD_RELEVANCE):
        lines.append(f"no method makes maps: audit with --method {HEAD_RELEVANCE}")
    return lines
