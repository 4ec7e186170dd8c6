"""Tensors to try a mapping on: seeded samples of typical shapes, and a check of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from qexplore.errors import QexploreError

COUNT = 10_000  # values of a sample
MOST = 200_000  # of a larger tensor, evenly spaced values are taken, so that one look takes milliseconds
LARGEST = 1e37  # larger ranges do not fit into float32
OUTLIERS = 10


@dataclass(frozen=True)
class Values:
    """The values of a tensor, in a row.

    Attributes:
        values: float32 [n], at most `MOST`, the smallest and the largest among them.
        every: each of them stands for so many of the tensor's.
        lo, hi: smallest and largest value.
        count: how many values the tensor has.
    """

    values: torch.Tensor
    every: int
    lo: float
    hi: float
    count: int


def _normal(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(COUNT, generator=generator)


def _laplace(generator: torch.Generator) -> torch.Tensor:
    u = torch.rand(COUNT, generator=generator) - 0.5
    return -u.sign() * torch.log1p(-2 * u.abs()).clamp(min=-20)


def _relu(generator: torch.Generator) -> torch.Tensor:
    return _normal(generator).relu()


def _outliers(generator: torch.Generator) -> torch.Tensor:
    values = _normal(generator)
    sizes = 10 + 30 * torch.rand(OUTLIERS, generator=generator)
    values[:: COUNT // OUTLIERS] = sizes * torch.tensor([1.0, -1.0]).repeat(OUTLIERS // 2)
    return values


SAMPLES: dict[str, Callable[[torch.Generator], torch.Tensor]] = {
    "normal": _normal,
    "Laplace": _laplace,
    "ReLU-like": _relu,
    "with outliers": _outliers,
}


def sample(kind: str, seed: int = 0) -> torch.Tensor:
    """Values of one of `SAMPLES`, float32 [COUNT], the same for the same seed.

    Of the normal values with outliers, `OUTLIERS` are 10 to 40 standard deviations from zero.
    """
    return SAMPLES[kind](torch.Generator().manual_seed(seed))


def values_of(tensor: Any, name: str = "your tensor") -> Values:
    """The values of `tensor`: a torch.Tensor or anything torch.as_tensor takes.

    Raises:
        QexploreError: it is empty, not of real numbers, or has NaN, infinite or too large values.
    """
    flat, subject = _flat(tensor), name[:1].upper() + name[1:]
    if flat is None:
        raise QexploreError(f"{subject} has no real numbers to quantize: give a tensor or a list of numbers.")
    if not flat.numel():
        raise QexploreError(f"{subject} is empty: give a tensor with at least one value.")
    bad = int((~(flat.abs() < LARGEST)).sum())
    if bad:
        raise QexploreError(
            f"{subject} has NaN, infinite or huge values ({bad:,} of {flat.numel():,}): give finite ones below 1e37."
        )
    lo, hi = (float(end) for end in torch.aminmax(flat))
    every = -(-flat.numel() // MOST)
    values = flat if every == 1 else torch.cat([flat[::every], torch.tensor([lo, hi])])
    return Values(values, every, lo, hi, flat.numel())


def _flat(tensor: Any) -> torch.Tensor | None:
    """`tensor` as float32 [n] on the CPU; None where it has no real numbers."""
    try:
        tensor = torch.as_tensor(tensor).detach()
        if tensor.is_complex() or tensor.dtype == torch.bool or tensor.is_meta:
            return None
        tensor = tensor.dequantize() if tensor.is_quantized else tensor
        return tensor.to_dense().cpu().float().flatten()
    except (TypeError, ValueError, RuntimeError):
        return None
