"""What the playground's controls add up to: the one place that knows range and mapping."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qexplore.errors import QexploreError
from qexplore.numerics.mapping import AffineMapping
from qexplore.numerics.samples import LARGEST


@dataclass(frozen=True)
class Setting:
    """A clip range with bits, scheme and kind of codes; scale and zero point follow from it.

    Attributes:
        lo, hi: the range asked for, with zero in it.
        bits, symmetric, signed: of the codes.
        by_hand: the mapping typed by hand, of which `lo` and `hi` then are the range; None otherwise.
    """

    lo: float
    hi: float
    bits: int = 8
    symmetric: bool = False
    signed: bool = False
    by_hand: AffineMapping | None = None

    @property
    def mapping(self) -> AffineMapping:
        """Scale and zero point."""
        made = AffineMapping.of_range(self.lo, self.hi, self.bits, self.symmetric, self.signed)
        return self.by_hand or made

    @property
    def range(self) -> tuple[float, float]:
        """The clip range; of the symmetric scheme as wide to both sides."""
        end = max(-self.lo, self.hi)
        return (-end, end) if self.symmetric else (self.lo, self.hi)

    def whole(self, lo: float, hi: float) -> Setting:
        """The same with the range of values from `lo` to `hi`."""
        return replace(self, lo=min(lo, 0.0), hi=max(hi, 0.0), by_hand=None)

    def moved(self, name: str, value: Any) -> Setting:
        """The setting after a control moved.

        Args:
            name: "low" or "high" (of the range), "scale", "zero_point", or a field.

        Raises:
            QexploreError: a scale or a zero point that cannot be.
        """
        if name in ("scale", "zero_point"):
            pair = {"scale": self.mapping.scale, "zero_point": self.mapping.zero_point} | {name: value}
            made = AffineMapping.by_hand(**pair, bits=self.bits, signed=self.signed)
            lo, hi = (-made.half_width, made.half_width) if self.symmetric else (made.lo, made.hi)
            return replace(self, lo=lo, hi=hi, by_hand=made)
        if name in ("low", "high"):
            outward = -value if name == "low" else value
            if not 0 <= outward < LARGEST:
                raise QexploreError(f"The range cannot end at {value:g}: zero must lie in it, and it within ±1e37.")
            lo, hi = (-abs(value), abs(value)) if self.symmetric else self.range
            return replace(self, lo=value if name == "low" else lo, hi=value if name == "high" else hi, by_hand=None)
        return replace(self, by_hand=None, **{name: value})
