"""The error of a range, in parts: what rounding does inside it, and what clipping does outside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from qexplore.numerics.affine import along, code_range, qparams
from qexplore.numerics.errors import ratio_db

HALF = 0.501  # of a step, with room for float rounding: so far outside the codes rounding alone brings a value in


@dataclass(frozen=True)
class ErrorParts:
    """Mean squares over all values, in squared units of the tensor.

    Attributes:
        signal: of the values themselves.
        rounding: of the error of values that the codes reach.
        clipping: of the error of values more than half a step outside them.
        clipped: share of the values that are clipped.
        used: share of the codes that at least one value gets.
    """

    signal: float
    rounding: float
    clipping: float
    clipped: float
    used: float

    @property
    def mse(self) -> float:
        """Mean squared error."""
        return self.rounding + self.clipping

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / mse) in dB; inf without error."""
        return ratio_db(self.signal, self.mse)


def error_parts(
    values: torch.Tensor,
    weights: torch.Tensor | None,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
) -> ErrorParts:
    """What quantizing `values` does to them.

    Args:
        values: float32, any shape.
        weights: float64, one a value, how many values each stands for; None for one each.
        axis: dimension of `values` along which scale and zero_point vary; None for one pair. Codes of all
            channels are then counted together.
    """
    scale, zero_point = along(scale, values, axis), along(zero_point, values, axis)
    if weights is None:
        weights = torch.ones(values.numel(), dtype=torch.float64)
    steps = values * (1.0 / scale)
    codes = (torch.round(steps) + zero_point).clamp(quant_min, quant_max)
    reached = (steps + zero_point >= quant_min - HALF) & (steps + zero_point <= quant_max + HALF)
    wide = values.double()
    error = (wide - ((codes - zero_point) * scale).double()).square_().flatten()
    inside = reached.flatten() * weights
    outside = weights - inside
    levels = quant_max - quant_min + 1
    used = int((torch.bincount((codes - quant_min).long().flatten(), minlength=levels) > 0).sum())
    sums = (wide.square_().flatten() @ weights, error @ inside, error @ outside, outside.sum())
    count = float(weights.sum()) or math.nan
    signal, rounding, clipping, clipped = (float(each) / count for each in sums)
    return ErrorParts(signal, rounding, clipping, clipped, used / levels)


def range_errors(
    values: torch.Tensor, weights: torch.Tensor | None, lo: torch.Tensor, hi: torch.Tensor, bits: int, symmetric: bool
) -> torch.Tensor:
    """Mean squared error of each of several ranges on the same values.

    Args:
        values: float32 [..., n]; weights: float64 [n] or None.
        lo, hi: float32 [...] matching the leading dimensions of `values`, or [ranges] where `values` is [n].

    Returns:
        float64, of the shape of `lo`.
    """
    quant_min, quant_max = code_range(bits, signed=True)
    scale, zero_point = qparams(lo, hi, quant_min, quant_max, symmetric)
    scale, zero_point = scale.unsqueeze(-1), zero_point.unsqueeze(-1).float()
    codes = (values * (1.0 / scale)).round_().add_(zero_point).clamp_(quant_min, quant_max)
    error = codes.sub_(zero_point).mul_(scale).sub_(values).double().square_()  # squares of 1e30 need float64
    return error.mean(-1) if weights is None else error @ weights / weights.sum()
