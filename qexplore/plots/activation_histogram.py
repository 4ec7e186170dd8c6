"""What values an activation takes, and what its range and levels make of them."""

from __future__ import annotations

import plotly.graph_objects as go

from qexplore.plots.histogram import tensor_histogram
from qexplore.plots.tabs import Shown, tab


@tab("Activations", tensors=("activation",), of="either")
def activation_histogram(shown: Shown, tensor: str) -> go.Figure:
    """Histogram (log counts) of the float values of an activation, with its range, levels and clipped part.

    Args:
        tensor: name of the activation in `shown.tensors`.
    """
    return tensor_histogram(shown, "activation", tensor)
