"""The clip range with the least expected error if values are Laplace or Gauss distributed, in closed form.

Source: Banner et al. 2019, "Post training 4-bit quantization of convolutional networks for rapid-deployment" (ACIQ).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

from qexplore.calibrate.observers.observer import Option, observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec

GAUSS_RATIO, LAPLACE_RATIO = math.sqrt(2 / math.pi), math.sqrt(0.5)  # mean magnitude over standard deviation


@observer(
    "aciq",
    "the least expected error for a Laplace or Gauss distribution",
    distribution=Option(
        "auto",
        text="What the values are taken for; auto takes the one whose mean magnitude is nearer.",
        choices=("auto", "laplace", "gauss"),
    ),
)
def aciq(stats: TensorStats, spec: TensorSpec, distribution: str) -> tuple[float, float]:
    """Mean ± the best clip value; from zero up (or down) for values of one sign, as after a ReLU."""
    values, weights = stats.sample
    one_sided = stats.lo >= 0 or stats.hi <= 0
    if one_sided:  # half of a distribution around zero: zeros tell nothing about its width
        values, weights = values[values != 0], weights[values != 0]
    centre = 0.0 if one_sided or spec.symmetric else stats.mean
    count = float(weights.sum())
    if not count:
        return stats.lo, stats.hi
    distance = (values.double() - centre).abs()
    magnitude = float(distance @ weights) / count
    deviation = math.sqrt(float(distance.square() @ weights) / count)
    if distribution == "auto":
        ratio = magnitude / deviation if deviation else GAUSS_RATIO
        distribution = "gauss" if abs(ratio - GAUSS_RATIO) < abs(ratio - LAPLACE_RATIO) else "laplace"
    bits = spec.bits + (one_sided and not spec.symmetric)  # one side alone has twice as many levels
    clip = deviation * gauss_clip(bits) if distribution == "gauss" else magnitude * laplace_clip(bits)
    return max(stats.lo, centre - clip), min(stats.hi, centre + clip)


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
