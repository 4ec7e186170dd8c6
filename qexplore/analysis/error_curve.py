"""The error of a tensor against where its range is clipped, with every observer's choice on it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from qexplore.calibrate import TensorStats
from qexplore.calibrate.observers import OBSERVERS, tensor_range
from qexplore.errors import QexploreError
from qexplore.numerics.affine import code_range, qparams
from qexplore.numerics.parts import ErrorParts, error_parts
from qexplore.recipe import TensorSpec

POINTS = 40


@dataclass(frozen=True)
class ErrorCurve:
    """Mean squared errors of one tensor, in squared units of the tensor.

    Attributes:
        clip: the magnitudes at which the range is clipped, rising to the largest one seen; each range is
            [max(lo, -clip), min(hi, clip)].
        rounding, clipping: the two parts of the error at each.
        choices: a row per observer, indexed by name: lo, hi, clip (the larger magnitude of the two), mse, rounding_mse,
            clipping_mse, sqnr_db, clipped (share of the values).
        failed: what is wrong with observers that gave no range, by name.
    """

    clip: np.ndarray
    rounding: np.ndarray
    clipping: np.ndarray
    choices: pd.DataFrame
    failed: dict[str, str]


def error_curve(stats: TensorStats, spec: TensorSpec) -> ErrorCurve:
    """The error curve of a tensor at the spec's bits and scheme, per tensor.

    Args:
        stats: of the tensor; of a weight, from `qx.TensorStats.of(weight)`.
        spec: its observer is marked with its options, every other one with its defaults.
    """
    top = max(abs(stats.lo), abs(stats.hi))
    clip = np.geomspace(0.02, 1, POINTS) * top
    parts = [_parts(stats, max(stats.lo, -c), min(stats.hi, c), spec) for c in clip]
    rows, failed = {}, {}
    for name in OBSERVERS:
        chosen = spec if name == spec.observer else replace(spec, observer=name, options={})
        try:
            lo, hi = tensor_range(stats, replace(chosen, per_channel=False), "this tensor")
        except QexploreError as error:
            failed[name] = str(error)
            continue
        found = _parts(stats, lo, hi, spec)
        rows[name] = {
            "lo": lo,
            "hi": hi,
            "clip": max(abs(lo), abs(hi)),
            "mse": found.mse,
            "rounding_mse": found.rounding,
            "clipping_mse": found.clipping,
            "sqnr_db": found.sqnr_db,
            "clipped": found.clipped,
        }
    return ErrorCurve(
        clip,
        np.array([p.rounding for p in parts]),
        np.array([p.clipping for p in parts]),
        pd.DataFrame.from_dict(rows, orient="index"),
        failed,
    )


def _parts(stats: TensorStats, lo: float, hi: float, spec: TensorSpec) -> ErrorParts:
    codes = code_range(spec.bits, signed=True)
    mapping = qparams(torch.tensor(lo), torch.tensor(hi), *codes, spec.symmetric)
    return error_parts(*stats.sample, *mapping, *codes)
