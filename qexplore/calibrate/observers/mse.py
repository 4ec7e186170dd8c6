"""The range with the least squared error at the bits in use.

Source: MSE range setting in Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1; the search
over clip values is that of Choukroun et al. 2019, "Low-bit Quantization of Neural Networks for Efficient Inference".
"""

from __future__ import annotations

import torch

from qexplore.calibrate.observers.observer import observer
from qexplore.calibrate.stats import TensorStats
from qexplore.numerics.parts import range_errors
from qexplore.recipe import TensorSpec

COARSE, FINE = 0.8, 0.97  # from one clip value to the next
LEAST = 0.5  # clip values below this share of the mean magnitude are not tried
FEW = 1000  # with fewer values the error depends on which of them fall on a level: the step is FINE, and in the end
ALIGN = tuple(eighths / 8 for eighths in range(-8, 9) if eighths)  # the outermost level is moved by this of a level
NEAR = (1.1, 0.9, 1.05, 0.95, 1.02, 0.98)  # then these times the best range so far, one after the other
ONE_END = (0.0, 0.5, 0.7, 0.85, 0.93, 1.07, 1.15, 1.4, 0.97, 1.03)  # and these times one end


def search(
    values: torch.Tensor, weights: torch.Tensor | None, lo: torch.Tensor, hi: torch.Tensor, spec: TensorSpec
) -> tuple[torch.Tensor, torch.Tensor]:
    """The best range inside [lo, hi] for each row: both ends clipped at one magnitude, then each end alone.

    Args:
        values: float32 [rows, n], or [n] with weights [n] and lo and hi without dimensions.
    """
    lowest, highest = lo.clamp(max=0.0), hi.clamp(min=0.0)
    lo, hi, least = lowest, highest, range_errors(values, weights, lowest, highest, spec.bits, spec.symmetric)

    def attempt(new_lo: torch.Tensor, new_hi: torch.Tensor) -> None:
        nonlocal lo, hi, least
        new_lo, new_hi = torch.maximum(new_lo, lowest), torch.minimum(new_hi, highest)
        error = range_errors(values, weights, new_lo, new_hi, spec.bits, spec.symmetric)
        better = error < least
        lo, hi, least = torch.where(better, new_lo, lo), torch.where(better, new_hi, hi), torch.minimum(error, least)

    clip = torch.maximum(-lowest, highest)
    magnitudes = values.abs()
    mean = magnitudes.mean(-1) if weights is None else (magnitudes.double() @ weights / weights.sum()).float()
    few = weights is not None and values.numel() < FEW
    while bool((clip > LEAST * mean).any()):
        clip = clip * (FINE if few else COARSE)
        attempt(-clip, clip)
    for share in NEAR:
        attempt(lo * share, hi * share)
    if not spec.symmetric and bool(((lo < 0) & (hi > 0)).any()):
        for share in ONE_END:
            attempt(lo * share, hi)
        for share in ONE_END:
            attempt(lo, hi * share)
        for level in (-1, 1):  # zero at the next code
            for share in (0.9, 0.95, 1.0, 1.05):
                shift = level * (hi - lo) / (2**spec.bits - 1)
                attempt((lo + shift) * share, (hi + shift) * share)
        for share in NEAR:
            attempt(lo * share, hi * share)
    if few:
        for levels in ALIGN:
            attempt(lo * (1 + levels / 2**spec.bits), hi * (1 + levels / 2**spec.bits))
    return lo, hi


def rows(values: torch.Tensor, spec: TensorSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for each row."""
    return search(values, None, values.amin(1), values.amax(1), spec)


@observer("mse", "the least squared error at the bits in use", rows=rows)
def mse(stats: TensorStats, spec: TensorSpec) -> tuple[float, float]:
    """The range whose quantization has the least mean squared error, by search."""
    if stats.count == 0:
        return stats.lo, stats.hi
    values, weights = stats.sample
    lo, hi = search(values, weights, torch.tensor(stats.lo), torch.tensor(stats.hi), spec)
    return float(lo), float(hi)
