"""Relevance of pixels, of channels of a late layer and of penultimate features, for batches of images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from klarsicht.audit.explanation.models.classifier import Classifier, check_targets, load_model
from klarsicht.audit.explanation.models.forward import centre_targets, target_logits
from klarsicht.audit.explanation.networks.eval_mode import evaluation_mode
from klarsicht.audit.explanation.networks.hooks import Tap, arrange_in_grid, called_layers, late_layer
from klarsicht.audit.explanation.relevance.batches import as_batch, as_targets, predict, require_finite
from klarsicht.audit.explanation.relevance.composites import PROPAGATIONS, LayerRules, check_layer_rules, composite
from klarsicht.audit.explanation.relevance.conservation import (
    REMEDY,
    RelevanceBalance,
    check_conservation,
    sum_per_image,
)
from klarsicht.audit.explanation.relevance.function_calls import RulePlan, follow_modules
from klarsicht.audit.explanation.relevance.function_rules import RuleMode, computes_attention, find_norms_to_merge
from klarsicht.audit.explanation.relevance.gradients import GRADIENTS
from klarsicht.audit.explanation.relevance.pooling import pool_relevance
from klarsicht.audit.explanation.relevance.propagation import Recorder
from klarsicht.audit.explanation.relevance.relevance import Relevance
from klarsicht.audit.explanation.relevance.rules import away_from_zero
from klarsicht.ground.errors import InputRefused, ModelError, NotConserving, UnsupportedLayer, UsageError, unknown_name
from klarsicht.ground.machine.devices import widest_float
from klarsicht.ground.machine.memory import is_out_of_memory
from klarsicht.ground.ranges import SEED
from klarsicht.ground.user_arguments import check_arguments

AUTO: Final = "auto"  # the composite that fits the network, chosen at the first batch

METHODS = (AUTO, *PROPAGATIONS, *GRADIENTS)
"""Names of all methods: `auto`, composites of relevance propagation, then the gradient methods."""


Array = NDArray[Any]
Images = Tensor | Array | Image.Image | Sequence[Image.Image]
Targets = Tensor | Array | Sequence[int | str] | int | str


def head_relevance(
    features: Tensor, head_weight: Tensor, target: Tensor, independent: bool = False, against: Tensor | None = None
) -> Tensor:
    """Compute head relevance f_c (w_target - mean_k w_k)_c, (B, F), of features (B, F) for weights (K, F) and targets
    (B,); of independent outputs f_c (w_target)_c; against other classes (B,) f_c (w_target - w_other)_c."""
    own = head_weight[target]
    if against is not None:
        return features * (own - head_weight[against])
    return features * (own if independent else own - head_weight.mean(0))


def activation_gradient(
    classifier: Classifier, batch: Tensor, targets: Tensor, layer: str, against: Tensor | None = None
) -> Tensor:
    """Compute activation times gradient of the centred logit, of independent outputs of the logit, against other
    classes (B,) of the difference of logits, at the input of `layer`, summed over positions: (B, C). At a linear head
    this equals `head_relevance`. A layer that runs several times, as on the levels of a detector, counts by its last
    call: 0 where the logit does not depend on that. Raises UsageError for an unknown layer, and ModelError for one that
    takes no part in the computation."""
    with evaluation_mode(classifier.module), Tap(classifier.module, layer) as tap:
        x = batch.to(classifier.device).detach().requires_grad_()
        logits, targets = classifier.logits(x), targets.to(x.device)
        if against is not None:
            explained = target_logits(logits, targets) - target_logits(logits, against.to(x.device))
        else:
            explained = (target_logits if classifier.independent else centre_targets)(logits, targets)
        (gradient,) = torch.autograd.grad(explained.sum(), tap.input, allow_unused=True)
        return tap.sum_over_positions(tap.input.detach() * (0 if gradient is None else gradient))


class Explainer:
    """Context manager that explains many batches of a classifier; on exit the classifier is restored.

        with Explainer(classifier, "EpsilonPlusFlat") as explain:
            for batch, targets in batches:
                relevance = explain(batch, targets)

    Args:
        method: a name of METHODS; `auto` is GammaAttention for networks with attention, EpsilonPlusFlat for others.
        map_side: largest side G of the pooled maps.
        layer: late layer, at whose input `concepts` are computed; default `late_layer`.
        seed: seed of SmoothGrad's noise.
        middle: layer whose input and channel relevance are returned; None for neither.
        rules: rules of single layers with weights in place of the method's, by the name of a module or by its type;
            see `audit.rules`. The innermost module that has one decides, and its name before its type.
        keep: whether relevance is returned unpooled, too: `pixels`, and `inner` at the middle layer.

    Raises:
        UsageError: unknown method or layer, an argument out of range, rules of a gradient method, of modules that the
            network does not have, or that no layer with weights came to.
        UnsupportedLayer, NotConserving: the method does not cover the network.
        ModelError: the network does not return logits.
    """

    @check_arguments
    def __init__(
        self, classifier: Classifier, method: str = AUTO, map_side: int = 32, layer: str | None = None, seed: int = 0,
        middle: str | None = None, rules: LayerRules | None = None, keep: bool = False,
    ) -> None:  # fmt: skip
        if method not in METHODS:
            raise unknown_name("relevance method", method, METHODS)
        if rules and method in GRADIENTS:
            remedy = f"Take one of {', '.join(PROPAGATIONS)}."
            raise UsageError("rules of layers belong to relevance propagation", got=method, remedy=remedy)
        check_layer_rules(rules or {}, classifier.module)
        SEED.require("seed", seed)
        if map_side < 1:
            raise UsageError("the side of a map must be positive", got=map_side, remedy="Try 32")
        self.classifier, self.method, self.map_side, self.seed = classifier, method, map_side, seed
        self.layer, self.middle, self.rules, self.keep = layer, middle, dict(rules or {}), keep
        self._plan: RulePlan | None = None
        self._is_open = False

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            module = stack.enter_context(evaluation_mode(self.classifier.module))
            self._late = stack.enter_context(Tap(module, self.layer)) if self.layer else None
            self._head = stack.enter_context(Tap(module, self.classifier.head))
            self._middle = stack.enter_context(Tap(module, self.middle)) if self.middle else None
            self._path = stack.enter_context(follow_modules(module))
            self._stack = stack.pop_all()
        self._is_open = True
        return self

    def __exit__(self, *exception: object) -> None:
        self._plan, self._is_open = None, False
        self._stack.close()

    def __call__(
        self,
        batch: Images,
        targets: Targets,
        against: Targets | None = None,
    ) -> Relevance:
        """Explain pictures, or preprocessed images (B, C, H, W), for target classes; takes and raises as `explain`."""
        if not self._is_open:
            remedy = "with Explainer(model) as explainer: explainer(images, targets)"
            raise UsageError("an Explainer outside of its context", rule="hooks are set only inside", remedy=remedy)
        batch = as_batch(self.classifier, batch)
        x = batch.to(self.classifier.device).detach().requires_grad_()
        target = self._look_up(targets, x)
        other = None if against is None else self._look_up(against, x)
        if other is not None and (target == other).any():
            raise UsageError("a class is explained against itself", rule="two classes for each image")
        if self._late is None:
            called = called_layers(self.classifier.module, lambda: self.classifier.logits(x[:1].detach()))
            layer = late_layer(self.classifier.module, self.classifier.head, called)
            self._late = self._stack.enter_context(Tap(self.classifier.module, layer))
        try:
            explain = self._explain_by_gradient if self.method in GRADIENTS else self._explain_by_propagation
            return explain(x, target, other)
        finally:
            for tap in (self._late, self._head, self._middle):
                if tap is not None:
                    tap.clear()

    def _look_up(self, classes: Targets, x: Tensor) -> Tensor:
        outputs = as_targets(self.classifier, classes, len(x))
        return check_targets(outputs.to(x.device), self.classifier.n_classes)

    def _explain_by_propagation(self, x: Tensor, target: Tensor, against: Tensor | None) -> Relevance:
        plan = self._rules(x)
        recorder = Recorder(len(x))
        with RuleMode(plan, recorder):
            logits = self.classifier.logits(x)
        if not logits.requires_grad:
            raise self._find_unsupported(plan) or UnsupportedLayer("no relevance can flow from the logits to the image")
        forward = self._forward(x, target, against, logits)
        try:
            R, R_late, R_middle = forward.backpropagate(x, forward.initial_relevance)
            total = sum_per_image(R)
            balance = RelevanceBalance(torch.ones_like(total), total, tuple(recorder.entries))
            check_conservation(balance, forward.logits.grad_fn)
        except NotConserving as error:
            raise self._find_unsupported(plan) or error from error
        except RuntimeError as error:  # a tensor that a rule keeps was changed in place
            if is_out_of_memory(error):
                raise
            raise ModelError("relevance cannot be propagated through the network", got=error, remedy=REMEDY) from error
        return self._result(forward, R, R_late, R_middle, balance.residual, balance)

    def _find_unsupported(self, plan: RulePlan) -> UnsupportedLayer | None:
        """Name the functions without a rule as the cause of relevance that is not conserved; None if there are none."""
        if not plan.without_rule:
            return None
        named = [name for name, _ in plan.without_rule.most_common()]
        got = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
        rule = "relevance would silently become a gradient there"
        return UnsupportedLayer("functions without a relevance rule", got=got, rule=rule, remedy=REMEDY)

    def _explain_by_gradient(self, x: Tensor, target: Tensor, against: Tensor | None) -> Relevance:
        forward = self._forward(x, target, against, self.classifier.logits(x))
        at_x, at_late, at_middle = forward.backpropagate(x, forward.direction)

        def gradient(z: Tensor) -> Tensor:
            if z is x:
                return at_x
            z = z.detach().requires_grad_()
            return torch.autograd.grad(self.classifier.logits(z), z, forward.direction)[0]

        R = GRADIENTS[self.method](gradient, x, torch.Generator().manual_seed(self.seed)).detach()
        residual = torch.full((len(x),), torch.nan, dtype=torch.float64)
        if self.method == "IntegratedGradients":
            residual = self._incompleteness(R, forward)
        R_middle = None if forward.middle is None or at_middle is None else forward.middle * at_middle
        return self._result(forward, R, forward.late * at_late, R_middle, residual)

    def _incompleteness(self, R: Tensor, forward: _ForwardPass) -> Tensor:
        """Compute (f(x) - f(0) - sum R) / |f(x) - f(0)|, float64 (B,), which is zero for exact integrated gradients."""
        with torch.no_grad():
            change = (forward.logits - self.classifier.logits(torch.zeros_like(R))) * forward.direction
            rise = change.sum(1).to(widest_float(R.device))
        return (rise - sum_per_image(R)) / rise.abs()

    def _rules(self, x: Tensor) -> RulePlan:
        """Plan the rules at the first batch, after checking that they leave the logits unchanged."""
        if self._plan is None:
            with torch.no_grad():
                with find_norms_to_merge() as norms:
                    plain = self.classifier.logits(x[:1])
                with find_norms_to_merge():  # without a mode, torch computes attention in another order
                    again = self.classifier.logits(x[:1])
                if not torch.equal(plain.nan_to_num(), again.nan_to_num()):
                    got, remedy = "two runs that differ", "Write dropout as a module, or with training=self.training"
                    raise ModelError("the network answers differently each time", got=got, remedy=remedy)
            if self.method == AUTO:
                self.method = "GammaAttention" if computes_attention(norms.functions) else "EpsilonPlusFlat"
            rules = replace(composite(self.method, self.classifier.pixel_bounds), layers=tuple(self.rules.items()))
            plan = RulePlan(rules, self._path, norms.norms)
            with RuleMode(plan, Recorder(1)):
                _check_same_logits(plain, self.classifier.logits(x[:1]).detach())
            if idle := [key for key in self.rules if key not in plan.active]:
                got = ", ".join(key if isinstance(key, str) else key.__name__ for key in idle)
                rule = "a rule belongs to a layer with weights that runs, or to a module that holds one"
                raise UsageError("a rule that no layer takes", got=got, rule=rule)
            self._plan = plan
        return self._plan

    def _forward(self, x: Tensor, target: Tensor, against: Tensor | None, logits: Tensor) -> _ForwardPass:
        """Collect what the taps saw of a forward pass, and compute head relevance."""
        assert self._late is not None
        late, features = self._late.input, self._head.input
        middle = None if self._middle is None else self._middle.input
        head = self.classifier.module.get_submodule(self.classifier.head)
        if isinstance(head, nn.Linear) and features.ndim == 2 and torch.equal(self._head.output, logits):
            relevance = head_relevance(features, head.weight, target, self.classifier.independent, against)
        else:
            relevance = activation_gradient(self.classifier, x, target, self.classifier.head, against)
        return _ForwardPass(
            target, against, logits, late, self._head.sum_over_positions(features).detach(), relevance.detach(), middle
        )

    def _result(
        self, forward: _ForwardPass, R: Tensor, R_late: Tensor, R_middle: Tensor | None, residual: Tensor,
        balance: RelevanceBalance | None = None,
    ) -> Relevance:  # fmt: skip
        assert self._late is not None
        nothing, middle, channels = torch.full_like(residual, torch.nan), None, None
        if self._middle is not None and forward.middle is not None:
            middle = arrange_in_grid(forward.middle, self._middle.channels, R.shape[-2] / R.shape[-1]).float()
            channels = None if R_middle is None else self._middle.sum_over_positions(R_middle).float()
        arrays: dict[str, Tensor | None] = {
            "targets": forward.target,
            "maps": pool_relevance(R, self.map_side),
            "concepts": self._late.sum_over_positions(R_late),
            "features": forward.features,
            "head": forward.head,
            "logits": forward.logits,
            "total": sum_per_image(R),
            "residual": residual,
            "absorbed": nothing if balance is None else balance.absorbed_share,
            "noise": nothing if balance is None else balance.noise,
            "middle": middle,
            "channels": channels,
            "against": forward.against,
            "pixels": R.float() if self.keep else None,
            "inner": R_middle.float() if self.keep and R_middle is not None else None,
        }
        held: dict[str, Any] = {name: None if a is None else a.detach().cpu().numpy() for name, a in arrays.items()}
        classes = self.classifier.classes or ()
        return Relevance(self.method, **held, balance=balance, independent=self.classifier.independent, classes=classes)


@dataclass(frozen=True)
class _ForwardPass:
    """Results of the forward pass, before relevance is propagated."""

    target: Tensor
    against: Tensor | None
    logits: Tensor
    late: Tensor
    """Input of the late layer, part of the autograd graph."""
    features: Tensor
    head: Tensor
    middle: Tensor | None
    """Input of the middle layer, part of the autograd graph."""

    @property
    def direction(self) -> Tensor:
        """Direction (B, K) of what is explained: 1 at the target's logit, -1 at that of the class against it."""
        direction = torch.zeros_like(self.logits).scatter_(1, self.target[:, None], 1.0)
        return direction if self.against is None else direction.scatter_(1, self.against[:, None], -1.0)

    @property
    def initial_relevance(self) -> Tensor:
        """Relevance (B, K) of the outputs, of sum 1: that of the target, or, by the epsilon rule, of the two terms of a
        difference of logits."""
        if self.against is None:
            return self.direction
        terms = self.direction * self.logits.detach()
        return terms / away_from_zero(terms.sum(1, keepdim=True))

    def backpropagate(self, x: Tensor, seed: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Backpropagate a seed (B, K) to pixels, late and middle layer: relevance under rules, else gradients."""
        cuts = (x, self.late) if self.middle is None else (x, self.late, self.middle)
        at_x, at_late, *at_middle = torch.autograd.grad(self.logits, cuts, seed)
        return at_x, at_late, at_middle[0] if at_middle else None


def _check_same_logits(plain: Tensor, other: Tensor) -> None:
    """Check that the rules left the logits unchanged; raises InputRefused for logits that are not finite, and
    ModelError for others."""
    if not plain.isfinite().all():
        raise InputRefused("the model answers with logits that are not numbers", got="nan or inf")
    difference = float((plain - other).abs().max() / plain.abs().max().clamp(min=1e-30))
    if not difference < 1e-3:
        got, rule = f"logits that differ by {difference:.2g}", "functions that change a tensor in place must return it"
        what, remedy = "the network computes something else under relevance rules", REMEDY
        raise ModelError(what, got=got, rule=rule, remedy=remedy)


@check_arguments
def explain(
    classifier: Classifier,
    images: Images,
    targets: Targets | None = None,
    *, against: Targets | None = None, method: str = AUTO, rules: LayerRules | None = None, map_side: int = 32,
    layer: str | None = None, seed: int = 0, middle: str | None = None,
) -> Relevance:  # fmt: skip
    """Compute the relevance of one batch for target classes: pooled maps, and `pixels`, one map for each channel.

    Args:
        images: a picture of Pillow, several, or a float batch (B, C, H, W) as the model takes it: transformed. Volumes
            are a batch (B, C, D, H, W).
        targets: the class explained in each of B images, by number or by name; or one class for all. By default the
            predicted ones.
        against: classes in the same forms: what speaks for the target *rather than* for them, the difference of logits.
        method, rules, map_side, layer, seed, middle: see `Explainer`.

    Raises:
        UsageError: a batch without these axes, without images or of integers, pictures of several sizes, an
            unknown class, another number of targets, or a class against itself.
        UnsupportedLayer, NotConserving, ModelError: see `Explainer`.
    """
    batch = as_batch(classifier, images)
    require_finite(batch)
    with Explainer(classifier, method, map_side, layer, seed, middle, rules, keep=True) as explainer:
        found = explainer(batch, predict(classifier, batch) if targets is None else targets, against)
    if batch.ndim == len("BCDHW"):
        return found
    return replace(found, inputs=np.stack([classifier.picture(one) for one in batch]))


@check_arguments
def attribute(
    model: Classifier | nn.Module, inputs: Tensor | Array, targets: Targets, *, method: str = AUTO,
    rules: LayerRules | None = None, device: str | None = None,
) -> Array:  # fmt: skip
    """Compute the relevance of every value of a batch, float32 (B, C, H, W), in the form that other libraries ask for:
    `quantus` as explain_func, metrics of pytorch-grad-cam after a sum over channels.

    Args:
        model: a classifier, or a module as `load_model` takes it.
        inputs: a batch (B, C, H, W) as the model takes it.
        targets, method, rules: see `explain`.
        device: where a module is taken; by default it stays where it is.

    Raises:
        UsageError, ModelError, UnsupportedLayer, NotConserving: as of `explain`, and of `load_model` for a module.
    """
    classifier = model if isinstance(model, Classifier) else load_model(model, device=device)
    relevance = explain(classifier, torch.as_tensor(inputs), targets, method=method, rules=rules)
    assert relevance.pixels is not None
    return relevance.pixels
