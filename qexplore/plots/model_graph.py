"""The model as a graph of its layers, coloured by what each brings to the error at the output."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from qexplore.analysis.ledger import Ledger
from qexplore.plots.axes import NEUTRAL, ROW, axis, layer_axis
from qexplore.plots.ledger_rows import HOVER, frame, ledger_facts, place_of, row_data, shares
from qexplore.plots.model_lanes import Node, lanes, layer_graph
from qexplore.plots.theme import figure
from qexplore.plots.words import percent

# No end is close to white or black, so that both stand out on light and on dark pages.
COLORS = [[0.0, "#6F93B5"], [0.5, "#A377BE"], [1.0, "#E0245E"]]
LEAST, MOST = -3, 2  # powers of ten of a share in %, beyond which colours do not change
FRAME = 200  # pixels around the rows
TALLEST = 2000
BEND = 0.8  # rows that an edge takes from one lane to another
LEFT, RIGHT = 0.6, 7.0  # lanes from the axis to the first, and the fewest that the figure is wide
OTHERS = {"input": "square-open", "output": "square-open", "join": "circle-open"}
WORDS = {
    "input": "input of the model",
    "output": "output of the model",
    "join": "joins float values; it is not quantized",
}


def model_graph(ledger: Ledger, selected: str = "") -> go.Figure:
    """The layers from input to output, a row each, and lines from each to those that read it.

    What runs in parallel has lanes of its own, as in a graph of git commits: so every layer has room for its name,
    however deep the model is and however narrow the page. Colour, size and the figure beside a node tell its share of
    the error at the output.

    Args:
        selected: a layer to frame.
    """
    graph = layer_graph(ledger) if len(ledger.layers) else nx.DiGraph()
    places, edge_lanes = lanes(graph)
    found = dict(zip(map(str, ledger.layers.index), range(len(ledger.layers)), strict=True))
    widest = max([lane for _, lane in places.values()] + list(edge_lanes.values()), default=0)
    rows = len(places)
    height = min(max(FRAME + (ROW + 6) * rows, 260), TALLEST)
    layers = [node for node in places if node.kind == "layer"]
    traces = [
        _edges(places, edge_lanes),
        _others(places),
        _layers(ledger, layers, places, [found[node.name] for node in layers]),
        _figures(layers, places, widest, shares(ledger)[[found[node.name] for node in layers]]),
    ]
    return figure(
        traces,
        "The model, coloured by error",
        [*ledger_facts(ledger), "Lines lead down, from each layer to those that read it."],
        height,
        None if rows else "There are no quantized layers.",
        xaxis=axis("", range=[-LEFT, max(widest + 2.0, RIGHT)], visible=False, fixedrange=True),
        yaxis=layer_axis([node.name for node in places], height - FRAME) | {"title": None, "showline": False},
        showlegend=False,
        shapes=[frame(place_of([node.name if node.kind == "layer" else "" for node in places], selected))],
    )


def _edges(places: dict[Node, tuple[int, int]], edge_lanes: dict[tuple[Node, Node], int]) -> go.Scatter:
    """All edges as one line with gaps: a trace for each would be slow to draw."""
    curves = [_curve(places[start], places[end], lane) for (start, end), lane in edge_lanes.items()]
    points = np.concatenate([np.vstack([curve, [[np.nan, np.nan]]]) for curve in curves] or [np.empty((0, 2))])
    return go.Scatter(
        x=points[:, 0], y=points[:, 1], mode="lines", line={"color": NEUTRAL, "width": 1.5}, hoverinfo="skip"
    )


def _curve(start: tuple[int, int], end: tuple[int, int], lane: int) -> np.ndarray:
    """Points from one node to another along a lane, [points, (x, row)]; between neighbouring rows there is none."""
    (top, left), (bottom, right) = start, end
    ease = (1 - np.cos(np.linspace(0, np.pi, 17))) / 2
    if abs(bottom - top) == 1:
        return np.column_stack([left + (right - left) * ease, np.linspace(top, bottom, 17)])
    down = np.linspace(0, BEND, 17) * np.sign(bottom - top)
    away = np.column_stack([left + (lane - left) * ease, top + down])
    back = np.column_stack([lane + (right - lane) * ease, bottom - down[::-1]])
    return np.concatenate([away, back])


def _layers(ledger: Ledger, layers: list[Node], places: dict[Node, tuple[int, int]], order: list[int]) -> go.Scatter:
    power = np.log10(np.maximum(shares(ledger)[order], 10.0**LEAST))
    low = max(LEAST, min(int(np.floor(power.min())), 0)) if len(power) else 0
    ticks = np.arange(low, MOST + 1)
    bar: dict[str, Any] = {
        "title": {"text": "Share of the error<br>at the output in %", "side": "top", "font": {"size": 12}},
        "orientation": "h",
        "thickness": 10,
        "len": 1,
        "x": 0.5,  # of the plot: placed in the container, plotly 7.1 cuts bar and title off
        "xanchor": "center",
        "y": 0,
        "yanchor": "top",
        "tickvals": ticks,
        "ticktext": [f"{10.0**tick:g}" for tick in ticks],
        "outlinewidth": 0,
    }
    return go.Scatter(
        **_at(layers, places),
        mode="markers",
        marker={
            "color": power,
            "size": 9 + 9 * (power - low) / (MOST - low),
            "colorscale": COLORS,
            "cmin": low,
            "cmax": MOST,
            "colorbar": bar,
            "line": {"color": NEUTRAL, "width": 1},
            "opacity": 1,  # plotly's own is 0.7 where sizes differ
        },
        customdata=row_data(ledger)[order],
        hovertemplate=HOVER,
    )


def _others(places: dict[Node, tuple[int, int]]) -> go.Scatter:
    """Inputs, the output, and float operations that join several tensors."""
    nodes = [node for node in places if node.kind in OTHERS]
    return go.Scatter(
        **_at(nodes, places),
        mode="markers",
        marker={
            "symbol": [OTHERS[node.kind] for node in nodes],
            "size": 8,
            "color": NEUTRAL,
            "line": {"width": 2},
        },
        # no layer: a click on them chooses none
        customdata=np.array([["", f"{n.name}<br>{WORDS[n.kind]}"] for n in nodes], dtype=object).reshape(-1, 2),
        hovertemplate=HOVER,
    )


def _figures(layers: list[Node], places: dict[Node, tuple[int, int]], widest: int, percents: np.ndarray) -> go.Scatter:
    """The shares as a column of text, for those who cannot tell the colours apart."""
    return go.Scatter(
        x=np.full(len(layers), widest + 0.7),
        y=np.array([places[node][0] for node in layers], dtype=float),
        mode="text",
        text=np.array([_short(share) for share in percents]),
        textposition="middle right",
        textfont={"size": 11},
        hoverinfo="skip",
    )


def _short(share: float) -> str:
    """A share in %, without powers of ten, which nobody reads beside a node."""
    return f"< {10.0**LEAST:g} %" if 0 < share < 10.0**LEAST else percent(share / 100)


def _at(nodes: list[Node], places: dict[Node, tuple[int, int]]) -> dict[str, np.ndarray]:
    return {
        "x": np.array([places[node][1] for node in nodes], dtype=float),
        "y": np.array([places[node][0] for node in nodes], dtype=float),
    }
