"""qexplore: see what quantization does to a PyTorch model, live, in JupyterLab."""

from typing import Any

from qexplore.analysis import Run, benchmark, load_run, quantize
from qexplore.calibrate import Calibration, TensorStats, calibrate
from qexplore.calibrate.observers import Option, observer
from qexplore.errors import Cancelled, QexploreError
from qexplore.recipe import LayerRule, Recipe, TensorSpec
from qexplore.workload import Workload, workload, workloads

__all__ = [
    "Calibration",
    "Cancelled",
    "LayerRule",
    "Option",
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
    "observer",
    "quantize",
    "workload",
    "workloads",
]


def explore(workload: Workload | None = None) -> Any:
    """The explorer as a widget to display in JupyterLab.

    Args:
        workload: what to quantize; without one, a chooser over the demo workloads stands above the explorer.
    """
    from qexplore.widgets.chooser import Chooser
    from qexplore.widgets.explorer import Explorer

    return Chooser() if workload is None else Explorer(workload)
