"""A running mean of each batch's range. Source: torch.ao's MovingAverageMinMaxObserver, whose range this is exactly."""

from __future__ import annotations

import numpy as np
import torch

from qexplore.calibrate.observers.minmax import rows
from qexplore.calibrate.observers.observer import Option, observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec


@observer(
    "moving_average",
    "a running mean of each batch's range",
    rows=rows,
    averaging_constant=Option(0.01, 0.0001, 1.0, text="Weight of each new batch against those before it."),
)
def moving_average(stats: TensorStats, spec: TensorSpec, averaging_constant: float) -> tuple[float, float]:
    """Start at the first batch's range and move by `averaging_constant` of the way to each next one's."""
    # Rounding may turn a range of almost no width, which torch refuses.
    lo, hi = sorted(_running(edges, averaging_constant) for edges in (stats.batch_lo, stats.batch_hi))
    return lo, hi


def _running(edges: torch.Tensor, constant: float) -> float:
    value, weight = edges[0].numpy(), np.float32(constant)
    for edge in edges[1:].numpy():
        value = value + weight * (edge - value)
    return float(value)
