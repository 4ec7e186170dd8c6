"""Float, simulated and int8 model side by side on the same inputs, layer by layer and at the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from qexplore.analysis.checks import NO_TENSOR
from qexplore.batches import first_tensor
from qexplore.engines import Conversion
from qexplore.numerics.errors import ErrorMeter
from qexplore.progress import Cancel, Report, stop_if
from qexplore.workload import Batch


@dataclass
class Comparison:
    """Errors against float, summed over the batches.

    Attributes:
        layers: by model ("simulated", "int8") and layer name, of the layer's output in the whole quantized model.
        tensors: by name, of the float activation quantized on its own; over all batches.
        clipped, values: number of values beyond the range, and of all values, by activation.
        outputs: by model, of the model's output.
        agreeing, decisions: by model, how many argmax decisions equal float's; and how many there are.
    """

    layers: dict[str, dict[str, ErrorMeter]] = field(default_factory=dict)
    tensors: dict[str, ErrorMeter] = field(default_factory=lambda: defaultdict(ErrorMeter))
    clipped: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    values: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    outputs: dict[str, ErrorMeter] = field(default_factory=lambda: defaultdict(ErrorMeter))
    agreeing: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    decisions: int = 0

    def agreement(self, kind: str) -> float | None:
        """Share of decisions that equal float's; None where the output is no choice among classes."""
        return self.agreeing[kind] / self.decisions if self.decisions else None


def compare(
    conversion: Conversion, batches: Sequence[Batch], compared: int, report: Report, cancel: Cancel
) -> Comparison:
    """Run the float model over all batches, and the quantized ones of a conversion over the first `compared`."""
    result = Comparison({kind: defaultdict(ErrorMeter) for kind in conversion.probes if kind != "float"})
    with torch.no_grad():
        for position, batch in enumerate(batches):
            stop_if(cancel)
            report(f"Comparing layers, batch {position + 1} of {len(batches)}", position / len(batches))
            reference: dict[str, torch.Tensor] = {}
            output = _output(conversion.probes["float"].run(batch, partial(_keep, reference)))
            _add_tensors(result, conversion, reference)
            if position >= compared:
                continue
            choices = _choices(output)
            result.decisions += 0 if choices is None else choices.numel()
            for kind, meters in result.layers.items():
                stop_if(cancel)
                other = _output(conversion.probes[kind].run(batch, partial(_add, meters, reference)))
                result.outputs[kind].add(output, other)
                if choices is not None:
                    result.agreeing[kind] += int(torch.eq(other.argmax(-1), choices).sum())
    return result


def _add_tensors(result: Comparison, conversion: Conversion, reference: dict[str, torch.Tensor]) -> None:
    """Quantize each float activation on its own."""
    for tensor in conversion.tensors:
        x = reference.get(f"tensor:{tensor.name}")
        if tensor.kind == "activation" and x is not None:
            result.tensors[tensor.name].add(x, tensor.fake_quantize(x))
            result.clipped[tensor.name] += tensor.clipped(x)
            result.values[tensor.name] += x.numel()


def _keep(reference: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> None:
    reference[name] = x.clone()  # an operation in place later on must not change it


def _add(meters: dict[str, ErrorMeter], reference: dict[str, torch.Tensor], name: str, x: torch.Tensor) -> None:
    meters[name].add(reference[name], x)


def _output(value: object) -> torch.Tensor:
    tensor = first_tensor(value)
    assert tensor is not None, NO_TENSOR
    return tensor.dequantize() if tensor.is_quantized else tensor


def _choices(output: torch.Tensor) -> torch.Tensor | None:
    """The class chosen at each position, for logits [N, C] or [N, T, C] with more than one class."""
    return output.argmax(-1) if output.dim() in (2, 3) and output.shape[-1] > 1 else None
