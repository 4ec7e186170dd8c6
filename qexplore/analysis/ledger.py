"""The error ledger: where the error of a quantized model comes from, layer by layer and part by part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd
import torch

from qexplore.analysis.checks import check_arguments, check_samples
from qexplore.analysis.linearize import SAMPLES, Linearized
from qexplore.analysis.local_errors import PARTS, LocalErrors, local_errors
from qexplore.analysis.predict import predict
from qexplore.analysis.prediction import Prediction
from qexplore.analysis.sensitivity import inputs_of, linearized, switches_of
from qexplore.batches import first_tensor
from qexplore.calibrate import Calibration, TensorStats
from qexplore.calibrate.observers.mse import mse
from qexplore.engines.switched import OUTPUT, Switched
from qexplore.exclusive import exclusive
from qexplore.isolate import seeded
from qexplore.numerics.affine import code_range, qparams
from qexplore.numerics.errors import ErrorMeter, ratio_db
from qexplore.numerics.parts import error_parts
from qexplore.progress import Cancel, Report, no_report, part
from qexplore.recipe import Recipe, TensorSpec

IDEAL_RATIO = 12**-0.5  # RMSE of rounding over the step, for errors that are uniform within it
UNUSUAL_DB = 6.0  # a layer so far below what is normal is out of the ordinary


@dataclass(frozen=True, repr=False, eq=False)
class Ledger:
    """Where the error comes from.

    Attributes:
        prediction: of the recipe.
        layers: a row for each quantized layer, indexed by name, in the model's order:
            kind; local_sqnr_db and local_mse, of its output when it reads float values (where it rounds the model's
            output as well, the mean over both); of local_mse the parts
            activation_clipping, activation_rounding, weight_clipping, weight_rounding and cross (what the parts have in
            common: with it they add up exactly; it may be negative);
            output_mse, the error at the model's output that this layer alone brings, its parts as output_<part> and
            output_cross; share, of the sum of all output_mse;
            accumulated_sqnr_db, of its output in the whole quantized model (simulated);
            normal_db, the local_sqnr_db that these bits give for normally distributed values and weights, and
            unusual, whether local_sqnr_db is more than 6 dB below;
            activation_ratio and weight_ratio: RMSE over the scale of what it reads and of its weight, 0.2887 for
            rounding alone (Widrow & Kollár 2008).
        total_mse, output_mse: at the output with all layers quantized: to first order, and measured (simulated).
        sqnr_db: output_mse in dB of the output.
    """

    prediction: Prediction
    layers: pd.DataFrame
    total_mse: float
    output_mse: float
    sqnr_db: float

    def __repr__(self) -> str:
        worst = self.layers.output_mse.idxmax() if len(self.layers) else "none"
        return f"<Ledger: output SQNR {self.sqnr_db:.1f} dB, most of the error from {worst!r}>"


def error_ledger(
    calibration: Calibration,
    recipe: Recipe,
    samples: int = SAMPLES,
    progress: Report | None = None,
    cancel: Cancel = None,
) -> Ledger:
    """Every layer's error under a recipe: its own, in parts; what it brings to the output; and what has added up.

    The first call runs the float model forward and backward on some samples; other recipes then cost one pass over the
    layers.

    Raises:
        QexploreError: the recipe does not fit, or the model cannot be traced.
    """
    check_arguments("error_ledger", (calibration, Calibration), (recipe, Recipe))
    check_samples(samples)
    report = progress or no_report
    with exclusive(report, cancel), seeded(recipe.seed):
        prediction = predict(calibration, recipe)
        switches = switches_of(prediction)
        ats = linearized(prediction, samples, part(report, 0.0, 0.4), cancel)
        errors = local_errors(switches, ats, True, part(report, 0.4, 0.9), cancel)
        meters = _accumulated(switches, ats)
    output = meters[OUTPUT]
    return Ledger(
        prediction, _table(prediction, switches, errors, meters), errors.total_mse(), output.mse, output.sqnr_db
    )


def _table(
    prediction: Prediction, switches: Switched, errors: LocalErrors, meters: dict[str, ErrorMeter]
) -> pd.DataFrame:
    kinds = {layer.name: layer.kind for layer in prediction.plan.layers}
    brought = errors.output_mse().mean(1)
    parts = errors.moved.square().mean((2, 3)) / errors.elements
    rows = []
    for row, layer in enumerate(errors.layers):
        count = float(errors.count[row])
        local = dict(zip(PARTS, (errors.squares[row] / count).tolist(), strict=True))
        whole = float(errors.whole[row]) / count
        at_output = {f"output_{name}": float(parts[row, i]) for i, name in enumerate(PARTS)}
        mse_there = float(brought[row])
        rows.append(
            {
                "layer": layer,
                "kind": kinds.get(layer, ""),
                "local_sqnr_db": ratio_db(float(errors.signal[row]) / count, whole),
                "local_mse": whole,
                **local,
                "cross": whole - sum(local.values()),
                "output_mse": mse_there,
                **at_output,
                "output_cross": mse_there - sum(at_output.values()),
                "share": mse_there / (float(brought.sum()) or 1.0),
                "accumulated_sqnr_db": meters[layer].sqnr_db,
                **_normal(prediction, switches, layer),
            }
        )
    table = pd.DataFrame(rows).set_index("layer")
    table.insert(table.columns.get_loc("normal_db") + 1, "unusual", table.local_sqnr_db < table.normal_db - UNUSUAL_DB)
    return table


def _accumulated(switches: Switched, ats: list[Linearized]) -> dict[str, ErrorMeter]:
    """Error of each layer's output in the whole quantized model, and of the model's under OUTPUT."""
    gives = {layer: nodes[0] for layer, nodes in switches.quantized_nodes().items()}
    for source in switches.nodes[switches.output].all_input_nodes:  # what the model gives is rounded as its output
        layer = switches.layer_of.get(source.name)
        if gives.get(str(layer)) == source.name:
            gives[str(layer)] = switches.output
    meters = {name: ErrorMeter() for name in [*gives, OUTPUT]}
    with torch.no_grad():
        for at in ats:
            values: dict[str, Any] = inputs_of(switches, at)
            values[switches.output] = switches.run(values, set(gives))
            for name, node in [*gives.items(), (OUTPUT, switches.output)]:
                given, expected = first_tensor(values[node]), at.values[switches.float_node(node)]
                reference = first_tensor(expected)
                if given is not None and reference is not None:
                    meters[name].add(reference, given)
    return meters


def _normal(prediction: Prediction, switches: Switched, layer: str) -> dict[str, float]:
    """What is normal for the tensors that a layer reads and for its weights, and their RMSE over the scale."""
    nodes = switches.quantized_nodes()[layer]
    read = {t.name for (reader, _), t in switches.reads.items() if reader == nodes[0]}
    read |= {t.name for t in prediction.quantized.values() if t.at_run_time and t.layer == layer}
    own = [("activation", name) for name in sorted(read)]
    weights = [key for key, t in prediction.quantized.items() if t.kind == "weight" and t.layer == layer]
    noise = 0.0
    ratios: dict[str, list[float]] = {"activation": [], "weight": []}
    table = prediction.tensors.set_index(["kind", "name"])
    for key in own + weights:
        spec, stats = prediction.specs[key], prediction.stats(*key)
        noise += 10 ** (-_normal_db(spec.bits, _one_sided(stats)) / 10)
        scale = prediction.quantized[key].scale.double().square().mean()
        ratios[key[0]].append(float(table.loc[key, "mse"]) / float(scale))
    means = {kind: (sum(found) / len(found)) ** 0.5 if found else float("nan") for kind, found in ratios.items()}
    return {
        "normal_db": ratio_db(1.0, noise),
        "activation_ratio": means["activation"],
        "weight_ratio": means["weight"],
    }


def _one_sided(stats: TensorStats) -> bool:
    return stats.lo >= 0 or stats.hi <= 0


@lru_cache(maxsize=64)
def _normal_db(bits: int, one_sided: bool) -> float:
    """SQNR of normally distributed values (their magnitudes where one-sided) in the range of least squared error."""
    values = torch.randn(1 << 14, generator=torch.Generator().manual_seed(0))
    stats = TensorStats.of(values.abs() if one_sided else values)
    lo, hi = mse(stats, TensorSpec("mse", bits))
    codes = code_range(bits, signed=True)
    scale, zero_point = qparams(torch.tensor(lo), torch.tensor(hi), *codes, symmetric=False)
    return error_parts(*stats.sample, scale, zero_point, *codes).sqnr_db
