"""Float, simulated and int8: how far both are from float end to end, and where int8 is not its simulation."""

from __future__ import annotations

from collections import Counter
from textwrap import wrap

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.analysis.three_way import why_words
from qexplore.plots.axes import FRAME, axis, layer_axis, layers_height
from qexplore.plots.tabs import tab
from qexplore.plots.theme import INT8, SIMULATED, figure
from qexplore.plots.words import decibels, percent

ONLY_SIMULATED = (
    "This recipe is only simulated: PyTorch's int8 kernels have 8-bit codes only, so there is no int8 model to compare "
    "its simulation with."
)
LEFT, RIGHT = (0.0, 0.56), (0.64, 1.0)  # the two parts of the width
STRIPED = {"shape": "/", "size": 6, "fillmode": "replace", "solidity": 0.4}


@tab("Three-way")
def three_way(run: Run) -> go.Figure:
    """Two plots with a row per layer, in model order.

    Left: SQNR in dB of the int8 layer's output (bars) and the simulated one's (marks), each in its whole model. Right:
    the share of output codes in % in which int8 differs from its simulation on identical inputs, in dynamic
    mode the relative RMS difference of the outputs in %.
    """
    layers, dynamic = run.layers, run.recipe.mode == "dynamic"
    names, places = list(layers.index), np.arange(len(layers))
    hover = np.array(
        [
            f"int8 {decibels(row['sqnr_db'])}, simulated {decibels(row['simulated_sqnr_db'])}<br>"
            + "<br>".join(wrap(why_words(row), 60))
            for _, row in layers.iterrows()
        ]
    )
    real, simulated = (layers[column].to_numpy(dtype=float) for column in ("sqnr_db", "simulated_sqnr_db"))
    differ = layers["relative_difference" if dynamic else "codes_differ"].to_numpy(dtype=float)
    off = np.full(len(names), np.nan) if dynamic else layers.codes_off.to_numpy(dtype=float)
    widest = 100 * float(np.max(differ, initial=0.0, where=np.isfinite(differ)))

    def bars(values: np.ndarray, name: str, marker: dict[str, object], which: str = "x") -> go.Bar:
        there = np.isfinite(values)
        return go.Bar(
            x=values[there],
            y=places[there],
            orientation="h",
            xaxis=which,
            name=name,
            marker=marker,
            customdata=hover[there],
            hovertemplate="%{customdata}<extra></extra>",
        )

    marked = np.isfinite(simulated)
    traces = [
        bars(real, "int8", {"color": INT8}),
        go.Scatter(
            x=simulated[marked],
            y=places[marked],
            mode="markers",
            marker={"symbol": "diamond-open", "size": 9, "color": SIMULATED, "line": {"width": 2}},
            name="simulated",
            customdata=hover[marked],
            hovertemplate="%{customdata}<extra></extra>",
        ),
        bars(100 * differ, "int8 differs from simulated", {"color": INT8, "pattern": STRIPED}, "x2"),
        bars(100 * off, "by more than one code", {"color": INT8}, "x2"),
        go.Scatter(
            x=np.nan_to_num(100 * differ, posinf=0.0),
            y=places,
            xaxis="x2",
            mode="text",
            text=np.array([_label(share, why) for share, why in zip(differ, layers.why, strict=True)]),
            textposition="middle right",
            showlegend=False,
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
        ),
    ]
    height = layers_height(len(names))
    right = "difference on the same inputs in % (RMS)" if dynamic else "codes that differ on the same inputs in %"
    return figure(
        traces,
        "Float, simulated and int8",
        _facts(run),
        height,
        ONLY_SIMULATED if run.metrics["int8"] is None else None,
        xaxis=axis("SQNR against float in dB (higher is better)", 26, domain=LEFT),
        xaxis2=axis(right, 18, domain=RIGHT, anchor="y", range=[0, 1.6 * max(widest, 1.0)]),
        yaxis=layer_axis(names, height - FRAME),
        barmode="overlay",
        bargap=0.25,
    )


def _facts(run: Run) -> list[str]:
    """How many layers differ, and for which reasons."""
    found = Counter(why for why in run.layers.why if why)
    counted = f"{sum(found.values())} of {len(run.layers)} layers differ from their simulation on the same inputs"
    reasons = ", ".join(f"{number} {why}" for why, number in found.most_common())
    return [f"{counted}{': ' if reasons else ''}{reasons}. Point at a layer to read why."]


def _label(share: float, why: str) -> str:
    return "not compared" if np.isnan(share) else percent(share) if why else "equal"
