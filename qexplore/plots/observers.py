"""The range that every observer would choose for one tensor, above its histogram, with the error of each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from qexplore.analysis import Prediction
from qexplore.analysis.error_curve import ErrorCurve
from qexplore.plots.axes import axis
from qexplore.plots.tabs import BOTH, tab
from qexplore.plots.theme import FLOAT, PREDICTED, RANGE, figure
from qexplore.plots.words import decibels, percent

ROW = 30  # pixels an observer
ALIKE = 0.1  # dB


@tab("Observers", tensors=BOTH, of="prediction")
def observers(prediction: Prediction, kind: str, name: str) -> go.Figure:
    """A bar from lo to hi for each observer, labelled with its SQNR; below them the values of the tensor.

    Args:
        kind, name: of a tensor in `prediction.tensors`. Weights are taken per tensor here.
    """
    curve, spec = prediction.curve(kind, name)
    choices = curve.choices.sort_values("sqnr_db")
    lo, hi = (choices[key].to_numpy(dtype=float) for key in ("lo", "hi"))
    chosen = np.array([each == spec.observer for each in choices.index])
    histogram = prediction.histogram(kind, name)
    counts = np.asarray(histogram.counts if histogram else [0.0])
    edges = histogram.edges if histogram else np.zeros(2)
    places = np.arange(len(choices))
    hover = np.array(
        [
            f"{row.Index}: {row.lo:.4g} to {row.hi:.4g}<br>SQNR {decibels(row.sqnr_db)}, clipped {percent(row.clipped)}"
            for row in choices.itertuples()
        ]
    )

    def bars(which: np.ndarray, label: str, color: str) -> go.Bar:
        return go.Bar(
            y=places[which],
            base=lo[which],
            x=(hi - lo)[which],
            orientation="h",
            width=0.62,
            name=label,
            text=np.array([decibels(value) for value in choices.sqnr_db])[which],
            textposition="auto",
            insidetextanchor="end",
            marker={"color": color, "line": {"width": 0}},
            customdata=hover[which],
            hovertemplate="%{customdata}<extra></extra>",
            showlegend=bool(which.any()),
        )

    share = 0.3
    facts = [_verdict(choices.sqnr_db, spec.bits)] if len(choices) else []
    facts += _failures(curve)
    reach = [min(edges[0], *lo), max(edges[-1], *hi)] if len(lo) else [0, 1]
    margin = 0.03 * (reach[1] - reach[0]) or 1.0
    return figure(
        [
            go.Bar(
                x=(edges[1:] + edges[:-1]) / 2,
                y=counts,
                width=np.diff(edges),
                yaxis="y2",
                name="values",
                marker={"color": FLOAT, "line": {"width": 0}},
                hovertemplate="about %{y:,.0f} values near %{x:.4g}<extra></extra>",
            ),
            bars(~chosen, "other observers", PREDICTED),
            bars(chosen, f"chosen: {spec.observer}", RANGE),
        ],
        f"Ranges by observer: {name}" + (" (weight, per tensor)" if kind == "weight" else ""),
        facts,
        250 + ROW * len(choices),
        xaxis=axis(f"value of {name} (float model)", anchor="y2", range=[reach[0] - margin, reach[1] + margin]),
        yaxis=axis("observer", tickvals=places, ticktext=list(choices.index), domain=[share + 0.04, 1], showgrid=False),
        yaxis2=axis("count (log)", type="log", domain=[0, share], dtick=2, exponentformat="SI"),
        barmode="overlay",
        bargap=0,
    )


def _verdict(sqnr_db: pd.Series, bits: int) -> str:
    if sqnr_db.iloc[-1] - sqnr_db.iloc[0] < ALIKE:
        return f"At {bits} bits all observers do equally well here, {decibels(sqnr_db.iloc[-1])}."
    return f"Least error at {bits} bits: {sqnr_db.index[-1]}, {decibels(sqnr_db.iloc[-1])}."


def _failures(curve: ErrorCurve) -> list[str]:
    return [f"No range: {sentence}" for sentence in curve.failed.values()]
