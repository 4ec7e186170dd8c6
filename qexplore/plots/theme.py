"""What all figures share: colours with one meaning each, the layout, and the figure that only says why it is empty."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go

from qexplore.plots.axes import NEUTRAL

# Okabe and Ito's palette, which colour-blind people can tell apart; each colour means the same in every figure.
FLOAT = "#0072B2"
SIMULATED = "#E69F00"
INT8 = "#009E73"
CLIPPED = "#D55E00"
RANGE = "#CC79A7"
PREDICTED = "#56B4E9"

TEXT = "#444444"
HEIGHT = 380  # pixels
LINE = 64  # characters a line, so that text fits 420 pixels
EMPTY = np.array([])


def figure(
    traces: Sequence[Any],
    title: str,
    facts: Sequence[str] = (),
    height: int = HEIGHT,
    sentence: str | None = None,
    above: int = 0,
    **layout: Any,
) -> go.Figure:
    """A figure in the common layout.

    Args:
        title, facts: heading and the lines below it, wrapped to fit a width of 420 pixels.
        height: in pixels.
        sentence: why there is nothing to show; it then stands in place of the axes.
        above: pixels to leave free between title and plot.
        layout: further settings; `annotations` come after the one that holds the sentence.
    """
    notes = layout.pop("annotations", [])
    if sentence is not None:
        facts = ()
        layout = {k: v | {"visible": False} if k[1:5] == "axis" else v for k, v in layout.items()}
        notes = [note | {"visible": False} for note in notes]
    lines = [line for fact in facts for line in wrap(fact, LINE)]
    small = "".join(f'<br><span style="font-size:12px">{line}</span>' for line in lines)
    headings = wrap(title, LINE - 16)
    rows = len(headings) + len(lines)
    top = 26 + 19 * len(headings) + 15.5 * len(lines) + above
    settings: dict[str, Any] = {
        "template": "none",
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": TEXT},
        "title": {
            "text": "<br>".join(headings) + small,
            "font": {"size": 15},
            "x": 0,
            "xanchor": "left",
            "y": 1 - (12 if rows == 1 else 20) / height,  # plotly sets titles of several lines higher
            "yanchor": "top",
            "yref": "container",
            "pad": {"l": 10},
        },
        "margin": {"l": 10, "r": 14, "t": top, "b": 10},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xref": "container",
            "y": 0,
            "yanchor": "bottom",
            "yref": "container",
            "bgcolor": "rgba(0,0,0,0)",
        },
        "showlegend": sentence is None,
        "hoverlabel": {"bgcolor": "#333333", "bordercolor": NEUTRAL, "font": {"color": "#ffffff"}, "align": "left"},
    }
    notes = [_sentence(sentence), *notes]
    return go.Figure(list(traces), settings | layout | {"annotations": notes})  # update_layout takes five times as long


def _sentence(text: str | None) -> dict[str, Any]:
    """The annotation in the middle of a figure that has nothing else to show."""
    return {
        "text": "<br>".join(wrap(text or "", LINE - 14)),
        "visible": text is not None,
        "xref": "paper",
        "yref": "paper",
        "x": 0.5,
        "y": 0.5,
        "showarrow": False,
        "font": {"size": 14},
    }
