"""Sensitivity by brute force, without running twice what cannot have changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qexplore.analysis.linearize import Linearized
from qexplore.analysis.prediction import kept
from qexplore.batches import first_tensor
from qexplore.calibrate import Calibration
from qexplore.engines.switched import Switched
from qexplore.progress import Cancel, Report, stop_if
from qexplore.recipe import Recipe

Judge = Callable[[nn.Module], float]


@dataclass(frozen=True, eq=False)
class ExactErrors:
    """Errors at the output, measured.

    Attributes:
        layers: their names, in the model's order.
        alone: with one layer quantized, mean squared error by sample, float64 [layers, samples].
        without: with all but this layer quantized, mean squared error, [layers].
        metric_loss: how much worse the metric is with this layer alone quantized; empty where not asked for.
        passes: forward passes' worth of layers that were run.
    """

    layers: list[str]
    alone: torch.Tensor
    without: torch.Tensor
    metric_loss: list[float]
    passes: float

    def columns(self) -> dict[str, Any]:
        """What belongs in the table beside the errors alone."""
        extra: dict[str, Any] = {"without_mse": self.without.numpy()}
        return extra | ({"metric_loss": self.metric_loss} if self.metric_loss else {})


def exact_errors(
    calibration: Calibration,
    recipe: Recipe,
    switches: Switched,
    ats: Sequence[Linearized],
    judge: Judge | None,
    progress: Report,
    cancel: Cancel,
) -> ExactErrors:
    """Quantize one layer at a time, and all but one, and run again only what depends on it.

    Args:
        judge: how much worse a model's metric is than float's; None to leave it.
    """
    quantized = switches.quantized_nodes()
    layers = list(quantized)
    done: dict[Any, Any] = kept(calibration, ("exact", recipe, len(ats)), dict)
    steps = len(ats) * len(layers) + (len(layers) if judge else 0)

    def at_work(step: int, layer: str) -> None:
        stop_if(cancel)
        progress(f"Layer {layer!r}, step {step + 1} of {steps}", step / steps)

    with torch.no_grad():
        for position, at in enumerate(ats):
            off, on = _values(switches, at), None
            for row, layer in enumerate(layers):
                at_work(position * len(layers) + row, layer)
                if (position, layer) in done:
                    continue
                if on is None:
                    on = {name: off[name] for name, node in switches.nodes.items() if node.op == "placeholder"}
                    switches.run(on, set(layers))
                alone = switches.run(dict(off), {layer}, quantized[layer])
                without = switches.run(dict(on), set(layers) - {layer}, quantized[layer])
                done[position, layer] = _by_sample(at, alone), _by_sample(at, without)
        losses = []
        for row, layer in enumerate(layers if judge else ()):
            at_work(len(ats) * len(layers) + row, layer)
            if ("metric", layer) not in done:
                assert judge is not None
                done["metric", layer] = judge(Running(switches, {layer}))
            losses.append(done["metric", layer])
    errors = torch.stack(
        [torch.cat([torch.stack(done[i, layer]) for i in range(len(ats))], dim=1) for layer in layers], dim=1
    )
    share = sum(_share(switches, nodes) for nodes in quantized.values())
    return ExactErrors(layers, errors[0], errors[1].mean(1), losses, 2 * share + 2)


class Running(nn.Module):
    """The model with the quantizers of some layers on, to be judged by a workload's metric."""

    def __init__(self, switches: Switched, layers: set[str]) -> None:
        super().__init__()
        self.switches, self.layers = switches, layers
        self.graph = switches.graph  # its parameters are this model's, for those who ask where it is
        self.inputs = [name for name, node in switches.nodes.items() if node.op == "placeholder"]

    def forward(self, *batch: Any, **named: Any) -> Any:
        """The model's output; arguments that are left out have the model's defaults."""
        values = dict(zip(self.inputs, batch, strict=False)) | named
        for name in self.inputs:
            values.setdefault(name, next(iter(self.switches.nodes[name].args), None))
        return self.switches.run(values, self.layers)


def _values(switches: Switched, at: Linearized) -> dict[str, Any]:
    """What the float model gave, by the names of the switched graph; the rest of the graph is run."""
    values = {}
    for name in switches.nodes:
        float_node = switches.float_node(name)
        if name != switches.output and float_node in at.values:
            values[name] = at.values[float_node]
    switches.run(values, ())
    return values


def _by_sample(at: Linearized, output: Any) -> torch.Tensor:
    tensor = first_tensor(output)
    assert tensor is not None
    return (tensor - at.output).double().square().reshape(at.samples, -1).mean(1)


def _share(switches: Switched, start: Sequence[str]) -> float:
    """Share of the layers with weights that depend on some nodes, those included."""
    again = switches.depending(start)
    return sum(name in again for name in switches.modules) / max(len(switches.modules), 1)
