"""The range that leaves out a share of the values at each end.

Source: percentile calibration in Wu et al. 2020, "Integer Quantization for Deep Learning Inference", after McKinstry
et al. 2018, "Discovering Low-precision Networks Close to Full-precision Networks".
"""

from __future__ import annotations

import math

import torch

from qexplore.calibrate.observers.observer import Option, observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec

ROUNDING = 1e-12  # relative, of sums of weights


def rows(values: torch.Tensor, spec: TensorSpec, percentile: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for each row."""
    ordered = (values.abs() if spec.symmetric else values).sort(dim=1).values
    place = math.ceil(percentile / 100 * ordered.shape[1] * (1 - ROUNDING)) - 1
    hi = ordered[:, place]
    return (-hi if spec.symmetric else ordered[:, -1 - place]), hi


@observer(
    "percentile",
    "leaves out a share of the values at each end",
    rows=rows,
    percentile=Option(
        99.99, 60.0, 100.0, "%", "Share of the values that lie below the upper end, and above the lower."
    ),
)
def percentile(stats: TensorStats, spec: TensorSpec, percentile: float) -> tuple[float, float]:
    """The value that this share of all does not exceed, and the one that it does not fall below; of the magnitudes
    where symmetric."""
    if percentile == 100 or stats.count == 0:
        return stats.lo, stats.hi
    values, weights = stats.sample
    if spec.symmetric:
        edge = _quantile(values.abs(), weights, percentile / 100)
        return -edge, edge
    return -_quantile(-values, weights, percentile / 100), _quantile(values, weights, percentile / 100)


def _quantile(values: torch.Tensor, weights: torch.Tensor, share: float) -> float:
    """Smallest value with at least `share` of the weight at or below it."""
    ordered, order = values.sort()
    below = weights[order].cumsum(0)
    place = int(torch.searchsorted(below, share * below[-1] * (1 - ROUNDING)))
    return float(ordered[min(place, len(ordered) - 1)])
