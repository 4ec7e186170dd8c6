"""The range with the least squared error at the bits in use.

Source: Banner et al. 2019, "Post training 4-bit quantization of convolutional networks"; the search over clip
ranges is that of Choukroun et al. 2019, "Low-bit Quantization of Neural Networks for Efficient Inference".
"""

from __future__ import annotations

import torch

from qexplore.calibrate.observers.observer import observer
from qexplore.calibrate.stats import TensorStats
from qexplore.numerics.parts import range_errors
from qexplore.recipe import TensorSpec

COARSE = (1.0, 0.92, 0.84, 0.76, 0.68, 0.6, 0.52, 0.44, 0.36, 0.28, 0.2, 0.12)  # shares of the range to try first
FINE = (0.96, 0.98, 1.02, 1.04, 1.06)  # then these times the best
ONE_END = (0.6, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1)  # then these for each end alone


def search(
    values: torch.Tensor, weights: torch.Tensor | None, lo: torch.Tensor, hi: torch.Tensor, spec: TensorSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best range inside [lo, hi] for each row: both ends together, then each end alone.

    Args:
        values: float32 [rows, n], or [n] with weights [n] and one-element lo and hi.
    """
    first_lo, first_hi = lo.clamp(max=0.0), hi.clamp(min=0.0)
    lo, hi = first_lo, first_hi
    least = range_errors(values, weights, lo, hi, spec.bits, spec.symmetric)

    def try_shares(shares: tuple[float, ...], low: bool, high: bool) -> None:
        nonlocal lo, hi, least
        from_lo, from_hi = lo, hi
        for share in shares:
            new_lo = torch.maximum(from_lo * share, first_lo) if low else from_lo
            new_hi = torch.minimum(from_hi * share, first_hi) if high else from_hi
            error = range_errors(values, weights, new_lo, new_hi, spec.bits, spec.symmetric)
            better = error < least
            lo, hi = torch.where(better, new_lo, lo), torch.where(better, new_hi, hi)
            least = torch.where(better, error, least)

    try_shares(COARSE[1:], True, True)
    try_shares(FINE, True, True)
    if not spec.symmetric and bool(((lo < 0) & (hi > 0)).any()):
        try_shares(ONE_END, True, False)
        try_shares(ONE_END, False, True)
    return lo, hi


def rows(values: torch.Tensor, spec: TensorSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for each row."""
    return search(values, None, values.amin(1), values.amax(1), spec)


@observer("mse", "the least squared error at the bits in use", rows=rows)
def mse(stats: TensorStats, spec: TensorSpec) -> tuple[float, float]:
    """The range whose quantization has the least mean squared error, by search."""
    values, weights = stats.sample
    lo, hi = search(values, weights, torch.tensor(stats.lo), torch.tensor(stats.hi), spec)
    return float(lo), float(hi)
