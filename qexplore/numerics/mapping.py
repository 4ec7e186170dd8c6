"""One affine mapping with its numbers: made from a range, or from a scale and a zero point."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from qexplore.errors import QexploreError
from qexplore.numerics.affine import code_range, fake_quantize, qparams, quantize
from qexplore.numerics.parts import ErrorParts, error_parts

SCALES = (1e-30, 1e30)  # beyond these, float32 cannot hold both scale and 1 / scale with room for codes


@dataclass(frozen=True)
class AffineMapping:
    """q = clamp(round(x / scale) + zero_point, quant_min, quant_max); back: x' = (q - zero_point) * scale.

    Attributes:
        scale: step between two levels, in the tensor's unit; a float32 number.
        zero_point: the code of 0.0.
        quant_min, quant_max: smallest and largest code.
    """

    scale: float
    zero_point: int
    quant_min: int
    quant_max: int

    @classmethod
    def of_range(cls, lo: float, hi: float, bits: int, symmetric: bool, signed: bool) -> AffineMapping:
        """The mapping of the real range [lo, hi], with zero in it, onto codes of `bits` bits."""
        codes = code_range(bits, signed)
        scale, zero_point = qparams(torch.tensor(lo), torch.tensor(hi), *codes, symmetric)
        return cls(float(scale), int(zero_point), *codes)

    @classmethod
    def by_hand(cls, scale: float, zero_point: int, bits: int, signed: bool) -> AffineMapping:
        """The mapping with this scale and zero point.

        Raises:
            QexploreError: a scale that is no positive float32 number, or a zero point that is no code.
        """
        if not SCALES[0] <= scale <= SCALES[1]:
            raise QexploreError(f"A scale of {scale:g} is no step between two levels: give a number above 0.")
        lo, hi = code_range(bits, signed)
        if not lo <= zero_point <= hi:
            raise QexploreError(f"A zero point of {zero_point} is not among the codes: give one of {lo} to {hi}.")
        return cls(float(np.float32(scale)), zero_point, lo, hi)

    @property
    def levels(self) -> np.ndarray:
        """The real value of each code, float64 [codes], ascending."""
        return (np.arange(self.quant_min, self.quant_max + 1) - self.zero_point) * self.scale

    @property
    def lo(self) -> float:
        """The smallest level."""
        return (self.quant_min - self.zero_point) * self.scale

    @property
    def hi(self) -> float:
        """The largest level."""
        return (self.quant_max - self.zero_point) * self.scale

    @property
    def half_width(self) -> float:
        """The magnitude whose symmetric range has this scale."""
        return self.scale * (self.quant_max - self.quant_min) / 2

    def steps(self, x: float) -> float:
        """x / scale in float32, as kernels compute it before rounding."""
        return float(torch.tensor(x) * (1.0 / torch.tensor(self.scale)))

    def code(self, x: float) -> int:
        """The code of one value."""
        return int(quantize(torch.tensor(x), *self._tensors, self.quant_min, self.quant_max))

    def value(self, x: float) -> float:
        """One value after the trip to its code and back."""
        return float(fake_quantize(torch.tensor(x), *self._tensors, self.quant_min, self.quant_max))

    def parts(self, values: torch.Tensor) -> ErrorParts:
        """What the mapping does to `values` (float32, any shape)."""
        return error_parts(values, None, *self._tensors, self.quant_min, self.quant_max)

    def rmse_in_steps(self, parts: ErrorParts) -> float:
        """Root of the mean squared error, in steps of `scale`; 1/sqrt(12) for ideal rounding."""
        return math.sqrt(parts.mse) / self.scale

    @property
    def _tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(self.scale), torch.tensor(self.zero_point)
