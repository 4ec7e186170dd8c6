"""The range with the least squared error on a histogram of 2048 bins, for 256 levels whatever the bits.

Source: torch.ao's HistogramObserver and its search, itself from caffe2/quantization/server/norm_minimization.cc.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch

from qexplore.calibrate.observers.observer import observer
from qexplore.calibrate.stats import BUCKETS, FEW, SPREAD, TensorStats, _within_buckets, bucket_of
from qexplore.numerics.parts import range_errors
from qexplore.recipe import TensorSpec

BINS = 2048
LEVELS = 256
STEP = 1e-5  # share of the values given up at one end, step by step
DOUBT = 2.0  # standard errors of the estimate from a sample within which torch may stop or go on
MOST = 6  # ranges looked at before the one where the search stops, and after
MARGIN = 0.01  # relative difference of errors that counts as none

Bins = tuple[int, int]


@observer("histogram", "the least squared error for 256 levels, as torch searches it")
def histogram(stats: TensorStats, spec: TensorSpec) -> tuple[float, float]:
    """Give up values at the ends, a hundred-thousandth at a time, until the error grows.

    torch sees all values; with a sample of them it is in doubt where exactly it stops. Of the ranges in question this
    takes the one whose error at the bits in use is about the least, so that torch's is hardly ever better.
    """
    width = (stats.hi - stats.lo) / BINS
    if width == 0 or stats.count == 0:
        return stats.lo, stats.hi
    values, weights = _every_value(stats)
    place = ((values.double() - stats.lo) / width).long().clamp(0, BINS - 1)
    counts = torch.bincount(place, weights, BINS).numpy()
    known = len(stats.samples) == 1 and stats.samples[0].numel() == stats.count
    stops, own = _stops(counts, 0.0 if known else min(DOUBT / math.sqrt(len(values)), 0.5))
    edges = stats.lo + width * (torch.tensor(stops) + torch.tensor([0, 1]))
    if len(stops) > 1:
        own = _safest(stats, edges[:, 0].float(), edges[:, 1].float(), own, spec)
    lo, hi = edges[own].tolist()
    return lo, hi


def _every_value(stats: TensorStats) -> tuple[torch.Tensor, torch.Tensor]:
    """As `stats.sample`, of all values kept."""
    values = torch.cat(stats.samples)
    tails = getattr(stats, "tails", torch.empty(0))
    count = stats.buckets.numpy()
    complete = np.bincount(bucket_of(tails).numpy(), minlength=BUCKETS) == count
    values = torch.cat([values[torch.from_numpy(~complete[bucket_of(values).numpy()])], tails])
    bucket = bucket_of(values).numpy()
    held = np.bincount(bucket, minlength=BUCKETS)
    sparse = (held < FEW) & (held < count)
    kept = ~sparse[bucket]
    spread = _within_buckets(torch.from_numpy(np.flatnonzero(sparse))).clamp(stats.lo, stats.hi)
    weights = np.concatenate([(count / held.clip(1))[bucket[kept]], (count[sparse] / SPREAD).repeat(SPREAD)])
    return torch.cat([values[torch.from_numpy(kept)], spread]), torch.from_numpy(weights)


def _stops(counts: np.ndarray, doubt: float) -> tuple[list[Bins], int]:
    """The ranges of bins at which torch's search may stop, and the place of the one at which this one does.

    Args:
        counts: of each bin (float64).
        doubt: relative error of a range's error; 0 where the counts are torch's own.
    """
    slopes = -np.diff(counts, prepend=0, append=0)
    at, least = (0, BINS - 1), math.inf
    stops: list[Bins] = []
    own = None
    for moved in _moves(counts.cumsum().astype(np.float32).tolist()):
        error = _error(slopes, *moved)
        if error > least * (1 - doubt):
            stops.append(at)
            if own is None and error > least:
                own = len(stops) - 1
            if own is not None and (error > least * (1 + doubt) or len(stops) > own + MOST):
                break
        at, least = moved, error
    else:
        stops.append(at)
        own = len(stops) - 1 if own is None else own
    first = max(own - MOST, 0)
    return stops[first:], own - first


def _moves(below: list[float]) -> Iterator[Bins]:
    """The first and last bin after each move; `below` is the cumulative count. The end that can jump further moves."""
    total, start, end, alpha, beta = below[-1], 0, BINS - 1, 0.0, 1.0
    while alpha < beta and start < end:
        left = min(max(bisect_left(below, np.float32((alpha + STEP) * total)), start), end)
        right = max(min(bisect_right(below, np.float32((beta - STEP) * total)) - 1, end), start)
        if left - start > end - right:
            alpha, start = alpha + STEP, left
            yield start, end
        elif right < end:
            beta, end = beta - STEP, right
            yield start, end
        else:  # give up as many steps at once as move neither end
            beta -= STEP * max(math.floor((beta - below[end] / total) / STEP) - 1, 1)


def _error(slopes: np.ndarray, first: int, last: int) -> float:
    """Squared error of a histogram quantized to a range of bins, in squared widths of a bin.

    With values uniform within bins it is a sum over bins of F(end) - F(begin), where F is the integral of the squared
    distance to the nearest level; so it is one over the edges of F times how much the counts fall there (`slopes`).
    """
    step = (last - first + 1) / LEVELS
    place = (EDGES - first) / step
    level = np.floor(place).clip(0, LEVELS - 1)
    place -= level + 0.5
    return float((place**3 / 3 + level / 12) @ slopes) * step**3


def _safest(stats: TensorStats, lo: torch.Tensor, hi: torch.Tensor, own: int, spec: TensorSpec) -> int:
    """The place of the range nearest to `own` whose error is about the least."""
    values, weights = stats.sample
    errors = range_errors(values, weights, lo, hi, spec.bits, spec.symmetric)
    if spec.symmetric:  # activations have the odd code at the upper end, weights at the lower
        errors += range_errors(-values, weights, -hi, -lo, spec.bits, spec.symmetric)
    fine = (errors <= errors.min() * (1 + MARGIN)).nonzero().flatten().tolist()
    return min(fine, key=lambda place: (abs(place - own), -place))


EDGES = np.arange(BINS + 1, dtype=np.float64)
