"""The clip range with the least expected error if values are Laplace or Gauss distributed, in closed form.

Source: Banner et al. 2019, "Post training 4-bit quantization of convolutional networks for rapid-deployment" (ACIQ),
equations 6 to 8 and, for values after a ReLU, section 3 of its appendix.
"""

from __future__ import annotations

import math
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
    one_sided = not spec.symmetric and (stats.lo >= 0 or stats.hi <= 0)
    if one_sided:  # half of a distribution around zero: zeros carry no information about its width
        weights = weights[values != 0]
        values, centre = values[values != 0], 0.0
    else:
        centre = 0.0 if spec.symmetric else stats.mean
    count = float(weights.sum())
    if not count:
        return stats.lo, stats.hi
    distance = (values.double() - centre).abs()
    magnitude = float(distance @ weights) / count
    deviation = math.sqrt(float(distance.square() @ weights) / count)
    if distribution == "auto" and deviation > 0:
        ratio = magnitude / deviation
        distribution = "gauss" if abs(ratio - GAUSS_RATIO) < abs(ratio - LAPLACE_RATIO) else "laplace"
    levels = 4.0**spec.bits * (4 if one_sided else 1)  # one side alone has twice as many levels
    clip = deviation * gauss_clip(levels) if distribution == "gauss" else magnitude * laplace_clip(levels)
    return max(stats.lo, centre - clip), min(stats.hi, centre + clip)


@cache
def laplace_clip(levels: float) -> float:
    """Clip value over mean magnitude with the least expected error; `levels` is the squared number of levels.

    The error 2 e^-t + t^2 / (3 levels) is least where t e^t = 3 levels.
    """
    return _root(lambda t: t * math.exp(t) - 3 * levels)


@cache
def gauss_clip(levels: float) -> float:
    """Clip value over standard deviation with the least expected error; `levels` is the squared number of levels.

    The error (1 + t^2)(1 - erf(t/√2)) - √(2/π) t e^(-t²/2) + t²/(3 levels) is least where its derivative is zero.
    """

    def slope(t: float) -> float:
        density = math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
        return 2 * t / (3 * levels) - 4 * (density - t * (1 - math.erf(t / math.sqrt(2))) / 2)

    return _root(slope)


def _root(increasing: object) -> float:
    """Where a function that rises through zero between 0.01 and 60 is zero, by halving."""
    low, high = 0.01, 60.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if increasing(middle) > 0 else (middle, high)  # type: ignore[operator]
    return (low + high) / 2
