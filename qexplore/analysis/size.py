"""Bytes of a model: of its serialized file, and of each layer's tensors in it."""

from __future__ import annotations

import io
import math
from typing import Any

import torch
from torch import nn

from qexplore.engines import QuantizedTensor


def file_bytes(model: nn.Module) -> int:
    """Length in bytes of the file that `torch.save(model.state_dict(), ...)` writes."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return buffer.tell()


def layer_bytes(model: nn.Module, layers: list[str]) -> dict[str, int]:
    """Bytes of the tensors in each layer's part of the state dict; what belongs to no layer is under "other".

    A key belongs to the layer with the longest name that it starts with.
    """
    totals = dict.fromkeys([*layers, "other"], 0)
    by_length = sorted(layers, key=len, reverse=True)
    for key, value in model.state_dict().items():
        owner = next((name for name in by_length if key.startswith(f"{name}.") or not name), "other")
        totals[owner] += _value_bytes(value)
    return totals


def compared(before: int, after: int, estimated: bool) -> dict[str, float | int | bool]:
    """The sizes of a float and a quantized model as `Run.size` has them, in bytes."""
    return {"float_bytes": before, "int8_bytes": after, "ratio": before / after, "estimated": estimated}


def packed_away(tensors: list[QuantizedTensor]) -> int:
    """Bytes that packing the quantized weights to their bits would save (each scale and zero_point costs 4).

    For models that are only simulated: there are no kernels below 8 bits, so nothing can be saved and measured.
    """
    return sum(
        4 * t.weight.numel() - math.ceil(t.weight.numel() * t.bits / 8) - 8 * t.scale.numel()
        for t in tensors
        if t.weight is not None
    )


def _value_bytes(value: Any) -> int:
    """Bytes of the tensors in a state dict entry, packed parameters of quantized layers included."""
    if isinstance(value, torch.Tensor):
        own = value.numel() * value.element_size()
        if not value.is_quantized:
            return own
        per_channel = value.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
        return own + (value.q_per_channel_scales().numel() * 16 if per_channel else 16)
    if isinstance(value, list | tuple):
        return sum(_value_bytes(entry) for entry in value)
    if isinstance(value, torch.ScriptObject):
        return _value_bytes(value.__getstate__())
    return 0
