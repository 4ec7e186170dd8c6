"""The range with the least squared error on a histogram of 2048 bins, for 256 levels whatever the bits.

Source: torch.ao's HistogramObserver and its search, itself from caffe2/quantization/server/norm_minimization.cc.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np
import torch

from qexplore.calibrate.observers.observer import observer
from qexplore.calibrate.stats import TensorStats
from qexplore.numerics.parts import range_errors
from qexplore.recipe import TensorSpec

BINS = 2048
LEVELS = 256
STEP = 1e-5  # share of the values given up at one end, step by step
DOUBT = 2.0  # standard errors of the estimate from a sample within which torch may stop or go on
MOST = 4  # ranges in question on either side of the one where the search stops
ROUNDING = 2e-7  # relative, of torch's sums of counts that it has moved from one histogram to the next
MARGIN = 0.01  # relative difference of errors that counts as none

Bins = tuple[int, int]


@observer("histogram", "the least squared error for 256 levels, as torch searches it")
def histogram(stats: TensorStats, spec: TensorSpec) -> tuple[float, float]:
    """Give up values at the ends, a hundred-thousandth at a time, until the error grows.

    torch sees all values; a sample of them leaves open where exactly it stops. Of the ranges in question this takes
    one whose error at the bits in use is about the least, so that torch's is hardly ever better.
    """
    width = (stats.hi - stats.lo) / BINS
    if width == 0 or stats.count == 0:
        return stats.lo, stats.hi
    known = len(stats.samples) == 1 and stats.samples[0].numel() == stats.count
    values, weights = (stats.samples[0], None) if known else stats.whole_sample
    place = ((values.double() - stats.lo) / width).long().clamp(0, BINS - 1)
    counts = torch.bincount(place, weights, BINS).double().numpy()
    if known:
        stops = _stops(counts)[:1]
    else:
        doubt = min(DOUBT / math.sqrt(len(values)), 0.5)
        stops = _stops(counts, doubt) + _stops(counts, doubt, ROUNDING if len(stats.samples) > 1 else 0.0)
    edges = stats.lo + width * (torch.tensor(list(dict.fromkeys(stops))) + torch.tensor([0, 1]))
    lo, hi = (edges[0] if len(edges) == 1 else _safest(stats, edges, spec)).tolist()
    return lo, hi


def _stops(counts: np.ndarray, doubt: float = 0.0, slack: float = 0.0) -> list[Bins]:
    """The ranges of bins at which torch's search may stop, the one at which this one does first.

    Args:
        counts: of each bin (float64).
        doubt: relative error of a range's error; 0 where the counts are torch's own.
        slack: relative error of sums of counts.
    """
    slopes = -np.diff(counts, prepend=0, append=0)
    at, least = (0, BINS - 1), math.inf
    early: list[Bins] = []
    late: list[Bins] = []
    for moved in _moves(counts.cumsum().astype(np.float32).tolist(), slack):
        error = _error(slopes, *moved)
        if late or error > least:
            late.append(at)
            if error > least * (1 + doubt) or len(late) > MOST:
                break
        elif error > least * (1 - doubt):
            early.append(at)
        at, least = moved, error
    else:
        late.append(at)
    return late + early[-MOST:]


def _moves(below: list[float], slack: float) -> Iterator[Bins]:
    """The first and last bin after each move; `below` is the cumulative count. The end that can jump further moves."""
    total, start, end, alpha, beta = below[-1], 0, BINS - 1, 0.0, 1.0
    while alpha < beta and start < end:
        left = min(max(bisect_left(below, np.float32((alpha + STEP + slack) * total)), start), end)
        right = max(min(bisect_right(below, np.float32((beta - STEP - slack) * total)) - 1, end), start)
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
    return float((place * place * place / 3 + level / 12) @ slopes) * step**3


def _safest(stats: TensorStats, edges: torch.Tensor, spec: TensorSpec) -> torch.Tensor:
    """Of the ranges [n, 2] whose error is about the least, the one nearest to the first."""
    values, weights = stats.whole_sample
    lo, hi = edges.float().unbind(1)
    errors = range_errors(values, weights, lo, hi, spec.bits, spec.symmetric)
    if spec.symmetric:  # activations have the odd code at the upper end, weights at the lower
        errors += range_errors(-values, weights, -hi, -lo, spec.bits, spec.symmetric)
    fine = edges[errors <= errors.min() * (1 + MARGIN)]
    return fine[(fine - edges[0]).abs().sum(1).argmin()]


EDGES = np.arange(BINS + 1, dtype=np.float64)
