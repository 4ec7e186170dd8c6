"""What was promised beside what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go

from qexplore.analysis.promises import Measured, verdict
from qexplore.plots.axes import NEUTRAL, axis
from qexplore.plots.theme import INT8, PREDICTED, figure

SYMBOLS = {"held": "circle", "partly": "diamond-open", "not held": "x"}
BAND = 0.38  # of a row, to each side


def promises(measured: Sequence[Measured]) -> go.Figure:
    """A row for each promise and model: the promised interval as a band, the measured ratio with its quartiles.

    Args:
        measured: ratios of size, traffic and speed, on one logarithmic axis.
    """
    names = [f"{each.promise.name}<br>{each.model}" for each in measured]
    traces = [
        _points([(place, each) for place, each in enumerate(measured) if verdict(each) == word], word, names)
        for word in SYMBOLS
    ]
    bands = [_band(each, place) for place, each in enumerate(measured)]
    ends = [value for each in measured for value in (each.low, each.high, each.promise.low, each.promise.high, 1)]
    held = sum(verdict(each) == "held" for each in measured)
    one = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 1, "x1": 1}
    return figure(
        traces,
        f"{held} of {len(measured)} promises held",
        ["blue: what was promised; point and bar: measured, with quartiles; dashed: no gain"],
        170 + 36 * len(measured),
        shapes=[*bands, one | {"line": {"color": NEUTRAL, "dash": "dash"}}],
        xaxis=axis("times better than float (higher is better)", type="log", dtick="D2", range=_span(ends)),
        yaxis=axis(
            "promise and model",
            tickvals=list(range(len(names))),
            ticktext=names,
            range=[len(names) - 0.5, -0.5],
            showgrid=False,
        ),
        margin={"l": 10, "r": 14, "t": 76, "b": 60},
    )


def _span(values: Sequence[float]) -> list[float]:
    """A logarithmic axis' range with some room to both sides."""
    finite = [value for value in values if math.isfinite(value)]
    return [math.log10(min(finite)) - 0.05, math.log10(max(finite)) + 0.05]


def _points(rows: list[tuple[int, Measured]], word: str, names: Sequence[str]) -> go.Scatter:
    return go.Scatter(
        x=[each.value for _, each in rows],
        y=[place for place, _ in rows],
        error_x={
            "symmetric": False,
            "array": [each.high - each.value for _, each in rows],
            "arrayminus": [each.value - each.low for _, each in rows],
        },
        mode="markers",
        name=word,
        marker={"color": INT8, "symbol": SYMBOLS[word], "size": 10, "line": {"width": 2}},
        customdata=[[names[place], each.why] for place, each in rows],
        hovertemplate="%{customdata[0]}<br>%{x:.3g} times<br>%{customdata[1]}<extra></extra>",
    )


def _band(measured: Measured, place: int) -> dict[str, object]:
    """The promised interval of a row; one value as a stroke."""
    low, high = measured.promise.low, measured.promise.high
    return {
        "type": "rect",
        "x0": low,
        "x1": high if high > low else low * 1.03,
        "y0": place - BAND,
        "y1": place + BAND,
        "fillcolor": PREDICTED,
        "opacity": 0.35,
        "line": {"width": 0},
        "layer": "below",
    }
