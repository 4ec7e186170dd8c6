"""The parts of a histogram: bars, the rug of levels, and the ends of a range."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.plots.axes import NEUTRAL
from qexplore.plots.theme import CLIPPED, EMPTY, FLOAT, RANGE
from qexplore.plots.words import number

WITHIN: dict[str, Any] = {"color": FLOAT}
BEYOND: dict[str, Any] = {
    "color": CLIPPED,
    "pattern": {"shape": "/", "size": 5, "fillmode": "replace", "solidity": 0.6},
}


def bars(edges: np.ndarray, counts: np.ndarray, shown: np.ndarray, name: str, marker: dict[str, Any]) -> go.Bar:
    """The bins in `shown` as bars from edge to edge."""
    starts, ends = edges[:-1][shown], edges[1:][shown]
    return go.Bar(
        x=(starts + ends) / 2,
        y=counts[shown],
        width=ends - starts,
        customdata=np.stack([starts, ends], axis=-1),
        name=name,
        marker=marker | {"line": {"width": 0}},
        hovertemplate="%{customdata[0]:.4g} to %{customdata[1]:.4g}<br>about %{y:,.0f} values, "
        f"{name}<extra></extra>",
    )


def rug(levels: np.ndarray, name: str) -> go.Scatter:
    """A short line at each level, on the second vertical axis."""
    return go.Scatter(
        x=levels,
        y=np.zeros(len(levels)),
        yaxis="y2",
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 11, "color": NEUTRAL, "line": {"width": 1}},
        name=name,
        hovertemplate="level %{x:.4g}<extra></extra>",
    )


def ends(bounds: tuple[float, float] | None, name: str, height: float, labelled: bool) -> go.Scatter:
    """Vertical lines at the ends of a range, from count 0.01 up to `height`; nothing for None.

    Texts are never empty: plotly.js drops an empty text's element, and with it others when it redraws.
    """
    there = bounds is not None
    lo, hi = bounds or (0.0, 0.0)
    return go.Scatter(
        x=np.array([lo, lo, np.nan, hi, hi]) if there else EMPTY,
        y=np.array([0.01, height, np.nan, 0.01, height]) if there else EMPTY,
        mode="lines+text",
        text=np.array([" ", "lo", " ", " ", "hi"] if labelled else [" "] * 5) if there else EMPTY,
        textposition="top center",
        line={"color": RANGE, "width": 2, "dash": "dash" if labelled else "dot"},
        name=f"{name} {number(lo)} to {number(hi)}" if there else name,
        showlegend=there,
        hovertemplate=f"{name} ends at %{{x:.4g}}<extra></extra>",
    )
