"""Refuses what cannot work before any long work starts."""

from __future__ import annotations

import torch
from torch import nn

from qexplore.calibrate.graph import FloatGraph, UntraceableError, layer_names, trace
from qexplore.engines import OBSERVERS
from qexplore.engines.dynamic import dynamic_layers
from qexplore.errors import QexploreError
from qexplore.recipe import Recipe
from qexplore.workload import Workload

SHOWN_NAMES = 20


def checked_graph(workload: Workload, model: nn.Module, recipe: Recipe) -> FloatGraph | None:
    """The trace of `model`, once everything about the recipe fits; None for an untraceable model in dynamic mode.

    Raises:
        QexploreError: an unknown observer, a rule that matches no layer, QAT without `train`, a model that static
            mode cannot trace or dynamic mode has nothing to do in, or one that is not float32 on the CPU.
    """
    _check_parameters(workload.name, model)
    for spec in recipe.specs():
        OBSERVERS[spec.observer]
    graph = None
    try:
        graph = trace(model)
    except UntraceableError:
        if recipe.mode != "dynamic":
            raise
    problem = mode_problems(workload, model).get(recipe.mode)
    if problem:
        raise QexploreError(problem)
    _check_rules(recipe, layer_names(model, graph))
    if recipe.mode == "dynamic":
        dynamic_layers(model, recipe)
    return graph


def mode_problems(workload: Workload, model: nn.Module) -> dict[str, str]:
    """By mode, the sentence that says why the workload cannot be quantized in it; modes that work are left out."""
    problems = {}
    if workload.train is None:
        problems["qat"] = (
            f"Mode 'qat' trains the model and workload {workload.name!r} has no train function; "
            "give Workload(train=...) or use mode 'static'."
        )
    try:
        trace(model)
    except UntraceableError as error:
        problems["static"] = problems["qat"] = str(error)
    try:
        dynamic_layers(model, Recipe())
    except QexploreError as error:
        problems["dynamic"] = str(error)
    return problems


def _check_rules(recipe: Recipe, names: list[str]) -> None:
    for rule in recipe.rules:
        if not any(rule.matches(name) for name in names):
            more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
            raise QexploreError(
                f"Rule {rule.pattern!r} matches no layer; layers are {', '.join(names[:SHOWN_NAMES])}{more}."
            )


def _check_parameters(workload: str, model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu":
            raise QexploreError(
                f"Parameter {name!r} of {workload!r} is on {parameter.device}; int8 kernels here run on the CPU, "
                "so give model.cpu() and batches on the CPU."
            )
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise QexploreError(
                f"Parameter {name!r} of {workload!r} is {parameter.dtype}; int8 kernels start from float32, "
                "so give model.float()."
            )
        if not bool(parameter.isfinite().all()):
            raise QexploreError(f"Parameter {name!r} of {workload!r} holds NaN or infinite values; mend the model.")
