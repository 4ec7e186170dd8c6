"""A prediction: what a recipe will do to each tensor and layer, and what figures need of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TypeVar

import pandas as pd
import torch

from qexplore.analysis.error_curve import ErrorCurve, error_curve
from qexplore.analysis.tables import Histogram, histogram
from qexplore.calibrate import Calibration, TensorStats
from qexplore.calibrate.graph import FloatGraph
from qexplore.calibrate.measure import measure
from qexplore.calibrate.observers import OBSERVERS
from qexplore.engines import QuantizedTensor
from qexplore.engines.plan import Plan
from qexplore.errors import QexploreError
from qexplore.recipe import Recipe, TensorSpec

Made = TypeVar("Made")


@dataclass(frozen=True, repr=False, eq=False)
class Prediction:
    """What `predict` found. In QAT mode it describes the start of the training.

    Attributes:
        calibration, recipe: what it was made from (the calibration after the steps that keep the model's function);
            `engine` and `overflow_guard` are what "auto" comes to.
        tensors: a row per quantized tensor with the columns of `Run.tensors` and rounding_mse, clipping_mse (the parts
            of mse) and codes_used (share of the codes that values get).
        layers: a row per layer, indexed by name, with columns of `Run.layers`: its sqnr_db and mse are those of the
            layer's output in the whole quantized model, by first-order noise propagation.
        output_sqnr_db: the same for the model's output; NaN where the model cannot be traced.
        size: as `Run.size`, computed for packed codes.
        quantized: the tensors with their mappings, by (kind, name).
        specs: the spec in force for each, by (kind, name), with the bits that an overflow guard leaves.
        plan: what is quantized, and the float graph it is read off.
        graph: the float model's trace; None where it cannot be traced.
        unpredicted: names of the recipe's steps whose effect is left out.
    """

    calibration: Calibration
    recipe: Recipe
    engine: str
    overflow_guard: str
    tensors: pd.DataFrame
    layers: pd.DataFrame
    output_sqnr_db: float
    size: dict[str, float | int | bool]
    quantized: dict[tuple[str, str], QuantizedTensor]
    specs: dict[tuple[str, str], TensorSpec]
    plan: Plan
    graph: FloatGraph | None
    unpredicted: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<Prediction for {self.calibration.workload.name!r}: output SQNR {self.output_sqnr_db:.1f} dB>"

    def stats(self, kind: str, name: str) -> TensorStats:
        """Statistics of a quantized tensor, weights included.

        Raises:
            QexploreError: no such tensor in this prediction.
        """
        tensor = self.quantized.get((kind, name))
        if tensor is None:
            raise QexploreError(f"The {kind} {name!r} is not quantized by this recipe.")
        if tensor.weight is None:
            return self.calibration.stats[name]
        return weight_stats(self.calibration, tensor.weight)

    def histogram(self, kind: str, name: str) -> Histogram | None:
        """Counts of the float values of a quantized tensor; None where the recipe does not quantize it."""
        tensor = self.quantized.get((kind, name))
        if tensor is None:
            return None
        key = ("histogram", kind, name, id(tensor.weight))
        return kept(self.calibration, key, lambda: histogram(tensor, self.calibration.stats))

    def curve(self, kind: str, name: str) -> tuple[ErrorCurve, TensorSpec]:
        """The error curve of a quantized tensor, and the spec in force for it.

        Raises:
            QexploreError: no such tensor in this prediction.
        """
        stats, spec = self.stats(kind, name), self.specs[kind, name]
        known = tuple(OBSERVERS[each].choose for each in OBSERVERS)
        return kept(self.calibration, ("curve", id(stats), spec, known), lambda: error_curve(stats, spec)), spec


def kept(calibration: Calibration, key: Hashable, make: Callable[[], Made]) -> Made:
    """What `make` gives, made once for this calibration."""
    if key not in calibration.cache:
        calibration.cache[key] = make()
    return calibration.cache[key]


def weight_stats(calibration: Calibration, weight: torch.Tensor) -> TensorStats:
    """Statistics of a weight that a plan of this calibration holds."""
    return kept(calibration, ("stats", id(weight)), lambda: measure(weight))
