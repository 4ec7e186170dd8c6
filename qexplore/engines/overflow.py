"""Whether the integer sums of an int8 Linear or convolution fit 16 and 32 bits, whatever the CPU at hand does.

Kernels without VNNI multiply with `vpmaddubsw` (Intel's intrinsics guide, _mm256_maddubs_epi16): two products of an
unsigned and a signed byte are added into 16 bits and saturate there. All kernels sum up in 32 bits, which wrap.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.ao.nn import quantized as nnq
from torch.nn import functional as F

PRODUCTS = 2**19  # looked at in one call, which bounds it to a few ms
SUMS = (8, 512)  # fewest and most sums in one call
CONVOLUTIONS = (nnq.Conv1d, nnq.Conv2d, nnq.Conv3d)
MOST_16, MOST_32 = 2**15 - 1, 2**31 - 1


@dataclass(frozen=True)
class Sums:
    """How many sums were looked at, in how many a pair saturates in 16 bits, and how many leave 32 bits."""

    count: int = 0
    saturating: int = 0
    wrapping: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.count + other.count, self.saturating + other.saturating, self.wrapping + other.wrapping)


def spread(count: int, inputs: int) -> torch.Tensor:
    """Positions of the outputs to look at: all of `count`, or as many as fit PRODUCTS, spread without a period.

    Args:
        inputs: number of products in the sum of one output.
    """
    most = min(max(PRODUCTS // inputs, SUMS[0]), SUMS[1])
    if count <= most:
        return torch.arange(count)
    # Multiples of the golden ratio: equal steps would meet the same channel again and again.
    return (torch.arange(most, dtype=torch.float64) * 0.6180339887498949).frac().mul(count).long()


def inputs_of(module: Any) -> int:
    """Number of products in the sum of one output of an int8 Linear or convolution; 0 for other modules."""
    if isinstance(module, nnq.Linear):
        return module.in_features
    if isinstance(module, CONVOLUTIONS):
        return module.in_channels // module.groups * math.prod(module.kernel_size)
    return 0


def overflows(module: Any, x: torch.Tensor, y: torch.Tensor, positions: torch.Tensor) -> Sums:
    """Count overflows in the sums behind some outputs.

    Args:
        module: an int8 Linear or convolution (not a transposed one).
        x: its quantized input (quint8).
        y: its output; only the shape counts.
        positions: which outputs, as positions in the flattened `y`.
    """
    weight = module.weight()
    if isinstance(module, nnq.Linear):
        rows, channels = positions // y.shape[-1], positions % y.shape[-1]
        inputs = x.int_repr().reshape(-1, x.shape[-1])[rows]
        weights = weight.int_repr()[channels]
    else:
        inputs, channels = _patches(module, x, y, positions)
        weights = weight.int_repr().movedim(1, -1).flatten(1)[channels]
    offset = weight.q_zero_point() if _per_tensor(weight) else weight.q_per_channel_zero_points()[channels, None].int()
    return count_overflows(inputs.int(), weights.int(), x.q_zero_point(), offset)


def _per_tensor(weight: torch.Tensor) -> bool:
    return weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric)


def kernel_saturates(module: Any, x: torch.Tensor) -> bool:
    """Whether the kernel of this int8 Linear or convolution saturates pairs in 16 bits on this CPU, found by trying.

    It depends on the layer: FBGEMM's depthwise kernels saturate on CPUs with VNNI, too (torch 2.13, AVX512).

    Args:
        x: a quantized input; only the shape counts.
    """
    probe = copy.deepcopy(module)
    own = module.weight()
    affine = bool((own.q_zero_point() if _per_tensor(own) else own.q_per_channel_zero_points().any()) != 0)
    # Engine "x86" takes another kernel where weights have a zero_point.
    weight = torch.full(own.shape, -127.0 - affine)
    probe.set_weight_bias(torch.quantize_per_tensor(weight, 1.0, int(affine), torch.qint8), None)
    probe.scale, probe.zero_point = inputs_of(module) * 255 * 127 / 127, 128
    # Codes of 255 that stand for 0, padding included: the exact output is 0, a saturated one is above it.
    zeros = torch.quantize_per_tensor(torch.zeros(x[:1].shape), 1.0, 255, torch.quint8)
    return int(probe(zeros).int_repr().max()) > 129


def count_overflows(x: torch.Tensor, w: torch.Tensor, x_zero: int, w_zero: torch.Tensor | int) -> Sums:
    """Count overflows in sums of products of codes.

    Which products share a pair is an assumption: neighbours in the order given here, the channels of one tap
    first. Kernels may order them otherwise (and pad), so the share of saturating sums is an estimate. A sum counts
    as wrapping where it leaves 32 bits with the zero_points taken off, which is exact: before that, kernels wrap
    there and back (found on all four engines, torch 2.13).

    Args:
        x: codes of the inputs (0..255), int32 [S, K]: a row per sum.
        w: codes of the weights (-128..127), int32 [S, K].
        x_zero, w_zero: zero_points; w_zero [S, 1] or one for all.
    """
    products = F.pad(x * w, (0, x.shape[1] % 2))
    pairs = products[:, 0::2] + products[:, 1::2]
    saturating = ((pairs > MOST_16) | (pairs < -MOST_16 - 1)).any(1)
    exact = ((x - x_zero) * (w - w_zero)).sum(1, dtype=torch.int64)
    wrapping = (exact > MOST_32) | (exact < -MOST_32 - 1)
    return Sums(len(x), int(saturating.sum()), int(wrapping.sum()))


def _patches(
    module: Any, x: torch.Tensor, y: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The input codes behind each output [S, taps * channels of the group], and its channel [S]."""
    sample, channel, *place = torch.unravel_index(positions, y.shape)
    codes = x.int_repr()
    around = [width for size in reversed(module.padding) for width in (size, size)]
    if module.padding_mode == "zeros":
        codes = F.pad(codes, around, value=x.q_zero_point())
    else:
        codes = F.pad(codes.float(), around, mode=module.padding_mode).to(torch.uint8)  # no padding of bytes
    for axis, (size, stride, dilation) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True), start=2
    ):
        codes = codes.unfold(axis, (size - 1) * dilation + 1, stride)[..., ::dilation]
    patches = codes.movedim(1, -1)[(sample, *place)]  # [S, *kernel, channels]
    group = channel // (module.out_channels // module.groups)
    patches = patches.unflatten(-1, (module.groups, -1)).movedim(-2, 1)[torch.arange(len(group)), group]
    return patches.flatten(1), channel
