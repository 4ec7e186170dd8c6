"""Numbers, recipes and models in the words that all figures use."""

from __future__ import annotations

import math
from typing import Any

from qexplore.analysis import Prediction, Run
from qexplore.recipe import Recipe, TensorSpec


def number(value: float, digits: int = 3) -> str:
    """A number in `digits` significant digits, with a power of ten only where it is very large or very small."""
    if value and 1e-4 <= abs(value) < 1e6:
        decimals = digits - 1 - math.floor(math.log10(abs(value)))
        return f"{round(value, decimals):,.{max(decimals, 0)}f}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def decibels(value: float | None) -> str:
    """An SQNR in dB: "exact" where there is no error at all, "not measured" for NaN or None."""
    if value is None or math.isnan(value):
        return "not measured"
    if math.isinf(value):
        return "exact" if value > 0 else "no signal"
    return f"{round(value, 1) + 0.0:.1f} dB".replace("-", "−")


def percent(share: float | None) -> str:
    """A share of 1 in %, small ones in two digits; 100 % only where it is all."""
    if share is None or math.isnan(share):
        return "unknown"
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    return f"{100 * share:.2g} %" if share < 0.1 else f"{min(100 * share, 99.9):.1f} %"


def kib(value: Any) -> Any:
    """Bytes (a number or an array) in KiB of 1024 bytes."""
    return value / 1024


def quantized_name(run: Run) -> str:
    """What the quantized model of a run is: "int8", or "simulated" with its fewest bits."""
    return "int8" if run.metrics["int8"] is not None else f"simulated, {run.recipe.bits} bits"


def predicted_words(shown: Run | Prediction) -> list[str]:
    """What a figure says of itself where it shows a prediction."""
    if isinstance(shown, Run):
        return []
    return ["Predicted from the calibration" + (", before training." if shown.recipe.mode == "qat" else ".")]


def metric_name(run: Run) -> str:
    """The metric and which way is better."""
    return f"{run.metric} ({'higher' if run.higher_is_better else 'lower'} is better)"


def recipe_words(recipe: Recipe) -> list[str]:
    """A recipe in short lines."""
    observer = "run time" if recipe.mode == "dynamic" else recipe.activation.observer
    lines = [
        {"qat": f"QAT, {recipe.epochs} epoch{'s' if recipe.epochs > 1 else ''}"}.get(recipe.mode, recipe.mode),
        f"activations: {recipe.activation.bits} bits, {observer}{_scheme(recipe.activation)}",
        f"weights: {recipe.weight.bits} bits, {recipe.weight.observer}{_scheme(recipe.weight)}, "
        + ("per channel" if recipe.weight.per_channel else "per tensor"),
    ]
    if not recipe.fuse:
        lines.append("layers not fused")
    if recipe.steps:
        lines.append(f"prepared: {', '.join(recipe.steps)}")
    if recipe.rules:
        kept = [rule.pattern for rule in recipe.rules if rule.keep_float]
        changed = len(recipe.rules) - len(kept)
        lines += [f"kept float: {', '.join(kept)}"] if kept else []
        lines += [f"{changed} rule{'s' if changed > 1 else ''} for single layers"] if changed else []
    return lines


def _scheme(spec: TensorSpec) -> str:
    return ", symmetric" if spec.symmetric else ""
