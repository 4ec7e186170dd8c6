"""Quantization-aware training while it goes on: the loss of every step, the metric of every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from qexplore.plots.axes import NEUTRAL, axis
from qexplore.plots.theme import EMPTY, FLOAT, INT8, SIMULATED, figure

Points = Sequence[tuple[float, float]]  # (epochs done, value)


def live_training(
    losses: Points,
    metrics: Points,
    epochs: int,
    metric: str,
    float_metric: float | None = None,
    int8_metric: float | None = None,
) -> go.Figure:
    """Loss and metric over epochs; the horizontal axis holds the whole training from the start.

    Args:
        losses: after every step.
        metrics: of the fake-quantized model, before training and after every epoch.
        metric: its name, with its unit.
        float_metric, int8_metric: of the float model and of the converted one; None while not known.
    """
    step_at, loss = _columns(losses)
    epoch_at, value = _columns(metrics)
    hover = "epoch %{x:.2f}<br>%{y:.4g}<extra></extra>"
    line = [0, epochs] if float_metric is not None else EMPTY
    traces = [
        go.Scatter(
            x=step_at, y=loss, name="loss of a step", line={"color": NEUTRAL, "width": 1.5}, hovertemplate=hover
        ),
        go.Scatter(
            x=epoch_at,
            y=value,
            yaxis="y2",
            name="fake-quantized model",
            mode="lines+markers",
            line={"color": SIMULATED},
            marker={"symbol": "diamond", "size": 9},
            hovertemplate=hover,
        ),
        go.Scatter(
            x=line,
            y=np.full(len(line), float_metric, dtype=float),
            yaxis="y2",
            name="float model",
            mode="lines",
            line={"color": FLOAT, "dash": "dash"},
            hovertemplate="float model<br>%{y:.4g}<extra></extra>",
            showlegend=float_metric is not None,
        ),
        go.Scatter(
            x=EMPTY if int8_metric is None else np.array([epochs]),
            y=EMPTY if int8_metric is None else np.array([int8_metric]),
            yaxis="y2",
            name="int8 model",
            mode="markers",
            marker={"symbol": "star-open", "size": 14, "color": INT8, "line": {"width": 2}},
            hovertemplate="int8 model after conversion<br>%{y:.4g}<extra></extra>",
            showlegend=int8_metric is not None,
        ),
    ]
    done = max([0.0, *step_at, *epoch_at])
    return figure(
        traces,
        "Quantization-aware training",
        [f"{done:.2g} of {epochs} epoch{'s' if epochs > 1 else ''} done, {len(losses)} steps"],
        430,
        xaxis=axis("epoch", anchor="y", range=[-0.03 * epochs, 1.03 * epochs], dtick=1 if epochs < 12 else None),
        yaxis=axis("loss (the training's own unit)", 20, domain=[0, 0.44], rangemode="tozero"),
        yaxis2=axis(metric, 24, domain=[0.54, 1], anchor="x"),
    )


def _columns(points: Points) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(points, dtype=float).reshape(-1, 2)
    return table[:, 0], table[:, 1]
