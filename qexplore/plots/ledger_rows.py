"""What the figures of a ledger share: what a layer's row says, and the frame around the chosen one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qexplore.analysis.ledger import IDEAL_RATIO, Ledger
from qexplore.analysis.local_errors import PARTS
from qexplore.plots.axes import NEUTRAL
from qexplore.plots.words import decibels, number, percent

HOVER = "%{customdata[1]}<extra></extra>"
NAMES = {  # in the order of stacking
    "activation_rounding": "activation rounding",
    "activation_clipping": "activation clipping",
    "weight_rounding": "weight rounding",
    "weight_clipping": "weight clipping",
}
assert set(NAMES) == set(PARTS)


def row_data(ledger: Ledger) -> np.ndarray:
    """The name and the hover text of each layer, [layers, 2]: a click reads the first."""
    rows = [[str(name), str(name) + _hover(row)] for name, row in ledger.layers.to_dict("index").items()]
    return np.array(rows, dtype=object).reshape(-1, 2)


def shares(ledger: Ledger) -> np.ndarray:
    """Each layer's share of the summed error at the output, in %."""
    found = 100 * ledger.layers["share"].to_numpy(dtype=float)
    return np.where(np.isfinite(found), found, 0.0)


def frame(place: int | None) -> dict[str, Any]:
    """A frame around the row at `place`; always one shape, so that a live figure only has to move it."""
    at = -1 if place is None else place
    return {
        "type": "rect",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": at - 0.47,
        "y1": at + 0.47,
        "line": {"color": NEUTRAL, "width": 2},
        "fillcolor": "rgba(128, 128, 128, 0.15)",
        "layer": "below",
        "visible": place is not None,
    }


def place_of(names: Sequence[str], selected: str) -> int | None:
    """Where the chosen layer stands; None where there is none of that name."""
    return list(names).index(selected) if selected and selected in names else None


def ledger_facts(ledger: Ledger) -> list[str]:
    """The lines under the title: how large the error is, what gradients make of it, and where most of it comes from."""
    if not len(ledger.layers):
        return []
    worst = str(ledger.layers.output_mse.idxmax())
    return [
        f"Model output: {decibels(ledger.sqnr_db)}. Most of the error from {worst}: "
        f"{percent(float(ledger.layers.share[worst]))}.",
        f"MSE there: {number(ledger.total_mse)} to first order, {number(ledger.output_mse)} measured.",
    ]


def _hover(row: dict[Any, Any]) -> str:
    """`row` without its name: kind, the figures, and what they are normally."""
    lines = [
        f"own error {decibels(row['local_sqnr_db'])}, normal {decibels(row['normal_db'])}"
        + (" (unusual)" if row["unusual"] else ""),
        f"{percent(row['share'])} of the error at the output ({number(row['output_mse'])})",
        "parts of its own error, of that at the output:",
        *(f"– {name} {_part(row, part)}" for part, name in NAMES.items()),
        f"– in common {_part(row, 'cross')}",
        f"with all layers quantized {decibels(row['accumulated_sqnr_db'])}",
        f"RMSE/scale: activations {_ratio(row['activation_ratio'])}, weights {_ratio(row['weight_ratio'])}",
        f"(rounding alone {IDEAL_RATIO:.4f})",
    ]
    return f" ({row['kind']})<br>" + "<br>".join(lines)


def _part(row: dict[Any, Any], part: str) -> str:
    """A part of the layer's own error and of what it brings to the output."""
    own, output = ((row[key], row[whole]) for key, whole in ((part, "local_mse"), (f"output_{part}", "output_mse")))
    return f"{_of(*own)}, {_of(*output)}"


def _of(value: float, whole: float) -> str:
    share = value / whole if whole else 0.0
    sign = "−" if share < 0 else ""
    # parts may be more than the whole where what they have in common is negative
    return sign + (f"{100 * abs(share):.0f} %" if abs(share) > 1 else percent(abs(share)))


def _ratio(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.4f}"
