"""What all figures share: colours with one meaning each, the layout, and the figure that only says why it is empty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

import numpy as np
import plotly.graph_objects as go

# Okabe and Ito's palette, which colour-blind people can tell apart; each colour means the same in every figure.
FLOAT = "#0072B2"
SIMULATED = "#E69F00"
INT8 = "#009E73"
CLIPPED = "#D55E00"
RANGE = "#CC79A7"
NEUTRAL = "#888888"

GRID = "rgba(128, 128, 128, 0.25)"
TEXT = "#444444"
HEIGHT = 380  # pixels
LINE = 64  # characters a line, so that text fits 420 pixels
LABEL = 26  # characters of a layer's name on an axis
EMPTY = np.array([])


def axis(title: str, **settings: Any) -> dict[str, Any]:
    """Settings of an axis; `title` names the quantity and its unit."""
    common = {
        "title": {"text": title, "standoff": 8},
        "automargin": True,
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": NEUTRAL,
        "showline": True,
        "visible": True,
    }
    return common | settings


def layer_axis(names: Sequence[str], pixels: int) -> dict[str, Any]:
    """A vertical axis with layers at 0, 1, ... from the top, labelled as closely as can be read in `pixels`."""
    every = max(1, math.ceil(14 * len(names) / pixels))
    places = np.arange(0, len(names), every)
    labels = [shortened(names[place]) for place in places]
    return axis("", tickvals=places, ticktext=labels, range=[len(names) - 0.4, -0.6], showgrid=False)


def layers_height(layers: int, row: int = 20) -> int:
    """Height in pixels of a figure with a row per layer."""
    return min(max(180 + row * layers, 260), 900)


def shortened(name: str, length: int = LABEL) -> str:
    """A layer's name with its middle left out where it is too long for an axis."""
    name = name or "(the model)"
    return name if len(name) <= length else f"{name[: length // 2 - 1]}…{name[-length // 2 :]}"


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
    top = 24 + 19 * len(headings) + 15.5 * len(lines) + above
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
            "y": 1 - 12 / height,
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
    made = go.Figure(list(traces))
    made.update_layout(settings | layout, annotations=[_sentence(sentence), *notes])
    return made


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
