"""Float, simulated and int8: where int8 layers do something else than their simulation on identical inputs.

How far both are from float, layer by layer in the whole model and end to end, is in `compare`; why, in `why`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn

from qexplore.analysis.why import EQUAL, dynamic_reason, reason, why_words
from qexplore.batches import call, first_tensor
from qexplore.engines import Conversion
from qexplore.engines.codes import LayerCodes, compare_codes
from qexplore.engines.engine import using
from qexplore.numerics.errors import ErrorMeter
from qexplore.workload import Batch

__all__ = ["three_way", "why_words"]

COLUMNS = ("codes_differ", "codes_off", "largest", "saturated", "relative_difference")


def three_way(conversion: Conversion, batches: Sequence[Batch]) -> pd.DataFrame:
    """Compare every int8 layer with its simulation, on the inputs that it has in the int8 model.

    Returns:
        a row per layer, indexed by layer name, with
        codes_differ, codes_off: share of output codes that differ, and that differ by more than one;
        largest: largest difference, in codes;
        saturated: estimated share of the layer's sums in which pairs of products saturate in 16 bits in kernels
            without VNNI, whatever this layer's does (Linear and convolutions; see `engines.overflow`);
        relative_difference: RMS of the difference over the RMS of the output; dynamic mode only, which gives no codes;
        why: "" where equal or not compared, else one of the reasons in `why`.
        NaN where there is nothing to compare: layers kept float, and every layer of a recipe that is only simulated.
    """
    rows: dict[str, dict[str, Any]] = {}
    if conversion.int8 is not None and conversion.probes["int8"].by_node:
        codes: dict[str, LayerCodes] = defaultdict(LayerCodes)
        for batch in batches:
            for layer, found in compare_codes(conversion, batch).items():
                codes[layer] += found
        rows = {layer: _row(found) for layer, found in codes.items() if found.count}
    elif conversion.int8 is not None:
        meters: dict[str, ErrorMeter] = defaultdict(ErrorMeter)
        for batch in batches:
            _add_dynamic(conversion, batch, meters)
        rows = {layer: _dynamic_row(meter) for layer, meter in meters.items() if meter.count}
    nothing = {column: math.nan for column in COLUMNS} | {"why": EQUAL}
    table = [{"layer": layer.name} | nothing | rows.get(layer.name, {}) for layer in conversion.layers]
    return pd.DataFrame(table, columns=["layer", *nothing]).set_index("layer")


def _row(codes: LayerCodes) -> dict[str, Any]:
    return {
        "codes_differ": codes.differ / codes.count,
        "codes_off": codes.off / codes.count,
        "largest": float(codes.largest),
        "saturated": codes.sums.saturating / codes.sums.count if codes.sums.count else math.nan,
        "why": reason(codes),
    }


def _dynamic_row(meter: ErrorMeter) -> dict[str, Any]:
    difference = math.sqrt(meter.noise / meter.signal) if meter.signal else math.inf if meter.noise else 0.0
    return {"relative_difference": difference, "why": dynamic_reason(difference)}


def _add_dynamic(conversion: Conversion, batch: Batch, meters: dict[str, ErrorMeter]) -> None:
    """Run the int8 model and, on the float input of each quantized layer, its simulation."""
    assert conversion.int8 is not None

    def compare(layer: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: object) -> None:
        simulated = first_tensor(conversion.simulated.get_submodule(layer)(*args, **kwargs))
        real = first_tensor(output)
        if simulated is not None and real is not None:
            meters[layer].add(simulated, real)

    handles = [
        conversion.int8.get_submodule(layer.name).register_forward_hook(partial(compare, layer.name), with_kwargs=True)
        for layer in conversion.layers
        if layer.quantized
    ]
    try:
        with torch.no_grad(), using(conversion.engine):
            call(conversion.int8, batch)
    finally:
        for handle in handles:
            handle.remove()
