"""The observer modules of torch.ao for a TensorSpec: torch's own classes where it has them, else our functions."""

from __future__ import annotations

import dataclasses
import math
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

from qexplore.calibrate.observers import find
from qexplore.engines.stats_observer import StatsObserver
from qexplore.errors import QexploreError
from qexplore.numerics.affine import code_range
from qexplore.recipe import TensorSpec

# Real models keep torch's own classes for these, so that they equal plain torch code: per tensor, per channel.
TORCH_OWN: dict[str, tuple[type, type | None]] = {
    "minmax": (MinMaxObserver, PerChannelMinMaxObserver),
    "moving_average": (MovingAverageMinMaxObserver, MovingAveragePerChannelMinMaxObserver),
    "histogram": (HistogramObserver, None),
}

GUARDED = {"activations": (0, 127), "weights": (-64, 64)}


def quant_range(spec: TensorSpec, kind: str, guard: str) -> tuple[int, int]:
    """Smallest and largest code for a tensor of this kind ("activation" or "weight") under a guard."""
    if spec.bits == 8 and guard == f"{kind}s":
        return GUARDED[guard]
    return code_range(spec.bits, signed=kind == "weight")


def seen_by_observer(spec: TensorSpec, kind: str, guard: str) -> TensorSpec:
    """The spec with the bits that the guard leaves, which is what an observer has to work with."""
    quant_min, quant_max = quant_range(spec, kind, guard)
    return dataclasses.replace(spec, bits=round(math.log2(quant_max - quant_min + 1)))


def per_tensor_only(observer: str) -> bool:
    """Whether this observer gives one range for a whole weight only."""
    return observer in TORCH_OWN and TORCH_OWN[observer][1] is None


def torch_observer(spec: TensorSpec, kind: str, guard: str) -> tuple[Any, dict[str, Any]]:
    """The torch.ao observer that `spec` asks for: its class and arguments.

    Raises:
        QexploreError: no such observer or option, or the observer is none per channel.
    """
    settings = find(spec.observer).settings(spec)
    if spec.per_channel and per_tensor_only(spec.observer):
        raise QexploreError(
            f"Observer {spec.observer!r} works per tensor only; choose another one or per-tensor {kind}s."
        )
    granularity = "channel" if spec.per_channel else "tensor"
    quant_min, quant_max = quant_range(spec, kind, guard)
    arguments = {
        "dtype": torch.qint8 if kind == "weight" else torch.quint8,
        "qscheme": getattr(torch, f"per_{granularity}_{'symmetric' if spec.symmetric else 'affine'}"),
        "quant_min": quant_min,
        "quant_max": quant_max,
    }
    if spec.observer in TORCH_OWN:
        return TORCH_OWN[spec.observer][spec.per_channel], arguments | settings
    return StatsObserver, arguments | {"spec": seen_by_observer(spec, kind, guard), "kind": kind}


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
    if isinstance(inner, StatsObserver):
        return bits, inner.spec.observer
    return bits, next(name for name, own in TORCH_OWN.items() if type(inner) in own)
