"""Which float operations became one in a prepared graph, and what they are called in the float model."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from qexplore.calibrate.graph import FloatGraph
from qexplore.errors import QexploreError
from qexplore.recipe import Recipe

SUMS = (operator.add, operator.iadd, torch.add, operator.mul, operator.imul, torch.mul)
RELUS = (F.relu, F.relu_, torch.relu, torch.relu_)


@dataclass(frozen=True)
class Groups:
    """The groups of operations that are quantized as one; an operation that is on its own is a group of one.

    A group has the name of its first operation, and gives the tensor of its last one.

    Attributes:
        graph: the float model.
        prepared: the same graph with observers, where a fused Conv, BatchNorm and ReLU have become the Conv.
        ends: name of the last float node of each group, by the name of its first.
        lasts: name of the prepared node that gives the group's tensor, by the name of its first.
        observers: the observer of each observed tensor, by the name of the prepared node that gives it; the last one,
            where a tensor is read with unlike settings.
        every_observer: all of them, by that name.
    """

    graph: FloatGraph
    prepared: fx.GraphModule
    ends: dict[str, str]
    lasts: dict[str, str]
    observers: dict[str, Any]
    every_observer: dict[str, list[Any]]

    @classmethod
    def of(cls, graph: FloatGraph, prepared: fx.GraphModule) -> Groups:
        """Compare the float graph with the prepared one."""
        every: dict[str, list[Any]] = {}
        for node in prepared.graph.nodes:
            module = prepared.get_submodule(str(node.target)) if node.op == "call_module" else None
            if module is not None and hasattr(module, "calculate_qparams") and hasattr(module, "quant_min"):
                every.setdefault(node.args[0].name, []).append(module)
        observers = {name: found[-1] for name, found in every.items()}
        kept = {node.name for node in prepared.graph.nodes}
        ends, lasts = {}, {}
        within: set[str] = set()
        for node in graph.module.graph.nodes:
            if node.name not in kept or node.name in within or node.op == "output":
                continue
            end = last = node
            while len(end.users) == 1:
                user = next(iter(end.users))
                unseen = last.name not in observers and _is_relu(graph.module, user)
                # A Linear with its BatchNorm folded in meets the ReLU only when it is lowered to int8.
                folded = last is node and end is not node and user.name in kept and user.name in observers
                joined = unseen and (end.target in SUMS or folded)
                if user.name in kept and not joined:
                    break
                if joined:
                    last = user
                end = user
                within.add(user.name)
            if end.name in graph.names:
                ends[node.name], lasts[node.name] = end.name, last.name
        return cls(graph, prepared, ends, lasts, observers, every)

    def name(self, first: str) -> str:
        """The float model's name of the group that starts at node `first`."""
        return self.graph.names[first]

    def output(self, first: str) -> str:
        """The float model's name of the tensor that the group gives."""
        return self.graph.names[self.ends[first]]

    def members(self, first: str) -> list[fx.Node]:
        """The float operations of the group, in order."""
        nodes = [next(node for node in self.graph.module.graph.nodes if node.name == first)]
        while nodes[-1].name != self.ends[first]:
            nodes.append(next(iter(nodes[-1].users)))
        return nodes

    def kind(self, first: str) -> str:
        """The operations of the group, such as "Conv2d + BatchNorm2d + ReLU"."""
        return " + ".join(self._operation(node) for node in self.members(first))

    def observed(self) -> list[str]:
        """Names of the observed tensors of the float model, in the order it computes them."""
        return [self.output(first) for first, last in self.lasts.items() if last in self.observers]

    def own_observers(self) -> dict[str, Any]:
        """The observers by first node, without those shared with an earlier tensor, as pooling and reshaping do."""
        found: dict[int, str] = {}
        for first, last in self.lasts.items():
            if last in self.observers:
                found.setdefault(id(self.observers[last]), first)
        return {first: self.observers[self.lasts[first]] for first in found.values()}

    def _operation(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return type(self.graph.module.get_submodule(str(node.target))).__name__
        return str(node.target if isinstance(node.target, str) else getattr(node.target, "__name__", node.target))


def _is_relu(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return isinstance(module.get_submodule(str(node.target)), nn.ReLU)
    return node.target in RELUS


def check_reach(recipe: Recipe, groups: Groups) -> None:
    """Refuse a rule that names only a later part of a fused layer, which is quantized as its first part is.

    Raises:
        QexploreError: naming the layer that the rule should name.
    """
    for rule in recipe.rules:
        missed = None
        for first in groups.ends:
            if rule.matches(groups.name(first)):
                break
            names = [groups.graph.names[node.name] for node in groups.members(first)]
            missed = first if any(rule.matches(name) for name in names) else missed
        else:
            if missed is not None:
                raise QexploreError(
                    f"Rule {rule.pattern!r} names a part of layer {groups.name(missed)!r}, where "
                    f"{groups.kind(missed)} are one operation; name that layer, or switch fusion off."
                )
