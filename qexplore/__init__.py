"""qexplore: see what quantization does to a PyTorch model, live, in JupyterLab."""

from typing import Any

from qexplore.analysis import Run, benchmark, load_run, quantize
from qexplore.calibrate import Calibration, TensorStats, calibrate
from qexplore.errors import Cancelled, QexploreError
from qexplore.recipe import LayerRule, Recipe, TensorSpec
from qexplore.workload import Workload, workload, workloads

__all__ = [
    "Calibration",
    "Cancelled",
    "LayerRule",
    "QexploreError",
    "Recipe",
    "Run",
    "TensorSpec",
    "TensorStats",
    "Workload",
    "benchmark",
    "calibrate",
    "explore",
    "load_run",
    "quantize",
    "workload",
    "workloads",
]


def explore(workload: Workload) -> Any:
    """The explorer for a workload: a widget to display in JupyterLab."""
    from qexplore.widgets.explorer import Explorer

    return Explorer(workload)
