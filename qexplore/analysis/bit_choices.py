"""What bits cost in each layer, to first order, and the recipe for a mix of them."""

from __future__ import annotations

from dataclasses import replace
from glob import escape

import torch

from qexplore.analysis.bit_search import Choices, Picked
from qexplore.analysis.local_errors import local_errors
from qexplore.analysis.predict import predict
from qexplore.analysis.prediction import Prediction
from qexplore.analysis.sensitivity import linearized, switches_of
from qexplore.analysis.size import packed_away
from qexplore.calibrate import Calibration
from qexplore.errors import QexploreError
from qexplore.progress import Cancel, Report, part
from qexplore.recipe import LayerRule, Recipe

FLOAT_BITS = 32


def bit_choices(
    calibration: Calibration, recipe: Recipe, bits: tuple[int, ...], samples: int, report: Report, cancel: Cancel
) -> Choices:
    """What each number of bits costs in each layer whose weights no rule sets, by one pass over the layers for each.

    Args:
        bits: falling; FLOAT_BITS for float.

    Raises:
        QexploreError: rules set the weights of all layers.
    """
    errors: list[dict[str, float]] = []
    sizes: list[dict[str, int]] = []
    for position, count in enumerate(bits):
        within = part(report, position / len(bits), (position + 1) / len(bits))
        # A mix has no overflow guard as soon as one layer has fewer than 8 bits.
        weight = replace(recipe.weight, bits=min(count, 8))
        prediction = predict(calibration, replace(recipe, weight=weight, overflow_guard="none"))
        switches = switches_of(prediction)
        ats = linearized(prediction, samples, part(within, 0.0, 0.5), cancel)
        found = local_errors(switches, ats, False, part(within, 0.5, 1.0), cancel)
        errors.append(dict(zip(found.layers, found.output_mse().mean(1).tolist(), strict=True)))
        sizes.append(_packed_bytes(prediction))
    free = [layer for layer in sizes[0] if _is_free(recipe, layer)]
    if not free:
        raise QexploreError("No layer's bits are left to choose; remove the recipe's rules that set weights.")
    mse = torch.tensor([[each.get(layer, 0.0) for each in errors] for layer in free], dtype=torch.float64)
    table = torch.tensor([[each[layer] for each in sizes] for layer in free], dtype=torch.float64)
    others = int(prediction.size["int8_bytes"]) - int(table[:, -1].sum())
    if bits[0] == FLOAT_BITS:
        weights = [(t.layer, t.weight) for t in prediction.quantized.values() if t.weight is not None]
        mse[:, 0] = 0.0
        table[:, 0] = torch.tensor([sum(4 * w.numel() for name, w in weights if name == layer) for layer in free])
    return Choices(tuple(free), bits, mse, table, sum(v for k, v in errors[-1].items() if k not in free), others)


def _packed_bytes(prediction: Prediction) -> dict[str, int]:
    """Bytes of each layer's packed weights with their scales."""
    found: dict[str, int] = {}
    for t in prediction.quantized.values():
        if t.weight is not None:
            found[t.layer] = found.get(t.layer, 0) + 4 * t.weight.numel() - packed_away([t])
    return found


def _is_free(recipe: Recipe, layer: str) -> bool:
    index = recipe.rule_index(layer)
    return index is None or recipe.rules[index].weight is None


def mixed_recipe(recipe: Recipe, choices: Choices, picked: Picked, only_changed: bool = False) -> Recipe:
    """The recipe with a rule for each layer that could be chosen.

    Args:
        only_changed: leave out rules that change nothing; with them all mixes without float layers share one plan.
    """
    rules = []
    for layer, choice in zip(choices.layers, picked, strict=True):
        bits, index = choices.bits[choice], recipe.rule_index(layer)
        if bits == FLOAT_BITS:
            rules.append(LayerRule(escape(layer), keep_float=True))
        elif bits != recipe.weight.bits or not only_changed:
            activation = None if index is None else recipe.rules[index].activation  # the last rule alone counts
            rules.append(LayerRule(escape(layer), activation=activation, weight=replace(recipe.weight, bits=bits)))
    return replace(recipe, rules=recipe.rules + tuple(rules))
