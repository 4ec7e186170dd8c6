"""What the numbers say: quantize for real, compare layer by layer, measure size and speed."""

from qexplore.analysis.quantize import quantize
from qexplore.analysis.run import Run, load_run
from qexplore.analysis.speed import benchmark

__all__ = ["Run", "benchmark", "load_run", "quantize"]
