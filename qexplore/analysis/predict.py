"""What a recipe will do, from the statistics of one calibration pass: no model is run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import nn

from qexplore.analysis.checks import NOTHING_LEFT, REMEDY, check_arguments, check_recipe, checked_graph
from qexplore.analysis.predict_tensor import predicted_noise, predicted_tensor, spec_in_force
from qexplore.analysis.prediction import Prediction, kept
from qexplore.analysis.size import compared, file_bytes, layer_bytes, packed_away
from qexplore.analysis.steps.prepare import reference_calibration
from qexplore.analysis.steps.step import split
from qexplore.analysis.tables import by_kind, layer_row, tensor_row
from qexplore.calibrate import Calibration, TensorStats
from qexplore.calibrate.graph import FloatGraph, output_name
from qexplore.engines import QuantizedTensor, resolve_engine, resolve_guard
from qexplore.engines.observers import quant_range, seen_by_observer
from qexplore.engines.plan import Plan, PlannedTensor, plan_dynamic, plan_static, structure
from qexplore.errors import QexploreError, first_line
from qexplore.exclusive import exclusive
from qexplore.numerics.errors import ratio_db
from qexplore.numerics.parts import ErrorParts
from qexplore.recipe import Recipe


def predict(calibration: Calibration, recipe: Recipe) -> Prediction:
    """Ranges, scales and errors of every tensor under `recipe`, in milliseconds.

    The first recipe of a new structure (mode, fusion, which layers rules match) takes up to half a second longer:
    torch.ao says once which tensors it would quantize. Steps that keep the model's function, such as "equalize", are
    applied then, with a calibration pass for each; the effect of others is left out (`Prediction.unpredicted`).

    Raises:
        QexploreError: the recipe does not fit the model or the engine, an observer failed, or a tensor has NaN values.
    """
    check_arguments("predict", (calibration, Calibration), (recipe, Recipe))
    model, graph = _model(calibration, recipe)
    reference = reference_calibration(calibration, recipe)
    if reference is not calibration:
        calibration = reference
        model, graph = _model(calibration, recipe)
    plan = _plan(calibration, model, graph, recipe)
    if not plan.tensors:
        raise QexploreError(NOTHING_LEFT)
    engine = resolve_engine(recipe, model)
    guard = resolve_guard(recipe, engine, model)
    seen = [name for t in plan.tensors for name in t.seen]
    for name in seen:
        if name not in calibration.stats:
            raise QexploreError(f"The calibration does not know tensor {name!r}; make it again with qx.calibrate.")
    calibration.require_finite(seen)
    found, specs = {}, {}
    for planned in plan.tensors:
        activation, weight = recipe.specs_at(planned.rule) or (recipe.activation, recipe.weight)
        spec = weight if planned.kind == "weight" else activation
        codes = engine.run_time_codes(spec.bits) if planned.at_run_time else quant_range(spec, planned.kind, guard)
        specs[planned.kind, planned.name] = spec_in_force(planned, seen_by_observer(spec, planned.kind, guard))
        found[planned.kind, planned.name] = predicted_tensor(calibration, planned, spec, codes, guard)
    tensors = pd.DataFrame([_row(t, parts, calibration.stats.get(t.name)) for t, parts in found.values()])
    quantized = {key: t for key, (t, _) in found.items()}
    noise = {} if graph is None else predicted_noise(calibration, graph, plan, found)
    return Prediction(
        calibration=calibration,
        recipe=recipe,
        engine=engine.name,
        overflow_guard=guard,
        tensors=tensors,
        layers=_layer_table(calibration, model, plan, tensors, noise),
        output_sqnr_db=math.nan if graph is None else _sqnr_db(calibration, output_name(graph), noise),
        size=_size(calibration, model, list(quantized.values())),
        quantized=quantized,
        specs=specs,
        plan=plan,
        graph=graph,
        unpredicted=split(recipe)[1],
    )


def _model(calibration: Calibration, recipe: Recipe) -> tuple[nn.Module, FloatGraph | None]:
    workload = calibration.workload
    checked = replace(recipe, mode="static") if recipe.mode == "qat" else recipe  # a prediction does not train
    with exclusive():
        if "model" not in calibration.cache:
            model = calibration.float_model()
            calibration.cache["model"] = model, checked_graph(workload, model, checked)
        model, graph = calibration.cache["model"]
        if graph is None and recipe.mode != "dynamic":
            checked_graph(workload, model, checked)
    check_recipe(recipe, model, graph)
    return model, graph


def _plan(calibration: Calibration, model: nn.Module, graph: FloatGraph | None, recipe: Recipe) -> Plan:
    def make() -> Plan:
        with exclusive():
            if recipe.mode == "dynamic" or graph is None:
                plan = plan_dynamic(model, recipe, calibration)
            else:
                plan = _plan_static(calibration, model, graph, recipe)
        return replace(plan, tensors=tuple(_sharing_weight(calibration, t) for t in plan.tensors))

    return kept(calibration, ("plan", structure(recipe)), make)


def _plan_static(calibration: Calibration, model: nn.Module, graph: FloatGraph, recipe: Recipe) -> Plan:
    try:
        return plan_static(model, graph, recipe, next(iter(calibration.workload.calibration)))
    except QexploreError:
        raise
    except Exception as error:
        raise QexploreError(f"torch.ao cannot prepare this model: {first_line(error)}; {REMEDY}.") from error


def _sharing_weight(calibration: Calibration, planned: PlannedTensor) -> PlannedTensor:
    """The same with an earlier plan's copy of an equal weight, so that what was computed for it counts again."""
    if planned.weight is None:
        return planned
    known: list[torch.Tensor] = kept(calibration, ("weights", planned.name), list)
    for weight in known:
        if torch.equal(weight, planned.weight):
            return replace(planned, weight=weight)
    known.append(planned.weight)
    return planned


def _row(t: QuantizedTensor, parts: ErrorParts, stats: TensorStats | None) -> dict[str, Any]:
    row = tensor_row(t, parts.sqnr_db, parts.mse, parts.clipped, stats)
    return row | {"rounding_mse": parts.rounding, "clipping_mse": parts.clipping, "codes_used": parts.used}


def _layer_table(
    calibration: Calibration, model: nn.Module, plan: Plan, tensors: pd.DataFrame, noise: dict[str, float]
) -> pd.DataFrame:
    activations, weights = by_kind(tensors)
    names = [layer.name for layer in plan.layers]
    float_bytes = kept(calibration, ("layer bytes", tuple(names)), lambda: layer_bytes(model, names))
    rows = []
    for layer in plan.layers:
        error = {"sqnr_db": _sqnr_db(calibration, layer.output, noise), "mse": noise.get(layer.output, math.nan)}
        rows.append(layer_row(layer, error, activations, weights, float_bytes))
    return pd.DataFrame(rows).set_index("layer")


def _sqnr_db(calibration: Calibration, tensor: str, noise: dict[str, float]) -> float:
    if tensor not in noise:
        return math.nan
    return ratio_db(calibration.stats[tensor].power, noise[tensor])


def _size(
    calibration: Calibration, model: nn.Module, quantized: list[QuantizedTensor]
) -> dict[str, float | int | bool]:
    before = kept(calibration, "file bytes", lambda: file_bytes(model))
    return compared(before, before - packed_away(quantized), estimated=True)
