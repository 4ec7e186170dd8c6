"""Which codes the values of a tensor get, and how many of them go unused."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import torch

from qexplore.analysis import Prediction
from qexplore.engines import QuantizedTensor
from qexplore.numerics.affine import quantize
from qexplore.plots.axes import axis
from qexplore.plots.tabs import BOTH, tab
from qexplore.plots.theme import CLIPPED, EMPTY, PREDICTED, figure
from qexplore.plots.words import percent, predicted_words


@tab("Codes", tensors=BOTH, of="prediction")
def codes(prediction: Prediction, kind: str, name: str) -> go.Figure:
    """How many values get each integer code (log counts); the first and the last code hold what is clipped.

    Args:
        kind, name: of a tensor in `prediction.tensors`.
    """
    tensor = prediction.quantized.get((kind, name))
    sentence, counts, levels, facts = None, EMPTY, EMPTY, []
    if tensor is None:
        sentence = f"The {kind} {name!r} is not quantized by this recipe."
    else:
        levels = np.arange(tensor.quant_min, tensor.quant_max + 1)
        counts = _counts(prediction, tensor)
        row = prediction.tensors.query("kind == @kind and name == @name").iloc[0]
        facts = [
            f"{row.codes_used:.0%} of {len(levels)} codes are used, clipped {percent(row.clipped)}.",
            f"The commonest code holds {percent(counts.max() / counts.sum())} of the values.",
            *predicted_words(prediction),
        ]
    ends = np.isin(levels, [levels[0], levels[-1]]) if len(levels) else np.zeros(0, dtype=bool)

    def bars(which: np.ndarray, label: str, color: str) -> go.Bar:
        return go.Bar(
            x=levels[which],
            y=counts[which],
            width=1.0,
            name=label,
            marker={"color": color, "line": {"width": 0}},
            hovertemplate="code %{x}<br>about %{y:,.0f} values<extra></extra>",
        )

    top = counts.max(initial=1.0)
    return figure(
        [bars(~ends, "codes inside", PREDICTED), bars(ends, "first and last code", CLIPPED)],
        f"Codes of {name}" + (" (weight)" if kind == "weight" else ""),
        facts,
        400,
        sentence,
        xaxis=axis("integer code", range=[levels[0] - 1.5, levels[-1] + 1.5] if len(levels) else [0, 1]),
        yaxis=axis("count (log)", type="log", range=[-0.3, np.log10(top) * 1.05 + 0.1], dtick=1, exponentformat="SI"),
        bargap=0,
        barmode="overlay",
    )


def _counts(prediction: Prediction, tensor: QuantizedTensor) -> np.ndarray:
    if tensor.weight is not None:
        values, weights = tensor.weight, None
    else:
        values, weights = prediction.stats("activation", tensor.name).sample
    mapping = (tensor.scale, tensor.zero_point, tensor.quant_min, tensor.quant_max, tensor.axis)
    places = quantize(values, *mapping).flatten().long() - tensor.quant_min
    return torch.bincount(places, weights, tensor.quant_max - tensor.quant_min + 1).double().numpy()
