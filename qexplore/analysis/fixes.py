"""Recipes that mend what a diagnosis finds, and what each would gain."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import nn

from qexplore.analysis.causes import Cause
from qexplore.analysis.linearize import SAMPLES
from qexplore.analysis.predict import predict
from qexplore.analysis.prediction import Prediction
from qexplore.analysis.sensitivity import linearized, switches_of, whole_error
from qexplore.analysis.steps.step import STEPS, in_order
from qexplore.analysis.why import OVERFLOW_32
from qexplore.calibrate import Calibration
from qexplore.engines import resolve_engine, resolve_guard
from qexplore.engines.engine import supported_engines
from qexplore.errors import QexploreError
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.progress import no_report
from qexplore.recipe import LayerRule, Recipe, TensorSpec


@dataclass(frozen=True)
class Fix:
    """A recipe that mends something.

    Attributes:
        title: what it changes, for a button.
        recipe: the whole new recipe.
    """

    title: str
    recipe: Recipe


@dataclass(frozen=True)
class Expected:
    """What the simulation of a recipe gives on some samples.

    Attributes:
        output_mse, sqnr_db: at the model's output.
        unpredicted: the steps whose effect is not in it; they have to be run.
    """

    output_mse: float
    sqnr_db: float
    unpredicted: tuple[str, ...]


def expected(calibration: Calibration, recipe: Recipe, samples: int = SAMPLES) -> Expected:
    """Simulate a recipe on the samples of the ledger, without converting a model.

    Raises:
        QexploreError: the recipe does not fit, or the model cannot be traced.
    """
    with exclusive(), seeded(recipe.seed):
        prediction = predict(calibration, recipe)
        ats = linearized(prediction, samples, no_report, None, gradients=False)
        return Expected(*whole_error(switches_of(prediction), ats), prediction.unpredicted)


def fixes_of(prediction: Prediction, layer: str, kind: str, name: str, causes: Sequence[Cause]) -> tuple[Fix, ...]:
    """What can be done about one layer: without each cause, the likeliest first, and kept float in the end.

    Args:
        kind, name: of the tensor the causes are of; kind "" for the layer itself, "overflow" for sums that overflow
            (`name` is then why).
    """
    recipe, found = prediction.recipe, list[Fix]()
    for cause in causes:
        found += _without(prediction, layer, kind, name, cause)
    if kind == "overflow":
        found += _no_overflow(prediction, layer, name)
    if not causes and kind == "" and recipe.bits < 8:
        weight = recipe.specs_for(layer)
        assert weight is not None
        found.append(Fix(f"8-bit weights in {layer!r}", with_spec(recipe, layer, "weight", replace(weight[1], bits=8))))
    kept, giver = _kept_float(recipe, layer), _giver(prediction, name, layer) if kind == "activation" else layer
    if giver != layer:  # a tensor that another layer gives is as it is whether this one is float or not
        kept = Fix(f"keep {giver!r} and {layer!r} float", _kept_float(kept.recipe, giver).recipe)
    found.append(kept)
    first = dict[Recipe, Fix]()
    for fix in found:
        if fix.recipe != recipe:
            first.setdefault(fix.recipe, fix)
    return tuple(first.values())


def _without(prediction: Prediction, layer: str, kind: str, name: str, cause: Cause) -> Iterator[Fix]:
    """What takes one cause away."""
    recipe = prediction.recipe
    if cause.seen:
        yield _kept_float(recipe, cause.seen)
        return
    if cause.axis is not None:
        if "equalize" not in recipe.steps:
            yield Fix(cause.fix, replace(recipe, steps=in_order(("equalize", *recipe.steps))))
        return
    if cause.name == "symmetric range" and kind == "activation" and recipe.activation.symmetric:
        # First: values that are rounded again behind a reshape have to be affine in both places to gain anything.
        activation = replace(recipe.activation, symmetric=False)
        yield Fix("affine ranges for all activations", replace(recipe, activation=activation))
    where = layer if kind == "weight" else _giver(prediction, name, layer)
    what = f"weight of {name!r}" if kind == "weight" else f"tensor {name!r}"
    yield Fix(f"{cause.fix} for the {what}", with_spec(recipe, where, kind, cause.spec))
    if cause.name == "channel imbalance" and "equalize" not in recipe.steps:
        yield Fix("equalize channels across layers", replace(recipe, steps=in_order(("equalize", *recipe.steps))))


def _no_overflow(prediction: Prediction, layer: str, why: str) -> Iterator[Fix]:
    """What keeps sums from overflowing; `why` is the column of `three_way`."""
    recipe = prediction.recipe
    guard = Fix("overflow guard: weights within ±64", replace(recipe, overflow_guard="weights"))
    if why == OVERFLOW_32:
        yield _kept_float(recipe, layer)  # the guard halves the sums, which may still be too large
        yield guard
        return
    model = prediction.calibration.float_model()
    engines = {name: Fix(f"engine {name}", replace(recipe, engine=name)) for name in supported_engines()}
    engines.pop(prediction.engine, None)
    free = [fix for fix in engines.values() if _needs_no_guard(fix.recipe, model)]
    # oneDNN is as fast and costs no bit of the weights; the others are slower than the guard.
    yield from (fix for fix in free if fix.recipe.engine == "onednn")
    yield guard
    yield from (fix for fix in free if fix.recipe.engine != "onednn")


def _needs_no_guard(recipe: Recipe, model: nn.Module) -> bool:
    try:
        engine = resolve_engine(recipe, model)
    except QexploreError:
        return False
    return resolve_guard(replace(recipe, overflow_guard="auto"), engine, model) == "none"


def _kept_float(recipe: Recipe, layer: str) -> Fix:
    return Fix(f"keep {layer!r} float", replace(recipe, rules=(*recipe.rules, LayerRule(layer, keep_float=True))))


def model_fixes(prediction: Prediction, causes: Collection[str]) -> tuple[Fix, ...]:
    """What can be done about the whole model."""
    recipe, found = prediction.recipe, []
    if not recipe.weight.per_channel:
        per_channel = replace(recipe.weight, per_channel=True, observer="minmax", options={})
        found.append(Fix("one scale per channel for all weights", replace(recipe, weight=per_channel)))
    if recipe.activation.observer != "mse" and recipe.mode != "dynamic":
        activation = replace(recipe.activation, observer="mse", options={})
        found.append(Fix("ranges of least squared error for all activations", replace(recipe, activation=activation)))
    if not recipe.fuse:
        found.append(Fix("fuse Conv, BatchNorm and ReLU", replace(recipe, fuse=True)))
    if recipe.mode != "dynamic":
        for name in in_order(set(STEPS) - set(recipe.steps)):
            if name == "equalize" and "channel imbalance" not in causes:
                continue
            steps = in_order((name, *recipe.steps))
            found.append(Fix(f"step {name}: {STEPS[name].description}", replace(recipe, steps=steps)))
    return tuple(found)


def with_spec(recipe: Recipe, layer: str, kind: str, spec: TensorSpec) -> Recipe:
    """The recipe with other settings for one layer's activation or weight; what its rules say of the other stays."""
    now = recipe.specs_for(layer) or (recipe.activation, recipe.weight)
    specs = dict(zip(("activation", "weight"), now, strict=True)) | {kind: spec}
    own = {name: each if each != getattr(recipe, name) else None for name, each in specs.items()}
    if not any(own.values()):  # the recipe's own settings, where a rule gives others: the last rule wins
        own[kind] = spec
    rule = LayerRule(layer, activation=own["activation"], weight=own["weight"])
    return replace(recipe, rules=(*recipe.rules, rule))


def _giver(prediction: Prediction, tensor: str, reader: str) -> str:
    """The layer whose rule decides on a tensor: the one that gives it, or for an input of the model its reader."""
    given = prediction.quantized["activation", tensor].layer
    return given if given in prediction.layers.index else reader
