"""How far the weights of each output channel reach, against the range the quantizer gives to the channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.plots.axes import NEUTRAL, axis
from qexplore.plots.tabs import Shown, tab
from qexplore.plots.tensor_rows import Grid, grid, tensor_row
from qexplore.plots.theme import EMPTY, FLOAT, RANGE, figure
from qexplore.plots.words import number

FEW = 200  # up to so many channels stand in their own order, with gaps and outlines; more are sorted


@tab("Channels", tensors=("weight",), of="either")
def channel_ranges(shown: Shown, layer_tensor: str) -> go.Figure:
    """Smallest to largest weight of each output channel, and the range its codes cover.

    Args:
        layer_tensor: name of the weight in `shown.tensors` (the layer's, where it has one weight).
    """
    row = tensor_row(shown, "weight", layer_tensor)
    facts: list[str] = []
    order, lo, hi, steps, range_lo, range_hi, used = (EMPTY,) * 7
    levels, covered = 0, "one range for all"
    if row is not None:
        g = grid(row)
        lo, hi = (np.asarray(row[key], dtype=float) for key in ("observed_min", "observed_max"))
        used, levels = levels_used(lo, hi, g), g.levels
        facts = _facts(lo, hi, used, g)
        order = np.arange(len(lo)) if len(lo) <= FEW else np.argsort(spans(lo, hi), kind="stable")
        edges = (np.broadcast_to(edge, lo.shape)[order] for edge in (g.lo, g.hi))
        range_lo, range_hi = (np.pad(edge, 1, mode="edge") for edge in edges)
        lo, hi, used = lo[order], hi[order], used[order]
        steps = np.concatenate([[-0.5], np.arange(len(lo)), [len(lo) - 0.5]])  # half a channel more at both ends
        covered = "range of each channel" if len(g.lo) > 1 else covered
    few = len(order) <= FEW
    line: dict[str, Any] = {"color": RANGE, "width": 1.5 if few else 0.5, "shape": "hvh"}
    band: dict[str, Any] = {"fill": "tonexty", "fillcolor": f"rgba(204, 121, 167, {0.2 if few else 0.5})"}
    common: dict[str, Any] = {"x": steps, "mode": "lines", "line": line, "hoverinfo": "skip"}
    traces = [
        go.Scatter(y=range_lo, showlegend=False, **common),
        go.Scatter(y=range_hi, name=covered, **common, **band),
        go.Bar(
            x=np.arange(len(order)),
            base=lo,
            y=hi - lo,
            zorder=1,  # above the band
            customdata=np.stack([lo, hi, used, order], axis=-1),
            name="smallest to largest weight",
            marker={"color": FLOAT, "line": {"width": 0}},
            hovertemplate="channel %{customdata[3]}<br>weights %{customdata[0]:.4g} to %{customdata[1]:.4g}<br>"
            f"use %{{customdata[2]:.0f}} of {levels} levels<extra></extra>",
        ),
    ]
    return figure(
        traces,
        f"Channels of weight {layer_tensor}",
        facts,
        sentence=None if row is not None else f"The weight {layer_tensor!r} is not quantized by this recipe.",
        xaxis=axis(
            f"output channel ({'index' if few else 'sorted, narrowest first'})",
            showgrid=False,
            range=[-0.7, len(order) - 0.3],
        ),
        yaxis=axis("weight value (float model)", zeroline=True, zerolinecolor=NEUTRAL),
        bargap=0.2 if few else 0,
    )


def spans(lo: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """Width of the range each channel needs; zero always has a code, so it is part of the range."""
    return np.maximum(hi, 0) - np.minimum(lo, 0)


def levels_used(lo: np.ndarray, hi: np.ndarray, g: Grid) -> np.ndarray:
    """How many levels lie within each channel's weights and zero."""
    first, last = (np.round(np.clip(edge, g.lo, g.hi) / g.scale) for edge in (np.minimum(lo, 0), np.maximum(hi, 0)))
    return last - first + 1


def _facts(lo: np.ndarray, hi: np.ndarray, used: np.ndarray, g: Grid) -> list[str]:
    widths = spans(lo, hi)
    nonzero = widths[widths > 0]
    facts = ["All weights are zero."]
    if len(nonzero):
        facts = [f"The widest channel reaches {number(nonzero.max() / nonzero.min(), 2)}x as far as the narrowest."]
        if len(nonzero) < len(widths):
            facts.append(f"{len(widths) - len(nonzero)} of {len(widths)} channels are all zero.")
    facts.append(
        f"Of {g.levels} levels a channel uses {used.min():.0f} to {used.max():.0f}, the median channel "
        f"{np.median(used):.0f}."
    )
    return facts
