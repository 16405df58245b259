"""Relevance rules of torch functions, applied while a network's forward pass runs, whoever calls them.

A `TorchFunctionMode` sees every torch function of a forward pass: those that modules call, and the additions, gates,
norms and attention that modules do not name. A function with a rule is computed by an autograd function of
`relevance.propagation`; every other function keeps its gradient, which conserves relevance where outputs are selected
inputs (views, slices, maxima) and is found by the conservation check where it does not.

- Layers with weights get the rule of the composite.
- Functions that are linear in what carries relevance (sums, means, interpolation, attention applied to values, norms
  with their deviation held fixed) get the epsilon rule; constants count as biases.
- Elementwise functions pass relevance on unchanged (as zennit's `Pass`).
- Gates, attention weights and deviations are held fixed: they scale relevance's way and receive none (Arras et al.,
  WASSA 2017, for gates; Ali et al., ICML 2022, for attention and layer norms), unless the composite gives relevance to
  attention weights. A product of two tensors of equal standing gives half to each (Achtibat et al., ICML 2024).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from klarsicht.audit.explanation.networks.hooks import exchange_tensors, tensors_in
from klarsicht.audit.explanation.relevance.batch_norms import NormsToMerge
from klarsicht.audit.explanation.relevance.function_calls import (
    Function,
    FunctionCall,
    PassState,
    RulePlan,
    carries_relevance,
    changes_in_place,
)
from klarsicht.audit.explanation.relevance.propagation import (
    LayerFunction,
    PaddingFunction,
    Recorder,
    compute,
    pass_through,
)
from klarsicht.audit.explanation.relevance.rules import Layer, Rule

LINEAR: Final[Callable[..., Tensor]] = functional.linear
FunctionRule = Callable[..., Any]
"""Function (call, *args, **kwargs) that computes a torch function with a relevance rule."""


def _rule_of(call: FunctionCall, rule: Rule, convolution: bool) -> Rule:
    """Take the rule that the composite gives to this layer by itself, else that of the first layer where this is the
    first, else the rule of its kind."""
    state = call.state
    first = state.first
    if first is not None and (convolution or not state.plan.composite.first_is_convolution):
        state.first, rule = None, first
    return call.exception() or rule


def _linear(call: FunctionCall, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rule = _rule_of(call, call.state.plan.composite.linear, convolution=False)
    return call.layer(LINEAR, input, weight, bias, -1, rule)


def _convolution(
    call: FunctionCall, input: Tensor, weight: Tensor, bias: Tensor | None = None, *geometry: Any, **keywords: Any
) -> Tensor:
    rule = _rule_of(call, call.state.plan.composite.convolution, convolution=True)
    return call.layer(lambda x, W, b: call.function(x, W, b, *geometry, **keywords), input, weight, bias, 1, rule)


def _batch_norm(
    call: FunctionCall, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, *args: Any, **kwargs: Any,
) -> Tensor:  # fmt: skip
    """Pass relevance through a batch norm; one that was merged into the layer before it computes nothing."""
    if (
        call.state.merged_outputs.pop(id(input), None) is not None
    ):  # once: a second norm of the same tensor is none of it
        return input
    if weight is not None:
        input = _fill_where_zero(call, input, weight.reshape(-1, *[1] * (input.ndim - 2)))
    return pass_through(input, lambda x: call.function(x, running_mean, running_var, weight, *args, **kwargs))


def _layer_norm(
    call: FunctionCall, input: Tensor, normalized_shape: Iterable[int], weight: Tensor | None = None,
    bias: Tensor | None = None, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    axes = tuple(range(-len(tuple(normalized_shape)), 0))

    def normalise(x: Tensor) -> Tensor:
        y = _centred_over_deviation(x, axes, eps)
        return y if weight is None else y * weight

    return call.linear(normalise, input, bias=bias)


def _group_norm(
    call: FunctionCall, input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    channels = (1, -1, *[1] * (input.ndim - 2))

    def normalise(x: Tensor) -> Tensor:
        y = _centred_over_deviation(x.reshape(len(x), num_groups, -1), (-1,), eps).reshape(x.shape)
        return y if weight is None else y * weight.reshape(channels)

    return call.linear(normalise, input, bias=None if bias is None else bias.reshape(channels))


def _centred_over_deviation(x: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """Compute (x - mean) / sqrt(variance + eps) over axes, with the deviation held fixed."""
    deviation = (x.detach().var(axes, unbiased=False, keepdim=True) + eps).sqrt()
    return (x - x.mean(axes, keepdim=True)) / deviation


def _instance_norm(
    call: FunctionCall, input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True, momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    if use_input_stats:
        return _group_norm(call, input, input.shape[1], weight, bias, eps)
    return pass_through(
        input, lambda x: functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    )


def _add(call: FunctionCall, a: Any, b: Any, *, alpha: float = 1) -> Tensor:
    a, b = _as_tensors(a, b)
    return call.sum(a, b if alpha == 1 else _scale(b, alpha))


def _subtract(call: FunctionCall, a: Any, b: Any, *, alpha: float = 1) -> Tensor:
    a, b = _as_tensors(a, b)
    return call.sum(a, _scale(b, -alpha))


def _as_tensors(a: Any, b: Any) -> tuple[Tensor, Tensor]:
    held = a if isinstance(a, Tensor) else b
    return tuple(v if isinstance(v, Tensor) else torch.tensor(v, dtype=held.dtype).to(held.device) for v in (a, b))  # type: ignore[return-value]


def _scale(x: Tensor, factor: float) -> Tensor:
    return pass_through(x, lambda x: x * factor)


def _multiply(call: FunctionCall, a: Any, b: Any) -> Tensor:
    """Give relevance to the signal of a gate, or half to each of two factors of equal standing."""
    if carries_relevance(a) and carries_relevance(b):
        if a.numel() == b.numel() and not {id(a), id(b)} & call.state.gates.keys():
            return call.linear(torch.mul, a, b)
        gate_is_a = a.numel() < b.numel() or (a.numel() == b.numel() and id(a) in call.state.gates)
        a, b = (b, a) if gate_is_a else (a, b)
    elif not carries_relevance(a):
        a, b = b, a
    held = b.detach() if isinstance(b, Tensor) else b
    return pass_through(_fill_where_zero(call, a, held), lambda x: x * held)


def _fill_where_zero(call: FunctionCall, x: Tensor, factor: Tensor | float) -> Tensor:
    """Fill x with 0 where its factor is 0, so that the relevance of these products is absorbed: they do not depend on
    x."""
    zero = torch.as_tensor(factor, device=x.device) == 0
    return _where(call, zero, 0.0, x) if zero.any() else x


def _divide(call: FunctionCall, a: Any, b: Any, *, rounding_mode: str | None = None) -> Tensor:
    """Give relevance to the numerator; a denominator is held fixed."""
    if carries_relevance(a):
        held = b.detach() if isinstance(b, Tensor) else b
        return pass_through(a, lambda x: torch.div(x, held, rounding_mode=rounding_mode))
    return pass_through(b, lambda x: torch.div(a, x, rounding_mode=rounding_mode))


def _multiply_and_add(call: FunctionCall, input: Any, a: Any, b: Any, *, value: float = 1) -> Tensor:
    product = _multiply(call, a, b) if carries_relevance(a) or carries_relevance(b) else a * b
    return _add(call, input, product, alpha=value)


def _elementwise(call: FunctionCall, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    kwargs.pop("inplace", None)
    held = [a.detach() if isinstance(a, Tensor) else a for a in args]
    in_place = changes_in_place(call.function) or any(a is True for a in args)
    return pass_through(input, lambda x: call.function(x.clone() if in_place else x, *held, **kwargs))


def _gate(call: FunctionCall, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Pass relevance through a function whose values lie between two bounds, and remember it as a gate."""
    y = _elementwise(call, input, *args, **kwargs)
    call.state.gates[id(y)] = y
    return y


def _gated_linear_unit(call: FunctionCall, input: Tensor, dim: int = -1) -> Tensor:
    signal, gate = input.chunk(2, dim)
    held = gate.detach().sigmoid()
    return pass_through(signal, lambda x: x * held)


def _linear_in_input(call: FunctionCall, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return call.linear(lambda x: call.function(x, *args, **kwargs), input)


def _sum_over_axes(call: FunctionCall, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Propagate through a sum or mean. Where the first axis is summed, it counts stacked heads, and the next images."""
    axes = args[:1] or tuple(kwargs[name] for name in ("dim", "axis") if name in kwargs)
    first = axes[:1] in ((0,), (-input.ndim,), ((0,),), ([0],))
    if not first or input.ndim < 2 or len(args) > 1 or kwargs.get("keepdim"):
        return _linear_in_input(call, input, *args, **kwargs)
    kept = {name: value for name, value in kwargs.items() if name not in ("dim", "axis")}
    return call.linear(lambda x: call.function(x, 1, **kept), input.movedim(0, 1))


def _product(call: FunctionCall, *args: Any, **kwargs: Any) -> Tensor:
    """Propagate through a matrix product, linear in each operand."""
    live = [a for a in tensors_in(args) if carries_relevance(a)]

    def product(*xs: Tensor) -> Tensor:
        replaced = iter(xs)
        result: Tensor = call.function(*_replace_live(args, replaced), **kwargs)
        return result

    return call.linear(product, *live)


def _replace_live(args: Any, values: Iterator[Tensor]) -> Any:
    if carries_relevance(args):
        return next(values)
    if isinstance(args, (tuple, list)):
        return type(args)(_replace_live(a, values) for a in args)
    return args


def _softmax(call: FunctionCall, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Compute weights that sum to one, held fixed unless the composite gives relevance to attention weights."""
    axis = kwargs.get("dim", args[0] if args else None)
    if call.state.plan.composite.attention_weights and axis in (-1, input.ndim - 1):
        return call.softmax(input)
    return _hold_fixed(call, input, *args, **kwargs)


def _hold_fixed(call: FunctionCall, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    result: Tensor = call.function(input.detach(), *args, **kwargs)
    return result


def _attention(
    call: FunctionCall, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Propagate through attention to the values, and to queries and keys if the composite says so."""
    mask = None if attn_mask is None else attn_mask.detach()
    if call.state.plan.composite.attention_weights and not is_causal and not enable_gqa:
        return _attend(call, query, key, value, mask, query.shape[-1] ** -0.5 if scale is None else scale)
    q, k = query.detach(), key.detach()

    def values(v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(
            q, k, v, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )

    return call.linear(values, value)


def _attend(call: FunctionCall, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Compute softmax(scale q k^T + mask) v for (B, heads, tokens, channels), each product with half to each factor."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    scores = call.linear(lambda q, k: scale * (q @ k.transpose(-1, -2)), q, k, part="scores")
    return call.linear(torch.matmul, call.softmax(scores, mask, "softmax"), v, part="values")


def _multi_head_attention(
    call: FunctionCall, query: Tensor, key: Tensor, value: Tensor, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Tensor | None, in_proj_bias: Tensor | None, bias_k: Tensor | None, bias_v: Tensor | None,
    add_zero_attn: bool, dropout_p: float, out_proj_weight: Tensor, out_proj_bias: Tensor | None, **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Propagate through torch's multi-head attention as `_attention` does; tensors are (tokens, B, channels)."""
    held = (query.detach(), key.detach(), value.detach(), embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias)
    rest = (bias_k, bias_v, add_zero_attn, dropout_p, out_proj_weight, out_proj_bias)
    _, weights = functional.multi_head_attention_forward(
        *held, *rest, **{**kwargs, "need_weights": True, "average_attn_weights": False}
    )
    assert weights is not None
    attention: Tensor = weights
    E = embed_dim_to_check

    def project(part: int, name: str, x: Tensor) -> Tensor:
        own = kwargs.get(f"{'qkv'[part]}_proj_weight")
        W = own if in_proj_weight is None or own is not None else in_proj_weight[part * E : (part + 1) * E]
        b = None if in_proj_bias is None else in_proj_bias[part * E : (part + 1) * E]
        y = _project(call, name, x.transpose(0, 1), W, b)
        return y.reshape(*y.shape[:2], num_heads, -1).transpose(1, 2)

    V = project(2, "value", value)
    plain = kwargs.get("attn_mask") is None and kwargs.get("key_padding_mask") is None and bias_k is None
    if call.state.plan.composite.attention_weights and plain and not add_zero_attn:
        Q, K = project(0, "query", query), project(1, "key", key)
        y = _attend(call, Q, K, V, None, Q.shape[-1] ** -0.5)
    else:
        y = call.linear(lambda v: attention @ v, V, part="values")
    out = _project(call, "out", y.transpose(1, 2).flatten(2), out_proj_weight, out_proj_bias).transpose(0, 1)
    if not kwargs.get("need_weights", True):
        return out, None
    return out, attention.mean(1) if kwargs.get("average_attn_weights", True) else attention


def _project(call: FunctionCall, part: str, x: Tensor, W: Any, b: Tensor | None) -> Tensor:
    rule, bias = call.state.plan.composite.linear, None if b is None else b.detach()
    layer = Layer(call.name(part), LINEAR, rule, W.detach(), bias, -1)
    return compute(LayerFunction, x, layer, call.recorder)


def _pad(
    call: FunctionCall, input: Tensor, pad: Iterable[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    margins = [int(m) for m in pad]
    if mode != "constant":
        return functional.pad(input, margins, mode, value)
    return compute(PaddingFunction, input, margins, 0.0 if value is None else value, call.name(), call.recorder)


def _concatenate(call: FunctionCall, tensors: Iterable[Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """Concatenate tensors; those that depend on no image count as biases."""
    parts = list(tensors)
    beside = next(a for a in parts if carries_relevance(a))
    joined: Tensor = call.function(
        [a if carries_relevance(a) else call.constant(a.to(beside.dtype), beside) for a in parts], *args, **kwargs
    )
    return joined


def _where(call: FunctionCall, condition: Tensor, input: Any, other: Any) -> Tensor:
    """Choose elements of two tensors; the constant of the two counts as a bias."""
    a, b = _as_tensors(input, other)
    if carries_relevance(condition) or (carries_relevance(a) and carries_relevance(b)):
        return torch.where(condition.detach(), a, b)
    shape = torch.where(condition, a, b).shape
    if carries_relevance(a):
        return torch.where(condition, a, call.constant(b.to(a.dtype).expand(shape), a))
    return torch.where(condition, call.constant(a.to(b.dtype).expand(shape), b), b)


def _pool_regions(call: FunctionCall, input: Tensor, boxes: Tensor, *geometry: Any, **keywords: Any) -> Tensor:
    """Propagate through the average of feature maps (B, C, h, w) in boxes (K, 5), each with the number of its image,
    which are held fixed: the epsilon rule of a resampling. Boxes of an image fill places of its own meanwhile, so that
    the first axis counts images."""
    image = boxes[:, 0].detach().long()
    place = (image[:, None] == image).tril(-1).sum(1)  # boxes of the same image before this one
    places = int(place.max()) + 1 if len(place) else 1

    def pool(x: Tensor) -> Tensor:
        y: Tensor = call.function(x, boxes.detach(), *geometry, **keywords)
        return y.new_zeros(len(x), places, *y.shape[1:]).index_put((image, place), y)

    return call.linear(pool, input)[image, place]


def find_functions(names: str) -> list[Function]:
    """Look up functions by name in torch, torch.Tensor and torch.nn.functional, with their in-place forms."""
    functions = []
    for name in names.split():
        for home in (torch, Tensor, functional):
            functions += [f for form in (name, f"{name}_") if callable(f := getattr(home, form, None))]
    return functions


LAYER_FUNCTIONS: Final = frozenset(
    find_functions("linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d")
)
"""Functions of layers with weights, which are numbered in the order of their calls."""

_RULES: Final[dict[FunctionRule, str]] = {
    _linear: "linear",
    _convolution: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    _batch_norm: "batch_norm",
    _layer_norm: "layer_norm",
    _group_norm: "group_norm",
    _instance_norm: "instance_norm",
    _add: "add __add__ __iadd__ __radd__",
    _subtract: "sub subtract __sub__ __isub__",
    lambda call, b, a: _subtract(call, a, b): "rsub __rsub__",
    _multiply: "mul multiply __mul__ __imul__ __rmul__",
    _divide: "div divide true_divide __div__ __truediv__ __itruediv__",
    lambda call, b, a: _divide(call, a, b): "__rtruediv__ __rdiv__",
    _multiply_and_add: "addcmul",
    _elementwise: (
        "relu relu6 leaky_relu prelu rrelu elu celu selu gelu silu mish hardswish hardtanh softplus softsign "
        "hardshrink softshrink tanhshrink threshold clamp clip clamp_min clamp_max neg negative __neg__ abs sqrt "
        "square pow __pow__ rms_norm normalize local_response_norm"
    ),
    _gate: "sigmoid hardsigmoid tanh logsigmoid",
    _gated_linear_unit: "glu",
    _sum_over_axes: "mean sum",
    _linear_in_input: (
        "cumsum avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
        "interpolate upsample upsample_nearest upsample_bilinear grid_sample fold"
    ),
    _product: "matmul __matmul__ __rmatmul__ bmm mm mv einsum tensordot",
    _softmax: "softmax",
    _hold_fixed: "log_softmax softmin gumbel_softmax",
    _attention: "scaled_dot_product_attention",
    _multi_head_attention: "multi_head_attention_forward",
    _pad: "pad",
    _concatenate: "cat concat concatenate stack hstack vstack",
    _where: "where",
    lambda call, input, mask, value: _where(call, mask, value, input): "masked_fill",
}

FUNCTION_RULES: Final[dict[Function, FunctionRule]] = {
    function: rule for rule, names in _RULES.items() for function in find_functions(names)
}
"""Rule of each torch function that has one."""

OPERATOR_RULES: Final[dict[str, FunctionRule]] = {"torchvision.roi_align": _pool_regions}
"""Rule of each operator of another library that has one, by the name that torch registers it with: looking it up by
name imports no library."""

SELECTIONS: Final = frozenset(
    find_functions(
        "view reshape view_as reshape_as flatten unflatten squeeze unsqueeze permute transpose swapaxes swapdims "
        "movedim moveaxis t expand expand_as repeat repeat_interleave tile contiguous clone to float double "
        "type_as narrow select index_select gather take_along_dim __getitem__ __setitem__ split split_with_sizes "
        "tensor_split chunk unbind roll flip rot90 unfold pixel_shuffle pixel_unshuffle channel_shuffle "
        "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d max amax "
        "maximum min amin minimum topk sort dropout dropout1d dropout2d dropout3d alpha_dropout "
        "feature_alpha_dropout feature_dropout max_pool1d_with_indices max_pool2d_with_indices "
        "max_pool3d_with_indices adaptive_max_pool2d_with_indices requires_grad_ detach argmax broadcast_to "
        "broadcast_tensors atleast_1d meshgrid diagonal as_strided copy_ zero_ tril triu"
    )
)
"""Functions whose gradient conserves relevance: each output equals one input."""


class RuleMode(TorchFunctionMode):
    """Mode in which torch functions carry relevance backwards by a plan, for one forward pass; a recorder receives the
    balances of the backward pass."""

    def __init__(self, plan: RulePlan, recorder: Recorder) -> None:
        super().__init__()
        self.state = PassState(plan, recorder, plan.composite.first)
        self.calls = 0
        self.replaced: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self, function: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = (exchange_tensors(given, self.replaced) for given in (args, kwargs or {}))
        call = FunctionCall(self.state, function, self.calls)
        self.calls += function in LAYER_FUNCTIONS
        if not any(map(carries_relevance, tensors_in((args, kwargs)))):
            return function(*args, **kwargs)
        if (rule := FUNCTION_RULES.get(function) or OPERATOR_RULES.get(str(function))) is not None:
            output = rule(call, *args, **kwargs)
            if changes_in_place(function):
                self.replaced[id(args[0])] = args[0], output
            return output
        output = function(*args, **kwargs)
        if function not in SELECTIONS and any(map(carries_relevance, tensors_in(output))):
            self.state.plan.without_rule[call.name()] += 1
        return output


def find_norms_to_merge() -> NormsToMerge:
    """Make the mode that finds, during one plain forward pass, the batch norms to merge."""
    return NormsToMerge(LAYER_FUNCTIONS, frozenset(find_functions("linear conv1d conv2d conv3d")))


def computes_attention(functions: Collection[Function]) -> bool:
    """Test whether the functions that a network calls compute attention: by a function of its own, or written out as
    softmax and matrix product."""
    fused = {functional.scaled_dot_product_attention, functional.multi_head_attention_forward}
    written = (find_functions("softmax"), find_functions("matmul __matmul__ bmm einsum"))
    return bool(fused & set(functions)) or all(set(kind) & set(functions) for kind in written)
