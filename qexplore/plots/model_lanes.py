"""A model as a graph of its layers, and a place for each: a row per node, and lanes for what runs in parallel."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import networkx as nx

from qexplore.analysis.ledger import Ledger


class Node(NamedTuple):
    """A layer, an input of the model, a float operation that joins several tensors, or the output.

    Attributes:
        kind: "layer", "input", "join" or "output"; names alone might coincide.
        name: as in the ledger or the graph's tensor names.
    """

    kind: str
    name: str


OUTPUT = Node("output", "output")


def layer_graph(ledger: Ledger) -> nx.DiGraph:
    """Which layer reads which, nodes in the model's order; operations that are no layers are passed through.

    Float operations that join the values of several nodes are nodes of their own: with them passed through, every
    layer behind a chain of residual sums would read every layer before it.
    """
    traced = ledger.prediction.graph
    assert traced is not None, "a ledger needs a traced model"
    owners = _owners(ledger)
    graph: nx.DiGraph = nx.DiGraph()
    gives: dict[str, Node | None] = {}
    for node in traced.module.graph.nodes:
        read = {gives[each.name]: None for each in node.all_input_nodes if gives[each.name] is not None}
        own: Node | None
        if node.op == "placeholder":
            own = Node("input", traced.names[node.name])
        elif node.op == "output":
            own = OUTPUT
        elif node.name in owners:
            own = Node("layer", owners[node.name])
        elif len(read) > 1:
            own = Node("join", traced.names.get(node.name, node.name))
        else:
            gives[node.name] = next(iter(read), None)
            continue
        gives[node.name] = own
        graph.add_node(own)
        graph.add_edges_from((source, own) for source in read if source != own)
    graph.add_nodes_from(Node("layer", str(name)) for name in ledger.layers.index)  # such as layers that are never run
    unread = [node for node in graph if node.kind == "join" and not graph.out_degree(node)]
    graph.remove_nodes_from(unread)
    return graph


def _owners(ledger: Ledger) -> dict[str, str]:
    """The layer that each node of the float graph belongs to: all from its first operation to the one that gives."""
    traced = ledger.prediction.graph
    assert traced is not None
    nodes = {node.name: node for node in traced.module.graph.nodes}
    owners: dict[str, str] = {}
    lasts = {layer.name: layer.output for layer in ledger.prediction.plan.layers}
    named = {tensor: name for name, tensor in traced.names.items()}
    modules: dict[str, list[str]] = {}
    for node in traced.module.graph.nodes:
        if node.op == "call_module":
            modules.setdefault(str(node.target), []).append(node.name)
    for layer in map(str, ledger.layers.index):
        for use in modules.get(layer, []) + ([named[layer]] if layer in named else []):
            owners.setdefault(use, layer)
        last = named.get(lasts.get(layer, ""), "")
        behind, now = [last] if last else [], nodes.get(last)
        # a fused layer is a chain back from what it gives: BatchNorm and ReLU have one input
        while now is not None and owners.get(now.name) != layer and now.all_input_nodes:
            now = now.all_input_nodes[0]
            behind.append(now.name)
        if now is not None and owners.get(now.name) == layer:
            owners |= dict.fromkeys(behind, layer)
    return owners


def lanes(graph: nx.DiGraph) -> tuple[dict[Node, tuple[int, int]], dict[tuple[Node, Node], int]]:
    """The row and lane of each node, and the lane that each edge runs along.

    The longest path takes lane 0. What is left falls into paths beside it; those whose rows overlap get lanes of their
    own, the shorter ones nearer to the middle, so that nested branches do not cross.
    """
    rows = {node: row for row, node in enumerate(graph)}
    forward = nx.DiGraph()
    forward.add_nodes_from(graph)
    # a layer that is used twice may be read by one before it; such edges have no say in the layout
    forward.add_edges_from(edge for edge in graph.edges if rows[edge[0]] < rows[edge[1]])
    main = nx.dag_longest_path(forward) if len(forward) else []
    node_lane: dict[Node, int] = dict.fromkeys(main, 0)
    edge_lane = dict.fromkeys(pairwise(main), 0)
    paths = _paths_beside(graph, forward, set(node_lane), set(edge_lane))
    lane_of = _colours([(rows[path[0]], rows[path[-1]]) for path in paths])
    for path, lane in zip(paths, lane_of, strict=True):
        for node in path:
            node_lane.setdefault(node, lane)
        edge_lane |= dict.fromkeys(pairwise(path), lane)
    for node in graph:
        node_lane.setdefault(node, 0)
    return {node: (rows[node], node_lane[node]) for node in graph}, edge_lane


def _paths_beside(
    graph: nx.DiGraph, forward: nx.DiGraph, placed: set[Node], done: set[tuple[Node, Node]]
) -> list[list[Node]]:
    """All edges that are not done yet, as paths that go on while they meet nodes without a place."""
    paths = []
    for edge in graph.edges:
        if edge in done:
            continue
        path = list(edge)
        done.add(edge)
        while path[-1] not in placed:
            placed.add(path[-1])
            step = next(((path[-1], reader) for reader in forward.successors(path[-1])), None)
            if step is None or step in done:
                break
            done.add(step)
            path.append(step[1])
        paths.append(path)
    return paths


def _colours(spans: list[tuple[int, int]]) -> list[int]:
    """A lane from 1 on for each span of rows; spans that overlap have different ones, short ones the lower."""
    ordered = [(min(span), max(span)) for span in spans]
    meets: nx.Graph = nx.Graph()
    meets.add_nodes_from(sorted(range(len(spans)), key=lambda i: ordered[i][1] - ordered[i][0]))
    for i, (top, bottom) in enumerate(ordered):
        meets.add_edges_from((i, j) for j in range(i) if top < ordered[j][1] and ordered[j][0] < bottom)
    found = nx.greedy_color(meets, strategy=lambda graph, _: list(graph))
    return [1 + found[i] for i in range(len(spans))]
