"""All runs at a glance: what each recipe costs and saves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.axes import NEUTRAL, axis
from qexplore.plots.theme import EMPTY, FLOAT, INT8, RANGE, figure
from qexplore.plots.words import kib, metric_name, number, quantized_name, recipe_words
from qexplore.recipe import MODES

MARKS = {"dynamic": ("circle", NEUTRAL), "static": ("square", INT8), "qat": ("diamond", RANGE)}
NEAR = np.array([0.02, 0.06])  # share of the plot, across and up, within which two labels would overlap


def runs_overview(runs: Sequence[Run]) -> go.Figure:
    """Metric against file size in KiB, a point per run, numbered from 1 in the order given, and float's own."""
    labels = _labels(runs)
    traces = [_mode(runs, labels, mode) for mode in MODES]
    floats = [(kib(run.size["float_bytes"]), _float(run)) for run in runs]
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


def _labels(runs: Sequence[Run]) -> list[str]:
    """The number of each run; of runs whose points lie on top of one another, all numbers at the first of them."""
    places = np.array([(run.size["int8_bytes"], run.quantized_metric) for run in runs], dtype=float).reshape(-1, 2)
    everything = [*places, *((run.size["float_bytes"], _float(run)) for run in runs)]
    spread = np.ptp(np.array(everything), axis=0) if runs else np.ones(2)
    groups: list[list[int]] = []
    for place, at in enumerate(places):
        near = (g for g in groups if np.all(np.abs(places[g[0]] - at) <= NEAR * np.maximum(spread, 1e-12)))
        group = next(near, None)
        if group is None:
            groups.append([place])
        else:
            group.append(place)
    firsts = {group[0]: ", ".join(str(place + 1) for place in group) for group in groups}
    return [firsts.get(place, "") for place in range(len(runs))]


def _float(run: Run) -> float:
    value = run.metrics["float"]
    return np.nan if value is None else value


def _mode(runs: Sequence[Run], labels: list[str], mode: str) -> go.Scatter:
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
        text=np.array([labels[place - 1] for place, _ in mine]),
        textposition="top center",
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
