"""One weight that gradient descent trains with fake-quantize in the loop: the smallest case of QAT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from qexplore.numerics.mapping import AffineMapping

Forward = Callable[[torch.Tensor, AffineMapping], torch.Tensor]


def straight_through(x: torch.Tensor, mapping: AffineMapping) -> torch.Tensor:
    """PyTorch's fake-quantize, whose autograd is the straight-through estimator (Bengio et al. 2013)."""
    return torch.fake_quantize_per_tensor_affine(
        x, mapping.scale, mapping.zero_point, mapping.quant_min, mapping.quant_max
    )


def true_derivative(x: torch.Tensor, mapping: AffineMapping) -> torch.Tensor:
    """The same values from `torch.round`, whose autograd is the true derivative: zero almost everywhere."""
    codes = (torch.round(x / mapping.scale) + mapping.zero_point).clamp(mapping.quant_min, mapping.quant_max)
    return (codes - mapping.zero_point) * mapping.scale


def no_rounding(x: torch.Tensor, mapping: AffineMapping) -> torch.Tensor:
    """The float value itself, for comparison."""
    return x * 1.0


FORWARDS: dict[str, Forward] = {
    "straight-through": straight_through,
    "true derivative": true_derivative,
    "no rounding (float)": no_rounding,
}


def slope(forward: Forward, x: torch.Tensor, mapping: AffineMapping) -> torch.Tensor:
    """What autograd takes for the derivative of a forward pass, at each value of `x`."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(forward(leaf, mapping).sum(), leaf)
    return gradient


@dataclass(frozen=True)
class Descent:
    """How a weight went.

    Attributes:
        mapping, target, rate: what it was trained with; `target` is in the weight's unit.
        weight: the float weight before every step and after the last, [steps + 1].
        used: the value the model computes with, fake-quantized, [steps + 1].
        gradient: of the loss by the weight, [steps + 1].
    """

    mapping: AffineMapping
    target: float
    rate: float
    weight: np.ndarray
    used: np.ndarray
    gradient: np.ndarray

    @property
    def late(self) -> slice:
        """The second half of the steps, when the beginning is forgotten."""
        return slice(-(len(self.weight) // 2), None)

    @property
    def jumps(self) -> int:
        """How often the used value changes in the second half."""
        return int((np.diff(self.used)[self.late] != 0).sum())


def descend(
    mapping: AffineMapping,
    start: float,
    target: float,
    rate: float,
    steps: int = 80,
    forward: Forward = straight_through,
) -> Descent:
    """Gradient descent on the loss (used - target)² / 2, where used = forward(weight).

    Args:
        rate: the learning rate; a step moves the weight by rate · gradient.
    """
    weight = torch.tensor(float(start))
    rows = []
    for _ in range(steps + 1):
        with torch.enable_grad():
            leaf = weight.clone().requires_grad_()
            used = forward(leaf, mapping)
            (gradient,) = torch.autograd.grad((used - target) ** 2 / 2, leaf)
        rows.append((weight.item(), used.item(), gradient.item()))
        weight = weight - rate * gradient
    weights, values, gradients = np.array(rows).T
    return Descent(mapping, target, rate, weights, values, gradients)
