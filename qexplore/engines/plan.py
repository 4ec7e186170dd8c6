"""What an engine would quantize, found without data: for predictions.

The structure is read off a model that torch.ao prepared, with observers that only remember which rule they come from.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import fx, nn
from torch.ao.quantization import FixedQParamsObserver, MinMaxObserver, QConfig
from torch.ao.quantization.quantize_fx import convert_to_reference_fx, prepare_fx

from qexplore.batches import positional
from qexplore.calibrate import Calibration
from qexplore.calibrate.graph import FloatGraph
from qexplore.engines.conversion import Layer
from qexplore.engines.dynamic import dynamic_layers, layer_weights, layers_of
from qexplore.engines.engine import resolve_engine, using
from qexplore.engines.fx import backend_config, qconfig_mapping
from qexplore.engines.fx_names import Groups, check_reach
from qexplore.engines.fx_tables import layers_of as fx_layers
from qexplore.engines.simulate import QUANTIZE, weighted, without_quantizers
from qexplore.recipe import Recipe
from qexplore.workload import Batch


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor that will be quantized.

    Attributes:
        name, kind, layer: as in `QuantizedTensor`.
        rule: position in the recipe's rules of the one whose spec applies; None for the recipe's own.
        seen: names of the float tensors its observer sees in each batch, in order: pooling and reshaping share
            their input's.
        weight: the float weight, with BatchNorm folded in where fused.
        fixed: scale and zero_point of an operation whose kernel has a range of its own.
        at_run_time: the range is each batch's own.
    """

    name: str
    kind: str
    layer: str
    rule: int | None
    seen: tuple[str, ...] = ()
    weight: torch.Tensor | None = None
    fixed: tuple[torch.Tensor, torch.Tensor] | None = None
    at_run_time: bool = False


@dataclass(frozen=True)
class Plan:
    """The tensors and layers that a recipe quantizes, in the order the model computes them.

    Attributes:
        graph: the float model as it will be quantized, with BatchNorm folded in where fused; None in dynamic mode.
        reads: name of the quantized tensor that a node reads, by the names of the node and of the one that gives it.
        float_nodes: the node of the float model whose value a node of `graph` has, by name.
    """

    tensors: tuple[PlannedTensor, ...]
    layers: tuple[Layer, ...]
    graph: fx.GraphModule | None = None
    reads: dict[tuple[str, str], str] = field(default_factory=dict)
    float_nodes: dict[str, str] = field(default_factory=dict)


class _Marker(MinMaxObserver):
    """Remembers the rule that its layer's settings come from."""

    def __init__(self, rule: int | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.rule = rule


def structure(recipe: Recipe) -> tuple[object, ...]:
    """What of a recipe decides the plan: recipes with equal structures have the same plan."""
    return recipe.mode == "dynamic", recipe.fuse, tuple((rule.pattern, rule.keep_float) for rule in recipe.rules)


def plan_static(model: nn.Module, graph: FloatGraph, recipe: Recipe, example: Batch) -> Plan:
    """The plan for static mode, which is also that for the start of QAT.

    Args:
        model: the float model in eval mode; not modified.
        example: a batch of inputs.
    """
    with using(resolve_engine(recipe, model).name):
        backend = backend_config(recipe.fuse)
        mapping = qconfig_mapping(graph, replace(recipe, mode="static"), lambda rule: _marked(recipe, rule))
        prepared = prepare_fx(copy.deepcopy(model), mapping, positional(model, example), backend_config=backend)
        groups = Groups.of(graph, prepared)
        check_reach(recipe, groups)
        reference = convert_to_reference_fx(copy.deepcopy(prepared), backend_config=backend)
    quantized = {node.args[0].name for node in reference.graph.nodes if node.target in QUANTIZE}
    tensors = [
        _activation(groups, first, observer)
        for first, observer in groups.own_observers().items()
        if groups.lasts[first] in quantized
    ]
    for path in dict.fromkeys(str(n.target) for n in reference.graph.nodes if n.op == "call_module"):
        layer = weighted(reference.get_submodule(path))
        if layer is not None and recipe.specs_for(path) is not None:
            weight = layer.weight.detach().clone()
            tensors.append(PlannedTensor(path, "weight", path, recipe.rule_index(path), weight=weight))
    layers = fx_layers(groups, [(t.kind, t.layer) for t in tensors], recipe)[0]
    reads = _reads(groups, reference)
    without_quantizers(reference)
    float_nodes = {last: groups.ends[first] for first, last in groups.lasts.items()}
    return Plan(tuple(tensors), tuple(layers), reference, reads, float_nodes)


def _reads(groups: Groups, reference: fx.GraphModule) -> dict[tuple[str, str], str]:
    named = {id(observer): groups.output(first) for first, observer in groups.own_observers().items()}
    return {
        (reader.name, node.args[0].name): named[own]
        for node in reference.graph.nodes
        if node.target in QUANTIZE
        if (own := id(groups.observers[node.args[0].name])) in named  # parameters and parts of tuples have no row
        for user in node.users
        for reader in user.users
    }


def _marked(recipe: Recipe, rule: int | None) -> QConfig | None:
    if recipe.specs_at(rule) is None:
        return None
    weight = MinMaxObserver.with_args(dtype=torch.qint8, qscheme=torch.per_tensor_symmetric)
    return QConfig(_Marker.with_args(rule=rule), weight)


def _activation(groups: Groups, first: str, observer: Any) -> PlannedTensor:
    seen = tuple(groups.output(f) for f, last in groups.lasts.items() if groups.observers.get(last) is observer)
    fixed = (observer.scale, observer.zero_point) if isinstance(observer, FixedQParamsObserver) else None
    rule = getattr(observer, "rule", None)
    return PlannedTensor(groups.output(first), "activation", groups.name(first), rule, seen, fixed=fixed)


def plan_dynamic(model: nn.Module, recipe: Recipe, calibration: Calibration) -> Plan:
    """The plan for dynamic mode."""
    tensors: list[PlannedTensor] = []
    chosen = dynamic_layers(model, recipe)
    for layer in chosen:
        read = calibration.inputs.get(layer)
        if read in calibration.stats and read not in [t.name for t in tensors if t.kind == "activation"]:
            assert read is not None
            tensors.append(PlannedTensor(read, "activation", layer, None, (read,), at_run_time=True))
        rule = recipe.rule_index(layer)
        for name, weight in layer_weights(layer, model.get_submodule(layer)).items():
            tensors.append(PlannedTensor(name, "weight", layer, rule, weight=weight.detach().clone()))
    return Plan(tuple(tensors), tuple(layers_of(model, chosen)))
