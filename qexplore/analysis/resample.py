"""How far values and ranks of layers can be trusted: the bootstrap over samples (Efron 1979)."""

from __future__ import annotations

import math

import pandas as pd
import torch

RESAMPLES = 500
FEW = 8  # samples; with fewer there is nothing to say of an interval
SURE = 0.9  # share of the resamples that an interval holds


def intervals(by_sample: torch.Tensor, seed: int) -> pd.DataFrame:
    """Mean, interval and rank of each row.

    Args:
        by_sample: float64 [rows, samples].

    Returns:
        A row each: mean; low and high (its 90 % interval); rank (1 has the largest mean); rank_low and rank_high (the
        interval of the rank); stability (share of the resamples in which the row keeps its rank). With fewer than 8
        samples all of these but mean and rank are NaN.
    """
    rows, samples = by_sample.shape
    generator = torch.Generator().manual_seed(seed)
    picked = torch.randint(0, samples, (RESAMPLES, samples), generator=generator)
    times = torch.zeros(RESAMPLES, samples, dtype=torch.float64)
    times.scatter_add_(1, picked, torch.ones_like(times))
    means = by_sample @ times.T / samples  # [rows, resamples]
    mean = by_sample.mean(1)
    rank, ranks = _ranks(mean.unsqueeze(1))[:, 0], _ranks(means)
    ends = torch.tensor([(1 - SURE) / 2, (1 + SURE) / 2], dtype=torch.float64)
    low, high = means.quantile(ends, dim=1)
    rank_low, rank_high = ranks.double().quantile(ends, dim=1).round()
    stability = (ranks == rank.unsqueeze(1)).double().mean(1)
    if samples < FEW:
        for each in (low, high, rank_low, rank_high, stability):
            each.fill_(math.nan)
    return pd.DataFrame(
        {
            "mean": mean.numpy(),
            "low": low.numpy(),
            "high": high.numpy(),
            "rank": rank.numpy(),
            "rank_low": rank_low.numpy(),
            "rank_high": rank_high.numpy(),
            "stability": stability.numpy(),
        },
        index=range(rows),
    )


def _ranks(values: torch.Tensor) -> torch.Tensor:
    """Rank of each row in each column, 1 for the largest; the earlier of equal ones comes first."""
    return values.argsort(dim=0, descending=True, stable=True).argsort(dim=0) + 1
