"""What each byte is worth: the output error against the size, as the bits of layers go down one by one."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from qexplore.analysis.bit_choices import FLOAT_BITS
from qexplore.analysis.mixed_precision import MixedPrecision
from qexplore.plots.axes import axis
from qexplore.plots.theme import INT8, PREDICTED, SIMULATED, figure
from qexplore.plots.words import decibels, kib, number


def trade_off(found: MixedPrecision) -> go.Figure:
    """Model size in KiB against mean squared error at the output (log), to first order.

    The walk of the greedy search as a line, the same bits for all layers as squares, and what was chosen as a star at
    its measured error.
    """
    curve, uniform = found.curve, found.uniform
    steps = np.array([_step(layer, bits) for layer, bits in zip(curve.layer, curve.bits, strict=True)])
    same = np.array([f"all layers: {_bits(bits)}" for bits in uniform.index])
    walk = go.Scatter(
        **_points(curve.bytes.to_numpy(), curve.output_mse.to_numpy(), steps),
        mode="lines+markers",
        name="layer by layer",
        line={"color": PREDICTED, "shape": "vh"},
        marker={"size": 5},
    )
    squares = go.Scatter(
        **_points(uniform.bytes.to_numpy(), uniform.output_mse.to_numpy(), same),
        mode="markers",
        name="the same bits",
        marker={"color": SIMULATED, "size": 10, "symbol": "square"},
    )
    star = go.Scatter(
        **_points(np.array([found.size]), np.array([found.output_mse]), np.array(["chosen, measured"])),
        mode="markers",
        name="chosen (measured)",
        marker={"color": INT8, "size": 15, "symbol": "star"},
    )
    return figure(
        [walk, squares, star],
        f"{kib(found.size):,.0f} KiB at {decibels(found.sqnr_db)}",
        [f"Measured error {number(found.output_mse)}, to first order {number(found.predicted_mse)}."],
        xaxis=axis("model size in KiB"),
        yaxis=axis("mean squared error at the output (log)", 30, type="log", exponentformat="power"),
    )


def _points(sizes: np.ndarray, errors: np.ndarray, hover: np.ndarray) -> dict[str, object]:
    return {
        "x": kib(sizes.astype(float)),
        "y": np.where(errors > 0, errors, np.nan),  # a log axis has no zero
        "customdata": hover,
        "hovertemplate": "%{customdata}<br>%{x:,.1f} KiB, error %{y:.3g}<extra></extra>",
    }


def _step(layer: str, bits: int) -> str:
    return f"{layer}: {_bits(bits)}" if layer else f"all layers: {_bits(bits)}"


def _bits(bits: int) -> str:
    return "float" if bits == FLOAT_BITS else f"{bits} bits"
