"""Bias correction: takes the mean error that quantization adds to each output channel off the layer's bias.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.2, the
empirical variant of its appendix D.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from qexplore.analysis.steps.layers import WeightedLayer, factor
from qexplore.analysis.steps.simulation import Moments, Simulation, measuring
from qexplore.analysis.steps.step import step
from qexplore.analysis.steps.walk import as_traced, walk
from qexplore.calibrate import Calibration
from qexplore.calibrate.graph import float_copy, trace
from qexplore.progress import Cancel, Report
from qexplore.recipe import Recipe
from qexplore.workload import Batch


@step("bias_correction", 3, "takes the mean error of each layer's outputs off its bias")
def bias_correction(
    model: nn.Module,
    reference: nn.Module,
    recipe: Recipe,
    calibration: Calibration,
    batches: Sequence[Batch],
    report: Report,
    cancel: Cancel,
) -> nn.Module:
    """The model with its biases corrected; see `step.Apply`.

    Layers are taken in the model's order, with those before them corrected already. Outputs are compared before the
    activation function, over all samples and places, with those of `reference`.
    """
    simulation = Simulation.of("bias_correction", calibration, recipe)
    corrected = float_copy(model)
    with torch.no_grad():
        wanted = _float_means(reference, list(simulation.layers.values()), recipe.fuse, batches, cancel)
        for place in simulation.walk(batches, cancel):
            layer = simulation.layers.get(str(place.node.target)) if place.node.op == "call_module" else None
            if layer is None:
                place.run()
                continue
            done = list(simulation.layers).index(layer.name)
            report(
                f"Correcting layer {layer.name!r}, {done + 1} of {len(simulation.layers)}",
                done / len(simulation.layers),
            )
            inner = simulation.inner(layer.name)
            with measuring(inner, moments := _moments(inner)):
                place.run()
            shift = (moments.mean - wanted[layer.name]).float()
            _lower(inner, shift)
            _lower_folded(corrected, layer, shift, recipe.fuse)
            place.run()
    return corrected


def _float_means(
    model: nn.Module, layers: Sequence[WeightedLayer], fuse: bool, batches: Sequence[Batch], cancel: Cancel
) -> dict[str, torch.Tensor]:
    """Mean of each output channel of each layer before its activation function, by layer name."""
    found = {}
    with ExitStack() as stack:
        for layer in layers:
            found[layer.name] = _moments(model.get_submodule(layer.name))
            given = layer.norm if fuse and layer.norm is not None else layer.name
            stack.enter_context(measuring(model.get_submodule(given), found[layer.name]))
        graph = trace(model).module
        for place in walk(graph, as_traced(graph), batches, cancel):
            place.run()
    return {name: moments.mean for name, moments in found.items()}


def _moments(module: nn.Module) -> Moments:
    return Moments(-1 if isinstance(module, nn.Linear) else 1)


def _lower_folded(model: nn.Module, layer: WeightedLayer, shift: torch.Tensor, fuse: bool) -> None:
    """Lower a layer's outputs by `shift` [channels], with the BatchNorm folded into it."""
    norm: Any = model.get_submodule(layer.norm) if fuse and layer.norm is not None else None
    if norm is None:
        _lower(model.get_submodule(layer.name), shift)
    elif norm.bias is not None:
        norm.bias.sub_(shift)
    else:
        norm.running_mean.add_(shift / factor(model, layer))


def _lower(module: Any, shift: torch.Tensor) -> None:
    bias = torch.zeros_like(shift) if module.bias is None else module.bias.detach()
    module.bias = nn.Parameter(bias - shift)
