"""Where the error comes from: a bar per layer, in the parts that rounding and clipping make of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis.ledger import Ledger
from qexplore.errors import QexploreError
from qexplore.plots.axes import FRAME, axis, layer_axis, layers_height, shortened
from qexplore.plots.ledger_rows import HOVER, NAMES, frame, ledger_facts, place_of, row_data, shares
from qexplore.plots.theme import CLIPPED, figure

ACTIVATION = "#8A6FD1"
WEIGHT = "#B39B2E"
NORMAL = "#F0E442"  # with a dark rim it stands out on bars and on any page
ORDERS = ("model", "error")
QUANTITIES = {
    "output": "Share of the error at the model's output in %",
    "local": "Noise to signal (RMS) of the layer's own output in %",
}
MORE = 110  # pixels that five rows of legend take on narrow pages
ODD = "⚠"


def ledger_bars(ledger: Ledger, order: str = "model", what: str = "output", selected: str = "") -> go.Figure:
    """Each layer's error as a bar, divided like the mean squared errors of its four parts.

    The parts have something in common, so the division is in proportion; the hover has the parts themselves.

    Args:
        order: "model", from top to bottom, or "error", the worst on top.
        what: "output", share of the summed output_mse in %; or "local", RMS error over RMS signal of the layer's
            own output in %, with a mark at what is normal. As a ratio of powers, normal layers would be too short
            to see beside a bad one.
        selected: a layer to frame.
    """
    if order not in ORDERS or what not in QUANTITIES:
        raise QexploreError(f"order is one of {ORDERS} and what of {tuple(QUANTITIES)}, not {order!r} and {what!r}.")
    lengths = shares(ledger) if what == "output" else noise_to_signal(ledger.layers.local_sqnr_db.to_numpy(dtype=float))
    ranks = np.argsort(-lengths, kind="stable") if order == "error" else np.arange(len(lengths))
    table, lengths, data = ledger.layers.iloc[ranks], lengths[ranks], row_data(ledger)[ranks]
    names, places = [str(name) for name in table.index], np.arange(len(ranks))
    prefix = "output_" if what == "output" else ""
    parts = table[[prefix + part for part in NAMES]].to_numpy(dtype=float)
    sums = parts.sum(1, keepdims=True)
    # an error without parts would be no bar at all: it goes to rounding
    divided = np.divide(parts, sums, out=np.eye(1, len(NAMES)).repeat(len(parts), 0), where=sums > 0)
    bars = [
        go.Bar(
            x=divided[:, i] * lengths,
            y=places,
            orientation="h",
            customdata=data,
            name=NAMES[part],
            marker=_marker(part),
            hovertemplate=HOVER,
        )
        for i, part in enumerate(NAMES)
    ]
    height = layers_height(len(names)) + MORE
    labels = [f"{shortened(name)} {ODD}" if odd else name for name, odd in zip(names, table.unusual, strict=True)]
    facts = ledger_facts(ledger)
    if table.unusual.any():
        facts.append(f"{ODD} unusual: own RMS error more than twice the normal.")
    drawn = figure(
        [*bars, _normal(table.normal_db.to_numpy(dtype=float), places, data, what == "local")],
        "Where the error comes from" if what == "output" else "Each layer's own error",
        facts,
        height,
        None if names else "There are no quantized layers.",
        xaxis=axis(QUANTITIES[what], 30, rangemode="tozero"),
        yaxis=layer_axis(labels, height - FRAME - MORE),
        barmode="stack",
        bargap=0.25,
        shapes=[frame(place_of(names, selected))],
    )
    drawn.layout.legend.traceorder = "normal"  # stacked bars are listed backwards otherwise
    return drawn


def noise_to_signal(sqnr_db: np.ndarray) -> np.ndarray:
    """RMS error over RMS signal in %; 0 where there is no error or no signal."""
    found = np.zeros(len(sqnr_db))
    finite = np.isfinite(sqnr_db)
    found[finite] = 100 * 10 ** (-sqnr_db[finite] / 20)
    return found


def _marker(part: str) -> dict[str, Any]:
    """Violet is of activations, ochre of weights; stripes in the colour of clipping mark what is clipped."""
    color = ACTIVATION if part.startswith("activation") else WEIGHT
    if part.endswith("rounding"):
        return {"color": color}
    stripes = {"shape": "/", "size": 5, "solidity": 0.5, "fgcolor": CLIPPED, "fgopacity": 1, "bgcolor": color}
    return {"color": color, "pattern": stripes}


def _normal(normal_db: np.ndarray, places: np.ndarray, data: np.ndarray, shown: bool) -> go.Scatter:
    there = np.isfinite(normal_db) & shown
    return go.Scatter(
        x=noise_to_signal(normal_db[there]),
        y=places[there],
        mode="markers",
        marker={"symbol": "diamond-tall", "size": 12, "color": NORMAL, "line": {"width": 1, "color": "#333333"}},
        name="normal",
        visible=bool(there.any()),
        customdata=data[there],
        hovertemplate=HOVER,
    )
