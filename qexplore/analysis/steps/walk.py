"""A model run one operation after the other, all batches at a time, so that it can be changed on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from qexplore.batches import positional
from qexplore.progress import Cancel, stop_if
from qexplore.workload import Batch

RunNode = Callable[[fx.Node, Callable[[fx.Node], Any]], Any]


@dataclass(frozen=True)
class Place:
    """An operation whose turn it is.

    Attributes:
        node: the operation.
        values: for each batch, by node name, what is still needed of what the operations before gave.
        run_node: `run_node(node, value)` runs an operation, `value(source)` being what another one gave.
    """

    node: fx.Node
    values: list[dict[str, Any]]
    run_node: RunNode

    def run(self) -> None:
        """Run the operation on every batch; may be done again after a change to it."""
        for values in self.values:
            values[self.node.name] = self.run_node(self.node, _reader(values))

    def reads(self) -> list[torch.Tensor]:
        """What a module reads, for each batch."""
        return [values[self.node.all_input_nodes[0].name] for values in self.values]


def walk(graph: fx.GraphModule, run_node: RunNode, batches: Sequence[Batch], cancel: Cancel) -> Iterator[Place]:
    """Each operation of a graph in turn; it has to be run before the next one is asked for.

    The tensors of all batches are in memory together, though not those of all operations.
    """
    nodes = list(graph.graph.nodes)
    inputs = [node for node in nodes if node.op == "placeholder"]
    last = {source: node for node in nodes for source in node.all_input_nodes}
    values: list[dict[str, Any]] = []
    for batch in batches:
        given = iter(positional(graph, batch))
        values.append({node.name: next(given, node.args[0] if node.args else None) for node in inputs})
    for node in nodes:
        stop_if(cancel)
        if node.op in ("placeholder", "output"):
            continue
        yield Place(node, values, run_node)
        for source in node.all_input_nodes:
            for kept in values if last[source] is node else ():
                kept.pop(source.name, None)


def as_traced(graph: fx.GraphModule) -> RunNode:
    """Runs the operations of a graph as they are."""
    interpreter = fx.Interpreter(graph, garbage_collect_values=False)

    def run_node(node: fx.Node, value: Callable[[fx.Node], Any]) -> Any:
        args, kwargs = fx.node.map_arg(node.args, value), fx.node.map_arg(node.kwargs, value)
        return getattr(interpreter, node.op)(node.target, args, kwargs)

    return run_node


def _reader(values: dict[str, Any]) -> Callable[[fx.Node], Any]:
    return lambda source: values[source.name]
