"""From a float model and a recipe to a Conversion, by mode: calibrate or train, then convert."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pandas as pd
import torch
from torch import nn

from qexplore.analysis.checks import NOTHING_LEFT, REMEDY
from qexplore.analysis.finetune import Watch, finetune, no_watch
from qexplore.batches import call
from qexplore.calibrate import Calibration
from qexplore.calibrate.graph import FloatGraph, trace
from qexplore.engines import Conversion, Engine
from qexplore.engines.dynamic import convert_dynamic
from qexplore.engines.fx import convert, prepare
from qexplore.engines.fx_names import check_reach
from qexplore.errors import QexploreError, first_line
from qexplore.progress import Cancel, Report, cancellable, part, stop_if
from qexplore.recipe import Recipe
from qexplore.workload import Batch, Workload


def convert_model(
    workload: Workload,
    model: nn.Module,
    graph: FloatGraph | None,
    recipe: Recipe,
    engine: Engine,
    guard: str,
    calibration: Calibration,
    batches: Sequence[Batch],
    evaluate: Callable[[nn.Module], float],
    report: Report,
    cancel: Cancel,
    watch: Watch = no_watch,
) -> tuple[Conversion, pd.DataFrame]:
    """The conversion and, in QAT mode, the history of its training (empty otherwise).

    Args:
        model: the workload's model, a copy or as preparation steps left it, in eval mode; left as it is.
        graph: its trace; None only in dynamic mode.
        guard: the overflow guard in force.
        evaluate: measures a model with the workload's metric.

    Raises:
        QexploreError: NaN or infinite activations, nothing to quantize, or a layer the engine cannot take.
    """
    history = pd.DataFrame({"epoch": [], "loss": [], "metric": []})
    if recipe.mode == "dynamic":
        report("Converting to int8", 0.0)
        conversion = convert_dynamic(model, recipe, engine, calibration)
        calibration.require_finite([t.name for t in conversion.tensors if t.kind == "activation"])
        return conversion, history
    assert graph is not None
    try:
        prepared = prepare(model, graph, recipe, engine, guard, batches[0])
    except QexploreError:
        raise
    except Exception as error:
        raise QexploreError(f"torch.ao cannot prepare this model: {first_line(error)}; {REMEDY}.") from error
    if not prepared.groups.own_observers():
        raise QexploreError(NOTHING_LEFT)
    check_reach(recipe, prepared.groups)
    calibration.require_finite(prepared.groups.observed())
    prepared.module.eval()
    calibrating = part(report, 0.0, 0.1 if recipe.mode == "qat" else 0.9)
    with torch.no_grad():
        for position, batch in enumerate(batches):
            stop_if(cancel)
            calibrating(f"Observing, batch {position + 1} of {len(batches)}", position / len(batches))
            try:
                call(prepared.module, batch)
            except QexploreError:
                raise
            except Exception as error:
                raise QexploreError(f"torch.ao cannot observe this model: {first_line(error)}; {REMEDY}.") from error
    if recipe.mode == "qat":
        handle = cancellable(prepared.module, cancel)
        training = part(report, 0.1, 0.95)
        history = finetune(workload, prepared.module, recipe.epochs, evaluate, training, cancel, watch)
        handle.remove()
    report("Converting to int8", 0.95)
    try:
        return convert(prepared), history
    except QexploreError:
        raise
    except Exception as error:
        raise QexploreError(
            f"Engine {engine.name!r} cannot convert this model: {first_line(error)}; {REMEDY} or take another engine."
        ) from error


def against(conversion: Conversion, reference: nn.Module) -> Conversion:
    """The conversion with `reference` as the float model that its layers are compared with.

    Args:
        reference: a float model with the same modules and operations as the one that was converted.
    """
    probe = conversion.probes["float"]
    model = trace(reference).module if probe.by_node else reference
    return replace(conversion, probes=conversion.probes | {"float": replace(probe, model=model)})
