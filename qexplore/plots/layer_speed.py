"""From which size on int8 pays: speed of single layers against their width."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from qexplore.plots.axes import NEUTRAL, axis
from qexplore.plots.theme import INT8, figure

LOOKS = (("solid", "circle"), ("dash", "diamond"), ("dot", "square-open"), ("dashdot", "triangle-up-open"))


def layer_speed(speeds: pd.DataFrame) -> go.Figure:
    """Times as fast as float against width, with quartiles; a line for each kind of layer and number of inputs.

    Args:
        speeds: tables of `analysis.layer_speed.layer_speeds`, below one another.
    """
    traces = []
    for (name, rows), (dash, symbol) in zip(_groups(speeds), LOOKS, strict=False):
        traces.append(
            go.Scatter(
                x=rows.width,
                y=rows.speedup,
                error_y={
                    "symmetric": False,
                    "array": rows.high - rows.speedup,
                    "arrayminus": rows.speedup - rows.low,
                    "thickness": 1.5,
                },
                name=name,
                mode="lines+markers",
                line={"color": INT8, "dash": dash},
                marker={"symbol": symbol, "size": 8},
                customdata=rows[["weight_mib", "float_ms", "int8_ms", "low", "high"]],
                hovertemplate=f"{name}, width %{{x}}<br>float weights %{{customdata[0]:.3g}} MiB<br>"
                "float %{customdata[1]:.3g} ms, int8 %{customdata[2]:.3g} ms<br>"
                "%{y:.2f}x, quartiles %{customdata[3]:.2f} to %{customdata[4]:.2f}<extra></extra>",
            )
        )
    threads = int(speeds.threads.iloc[0])
    level = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": {"color": NEUTRAL}}
    note = {"xref": "paper", "x": 1, "y": 0, "text": "as fast as float", "showarrow": False, "yshift": 9}
    widths = sorted(speeds.width.unique())
    return figure(
        traces,
        "When dynamic int8 pays",
        [f"int8 against float; bars: quartiles over the rounds; {threads} thread{'' if threads == 1 else 's'}"],
        420,
        shapes=[level | {"line": {"color": NEUTRAL, "dash": "dash"}}],
        annotations=[note | {"xanchor": "right"}],
        xaxis=axis(
            "width of the layer: inputs and outputs", type="log", tickvals=widths, ticktext=list(map(str, widths))
        ),
        yaxis=axis("speed of int8, times float (higher is better)", type="log", dtick="D2", tickformat=".3~g"),
        margin={"l": 10, "r": 14, "t": 70, "b": 60},
    )


def _groups(speeds: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The rows of each line, with its name."""
    words = {"Linear": "row", "LSTM": "step"}
    return [
        (f"{layer}, {inputs} {words[str(layer)]}{'' if inputs == 1 else 's'}", rows.sort_values("width"))
        for (layer, inputs), rows in speeds.groupby(["layer", "inputs"], sort=False)
    ]
