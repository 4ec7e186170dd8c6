"""The float side: the traced model, statistics of its tensors from one pass over the data, and observers."""

from qexplore.calibrate.calibration import Calibration, load_calibration
from qexplore.calibrate.collect import calibrate
from qexplore.calibrate.stats import TensorStats

__all__ = ["Calibration", "TensorStats", "calibrate", "load_calibration"]
