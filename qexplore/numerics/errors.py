"""How far a quantized tensor is from its float one, summed over batches."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass
class ErrorMeter:
    """Sums over (reference, other) pairs of tensors, from which the usual measures follow."""

    count: int = 0
    signal: float = 0.0
    noise: float = 0.0
    power: float = 0.0
    max_error: float = 0.0

    def add(self, reference: torch.Tensor, other: torch.Tensor) -> None:
        """Take in one pair of tensors of equal shape."""
        x, y = reference.detach().float().flatten(), other.detach().float().flatten()
        if not x.numel():
            return
        noise, largest = _energy(y - x)
        self.count += x.numel()
        self.signal += _energy(x)[0]
        self.power += _energy(y)[0]
        self.noise += noise
        self.max_error = max(self.max_error, largest)

    @property
    def mse(self) -> float:
        """Mean squared error, in squared units of the tensor."""
        return self.noise / self.count if self.count else math.nan

    @property
    def sqnr_db(self) -> float:
        """Signal-to-quantization-noise ratio 10 log10(sum x^2 / sum (x - y)^2), in dB; inf where equal."""
        return ratio_db(self.signal, self.noise)

    @property
    def cosine(self) -> float:
        """Cosine of the angle between the two tensors, 1 for equal direction."""
        if self.signal == 0 or self.power == 0:
            return 1.0 if self.signal == self.power else 0.0
        dot = (self.signal + self.power - self.noise) / 2
        return max(-1.0, min(dot / math.sqrt(self.signal * self.power), 1.0))


def _energy(x: torch.Tensor) -> tuple[float, float]:
    """Sum of squares and largest magnitude; in float64 where squares would leave float32's range."""
    lo, hi = torch.aminmax(x)
    largest = float(torch.maximum(-lo, hi))
    if largest > 0 and not 1e-12 < largest < 1e12:
        x = x.double()
    return float(x.dot(x)), largest


def ratio_db(signal: float, noise: float) -> float:
    """10 log10(signal / noise) of two powers, in dB; inf without noise, -inf without signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def sqnr_db(reference: torch.Tensor, other: torch.Tensor) -> float:
    """SQNR of one pair of tensors, in dB (see `ErrorMeter.sqnr_db`)."""
    meter = ErrorMeter()
    meter.add(reference, other)
    return meter.sqnr_db
