"""The histogram of one tensor's float values with the range and the levels that quantization gives it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.plots.axes import axis
from qexplore.plots.histogram_traces import BEYOND, WITHIN, bars, ends, rug
from qexplore.plots.tabs import Shown
from qexplore.plots.tensor_rows import Grid, grid, tensor_row
from qexplore.plots.theme import figure
from qexplore.plots.words import decibels, number, percent, predicted_words

NOTHING = Grid(np.zeros(1), np.zeros(1), np.zeros(1), 1)


def tensor_histogram(shown: Shown, kind: str, name: str) -> go.Figure:
    """Counts of a tensor's float values by value (log scale), with its range, its levels and what is clipped.

    Args:
        kind: "activation" or "weight".
        name: of the tensor in `shown.tensors`.
    """
    row, histogram = tensor_row(shown, kind, name), shown.histogram(kind, name)
    sentence = None
    if row is None:
        sentence = f"The {kind} {name!r} is not quantized by this recipe."
    elif histogram is None:
        sentence = f"The {kind} {name!r} was not seen during calibration."
    there = sentence is None
    counts = np.asarray(histogram.counts if there and histogram else [], dtype=float)
    edges = histogram.edges if there and histogram else np.zeros(1)
    g = grid(row) if there and row else NOTHING
    channels, clipped = len(g.lo), beyond(edges, g)
    levels, every = g.shown_levels() if there else (edges[:0], 1)
    positive = counts[counts > 0]
    bottom = min(positive.min(initial=1.0), 1.0) / 2
    top = positive.max(initial=1.0) * 1.3
    left, right = min(edges[0], g.lo.min()), max(edges[-1], g.hi.max())
    margin = 0.03 * (right - left) or 1.0
    wide, narrow = ((float(g.lo[channel]), float(g.hi[channel])) for channel in (g.widest, g.narrowest))
    traces = [
        bars(edges, counts, ~clipped, "within the range", WITHIN),
        bars(edges, counts, clipped, "clipped", BEYOND),
        rug(levels, f"all {g.levels} levels" if every == 1 else f"every {every}th of {g.levels} levels"),
        ends(wide if there else None, "widest channel" if channels > 1 else "range", top, True),
        ends(narrow if there and channels > 1 else None, "narrowest channel", top, False),
    ]
    return figure(
        traces,
        f"Values of {name}",
        [*_facts(row), *predicted_words(shown)] if there and row else [],
        400,
        sentence,
        xaxis=axis(f"value of {name} (float model)", anchor="y2", range=[left - margin, right + margin]),
        yaxis=axis(
            "count (log)",
            type="log",
            range=[math.log10(bottom), math.log10(top) + 0.08 * math.log10(top / bottom)],
            domain=[0.1, 1],
            dtick=1,
            exponentformat="SI",
        ),
        yaxis2=axis("", domain=[0, 0.08], range=[-1, 1], showticklabels=False, showgrid=False, showline=False),
        bargap=0,
        barmode="overlay",
    )


def beyond(edges: np.ndarray, g: Grid) -> np.ndarray:
    """Which bins lie, by their middle, more than half a step outside the range of every channel.

    Up to half a step outside, rounding alone brings a value in; the table's `clipped` counts the same way.
    """
    middle = (edges[1:] + edges[:-1]) / 2
    return (middle < (g.lo - g.scale / 2).min()) | (middle > (g.hi + g.scale / 2).max())


def _facts(row: dict[str, Any]) -> list[str]:
    g = grid(row)
    if len(g.scale) > 1:
        scale = f"scale {number(g.scale.min())} to {number(g.scale.max())} over {len(g.scale)} channels"
    else:
        scale = f"scale {number(g.scale[0])}, zero point {np.atleast_1d(row['zero_point'])[0]:.0f}"
    facts = [f"{scale}, {row['bits']} bits", f"SQNR {decibels(row['sqnr_db'])}, clipped {percent(row['clipped'])}"]
    if row["observer"] == "run time":
        facts.append("Range of the whole calibration; each batch uses its own.")
    return facts
