"""The bootstrap: its intervals hold what they should, and its ranks are as stable as the values are apart."""

from __future__ import annotations

import torch

from qexplore.analysis.resample import intervals
from tests.conftest import normal


def test_intervals_hold_the_mean_nine_times_in_ten() -> None:
    samples = normal(400, 100, seed=3).double() + 5.0
    table = intervals(samples, seed=0)
    held = ((table.low <= 5.0) & (table.high >= 5.0)).mean()
    assert 0.84 <= held <= 0.95


def test_ranks_are_sure_where_values_are_far_apart_and_not_where_they_are_equal() -> None:
    base = normal(6, 200, seed=1).double()
    apart = intervals(base + torch.arange(6).double().unsqueeze(1) * 3, seed=0)
    assert apart["rank"].tolist() == [6, 5, 4, 3, 2, 1]
    assert (apart.stability == 1).all()
    assert (apart.rank_low == apart.rank_high).all()
    alike = intervals(base, seed=0)
    assert alike.stability.max() < 0.9
    assert (alike.rank_high - alike.rank_low).max() >= 2


def test_the_seed_decides() -> None:
    samples = normal(5, 30).double()
    assert intervals(samples, 1).equals(intervals(samples, 1))
    assert not intervals(samples, 1).equals(intervals(samples, 2))
