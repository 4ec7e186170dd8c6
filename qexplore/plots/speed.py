"""How fast the float and the int8 model are on this machine."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.axes import axis
from qexplore.plots.tabs import tab
from qexplore.plots.theme import EMPTY, FLOAT, INT8, figure

NO_SPEED = (
    "No speed: this recipe is only simulated. PyTorch's int8 kernels have 8-bit codes only, so there is nothing "
    "to time below 8 bits."
)


@tab("Speed")
def speed(run: Run) -> go.Figure:
    """Milliseconds a batch takes in the float and the int8 model: every timing round, with median and quartiles."""
    timing = run.speed
    title, facts = "Speed", []
    if timing is not None:
        plural = "" if timing["threads"] == 1 else "s"
        title = f"int8 is {comparison(timing['speedup'])}"
        facts = [
            f"quartiles {timing['speedup_low']:.2f} to {timing['speedup_high']:.2f} over {timing['rounds']} rounds, "
            f"batch {timing['batch']}, {timing['threads']} thread{plural}",
            f"medians: float {timing['float_ms']:.3g} ms, int8 {timing['int8_ms']:.3g} ms a batch",
        ]
    traces = [
        _box(name, EMPTY if timing is None else np.asarray(timing[key], dtype=float), colour, symbol)
        for name, key, colour, symbol in (
            ("int8", "int8_times", INT8, "diamond-open"),
            ("float", "float_times", FLOAT, "circle-open"),
        )
    ]
    return figure(
        traces,
        title,
        facts,
        340,
        sentence=None if timing is not None else NO_SPEED,
        xaxis=axis("time of one batch in ms (lower is better)", rangemode="tozero"),
        yaxis=axis("model", showgrid=False, type="category"),
        showlegend=False,
    )


def comparison(speedup: float) -> str:
    """A ratio float time / int8 time in plain words."""
    if 0.98 < speedup < 1.02:
        return "as fast as float"
    return f"{speedup:.2g}x as fast as float" + (" (slower)" if speedup < 1 else "")


def _box(name: str, times: np.ndarray, colour: str, symbol: str) -> go.Box:
    return go.Box(
        x=times,
        y=np.full(len(times), name),
        orientation="h",
        name=name,
        boxpoints="all",
        jitter=0.6,
        pointpos=-1.8,
        width=0.35,
        marker={"color": colour, "symbol": symbol, "size": 6},
        line={"width": 1.5},
        text=np.array([f"round {place + 1} of {len(times)}: {value:.4g} ms" for place, value in enumerate(times)]),
        hovertemplate=f"{name}, %{{text}}<extra></extra>",
        hoveron="points",
    )
