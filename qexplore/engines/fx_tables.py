"""Reads the rows of the result off prepared, reference and int8 graphs, under the float model's names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from torch import fx, nn

from qexplore.engines.conversion import Layer, Probe, QuantizedTensor
from qexplore.engines.fx_names import Groups
from qexplore.engines.observers import described, quant_range
from qexplore.engines.simulate import QUANTIZE, weighted
from qexplore.recipe import Recipe


def scale_attributes(reference: fx.GraphModule) -> dict[str, str]:
    """The attribute that holds a tensor's scale, by the name of the node that gives the tensor."""
    return {n.args[0].name: str(n.args[1].target) for n in reference.graph.nodes if n.target in QUANTIZE}


def activations(groups: Groups, reference: fx.GraphModule, guard: str) -> list[QuantizedTensor]:
    """A row for each activation with an observer of its own."""
    qparams = {n.args[0].name: n.args[1:3] for n in reference.graph.nodes if n.target in QUANTIZE}
    rows = []
    for node, observer in groups.own_observers().items():
        last = groups.lasts[node]
        if last not in qparams:
            continue
        scale, zero_point = (getattr(reference, str(n.target)).detach().reshape(-1) for n in qparams[last])
        bits, name = described(observer, guard)
        rows.append(
            QuantizedTensor(
                name=groups.output(node),
                kind="activation",
                layer=groups.name(node),
                scale=scale.clone(),
                zero_point=zero_point.clone(),
                quant_min=observer.quant_min,
                quant_max=observer.quant_max,
                bits=bits,
                axis=None,
                observer=name,
            )
        )
    return rows


def weights(groups: Groups, reference: fx.GraphModule, recipe: Recipe, guard: str) -> list[QuantizedTensor]:
    """A row for each quantized weight."""
    rows = []
    for path in dict.fromkeys(str(n.target) for n in reference.graph.nodes if n.op == "call_module"):
        layer = weighted(reference.get_submodule(path))
        specs = recipe.specs_for(path)
        if layer is None or specs is None:
            continue
        quant_min, quant_max = quant_range(specs[1], "weight", guard)
        rows.append(
            QuantizedTensor(
                name=path,
                kind="weight",
                layer=path,
                scale=layer.weight_scale.detach().reshape(-1).clone(),
                zero_point=layer.weight_zero_point.detach().reshape(-1).clone(),
                quant_min=quant_min,
                quant_max=quant_max,
                bits=specs[1].bits,
                axis=int(layer.weight_axis) if specs[1].per_channel else None,
                observer=specs[1].observer,
                weight=layer.weight.detach().clone(),
            )
        )
    return rows


def layers_of(
    groups: Groups, tensors: Collection[tuple[str, str]], recipe: Recipe
) -> tuple[list[Layer], dict[str, str]]:
    """The rows of the layer table in the model's order, and the prepared graph's node of each.

    Args:
        tensors: kind and layer of each quantized tensor.
    """
    gives = {layer for kind, layer in tensors if kind == "activation"}
    quantized = {layer for kind, layer in tensors if kind == "weight"}
    layers, nodes = [], {}
    for node in groups.prepared.graph.nodes:
        if node.name not in groups.ends or node.op == "placeholder":
            continue
        name = groups.name(node.name)
        has_weight = node.op == "call_module" and _has_weight(groups.graph.module.get_submodule(str(node.target)))
        if has_weight or name in gives:
            composite = node.op == "call_module" and any(groups.graph.module.get_submodule(str(node.target)).children())
            is_quantized = name in quantized if has_weight or composite else recipe.specs_for(name) is not None
            layers.append(Layer(name, groups.kind(node.name), groups.output(node.name), is_quantized))
            nodes[name] = groups.lasts[node.name]
    return layers, nodes


def int8_places(int8: fx.GraphModule, attributes: dict[str, str]) -> dict[str, str]:
    """The int8 node that gives each tensor, by the name of the node that gave it in the prepared graph.

    Lowering keeps a module's node but replaces a function's; its new node is the one that takes the scale.
    """
    places = {node.name: node.name for node in int8.graph.nodes if node.op == "call_module"}
    readers = {
        str(node.target): next(iter(node.users)).name
        for node in int8.graph.nodes
        if node.op == "get_attr" and node.users
    }
    return places | {node: readers[attribute] for node, attribute in attributes.items() if attribute in readers}


def float_probe(groups: Groups, layers: list[Layer], tensors: list[QuantizedTensor]) -> Probe:
    """Where the float model gives each layer's output and each quantized activation."""
    node_of = {name: node for node, name in groups.graph.names.items()}
    pairs = [(layer.name, node_of[layer.output]) for layer in layers]
    pairs += [(f"tensor:{t.name}", node_of[t.name]) for t in tensors if t.kind == "activation"]
    return _probe(groups.graph.module, pairs)


def node_probe(model: nn.Module, nodes: dict[str, str]) -> Probe:
    """Where `model` gives each layer's output: the graph node by layer name."""
    return _probe(model, nodes.items())


def _probe(model: nn.Module, pairs: Iterable[tuple[str, str]]) -> Probe:
    places: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, node in pairs:
        places[node] += (name,)
    return Probe(model, dict(places), by_node=True)


def _has_weight(module: nn.Module) -> bool:
    named = module.named_parameters(recurse=False)
    return any(name.startswith("weight") and weight.dim() > 1 for name, weight in named)
