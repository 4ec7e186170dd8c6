"""What values a weight has, and what its range and levels make of them."""

from __future__ import annotations

import plotly.graph_objects as go

from qexplore.plots.histogram import tensor_histogram
from qexplore.plots.tabs import Shown, tab


@tab("Weights", tensors=("weight",), of="either")
def weight_histogram(shown: Shown, layer_tensor: str) -> go.Figure:
    """Histogram (log counts) of a weight's float values; per channel, with the widest and the narrowest range.

    Args:
        layer_tensor: name of the weight in `shown.tensors` (the layer's, where it has one weight).
    """
    return tensor_histogram(shown, "weight", layer_tensor)
