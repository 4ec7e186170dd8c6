"""The float side: the traced model, and statistics of its tensors from one pass over the data."""

from qexplore.calibrate.collect import Calibration, calibrate
from qexplore.calibrate.stats import TensorStats

__all__ = ["Calibration", "TensorStats", "calibrate"]
