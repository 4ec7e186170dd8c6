"""One tensor and one affine mapping: staircase, histogram and error above each other, on one horizontal axis."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.numerics.mapping import AffineMapping
from qexplore.plots.axes import NEUTRAL, axis
from qexplore.plots.histogram import beyond
from qexplore.plots.histogram_traces import BEYOND, WITHIN, bars, ends, rug
from qexplore.plots.tensor_rows import SHOWN_LEVELS, Grid
from qexplore.plots.theme import CLIPPED, FLOAT, RANGE, SIMULATED, figure

STAIRS, COUNTS, RUG, ERROR = "y", "y2", "y3", "y4"  # the panels' vertical axes, from the top
DOMAINS = {STAIRS: [0.59, 1.0], COUNTS: [0.3, 0.55], RUG: [0.26, 0.3], ERROR: [0.0, 0.22]}
HEIGHT = 610  # pixels
TAILS = 3  # steps of clipping error to show; more of it would make the saw tooth too small to see
MARGIN = 0.05  # of the width of all values, left and right of them


def playground(mapping: AffineMapping, name: str, counts: np.ndarray, edges: np.ndarray, x: float) -> go.Figure:
    """What a mapping does to a tensor.

    Args:
        name: of the tensor.
        counts, edges: its histogram, [bins] and [bins + 1].
        x: a single value to mark.
    """
    left, right = min(float(edges[0]), 0.0), max(float(edges[-1]), 0.0)
    margin = MARGIN * (right - left)
    # A range a little wider than the values does not move the ends: plotly.js keeps a zoom only while they stay.
    left = (left if mapping.lo > left - margin / 2 else mapping.lo) - margin
    right = (right if mapping.hi < right + margin / 2 else mapping.hi) + margin
    cut = TAILS * mapping.scale
    top = math.log10(counts.max(initial=1.0))
    hidden = {"showticklabels": False, "showgrid": False, "showline": False}
    return figure(
        [
            *staircase(mapping, left, right, x),
            *histogram(mapping, counts, edges),
            *error(mapping, left, right, x),
        ],
        f"Tensor: {name}",
        [f"Bottom: errors up to {TAILS} steps; clipping errors go on beyond."],
        HEIGHT,
        xaxis=axis("float value (the tensor's own unit)", range=[left, right], anchor=ERROR),
        yaxis=_panel(STAIRS, "quantized value (same unit)", 16, range=[left, right]),
        yaxis2=_panel(
            COUNTS, "count (log)", 16, range=[-0.3, 1.2 * top + 0.4], type="log", dtick=1, exponentformat="SI"
        ),
        yaxis3=_panel(RUG, "", 1, range=[-1, 1], **hidden),
        yaxis4=_panel(ERROR, "error, in same unit", 9, range=[-cut, cut], zeroline=True, zerolinecolor=FLOAT),
        shapes=[_end(value, panel) for panel in (STAIRS, ERROR) for value in (mapping.lo, mapping.hi)],
        bargap=0,
        barmode="overlay",
        uirevision=name,  # a person's zoom stays while controls move
    )


def staircase(mapping: AffineMapping, left: float, right: float, x: float) -> list[go.Scatter]:
    """Quantized by float value over the diagonal where there is no error; the gap between them is the error."""
    levels, codes = mapping.levels, np.arange(mapping.quant_min, mapping.quant_max + 1)
    corners, values, tails, saturated = _mapped(mapping, left, right)
    few = len(levels) <= SHOWN_LEVELS
    filled = {"fill": "tonexty", "fillcolor": "rgba(230, 159, 0, 0.25)"}
    return [
        _line(corners[[0, -1]], corners[[0, -1]], STAIRS, "no error", FLOAT, 1.5),
        _line(corners, values, STAIRS, "quantized", SIMULATED, 2, **filled),
        _line(tails, saturated, STAIRS, "clipped", CLIPPED, 4),
        go.Scatter(
            x=levels,
            y=levels,
            yaxis=STAIRS,
            mode="markers",
            marker={"color": SIMULATED, "size": 6, "opacity": 1 if few else 0},
            customdata=np.stack([codes, levels - mapping.scale / 2, levels + mapping.scale / 2], axis=-1),
            hovertemplate="code %{customdata[0]} stands for %{y:.4g}<br>"
            "and gets values of %{customdata[1]:.4g} to %{customdata[2]:.4g}<extra></extra>",
            showlegend=False,
        ),
        _mark(x, mapping.value(x), STAIRS),
    ]


def histogram(mapping: AffineMapping, counts: np.ndarray, edges: np.ndarray) -> list[Any]:
    """How many values there are, which bins are clipped, the range and its levels."""
    lo, hi, scale = (np.array([value]) for value in (mapping.lo, mapping.hi, mapping.scale))
    grid = Grid(lo, hi, scale, mapping.quant_max - mapping.quant_min + 1)
    clipped, (levels, every) = beyond(edges, grid), grid.shown_levels()
    name = f"all {grid.levels} levels" if every == 1 else f"every {every}th of {grid.levels} levels"
    high = 1.3 * float(counts.max(initial=1.0))
    return [
        bars(edges, counts, ~clipped, "values", WITHIN).update(yaxis=COUNTS),
        bars(edges, counts, clipped, "clipped", BEYOND).update(yaxis=COUNTS, legendgroup="clipped", showlegend=False),
        rug(levels, name).update(yaxis=RUG),
        ends((mapping.lo, mapping.hi), "range", high, True).update(yaxis=COUNTS),
    ]


def error(mapping: AffineMapping, left: float, right: float, x: float) -> list[go.Scatter]:
    """Quantized minus float value by float value: a saw tooth within the range, straight lines beyond it."""
    corners, values, tails, saturated = _mapped(mapping, left, right)
    hidden = {"showlegend": False, "hoverinfo": "all", "hovertemplate": "at %{x:.4g}<br>error %{y:.3g}<extra></extra>"}
    return [
        _line(corners, values - corners, ERROR, "quantized", SIMULATED, 1.5, **hidden),
        _line(tails, saturated - tails, ERROR, "clipped", CLIPPED, 3, **hidden),
        _mark(x, mapping.value(x) - x, ERROR),
    ]


def _mapped(mapping: AffineMapping, left: float, right: float) -> tuple[np.ndarray, ...]:
    """Corners of the staircase from `left` to `right` (x and y), then its clipped ends, with a gap between them."""
    levels, half = mapping.levels, mapping.scale / 2
    inner = (levels[:, None] + [-half, half]).ravel()
    first, last = min(left, inner[0]), max(right, inner[-1])
    values = np.concatenate([levels[:1], np.repeat(levels, 2), levels[-1:]])
    tails = np.array([first, inner[0], np.nan, inner[-1], last])
    return np.array([first, *inner, last]), values, tails, levels[[0, 0, 0, -1, -1]]


def _panel(panel: str, title: str, length: int, **settings: Any) -> dict[str, Any]:
    return axis(title, length, domain=DOMAINS[panel], **settings)


def _line(x: np.ndarray, y: np.ndarray, panel: str, name: str, colour: str, width: float, **more: Any) -> go.Scatter:
    settings = {"line": {"color": colour, "width": width}, "legendgroup": name, "hoverinfo": "skip"}
    return go.Scatter(x=x, y=y, yaxis=panel, mode="lines", name=name, **settings | more)


def _mark(x: float, y: float, panel: str) -> go.Scatter:
    """The value x, as a ring."""
    return go.Scatter(
        x=np.array([x]),
        y=np.array([y]),
        yaxis=panel,
        mode="markers",
        marker={"symbol": "circle-open", "size": 14, "color": NEUTRAL, "line": {"width": 3}},
        name="x",
        legendgroup="x",
        showlegend=panel == STAIRS,
        hovertemplate="x = %{x:.4g}<br>%{y:.4g}<extra></extra>",
    )


def _end(value: float, panel: str) -> dict[str, Any]:
    """A vertical line through a panel at an end of the range."""
    return {
        "type": "line",
        "xref": "x",
        "yref": f"{panel} domain",
        "x0": value,
        "x1": value,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": RANGE, "width": 2, "dash": "dash"},
    }
