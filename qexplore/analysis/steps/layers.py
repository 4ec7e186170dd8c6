"""The layers that preparation steps change: Conv and Linear with what stands right behind them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import fx, nn

from qexplore.calibrate.derive import NORMS
from qexplore.calibrate.graph import FloatGraph, UntraceableError, trace
from qexplore.engines.dynamic import dynamic_layers
from qexplore.engines.fx_names import RELUS
from qexplore.errors import QexploreError
from qexplore.recipe import Recipe

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class WeightedLayer:
    """A Conv or Linear that the model calls once.

    Attributes:
        name: its module path.
        node: its call in the graph.
        norm: path of the BatchNorm that alone reads its output, if there is one.
        relu: whether a ReLU alone reads what it (or its BatchNorm) gives.
    """

    name: str
    node: fx.Node
    norm: str | None
    relu: bool


def weighted_layers(graph: FloatGraph, recipe: Recipe) -> list[WeightedLayer]:
    """Those of the layers that the recipe quantizes, in the order the model computes them."""
    root = graph.module
    calls = Counter(str(node.target) for node in root.graph.nodes if node.op == "call_module")
    quantized = dynamic_layers(root, recipe) if recipe.mode == "dynamic" else None
    layers = []
    for node in root.graph.nodes:
        name = str(node.target)
        if node.op != "call_module" or calls[name] > 1 or type(root.get_submodule(name)) not in WEIGHTED:
            continue
        if recipe.specs_for(name) is None or (quantized is not None and name not in quantized):
            continue
        behind = _reader(node)
        norm = str(behind.target) if behind is not None and _folds(root, behind, calls) else None
        after = behind if norm is None or behind is None else _reader(behind)
        layers.append(WeightedLayer(name, node, norm, after is not None and _is_relu(root, after)))
    return layers


def traced(model: nn.Module, step: str) -> FloatGraph:
    """The model's graph, for a step that cannot do without.

    Raises:
        QexploreError: torch.fx cannot trace the model.
    """
    try:
        return trace(model)
    except UntraceableError as error:
        raise QexploreError(f"Step {step!r} needs a model that torch.fx can trace; leave the step out.") from error


def factor(model: nn.Module, layer: WeightedLayer) -> torch.Tensor:
    """What folding multiplies each output channel's weight by, [channels]: gamma / sqrt(var + eps); ones without norm.

    Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3.2.
    """
    if layer.norm is None:
        return torch.ones(len(weight_of(model, layer.name)))
    norm = norm_of(model, layer.norm)
    assert norm.running_var is not None
    root = torch.rsqrt(norm.running_var + norm.eps)
    return root if norm.weight is None else norm.weight.detach() * root


def weight_of(model: nn.Module, name: str) -> torch.Tensor:
    """The weight of layer `name` without its history."""
    weight = model.get_submodule(name).weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach()


def norm_of(model: nn.Module, name: str) -> nn.BatchNorm2d:
    """The BatchNorm `name` (of any dimension; they differ in what they read only)."""
    norm = model.get_submodule(name)
    assert isinstance(norm, NORMS)
    return norm  # type: ignore[return-value]


def by_row(channels: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A value for each output channel, shaped to multiply a weight [channels, ...]."""
    return channels.reshape(-1, *[1] * (weight.dim() - 1))


def _reader(node: fx.Node) -> fx.Node | None:
    """The one operation that reads a node's tensor; None where there are several."""
    return next(iter(node.users)) if len(node.users) == 1 else None


def _folds(root: nn.Module, node: fx.Node, calls: Counter[str]) -> bool:
    if node.op != "call_module" or calls[str(node.target)] > 1:
        return False
    module = root.get_submodule(str(node.target))
    return type(module) in NORMS and getattr(module, "running_var", None) is not None


def _is_relu(root: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))) is nn.ReLU
    return node.target in RELUS or node.target in ("relu", "relu_")
