"""How far the weights of each output channel reach, against the range the quantizer gives to the channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.tabs import tab
from qexplore.plots.tensor_rows import Grid, grid, tensor_row
from qexplore.plots.theme import EMPTY, FLOAT, NEUTRAL, RANGE, axis, figure
from qexplore.plots.words import number

FEW = 200  # up to so many channels there is room for gaps and outlines


@tab("Channels", tensors="weight")
def channel_ranges(run: Run, layer_tensor: str) -> go.Figure:
    """Smallest to largest weight of each output channel, and the range its codes cover.

    Args:
        layer_tensor: name of the weight in `run.tensors` (the layer's, where it has one weight).
    """
    row = tensor_row(run, "weight", layer_tensor)
    title = f"Channels of weight {layer_tensor}"
    sentence, facts = f"The weight {layer_tensor!r} is not quantized in this run.", [""]
    x, lo, hi, steps, range_lo, range_hi, used = (EMPTY,) * 7
    if row is not None:
        sentence, g = None, grid(row)
        lo, hi = (np.asarray(row[key], dtype=float) for key in ("observed_min", "observed_max"))
        x, used = np.arange(len(lo)), levels_used(lo, hi, g)
        steps = np.concatenate([[-0.5], x, [len(lo) - 0.5]])  # half a channel more at both ends
        range_lo, range_hi = (np.pad(np.broadcast_to(edge, lo.shape), 1, mode="edge") for edge in (g.lo, g.hi))
        facts = _facts(lo, hi, used, g)
    covered = "range of each channel" if row is not None and isinstance(row["lo"], tuple) else "one range for all"
    line: dict[str, Any] = {"color": RANGE, "width": 1.5 if len(x) < FEW else 0, "shape": "hvh"}
    traces = [
        go.Scatter(x=steps, y=range_lo, mode="lines", line=line, showlegend=False, hoverinfo="skip"),
        go.Scatter(
            x=steps,
            y=range_hi,
            mode="lines",
            line=line,
            fill="tonexty",
            fillcolor=f"rgba(204, 121, 167, {0.2 if len(x) < FEW else 0.5})",
            name=covered,
            hoverinfo="skip",
        ),
        go.Bar(
            x=x,
            base=lo,
            y=hi - lo,
            customdata=np.stack([lo, hi, used], axis=-1),
            name="smallest to largest weight",
            marker={"color": FLOAT, "line": {"width": 0}},
            hovertemplate="channel %{x}<br>weights %{customdata[0]:.4g} to %{customdata[1]:.4g}<br>"
            f"use %{{customdata[2]:.0f}} of {0 if row is None else grid(row).levels} levels<extra></extra>",
        ),
    ]
    return figure(
        traces,
        title,
        facts,
        sentence=sentence,
        xaxis=axis("output channel (index)", showgrid=False, range=[-0.7, len(x) - 0.3]),
        yaxis=axis("weight value (float model)", zeroline=True, zerolinecolor=NEUTRAL),
        bargap=0.2 if len(x) < FEW else 0,
    )


def spans(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Width of the range each channel needs; zero always has a code, so it is part of the range."""
    return np.maximum(hi, 0) - np.minimum(lo, 0)


def levels_used(lo: np.ndarray, hi: np.ndarray, g: Grid) -> np.ndarray:
    """How many levels lie within each channel's weights."""
    first, last = (np.round(np.clip(edge, g.lo, g.hi) / g.scale) for edge in (np.minimum(lo, 0), np.maximum(hi, 0)))
    return last - first + 1


def _facts(lo: np.ndarray, hi: np.ndarray, used: np.ndarray, g: Grid) -> list[str]:
    widths = spans(lo, hi)
    nonzero = widths[widths > 0]
    facts = ["All weights are zero."]
    if len(nonzero):
        ratio = number(nonzero.max() / nonzero.min(), 2)
        facts = [f"The widest channel reaches {ratio} times as far as the narrowest."]
    if len(nonzero) < len(widths):
        facts.append(f"{len(widths) - len(nonzero)} of {len(widths)} channels are all zero.")
    facts.append(
        f"Of {g.levels} levels a channel uses {used.min():.0f} to {used.max():.0f}, the median channel "
        f"{np.median(used):.0f}."
    )
    return facts
