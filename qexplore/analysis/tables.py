"""The tables of a run: a row per quantized tensor, and a row per layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from qexplore.analysis.compare import Comparison
from qexplore.calibrate import TensorStats
from qexplore.engines import Conversion, Layer, QuantizedTensor
from qexplore.numerics.errors import ErrorMeter

BINS = 256


@dataclass(frozen=True)
class Histogram:
    """Counts of a tensor's float values in equal bins from `lo` to `hi`."""

    lo: float
    hi: float
    counts: list[float]

    @property
    def edges(self) -> np.ndarray:
        """Where the bins begin and end, [bins + 1]."""
        return np.linspace(self.lo, self.hi, len(self.counts) + 1)


def tensor_table(
    conversion: Conversion, comparison: Comparison, stats: dict[str, TensorStats], weights: dict[str, torch.Tensor]
) -> pd.DataFrame:
    """A row per quantized tensor.

    Args:
        weights: the float weights that quantized ones are compared with, by name, where preparation steps changed them.

    Columns: name, kind ("activation" | "weight"), layer, observer, bits, lo and hi (the smallest and largest value
    the codes can stand for), scale, zero_point, quant_min, quant_max, observed_min and observed_max (of the
    float values), sqnr_db, mse, clipped (share of values beyond the range). Cells of a weight that is quantized
    per channel hold tuples in lo, hi, scale and zero_point; observed_min and observed_max of a weight always do.
    """
    rows = []
    for t in conversion.tensors:
        if t.weight is not None:
            meter, values = ErrorMeter(), t.weight.numel()
            meter.add(weights.get(t.name, t.weight), t.fake_quantize(t.weight))
            clipped = t.clipped(t.weight)
        else:
            meter, values, clipped = comparison.tensors[t.name], comparison.values[t.name], comparison.clipped[t.name]
        share = clipped / values if values else math.nan
        rows.append(tensor_row(t, meter.sqnr_db, meter.mse, share, stats.get(t.name)))
    return pd.DataFrame(rows)


def tensor_row(
    t: QuantizedTensor, sqnr_db: float, mse: float, clipped: float, stats: TensorStats | None
) -> dict[str, Any]:
    """The row of one tensor (see `tensor_table`); `stats` are the activation's, None where it was not seen."""
    lo, hi = t.grid()
    if t.weight is not None:
        channels = t.weight.transpose(0, t.axis or 0).flatten(1)
        observed: tuple[Any, Any] = tuple(channels.amin(1).tolist()), tuple(channels.amax(1).tolist())
    else:
        observed = (stats.lo, stats.hi) if stats else (math.nan, math.nan)
    return {
        "name": t.name,
        "kind": t.kind,
        "layer": t.layer,
        "observer": t.observer,
        "bits": t.bits,
        "lo": _cell(lo, t),
        "hi": _cell(hi, t),
        "scale": _cell(t.scale, t),
        "zero_point": _cell(t.zero_point, t),
        "quant_min": t.quant_min,
        "quant_max": t.quant_max,
        "observed_min": observed[0],
        "observed_max": observed[1],
        "sqnr_db": sqnr_db,
        "mse": mse,
        "clipped": clipped,
    }


def _cell(values: torch.Tensor, t: QuantizedTensor) -> Any:
    return values.item() if t.axis is None else tuple(values.tolist())


def layer_table(
    conversion: Conversion,
    comparison: Comparison,
    tensors: pd.DataFrame,
    float_bytes: dict[str, int],
    int8_bytes: dict[str, int] | None,
) -> pd.DataFrame:
    """A row per layer, indexed by layer name, in the order the model computes them.

    Columns: kind, output (name of its tensor), quantized; sqnr_db, mse, max_error, cosine of the layer's output in
    the whole quantized model against float on the same inputs (the int8 model; where there is none, the
    simulation); simulated_sqnr_db; scale, zero_point, lo, hi, clipped of its output; weight_sqnr_db of its weight
    alone (the lowest, where it has several); float_bytes, int8_bytes of its tensors.
    """
    measured = comparison.layers.get("int8", comparison.layers["simulated"])
    activations, weights = by_kind(tensors)
    rows = []
    for layer in conversion.layers:
        error = measured.get(layer.name, ErrorMeter())
        errors = {
            "sqnr_db": error.sqnr_db if error.count else math.nan,
            "mse": error.mse,
            "max_error": error.max_error if error.count else math.nan,
            "cosine": error.cosine if error.count else math.nan,
            "simulated_sqnr_db": comparison.layers["simulated"][layer.name].sqnr_db,
        }
        row = layer_row(layer, errors, activations, weights, float_bytes)
        row["int8_bytes"] = math.nan if int8_bytes is None else int8_bytes.get(layer.name, 0)
        rows.append(row)
    return pd.DataFrame(rows).set_index("layer")


def by_kind(tensors: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Of a tensor table the activations by name, and the lowest SQNR of the weights of each layer."""
    weights = tensors[tensors.kind == "weight"]
    return tensors[tensors.kind == "activation"].set_index("name"), weights.groupby("layer").sqnr_db.min()


def layer_row(
    layer: Layer,
    errors: dict[str, float],
    activations: pd.DataFrame,
    weights: pd.Series,
    float_bytes: dict[str, int],
) -> dict[str, Any]:
    """The row of one layer (see `layer_table`) with the given errors; tables from `by_kind`."""
    row = {"layer": layer.name, "kind": layer.kind, "output": layer.output, "quantized": layer.quantized, **errors}
    for column in ("scale", "zero_point", "lo", "hi", "clipped"):
        row[column] = activations[column].get(layer.output, math.nan)
    row["weight_sqnr_db"] = weights.get(layer.name, math.nan)
    row["float_bytes"] = float_bytes.get(layer.name, 0)
    return row


def histograms(conversion: Conversion, stats: dict[str, TensorStats]) -> dict[str, Histogram]:
    """A histogram for each quantized tensor, by "kind:name"."""
    return {
        f"{t.kind}:{t.name}": histogram(t, stats) for t in conversion.tensors if t.weight is not None or t.name in stats
    }


def histogram(t: QuantizedTensor, stats: dict[str, TensorStats]) -> Histogram:
    """The histogram of a quantized tensor's float values."""
    if t.weight is not None:
        values, weights = t.weight.flatten().double().numpy(), None
    else:
        values, weights = (part.double().numpy() for part in stats[t.name].sample)
    counts, edges = np.histogram(values, BINS, weights=weights)
    return Histogram(float(edges[0]), float(edges[-1]), counts.tolist())
