"""Operations whose output's extremes and counts follow from their input's, so that it need not be read for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from qexplore.calibrate.graph import FloatGraph
from qexplore.calibrate.measure import Known
from qexplore.calibrate.stats import BUCKETS, TensorStats, bucket_of

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
MODULES = (*NORMS, *DROPOUTS, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Identity)
FUNCTIONS = (F.relu, F.relu_, F.relu6, F.hardtanh, torch.relu, torch.relu_)
METHODS = ("relu", "relu_")
MIDDLES = (((torch.arange(BUCKETS) - BUCKETS // 2) << 19) + (1 << 18)).to(torch.int32).view(torch.float32)


@dataclass(frozen=True)
class Operation:
    """A monotone function of each value.

    Attributes:
        apply: the function, of a tensor with its channels in dimension 1.
        by_channel: whether it differs by channel, as BatchNorm does.
    """

    apply: Callable[[torch.Tensor], torch.Tensor]
    by_channel: bool = False


def monotone_operations(graph: FloatGraph) -> dict[str, Operation]:
    """Operations that are a monotone function of each value, the same all over a channel, by their tensor's name.

    Only those right behind the tensor they read, so that nothing can have changed it in place in between.
    """
    return {
        graph.names[node.name]: operation
        for node in graph.module.graph.nodes
        if node.args and node.args[0] is node.prev and len(node.all_input_nodes) == 1 and node.prev.name in graph.names
        if (operation := _operation(graph.module, node)) is not None
    }


def _operation(model: nn.Module, node: fx.Node) -> Operation | None:
    if node.op == "call_module":
        module = model.get_submodule(str(node.target))
        return Operation(module.forward, isinstance(module, NORMS)) if _is_monotone(module) else None
    rest, named = node.args[1:], node.kwargs
    if node.op == "call_function" and node.target in FUNCTIONS:
        function: Any = node.target
        return Operation(lambda x: function(x, *rest, **named))
    if node.op == "call_method" and node.target in METHODS:
        return Operation(lambda x: getattr(x, str(node.target))(*rest, **named))
    return None


def _is_monotone(module: nn.Module) -> bool:
    hooked = module._forward_hooks or module._forward_pre_hooks  # may change what goes in or comes out
    if type(module) not in MODULES or module.training or hooked:
        return False
    return not isinstance(module, NORMS) or module.running_mean is not None  # else it reads the batch


def derived(operation: Operation, before: TensorStats, dims: int) -> Known | None:
    """What a batch's statistics of a tensor of `dims` dimensions tell of the operation's output."""
    if before.channel_lo is None or before.channel_hi is None:
        return None
    pair = torch.stack([before.channel_lo, before.channel_hi])
    ends = operation.apply(pair.reshape(2, -1, *[1] * (dims - 2))).reshape(2, -1)
    buckets = None if operation.by_channel else _moved(before.buckets, operation)
    return Known(ends.amin(0), ends.amax(0), buckets)  # a falling function swaps the ends


def _moved(buckets: torch.Tensor, operation: Operation) -> torch.Tensor:
    """The counts of a bucket where the operation takes it: all of it into one, for all that it can do is clamp."""
    return torch.zeros_like(buckets).index_add_(0, bucket_of(operation.apply(MIDDLES.clone())), buckets)
