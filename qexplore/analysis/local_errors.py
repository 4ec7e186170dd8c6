"""The error that each layer makes on float inputs, in parts, and how far each part moves the model's output."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from qexplore.analysis.linearize import Linearized
from qexplore.batches import first_tensor
from qexplore.engines.switched import CLIPPED, FLOAT, QUANTIZED, Switched
from qexplore.progress import Cancel, Report, stop_if

PARTS = ("activation_clipping", "activation_rounding", "weight_clipping", "weight_rounding")
PATH = ((CLIPPED, FLOAT), (QUANTIZED, FLOAT), (QUANTIZED, CLIPPED), (QUANTIZED, QUANTIZED))


@dataclass(frozen=True, eq=False)
class LocalErrors:
    """Errors of layers that read what the float model gives.

    Attributes:
        layers: their names, in the model's order.
        count, signal: number of output values of each layer, and the sum of their squares; [layers].
        squares: sum of squares of each part of the error, [layers, parts]; parts are PARTS, or one for the whole.
        whole: sum of squares of the whole error, [layers].
        moved: v . J e of each part, float64 [layers, parts, draws, samples]; of the whole it is the sum over parts.
        elements: number of the output's values for each sample.
    """

    layers: list[str]
    count: torch.Tensor
    signal: torch.Tensor
    squares: torch.Tensor
    whole: torch.Tensor
    moved: torch.Tensor
    elements: float

    def output_mse(self) -> torch.Tensor:
        """Mean squared error that each layer alone brings to the output, by sample: [layers, samples]."""
        return self.moved.sum(1).square().mean(1) / self.elements

    def total_mse(self) -> float:
        """Of all layers together, to first order, what they have in common included."""
        return float(self.moved.sum((0, 1)).square().mean()) / self.elements


def local_errors(
    switches: Switched,
    ats: Sequence[Linearized],
    in_parts: bool,
    progress: Report,
    cancel: Cancel,
    only: Collection[str] | None = None,
) -> LocalErrors:
    """One pass over the layers, on the values and gradients of `ats`.

    Args:
        in_parts: whether the parts of the error are told apart, which takes up to twice as long.
        only: these layers; None for all.
    """
    quantized = switches.quantized_nodes()
    order = [layer for layer in quantized if only is None or layer in only]
    path = PATH if in_parts else PATH[-1:]
    samples = sum(at.samples for at in ats)
    draws = max((len(at.gradients) for at in ats), default=0)
    count, signal, whole = (torch.zeros(len(order), dtype=torch.float64) for _ in range(3))
    squares = torch.zeros(len(order), len(path), dtype=torch.float64)
    moved = torch.zeros(len(order), len(path), max(draws, 1), samples, dtype=torch.float64)
    begin = 0
    with torch.no_grad():
        for position, at in enumerate(ats):
            end = begin + at.samples
            for row, layer in enumerate(order):
                stop_if(cancel)
                progress(f"Error of layer {layer!r}", (position + row / len(order)) / len(ats))
                for float_node, base, errors in _layer_errors(switches, at, quantized[layer], path):
                    count[row] += base.numel()
                    signal[row] += base.double().square().sum()
                    made = [error for error in errors if error is not None]
                    whole[row] += torch.stack(made).sum(0).double().square().sum() if made else 0.0
                    for part, error in enumerate(errors):
                        if error is None:
                            continue
                        squares[row, part] += error.double().square().sum()
                        if at.gradients:
                            moved[row, part, :, begin:end] += at.moved(float_node, error)
            begin = end
    elements = sum(at.output.numel() for at in ats) / samples
    return LocalErrors(order, count, signal, squares, whole, moved, elements)


def _layer_errors(
    switches: Switched, at: Linearized, names: Sequence[str], path: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, torch.Tensor, list[torch.Tensor | None]]]:
    """For each node of a layer: the float model's node, its value, and what each step of the path adds to its error
    (None where nothing).

    The first node reads float values; a later one what the earlier make of them, for rounding a value that has been
    rounded before is no independent error.
    """
    after = switches.depending(names[:1]) if len(names) > 1 else set()
    runs = [_Values(switches, at, after) for _ in path]
    for position, name in enumerate(names):
        node, float_node = switches.nodes[name], switches.float_node(name)
        base = first_tensor(at.values[float_node])
        if base is None:
            continue
        before, errors = torch.zeros_like(base), list[torch.Tensor | None]()
        for step, (reads, weights) in enumerate(path):
            values = runs[step]
            if len(path) > 1 and _is_same(switches, name, values, reads, weights):
                errors.append(None)
                values.own = (runs[step - 1].own if step else {}) | values.own
                continue
            value = switches.run_node(node, values, reads, weights)
            values.own[name] = value
            plain = base if position == 0 else first_tensor(switches.run_node(node, values, FLOAT, FLOAT))
            now = first_tensor(value)
            assert now is not None and plain is not None
            errors.append(now - plain - before)
            before = now - plain
        yield float_node, base, errors


class _Values:
    """What nodes read: the float model's values, but for those that a layer's own earlier nodes change."""

    def __init__(self, switches: Switched, at: Linearized, after: set[str]) -> None:
        self.switches, self.at, self.after = switches, at, after
        self.own: dict[str, Any] = {}

    def __call__(self, node: fx.Node) -> Any:
        known = self.switches.float_node(node.name)
        if node.name not in self.own and (node.name in self.after or known not in self.at.values):
            self.own[node.name] = self.switches.run_node(node, self, FLOAT, FLOAT)
        return self.own[node.name] if node.name in self.own else self.at.values[known]


def _is_same(switches: Switched, name: str, values: _Values, reads: int, weights: int) -> bool:
    """Whether a step of the path changes nothing at a node."""
    if weights == QUANTIZED:
        return name not in switches.modules
    if weights == CLIPPED:
        return switches.layer_of[name] not in switches.clips or name not in switches.modules
    if reads == QUANTIZED:
        return False
    tensors = ((t, values(switches.nodes[source])) for (reader, source), t in switches.reads.items() if reader == name)
    return not any(t.clipped(x) for t, x in tensors if isinstance(x, torch.Tensor))
