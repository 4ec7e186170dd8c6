"""How many samples are needed: the output's SQNR against the size of the calibration."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis.uncertainty import Uncertainty
from qexplore.plots.axes import axis
from qexplore.plots.theme import SIMULATED, figure


def calibration_size(found: Uncertainty) -> go.Figure:
    """Calibration samples (log) against the output's SQNR in dB: the mean over draws, in a band that holds 90 %."""
    curve = found.curve
    samples, mean, low, high = (
        curve[key].to_numpy(dtype=float) for key in ("samples", "sqnr_db", "sqnr_low", "sqnr_high")
    )
    band = go.Scatter(
        x=np.concatenate([samples, samples[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor="rgba(230, 159, 0, 0.25)",
        line={"width": 0},
        mode="lines",
        name="90 % of the draws",
        hoverinfo="skip",
    )
    line = go.Scatter(
        x=samples,
        y=mean,
        mode="lines+markers",
        name="mean",
        line={"color": SIMULATED},
        customdata=np.stack([low, high, curve.draws.to_numpy(dtype=float)], 1),
        hovertemplate="%{x:,.0f} samples, %{customdata[2]} draws<br>%{y:.1f} dB (%{customdata[0]:.1f} to "
        "%{customdata[1]:.1f})<extra></extra>",
    )
    title = f"{found.enough:,} samples are enough" if found.enough is not None else "More samples are needed"
    return figure(
        [band, line],
        title,
        [found.words],
        xaxis=axis("calibration samples (log)", type="log", tickvals=samples, ticktext=[f"{s:,.0f}" for s in samples]),
        yaxis=axis("SQNR of the output in dB", 30),
    )
