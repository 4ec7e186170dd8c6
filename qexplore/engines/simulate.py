"""From torch.ao's reference model to a simulation that keeps to the recipe's codes.

The reference model already quantizes and dequantizes with the very scales of the int8 model, but it clamps to the
whole 8-bit range whatever the observer's quant_min and quant_max; here every tensor keeps to its own codes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from qexplore.engines.conversion import QuantizedTensor

QUANTIZE = (torch.quantize_per_tensor, torch.quantize_per_channel)
PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_symmetric)


class QuantDequant(nn.Module):
    """Quantizes with the int8 kernels' own rounding, clamps to quant_min..quant_max, and dequantizes."""

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(
        self,
        scale: torch.Tensor,
        zero_point: torch.Tensor,
        quant_min: int,
        quant_max: int,
        dtype: torch.dtype,
        axis: int | None,
    ) -> None:
        super().__init__()
        self.quant_min, self.quant_max, self.dtype, self.axis = quant_min, quant_max, dtype, axis
        self.register_buffer("scale", scale.detach().clone())
        self.register_buffer("zero_point", zero_point.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.axis is None:
            scale, zero_point = self.scale.reshape(()), self.zero_point.reshape(())
            q = torch.quantize_per_tensor(x, scale, zero_point, self.dtype)
        else:
            shape = [-1 if d == self.axis else 1 for d in range(x.dim())]
            scale, zero_point = self.scale.reshape(shape), self.zero_point.reshape(shape)
            q = torch.quantize_per_channel(x, self.scale, self.zero_point, self.axis, self.dtype)
        lo, hi = (self.quant_min - zero_point) * scale, (self.quant_max - zero_point) * scale
        return torch.minimum(torch.maximum(q.dequantize(), lo), hi)


def simulate(
    reference: fx.GraphModule, observers: dict[str, list[Any]], tensors: list[QuantizedTensor]
) -> dict[str, str]:
    """Turn a reference model into the simulation, in place.

    Args:
        reference: from `convert_to_reference_fx`.
        observers: the observers of each quantized tensor, by the name of the node that gives it.
        tensors: rows of the result; the weights among them are quantized here.

    Returns:
        the name of the new quantize-dequantize node, by the name of the node whose tensor it takes.
    """
    placed: dict[str, str] = {}
    quantizers = [node for node in reference.graph.nodes if node.target in QUANTIZE]
    for number, node in enumerate(quantizers):
        source = node.args[0]
        scale, zero_point = (_value(reference, argument) for argument in node.args[1:3])
        observer = _observer(observers[source.name], scale)
        axis = observer.ch_axis if observer.qscheme in PER_CHANNEL else None
        target = f"quant_dequant_{number}"
        reference.add_submodule(
            target, QuantDequant(scale, zero_point, observer.quant_min, observer.quant_max, observer.dtype, axis)
        )
        with reference.graph.inserting_before(node):
            new = reference.graph.call_module(target, (source,))
        for user in list(node.users):
            user.replace_all_uses_with(new)
            reference.graph.erase_node(user)
        reference.graph.erase_node(node)
        placed[source.name] = new.name
    reference.graph.eliminate_dead_code()
    reference.recompile()
    for t in tensors:
        if t.kind == "weight":
            layer = weighted(reference.get_submodule(t.name))
            layer.weight = nn.Parameter(quantized_weight(t))
            mend_padding(layer)
    return placed


def _observer(observers: list[Any], scale: torch.Tensor) -> Any:
    """The observer that gave this scale: a tensor has several where it is read with unlike settings."""
    if len(observers) == 1:
        return observers[0]
    return min(observers, key=lambda each: float((each.calculate_qparams()[0] - scale.cpu()).abs().max()))


def quantized_weight(t: QuantizedTensor) -> torch.Tensor:
    """The weight `t` as its codes represent it."""
    assert t.weight is not None
    return QuantDequant(t.scale, t.zero_point, t.quant_min, t.quant_max, torch.qint8, t.axis)(t.weight)


def without_quantizers(reference: fx.GraphModule) -> None:
    """Take every quantize-dequantize pair out of a reference model and have its layers use their weights as they are,
    in place: a float model with BatchNorm folded in where fused."""
    for node in list(reference.graph.nodes):
        if node.target in QUANTIZE:
            for user in list(node.users):
                user.replace_all_uses_with(node.args[0])
                reference.graph.erase_node(user)
            reference.graph.erase_node(node)
    reference.graph.eliminate_dead_code()
    reference.recompile()
    for module in reference.modules():
        layer: Any = module
        if hasattr(layer, "weight_scale"):
            layer.get_weight = partial(getattr, layer, "weight")
            mend_padding(layer)


def mend_padding(layer: Any) -> None:
    """Have a reference layer pad as it is told; of itself it pads with zeros."""
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        layer.padding = (0,) * len(layer.kernel_size)
        layer.register_forward_pre_hook(_pad)


def _pad(layer: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return (F.pad(args[0], layer._reversed_padding_repeated_twice, mode=layer.padding_mode),)


def weighted(module: nn.Module) -> Any:
    """The reference layer itself, out of what may be a fused Sequential around it; None for other modules."""
    return next((m for m in module.modules() if hasattr(m, "weight_scale")), None)


def _value(graph: fx.GraphModule, argument: object) -> torch.Tensor:
    """The scale or zero_point that a get_attr node reads, as a tensor."""
    return torch.as_tensor(getattr(graph, str(argument.target)) if isinstance(argument, fx.Node) else argument)
