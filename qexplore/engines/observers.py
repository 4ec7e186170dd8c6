"""torch.ao's observers by name, built from a TensorSpec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import (
    FixedQParamsObserver,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
    default_fixed_qparams_range_0to1_fake_quant,
    default_fixed_qparams_range_0to1_observer,
    default_fixed_qparams_range_neg1to1_fake_quant,
    default_fixed_qparams_range_neg1to1_observer,
    default_weight_observer,
)
from torch.nn import functional as F

from qexplore.errors import QexploreError
from qexplore.numerics.affine import code_range
from qexplore.recipe import TensorSpec
from qexplore.registry import Registry


@dataclass(frozen=True)
class TorchObserver:
    """An observer of torch.ao.

    Attributes:
        description: one line for the explorer.
        per_tensor, per_channel: its classes; None where torch has none.
    """

    description: str
    per_tensor: type
    per_channel: type | None


OBSERVERS: Registry[TorchObserver] = Registry("observer")
OBSERVERS.register("minmax")(TorchObserver("the whole range seen", MinMaxObserver, PerChannelMinMaxObserver))
OBSERVERS.register("moving_average")(
    TorchObserver(
        "a running mean of each batch's range, weight 0.01",
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
    )
)
OBSERVERS.register("histogram")(
    TorchObserver("the range with the least squared error on a histogram", HistogramObserver, None)
)

GUARDED = {"activations": (0, 127), "weights": (-64, 64)}


def quant_range(spec: TensorSpec, kind: str, guard: str) -> tuple[int, int]:
    """Smallest and largest code for a tensor of this kind ("activation" or "weight") under a guard."""
    if spec.bits == 8 and guard == f"{kind}s":
        return GUARDED[guard]
    return code_range(spec.bits, signed=kind == "weight")


def torch_observer(spec: TensorSpec, kind: str, guard: str) -> tuple[Any, dict[str, Any]]:
    """The torch.ao observer that `spec` asks for: its class and arguments.

    Raises:
        QexploreError: no such observer, or none per channel.
    """
    entry = OBSERVERS[spec.observer]
    chosen = entry.per_channel if spec.per_channel else entry.per_tensor
    if chosen is None:
        raise QexploreError(
            f"Observer {spec.observer!r} works per tensor only; choose another one or per-tensor {kind}s."
        )
    granularity = "channel" if spec.per_channel else "tensor"
    quant_min, quant_max = quant_range(spec, kind, guard)
    return chosen, {
        "dtype": torch.qint8 if kind == "weight" else torch.quint8,
        "qscheme": getattr(torch, f"per_{granularity}_{'symmetric' if spec.symmetric else 'affine'}"),
        "quant_min": quant_min,
        "quant_max": quant_max,
    }


FROM_0_TO_1 = (
    nn.Sigmoid,
    nn.Hardsigmoid,
    nn.Softmax,
    torch.sigmoid,
    "sigmoid",
    "sigmoid_",
    "hardsigmoid",
    F.hardsigmoid,
)
FROM_MINUS_1_TO_1 = (nn.Tanh, nn.Softsign, torch.tanh, "tanh", "tanh_")


def fixed_qconfigs(qat: bool) -> list[tuple[tuple[Any, ...], QConfig]]:
    """Qconfigs of the operations whose int8 kernels have a range of their own, whatever the observer says."""
    made = []
    for operations, observer, fake_quantize in (
        (FROM_0_TO_1, default_fixed_qparams_range_0to1_observer, default_fixed_qparams_range_0to1_fake_quant),
        (
            FROM_MINUS_1_TO_1,
            default_fixed_qparams_range_neg1to1_observer,
            default_fixed_qparams_range_neg1to1_fake_quant,
        ),
    ):
        made.append(
            (operations, QConfig(activation=fake_quantize if qat else observer, weight=default_weight_observer))
        )
    return made


def described(observer: Any, guard: str) -> tuple[int, str]:
    """Bits asked for and observer name of a torch.ao observer or fake-quantize module made by `torch_observer`."""
    codes = (observer.quant_min, observer.quant_max)
    bits = 8 if codes == GUARDED.get(guard) else (codes[1] - codes[0]).bit_length()
    inner = getattr(observer, "activation_post_process", observer)
    if isinstance(inner, FixedQParamsObserver):
        return bits, "fixed"
    names = [name for name in OBSERVERS if type(inner) in (OBSERVERS[name].per_tensor, OBSERVERS[name].per_channel)]
    return bits, names[0]
