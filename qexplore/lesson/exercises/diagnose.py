"""Exercises of lesson 08: diagnose and fix."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from qexplore.analysis.causes import UNEVEN
from qexplore.analysis.fixes import expected
from qexplore.analysis.ledger import Ledger
from qexplore.calibrate import Calibration
from qexplore.lesson.exercise import called, close, exercise
from qexplore.recipe import LayerRule, Recipe, TensorSpec

# The layer with the largest error of its own is not the one that brings most to the output.
FEW_BITS = {"conv": 5, "blocks.0.pointwise": 3, "blocks.3.depthwise": 2}
TARGET_DB, MOST = 17.0, 2


def puzzle() -> Recipe:
    """A recipe for `digits_mobile` whose layers have unlike numbers of bits; which ones is for the learner to find."""
    return Recipe(weight=_weight(8), rules=tuple(LayerRule(name, weight=_weight(n)) for name, n in FEW_BITS.items()))


def _weight(bits: int) -> TensorSpec:
    return TensorSpec(bits=bits, symmetric=True, per_channel=True)


@exercise(
    "read the ledger",
    start="Which column of the table says what a layer brings to the output? Look for its largest value.",
    right="A layer's own error, what has added up there and what it brings to the output are three different things.",
)
def read_the_ledger(name: Any, ledger: Ledger) -> str | None:
    layers = ledger.layers
    if name not in layers.index:
        return f"{name!r} is no layer of the table; give one of its names as a text."
    if name == layers.share.idxmax():
        return None
    row = layers.loc[name]
    if name == layers.local_sqnr_db.idxmin():
        return (
            f"{name!r} has the lowest SQNR of its own, {row.local_sqnr_db:.1f} dB, but brings {row.share:.0%} of the "
            "error at the output; another layer brings more."
        )
    if name == layers.accumulated_sqnr_db.idxmin():
        return f"At {name!r} most has added up, but it comes from layers before it; look at what each brings itself."
    return f"{name!r} brings {row.share:.0%} of the error at the output; another layer brings more."


@exercise(
    "uneven channels",
    start="Of each output channel take the largest magnitude; then divide the largest of these by their median.",
    right="One step for all channels suits these layers worst.",
)
def uneven_channels(ratio: Any, names: Any, weights: Mapping[str, torch.Tensor]) -> str | None:
    for weight in (torch.tensor([[1.0, -8.0, 2.0], [1.0, 0.5, -1.0], [0.5, 2.0, 0.5]]), *weights.values()):
        reach = weight.abs().flatten(1).amax(1)
        given, right = float(called(ratio, weight)), float(reach.max() / reach.median())
        if close(given, right) or close(given, float(reach.max() / reach.quantile(0.5))):  # either kind of median
            continue
        signed, inputs = weight.flatten(1).amax(1), weight.abs().transpose(0, 1).flatten(1).amax(1)
        for wrong, hint in (
            (reach.max() / reach.mean(), "You divide by the mean, which the large channels raise; take the median."),
            (reach.max() / reach.min(), "You divide by the smallest reach; take the median."),
            (signed.max() / signed.median(), "Large negative weights count as well: take magnitudes first."),
            (weight.abs().max() / weight.abs().median(), "This is of single weights; take each channel's reach first."),
            (inputs.max() / inputs.median(), "These are input channels; the first dimension is the output's."),
        ):
            if close(given, float(wrong)):
                return hint
        return f"For a weight of shape {tuple(weight.shape)} it gives {given:.3g}; the ratio is {right:.3g}."
    if isinstance(names, str) or not isinstance(names, Iterable):
        return "The function is right. Give the names as a list of texts."
    return _same_names(set(names), {name for name, weight in weights.items() if float(ratio(weight)) > UNEVEN})


def _same_names(given: set[Any], right: set[str]) -> str | None:
    if given - right:
        return f"The function is right, but the ratio of {min(map(str, given - right))!r} is not above {UNEVEN:g}."
    missing = len(right - given)
    return f"The function is right, but layers are missing from the list: {missing}." if missing else None


@exercise(
    "mend with two layers",
    start="Which two layers bring most to the output? Give each a rule with 8-bit weights, behind the rules there are.",
    right="Two layers were worth it; the others would have cost bytes for nothing.",
)
def mend_with_two_layers(recipe: Any, calibration: Calibration) -> str | None:
    if not isinstance(recipe, Recipe):
        return f"This is a {type(recipe).__name__}; give a recipe, such as replace(coarse, rules=...)."
    before = puzzle()
    if replace(recipe, rules=()) != replace(before, rules=()):
        return "It changes settings of all layers; leave those of coarse as they are, and add rules."
    found = expected(calibration, recipe)
    layers = [name for name, _ in calibration.workload.model.named_modules() if name]
    changed = [name for name in layers if recipe.specs_for(name) != before.specs_for(name)]
    inner = [name for name in changed if not any(other.startswith(f"{name}.") for other in changed)]
    if not inner:
        return "No layer differs from coarse: the last rule that matches wins, so put yours behind the others."
    if len(inner) > MOST:
        return f"It changes {len(inner)} layers, {', '.join(inner[:4])} among them; {MOST} are allowed."
    if found.sqnr_db < TARGET_DB:
        return (
            f"With {' and '.join(map(repr, inner))} changed {found.sqnr_db:.1f} dB are expected, {TARGET_DB:g} dB are "
            "asked for. Choose by what layers bring to the output."
        )
    return None
