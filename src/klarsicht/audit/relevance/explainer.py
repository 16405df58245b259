"""What a classifier saw: relevance of pixels, of late channels and of penultimate features, for a batch of
images."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from klarsicht.audit.models.classifier import Classifier, checked_targets
from klarsicht.audit.models.eval_mode import evaluation_mode
from klarsicht.audit.models.hooks import Tap, late_layer, over_space
from klarsicht.audit.relevance.composites import PROPAGATIONS, composite, installed, refuse_unsupported, watched_norms
from klarsicht.audit.relevance.conservation import Ledger, check, conserves, per_image
from klarsicht.audit.relevance.gradients import GRADIENTS
from klarsicht.audit.relevance.pooling import pooled
from klarsicht.audit.relevance.propagation import Recorder
from klarsicht.ground.errors import InputRefused, ModelError, UsageError, unknown_name

METHODS = (*PROPAGATIONS, *GRADIENTS)
"""Every method by name: three composites of relevance propagation, then the gradient methods."""

INCOMPLETENESS_BOUND: Final = 0.1
"""Largest share of a rise in the logit that integrated gradients may leave unexplained."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Relevance:
    """What one batch of B images yields; float32 unless said otherwise.

    The seed is R = 1 at the target's logit ("evidence"): where that logit is negative, what argues for the
    class is negative in the map; `centred` carries the sign. G = min(map_side, H, W), and pooling keeps the
    mass.
    """

    method: str
    targets: Array
    """(B,) int64: the class explained."""
    maps: Array
    """(B, G, G), signed, summed over channels."""
    concepts: Array
    """(B, C): relevance of each channel at a late layer, summed over space."""
    features: Array
    """(B, F): the penultimate activations themselves, no relevance in them; the baseline to beat."""
    head: Array
    """(B, F): relevance of each penultimate feature for the centred logit."""
    logits: Array
    """(B, K)."""
    total: Array
    """(B,) float64: the sum of relevance over all pixels."""
    residual: Array
    """(B,) float64: what no formula accounts for, relative; NaN where a method promises no conservation."""
    absorbed: Array
    """(B,) float64: share of the seed kept by biases, stabilisers and dead denominators; NaN for gradient
    methods."""
    ledger: Ledger | None = None
    """The books layer by layer; None for gradient methods."""
    middle: Array | None = None
    """(B, C, h, w): what went into the middle layer, if one was named."""
    channels: Array | None = None
    """(B, C): relevance of each channel at the input of that layer, summed over space."""

    @property
    def score(self) -> Array:
        """Logit of the target (B,)."""
        score: Array = np.take_along_axis(self.logits, self.targets[:, None], 1)[:, 0]
        return score

    @property
    def centred(self) -> Array:
        """Logit of the target less the mean of all logits (B,); `head` sums to it but for the biases."""
        centred: Array = self.score - self.logits.mean(1)
        return centred

    @property
    def prediction(self) -> Array:
        """(B,) int64."""
        prediction: Array = self.logits.argmax(1)
        return prediction

    @property
    def loss(self) -> Array:
        """Cross-entropy of the target (B,)."""
        top = self.logits.max(1)
        loss: Array = np.log(np.exp(self.logits - top[:, None]).sum(1)) + top - self.score
        return loss

    @property
    def conserving(self) -> bool | None:
        """Whether the maps hold the evidence in the median image: most of the seed is not absorbed, or
        integrated gradients are complete to a tenth; None for methods that promise nothing."""
        if self.ledger is not None:
            return conserves(torch.from_numpy(self.absorbed))
        median = float(np.median(np.abs(self.residual)))
        return None if np.isnan(median) else median <= INCOMPLETENESS_BOUND


def head_relevance(features: Tensor, head_weight: Tensor, target: Tensor) -> Tensor:
    """f_c (w_target - mean_k w_k)_c: features (B, F), head_weight (K, F), target (B,) -> (B, F)."""
    return features * (head_weight[target] - head_weight.mean(0))


def centred_logit(logits: Tensor, target: Tensor) -> Tensor:
    """Logit of the target less the mean of all: (B, K), (B,) -> (B,)."""
    return logits.gather(1, target[:, None])[:, 0] - logits.mean(1)


def activation_gradient(classifier: Classifier, batch: Tensor, targets: Tensor, layer: str) -> Tensor:
    """Activation times gradient of the centred logit at the input of `layer`, summed over space: (B, C).

    With a linear head and its own name this is `head_relevance`. Raises ModelError for a layer that is not
    there.
    """
    with evaluation_mode(classifier.module), Tap(classifier.module, layer) as tap:
        x = batch.to(classifier.device).detach().requires_grad_()
        logits = classifier.logits(x)
        (gradient,) = torch.autograd.grad(centred_logit(logits, targets.to(x.device)).sum(), tap.input)
        return over_space(tap.input.detach() * gradient)


class Explainer:
    """A classifier made ready to explain many batches; it is given back as it was when the context ends.

        with Explainer(classifier, "EpsilonPlusFlat") as explain:
            for batch, targets in batches:
                relevance = explain(batch, targets)

    `layer` names the layer at whose input concepts are read (default: `late_layer`); `seed` is for
    SmoothGrad's noise; `middle` names a layer whose input is kept as it is, and the relevance of its channels.

    Raises UsageError for an unknown method or layer, UnsupportedLayer and NotConserving for a network that
    the method does not cover, ModelError for a network that answers otherwise than with logits.
    """

    def __init__(
        self,
        classifier: Classifier,
        method: str = "EpsilonPlusFlat",
        map_side: int = 32,
        layer: str | None = None,
        seed: int = 0,
        middle: str | None = None,
    ) -> None:
        if method not in METHODS:
            raise unknown_name("relevance method", method, METHODS)
        if map_side < 1:
            raise UsageError("the side of a map must be positive", got=map_side, remedy="Try 32")
        self.classifier, self.method, self.map_side, self.seed = classifier, method, map_side, seed
        self.layer = layer or late_layer(classifier.module, classifier.head)
        self.middle = middle
        self._recorder: Recorder | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            module = stack.enter_context(evaluation_mode(self.classifier.module))
            if self.method in PROPAGATIONS:
                refuse_unsupported(module)
            self._late = stack.enter_context(Tap(module, self.layer))
            self._head = stack.enter_context(Tap(module, self.classifier.head))
            self._middle = stack.enter_context(Tap(module, self.middle)) if self.middle else None
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._recorder = None
        self._stack.close()

    def __call__(self, batch: Tensor, targets: Tensor) -> Relevance:
        """Images (B, C, H, W) as the transform gives them, and the classes (B,) to explain."""
        x = batch.to(self.classifier.device).detach().requires_grad_()
        target = checked_targets(targets.to(x.device), self.classifier.n_classes)
        try:
            return self._propagated(x, target) if self.method in PROPAGATIONS else self._by_gradient(x, target)
        finally:
            for tap in (self._late, self._head, self._middle):
                if tap is not None:
                    tap.forget()

    def _propagated(self, x: Tensor, target: Tensor) -> Relevance:
        recorder = self._propagating(x)
        recorder.entries = []
        seen = self._look(x, target, recorder)
        R, R_late, R_middle = seen.arriving(x)
        total = per_image(R)
        ledger = Ledger(torch.ones_like(total), total, tuple(recorder.entries))
        check(ledger, seen.logits.grad_fn)
        return self._result(seen, R, R_late, R_middle, ledger.residual, ledger.absorbed_share, ledger)

    def _by_gradient(self, x: Tensor, target: Tensor) -> Relevance:
        seen = self._look(x, target, Recorder())
        at_x, at_late, at_middle = seen.arriving(x)

        def gradient(z: Tensor) -> Tensor:
            if z is x:
                return at_x
            z = z.detach().requires_grad_()
            return torch.autograd.grad(self.classifier.logits(z), z, seen.seed)[0]

        R = GRADIENTS[self.method](gradient, x, torch.Generator().manual_seed(self.seed)).detach()
        nothing = torch.full((len(x),), torch.nan, dtype=torch.float64)
        residual = self._incompleteness(R, seen) if self.method == "IntegratedGradients" else nothing
        R_middle = None if seen.middle is None or at_middle is None else seen.middle * at_middle
        return self._result(seen, R, seen.late * at_late, R_middle, residual, nothing, None)

    def _incompleteness(self, R: Tensor, seen: _Seen) -> Tensor:
        """f(x) - f(0) - sum R over |f(x) - f(0)|: integrated gradients promise zero (B,)."""
        with torch.no_grad():
            rise = ((seen.logits - self.classifier.logits(torch.zeros_like(R))) * seen.seed).sum(1).double()
        return (rise - per_image(R)) / rise.abs()

    def _propagating(self, x: Tensor) -> Recorder:
        """Rules are installed at the first batch, once it is seen that the logits stay the same."""
        if self._recorder is None:
            with torch.no_grad():
                with watched_norms(self.classifier.module) as norms:
                    plain = self.classifier.logits(x[:1])
                if not torch.equal(plain.nan_to_num(), self.classifier.logits(x[:1]).nan_to_num()):
                    raise ModelError(
                        "the network answers differently each time",
                        got="two runs on one image that differ",
                        rule="evaluation is deterministic",
                        remedy="Write dropout as a module, or give it training=self.training",
                    )
                plan = composite(self.method, self.classifier.box)
                self._recorder = self._stack.enter_context(installed(self.classifier.module, plan, norms))
                _same(plain, self.classifier.logits(x[:1]))
        return self._recorder

    def _look(self, x: Tensor, target: Tensor, recorder: Recorder) -> _Seen:
        """The one forward pass."""
        logits = self.classifier.logits(x)
        late, features = self._late.input, self._head.input
        middle = None if self._middle is None else self._middle.input
        head = self.classifier.module.get_submodule(self.classifier.head)
        if isinstance(head, nn.Linear) and features.ndim == 2 and torch.equal(self._head.output, logits):
            relevance = head_relevance(features, head.weight, target)
        else:
            with recorder.suspended():
                relevance = activation_gradient(self.classifier, x, target, self.classifier.head)
        return _Seen(target, logits, late, over_space(features).detach(), relevance.detach(), middle)

    def _result(
        self,
        seen: _Seen,
        R: Tensor,
        R_late: Tensor,
        R_middle: Tensor | None,
        residual: Tensor,
        absorbed: Tensor,
        ledger: Ledger | None,
    ) -> Relevance:
        return Relevance(
            self.method,
            targets=_array(seen.target),
            maps=_array(pooled(R, self.map_side)),
            concepts=_array(over_space(R_late)),
            features=_array(seen.features),
            head=_array(seen.head),
            logits=_array(seen.logits),
            total=_array(per_image(R)),
            residual=_array(residual),
            absorbed=_array(absorbed),
            ledger=ledger,
            middle=None if seen.middle is None else _array(seen.middle.float()),
            channels=None if R_middle is None else _array(over_space(R_middle).float()),
        )


@dataclass(frozen=True)
class _Seen:
    """What a forward pass shows before any relevance flows."""

    target: Tensor
    logits: Tensor
    late: Tensor
    """The input of the late layer, part of the graph."""
    features: Tensor
    head: Tensor
    middle: Tensor | None
    """The input of the middle layer, part of the graph too."""

    @property
    def seed(self) -> Tensor:
        """R = 1 at the target's logit."""
        return torch.zeros_like(self.logits).scatter_(1, self.target[:, None], 1.0)

    def arriving(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """What flows back to the pixels, the late layer and the middle one: relevance under rules, else gradients."""
        cuts = (x, self.late) if self.middle is None else (x, self.late, self.middle)
        at_x, at_late, *at_middle = torch.autograd.grad(self.logits, cuts, self.seed)
        return at_x, at_late, at_middle[0] if at_middle else None


def _same(plain: Tensor, canonised: Tensor) -> None:
    """Merged norms and named additions must not change the function. Raises ModelError."""
    if not plain.isfinite().all():
        raise InputRefused("the model answers with logits that are no numbers", got="nan or inf")
    apart = float((plain - canonised).abs().max() / plain.abs().max().clamp(min=1e-30))
    if not apart < 1e-3:
        raise ModelError(
            "the network computes something else once its batch norms are merged",
            got=f"logits that differ by {apart:.2g} of the largest",
            rule="a convolution that feeds a norm must feed nothing else",
            remedy="Use a gradient method or head relevance",
        )


def _array(a: Tensor) -> Array:
    return a.detach().cpu().numpy()


def explain(
    classifier: Classifier,
    batch: Tensor,
    targets: Tensor,
    *,
    method: str = "EpsilonPlusFlat",
    map_side: int = 32,
    layer: str | None = None,
    seed: int = 0,
    middle: str | None = None,
) -> Relevance:
    """Relevance of one batch (B, C, H, W) for the classes (B,): an `Explainer` for a single call."""
    with Explainer(classifier, method, map_side, layer, seed, middle) as explainer:
        return explainer(batch, targets)
