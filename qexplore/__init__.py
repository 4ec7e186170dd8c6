"""qexplore: see what quantization does to a PyTorch model, live, in JupyterLab."""

from typing import Any

from qexplore.analysis import (
    Diagnosis,
    ErrorCurve,
    Ledger,
    MixedPrecision,
    Prediction,
    Run,
    Sensitivity,
    Uncertainty,
    benchmark,
    diagnose,
    error_curve,
    error_ledger,
    load_run,
    mixed_precision,
    predict,
    quantize,
    sensitivity,
    uncertainty,
)
from qexplore.calibrate import Calibration, TensorStats, calibrate, load_calibration
from qexplore.calibrate.observers import Option, observer
from qexplore.errors import Cancelled, QexploreError
from qexplore.recipe import LayerRule, Recipe, TensorSpec
from qexplore.workload import Workload, workload, workloads

__all__ = [
    "Calibration",
    "Cancelled",
    "Diagnosis",
    "ErrorCurve",
    "LayerRule",
    "Ledger",
    "MixedPrecision",
    "Option",
    "Prediction",
    "QexploreError",
    "Recipe",
    "Run",
    "Sensitivity",
    "TensorSpec",
    "TensorStats",
    "Uncertainty",
    "Workload",
    "benchmark",
    "calibrate",
    "diagnose",
    "error_curve",
    "error_ledger",
    "explore",
    "load_calibration",
    "load_run",
    "mixed_precision",
    "observer",
    "predict",
    "quantize",
    "sensitivity",
    "uncertainty",
    "workload",
    "workloads",
]


def explore(workload: Workload | None = None, recipe: Recipe | None = None) -> Any:
    """The explorer as a widget to display in JupyterLab.

    Args:
        workload: what to quantize; without one, a chooser over the demo workloads stands above the explorer.
        recipe: what the controls show at first; it needs a workload.

    Raises:
        QexploreError: a recipe without a workload, or one that names an unknown observer.
    """
    from qexplore.widgets.chooser import Chooser
    from qexplore.widgets.explorer import Explorer

    if recipe is not None and workload is None:
        raise QexploreError("explore got a recipe without a workload; give the workload that it is for.")
    return Chooser() if workload is None else Explorer(workload, recipe)


def playground(tensor: Any = None, name: str = "your tensor") -> Any:
    """One tensor under one affine mapping, as a widget to display in JupyterLab.

    Args:
        tensor: one's own, a torch.Tensor or anything torch.as_tensor takes; without one, samples and demo weights.
        name: what to call it.

    Raises:
        QexploreError: the tensor is empty, not numeric, or has NaN, infinite or huge values.
    """
    from qexplore.widgets.playground import Playground

    return Playground(tensor, name)
