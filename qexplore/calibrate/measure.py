"""Statistics of one batch of a tensor."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch

from qexplore.calibrate.stats import BUCKETS, SAMPLES, TensorStats, bucket_of, tails

PIECE = 1 << 18
LONG = 128


@dataclass(frozen=True)
class Known:
    """What is known of a tensor before it is read.

    Attributes:
        lo, hi: float32 [channels], minimum and maximum of each channel.
        buckets: the counts of what `measure` counts; None where they are not known.
    """

    lo: torch.Tensor
    hi: torch.Tensor
    buckets: torch.Tensor | None = None


def measure(
    x: torch.Tensor,
    limit: int | None = None,
    axis: int | None = None,
    samples: int = SAMPLES,
    known: Known | None = None,
) -> TensorStats:
    """Statistics of one batch of a tensor; non-finite values are counted and left out of the rest.

    Args:
        limit: from three times as many elements on, only an evenly strided subset of at least so many is counted into
            everything but minimum, maximum and the search for non-finite values, which stay exact.
        axis: dimension of the channels; None for a tensor without.
        samples: how many raw values to keep.
        known: what need not be read.
    """
    whole = x.detach().float()
    x, place = _in_memory_order(whole, axis)
    flat = x.flatten()
    if place is not None and x.numel():
        channel_lo, channel_hi = (known.lo, known.hi) if known else _channel_extremes(x, place)
        lo, hi = channel_lo.min(), channel_hi.max()
    else:
        place = None
        lo, hi = _extremes(flat)
    nonfinite = 0
    if not (math.isfinite(lo) and math.isfinite(hi)):
        if known is not None:
            return measure(whole, limit, axis, samples)
        finite = torch.isfinite(flat)
        nonfinite = int((~finite).sum())
        flat = flat[finite]
        lo, hi = _extremes(flat)
        place = None
    channels = () if place is None else (channel_lo, channel_hi, _channel_power(x, place, limit and -(-limit // 4)))
    every = _every(flat.numel(), limit)
    if every > 1:
        flat = flat[::every].contiguous()
    sample = flat[_scattered(flat.numel(), samples)] if flat.numel() > samples else flat.clone()
    total, squares, buckets = _counts(flat, known.buckets if known else None)
    kept = ((sample,), tails(flat, buckets))
    return TensorStats(flat.numel(), nonfinite, lo.reshape(1), hi.reshape(1), total, squares, buckets, *kept, *channels)


def _every(count: int, limit: int | None) -> int:
    """The widest odd stride (so not in step with rows and channels) that leaves `limit` of `count` values."""
    return 1 if limit is None else max((count // limit - 1) | 1, 1)


@lru_cache(maxsize=64)
def _scattered(count: int, wanted: int) -> torch.Tensor:
    """`wanted` different places of `count`, any first part of which lies evenly and in step with nothing: a Kronecker
    sequence of the golden ratio."""
    step = round(count * 0.6180339887)
    while math.gcd(step, count) != 1:
        step += 1
    return torch.arange(wanted) * step % count


def _in_memory_order(x: torch.Tensor, axis: int | None) -> tuple[torch.Tensor, int | None]:
    """`x` with its dimensions in the order of its memory, in which it is read fastest, and where `axis` went."""
    if x.is_contiguous():
        return x, axis
    order = sorted(range(x.dim()), key=x.stride, reverse=True)
    return x.permute(order), None if axis is None else order.index(axis)


def _extremes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.aminmax(x) if x.numel() else (torch.zeros(()), torch.zeros(()))


def _rows(x: torch.Tensor, axis: int) -> torch.Tensor:
    """`x` as [places before the channel's, channels, places after it]."""
    return x.reshape(-1, x.shape[axis], math.prod(x.shape[axis + 1 :]))


def _channel_extremes(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Minimum and maximum of each channel. torch reduces long rows fast and short ones slowly, those slice by slice."""
    rows = _rows(x, axis)
    if rows.shape[2] >= LONG:
        return rows.amin(2).amin(0), rows.amax(2).amax(0)
    lo = hi = x
    for _ in range(axis):
        lo, hi = lo.amin(0), hi.amax(0)
    return lo.reshape(len(lo), -1).amin(1), hi.reshape(len(hi), -1).amax(1)


def _channel_power(x: torch.Tensor, axis: int, limit: int | None) -> torch.Tensor:
    """Mean square of each channel (float64, correct to about 1e-6), beyond `limit` values of a strided subset."""
    rows = _rows(x, axis)
    every = _every(rows.numel(), limit)
    if every > 1:
        rows = rows[:, :, ::every] if rows.shape[2] >= rows.shape[0] else rows[::every]
        rows = rows.contiguous()
    norm = torch.linalg.vector_norm(rows, dim=2)  # many times faster than squares in float64
    if not math.isfinite(norm.sum()):
        norm = torch.linalg.vector_norm(rows, dim=2, dtype=torch.float64)
    return norm.double().square().sum(0) * (rows.shape[1] / rows.numel())


def _counts(x: torch.Tensor, known: torch.Tensor | None) -> tuple[float, float, torch.Tensor]:
    """Sum, sum of squares and count in each bucket (if not known), over pieces that stay in the processor's cache."""
    total = squares = 0.0
    buckets = torch.zeros(BUCKETS, dtype=torch.int64) if known is None else known
    for piece in x.split(PIECE):
        if known is None:
            buckets += torch.bincount(bucket_of(piece), minlength=BUCKETS)
        wide = piece.double()
        total += float(wide.sum())
        squares += float(wide.dot(wide))
    return total, squares, buckets
