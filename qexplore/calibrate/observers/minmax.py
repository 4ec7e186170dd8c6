"""The whole range seen. Source: torch.ao's MinMaxObserver, whose range this is exactly."""

from __future__ import annotations

import torch

from qexplore.calibrate.observers.observer import observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec


def rows(values: torch.Tensor, spec: TensorSpec, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest value of each row."""
    return values.amin(1), values.amax(1)


@observer("minmax", "the whole range seen", rows=rows)
def minmax(stats: TensorStats, spec: TensorSpec) -> tuple[float, float]:
    """The whole range seen."""
    return stats.lo, stats.hi
