"""The range with the least squared error on a histogram of 2048 bins, for 256 levels whatever the bits.

Source: torch.ao's HistogramObserver and its search, itself from caffe2/quantization/server/norm_minimization.cc.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import islice

import torch

from qexplore.calibrate.observers.observer import observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec

BINS = 2048
LEVELS = 256
STEP = 1e-5  # share of the values given up at one end, step by step
BLOCK = 16  # moves whose error is computed at once


@observer("histogram", "the least squared error for 256 levels, as torch searches it")
def histogram(stats: TensorStats, spec: TensorSpec) -> tuple[float, float]:
    """Give up values at the ends, a hundred-thousandth at a time, until the error grows."""
    width = (stats.hi - stats.lo) / BINS
    if width == 0 or stats.count == 0:
        return stats.lo, stats.hi
    values, weights = stats.sample
    place = ((values.double() - stats.lo) / width).long().clamp(0, BINS - 1)
    counts = torch.bincount(place, weights, BINS)
    start, end, least = 0, BINS - 1, float("inf")
    moves = _moves(counts.cumsum(0).tolist())
    while block := list(islice(moves, BLOCK)):
        errors = _errors(counts, torch.tensor(block, dtype=torch.float64), width)
        for (first, last), error in zip(block, errors.tolist(), strict=True):
            if error > least:
                return stats.lo + width * start, stats.lo + width * (end + 1)
            start, end, least = first, last, error
    return stats.lo + width * start, stats.lo + width * (end + 1)


def _moves(below: list[float]) -> Iterator[tuple[int, int]]:
    """The first and last bin after each move; `below` is the cumulative count. The end that can jump further moves."""
    total, start, end, alpha, beta = below[-1], 0, BINS - 1, 0.0, 1.0
    while alpha < beta:
        left = min(max(bisect_left(below, (alpha + STEP) * total), start), end)
        right = max(min(bisect_right(below, (beta - STEP) * total) - 1, end), start)
        if left - start > end - right:
            alpha, moved = alpha + STEP, (left, end)
        else:
            beta, moved = beta - STEP, (start, right)
        if moved != (start, end):
            start, end = moved
            yield moved


def _errors(counts: torch.Tensor, ranges: torch.Tensor, width: float) -> torch.Tensor:
    """Squared error of the histogram, taken as uniform within bins, quantized to each range of bins [ranges, 2]."""
    first, last = ranges[:, :1], ranges[:, 1:]
    step = width * (last - first + 1) / LEVELS
    begin = (torch.arange(BINS, dtype=torch.float64) - first) * width
    level_of_begin = (begin / step).floor().clamp(0, LEVELS - 1)
    level_of_end = ((begin + width) / step).floor().clamp(0, LEVELS - 1)
    error = (step / 2) ** 3 - (begin - (level_of_begin + 0.5) * step) ** 3
    error += (level_of_end - level_of_begin - 1) * 2 * (step / 2) ** 3
    error += (begin + width - (level_of_end + 0.5) * step) ** 3 + (step / 2) ** 3
    return (error * counts).sum(1) / (3 * width)
