"""A workload's own metric, its mistakes put into a sentence."""

from __future__ import annotations

import math

from torch import nn

from qexplore.errors import Cancelled, QexploreError, first_line
from qexplore.progress import Cancel, cancellable
from qexplore.workload import Workload


def evaluated(workload: Workload, cancel: Cancel, model: nn.Module) -> float:
    """The workload's metric of `model`, with Cancel at work inside.

    Raises:
        QexploreError: evaluate failed, or gave no finite number.
    """
    handle = cancellable(model, cancel)
    try:
        value = workload.evaluate(model)
    except (Cancelled, QexploreError):
        raise
    except Exception as error:
        raise QexploreError(f"evaluate of workload {workload.name!r} failed: {first_line(error)}.") from error
    finally:
        handle.remove()
    try:
        metric = float(value)
    except (TypeError, ValueError, RuntimeError):
        metric = math.nan
    if not math.isfinite(metric):
        raise QexploreError(f"evaluate of workload {workload.name!r} gave {value!r}; it has to be a finite number.")
    return metric
