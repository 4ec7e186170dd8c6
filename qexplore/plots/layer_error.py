"""How much error each layer's output has, in model order: measured, simulated and predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from qexplore.analysis import Prediction, Run
from qexplore.plots.axes import FRAME, NEUTRAL, axis, layer_axis, layers_height
from qexplore.plots.tabs import Shown, tab
from qexplore.plots.theme import INT8, PREDICTED, SIMULATED, figure
from qexplore.plots.words import decibels, predicted_words, quantized_name


@tab("Error by layer", of="either", beside=True)
def layer_error(shown: Shown, predicted: Prediction | None = None) -> go.Figure:
    """SQNR in dB of each layer's output against float, in model order.

    Args:
        shown: a run: measured as bars, simulated as marks; or a prediction: as bars.
        predicted: the prediction for the run's recipe, as marks.
    """
    run = shown if isinstance(shown, Run) else None
    layers = shown.layers
    names, kept = list(layers.index), ~layers.quantized.to_numpy(dtype=bool)
    bars_db = layers.sqnr_db.to_numpy(dtype=float)
    simulated = np.full(len(names), np.nan) if run is None else layers.simulated_sqnr_db.to_numpy(dtype=float)
    guess = (
        predicted.layers.sqnr_db.reindex(names).to_numpy(dtype=float)
        if run is not None and predicted is not None
        else np.full(len(names), np.nan)
    )
    places, finite = np.arange(len(names)), np.isfinite(bars_db)
    labels = [
        f"{name or '(the model)'} (float)" if float_ else name or "(the model)"
        for name, float_ in zip(names, kept, strict=True)
    ]
    is_int8 = run is not None and run.metrics["int8"] is not None
    hover = _hover(layers, run is not None, guess)

    def bars(which: np.ndarray, name: str, marker: dict[str, object]) -> go.Bar:
        return go.Bar(
            x=bars_db[which],
            y=places[which],
            orientation="h",
            customdata=hover[which],
            name=name,
            marker=marker,
            showlegend=bool(which.any()),
            hovertemplate="%{customdata}<extra></extra>",
        )

    def marks(values: np.ndarray, name: str, symbol: str, color: str) -> go.Scatter:
        there = np.isfinite(values)
        return go.Scatter(
            x=values[there],
            y=places[there],
            mode="markers",
            marker={"symbol": symbol, "size": 9, "color": color, "line": {"width": 2}},
            name=name,
            visible=bool(there.any()),
            customdata=hover[there],
            hovertemplate="%{customdata}<extra></extra>",
        )

    striped = {"shape": "/", "size": 6, "fillmode": "replace", "solidity": 0.4}
    color = PREDICTED if run is None else INT8 if is_int8 else SIMULATED
    title = "predicted" if run is None else f"measured ({quantized_name(run)})"
    traces = [
        bars(finite & ~kept, title, {"color": color}),
        bars(finite & kept, "kept float", {"color": NEUTRAL, "pattern": striped}),
        marks(simulated if is_int8 else np.full(len(names), np.nan), "simulated", "diamond-open", SIMULATED),
        marks(guess, "predicted", "line-ns-open", PREDICTED),
        go.Scatter(
            x=np.zeros(int((~finite).sum())),
            y=places[~finite],
            mode="text",
            text=np.array([decibels(value) for value in bars_db[~finite]]),
            textposition="middle right",
            showlegend=False,
            customdata=hover[~finite],
            hovertemplate="%{customdata}<extra></extra>",
        ),
    ]
    height = layers_height(len(names))
    worst = int(np.argmin(np.where(finite, bars_db, np.inf))) if finite.any() else None
    facts = [] if worst is None else [f"Lowest: {names[worst]}, {decibels(bars_db[worst])}."]
    output = shown.output_sqnr_db if isinstance(shown, Prediction) else shown.metrics["sqnr_db"]
    facts.append(f"Model output: {decibels(output)}. 6 dB less is twice the error.")
    facts += predicted_words(shown)
    if run is None and _clips(shown.tensors):
        facts.append("Clipping outweighs rounding in some tensors: layers may come out worse than predicted.")
    if run is not None and run.recipe.mode == "qat":
        facts.append("QAT changed the weights: this counts that change as well.")
    return figure(
        traces,
        "Error of each layer's output",
        facts,
        height,
        None if names else "There are no layers to compare.",
        xaxis=axis("SQNR against float in dB (higher is better)", 30, zeroline=True, zerolinecolor=NEUTRAL),
        yaxis=layer_axis(labels, height - FRAME),
        barmode="overlay",
        bargap=0.25,
    )


def _clips(tensors: pd.DataFrame) -> bool:
    """Whether clipping is the larger part of some tensor's error, which is then no white noise."""
    return bool((tensors.clipping_mse > tensors.rounding_mse).any())


def _hover(layers: pd.DataFrame, measured: bool, guess: np.ndarray) -> np.ndarray:
    lines = []
    for row, predicted in zip(layers.itertuples(), guess, strict=True):
        line = f"{row.Index} ({row.kind})<br>SQNR {decibels(row.sqnr_db)}"
        if measured:
            line += f", simulated {decibels(row.simulated_sqnr_db)}"
            line += f", predicted {decibels(predicted)}" if np.isfinite(predicted) else ""
            line += f"<br>largest error {row.max_error:.3g}, cosine {row.cosine:.5f}"
        lines.append(line + ("" if row.quantized else "<br>kept float: its error comes from the layers before it"))
    return np.array(lines)
