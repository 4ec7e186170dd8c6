"""Causes of a tensor's error: each with what shows it, and with the setting that would take it away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from qexplore.calibrate import TensorStats
from qexplore.engines import QuantizedTensor
from qexplore.recipe import TensorSpec

OUTLIER = 4.0  # times the next largest value
TAIL = 3.0  # times the value that all but a thousandth stay below
UNEVEN = 4.0  # times the middle channel's range
FEW_CODES = 0.25  # share of the codes that values get
SKEWED = 1.5  # how much longer one side of the range is than the other


@dataclass(frozen=True)
class Cause:
    """Why a tensor's error is larger than need be.

    Attributes:
        name: a few words, the same for all tensors.
        evidence: one sentence with the figures that show it.
        spec: settings of the tensor without it.
        fix: what these settings are, for a button.
    """

    name: str
    evidence: str
    spec: TensorSpec
    fix: str


def causes(t: QuantizedTensor, spec: TensorSpec, stats: TensorStats, clipped: float, used: float) -> Iterator[Cause]:
    """What may be wrong with a quantized tensor; which of it matters is measured by what its absence gains.

    Args:
        spec: in force for it; `stats`: of its float values.
        clipped: share of its squared error that clipping makes.
        used: share of the codes that it uses.
    """
    if t.at_run_time or t.observer == "fixed":
        return
    what = f"The weight of {t.layer!r}" if t.kind == "weight" else f"Tensor {t.name!r}"
    if t.weight is not None and not spec.per_channel:
        yield from _imbalance(t, spec, what)
    if clipped > 0.5:
        yield Cause(
            "clipping",
            f"{what} is clipped: values beyond its range make {clipped:.0%} of its error.",
            replace(spec, observer="minmax", options={}),
            "min-max range",
        )
    largest, reach = _tail(stats)
    if reach and largest > TAIL * reach:
        yield Cause(
            "outlier",
            f"{what} has an outlier: its largest magnitude {largest:.3g} is {largest / reach:.0f} times the "
            f"{reach:.3g} that 99.9 % of its values stay below, and takes most of the codes.",
            replace(spec, observer="mse", options={}),
            "range of least squared error",
        )
    if spec.symmetric and (stats.lo >= 0 or stats.hi <= 0 or _skew(stats) > SKEWED):
        yield Cause(
            "symmetric range",
            f"{what} lies between {stats.lo:.3g} and {stats.hi:.3g}, so a symmetric range leaves codes unused: it "
            f"uses {used:.0%} of them.",
            replace(spec, symmetric=False),
            "affine range",
        )
    if spec.bits < 8:
        yield Cause(
            "few levels",
            f"{what} has {2**spec.bits} levels at {spec.bits} bits.",
            replace(spec, bits=8),
            "8 bits",
        )
    if used < FEW_CODES:
        yield Cause(
            "unused codes",
            f"{what} uses {used:.0%} of its codes: its range is far wider than its values.",
            replace(spec, observer="mse", options={}),
            "range of least squared error",
        )


def _imbalance(t: QuantizedTensor, spec: TensorSpec, what: str) -> Iterator[Cause]:
    assert t.weight is not None
    rows = t.weight.detach().flatten(1).abs()
    if len(rows) < 2:
        return
    reach = rows.amax(1)
    middle = float(reach[reach > 0].median()) if bool((reach > 0).any()) else 0.0
    top = rows[int(reach.argmax())].sort(descending=True).values
    lone = len(top) > 1 and float(top[0]) > OUTLIER * float(top[1])
    if middle and not lone and float(reach.max()) > UNEVEN * middle:
        yield Cause(
            "channel imbalance",
            f"{what} has channels of very different range: the widest reaches {float(reach.max()):.3g}, "
            f"{float(reach.max()) / middle:.0f} times the middle one, and sets the step for all.",
            replace(spec, per_channel=True, observer="minmax", options={}),
            "one scale per channel",
        )
    elif float(reach.max()) > 0:
        yield Cause(
            "outlier" if lone else "one scale for all channels",
            f"{what} has one value of {float(top[0]):.3g} where the next in its channel is {float(top[1]):.3g}."
            if lone
            else f"{what} has one scale for {len(rows)} channels.",
            replace(spec, per_channel=True, observer="minmax", options={}),
            "one scale per channel",
        )


def _tail(stats: TensorStats) -> tuple[float, float]:
    """The largest magnitude, and the one that 99.9 % of the values do not exceed."""
    values, weights = stats.sample
    if not len(values):
        return 0.0, 0.0
    ordered, order = values.abs().sort()
    below = weights[order].cumsum(0)
    place = int(torch.searchsorted(below, 0.999 * below[-1]))
    return max(abs(stats.lo), abs(stats.hi)), float(ordered[min(place, len(ordered) - 1)])


def _skew(stats: TensorStats) -> float:
    short, long = sorted((abs(stats.lo), abs(stats.hi)))
    return long / short if short else float("inf")
