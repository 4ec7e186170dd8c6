"""What an engine gives back: the models, and where in them each layer and tensor is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from qexplore.batches import call, first_tensor, positional
from qexplore.calibrate.graph import Recorder
from qexplore.numerics.affine import along, fake_quantize, grid_range, qparams
from qexplore.workload import Batch


@dataclass(frozen=True)
class QuantizedTensor:
    """One quantized tensor and its affine mapping.

    Attributes:
        name: the tensor's name in the float model; a layer's weight has the layer's name.
        kind: "activation" or "weight".
        layer: the layer that owns the weight or gives the activation; equals `name` for inputs.
        scale, zero_point: one entry, or one a channel.
        quant_min, quant_max: smallest and largest code in use.
        bits: bits asked for (an overflow guard may leave some codes unused).
        axis: channel dimension of a per-channel weight, else None.
        observer: name of the observer that chose the range.
        weight: the float weight that was quantized (BatchNorm folded in where fused), else None.
        at_run_time: the range is each batch's own, as in dynamic mode; scale and zero_point are then those of
            the whole calibration, to look at.
    """

    name: str
    kind: str
    layer: str
    scale: torch.Tensor
    zero_point: torch.Tensor
    quant_min: int
    quant_max: int
    bits: int
    axis: int | None
    observer: str
    weight: torch.Tensor | None = None
    at_run_time: bool = False

    def fake_quantize(self, x: torch.Tensor) -> torch.Tensor:
        """`x` (a whole batch of the tensor) as the codes represent it."""
        scale, zero_point = self.scale, self.zero_point
        if self.at_run_time:
            scale, zero_point = qparams(*torch.aminmax(x), self.quant_min, self.quant_max, symmetric=False)
        return fake_quantize(x, scale, zero_point, self.quant_min, self.quant_max, self.axis)

    def clipped(self, x: torch.Tensor) -> int:
        """Number of values `outside`."""
        return 0 if self.at_run_time else int(self.outside(x).sum())

    def outside(self, x: torch.Tensor) -> torch.Tensor:
        """Where values lie more than half a step outside the grid, from where rounding alone does not bring them in."""
        lo, hi = (along(edge, x, self.axis) for edge in self.grid())
        half = along(self.scale, x, self.axis) * 0.501  # a thousandth of a step for float rounding
        return (x < lo - half) | (x > hi + half)

    def grid(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Smallest and largest value that can be represented (one entry, or one a channel)."""
        return grid_range(self.scale, self.zero_point, self.quant_min, self.quant_max)


@dataclass(frozen=True)
class Layer:
    """One row of the layer table.

    Attributes:
        name: the float model's own name.
        kind: the operations in it, such as "Conv2d + BatchNorm2d + ReLU".
        output: name of the tensor it gives.
        quantized: False where a rule keeps it float.
    """

    name: str
    kind: str
    output: str
    quantized: bool


@dataclass(frozen=True)
class Probe:
    """A model and the places in it where named tensors can be read.

    Attributes:
        model: the model to run.
        outputs: what to call the output of each place; a graph node's name or a module's path.
        by_node: places are nodes of a torch.fx graph; module paths otherwise.
        inputs: what to call the first input of each place; modules only.
    """

    model: nn.Module
    outputs: dict[str, tuple[str, ...]]
    by_node: bool
    inputs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def run(self, batch: Batch, take: Callable[[str, torch.Tensor], object]) -> Any:
        """Run one batch, hand each named tensor (dequantized) to `take`, and return the model's output."""

        def give(names: tuple[str, ...], value: object) -> None:
            tensor = first_tensor(value)
            if tensor is not None:
                for name in names:
                    take(name, tensor.dequantize() if tensor.is_quantized else tensor)

        if self.by_node:
            assert isinstance(self.model, fx.GraphModule)
            recorder = Recorder(self.model, set(self.outputs), lambda node, value: give(self.outputs[node], value))
            return recorder.run(*positional(self.model, batch))
        handles = [
            self.model.get_submodule(place).register_forward_hook(lambda m, args, out, names=names: give(names, out))
            for place, names in self.outputs.items()
        ]
        handles += [
            self.model.get_submodule(place).register_forward_pre_hook(lambda m, args, names=names: give(names, args))
            for place, names in self.inputs.items()
        ]
        try:
            return call(self.model, batch)
        finally:
            for handle in handles:
                handle.remove()


@dataclass(frozen=True)
class Conversion:
    """A quantized model.

    Attributes:
        int8: the converted model on real int8 kernels; None where only simulated.
        simulated: float arithmetic on quantized and dequantized values, with the same scales.
        tensors, layers: what was quantized, in the order the model computes it.
        probes: where "float", "simulated" and (if there is one) "int8" give each layer's output; "float"
            also gives every quantized activation, under its tensor name behind "tensor:".
        engine: name of the engine whose kernels `int8` was made for.
    """

    int8: nn.Module | None
    simulated: nn.Module
    tensors: tuple[QuantizedTensor, ...]
    layers: tuple[Layer, ...]
    probes: dict[str, Probe]
    engine: str
