"""All runs at a glance: what each recipe costs and saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.theme import EMPTY, FLOAT, INT8, NEUTRAL, RANGE, axis, figure
from qexplore.plots.words import kib, metric_name, number, quantized_name, recipe_words
from qexplore.recipe import MODES

MARKS = {"dynamic": ("circle", NEUTRAL), "static": ("square", INT8), "qat": ("diamond", RANGE)}


def runs_overview(runs: Sequence[Run]) -> go.Figure:
    """Metric against file size in KiB, a point per run, numbered from 1 in the order given, and float's own."""
    traces = [_mode(runs, mode) for mode in MODES]
    floats = [(kib(run.size["float_bytes"]), run.metrics["float"] or np.nan) for run in runs]
    points = np.array(sorted(set(floats)), dtype=float).reshape(-1, 2)
    traces.append(
        go.Scatter(
            x=points[:, 0],
            y=points[:, 1],
            mode="markers",
            name="float",
            marker={"symbol": "star", "size": 13, "color": FLOAT},
            showlegend=len(points) > 0,
            hovertemplate="float model<br>%{y:.5g}, %{x:,.0f} KiB<extra></extra>",
        )
    )
    simulated = any(run.metrics["int8"] is None for run in runs)
    return figure(
        traces,
        "Runs: metric against size",
        ["Open marks: simulated only, with the size as packed estimate."] if simulated else [],
        sentence=None if runs else "No runs yet: quantize the model, and each run becomes a point here.",
        xaxis=axis("file size in KiB (lower is better)", rangemode="tozero"),
        yaxis=axis(metric_name(runs[0]) if runs else "metric"),
    )


def _mode(runs: Sequence[Run], mode: str) -> go.Scatter:
    """The points of the runs in one mode."""
    mine = [(place + 1, run) for place, run in enumerate(runs) if run.recipe.mode == mode]
    symbol, colour = MARKS[mode]
    hover = [
        f"run {place}: {run.metric} {number(run.quantized_metric, 4)} ({quantized_name(run)})<br>"
        f"{kib(run.size['int8_bytes']):,.0f} KiB" + "".join(f"<br>{line}" for line in recipe_words(run.recipe))
        for place, run in mine
    ]
    return go.Scatter(
        x=np.array([kib(run.size["int8_bytes"]) for _, run in mine]) if mine else EMPTY,
        y=np.array([run.quantized_metric for _, run in mine]) if mine else EMPTY,
        mode="markers+text",
        text=np.array([str(place) for place, _ in mine]),
        textposition=np.array(["middle right" if place % 2 else "middle left" for place, _ in mine]),
        customdata=np.array(hover),
        name={"qat": "QAT"}.get(mode, mode),
        marker={
            "symbol": np.array([symbol if run.metrics["int8"] is not None else f"{symbol}-open" for _, run in mine]),
            "color": colour,
            "size": 11,
            "line": {"width": 2, "color": colour},
        },
        showlegend=len(mine) > 0,
        cliponaxis=False,
        hovertemplate="%{customdata}<extra></extra>",
    )
