"""Cross-layer equalization: moves scale from one layer's output channels into the next layer's input channels.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from qexplore.analysis.steps.layers import by_row, factor, traced
from qexplore.analysis.steps.pairs import Pair, found_pairs
from qexplore.analysis.steps.step import step
from qexplore.calibrate import Calibration
from qexplore.calibrate.graph import float_copy
from qexplore.errors import QexploreError
from qexplore.progress import Cancel, Report, stop_if
from qexplore.recipe import Recipe
from qexplore.workload import Batch

ROUNDS = 100
CONVERGED = 1e-4
NO_PAIR = (
    "Step 'equalize' finds no pair of quantized Conv or Linear layers with nothing but BatchNorm, ReLU, LeakyReLU, "
    "Dropout or pooling between them; leave the step out."
)


@step("equalize", 0, "evens out the ranges of neighbouring layers' channels (cross-layer equalization)", True)
def equalize(
    model: nn.Module,
    reference: nn.Module,
    recipe: Recipe,
    calibration: Calibration,
    batches: Sequence[Batch],
    report: Report,
    cancel: Cancel,
) -> nn.Module:
    """The model with every pair's weight ranges equal, channel by channel; see `step.Apply`."""
    equalized = float_copy(model)
    pairs = found_pairs(traced(equalized, "equalize"), recipe)
    if not pairs:
        raise QexploreError(NO_PAIR)
    with torch.no_grad():
        for number in range(ROUNDS):
            stop_if(cancel)
            report(f"Equalizing {len(pairs)} pairs of layers", number / ROUNDS)
            if max([_equalize(equalized, pair) for pair in pairs]) < CONVERGED:
                break
    return equalized


def _equalize(model: nn.Module, pair: Pair) -> float:
    """Equalize one pair in place; returns the largest change of a channel, in shares of it."""
    first: Any = model.get_submodule(pair.first.name)
    second: Any = model.get_submodule(pair.second.name)
    written, read = first.weight.data, second.weight.data
    above = (written * by_row(factor(model, pair.first), written)).abs().flatten(1).amax(1)
    groups = int(getattr(second, "groups", 1))
    folded = (read * by_row(factor(model, pair.second), read)).abs().unflatten(0, (groups, -1))
    below = folded.reshape(*folded.shape[:3], -1).amax((1, 3)).reshape(len(above), -1).amax(1)
    alive = (above > 0) & (below > 0)
    scale = torch.where(alive, (above / below.clamp(min=torch.finfo(torch.float32).tiny)).sqrt(), torch.ones(()))
    owner: Any = first if pair.first.norm is None else model.get_submodule(pair.first.norm)
    owner.weight.div_(by_row(scale, owner.weight))
    if owner.bias is not None:
        owner.bias.div_(scale)
    spread = scale.repeat_interleave(pair.places).reshape(groups, 1, -1, *[1] * (read.dim() - 2))
    read.copy_((read.unflatten(0, (groups, -1)) * spread).flatten(0, 1))
    return float((scale - 1).abs().max())
