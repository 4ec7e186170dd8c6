"""What AdaRound has to do for one layer, and whether what it did will last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qexplore.analysis.steps.layers import WeightedLayer, factor, norm_of
from qexplore.analysis.steps.rounding import Task, outputs
from qexplore.calibrate.measure import measure
from qexplore.calibrate.observers import channel_ranges, tensor_range
from qexplore.engines import QuantizedTensor
from qexplore.errors import QexploreError
from qexplore.numerics.affine import along, qparams, quantize
from qexplore.recipe import TensorSpec

INSIDE = 0.4  # of a step from a code: what rounds to it even if the step comes out a little different
LOST = 0.01


@dataclass(frozen=True)
class Affine:
    """What a fused BatchNorm makes of a layer: `multiplier` [channels] for its weight, `bias` [channels], and the
    ReLU behind it."""

    multiplier: torch.Tensor
    bias: torch.Tensor
    relu: bool


def affine_of(model: nn.Module, layer: WeightedLayer, folded: bool) -> Affine:
    module: Any = model.get_submodule(layer.name)
    bias = torch.zeros(len(module.weight)) if module.bias is None else module.bias.detach()
    if layer.norm is None or not folded:
        return Affine(torch.ones_like(bias), bias, layer.relu and layer.norm is None)
    norm, multiplier = norm_of(model, layer.norm), factor(model, layer)
    assert norm.running_mean is not None
    bias = (bias - norm.running_mean) * multiplier + (0.0 if norm.bias is None else norm.bias.detach())
    return Affine(multiplier, bias, layer.relu)


def task_of(
    tensor: QuantizedTensor, symmetric: bool, affine: Affine, float_rows: torch.Tensor, rows: torch.Tensor
) -> Task:
    """The task of one layer; its rows are what it reads in the float model and behind rounded layers."""
    assert tensor.weight is not None
    groups = rows.shape[1]

    def shaped(values: torch.Tensor) -> torch.Tensor:
        return values.reshape(1, 1, 1) if tensor.axis is None else values.reshape(groups, -1, 1)

    grid = tensor.scale, tensor.zero_point, tensor.quant_min, tensor.quant_max, tensor.axis
    scale, zero_point = shaped(tensor.scale), shaped(tensor.zero_point)
    weight = tensor.weight.reshape(groups, -1, rows.shape[2])
    nearest = quantize(tensor.weight, *grid).reshape(weight.shape) - zero_point
    steps, bias = weight / scale, affine.bias.reshape(groups, 1, -1)
    return Task(
        steps=steps,
        scale=scale,
        low=(tensor.quant_min - zero_point).float(),
        high=(tensor.quant_max - zero_point).float(),
        nearest=nearest.float(),
        free=_free(steps, symmetric, tensor.axis is not None),
        rows=rows,
        wanted=outputs(float_rows, weight, bias, affine.relu),
        bias=bias,
        relu=affine.relu,
    )


def _free(steps: torch.Tensor, symmetric: bool, per_channel: bool) -> torch.Tensor:
    """Which weights may move into either neighbouring cell without the range of their channel (or tensor) changing."""
    dims = (2,) if per_channel else (0, 1, 2)
    low, high = steps.amin(dims, keepdim=True), steps.amax(dims, keepdim=True)
    if symmetric:
        high = torch.maximum(-low, high)
        low = -high
    down, up = steps.floor() + INSIDE, steps.floor() + 1 - INSIDE
    return (torch.minimum(steps, down) > low) & (torch.maximum(steps, up) < high)


def moved_inside(task: Task, steps: torch.Tensor) -> torch.Tensor:
    """The weights in steps, moved just inside the cell of the code chosen for them where they are not in it."""
    inside = torch.minimum(torch.maximum(task.steps, steps - INSIDE), steps + INSIDE)
    return torch.where(steps == task.nearest, task.steps, inside)


def check_survival(
    tensor: QuantizedTensor, spec: TensorSpec, task: Task, steps: torch.Tensor, moved: torch.Tensor
) -> None:
    """Refuse an observer that gives the moved weights another range, in which they round to other codes.

    Args:
        steps: the weights as they are to be rounded; `moved` is what `moved_inside` made of them.

    Raises:
        QexploreError: more than a hundredth of the choices would be lost.
    """
    assert tensor.weight is not None
    shape = tensor.weight.shape
    weight = torch.where((moved == task.steps).reshape(shape), tensor.weight, (moved * task.scale).reshape(shape))
    if spec.per_channel:
        lo, hi = channel_ranges(weight, 0, spec, tensor.name)
    else:
        lo, hi = (torch.tensor([edge]) for edge in tensor_range(measure(weight), spec, tensor.name))
    scale, zero_point = qparams(lo, hi, tensor.quant_min, tensor.quant_max, spec.symmetric)
    codes = quantize(weight, scale, zero_point, tensor.quant_min, tensor.quant_max, tensor.axis)
    found = (codes - along(zero_point, codes, tensor.axis)).reshape(steps.shape)
    if (found != steps).sum() > LOST * (steps != task.nearest).sum():
        raise QexploreError(
            f"Observer {spec.observer!r} gives the weights of layer {tensor.name!r} another range once step 'adaround' "
            "has rounded them; choose an observer that reads the extremes only, such as 'minmax'."
        )
