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

LABEL = 0.12  # width of a label, as a share of the axis


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
            text=np.array([labels.get(name, " ") for name in rows.index], dtype=str),
            customdata=np.array(rows.index, dtype=str),
            textposition="bottom center",
            cliponaxis=False,
            marker={"color": color, "symbol": symbol, "size": 10, "line": {"width": 1}},
            name=label,
            showlegend=bool(len(rows)),
            hovertemplate="%{customdata}: clipped at %{x:.4g}<br>error %{y:.3g}<extra></extra>",
        )

    left = min([curve.clip[best], *choices["clip"]]) / 3
    labels = _labels(choices["clip"].to_dict(), (1.3 * curve.clip[-1] / left) ** LABEL)
    facts = [
        f"At {spec.bits} bits the error is least when clipped near ±{number(curve.clip[best])} "
        f"({number(curve.clip[best] / curve.clip[-1] * 100, 2)} % of the largest).",
        "Further left clipping takes over; further right steps get coarse.",
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
        xaxis=axis(
            f"clip magnitude (unit of {name}, log)",
            type="log",
            range=[np.log10(max(left, curve.clip[0])), np.log10(curve.clip[-1] * 1.3)],
        ),
        yaxis=axis("mean squared error (log)", type="log", exponentformat="power", **_reach(total[curve.clip >= left])),
    )


def _reach(total: np.ndarray) -> dict[str, Any]:
    """Where the sum of both errors lies, with room for labels; one of the parts alone may be far smaller."""
    positive = total[total > 0]
    if not len(positive):
        return {}
    lowest, highest = np.log10(positive.min()), np.log10(positive.max())
    return {"range": [lowest - 0.35 * max(highest - lowest, 1), highest + 0.2]}


def _labels(clips: dict[str, float], apart: float) -> dict[str, str]:
    """What to write at an observer's mark: those less than a factor `apart` share one label, at the first of them."""
    groups: list[list[str]] = []
    for name, clip in sorted(clips.items(), key=lambda entry: entry[1]):
        if groups and clip < clips[groups[-1][0]] * apart:
            groups[-1].append(name)
        else:
            groups.append([name])
    return {group[0]: group[0] + (f" and {len(group) - 1} more" if len(group) > 1 else "") for group in groups}
