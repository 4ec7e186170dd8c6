"""The error of a tensor against where its range is clipped: rounding falls, clipping rises."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Prediction
from qexplore.plots.axes import axis
from qexplore.plots.tabs import BOTH, tab
from qexplore.plots.theme import CLIPPED, FLOAT, PREDICTED, RANGE, figure
from qexplore.plots.words import number


@tab("Clip range", tensors=BOTH, of="prediction")
def clip_range(prediction: Prediction, kind: str, name: str) -> go.Figure:
    """Mean squared error against the clip magnitude (both log), with every observer's choice as a mark.

    Args:
        kind, name: of a tensor in `prediction.tensors`. Weights are taken per tensor here.
    """
    curve, spec = prediction.curve(kind, name)
    total = curve.rounding + curve.clipping
    choices = curve.choices
    chosen = np.array([each == spec.observer for each in choices.index])
    best = int(np.argmin(total)) if len(total) else 0

    def line(values: np.ndarray, label: str, color: str, dash: str) -> go.Scatter:
        there = values > 0
        return go.Scatter(
            x=curve.clip[there],
            y=values[there],
            mode="lines",
            name=label,
            line={"color": color, "dash": dash, "width": 2},
            hovertemplate=f"clipped at %{{x:.4g}}<br>{label} %{{y:.3g}}<extra></extra>",
        )

    def marks(which: np.ndarray, label: str, color: str, symbol: str) -> go.Scatter:
        rows = choices[which & (choices.mse.to_numpy(dtype=float) > 0)]
        return go.Scatter(
            x=rows["clip"].to_numpy(dtype=float),
            y=rows.mse.to_numpy(dtype=float),
            mode="markers+text",
            text=np.array(rows.index, dtype=str),
            textposition=_positions(rows["clip"].to_numpy(dtype=float)),
            marker={"color": color, "symbol": symbol, "size": 10, "line": {"width": 1}},
            name=label,
            hovertemplate="%{text}: clipped at %{x:.4g}<br>error %{y:.3g}<extra></extra>",
        )

    facts = [
        f"At {spec.bits} bits the error is least when clipped near ±{number(curve.clip[best])}, "
        f"{number(curve.clip[best] / curve.clip[-1] * 100, 2)} % of the largest magnitude.",
        "Left: clipping takes over. Right: steps get coarse.",
    ]
    return figure(
        [
            line(curve.rounding, "rounding error", FLOAT, "dash"),
            line(curve.clipping, "clipping error", CLIPPED, "dot"),
            line(total, "both", PREDICTED, "solid"),
            marks(~chosen, "observers", PREDICTED, "circle"),
            marks(chosen, f"chosen: {spec.observer}", RANGE, "diamond"),
        ],
        f"Error by clip range: {name}" + (" (weight, per tensor)" if kind == "weight" else ""),
        facts,
        430,
        xaxis=axis(f"clip magnitude (unit of {name}, log)", type="log"),
        yaxis=axis("mean squared error (that unit squared, log)", type="log", exponentformat="power", **_reach(total)),
    )


def _reach(total: np.ndarray) -> dict[str, Any]:
    """Where the sum of both errors lies; one of the parts alone may be far smaller."""
    positive = total[total > 0]
    if not len(positive):
        return {}
    return {"range": [np.log10(positive.min()) - 0.7, np.log10(positive.max()) + 0.3]}


def _positions(x: np.ndarray) -> list[str]:
    """Labels in turn above, below and beside their marks, since observers often agree."""
    turns = ["top center", "bottom center", "middle left", "middle right"]
    order = np.argsort(np.argsort(x))
    return [turns[place % len(turns)] for place in order]
