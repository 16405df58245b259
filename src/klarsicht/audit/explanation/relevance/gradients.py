"""Gradient methods, for networks that relevance propagation does not cover. Each is a function of the gradient, x (B,
C, H, W) -> d logit / d x, and of x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

Gradient = Callable[[Tensor], Tensor]
Method = Callable[[Gradient, Tensor, torch.Generator], Tensor]


def gradient_times_input(gradient: Gradient, x: Tensor, noise: torch.Generator) -> Tensor:
    """Compute gradient times input, R = x . df/dx (Shrikumar et al., arXiv 1605.01713)."""
    return x * gradient(x)


def integrated_gradients(gradient: Gradient, x: Tensor, noise: torch.Generator, steps: int = 32) -> Tensor:
    """Compute integrated gradients, R = x . int_0^1 df/dx(a x) da, by the midpoint rule (Sundararajan et al., ICML
    2017). The baseline is zero in units of the model input; the sum is f(x) - f(0)."""
    along = sum((gradient(x * ((k + 0.5) / steps)) for k in range(steps)), torch.zeros_like(x))
    return x * along / steps


def smooth_grad(gradient: Gradient, x: Tensor, noise: torch.Generator, samples: int = 16, level: float = 0.1) -> Tensor:
    """Compute SmoothGrad, the mean gradient at samples x + N(0, (level . range of x)^2) (Smilkov et al., arXiv
    1706.03825)."""
    spread = level * (x.flatten(1).amax(1) - x.flatten(1).amin(1)).reshape(-1, 1, 1, 1)
    draws = (torch.randn(x.shape, generator=noise, dtype=x.dtype).to(x.device) for _ in range(samples))
    return sum((gradient(x + spread * draw) for draw in draws), torch.zeros_like(x)) / samples


GRADIENTS: Final[dict[str, Method]] = {
    "GradientTimesInput": gradient_times_input,
    "IntegratedGradients": integrated_gradients,
    "SmoothGrad": smooth_grad,
}
