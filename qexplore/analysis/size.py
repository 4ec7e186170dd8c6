"""Bytes of a model: of its serialized file, and of each layer's tensors in it."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator, Mapping
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
    parts: dict[str, list[Any]] = {name: [] for name in [*layers, "other"]}
    by_length = sorted(layers, key=len, reverse=True)
    for key, value in model.state_dict().items():
        owner = next((name for name in by_length if key.startswith(f"{name}.") or not name), "other")
        parts[owner].append(value)
    return {name: sum(map(tensor_bytes, tensors_of(values))) for name, values in parts.items()}


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


def tensors_of(values: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors in nested containers, those of packed weights included, each once: a packed LSTM lists its biases
    twice."""
    return list({(tensor.data_ptr(), tensor.numel()): tensor for tensor in _unpacked(values)}.values())


def tensor_bytes(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's values, and of its scales and zero points (8 bytes each) where every channel has its own."""
    own = tensor.numel() * tensor.element_size()
    per_channel = tensor.is_quantized and tensor.qscheme() in (torch.per_channel_affine, torch.per_channel_symmetric)
    return own + (16 * tensor.q_per_channel_scales().numel() if per_channel else 0)


def _unpacked(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, torch.ScriptObject):
        yield from _unpacked(value.__getstate__())
    elif isinstance(value, Mapping):
        yield from _unpacked(value.values())
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for entry in value:
            yield from _unpacked(entry)
