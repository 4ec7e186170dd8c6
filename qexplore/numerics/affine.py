"""The affine mapping between real values and integer codes: q = clamp(round(x / scale) + zero_point).

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", and the arithmetic of torch.ao's observers and kernels, which these functions repeat bit for bit.
"""

from __future__ import annotations

import torch

EPS = torch.finfo(torch.float32).eps


def code_range(bits: int, signed: bool) -> tuple[int, int]:
    """Smallest and largest code of `bits` bits: signed for weights, unsigned for activations."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def qparams(
    lo: torch.Tensor, hi: torch.Tensor, quant_min: int, quant_max: int, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero_point that map the real range [lo, hi] onto the codes quant_min..quant_max.

    Args:
        lo, hi: float32 tensors of one shape (one entry, or one a channel); zero is always included.
        symmetric: centre the range on zero; zero_point is then the middle code.

    Returns:
        scale (float32, at least the float32 epsilon, as torch's observers have it) and zero_point (int32).
    """
    lo, hi = lo.float().clamp(max=0.0), hi.float().clamp(min=0.0)
    if symmetric:
        scale = torch.maximum(-lo, hi) / (float(quant_max - quant_min) / 2)
        middle = 0 if quant_min < 0 else (quant_min + quant_max) // 2
        return scale.clamp(min=EPS), torch.full_like(scale, middle, dtype=torch.int32)
    scale = ((hi - lo) / float(quant_max - quant_min)).clamp(min=EPS)
    zero_point = quant_min - torch.round(lo / scale).to(torch.int32)
    return scale, zero_point.clamp(quant_min, quant_max)


def quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
) -> torch.Tensor:
    """Codes of `x` (int32, same shape), rounded half to even as `torch.fake_quantize_*` does.

    Args:
        axis: dimension of `x` along which `scale` and `zero_point` vary; None for one pair.
    """
    scale, zero_point = along(scale, x, axis), along(zero_point, x, axis)
    codes = torch.round(x * (1.0 / scale)) + zero_point
    return codes.clamp(quant_min, quant_max).to(torch.int32)


def dequantize(
    codes: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, axis: int | None = None
) -> torch.Tensor:
    """The real values (float32) that the codes stand for."""
    return (codes - along(zero_point, codes, axis)).float() * along(scale, codes, axis)


def fake_quantize(
    x: torch.Tensor,
    scale: torch.Tensor,
    zero_point: torch.Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None = None,
) -> torch.Tensor:
    """`x` after one trip to codes and back."""
    return dequantize(quantize(x, scale, zero_point, quant_min, quant_max, axis), scale, zero_point, axis)


def grid_range(
    scale: torch.Tensor, zero_point: torch.Tensor, quant_min: int, quant_max: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest and largest real value that the codes can stand for."""
    return (quant_min - zero_point).float() * scale, (quant_max - zero_point).float() * scale


def along(parameter: torch.Tensor, x: torch.Tensor, axis: int | None) -> torch.Tensor:
    """`parameter` shaped to broadcast along `axis` of `x`."""
    if axis is None:
        return parameter.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return parameter.reshape(shape)
