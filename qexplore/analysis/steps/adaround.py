"""AdaRound: rounds each weight up or down as serves the layer's output, not the weight.

Source: Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from qexplore.analysis.predict import predict
from qexplore.analysis.steps.layers import by_row, traced, weighted_layers
from qexplore.analysis.steps.rounding import rounded_steps
from qexplore.analysis.steps.rounding_task import Affine, affine_of, check_survival, moved_inside, task_of
from qexplore.analysis.steps.rows import sampled_rows
from qexplore.analysis.steps.step import step
from qexplore.analysis.steps.walk import as_traced, walk
from qexplore.calibrate import Calibration
from qexplore.calibrate.graph import float_copy
from qexplore.errors import QexploreError
from qexplore.progress import Cancel, Report
from qexplore.recipe import Recipe
from qexplore.workload import Batch

ROWS = 2048
VALUES = 1 << 23
NONE = "Step 'adaround' finds no quantized Conv or Linear layer; leave the step out."


@step("adaround", 2, "rounds weights up or down so that layers' outputs come out best (AdaRound)")
def adaround(
    model: nn.Module,
    reference: nn.Module,
    recipe: Recipe,
    calibration: Calibration,
    batches: Sequence[Batch],
    report: Report,
    cancel: Cancel,
) -> nn.Module:
    """The model with weights moved into the cells of the codes chosen for them; see `step.Apply`.

    Layers are taken in the model's order; each reads what the layers before it give with their weights rounded.
    """
    prediction = predict(calibration, replace(recipe, steps=()))
    result, folded = float_copy(model), recipe.fuse and recipe.mode != "dynamic"
    graphs = traced(model, "adaround"), traced(float_copy(model), "adaround")
    layers = [layer for layer in weighted_layers(graphs[0], recipe) if ("weight", layer.name) in prediction.quantized]
    if not layers:
        raise QexploreError(NONE)
    positions = {layer.node.name: position for position, layer in enumerate(layers)}
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.no_grad():
        walks = [walk(graph.module, as_traced(graph.module), batches, cancel) for graph in graphs]
        for places in zip(*walks, strict=True):
            position = positions.get(places[0].node.name)
            if position is not None:
                layer = layers[position]
                report(f"Rounding layer {layer.name!r}, {position + 1} of {len(layers)}", position / len(layers))
                module, key = model.get_submodule(layer.name), ("weight", layer.name)
                tensor, spec = prediction.quantized[key], prediction.specs[key]
                count = min(ROWS, VALUES // _inputs(module) + 1)
                rows = sampled_rows(module, [place.reads() for place in places], count, generator)
                affine = affine_of(model, layer, folded)
                task = task_of(tensor, spec.symmetric, affine, *rows)
                steps = rounded_steps(task, generator, cancel)
                moved = moved_inside(task, steps)
                check_survival(tensor, spec, task, steps, moved)
                for changed, value in ((result, moved), (graphs[1].module, steps)):
                    _set_weight(changed, layer.name, affine, value * task.scale, value != task.steps)
            for place in places:
                place.run()
    return result


def _set_weight(model: nn.Module, name: str, affine: Affine, folded: torch.Tensor, changed: torch.Tensor) -> None:
    """Give a layer the weight that BatchNorm folds into `folded`, where that differs from the one it has."""
    module: Any = model.get_submodule(name)
    weight = module.weight.detach()
    multiplier = by_row(affine.multiplier, weight)
    changed = changed.reshape(weight.shape) & (multiplier != 0)
    # A parameter of its own: one that is shared with another layer must not change there.
    module.weight = nn.Parameter(torch.where(changed, folded.reshape(weight.shape) / multiplier, weight))


def _inputs(module: Any) -> int:
    """Number of values that all groups of a layer read for one place of the output."""
    return int(module.weight[0].numel() * getattr(module, "groups", 1))
