"""Which float operations became one in a prepared graph, and what they are called in the float model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import fx

from qexplore.calibrate.graph import FloatGraph


@dataclass(frozen=True)
class Groups:
    """The groups of fused operations of a prepared model; an operation that is not fused is a group of one.

    Attributes:
        graph: the float model.
        prepared: the same graph with observers, where fused operations have become their first one.
        ends: name of the last float node of each group, by the name of its first, which both graphs have.
        observers: the observer of each observed tensor, by the name of the prepared node that gives it.
    """

    graph: FloatGraph
    prepared: fx.GraphModule
    ends: dict[str, str]
    observers: dict[str, Any]

    @classmethod
    def of(cls, graph: FloatGraph, prepared: fx.GraphModule) -> Groups:
        """Compare the float graph with the prepared one."""
        kept = {node.name for node in prepared.graph.nodes}
        ends = {}
        for node in graph.module.graph.nodes:
            if node.name not in kept or node.op == "output":
                continue
            end = node
            while len(end.users) == 1 and (user := next(iter(end.users))).name not in kept:
                end = user
            if end.name in graph.names:
                ends[node.name] = end.name
        observers = {}
        for node in prepared.graph.nodes:
            module = prepared.get_submodule(str(node.target)) if node.op == "call_module" else None
            if module is not None and hasattr(module, "calculate_qparams") and hasattr(module, "quant_min"):
                observers[node.args[0].name] = module
        return cls(graph, prepared, ends, observers)

    def name(self, node: str) -> str:
        """The float model's name of the group that starts at `node`: its first operation's."""
        return self.graph.names[node]

    def output(self, node: str) -> str:
        """The float model's name of the tensor that the group gives: its last operation's."""
        return self.graph.names[self.ends[node]]

    def kind(self, node: str) -> str:
        """The operations between the last quantization and the group's end, such as "Conv2d + BatchNorm2d + ReLU"."""
        current = next(n for n in self.graph.module.graph.nodes if n.name == node)
        kinds = [self._operation(current)]
        before = current.all_input_nodes[0]
        observed = {self.ends.get(name) for name in self.observers}
        while before.op != "placeholder" and before.name not in observed and len(before.users) == 1:
            kinds.insert(0, self._operation(before))
            before = before.all_input_nodes[0]
        while current.name != self.ends[node]:
            current = next(iter(current.users))
            kinds.append(self._operation(current))
        return " + ".join(kinds)

    def observed(self) -> list[str]:
        """Names of the observed tensors of the float model, in the order it computes them."""
        return [self.output(node) for node in self.observers if node in self.ends]

    def own_observers(self) -> dict[str, Any]:
        """The observers without those shared with an earlier tensor, as pooling and reshaping do."""
        first: dict[int, str] = {}
        for node, observer in self.observers.items():
            first.setdefault(id(observer), node)
        return {node: self.observers[node] for node in first.values() if node in self.ends}

    def _operation(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(self.graph.module.get_submodule(str(node.target))).__name__
        return str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target))
