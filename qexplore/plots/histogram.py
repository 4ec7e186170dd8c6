"""The histogram of one tensor's float values with the range and the levels that quantization gives it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.tensor_rows import Grid, grid, tensor_row
from qexplore.plots.theme import CLIPPED, EMPTY, FLOAT, NEUTRAL, RANGE, axis, figure
from qexplore.plots.words import decibels, number, percent

HOVER = "%{customdata[0]:.4g} to %{customdata[1]:.4g}<br>about %{y:,.0f} values"


def tensor_histogram(run: Run, kind: str, name: str) -> go.Figure:
    """Counts of a tensor's float values by value (log scale), with its range, its levels and what is clipped.

    Args:
        kind: "activation" or "weight".
        name: of the tensor in `run.tensors`.
    """
    row, histogram = tensor_row(run, kind, name), run.histograms.get(f"{kind}:{name}")
    if row is None or histogram is None:
        why = "is not quantized in this run" if row is None else "was not seen during calibration"
        return _draw(name, f"Values of {name}", (), EMPTY, EMPTY, None, sentence=f"The {kind} {name!r} {why}.")
    edges = np.linspace(histogram.lo, histogram.hi, len(histogram.counts) + 1)
    return _draw(name, f"Values of {name}", _facts(row), edges, np.asarray(histogram.counts, dtype=float), grid(row))


def beyond(edges: np.ndarray, g: Grid) -> np.ndarray:
    """Which bins lie, by their middle, outside every range by more than half a step, as `clipped` counts it."""
    middle = (edges[1:] + edges[:-1]) / 2
    lo, hi, half = g.lo[g.widest], g.hi[g.widest], g.scale[g.widest] / 2
    return (middle < lo - half) | (middle > hi + half)


def _facts(row: dict[str, Any]) -> list[str]:
    g = grid(row)
    if len(g.scale) > 1:
        scale = f"scale {number(g.scale.min())} to {number(g.scale.max())} over {len(g.scale)} channels"
    else:
        scale = f"scale {number(g.scale[0])}, zero point {np.atleast_1d(row['zero_point'])[0]:.0f}"
    facts = [f"{scale}, {row['bits']} bits", f"SQNR {decibels(row['sqnr_db'])}, clipped {percent(row['clipped'])}"]
    if row["observer"] == "run time":
        facts.append("Range of the whole calibration; at run time each batch uses its own.")
    return facts


def _draw(
    name: str,
    title: str,
    facts: list[str] | tuple[()],
    edges: np.ndarray,
    counts: np.ndarray,
    g: Grid | None,
    sentence: str | None = None,
) -> go.Figure:
    levels, every, total = EMPTY, 1, 0
    bounds: list[np.ndarray] = [EMPTY, EMPTY]
    names = ["range", "narrowest channel"]
    clipped = np.zeros(0, dtype=bool)
    if g is not None:
        (levels, every), total, clipped = g.shown_levels(), g.levels, beyond(edges, g)
        for place, channel in enumerate([g.widest, g.narrowest][: min(len(g.lo), 2)]):
            bounds[place] = np.array([g.lo[channel], g.hi[channel]])
            names[place] = f"{names[place]} {number(g.lo[channel])} to {number(g.hi[channel])}"
        if len(g.lo) > 1:
            names[0] = names[0].replace("range", "widest channel")
    positive = counts[counts > 0]
    bottom = math.log10(min(positive.min(initial=1.0), 1.0) / 2)
    top = math.log10(max(positive.max(initial=1.0), 1.0)) + 0.1
    seen = np.concatenate([edges, *bounds]) if g is not None else np.array([0.0, 1.0])
    left, right, margin = seen.min(), seen.max(), 0.03 * np.ptp(seen)
    rug = {1: f"all {total} levels"}.get(every, f"every {every}th of {total} levels")
    traces = [
        _bars(edges, counts, ~clipped, "within the range", {"color": FLOAT}, HOVER),
        _bars(edges, counts, clipped, "clipped", _pattern(), f"{HOVER}, clipped"),
        go.Scatter(
            x=levels,
            y=np.zeros(len(levels)),
            yaxis="y2",
            mode="markers",
            marker={"symbol": "line-ns-open", "size": 11, "color": NEUTRAL, "line": {"width": 1}},
            name=rug,
            hovertemplate="level %{x:.4g}<extra></extra>",
        ),
        _range(bounds[0], names[0], bottom, top, "dash"),
        _range(bounds[1], names[1], bottom, top, "dot"),
    ]
    return figure(
        traces,
        title,
        facts,
        400,
        sentence,
        xaxis=axis(f"value of {name} (float model)", anchor="y2", range=[left - margin, right + margin]),
        yaxis=axis("count (log)", type="log", range=[bottom, top + 0.3], domain=[0.1, 1], dtick=1, exponentformat="SI"),
        yaxis2=axis("", domain=[0, 0.08], range=[-1, 1], showticklabels=False, showgrid=False, showline=False),
        bargap=0,
        barmode="overlay",
    )


def _pattern() -> dict[str, Any]:
    return {"color": CLIPPED, "pattern": {"shape": "/", "size": 5, "fillmode": "replace", "solidity": 0.6}}


def _bars(
    edges: np.ndarray, counts: np.ndarray, shown: np.ndarray, name: str, marker: dict[str, Any], hover: str
) -> go.Bar:
    starts, ends, heights = edges[:-1][shown], edges[1:][shown], counts[shown]
    return go.Bar(
        x=(starts + ends) / 2,
        y=heights,
        width=ends - starts,
        customdata=np.stack([starts, ends], axis=-1),
        name=name,
        marker=marker | {"line": {"width": 0}},
        hovertemplate=f"{hover}<extra></extra>",
    )


def _range(bounds: np.ndarray, name: str, bottom: float, top: float, dash: str) -> go.Scatter:
    """Two vertical lines at the ends of a range, labelled."""
    x = np.insert(np.repeat(bounds, 2), 2, np.nan) if len(bounds) else EMPTY
    y = 10.0 ** np.array([bottom, top, np.nan, bottom, top]) if len(bounds) else EMPTY
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+text",
        text=np.array(["", "lo", "", "", "hi"]) if len(bounds) and dash == "dash" else EMPTY,
        textposition="top center",
        line={"color": RANGE, "width": 2, "dash": dash},
        name=name,
        showlegend=len(bounds) > 0,
        cliponaxis=False,
        hovertemplate="range ends at %{x:.4g}<extra></extra>",
    )
