"""Which layers the output minds most, and how sure that order is."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Sensitivity
from qexplore.plots.axes import FRAME, axis, layer_axis, layers_height
from qexplore.plots.ledger_rows import HOVER
from qexplore.plots.theme import INT8, PREDICTED, figure
from qexplore.plots.words import number, percent


def sensitivity_ranks(sensitivity: Sensitivity) -> go.Figure:
    """Mean squared error at the output with one layer quantized, log axis, the worst on top, with 90 % intervals."""
    table = sensitivity.layers.sort_values("output_mse", ascending=False, kind="stable")
    names, places = [str(name) for name in table.index], np.arange(len(table), dtype=float)
    values, low, high = (table[column].to_numpy(dtype=float) for column in ("output_mse", "low", "high"))
    shown = np.isfinite(values) & (values > 0)  # a log axis has no zero
    least = values[shown].min() / 10 if shown.any() else 1.0
    hover = np.array([[name, _hover(name, row)] for name, row in zip(names, table.to_dict("records"), strict=True)])
    hover = hover.astype(object).reshape(-1, 2)
    points = go.Scatter(
        x=values[shown],
        y=places[shown],
        mode="markers",
        marker={"size": 9, "color": INT8 if sensitivity.method == "exact" else PREDICTED},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": np.maximum(high[shown] - values[shown], 0),
            # an interval that begins at zero has no end on a log axis
            "arrayminus": np.maximum(values[shown] - np.maximum(low[shown], least), 0),
            "thickness": 1.5,
            "width": 4,
        },
        customdata=hover[shown],
        hovertemplate=HOVER,
        name="measured" if sensitivity.method == "exact" else "to first order",
    )
    none = go.Scatter(
        x=np.full(int((~shown).sum()), least),
        y=places[~shown],
        mode="text",
        text=np.array([_absent(value) for value in values[~shown]]),
        textposition="middle right",
        customdata=hover[~shown],
        hovertemplate=HOVER,
    )
    height = layers_height(len(names))
    return figure(
        [points, none],
        "How much the output minds each layer",
        [sensitivity.words, f"Bars: 90 % interval over {sensitivity.samples} samples."] if names else [],
        height,
        None if names else "There are no quantized layers.",
        xaxis=axis("mean squared error at the output, this layer alone quantized (log)", 40, type="log")
        | {"exponentformat": "power", "dtick": _step(values[shown])},
        yaxis=layer_axis(names, height - FRAME),
        showlegend=False,
    )


def _step(values: np.ndarray) -> int | str:
    """Decades between ticks, few enough for 420 pixels; "D2" is plotly's for 1, 2 and 5 within one."""
    decades = np.log10(values.max() / values.min()) if len(values) else 0.0
    return "D2" if decades < 1 else int(np.ceil(decades / 4))


def _absent(value: float) -> str:
    return "no error" if value == 0 else "not measured"


def _hover(name: str, row: dict[Any, Any]) -> str:
    return (
        f"{name} ({row['kind']})<br>error at the output {number(row['output_mse'])}, "
        f"90 % from {number(row['low'])} to {number(row['high'])}<br>rank {row['rank']:.0f}, "
        f"90 % from {row['rank_low']:.0f} to {row['rank_high']:.0f}<br>"
        f"it keeps its rank in {percent(row['stability'])} of resamples"
    )
