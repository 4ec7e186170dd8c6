"""What values a weight has, and what its range and levels make of them."""

from __future__ import annotations

import plotly.graph_objects as go

from qexplore.analysis import Run
from qexplore.plots.histogram import tensor_histogram
from qexplore.plots.tabs import tab


@tab("Weights", tensors="weight")
def weight_histogram(run: Run, layer_tensor: str) -> go.Figure:
    """Histogram (log counts) of a weight's float values; per channel, with the widest and the narrowest range.

    Args:
        layer_tensor: name of the weight in `run.tensors` (the layer's, where it has one weight).
    """
    return tensor_histogram(run, "weight", layer_tensor)
