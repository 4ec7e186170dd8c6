"""The mean and so many standard deviations to both sides.

Source: McKinstry et al. 2018, "Discovering Low-Precision Networks Close to Full-Precision Networks".
"""

from __future__ import annotations

import math

import torch

from qexplore.calibrate.observers.observer import Option, observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec


def rows(values: torch.Tensor, spec: TensorSpec, sigmas: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for each row."""
    mean, reach = values.mean(1), sigmas * values.std(1, correction=0)
    lo, hi = values.amin(1), values.amax(1)
    return torch.maximum(lo, torch.minimum(mean - reach, hi)), torch.minimum(hi, torch.maximum(mean + reach, lo))


@observer(
    "mean_std",
    "the mean and some standard deviations to both sides",
    rows=rows,
    sigmas=Option(4.0, 0.5, 20.0, "standard deviations", "How far the range reaches from the mean to each side."),
)
def mean_std(stats: TensorStats, spec: TensorSpec, sigmas: float) -> tuple[float, float]:
    """Mean ± `sigmas` standard deviations, within the values seen."""
    reach = sigmas * math.sqrt(stats.variance)
    return max(stats.lo, stats.mean - reach), min(stats.hi, stats.mean + reach)
