"""The clip range whose quantized distribution is nearest to the float one in Kullback-Leibler divergence.

Source: Migacz 2017, "8-bit Inference with TensorRT" (GTC), with the details of the entropy calibrator in NVIDIA's
pytorch-quantization (calib/histogram.py), on the magnitudes of the values.
"""

from __future__ import annotations

import torch

from qexplore.calibrate.observers.observer import Option, observer
from qexplore.calibrate.stats import TensorStats
from qexplore.recipe import TensorSpec

ENDS = 120  # clip ranges that are tried
KEPT = 0.5  # share of the values that a clip range holds at least; without it, one bin alone has no divergence


@observer(
    "entropy",
    "the least Kullback-Leibler divergence, as TensorRT has it",
    bins=Option(2048, 512, 8192, "bins", "How finely the magnitudes are counted."),
)
def entropy(stats: TensorStats, spec: TensorSpec, bins: int) -> tuple[float, float]:
    """Clip at the magnitude where the clipped distribution, counted in the quantizer's levels, loses least."""
    values, weights = stats.sample
    magnitudes = values.double().abs()
    top = float(magnitudes.max()) if len(magnitudes) else 0.0
    if top == 0:
        return stats.lo, stats.hi
    place = (magnitudes * (bins / top)).long().clamp(max=bins - 1)
    counts = torch.bincount(place, weights, bins)
    counts[0] = counts[1]  # as TensorRT: the many zeros would decide everything
    one_sided = not spec.symmetric and (stats.lo >= 0 or stats.hi <= 0)
    levels = 2**spec.bits if one_sided else 2 ** (spec.bits - 1)
    ends = torch.linspace(levels, bins, ENDS).long()
    ends = ends[counts.cumsum(0)[ends - 1] >= KEPT * counts.sum()]
    divergences = divergence(counts, ends, levels)
    clip = float(ends[divergences <= divergences.min()][-1]) / bins * top
    return max(stats.lo, -clip), min(stats.hi, clip)


def divergence(counts: torch.Tensor, ends: torch.Tensor, levels: int) -> torch.Tensor:
    """KL(p, q) for each end (float64, in nats): p is the first `end` bins with all later ones added to the last, q the
    first `end` bins at `levels` levels, a level's counts spread evenly over its bins that are not empty.

    q is constant within a level, so sums over a level's bins come from cumulative sums.
    """
    before, filled, own = (_cumulative(each) for each in (counts, (counts > 0).double(), torch.xlogy(counts, counts)))
    edges = -(-torch.arange(levels + 1) * ends[:, None] // levels)
    mass = before[edges].diff(dim=1)
    q = mass / filled[edges].diff(dim=1).clamp(min=1) / before[ends, None]
    last, rest = counts[ends - 1], before[-1] - before[ends]
    cross = torch.xlogy(mass, q).sum(1) + torch.xlogy(rest, torch.where(last > 0, q[:, -1], 0))
    own_clipped = own[ends] - torch.xlogy(last, last) + torch.xlogy(last + rest, last + rest)
    return (own_clipped - cross) / before[-1] - before[-1].log()


def _cumulative(values: torch.Tensor) -> torch.Tensor:
    """Sum of the values before each place, and of all."""
    return torch.cat([values.new_zeros(1), values.cumsum(0)])
