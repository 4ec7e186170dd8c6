"""Simulated and int8 layers on identical inputs: how their output codes differ, in static mode and QAT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from qexplore.batches import positional
from qexplore.calibrate.graph import Recorder
from qexplore.engines.conversion import Conversion
from qexplore.engines.engine import using
from qexplore.engines.overflow import Sums, inputs_of, kernel_saturates, overflows, spread
from qexplore.engines.simulate import QuantDequant
from qexplore.workload import Batch


@dataclass(frozen=True)
class LayerCodes:
    """How the output codes of an int8 layer differ from its simulation's on the same input codes.

    Attributes:
        count: output codes compared.
        differ, off: how many differ, and differ by more than one.
        largest: largest difference, in codes.
        beyond: int8 codes outside quant_min..quant_max.
        unexplained: how many are off by more than one even after clamping int8's to quant_min..quant_max.
        sums: integer sums of the layer, looked at all over its output; none for other than Linear and convolution.
        unexplained_sums: those behind unexplained codes.
        saturates: whether the layer's kernel saturates sums of 16 bits on this CPU; tried where codes are unexplained.
    """

    count: int = 0
    differ: int = 0
    off: int = 0
    largest: int = 0
    beyond: int = 0
    unexplained: int = 0
    sums: Sums = field(default_factory=Sums)
    unexplained_sums: Sums = field(default_factory=Sums)
    saturates: bool = False

    def __add__(self, other: LayerCodes) -> LayerCodes:
        return LayerCodes(
            self.count + other.count,
            self.differ + other.differ,
            self.off + other.off,
            max(self.largest, other.largest),
            self.beyond + other.beyond,
            self.unexplained + other.unexplained,
            self.sums + other.sums,
            self.unexplained_sums + other.unexplained_sums,
            self.saturates or other.saturates,
        )


def compare_codes(conversion: Conversion, batch: Batch) -> dict[str, LayerCodes]:
    """Run the int8 model on a batch, and each simulated layer on the very codes that its int8 layer read.

    Args:
        conversion: a static or QAT one that has an int8 model.

    Returns:
        the difference by layer name. Layers are left out whose output has no codes (kept float), and those where
        torch.ao gives the int8 model other scales than the simulation (`x * 2` on codes).
    """
    int8, simulated = conversion.int8, conversion.simulated
    assert isinstance(int8, fx.GraphModule) and isinstance(simulated, fx.GraphModule)
    kept: dict[str, torch.Tensor] = {}

    def keep(node: str, value: Any) -> None:
        if isinstance(value, torch.Tensor) and value.is_quantized:
            kept[node] = value.clone()  # an operation in place later on must not change it

    found: dict[str, LayerCodes] = {}
    names = conversion.probes["simulated"].outputs
    ends = {layer: node for node in simulated.graph.nodes for layer in names.get(node.name, ())}
    with torch.no_grad(), using(conversion.engine):
        Recorder(int8, {node.name for node in int8.graph.nodes}, keep).run(*positional(int8, batch))
        for node in int8.graph.nodes:
            if node.name not in kept:
                continue
            read = [kept[n.name] for n in _sources(node, lambda n: n.name in kept)[0] if n.name in kept]
            module = int8.get_submodule(str(node.target)) if node.op == "call_module" else None
            for layer in conversion.probes["int8"].outputs.get(node.name, ()):
                expected = _simulated_codes(simulated, ends[layer], read, batch)
                if expected is not None and _same_codes(expected[1], kept[node.name]):
                    found[layer] = _difference(*expected, kept[node.name], read, module)
    return found


def _sources(end: fx.Node, is_source: Callable[[fx.Node], bool]) -> tuple[list[fx.Node], list[fx.Node]]:
    """The nodes that `end` is computed from, in the order of arguments, and those between in the graph's order."""
    sources: dict[fx.Node, None] = {}
    between: dict[fx.Node, None] = {end: None}
    waiting = list(reversed(end.all_input_nodes))
    while waiting:
        node = waiting.pop()
        if is_source(node) or node.op == "placeholder":
            sources[node] = None
        elif node not in between:
            between[node] = None
            waiting += reversed(node.all_input_nodes)
    return list(sources), [node for node in end.graph.nodes if node in between]


def _simulated_codes(
    simulated: fx.GraphModule, end: fx.Node, read: list[torch.Tensor], batch: Batch
) -> tuple[torch.Tensor, QuantDequant] | None:
    """The codes (int32) that the simulation gives at `end` for these inputs, and what quantizes them there.

    None where `end` quantizes nothing or the inputs are not those of the simulation.
    """
    quantizer = _quantizer(simulated, end)
    sources, between = _sources(end, lambda node: _quantizer(simulated, node) is not None)
    own = [q for node in sources if (q := _quantizer(simulated, node)) is not None]
    if quantizer is None or len(own) != len(read) or not all(map(_same_codes, own, read)):
        return None
    given = iter(read)
    places = [node for node in simulated.graph.nodes if node.op == "placeholder"]
    inputs = dict(zip(places, positional(simulated, batch), strict=False))  # arguments with defaults may be missing
    interpreter = fx.Interpreter(simulated)
    for node in sources:
        interpreter.env[node] = inputs.get(node) if node.op == "placeholder" else next(given).dequantize()
    for node in between:
        interpreter.env[node] = interpreter.run_node(node)
    values = interpreter.env[end]
    return (torch.round(values / quantizer.scale) + quantizer.zero_point).int(), quantizer


def _quantizer(simulated: fx.GraphModule, node: fx.Node) -> QuantDequant | None:
    """What quantizes an activation at this node; None where it does something else, as quantizing a weight."""
    module = simulated.get_submodule(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, QuantDequant) and module.dtype == torch.quint8 else None


def _same_codes(quantizer: QuantDequant, x: torch.Tensor) -> bool:
    """Whether codes of `x` stand for the same values as the quantizer's (a scale is kept in double precision)."""
    return (
        quantizer.scale.item() == torch.tensor(x.q_scale()).item() and quantizer.zero_point.item() == x.q_zero_point()
    )


def _difference(
    expected: torch.Tensor, quantizer: QuantDequant, y: torch.Tensor, read: list[torch.Tensor], module: nn.Module | None
) -> LayerCodes:
    codes = y.int_repr().int()
    within = codes.clamp(quantizer.quant_min, quantizer.quant_max)
    apart = (codes - expected).abs()
    unexplained = ((within - expected).abs() > 1).flatten().nonzero().flatten()
    sums = unexplained_sums = Sums()
    inputs, saturates = inputs_of(module), False
    if inputs and y.numel():
        sums = overflows(module, read[0], y, spread(y.numel(), inputs))
    if inputs and len(unexplained):
        chosen = unexplained[spread(len(unexplained), inputs)]
        unexplained_sums = overflows(module, read[0], y, chosen)
        saturates = kernel_saturates(module, read[0])
    return LayerCodes(
        count=y.numel(),
        differ=int((apart > 0).sum()),
        off=int((apart > 1).sum()),
        largest=int(apart.max()) if y.numel() else 0,
        beyond=int((codes != within).sum()),
        unexplained=len(unexplained),
        sums=sums,
        unexplained_sums=unexplained_sums,
        saturates=saturates,
    )
