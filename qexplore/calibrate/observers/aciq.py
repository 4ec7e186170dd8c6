"""The clip range with the least expected error if values are Laplace or Gauss distributed, in closed form.

Source: Banner et al. 2019, "Post training 4-bit quantization of convolutional networks for rapid-deployment" (ACIQ).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch

from qexplore.calibrate.observers.observer import Option, observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec

GAUSS_RATIO, LAPLACE_RATIO = math.sqrt(2 / math.pi), math.sqrt(0.5)  # mean magnitude over standard deviation


def clipped(
    values: torch.Tensor,
    weights: torch.Tensor | float,
    lo: torch.Tensor,
    hi: torch.Tensor,
    spec: TensorSpec,
    distribution: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The range of each row.

    Args:
        values: float64 [rows, n]; weights: float64 [n], or 1.
        lo, hi: float64 [rows], the smallest and largest value of each row.

    Returns:
        Two float64 tensors [rows].
    """
    one_sided = (lo >= 0) | (hi <= 0)  # half of a distribution around zero, whose zeros tell nothing about its width
    shares = ((values != 0) | ~one_sided[:, None]) * weights
    shares = shares / shares.sum(1, keepdim=True).clamp(min=1)
    centre = torch.where(one_sided, 0.0, 0.0 if spec.symmetric else (values * shares).sum(1))
    distance = (values - centre[:, None]).abs()
    magnitude, deviation = (distance * shares).sum(1), (distance.square() * shares).sum(1).sqrt()
    ratio = magnitude / torch.where(deviation > 0, deviation, 1.0)
    gauss = (ratio - GAUSS_RATIO).abs() < (ratio - LAPLACE_RATIO).abs()
    if distribution != "auto":
        gauss = torch.full_like(gauss, distribution == "gauss")
    halves = one_sided & (not spec.symmetric)  # one side alone has twice as many levels
    widths = [
        magnitude * torch.where(halves, laplace_clip(spec.bits + 1), laplace_clip(spec.bits)),
        deviation * torch.where(halves, gauss_clip(spec.bits + 1), gauss_clip(spec.bits)),
    ]
    clip = torch.where(gauss, widths[1], widths[0])
    return torch.maximum(lo, centre - clip), torch.minimum(hi, centre + clip)


def rows(values: torch.Tensor, spec: TensorSpec, distribution: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for each row."""
    wide = values.double()
    lo, hi = clipped(wide, 1.0, wide.amin(1), wide.amax(1), spec, distribution)
    return lo.float(), hi.float()


@observer(
    "aciq",
    "the least expected error for a Laplace or Gauss distribution",
    rows=rows,
    distribution=Option(
        "auto",
        text="What the values are taken for; auto takes the one whose mean magnitude is nearer.",
        choices=("auto", "laplace", "gauss"),
    ),
)
def aciq(stats: TensorStats, spec: TensorSpec, distribution: str) -> tuple[float, float]:
    """Mean ± the best clip value; from zero up (or down) for values of one sign, as after a ReLU."""
    values, weights = stats.sample
    lowest, highest = torch.tensor([[stats.lo], [stats.hi]], dtype=torch.float64)
    lo, hi = clipped(values.double()[None], weights, lowest, highest, spec, distribution)
    return float(lo), float(hi)


@cache
def laplace_clip(bits: int) -> float:
    """Clip value over mean magnitude with the least expected error.

    The error 2 e^-t + t² / (3 · 4^bits) is least where t e^t = 3 · 4^bits.
    """
    return _root(lambda t: t * math.exp(t) - 3 * 4**bits)


@cache
def gauss_clip(bits: int) -> float:
    """Clip value over standard deviation with the least expected error.

    The error (1 + t²)(1 - erf(t/√2)) - √(2/π) t e^(-t²/2) + t² / (3 · 4^bits) is least where its derivative is zero.
    """

    def slope(t: float) -> float:
        density = math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        return 2 * t / (3 * 4**bits) - 4 * density + 2 * t * math.erfc(t / math.sqrt(2))

    return _root(slope)


def _root(function: Callable[[float], float]) -> float:
    """Where a function that is negative before and positive after is zero, between 0 and 60, by halving."""
    low, high = 0.0, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if function(middle) > 0 else (middle, high)
    return (low + high) / 2
