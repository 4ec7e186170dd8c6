"""How much error each layer's output has, in model order."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.axes import FRAME, NEUTRAL, axis, layer_axis, layers_height
from qexplore.plots.tabs import tab
from qexplore.plots.theme import INT8, SIMULATED, figure
from qexplore.plots.words import decibels, quantized_name


@tab("Error by layer")
def layer_error(run: Run) -> go.Figure:
    """SQNR in dB of each layer's output against float, in model order: measured as bars, simulated as marks."""
    layers = run.layers
    names, kept = list(layers.index), ~layers.quantized.to_numpy(dtype=bool)
    measured, simulated = (layers[key].to_numpy(dtype=float) for key in ("sqnr_db", "simulated_sqnr_db"))
    places, finite = np.arange(len(names)), np.isfinite(measured)
    labels = [
        f"{name or '(the model)'} (float)" if float_ else name or "(the model)"
        for name, float_ in zip(names, kept, strict=True)
    ]
    is_int8 = run.metrics["int8"] is not None
    hover = np.array(
        [
            f"{row.Index} ({row.kind})<br>SQNR {decibels(row.sqnr_db)}, simulated {decibels(row.simulated_sqnr_db)}<br>"
            f"largest error {row.max_error:.3g}, cosine {row.cosine:.5f}"
            + ("" if row.quantized else "<br>kept float: its error comes from the layers before it")
            for row in layers.itertuples()
        ]
    )

    def bars(shown: np.ndarray, name: str, marker: dict[str, object]) -> go.Bar:
        return go.Bar(
            x=measured[shown],
            y=places[shown],
            orientation="h",
            customdata=hover[shown],
            name=name,
            marker=marker,
            showlegend=bool(shown.any()),
            hovertemplate="%{customdata}<extra></extra>",
        )

    striped = {"shape": "/", "size": 6, "fillmode": "replace", "solidity": 0.4}
    traces = [
        bars(finite & ~kept, quantized_name(run), {"color": INT8 if is_int8 else SIMULATED}),
        bars(finite & kept, "kept float", {"color": NEUTRAL, "pattern": striped}),
        go.Scatter(
            x=simulated[np.isfinite(simulated)],
            y=places[np.isfinite(simulated)],
            mode="markers",
            marker={"symbol": "diamond-open", "size": 8, "color": SIMULATED, "line": {"width": 2}},
            name="simulated",
            visible=is_int8,
            customdata=hover[np.isfinite(simulated)],
            hovertemplate="%{customdata}<extra></extra>",
        ),
        go.Scatter(
            x=np.zeros(int((~finite).sum())),
            y=places[~finite],
            mode="text",
            text=np.array([decibels(value) for value in measured[~finite]]),
            textposition="middle right",
            showlegend=False,
            customdata=hover[~finite],
            hovertemplate="%{customdata}<extra></extra>",
        ),
    ]
    height = layers_height(len(names))
    worst = int(np.argmin(np.where(finite, measured, np.inf))) if finite.any() else None
    facts = [] if worst is None else [f"Lowest: {names[worst]}, {decibels(measured[worst])}."]
    facts.append(f"Model output: {decibels(run.metrics['sqnr_db'])}. 6 dB less is twice the error.")
    if run.recipe.mode == "qat":
        facts.append("QAT changed the weights: this counts that change as well.")
    return figure(
        traces,
        "Error of each layer's output",
        facts,
        height,
        None if names else "This run has no layers to compare.",
        xaxis=axis("SQNR against float in dB (higher is better)", 30, zeroline=True, zerolinecolor=NEUTRAL),
        yaxis=layer_axis(labels, height - FRAME),
        barmode="overlay",
        bargap=0.25,
    )
