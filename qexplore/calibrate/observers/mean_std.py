"""The mean and so many standard deviations to both sides.

Source: Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1, which takes mean and deviation
from BatchNorm.
"""

from __future__ import annotations

import math

import torch

from qexplore.calibrate.observers.observer import Option, observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec


def rows(values: torch.Tensor, spec: TensorSpec, sigmas: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for each row."""
    wide = values.double()  # squares of 1e30 need float64
    mean, reach = wide.mean(1), sigmas * wide.std(1, correction=0)
    lo, hi = wide.amin(1), wide.amax(1)
    return (mean - reach).clamp(lo, hi).float(), (mean + reach).clamp(lo, hi).float()


@observer(
    "mean_std",
    "the mean and some standard deviations to both sides",
    rows=rows,
    sigmas=Option(4.0, 0.5, 20.0, "standard deviations", "How far the range reaches from the mean to each side."),
)
def mean_std(stats: TensorStats, spec: TensorSpec, sigmas: float) -> tuple[float, float]:
    """Mean ± `sigmas` standard deviations, within the values seen."""
    reach = sigmas * math.sqrt(stats.variance)
    lo, hi = (min(max(edge, stats.lo), stats.hi) for edge in (stats.mean - reach, stats.mean + reach))
    return lo, hi
