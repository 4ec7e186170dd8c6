"""What values an activation takes, and what its range and levels make of them."""

from __future__ import annotations

import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.histogram import tensor_histogram
from qexplore.plots.tabs import tab


@tab("Activations", tensors="activation")
def activation_histogram(run: Run, tensor: str) -> go.Figure:
    """Histogram (log counts) of the float values of an activation, with its range, levels and clipped part.

    Args:
        tensor: name of the activation in `run.tensors`.
    """
    return tensor_histogram(run, "activation", tensor)
