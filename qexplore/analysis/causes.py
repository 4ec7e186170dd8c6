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
NARROW = 0.7  # of the range in use
CLIPS_OUTLIER = "range without the outlier, which spoils the samples that have it,"
LEAST_PERCENTILE = 60.0  # that the observer takes
SKEWED = 1.5  # how much longer one side of the range is than the other


@dataclass(frozen=True)
class Cause:
    """Why a tensor's error is larger than need be.

    Attributes:
        name: a few words, the same for all tensors.
        evidence: one sentence with the figures that show it.
        spec: settings of the tensor without it.
        fix: what these settings are, for a button.
        seen: the tensor whose values alone choose the range; "" for all that share it.
        axis: channel dimension of an activation that is to have one scale per channel, which no kernel does.
        lone: whether it is judged by the samples that do not have what it takes away.
    """

    name: str
    evidence: str
    spec: TensorSpec
    fix: str
    seen: str = ""
    axis: int | None = None
    lone: bool = False


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
    yield from _outlier(t, spec, stats, what)
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


def _outlier(t: QuantizedTensor, spec: TensorSpec, stats: TensorStats, what: str) -> Iterator[Cause]:
    largest, reach, share = _tail(stats)
    if not reach or largest <= TAIL * reach:
        return
    evidence = (
        f"{what} has an outlier: its largest magnitude {largest:.3g} is {largest / reach:.0f} times the {reach:.3g} "
        "that 99.9 % of its values stay below, and takes most of the codes."
    )
    yield Cause("outlier", evidence, replace(spec, observer="mse", options={}), "range of least squared error")
    if t.kind == "activation" and 100 * share >= LEAST_PERCENTILE:
        without = replace(spec, observer="percentile", options={"percentile": 100 * share})
        more = " Clipping it spoils the samples that have it and serves all others."
        yield Cause(
            "outlier",
            evidence + more,
            without,
            CLIPS_OUTLIER,
            lone=True,
        )


def shared_range(t: QuantizedTensor, spec: TensorSpec, own: TensorStats, name: str) -> Iterator[Cause]:
    """What may be wrong where pooling or reshaping gives values in the range of what it reads.

    Args:
        t: the tensor whose range it is; `own`, `name`: statistics and name of what is given.
    """
    lo, hi = (float(edge) for edge in t.grid())
    if name != t.name and own.hi - own.lo < NARROW * (hi - lo):
        evidence = (
            f"Tensor {name!r} keeps the range of {t.name!r}, {lo:.3g} to {hi:.3g}, though its own values lie between "
            f"{own.lo:.3g} and {own.hi:.3g}: operations such as pooling do not change the scale."
        )
        yield Cause("shared range", evidence, spec, f"keep {name!r} float", seen=name)


def uneven_channels(t: QuantizedTensor, spec: TensorSpec, stats: TensorStats, axis: int) -> Iterator[Cause]:
    """What may be wrong with an activation whose channels lie along `axis`."""
    if stats.channel_lo is None or stats.channel_hi is None:
        return
    reach = torch.maximum(stats.channel_lo.abs(), stats.channel_hi.abs())
    reach = reach[reach > 0]
    if len(reach) and float(reach.max()) > UNEVEN * float(reach.min()):  # narrow channels have the fewest codes
        evidence = (
            f"Tensor {t.name!r} has channels of very different range: they reach from {float(reach.min()):.3g} to "
            f"{float(reach.max()):.3g}, and all share one step."
        )
        yield Cause("channel imbalance", evidence, spec, "equalize channels across layers", axis=axis)


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


def _tail(stats: TensorStats) -> tuple[float, float, float]:
    """The largest magnitude, the one that 99.9 % of the values do not exceed, and the share that are no outliers."""
    values, weights = stats.sample
    if not len(values):
        return 0.0, 0.0, 1.0
    ordered, order = values.abs().sort()
    below = weights[order].double().cumsum(0)
    place = int(torch.searchsorted(below, 0.999 * below[-1]))
    reach = float(ordered[min(place, len(ordered) - 1)])
    usual = max(int((ordered <= TAIL * reach).sum()), 1)
    # Half a value less, so that rounding of the share does not take in the next value.
    return max(abs(stats.lo), abs(stats.hi)), reach, float((below[usual - 1] - 0.5) / below[-1])


def _skew(stats: TensorStats) -> float:
    short, long = sorted((abs(stats.lo), abs(stats.hi)))
    return long / short if short else float("inf")
