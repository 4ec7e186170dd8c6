"""Observers: functions from a tensor's statistics to its range, one file each; importing this registers them."""

# isort: off
from qexplore.calibrate.observers.observer import (
    OBSERVERS,
    Observer,
    Option,
    channel_ranges,
    find,
    observer,
    tensor_range,
)
from qexplore.calibrate.observers import minmax, moving_average, histogram, percentile, mse, entropy, mean_std, aciq  # noqa: F401  (registers them)
# isort: on

__all__ = ["OBSERVERS", "Observer", "Option", "channel_ranges", "find", "observer", "tensor_range"]
