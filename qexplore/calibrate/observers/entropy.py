"""The clip range whose quantized distribution is nearest to the float one in Kullback-Leibler divergence.

Source: Migacz 2017, "8-bit Inference with TensorRT" (GTC), the entropy calibrator, on the magnitudes of the values.
"""

from __future__ import annotations

import torch

from qexplore.calibrate.observers.observer import Option, observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec

STEPS = 120  # clip ranges that are tried
TINY = 1e-12


@observer(
    "entropy",
    "the least Kullback-Leibler divergence, as TensorRT has it",
    bins=Option(2048, 512, 8192, "bins", "How finely the magnitudes are counted."),
)
def entropy(stats: TensorStats, spec: TensorSpec, bins: float) -> tuple[float, float]:
    """Clip at the magnitude where the clipped distribution, counted in the quantizer's levels, loses least."""
    values, weights = stats.sample
    magnitudes = values.abs()
    top = float(magnitudes.max()) if len(magnitudes) else 0.0
    if top == 0:
        return stats.lo, stats.hi
    bins = int(bins)
    place = (magnitudes.double() * (bins / top)).long().clamp(max=bins - 1)
    counts = torch.bincount(place, weights, bins)
    counts[0] = counts[1]  # as TensorRT: the many zeros would decide everything
    one_sided = not spec.symmetric and (stats.lo >= 0 or stats.hi <= 0)
    levels = 2**spec.bits if one_sided else 2 ** (spec.bits - 1)
    ends = torch.linspace(min(levels, bins), bins, STEPS).long().unique()
    clip = float(ends[int(_divergences(counts, ends, levels).argmin())]) / bins * top
    return max(stats.lo, -clip), min(stats.hi, clip)


def _divergences(counts: torch.Tensor, ends: torch.Tensor, levels: int) -> torch.Tensor:
    """For each end, KL(p, q): p is the first `end` bins with all later ones added to the last, q the first `end` bins
    at `levels` levels, a level's counts spread evenly over its bins that are not empty.

    q is constant within a level, so sums over a level's bins come from cumulative sums.
    """
    before = _cumulative(counts)
    filled_before = _cumulative((counts > 0).double())
    own_before = _cumulative(torch.xlogy(counts, counts))
    edges = -(-torch.arange(levels + 1) * ends[:, None] // levels)
    mass, filled = before[edges].diff(dim=1), filled_before[edges].diff(dim=1)
    inside, rest, last = before[ends], before[-1] - before[ends], counts[ends - 1]
    q = mass / filled.clamp(min=1) / inside.clamp(min=TINY)[:, None]
    cross = torch.xlogy(mass, q.clamp(min=TINY)).sum(1)
    cross += torch.xlogy(rest, torch.where(last > 0, q[:, -1], TINY).clamp(min=TINY))
    own = own_before[ends] - torch.xlogy(last, last) + torch.xlogy(last + rest, last + rest)
    total = before[-1]
    return (own - cross) / total - total.log()


def _cumulative(values: torch.Tensor) -> torch.Tensor:
    """Sum of the values before each place, and of all."""
    return torch.cat([values.new_zeros(1), values.cumsum(0)])
