"""The range that leaves out a share of the values at each end.

Source: Wu et al. 2020, "Integer Quantization for Deep Learning Inference", section 4.1 (percentile calibration).
"""

from __future__ import annotations

import torch

from qexplore.calibrate.observers.observer import Option, observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec


def rows(values: torch.Tensor, spec: TensorSpec, percentile: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for each row, interpolated between neighbouring values."""
    ordered = values.sort(dim=1).values
    if spec.symmetric:
        edge = _at(values.abs().sort(dim=1).values, percentile)
        return -edge, edge
    return _at(ordered, 100 - percentile), _at(ordered, percentile)


def _at(ordered: torch.Tensor, percentile: float) -> torch.Tensor:
    place = percentile / 100 * (ordered.shape[1] - 1)
    left = int(place)
    right = min(left + 1, ordered.shape[1] - 1)
    return torch.lerp(ordered[:, left], ordered[:, right], place - left)


@observer(
    "percentile",
    "leaves out a share of the values at each end",
    rows=rows,
    percentile=Option(
        99.99, 50.0, 100.0, "%", "Share of the values that lie below the upper end, and above the lower."
    ),
)
def percentile(stats: TensorStats, spec: TensorSpec, percentile: float) -> tuple[float, float]:
    """The upper end at this percentile and the lower at 100 minus it; of the magnitudes where symmetric."""
    if percentile == 100 or stats.count == 0:
        return stats.lo, stats.hi
    values, weights = stats.sample
    if spec.symmetric:
        edge = _quantile(values.abs(), weights, percentile / 100)
        return -edge, edge
    share = percentile / 100
    return -_quantile(-values, weights, share), _quantile(values, weights, share)


def _quantile(values: torch.Tensor, weights: torch.Tensor, share: float) -> float:
    """Smallest value with at least `share` of the weight at or below it."""
    ordered, order = values.sort()
    below = weights[order].cumsum(0)
    place = int(torch.searchsorted(below, share * below[-1] * (1 - 1e-12)))
    return float(ordered[min(place, len(ordered) - 1)])
