"""What single outputs of a layer are made of: the values that a Conv or Linear multiplies by its weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def sampled_rows(
    module: nn.Module, inputs: Sequence[Sequence[torch.Tensor]], count: int, generator: torch.Generator
) -> list[torch.Tensor]:
    """What random outputs of a Conv or Linear are made of: [rows, groups, inputs of an output].

    Args:
        inputs: what it reads, by batch, in one model or in several; the rows of all are of the same outputs.
        count: rows wanted in all, the same number from each batch.
    """
    found: list[list[torch.Tensor]] = [[] for _ in inputs]
    each = math.ceil(count / len(inputs[0]))
    for batch in zip(*inputs, strict=True):
        chosen = torch.randint(_outputs(module, batch[0]), (each,), generator=generator)
        for x, rows in zip(batch, found, strict=True):
            rows.append(_rows(module, x, chosen))
    return [torch.cat(rows) for rows in found]


def _outputs(module: Any, x: torch.Tensor) -> int:
    """How many places a layer's output has, over all samples."""
    if isinstance(module, nn.Linear):
        return x.numel() // x.shape[-1]
    padded = _padded(module, x)
    return padded.shape[0] * math.prod(_sizes(module, padded))


def _rows(module: Any, x: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """The values behind the outputs at the places `chosen` (flat indices over samples and places)."""
    if isinstance(module, nn.Linear):
        return x.reshape(-1, 1, x.shape[-1])[chosen]
    padded, dims = _padded(module, x), len(module.kernel_size)
    sample, *place = torch.unravel_index(chosen, (padded.shape[0], *_sizes(module, padded)))
    index: list[Any] = [sample.reshape(-1, *[1] * dims), slice(None)]
    for d in range(dims):
        offsets = torch.arange(module.kernel_size[d]) * module.dilation[d]
        starts = (place[d] * module.stride[d]).reshape(-1, *[1] * dims)
        index.append(starts + offsets.reshape([-1 if i == d else 1 for i in range(dims)]))
    taken = padded[tuple(index)].movedim(-1, 1)  # the index leaves the channels last
    return taken.reshape(len(chosen), module.groups, -1)


def _padded(module: Any, x: torch.Tensor) -> torch.Tensor:
    if x.dim() == len(module.kernel_size) + 1:
        x = x.unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return F.pad(x, module._reversed_padding_repeated_twice, mode=mode)


def _sizes(module: Any, padded: torch.Tensor) -> list[int]:
    """The output's size in each dimension."""
    shape = zip(padded.shape[2:], module.kernel_size, module.dilation, module.stride, strict=True)
    return [(size - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel, dilation, stride in shape]
