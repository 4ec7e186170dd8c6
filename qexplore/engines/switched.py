"""The quantized model in float arithmetic with a switch at every quantizer: one layer alone, all, or all but one."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from qexplore.calibrate.graph import FloatGraph
from qexplore.engines.conversion import QuantizedTensor
from qexplore.engines.dynamic_simulated import stand_in
from qexplore.engines.plan import Plan
from qexplore.engines.simulate import QuantDequant, quantized_weight, weighted

FLOAT, CLIPPED, QUANTIZED = range(3)
OUTPUT = ""  # stands for the output node of any graph, whose own name differs where a layer is called "output"
IN_PLACE = (operator.iadd, operator.isub, operator.imul, torch.relu_, nn.functional.relu_)
Value = Callable[[fx.Node], Any]
MakeModule = Callable[[int, int], nn.Module]


@dataclass(frozen=True, eq=False)
class Switched:
    """A float graph and the quantizers in it.

    Attributes:
        graph: the float model as it is quantized, BatchNorm folded in where fused; its weights are set as it runs.
        float_nodes: the node of the float model whose value a node of `graph` has; left out where it has its name.
        layer_of: the layer whose error a node's quantizers make, by name of the node: the layer that reads, or, for
            operations that are no quantized layer, the one they read from.
        reads: the tensor that a node reads quantized, by the names of the node and of the one that gives it.
        modules: for each node with a quantized weight, gives its module for an amount of reads and one of weights.
        clips: the layers some of whose weights are clipped.
        nodes: by name; `output` is the name of the one that gives the model's output.
    """

    graph: fx.GraphModule
    float_nodes: Mapping[str, str]
    layer_of: Mapping[str, str]
    reads: Mapping[tuple[str, str], QuantizedTensor]
    modules: Mapping[str, MakeModule]
    clips: Collection[str]
    nodes: dict[str, fx.Node] = field(init=False, repr=False)
    output: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "nodes", {node.name: node for node in self.graph.graph.nodes})
        object.__setattr__(self, "output", next(node.name for node in self.graph.graph.nodes if node.op == "output"))

    def float_node(self, name: str) -> str:
        """The node of the float model whose value a node has; OUTPUT for what the model gives."""
        return OUTPUT if name == self.output else self.float_nodes.get(name, name)

    def run_node(self, node: fx.Node, value: Value, reads: int = QUANTIZED, weights: int = QUANTIZED) -> Any:
        """What a node gives.

        Args:
            value: gives the value of each node it reads.
            reads, weights: FLOAT, CLIPPED (values that the codes do not reach are moved to them) or QUANTIZED.
        """

        def argument(source: fx.Node) -> Any:
            x, t = value(source), self.reads.get((node.name, source.name))
            return x if t is None or reads == FLOAT else _at(t, x, reads)

        args = fx.node.map_arg(node.args, argument)
        kwargs = fx.node.map_arg(node.kwargs, argument)
        if node.op == "call_module":
            make = self.modules.get(node.name)
            module = make(reads, weights) if make else self.graph.get_submodule(str(node.target))
            return module(*args, **kwargs)
        return run_function(self.graph, node, args, kwargs)

    def run(self, values: dict[str, Any], layers: Collection[str], start: Collection[str] | None = None) -> Any:
        """Run the graph with the quantizers of some layers switched on, and return its output.

        Args:
            values: of the placeholders, and of all that need not be run; the others are added to it by node name.
            start: only these nodes and what depends on them are run; None for all that `values` lacks.
        """
        again = None if start is None else self.depending(start)
        for node in self.graph.graph.nodes:
            if node.op == "output":
                on = QUANTIZED if self.layer_of[node.name] in layers else FLOAT
                return self.run_node(node, lambda source: values[source.name], on, on)
            if node.name not in values if again is None else node.name in again:
                on = QUANTIZED if self.layer_of.get(node.name) in layers else FLOAT
                values[node.name] = self.run_node(node, lambda source: values[source.name], on, on)
        raise AssertionError("a graph ends with its output")

    def depending(self, start: Collection[str]) -> set[str]:
        """The nodes named and all that depend on them."""
        found = set(start)
        for node in self.graph.graph.nodes:
            if any(source.name in found for source in node.all_input_nodes):
                found.add(node.name)
        return found

    def quantized_nodes(self) -> dict[str, list[str]]:
        """By layer, the nodes with a quantized weight or a quantized read, in order; the output node included."""
        found: dict[str, list[str]] = {}
        reading = {reader for reader, _ in self.reads}
        for name in self.nodes:
            if name in reading or name in self.modules:
                found.setdefault(self.layer_of[name], []).append(name)
        return found


def run_function(graph: fx.GraphModule, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a node other than a module's gives; what it would change in place is copied first."""
    name = node.target if isinstance(node.target, str) else ""
    changes = node.target in IN_PLACE or (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace")
    if changes and node.op in ("call_function", "call_method") and isinstance(args[0], torch.Tensor):
        args = (args[0].clone(), *args[1:])
    target: Any = node.target
    if node.op == "call_function":
        return target(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], target)(*args[1:], **kwargs)
    return operator.attrgetter(target)(graph) if node.op == "get_attr" else args[0]  # else it is the output


def switched(graph: FloatGraph, plan: Plan, tensors: Mapping[tuple[str, str], QuantizedTensor]) -> Switched:
    """The switched model of a plan.

    Args:
        graph: the float model's trace.
        tensors: the quantized tensors by (kind, name), such as `Prediction.quantized`.
    """
    weights: dict[str, list[QuantizedTensor]] = {}
    for t in tensors.values():
        if t.kind == "weight":
            weights.setdefault(t.layer, []).append(t)
    module = copy.deepcopy(graph.module if plan.graph is None else plan.graph)
    part: Any
    for part in module.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    reads = {pair: tensors["activation", name] for pair, name in plan.reads.items()}
    modules = {}
    for node in module.graph.nodes:
        if node.op == "call_module" and str(node.target) in weights:
            own, part = weights[str(node.target)], module.get_submodule(str(node.target))
            modules[node.name] = _static(part, own[0]) if plan.graph is not None else _dynamic(part, own, tensors)
    quantized = {layer.name for layer in plan.layers if layer.quantized}
    clips = {t.layer for own in weights.values() for t in own if t.weight is not None and t.clipped(t.weight)}
    return Switched(module, plan.float_nodes, _owners(module, graph, quantized), reads, modules, clips)


def _owners(module: fx.GraphModule, graph: FloatGraph, quantized: Collection[str]) -> dict[str, str]:
    owners: dict[str, str] = {}
    for node in module.graph.nodes:
        name = graph.names.get(node.name, "")
        if name in quantized:
            owners[node.name] = name
        else:
            sources = (owners[source.name] for source in node.all_input_nodes if source.name in owners)
            owner = next(sources, None)
            if owner is not None:
                owners[node.name] = owner
    for node in reversed(module.graph.nodes):  # what comes before the first layer belongs to it
        users = (owners[user.name] for user in node.users if user.name in owners)
        owners.setdefault(node.name, next(users, ""))
    return owners


def _static(module: nn.Module, t: QuantizedTensor) -> MakeModule:
    assert t.weight is not None
    layer, made = weighted(module), {FLOAT: nn.Parameter(t.weight, False)}

    def make(reads: int, weights: int) -> nn.Module:
        if weights not in made:
            assert t.weight is not None
            value = quantized_weight(t) if weights == QUANTIZED else _clipped(t, t.weight, quantized_weight(t))
            made[weights] = nn.Parameter(value, False)
        layer.weight = made[weights]
        return module

    return make


def _dynamic(
    module: nn.Module, own: list[QuantizedTensor], tensors: Mapping[tuple[str, str], QuantizedTensor]
) -> MakeModule:
    made: dict[tuple[bool, int], nn.Module] = {}
    quant_max = max(t.quant_max for t in tensors.values() if t.at_run_time)

    def make(reads: int, weights: int) -> nn.Module:
        key = (reads == QUANTIZED, weights)  # at run time nothing is clipped
        if key not in made:
            part = copy.deepcopy(module)
            for t in own if weights != FLOAT else ():
                assert t.weight is not None
                whole = t.fake_quantize(t.weight)
                value = whole if weights == QUANTIZED else _clipped(t, t.weight, whole)
                parameter = t.name.removeprefix(f"{t.layer}.") if t.name != t.layer else "weight"
                setattr(part, parameter, nn.Parameter(value, False))
            made[key] = stand_in(part, quant_max) if reads == QUANTIZED else part
        return made[key]

    return make


def _at(t: QuantizedTensor, x: torch.Tensor, amount: int) -> torch.Tensor:
    quantized = QuantDequant(t.scale, t.zero_point, t.quant_min, t.quant_max, torch.quint8, t.axis)(x)
    return quantized if amount == QUANTIZED else _clipped(t, x, quantized)


def _clipped(t: QuantizedTensor, x: torch.Tensor, quantized: torch.Tensor) -> torch.Tensor:
    """`x` with the values that `QuantizedTensor.clipped` counts as they are quantized."""
    return torch.where(t.outside(x), quantized, x)
