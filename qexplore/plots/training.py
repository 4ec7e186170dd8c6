"""How quantization-aware training went, epoch by epoch."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.axes import NEUTRAL, axis
from qexplore.plots.tabs import tab
from qexplore.plots.theme import EMPTY, FLOAT, INT8, SIMULATED, figure
from qexplore.plots.words import metric_name, number

NO_TRAINING = "No training in this run: only quantization-aware training (mode 'qat') has epochs to show."


@tab("Training")
def training(run: Run) -> go.Figure:
    """Loss and metric after each epoch of QAT (epoch 0: before training), with float's metric as a dashed line."""
    epochs, loss, metric = (run.history[key].to_numpy(dtype=float) for key in ("epoch", "loss", "metric"))
    trained = len(epochs) > 0
    before = run.metrics["float"] if trained else None
    ends = EMPTY if before is None else np.array([epochs[0], epochs[-1]])
    int8 = run.metrics["int8"] if trained else None
    marks = {"mode": "lines+markers", "hovertemplate": "epoch %{x}<br>%{y:.4g}<extra></extra>"}
    traces = [
        go.Scatter(
            x=epochs,
            y=loss,
            name="training loss",
            line={"color": NEUTRAL},
            marker={"symbol": "circle", "size": 7},
            **marks,
        ),
        go.Scatter(
            x=epochs,
            y=metric,
            yaxis="y2",
            name="fake-quantized model",
            line={"color": SIMULATED},
            marker={"symbol": "diamond", "size": 8},
            **marks,
        ),
        go.Scatter(
            x=ends,
            y=np.full(len(ends), np.nan if before is None else before),
            yaxis="y2",
            name="float model",
            mode="lines",
            line={"color": FLOAT, "dash": "dash"},
            hovertemplate="float model<br>%{y:.4g}<extra></extra>",
        ),
        go.Scatter(
            x=EMPTY if int8 is None else epochs[-1:],
            y=EMPTY if int8 is None else np.array([int8]),
            yaxis="y2",
            name="int8 model",
            mode="markers",
            marker={"symbol": "star-open", "size": 14, "color": INT8, "line": {"width": 2}},
            showlegend=int8 is not None,
            hovertemplate="int8 model after conversion<br>%{y:.4g}<extra></extra>",
        ),
    ]
    facts = []
    if trained:
        facts.append(f"{metric_name(run)}: {number(metric[0], 4)} before, {number(metric[-1], 4)} after")
    if trained and not np.isfinite(loss).any():
        facts.append("The workload's train reported no loss.")
    return figure(
        traces,
        "Quantization-aware training",
        facts,
        460 if trained else 340,
        None if trained else NO_TRAINING,
        xaxis=axis("epoch (0: before training)", dtick=max(1, round(len(epochs) / 10)), anchor="y"),
        yaxis=axis("loss", domain=[0, 0.44]),
        yaxis2=axis(run.metric, 24, domain=[0.54, 1], anchor="x"),
    )
