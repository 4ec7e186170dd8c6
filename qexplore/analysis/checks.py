"""Refuses what cannot work before any long work starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from qexplore.analysis.steps.step import split
from qexplore.batches import call, first_tensor
from qexplore.calibrate import Calibration
from qexplore.calibrate.graph import FloatGraph, UntraceableError, float_copy, layer_names, trace
from qexplore.engines.dynamic import NOTHING_DYNAMIC, dynamic_layers, eligible
from qexplore.engines.observers import torch_observer
from qexplore.errors import QexploreError
from qexplore.recipe import Recipe
from qexplore.workload import Batch, Workload

SHOWN_NAMES = 20
KEEPS_SCALE = (
    *(nn.ReLU, nn.ReLU6, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Flatten, nn.Identity, nn.PixelShuffle, nn.Hardtanh),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.Upsample),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Sigmoid, nn.Tanh, nn.Softmax, nn.Embedding),
)
PER_TENSOR_ONLY = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LEFT_FLOAT = (
    "LSTM and GRU layers stay float here: PyTorch's static LSTM runs step by step, slower than float. "
    "Dynamic mode quantizes them."
)
REMEDY = "keep the layer float with a rule"
NOTHING_LEFT = "The recipe leaves nothing to quantize; quantize at least one layer."
NO_TENSOR = "The model returns no tensor, so it cannot be compared; return a tensor or a tuple of them."


def check_arguments(function: str, *pairs: tuple[object, type]) -> None:
    """Refuse arguments of another kind than the wanted one, which is public in `qx`.

    Raises:
        QexploreError: naming the function and what to give.
    """
    for given, wanted in pairs:
        if not isinstance(given, wanted):
            name = wanted.__name__
            raise QexploreError(f"{function} got {given!r} for its {name.lower()}; give a qx.{name}.")


def check_calibration(function: str, workload: Workload, calibration: Calibration | None) -> None:
    """Refuse a calibration of another workload.

    Raises:
        QexploreError: naming both.
    """
    if calibration is None:
        return
    check_arguments(function, (calibration, Calibration))
    if calibration.workload is not workload:
        other = calibration.workload.name
        named = f"workload {other!r}" if other != workload.name else f"another workload called {other!r}"
        raise QexploreError(
            f"The calibration belongs to {named}, not to the {workload.name!r} given; make one with "
            "qx.calibrate(workload)."
        )


def check_samples(samples: object) -> None:
    """Refuse what is no number of samples."""
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise QexploreError(f"samples is {samples!r}; give a whole number from 1 up.")


def checked_graph(workload: Workload, model: nn.Module, recipe: Recipe) -> FloatGraph | None:
    """The trace of `model`, once everything about the recipe fits; None for an untraceable model in dynamic mode.

    Raises:
        QexploreError: as `check_recipe`; QAT without `train`, a model that static mode cannot trace, or one that is not
            float32 on the CPU.
    """
    _check_parameters(workload.name, model)
    graph = None
    if recipe.mode == "qat" and workload.train is None:
        raise QexploreError(_no_train(workload))
    try:
        graph = trace(model)
    except UntraceableError:
        if recipe.mode != "dynamic":
            check_observers(recipe)
            raise
    check_recipe(recipe, model, graph)
    return graph


def check_recipe(recipe: Recipe, model: nn.Module, graph: FloatGraph | None) -> None:
    """Refuse a recipe that does not fit the model.

    Raises:
        QexploreError: an unknown observer, option or step, steps in a wrong order, a rule that matches no layer, a
            layer that cannot be quantized so, or nothing for dynamic mode to quantize.
    """
    check_observers(recipe)
    split(recipe)
    _check_rules(recipe, layer_names(model, graph))
    if recipe.mode == "dynamic":
        dynamic_layers(model, recipe)
    elif graph is not None:
        _check_layers(graph, recipe)


def check_observers(recipe: Recipe) -> None:
    """Refuse observers and options that do not exist, and per-channel scales of an observer that has none."""
    for spec in recipe.specs():
        torch_observer(spec, "weight", "none")


def _check_layers(graph: FloatGraph, recipe: Recipe) -> None:
    """Refuse layers that torch.ao would quantize wrongly: one int8 module has one output scale, whoever calls it."""
    called: set[str] = set()
    for node in graph.module.graph.nodes:
        path = str(node.target)
        specs = recipe.specs_for(path)
        if node.op != "call_module" or specs is None:
            continue
        module = graph.module.get_submodule(path)
        if path in called and not isinstance(module, KEEPS_SCALE):
            raise QexploreError(
                f"Layer {path!r} ({type(module).__name__}) is called more than once, but an int8 layer has one output "
                "scale; make it one layer per call (they may share weights) or keep it float with a rule."
            )
        called.add(path)
        if isinstance(module, nn.PReLU):
            raise QexploreError(
                f"Layer {path!r} is a PReLU, which PyTorch's int8 kernel computes wrongly; keep it float with a rule."
            )
        if specs[1].per_channel and isinstance(module, PER_TENSOR_ONLY):
            raise QexploreError(
                f"Layer {path!r} is a {type(module).__name__}, whose weights torch.ao quantizes per tensor only; "
                "choose per-tensor weights, with a rule for this layer alone, or keep it float."
            )


def check_output(model: nn.Module, batch: Batch) -> None:
    """Refuse a model whose output cannot be compared.

    Raises:
        QexploreError: the output holds no tensor.
    """
    with torch.no_grad():
        if first_tensor(call(model, batch)) is None:
            raise QexploreError(NO_TENSOR)


@dataclass(frozen=True)
class Inspection:
    """What can be done with a workload.

    Attributes:
        layers: the names that a rule may match.
        problems: by mode, why the workload cannot be quantized in it; modes that work are left out.
        hints: by mode, what the mode leaves undone.
        mode: the mode to begin with.
    """

    layers: list[str]
    problems: dict[str, str]
    hints: dict[str, str]
    mode: str


def inspect(workload: Workload) -> Inspection:
    """Look at a workload's model, without running it."""
    model, graph = float_copy(workload.model), None
    problems = {} if workload.train is not None else {"qat": _no_train(workload)}
    try:
        graph = trace(model)
    except UntraceableError as error:
        problems["static"] = problems["qat"] = str(error)
    if not eligible(model):
        problems["dynamic"] = NOTHING_DYNAMIC
    recurrent = any(isinstance(module, nn.LSTM | nn.GRU) for module in model.modules())
    hints = dict.fromkeys(("static", "qat"), LEFT_FLOAT) if recurrent else {}
    mode = "dynamic" if recurrent or "static" in problems else "static"
    return Inspection(layer_names(model, graph), problems, hints, mode)


def _no_train(workload: Workload) -> str:
    return (
        f"Mode 'qat' trains the model and workload {workload.name!r} has no train function; "
        "give Workload(train=...) or use mode 'static'."
    )


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
