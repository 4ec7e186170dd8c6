"""Which layer to give fewer bits next: a greedy walk down the trade-off between bytes and error.

Steps may jump over several bits, so that a walk follows each layer's lower convex hull (Shoham and Gersho 1988,
"Efficient Bit Allocation for an Arbitrary Set of Quantizers").
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

Picked = tuple[int, ...]  # for each layer, the position of its choice


@dataclass(frozen=True, eq=False)
class Choices:
    """What each choice of bits costs in each layer.

    Attributes:
        layers: their names, in the model's order.
        bits: of the choices, falling.
        mse: mean squared error that the layer brings to the output, float64 [layers, choices].
        sizes: bytes of the layer's weights with their scales, float64 [layers, choices].
        other_mse, other_bytes: of all that is not chosen here.
    """

    layers: tuple[str, ...]
    bits: tuple[int, ...]
    mse: torch.Tensor
    sizes: torch.Tensor
    other_mse: float
    other_bytes: int

    @property
    def most(self) -> Picked:
        """All layers at the most bits."""
        return (0,) * len(self.layers)

    def bytes_of(self, picked: Picked) -> int:
        """Bytes of the whole model."""
        return self.other_bytes + int(self._at(self.sizes, picked).sum())

    def mse_of(self, picked: Picked) -> float:
        """The summed errors of all layers."""
        return self.other_mse + float(self._at(self.mse, picked).sum())

    def _at(self, table: torch.Tensor, picked: Picked) -> torch.Tensor:
        return table.gather(1, torch.tensor(picked).unsqueeze(1))

    def _moved(self, picked: Picked) -> tuple[torch.Tensor, torch.Tensor]:
        """What each choice would change: error and bytes, [layers, choices]."""
        return self.mse - self._at(self.mse, picked), self.sizes - self._at(self.sizes, picked)

    def lowered(self, picked: Picked, most_mse: float = math.inf) -> Picked | None:
        """One layer at fewer bytes, the one with the least increase of the error per byte saved.

        Args:
            most_mse: choices whose summed error would be larger are left out.

        Returns:
            None where no choice is left.
        """
        more, bytes_more = self._moved(picked)
        fits = (bytes_more < 0) & (self.mse_of(picked) + more <= most_mse)
        return _changed(picked, torch.where(fits, more / -bytes_more, math.inf))

    def raised(self, picked: Picked, most_bytes: float) -> Picked | None:
        """One layer at more bytes, the one with the largest decrease of the error per byte; None where none fits."""
        more, bytes_more = self._moved(picked)
        fits = (bytes_more > 0) & (more < 0) & (self.bytes_of(picked) + bytes_more <= most_bytes)
        return _changed(picked, torch.where(fits, more / bytes_more, math.inf))


def descent(choices: Choices) -> Iterator[Picked]:
    """The whole walk, from all layers at the most bits to all at the fewest bytes."""
    picked: Picked | None = choices.most
    while picked is not None:
        yield picked
        picked = choices.lowered(picked)


def within_bytes(choices: Choices, most_bytes: float) -> Picked | None:
    """The first of the walk that fits, with the bytes left over given back where they help most; None if none fits."""
    picked = next((each for each in descent(choices) if choices.bytes_of(each) <= most_bytes), None)
    better = picked
    while better is not None:
        picked, better = better, choices.raised(better, most_bytes)
    return picked


def within_mse(choices: Choices, most_mse: float) -> Picked:
    """The end of a walk that leaves out every step whose summed error is larger than wanted."""
    picked, lower = choices.most, choices.lowered(choices.most, most_mse)
    while lower is not None:
        picked, lower = lower, choices.lowered(lower, most_mse)
    return picked


def _changed(picked: Picked, cost: torch.Tensor) -> Picked | None:
    """`picked` with the choice of least cost; None where every cost is infinite."""
    if not cost.numel() or not bool(cost.isfinite().any()):
        return None
    layer, choice = divmod(int(cost.argmin()), cost.shape[1])
    return (*picked[:layer], choice, *picked[layer + 1 :])
