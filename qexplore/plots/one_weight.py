"""One weight in training: the float weight moves, the value that the model computes with jumps."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from qexplore.numerics.one_weight import Descent
from qexplore.plots.axes import axis
from qexplore.plots.theme import CLIPPED, FLOAT, INT8, RANGE, SIMULATED, figure
from qexplore.plots.words import number

HEIGHT = 540  # pixels
LABELLED = 16  # levels that have room for a tick each
STILL = 1e-3  # of the scale: a weight that moves less in a step is at rest


def one_weight(descent: Descent) -> go.Figure:
    """Weight, used value and target by step; the gradient below them."""
    mapping, steps = descent.mapping, np.arange(len(descent.weight))
    hover = "step %{x}: %{y:.4g}<extra></extra>"
    inside = mapping.lo - mapping.scale / 2, mapping.hi + mapping.scale / 2
    seen = np.concatenate([descent.weight, descent.used, [descent.target, *inside]])
    room = 0.06 * float(np.ptp(seen))
    low, high = float(seen.min()) - room, float(seen.max()) + room
    traces = [
        go.Scatter(x=steps, y=descent.weight, name="float weight", line={"color": FLOAT}, hovertemplate=hover),
        go.Scatter(
            x=steps,
            y=descent.used,
            name="value the model computes with",
            line={"color": SIMULATED, "width": 2.5, "shape": "hv"},
            hovertemplate=hover,
        ),
        go.Scatter(
            x=steps[[0, -1]],
            y=np.full(2, descent.target),
            name="target",
            mode="lines",
            line={"color": RANGE, "dash": "dash"},
            hovertemplate="target %{y:.4g}<extra></extra>",
        ),
        go.Scatter(
            x=steps,
            y=descent.gradient,
            yaxis="y2",
            name="gradient",
            mode="lines+markers",
            line={"color": INT8, "width": 1},
            marker={"size": 4},
            hovertemplate=hover,
        ),
    ]
    few = len(mapping.levels) <= LABELLED
    ticks = {"tickvals": mapping.levels, "tickformat": ".3~f"} if few else {}
    return figure(
        traces,
        "One weight in training",
        [outcome(descent), "Lines: levels. Shaded: beyond the range."],
        HEIGHT,
        xaxis=axis("step of gradient descent", anchor="y2", range=[0, len(steps) - 1]),
        yaxis=axis("weight (its own unit)", 30, domain=[0.38, 1], range=[low, high], **ticks),
        yaxis2=axis("gradient (loss / weight)", 14, domain=[0, 0.26]),
        shapes=[_beyond(low, inside[0]), _beyond(inside[1], high)],
    )


def outcome(descent: Descent) -> str:
    """What became of the weight, in a sentence."""
    late, last = descent.used[descent.late], f"the model computes with {number(descent.used[-1])}"
    if not descent.gradient.any() and descent.used[0] != descent.target:
        return "Stuck: the gradient is 0 in every step, so the weight never moves."
    if descent.jumps > 1 and len(np.unique(late)) == 2:
        upper = float((late == late.max()).mean())
        return (
            f"It oscillates between {number(late.min())} and {number(late.max())}: {descent.jumps} jumps in the last "
            f"{len(late)} steps, {upper:.0%} of them at the upper level; mean {number(float(late.mean()))}."
        )
    if descent.rate * abs(descent.gradient[-1]) > STILL * descent.mapping.scale:
        return f"Still moving after the last step; {last}."
    return f"At rest: {last}; the target is {number(descent.target)}."


def _beyond(low: float, high: float) -> dict[str, object]:
    return {
        "type": "rect",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": low,
        "y1": high,
        "fillcolor": CLIPPED,
        "opacity": 0.12,
        "line": {"width": 0},
        "layer": "below",
    }
