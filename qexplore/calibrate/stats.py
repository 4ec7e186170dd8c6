"""What is kept of a tensor that passed by: exact extremes and moments, exact counts, a few raw values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce

import numpy as np
import torch

BUCKETS = 8192
SAMPLES = 1 << 18
SPREAD = 32
FEW = 8
DENSE = 96
TAIL = 96


@dataclass(frozen=True, repr=False, eq=False)
class TensorStats:
    """Statistics of one tensor over batches; two of them merge into those of all the batches together.

    Attributes:
        count: number of finite values seen.
        nonfinite: number of NaN and infinite values seen.
        batch_lo, batch_hi: float32 [batches], exact minimum and maximum of each batch, in order (0 where it has no
            finite value).
        total, squares: sums of the values and of their squares (float64).
        buckets: int64 [8192], exact counts by the top 13 bits of the float32 pattern (sign, exponent, 4 mantissa
            bits): no range is needed beforehand, and counts of batches add up.
        samples: one float32 array of raw values a batch, evenly scattered; halved whenever the number of batches
            doubles, so that all together stay below 262144.
        tails: float32, every value of the outermost buckets that together hold at most 96 values, at each end: an
            outlier counts as itself, whether or not it is among the samples.
        channel_lo, channel_hi: float32 [channels], exact minimum and maximum of each channel over all batches;
            None for a tensor without channels, with non-finite values, or whose number of channels changes.
        channel_power: float64 [channels], mean square of each channel; None as above.
    """

    count: int
    nonfinite: int
    batch_lo: torch.Tensor
    batch_hi: torch.Tensor
    total: float
    squares: float
    buckets: torch.Tensor
    samples: tuple[torch.Tensor, ...]
    tails: torch.Tensor
    channel_lo: torch.Tensor | None = None
    channel_hi: torch.Tensor | None = None
    channel_power: torch.Tensor | None = None

    def __repr__(self) -> str:
        return f"<TensorStats of {self.count} values from {self.lo:.4g} to {self.hi:.4g}>"

    @classmethod
    def of(cls, values: torch.Tensor) -> TensorStats:
        """Statistics of all values of a tensor of any shape, or of what `torch.as_tensor` takes."""
        from qexplore.calibrate.measure import measure  # it makes TensorStats

        return measure(torch.as_tensor(values))

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
        return max(self.power - self.mean**2, 0.0)

    @property
    def power(self) -> float:
        """Mean square of all values."""
        return self.squares / max(self.count, 1)

    def merge(self, later: TensorStats) -> TensorStats:
        """Statistics of the batches of both, `self`'s first."""
        samples = _thin(self.samples + later.samples)
        buckets = self.buckets + later.buckets
        return TensorStats(
            self.count + later.count,
            self.nonfinite + later.nonfinite,
            torch.cat([self.batch_lo, later.batch_lo]),
            torch.cat([self.batch_hi, later.batch_hi]),
            self.total + later.total,
            self.squares + later.squares,
            buckets,
            samples,
            tails(torch.cat([self.tails, later.tails]), buckets),
            *_merged_channels(self, later),
        )

    @cached_property
    def sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (float32) and weights (float64) that stand for all values.

        A raw value weighs its bucket's count over the number of the bucket's raw values. Equal values are taken
        together; of those that occur once, up to about 96 a bucket stand for the others. A bucket with few raw values
        or none counts as uniform. Weights add up to `count`.
        """
        return self._weighed(self._kept())

    @cached_property
    def whole_sample(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The same with all raw values, for a fine histogram."""
        return self._weighed(np.full(BUCKETS, SAMPLES))

    def _weighed(self, most: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and weights, with at most about `most` [buckets] of a bucket's values that occur once."""
        sampled = torch.cat([*self.samples, self.tails[:0]])
        whole = torch.zeros(BUCKETS, dtype=torch.bool).index_fill_(0, bucket_of(self.tails).long(), True)
        raw = torch.cat([sampled[~whole[bucket_of(sampled)]], self.tails]).numpy()
        values, times = np.unique(raw, return_counts=True)
        bucket = bucket_of(torch.from_numpy(values)).numpy()
        held = np.bincount(bucket, times, BUCKETS)
        count = self.buckets.numpy()
        sparse = (held < FEW) & (held < count)
        once = times == 1
        singles = np.bincount(bucket[once], minlength=BUCKETS)
        every = np.maximum(-(-singles // most), 1)
        before = np.cumsum(once) - once
        first = np.maximum.accumulate(np.where(np.diff(bucket, prepend=-1) != 0, before, 0))  # of the same bucket
        kept = (~once | ((before - first) % every[bucket] == 0)) & ~sparse[bucket]
        stands_for = np.where(once, singles[bucket] / np.maximum(-(-singles // every)[bucket], 1), times)
        weights = (stands_for * count[bucket] / held[bucket])[kept]
        missing = torch.from_numpy(np.flatnonzero(sparse))
        spread = _within_buckets(missing).clamp(self.lo, self.hi)
        spread_weights = (count[sparse] / SPREAD).repeat(SPREAD)
        return (
            torch.cat([torch.from_numpy(values[kept]), spread]),
            torch.from_numpy(np.concatenate([weights, spread_weights])),
        )

    def _kept(self) -> np.ndarray:
        """How many raw values of each bucket to look at: few where they are far below the root mean square, and so
        below half a step of any sensible 8-bit grid."""
        return np.where(math.sqrt(self.power) / 64 > MAGNITUDES, FEW, DENSE)


def interleaved(each: Sequence[TensorStats]) -> TensorStats:
    """Statistics of several tensors that one observer sees in turn in every batch."""
    if len(each) == 1:
        return each[0]
    merged = reduce(TensorStats.merge, each)
    if len({len(stats.batch_lo) for stats in each}) > 1:
        return merged
    lo, hi = (torch.stack(edges, 1).flatten() for edges in ([s.batch_lo for s in each], [s.batch_hi for s in each]))
    return replace(merged, batch_lo=lo, batch_hi=hi)


def _merged_channels(one: TensorStats, two: TensorStats) -> tuple[torch.Tensor, ...]:
    if one.channel_lo is None or two.channel_lo is None or one.channel_lo.shape != two.channel_lo.shape:
        return ()
    assert one.channel_hi is not None and two.channel_hi is not None
    assert one.channel_power is not None and two.channel_power is not None
    share = two.count / max(one.count + two.count, 1)
    return (
        torch.minimum(one.channel_lo, two.channel_lo),
        torch.maximum(one.channel_hi, two.channel_hi),
        torch.lerp(one.channel_power, two.channel_power, share),
    )


def bucket_of(x: torch.Tensor) -> torch.Tensor:
    """Bucket of each value (int32): the top 13 bits of its float32 pattern, moved to 0..8191."""
    return (x.contiguous().view(torch.int32) >> 19).add_(BUCKETS // 2)


def tails(values: torch.Tensor, buckets: torch.Tensor) -> torch.Tensor:
    """Those of `values`, sorted, in the outermost of `buckets` that together hold at most TAIL values, at each end."""
    x, rising = values.numpy(), buckets.numpy()[ORDER]
    rising[ZERO] += rising[ZERO - 1]
    rising[ZERO - 1] = 0
    below = rising.cumsum()
    low = int(below.searchsorted(TAIL, "right"))
    high = int(below.searchsorted(below[-1] - TAIL)) + 1
    if 0 < low < BUCKETS and 0 < high < BUCKETS:  # comparing is many times faster than the bucket of every value
        x = x[np.flatnonzero((x < LEAST[low]) | (x > LARGEST[high - 1]))]
    rank = RANK[bucket_of(torch.from_numpy(x)).numpy()]
    return torch.from_numpy(np.sort(x[(rank < low) | (rank >= high)]))


def _within_buckets(bucket: torch.Tensor) -> torch.Tensor:
    """SPREAD values evenly spaced in each bucket."""
    steps = ((torch.arange(SPREAD) * 2 + 1) << 18) // SPREAD
    return (PATTERNS[bucket, None] + steps).to(torch.int32).view(torch.float32).flatten()


def _thin(samples: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """The first part of each batch's sample, whose order is scattered: its share of SAMPLES."""
    share = sample_share(len(samples))
    return tuple(s if len(s) <= share else s[:share].clone() for s in samples)


def sample_share(batches: int, total: int = SAMPLES) -> int:
    """How many raw values of each of so many batches are kept: `total` over the next power of two."""
    return max(total >> (batches - 1).bit_length(), 1)


PATTERNS = ((torch.arange(BUCKETS) - BUCKETS // 2) << 19).to(torch.int32)  # the first of each bucket
MAGNITUDES = PATTERNS.view(torch.float32).abs().numpy()
NEGATIVE = np.arange(BUCKETS) < BUCKETS // 2
ZERO = BUCKETS // 2
ORDER = np.concatenate([np.arange(ZERO)[::-1], np.arange(ZERO, BUCKETS)])  # buckets by rising value
RANK = ORDER.argsort()
RANK[0] = ZERO  # -0.0 counts as 0
FIRST, LAST = PATTERNS.numpy()[ORDER], PATTERNS.numpy()[ORDER] + (1 << 19) - 1
LEAST = np.where(NEGATIVE, LAST, FIRST).astype(np.int32).view(np.float32)  # by rank
LARGEST = np.where(NEGATIVE, FIRST, LAST).astype(np.int32).view(np.float32)
LEAST[ZERO], LARGEST[ZERO - 1] = LEAST[ZERO - 1], LARGEST[ZERO - 2]
