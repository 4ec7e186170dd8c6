"""What the numbers say: quantize for real, compare layer by layer, measure size and speed."""

from qexplore.analysis.error_curve import ErrorCurve, error_curve
from qexplore.analysis.predict import predict
from qexplore.analysis.prediction import Prediction
from qexplore.analysis.quantize import quantize
from qexplore.analysis.run import Run, load_run
from qexplore.analysis.speed import benchmark

__all__ = ["ErrorCurve", "Prediction", "Run", "benchmark", "error_curve", "load_run", "predict", "quantize"]
