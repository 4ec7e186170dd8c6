"""What the numbers say: quantize for real, compare layer by layer, measure size and speed."""

from qexplore.analysis.diagnose import Diagnosis, diagnose
from qexplore.analysis.error_curve import ErrorCurve, error_curve
from qexplore.analysis.ledger import Ledger, error_ledger
from qexplore.analysis.mixed_precision import MixedPrecision, mixed_precision
from qexplore.analysis.predict import predict
from qexplore.analysis.prediction import Prediction
from qexplore.analysis.quantize import quantize
from qexplore.analysis.run import Run, load_run
from qexplore.analysis.sensitivity import Sensitivity, sensitivity
from qexplore.analysis.speed import benchmark
from qexplore.analysis.steps import adaround, batchnorm, bias_correction, equalize  # noqa: F401  (registers them)
from qexplore.analysis.uncertainty import Uncertainty, uncertainty

__all__ = [
    "Diagnosis",
    "ErrorCurve",
    "Ledger",
    "MixedPrecision",
    "Prediction",
    "Run",
    "Sensitivity",
    "Uncertainty",
    "benchmark",
    "diagnose",
    "error_curve",
    "error_ledger",
    "load_run",
    "mixed_precision",
    "predict",
    "quantize",
    "sensitivity",
    "uncertainty",
]
