"""Pairs of neighbouring layers between which a channel's scale can be moved without a change of the function.

Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional as F

from qexplore.analysis.steps.layers import WeightedLayer, norm_of, weighted_layers
from qexplore.calibrate.derive import DROPOUTS
from qexplore.calibrate.graph import FloatGraph
from qexplore.engines.fx_names import RELUS
from qexplore.recipe import Recipe

# Positively homogeneous, f(s x) = s f(x) for s > 0, value by value ...
BY_VALUE = (nn.ReLU, nn.LeakyReLU, nn.Identity, *DROPOUTS)
BY_VALUE_FUNCTIONS = (*RELUS, F.leaky_relu, F.dropout, "relu", "relu_")
# ... and over the places of a channel.
BY_CHANNEL = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
BY_CHANNEL_FUNCTIONS = (
    *(F.max_pool1d, F.max_pool2d, F.max_pool3d, torch.max_pool1d, torch.max_pool2d, torch.max_pool3d),
    *(F.avg_pool1d, F.avg_pool2d, F.avg_pool3d),
    *(F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d),
)


@dataclass(frozen=True)
class Pair:
    """Two layers, of which the second alone reads what the first gives.

    Attributes:
        first, second: the layers.
        places: how many of the second's inputs come from each channel of the first (more than one behind a Flatten).
    """

    first: WeightedLayer
    second: WeightedLayer
    places: int


def found_pairs(graph: FloatGraph, recipe: Recipe) -> list[Pair]:
    """The pairs in the order the model computes them; depthwise layers are the second of one and the first of another.

    Layers that share parameters with others are left out.
    """
    root, layers = graph.module, {layer.node: layer for layer in weighted_layers(graph, recipe)}
    shared = _shared_parameters(root)
    pairs = []
    for layer in layers.values():
        reader, flattened = _behind(root, layer)
        second = layers.get(reader) if reader is not None else None
        if second is None or _touches(root, layer, shared) or _touches(root, second, shared):
            continue
        places = _places(root.get_submodule(layer.name), root.get_submodule(second.name), flattened)
        if places and (layer.norm is None or norm_of(root, layer.norm).affine):
            pairs.append(Pair(layer, second, places))
    return pairs


def _behind(root: nn.Module, layer: WeightedLayer) -> tuple[fx.Node | None, bool]:
    """The first operation behind a layer that is not homogeneous, and whether a Flatten is before it."""
    by_channel = not isinstance(root.get_submodule(layer.name), nn.Linear)
    node, flattened, norm = layer.node, False, layer.norm
    while len(node.users) == 1:
        node = next(iter(node.users))
        module = root.get_submodule(str(node.target)) if node.op == "call_module" else None
        if norm is not None:
            norm = None  # the first operation behind the layer, folded into it
        elif by_channel and not flattened and _flattens(node, module):
            flattened = True
        elif not _passes(node, module, by_channel and not flattened):
            return node, flattened
    return None, flattened


def _passes(node: fx.Node, module: nn.Module | None, by_channel: bool) -> bool:
    if module is not None:
        return type(module) in BY_VALUE or (by_channel and type(module) in BY_CHANNEL)
    functions = BY_VALUE_FUNCTIONS + (BY_CHANNEL_FUNCTIONS if by_channel else ())
    return node.op in ("call_function", "call_method") and node.target in functions


def _flattens(node: fx.Node, module: nn.Module | None) -> bool:
    """Whether a node makes [N, C, ...] into [N, C * places]."""
    if module is not None:
        return type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
    flatten = node.target is torch.flatten or (node.op == "call_method" and node.target == "flatten")
    return flatten and (node.args[1:] == (1,) or node.kwargs == {"start_dim": 1})


def _places(first: nn.Module, second: nn.Module, flattened: bool) -> int:
    """How many inputs of `second` belong to each channel of `first`; 0 where they do not match."""
    outputs = int(first.out_features if isinstance(first, nn.Linear) else first.out_channels)  # type: ignore[arg-type]
    inputs = int(second.in_features if isinstance(second, nn.Linear) else second.in_channels)  # type: ignore[arg-type]
    if isinstance(second, nn.Linear) and (isinstance(first, nn.Linear) or flattened):
        return inputs // outputs if inputs % outputs == 0 else 0
    fits = inputs == outputs and not (flattened or isinstance(first, nn.Linear) or isinstance(second, nn.Linear))
    return 1 if fits else 0


def _shared_parameters(root: nn.Module) -> set[int]:
    """Ids of the parameters that more than one module holds."""
    seen: dict[int, int] = {}
    for module in root.modules():
        for parameter in module.parameters(recurse=False):
            seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    return {key for key, count in seen.items() if count > 1}


def _touches(root: nn.Module, layer: WeightedLayer, parameters: set[int]) -> bool:
    names = [layer.name] + ([layer.norm] if layer.norm is not None else [])
    return any(id(p) in parameters for name in names for p in root.get_submodule(name).parameters())
