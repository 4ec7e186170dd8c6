"""What is kept of a tensor that passed by: exact extremes and moments, exact counts, a few raw values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

BUCKETS = 8192
SAMPLES = 32768
SPREAD = 32
FEW = 8
DENSE = 64


@dataclass(frozen=True)
class TensorStats:
    """Statistics of one tensor over batches; two of them merge into those of all the batches together.

    Attributes:
        count: number of finite values seen.
        nonfinite: number of NaN and infinite values seen.
        batch_lo, batch_hi: float32 [batches], exact minimum and maximum of each batch, in order.
        total, squares: sums of the values and of their squares (float64).
        buckets: int64 [8192], exact counts by the top 13 bits of the float32 pattern (sign, exponent, 4 mantissa
            bits): no range is needed beforehand, and counts of batches add up.
        samples: one float32 array of raw values a batch, evenly strided; thinned by two whenever the
            number of batches doubles, so that all together stay below 32768.
        channel_lo, channel_hi: float32 [channels], exact minimum and maximum of each channel over all batches;
            None for a tensor without channels, or whose number of channels changes.
    """

    count: int
    nonfinite: int
    batch_lo: torch.Tensor
    batch_hi: torch.Tensor
    total: float
    squares: float
    buckets: torch.Tensor
    samples: tuple[torch.Tensor, ...]
    channel_lo: torch.Tensor | None = None
    channel_hi: torch.Tensor | None = None

    @property
    def lo(self) -> float:
        """Smallest value seen."""
        return float(self.batch_lo.min())

    @property
    def hi(self) -> float:
        """Largest value seen."""
        return float(self.batch_hi.max())

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return self.total / max(self.count, 1)

    @property
    def variance(self) -> float:
        """Variance of all values (divided by the count)."""
        return max(self.squares / max(self.count, 1) - self.mean**2, 0.0)

    def merge(self, later: TensorStats) -> TensorStats:
        """Statistics of the batches of both, `self`'s first."""
        samples = _thin(self.samples + later.samples)
        return TensorStats(
            self.count + later.count,
            self.nonfinite + later.nonfinite,
            torch.cat([self.batch_lo, later.batch_lo]),
            torch.cat([self.batch_hi, later.batch_hi]),
            self.total + later.total,
            self.squares + later.squares,
            self.buckets + later.buckets,
            samples,
            *_merged_channels(self, later),
        )

    @cached_property
    def sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (float32) and weights (float64) that stand for all values.

        Of each bucket up to 64 samples are looked at; each weighs the bucket's count over their number. A bucket with
        few samples or none counts as uniform. Weights add up to `count`.
        """
        values = torch.cat(self.samples) if self.samples else torch.empty(0)
        bucket = bucket_of(values).short().numpy()
        order = bucket.argsort(kind="stable")
        held = np.bincount(bucket, minlength=BUCKETS)
        count = self.buckets.numpy()
        sparse = (held < FEW) & (held < count)
        every = -(-held // self._kept())
        rank = np.arange(len(bucket)) - (held.cumsum() - held)[bucket[order]]
        kept = order[(rank % every[bucket[order]] == 0) & ~sparse[bucket[order]]]
        share = count / np.maximum(-(-held // np.maximum(every, 1)), 1)
        missing = torch.from_numpy(np.flatnonzero(sparse))
        spread = _within_buckets(missing).clamp(self.lo, self.hi)
        weights = np.concatenate([share[bucket[kept]], (count[sparse] / SPREAD).repeat(SPREAD)])
        return torch.cat([values[torch.from_numpy(kept)], spread]), torch.from_numpy(weights)

    def _kept(self) -> np.ndarray:
        """How many raw values of each bucket to look at: few where they are far below the root mean square, and so
        below half a step of any sensible 8-bit grid."""
        power = math.sqrt(self.squares / max(self.count, 1))
        return np.where(power / 64 > MAGNITUDES, FEW, DENSE)


def measure(x: torch.Tensor, limit: int | None = None, axis: int | None = None) -> TensorStats:
    """Statistics of one batch of a tensor; non-finite values are counted and left out of the rest.

    Args:
        axis: dimension of the channels; None for a tensor without.
        limit: with more elements than this, only an evenly strided subset of about so many is counted into
            everything but minimum, maximum and the search for non-finite values, which stay exact.
    """
    x = x.detach().float()
    channels = () if axis is None else _channel_extremes(x, axis)
    x = x.flatten()
    lo, hi = (channels[0].min(), channels[1].max()) if channels else torch.aminmax(x)
    nonfinite = 0
    if not (torch.isfinite(lo) and torch.isfinite(hi)):
        finite = torch.isfinite(x)
        nonfinite = int((~finite).sum())
        x = x[finite]
        lo, hi = torch.aminmax(x) if x.numel() else (torch.zeros(()), torch.zeros(()))
        channels = ()
    if limit is not None and x.numel() > limit:
        x = x[:: x.numel() // limit | 1]  # an odd stride does not lock in step with rows and channels
    wide = x.double()
    return TensorStats(
        x.numel(),
        nonfinite,
        lo.reshape(1),
        hi.reshape(1),
        float(wide.sum()),
        float(wide.dot(wide)),
        torch.bincount(bucket_of(x), minlength=BUCKETS),
        (x[:: max(-(-x.numel() // SAMPLES), 1)].clone(),),
        *channels,
    )


def _channel_extremes(x: torch.Tensor, axis: int) -> tuple[torch.Tensor, ...]:
    """Minimum and maximum of each channel; the first dimension goes first, as it can be read in order."""
    if axis > 0:
        lo, hi, axis = x.amin(0), x.amax(0), axis - 1
    else:
        lo = hi = x
    lo, hi = (edge.movedim(axis, 0).reshape(edge.shape[axis], -1) for edge in (lo, hi))
    return lo.amin(1), hi.amax(1)


def _merged_channels(one: TensorStats, two: TensorStats) -> tuple[torch.Tensor, ...]:
    if one.channel_lo is None or two.channel_lo is None or one.channel_lo.shape != two.channel_lo.shape:
        return ()
    assert one.channel_hi is not None and two.channel_hi is not None
    return torch.minimum(one.channel_lo, two.channel_lo), torch.maximum(one.channel_hi, two.channel_hi)


def bucket_of(x: torch.Tensor) -> torch.Tensor:
    """Bucket of each value (int64): the top 13 bits of its float32 pattern, moved to 0..8191."""
    return (x.contiguous().view(torch.int32) >> 19).long() + BUCKETS // 2


def _within_buckets(bucket: torch.Tensor) -> torch.Tensor:
    """SPREAD values evenly spaced in each bucket."""
    steps = ((torch.arange(SPREAD) * 2 + 1) << 18) // SPREAD
    return (((bucket - BUCKETS // 2) << 19)[:, None] + steps).to(torch.int32).view(torch.float32).flatten()


def _thin(samples: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Each batch's sample cut to its share: SAMPLES over the number of batches rounded up to a power of two."""
    share = max(SAMPLES >> (len(samples) - 1).bit_length(), 1)
    return tuple(s[:: _power_of_two(-(-s.numel() // share))] for s in samples)


def _power_of_two(n: int) -> int:
    """Smallest power of two that is at least n, so that thinning twice equals thinning once."""
    return 1 << max(n - 1, 0).bit_length()


MAGNITUDES = np.abs(((np.arange(BUCKETS) - BUCKETS // 2) << 19).astype(np.int32).view(np.float32))
