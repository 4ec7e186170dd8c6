"""What the model weighs, layer by layer, before and after."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.axes import FRAME, axis, layer_axis, layers_height
from qexplore.plots.tabs import tab
from qexplore.plots.theme import EMPTY, FLOAT, INT8, figure
from qexplore.plots.words import kib


@tab("Size")
def size(run: Run) -> go.Figure:
    """KiB of each layer's tensors in the float and the quantized model; layers without tensors are left out."""
    before, after = (run.layers[key].to_numpy(dtype=float) for key in ("float_bytes", "int8_bytes"))
    shown = (before > 0) | (after > 0)
    names, before, after = list(run.layers.index[shown]), before[shown], after[shown]
    measured = np.isfinite(after)
    places = np.arange(len(names))
    estimated = bool(run.size.get("estimated", False))
    total = f"{kib(run.size['float_bytes']):,.0f} KiB float, {kib(run.size['int8_bytes']):,.0f} KiB quantized"
    facts = [f"{total} ({'packed estimate' if estimated else 'saved files'})"]
    if not measured.all():
        facts.append("No quantized size by layer: codes below 8 bits are simulated.")
    labels = np.array(names)
    traces = [
        _bars("float", before, places, labels, FLOAT, ""),
        _bars("int8", after[measured], places[measured], labels[measured], INT8, "/"),
    ]
    height = layers_height(len(names), 28)
    return figure(
        traces,
        f"{run.size['ratio']:.2g}x smaller than float" if run.size["ratio"] >= 1 else "Larger than float",
        facts,
        height,
        None if names else "No layer of this model has tensors to store.",
        xaxis=axis("size of the layer's tensors in KiB", 30, rangemode="tozero"),
        yaxis=layer_axis(names, height - FRAME),
        barmode="group",
        bargap=0.25,
        bargroupgap=0.05,
    )


def _bars(name: str, values: np.ndarray, places: np.ndarray, names: np.ndarray, colour: str, shape: str) -> go.Bar:
    pattern = {"shape": shape, "size": 5, "solidity": 0.25, "fillmode": "overlay"}
    return go.Bar(
        x=kib(values) if len(values) else EMPTY,
        y=places,
        orientation="h",
        name=name,
        marker={"color": colour, "pattern": pattern},
        showlegend=len(values) > 0,
        customdata=names,
        hovertemplate=f"%{{customdata}}<br>{name}: %{{x:,.2f}} KiB<extra></extra>",
    )
