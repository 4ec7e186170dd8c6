"""BatchNorm re-estimation: statistics of what the quantized layers before a BatchNorm really give.

Sources: Sun et al. 2019, "Hybrid 8-bit Floating Point (HFP8) Training and Inference for Deep Neural Networks"; Nagel
et al. 2021, "A White Paper on Neural Network Quantization", section 4.2, for BatchNorms that are folded.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from qexplore.analysis.steps.layers import WeightedLayer, by_row, factor, norm_of
from qexplore.analysis.steps.simulation import Moments, Simulation, measuring
from qexplore.analysis.steps.step import step
from qexplore.calibrate import Calibration
from qexplore.calibrate.graph import float_copy
from qexplore.engines.switched import QUANTIZED
from qexplore.errors import QexploreError
from qexplore.progress import Cancel, Report
from qexplore.recipe import Recipe
from qexplore.workload import Batch

NONE = "Step 'batchnorm' finds no BatchNorm right behind a quantized Conv or Linear layer; leave the step out."
DEAD = 1e-6  # a folded BatchNorm that multiplies by less has no output to tell its input from


@step("batchnorm", 1, "measures BatchNorm statistics anew in the quantized model")
def batchnorm(
    model: nn.Module,
    reference: nn.Module,
    recipe: Recipe,
    calibration: Calibration,
    batches: Sequence[Batch],
    report: Report,
    cancel: Cancel,
) -> nn.Module:
    """The model with new running statistics, over all calibration batches together; see `step.Apply`.

    BatchNorms are taken in the model's order, with those before them re-estimated already. Activations keep the ranges
    that they had before, so statistics far from the data's own are not made good in one go.
    """
    simulation = Simulation.of("batchnorm", calibration, recipe)
    places = {layer.name if recipe.fuse else layer.norm: layer for layer in simulation.layers.values() if layer.norm}
    if not places:
        raise QexploreError(NONE)
    result = float_copy(model)
    with torch.no_grad():
        for place in simulation.walk(batches, cancel):
            layer = places.get(str(place.node.target)) if place.node.op == "call_module" else None
            if layer is None:
                place.run()
                continue
            done = list(places.values()).index(layer)
            report(f"Re-estimating {layer.norm!r}, {done + 1} of {len(places)}", done / len(places))
            if recipe.fuse:
                inner = simulation.inner(layer.name)
                with measuring(inner, moments := Moments(-1 if isinstance(inner, nn.Linear) else 1)):
                    place.run()
                _refold(simulation, layer, place.node.name, result, moments)
            else:
                norm = simulation.switched.graph.get_submodule(str(place.node.target))
                with measuring(norm, moments := Moments(1), reads=True):
                    place.run()
                for changed in (norm, norm_of(result, str(place.node.target))):
                    _set(changed, moments.mean, moments.variance)
            place.run()
    return result


def _refold(simulation: Simulation, layer: WeightedLayer, node: str, result: nn.Module, moments: Moments) -> None:
    """Set the statistics of a folded BatchNorm, in the model and in the simulation of the layer it is folded into.

    What the BatchNorm would read, x, follows from the folded layer's output y = (x - mean) * multiplier + beta.
    """
    assert layer.norm is not None
    norm, before = norm_of(result, layer.norm), factor(result, layer)
    assert norm.running_mean is not None and norm.running_var is not None
    beta = torch.zeros_like(before) if norm.bias is None else norm.bias.detach()
    alive, old_mean = before.abs() > DEAD, norm.running_mean.clone()
    divisor = torch.where(alive, before, torch.ones(()))
    mean = torch.where(alive, (moments.mean - beta) / divisor + old_mean, old_mean.double())
    _set(norm, mean, torch.where(alive, moments.variance / divisor.double().square(), norm.running_var.double()))
    after = factor(result, layer)
    inner = simulation.inner(layer.name)
    module = simulation.modules[node](QUANTIZED, QUANTIZED)
    ratio = torch.where(alive, after / divisor, torch.ones(()))
    inner.weight = nn.Parameter(inner.weight * by_row(ratio, inner.weight))
    own = (inner.bias.detach() - beta) / divisor + old_mean
    inner.bias = nn.Parameter(torch.where(alive, (own - norm.running_mean) * after + beta, inner.bias.detach()))
    simulation.modules[node] = lambda reads, weights: module


def _set(norm: nn.Module, mean: torch.Tensor, variance: torch.Tensor) -> None:
    norm.running_mean.copy_(mean)  # type: ignore[operator]
    norm.running_var.copy_(variance)  # type: ignore[operator]
