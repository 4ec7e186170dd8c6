"""The range, scale and error of one tensor, and the noise of all of them, from statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from qexplore.analysis.prediction import kept, weight_stats
from qexplore.analysis.propagate import Given, QuantizedWeight, propagate
from qexplore.calibrate import Calibration, TensorStats
from qexplore.calibrate.graph import FloatGraph
from qexplore.calibrate.observers import channel_ranges, find, tensor_range
from qexplore.calibrate.stats import interleaved
from qexplore.engines import QuantizedTensor
from qexplore.engines.observers import seen_by_observer
from qexplore.engines.plan import Plan, PlannedTensor
from qexplore.numerics.affine import qparams
from qexplore.numerics.parts import ErrorParts, error_parts
from qexplore.recipe import TensorSpec

Found = tuple[QuantizedTensor, ErrorParts]


def predicted_tensor(
    calibration: Calibration, planned: PlannedTensor, spec: TensorSpec, codes: tuple[int, int], guard: str
) -> Found:
    """The mapping of a planned tensor, and the parts of its error.

    Args:
        codes: smallest and largest code.
        guard: the overflow guard in force.

    Raises:
        QexploreError: the observer failed.
    """
    choose = None if planned.fixed or planned.at_run_time else find(spec.observer).choose
    key = (planned.kind, planned.name, planned.layer, planned.seen, id(planned.weight), spec, codes, choose)
    return kept(calibration, key, lambda: _computed(calibration, planned, spec, codes, guard))


def _computed(
    calibration: Calibration, planned: PlannedTensor, spec: TensorSpec, codes: tuple[int, int], guard: str
) -> Found:
    observer, axis = spec.observer, None
    seen = seen_by_observer(spec, planned.kind, guard)
    if planned.weight is not None:
        axis = 0 if spec.per_channel else None
        if spec.per_channel:
            lo, hi = channel_ranges(planned.weight, 0, seen, planned.name)
        else:
            lo, hi = _pair(*tensor_range(weight_stats(calibration, planned.weight), seen, planned.name))
    elif planned.fixed or planned.at_run_time:
        stats = calibration.stats[planned.name]
        lo, hi = _pair(stats.lo, stats.hi)
        observer = "fixed" if planned.fixed else "run time"
    else:
        stats = kept(calibration, planned.seen, lambda: interleaved([calibration.stats[n] for n in planned.seen]))
        lo, hi = _pair(*tensor_range(stats, seen, planned.name))
    scale, zero_point = qparams(lo, hi, *codes, spec.symmetric and not planned.at_run_time)
    if planned.fixed:
        scale, zero_point = (value.reshape(-1) for value in planned.fixed)
        codes = (0, 255)
    tensor = QuantizedTensor(
        name=planned.name,
        kind=planned.kind,
        layer=planned.layer,
        scale=scale,
        zero_point=zero_point,
        quant_min=codes[0],
        quant_max=codes[1],
        bits=8 if planned.fixed else spec.bits,
        axis=axis,
        observer=observer,
        weight=planned.weight,
        at_run_time=planned.at_run_time,
    )
    if planned.weight is not None:
        return tensor, error_parts(planned.weight, None, scale, zero_point, *codes, axis)
    if planned.at_run_time:
        return tensor, _at_run_time(calibration.stats[planned.name], codes)
    return tensor, error_parts(*calibration.stats[planned.name].sample, scale, zero_point, *codes)


def spec_in_force(planned: PlannedTensor, spec: TensorSpec) -> TensorSpec:
    """The spec of a tensor; where no observer chooses its range, `observer` says what does."""
    if planned.fixed:
        return TensorSpec("fixed")
    return replace(spec, observer="run time", options={}, symmetric=False) if planned.at_run_time else spec


def _pair(lo: float, hi: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([lo]), torch.tensor([hi])


def _at_run_time(stats: TensorStats, codes: tuple[int, int]) -> ErrorParts:
    """The mean over batches, each quantized with its own range."""
    parts = []
    for sample, lo, hi in zip(stats.samples, stats.batch_lo, stats.batch_hi, strict=True):
        parts.append(error_parts(sample, None, *qparams(lo, hi, *codes, symmetric=False), *codes))
    sums = [sum(getattr(p, name) for p in parts) for name in ("signal", "rounding", "clipping", "clipped", "used")]
    return ErrorParts(*(value / len(parts) for value in sums))


def predicted_noise(
    calibration: Calibration, graph: FloatGraph, plan: Plan, found: Mapping[tuple[str, str], Found]
) -> dict[str, float]:
    """The mean noise power of every tensor in the quantized model, by name."""
    weights: dict[str, list[QuantizedWeight]] = {}
    given: dict[str, Given] = {}
    read: dict[str, Given] = {}
    folds = {layer.name: "BatchNorm" in layer.kind for layer in plan.layers}
    for tensor, parts in found.values():
        if tensor.weight is not None:
            weights.setdefault(tensor.layer, []).append(
                QuantizedWeight(tensor.weight, _weight_error(calibration, tensor), folds.get(tensor.layer, False))
            )
        elif tensor.at_run_time:
            for layer, name in calibration.inputs.items():
                if name == tensor.name:
                    read[layer] = Given(parts.mse, float(tensor.scale))
        else:
            given[tensor.name] = Given(parts.mse, float(tensor.scale))
    noise = propagate(graph, calibration.stats, weights, given, read)
    return {name: float(power.mean()) for name, power in noise.items()}


def _weight_error(calibration: Calibration, tensor: QuantizedTensor) -> torch.Tensor:
    assert tensor.weight is not None
    return tensor.fake_quantize(tensor.weight) - tensor.weight
