"""How quantization noise adds up through a model, channel by channel, to first order and without running it.

Noise is taken as white within a channel and independent of the signal (the pseudo quantization noise of Widrow & Kollár
2008, "Quantization Noise"): a layer y = Wx turns the power N of its input's noise into W²·N, and weights that are off
by D add D²·E[x²]; ReLU lets the share of noise pass that lies where it is open; sums add.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from qexplore.calibrate import TensorStats
from qexplore.calibrate.graph import FloatGraph

SUMS = (operator.add, operator.iadd, operator.sub, torch.add, torch.sub, "add", "add_", "sub")
PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
CONCATENATIONS = (torch.cat, torch.concat)
RELUS = (F.relu, torch.relu, torch.relu_, F.relu6, F.hardtanh, "relu", "relu_")
NORMALIZING = (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
SLOPES: tuple[tuple[tuple[Any, ...], Callable[[torch.Tensor], torch.Tensor]], ...] = (
    ((nn.Sigmoid, nn.Softmax, torch.sigmoid, F.softmax, "sigmoid", "softmax"), lambda y: y * (1 - y)),
    ((nn.Tanh, torch.tanh, "tanh"), lambda y: 1 - y.square()),
)
NORMS = nn.modules.batchnorm._BatchNorm
CONVOLUTIONS = nn.modules.conv._ConvNd
TRANSPOSED = nn.modules.conv._ConvTransposeNd


@dataclass(frozen=True)
class QuantizedWeight:
    """A layer's weight and its error.

    Attributes:
        weight: as it is quantized, with BatchNorm folded in where fused.
        error: quantized minus float, of the same shape.
        folds: whether BatchNorm is folded in.
    """

    weight: torch.Tensor
    error: torch.Tensor
    folds: bool


@dataclass(frozen=True)
class Given:
    """The noise that quantizing a tensor adds to it.

    Attributes:
        mse: mean squared error over the whole tensor.
        scale: distance of two levels; a channel far below it loses its own values and no more.
    """

    mse: float
    scale: float


def propagate(
    graph: FloatGraph,
    stats: Mapping[str, TensorStats],
    weights: Mapping[str, list[QuantizedWeight]],
    given: Mapping[str, Given],
    read: Mapping[str, Given],
) -> dict[str, torch.Tensor]:
    """The predicted noise power of each tensor's channels (one entry where it has none), by name.

    Args:
        weights: of each quantized layer, by layer name.
        given: of each quantized tensor, by its name.
        read: noise that is added only where a layer reads its input (dynamic mode), by layer name.
    """
    noise: dict[str, torch.Tensor] = {}
    folded: set[str] = set()
    for node in graph.module.graph.nodes:
        name, target = graph.names.get(node.name), str(node.target)
        if name is None or name not in stats:
            continue
        inputs = [each for each in _inputs(graph, node) if each in noise]
        own = weights.get(target, []) if node.op == "call_module" else []
        if not inputs or target in folded:
            power = noise[inputs[0]] if inputs else torch.zeros_like(channel_power(stats[name]))
        elif own:
            if own[0].folds:
                folded.update(str(user.target) for user in node.users if user.op == "call_module")
            module = graph.module.get_submodule(target)
            before = noise[inputs[0]]
            if target in read:
                before = before + _spread(read[target], stats[inputs[0]])
            power = _weighted(module, before, stats[inputs[0]], stats[name], own)
        else:
            power = _passed(graph, node, [noise[i] for i in inputs], [stats[i] for i in inputs], stats[name])
        power = _as(power, len(channel_power(stats[name])))
        noise[name] = power + _spread(given[name], stats[name]) if name in given else power
    return noise


def channel_power(stats: TensorStats) -> torch.Tensor:
    """Mean square of each channel, or of the whole tensor as one entry."""
    if stats.channel_power is not None:
        return stats.channel_power
    return torch.tensor([stats.power], dtype=torch.float64)


def _inputs(graph: FloatGraph, node: fx.Node) -> list[str]:
    names = (graph.names.get(graph.source(each).name) for each in node.all_input_nodes)
    return list(dict.fromkeys(name for name in names if name is not None))


def _spread(given: Given, stats: TensorStats) -> torch.Tensor:
    """A tensor's noise by channel: the same in all but those whose values are too small to be rounded that far."""
    power = channel_power(stats)
    share = torch.minimum(power, torch.full_like(power, given.scale**2 / 12))
    mean = float(share.mean())
    return share * (given.mse / mean) if mean else torch.full_like(power, given.mse)


def _weighted(
    module: nn.Module, before: torch.Tensor, read: TensorStats, gives: TensorStats, weights: list[QuantizedWeight]
) -> torch.Tensor:
    if len(weights) == 1 and isinstance(module, CONVOLUTIONS | nn.Linear):
        return _gain(module, weights[0].weight, before) + _gain(module, weights[0].error, channel_power(read))
    signal = float(channel_power(read).mean())
    ratio = float(before.mean()) / signal if signal else 0.0
    for w in weights:
        ratio += float(w.error.square().sum() / w.weight.square().sum().clamp(min=1e-30)) / len(weights)
    return ratio * channel_power(gives)


def _gain(module: Any, weight: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """Power of each output channel of a layer for white input of the given power in each channel."""
    squares = weight.detach().double().square()
    if isinstance(module, nn.Linear):
        return squares @ _as(power, squares.shape[1])
    taps = squares.flatten(2).sum(2)
    groups = module.groups
    by_group = _as(power, module.in_channels).reshape(groups, -1)
    if isinstance(module, TRANSPOSED):  # its weight is [in, out / groups, ...], and the stride shares its taps out
        taps = taps.reshape(groups, -1, taps.shape[1]).transpose(1, 2) / math.prod(module.stride)
    else:
        taps = taps.reshape(groups, -1, taps.shape[1])
    return torch.einsum("goi,gi->go", taps, by_group).flatten()


def _as(power: torch.Tensor, channels: int) -> torch.Tensor:
    """Power for so many channels: of a flattened tensor, each channel's stands for its places; else the mean."""
    if len(power) == channels:
        return power
    if channels % len(power) == 0:
        return power.repeat_interleave(channels // len(power))
    return power.mean().expand(channels)


def _passed(
    graph: FloatGraph, node: fx.Node, before: list[torch.Tensor], inputs: list[TensorStats], output: TensorStats
) -> torch.Tensor:
    """What an operation without quantized weights makes of its inputs' noise."""
    module = graph.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    target, signal = None if module is not None else node.target, channel_power(output)
    if isinstance(module, CONVOLUTIONS | nn.Linear):
        return _gain(module, module.weight, before[0])
    if isinstance(module, NORMS) and module.running_var is not None:
        factor = 1.0 if module.weight is None else module.weight.detach().double()
        return _as(before[0], len(module.running_var)) * factor**2 / (module.running_var.double() + module.eps)
    if isinstance(module, NORMALIZING):
        gain = 1.0 if module.weight is None else float(module.weight.detach().double().square().mean())
        spread = inputs[0].variance
        return torch.full_like(signal, gain * float(before[0].mean()) / spread if spread else 0.0)
    if isinstance(module, nn.ReLU | nn.Hardtanh) or target in RELUS:
        return before[0] * _open_share(output, getattr(module, "min_val", 0.0))
    for kinds, slope in SLOPES:
        if type(module) in kinds or target in kinds:
            values, weights = output.sample
            return before[0] * float(slope(values.double()).square() @ weights) / max(output.count, 1)
    twice = 4.0 if len(before) == 1 and len(node.args) > 1 and node.args[0] is node.args[1] else 1.0
    if target in SUMS:
        return torch.stack([_as(power, len(signal)) for power in before]).sum(0) * twice
    if target in PRODUCTS and twice > 1:
        return _as(before[0] * channel_power(inputs[0]), len(signal)) * twice
    if target in PRODUCTS and len(before) == 2:
        noises, powers = ([_as(each, len(signal)) for each in both] for both in (before, map(channel_power, inputs)))
        return noises[0] * powers[1] + noises[1] * powers[0]
    if target in CONCATENATIONS and sum(map(len, before)) == len(signal):
        return torch.cat(before)
    read = [_as(channel_power(each), len(signal)) for each in inputs]
    ratio = sum(_as(power, len(signal)) for power in before) / torch.stack(read).sum(0).clamp(min=1e-300)
    return signal * ratio


def _open_share(output: TensorStats, bottom: float) -> float:
    """Share of values strictly between the ends of what a ReLU, ReLU6 or Hardtanh gives."""
    values, weights = output.sample
    top = output.hi if float(weights[values == output.hi].sum()) > 0.001 * output.count else math.inf
    return float(weights[(values > bottom) & (values < top)].sum()) / max(output.count, 1)
