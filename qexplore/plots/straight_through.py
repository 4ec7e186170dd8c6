"""Fake-quantize above its derivative: the true one, and the one that training takes instead."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from qexplore.numerics.mapping import AffineMapping
from qexplore.plots.axes import NEUTRAL, axis
from qexplore.plots.theme import CLIPPED, FLOAT, INT8, SIMULATED, figure


def straight_through(
    mapping: AffineMapping, x: np.ndarray, quantized: np.ndarray, true: np.ndarray, estimated: np.ndarray
) -> go.Figure:
    """The staircase of a mapping and two derivatives of it.

    Args:
        x: float values, ascending, [n].
        quantized: what each becomes, [n].
        true, estimated: the derivative at each value, as computed, [n]; no unit.
    """
    jumps = mapping.levels[:-1] + mapping.scale / 2
    at = "at %{x:.3f}: %{y:.3g}<extra></extra>"
    traces = [
        go.Scatter(x=x, y=x, name="no rounding", line={"color": FLOAT, "width": 1.5}, hovertemplate=at),
        go.Scatter(
            x=x,
            y=quantized,
            name="fake-quantize",
            line={"color": SIMULATED, "width": 2, "shape": "hvh"},
            hovertemplate=at,
        ),
        go.Scatter(
            x=jumps,
            y=np.zeros(len(jumps)),
            yaxis="y2",
            name="jump: no derivative",
            mode="markers",
            marker={"symbol": "x-thin", "size": 8, "color": CLIPPED, "line": {"color": CLIPPED, "width": 1.5}},
            hovertemplate="jump at %{x:.3f}<extra></extra>",
        ),
        go.Scatter(
            x=x, y=true, yaxis="y2", name="true derivative", line={"color": NEUTRAL, "dash": "dash"}, hovertemplate=at
        ),
        go.Scatter(
            x=x,
            y=estimated,
            yaxis="y2",
            name="straight-through estimator",
            line={"color": INT8, "width": 2.5, "shape": "hvh"},
            hovertemplate=at,
        ),
    ]
    return figure(
        traces,
        "Fake-quantize and its derivative",
        [f"{len(mapping.levels)} levels, {mapping.lo:g} to {mapping.hi:g}; both derivatives as autograd gives them"],
        470,
        xaxis=axis("float value x (the tensor's own unit)", anchor="y2"),
        yaxis=axis("value that the model computes with (same unit)", 26, domain=[0.42, 1]),
        yaxis2=axis("derivative (no unit)", 14, domain=[0, 0.32], range=[-0.15, 1.25]),
    )
