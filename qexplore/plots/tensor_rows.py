"""What the figures of one tensor read from a run's tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qexplore.plots.tabs import Shown

SHOWN_LEVELS = 64  # up to so many levels are all drawn; of more, every 8th or so


@dataclass(frozen=True)
class Grid:
    """The ranges of a tensor, an entry per channel, or a single one for all of it.

    Attributes:
        lo, hi: smallest and largest value that a code stands for.
        scale: distance of two neighbouring levels.
        levels: number of codes in use.
    """

    lo: np.ndarray
    hi: np.ndarray
    scale: np.ndarray
    levels: int

    @property
    def widest(self) -> int:
        """Channel with the widest range."""
        return int(np.argmax(self.hi - self.lo))

    @property
    def narrowest(self) -> int:
        """Channel with the narrowest range."""
        return int(np.argmin(self.hi - self.lo))

    def shown_levels(self) -> tuple[np.ndarray, int]:
        """Levels of the widest range to draw, and of how many each stands for one."""
        every = 1
        while self.levels > SHOWN_LEVELS and self.levels / every > SHOWN_LEVELS / 2:
            every *= 2
        codes = np.arange(0, self.levels, every)
        return self.lo[self.widest] + self.scale[self.widest] * codes, every


def tensor_row(shown: Shown, kind: str, name: str) -> dict[str, Any] | None:
    """The row of a tensor in the table; None where it is not quantized."""
    table = shown.tensors
    rows = table[(table.kind == kind) & (table.name == name)] if len(table) else table
    return dict(rows.iloc[0]) if len(rows) else None


def grid(row: dict[str, Any]) -> Grid:
    """The ranges in a row of the tensor table."""
    lo, hi, scale = (np.atleast_1d(np.asarray(row[key], dtype=float)) for key in ("lo", "hi", "scale"))
    return Grid(lo, hi, scale, int(row["quant_max"]) - int(row["quant_min"]) + 1)
