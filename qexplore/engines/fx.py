"""Static quantization and QAT through torch.ao's FX graph mode: real int8 kernels, no edits of the model.

Source: PyTorch's "FX Graph Mode Quantization" documentation; unfused mode keeps only those entries of the native
backend configuration that fuse nothing.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import fx, nn
from torch.ao.quantization import FakeQuantize, QConfig, QConfigMapping
from torch.ao.quantization.backend_config import BackendConfig, get_native_backend_config
from torch.ao.quantization.quantize_fx import convert_fx, convert_to_reference_fx, prepare_fx, prepare_qat_fx

from qexplore.batches import positional
from qexplore.calibrate.graph import FloatGraph, scope, trace
from qexplore.engines.conversion import Conversion
from qexplore.engines.engine import Engine, resolve_engine, using
from qexplore.engines.fx_names import Groups
from qexplore.engines.fx_tables import (
    activations,
    float_probe,
    int8_places,
    layers_of,
    node_probe,
    scale_attributes,
    weights,
)
from qexplore.engines.observers import fixed_qconfigs, torch_observer
from qexplore.engines.simulate import simulate
from qexplore.recipe import Recipe, TensorSpec
from qexplore.workload import Batch


@dataclass(frozen=True)
class Prepared:
    """A model with observers in it, to run calibration or training through.

    Attributes:
        module: the prepared model; run data through it, then hand this to `convert`.
        groups: which operations of the float model are one, and their names.
        recipe, engine, guard: what it was prepared for.
    """

    module: fx.GraphModule
    groups: Groups
    recipe: Recipe
    engine: Engine
    guard: str


def prepare(
    model: nn.Module, graph: FloatGraph, recipe: Recipe, engine: Engine, guard: str, example: Batch
) -> Prepared:
    """Put observers (static) or fake-quantize modules (QAT) into a copy of `model`.

    Args:
        model: the float model; not modified.
        graph: its trace.
        guard: the overflow guard in force.
        example: a batch of inputs.
    """
    inserting = prepare_qat_fx if recipe.mode == "qat" else prepare_fx
    with using(engine.name):
        module = inserting(
            copy.deepcopy(model).train(recipe.mode == "qat"),
            qconfig_mapping(graph, recipe, lambda rule: _qconfig(recipe, rule, guard)),
            positional(model, example),
            backend_config=backend_config(recipe.fuse),
        )
    groups = Groups.of(graph, module)
    _name_observers(groups, module)
    return Prepared(module, groups, recipe, engine, guard)


def convert(prepared: Prepared) -> Conversion:
    """The int8 model and its simulation, from a calibrated or trained `Prepared` (left as it is)."""
    recipe, groups, backend = prepared.recipe, prepared.groups, backend_config(prepared.recipe.fuse)
    source = copy.deepcopy(prepared.module).eval()
    with using(prepared.engine.name):
        reference = convert_to_reference_fx(copy.deepcopy(source), backend_config=backend)
        int8 = convert_fx(source, backend_config=backend) if recipe.bits == 8 else None
    tensors = activations(groups, reference, prepared.guard) + weights(groups, reference, recipe, prepared.guard)
    layers, nodes = layers_of(groups, [(t.kind, t.layer) for t in tensors], recipe)
    attributes = scale_attributes(reference)
    quantized_at = simulate(reference, groups.every_observer, tensors)
    probes = {
        "float": float_probe(groups, layers, tensors),
        "simulated": node_probe(reference, {name: quantized_at.get(node, node) for name, node in nodes.items()}),
    }
    if int8 is not None:
        places = int8_places(int8, attributes)
        # Lowering may put a group's last operation into its first one.
        places |= {
            last: places[first] for first, last in groups.lasts.items() if last not in places and first in places
        }
        probes["int8"] = node_probe(int8, {name: places[node] for name, node in nodes.items() if node in places})
    return Conversion(int8, reference, tuple(tensors), tuple(layers), probes, prepared.engine.name)


def warm_up() -> None:
    """Prepare and convert a tiny model once: the first time, torch imports for two seconds what it needs."""
    recipe = Recipe(activation=TensorSpec())
    model = nn.Sequential(nn.Linear(1, 1)).eval()
    prepared = prepare(model, trace(model), recipe, resolve_engine(recipe), "none", torch.zeros(1, 1))
    prepared.module(torch.zeros(1, 1))
    convert(prepared)


@cache
def backend_config(fuse: bool) -> BackendConfig:
    """torch.ao's native backend configuration, whole or without its fusions."""
    native = get_native_backend_config()
    if fuse:
        return native
    plain = [c for c in native.configs if c.fuser_method is None and c.fused_module is None]
    return BackendConfig("unfused").set_backend_pattern_configs(plain)


def qconfig_mapping(
    graph: FloatGraph, recipe: Recipe, qconfig: Callable[[int | None], QConfig | None]
) -> QConfigMapping:
    """The recipe in torch.ao's terms: one global qconfig, and one for each layer that a rule matches.

    Args:
        qconfig: gives the qconfig for a rule by its position, and the global one for None.
    """
    mapping = QConfigMapping().set_global(qconfig(None))
    for operations, fixed in fixed_qconfigs(recipe.mode == "qat"):
        for operation in operations:
            mapping.set_object_type(operation, fixed)
    calls: dict[tuple[str, object], int] = defaultdict(int)
    for node in graph.module.graph.nodes:
        call = (scope(node), node.target)
        position, calls[call] = calls[call], calls[call] + 1
        name = graph.names.get(node.name)
        rule = None if name is None else recipe.rule_index(name)
        if rule is None:
            continue
        if node.op == "call_module":
            mapping.set_module_name(str(node.target), qconfig(rule))
        elif node.op == "call_function":
            mapping.set_module_name_object_type_order(scope(node), node.target, position, qconfig(rule))
    return mapping


def _qconfig(recipe: Recipe, rule: int | None, guard: str) -> QConfig | None:
    specs = recipe.specs_at(rule)
    if specs is None:
        return None
    made = []
    for kind, spec in zip(("activation", "weight"), specs, strict=True):
        observer, arguments = torch_observer(spec, kind, guard)
        if recipe.mode == "qat":
            made.append(FakeQuantize.with_args(observer=observer, **arguments))
        else:
            made.append(observer.with_args(**arguments))
    return QConfig(*made)


def _name_observers(groups: Groups, prepared: fx.GraphModule) -> None:
    """Tell our own observers which tensor they see, for their messages; a layer's weight has the layer's name."""
    for first, observer in groups.own_observers().items():
        _inner(observer).tensor = groups.output(first)
    for path, module in prepared.named_modules():
        if hasattr(module, "weight_fake_quant"):
            _inner(module.weight_fake_quant).tensor = path
        elif getattr(module, "qconfig", None) is not None:
            activation, weight = module.qconfig
            module.qconfig = QConfig(activation, partial(_named, weight, path))


def _inner(observer: nn.Module) -> Any:
    return getattr(observer, "activation_post_process", observer)


def _named(make: Callable[[], Any], tensor: str) -> Any:
    made = make()
    made.tensor = tensor
    return made
