"""Exercises of lesson 00: reading the explorer."""

from __future__ import annotations

from functools import cache
from typing import Any

from qexplore.analysis import Prediction, predict
from qexplore.calibrate import Calibration, calibrate
from qexplore.lesson.exercise import exercise
from qexplore.recipe import Recipe, TensorSpec
from qexplore.workload import workload

LEAST = 20.0  # dB


@cache
def _calibration(name: str) -> Calibration:
    return calibrate(workload(name))


def _predicted(name: str, recipe: Recipe) -> Prediction:
    return predict(_calibration(name), recipe)


@exercise(
    "where the error begins",
    start="Choose digits_mobile and per tensor, open Error by layer, and read the layers from the top.",
    right="From here on every layer computes with this layer's errors.",
)
def where_the_error_begins(layer: Any) -> str | None:
    found = _predicted("digits_mobile", Recipe(weight=TensorSpec(symmetric=True))).layers.sqnr_db
    first = str(found.index[found < LEAST][0])
    if layer not in found.index:
        return f"digits_mobile has no layer {layer!r}: write a name from the figure's axis, in quotes."
    if layer == first:
        return None
    here = f"{layer} has {found[layer]:.1f} dB"
    if found[layer] >= LEAST:
        return f"{here}, which is not below {LEAST:.0f} dB: go on down the list."
    return f"{here}, which is low, but a layer before it is below {LEAST:.0f} dB already."


@exercise(
    "how few bits",
    start="Move Activation bits down from 8, one by one, and read the predicted output SQNR.",
    right="One bit less, and the error is more than a tenth of the signal.",
)
def how_few_bits(bits: Any) -> str | None:
    if float(bits) not in range(2, 9):
        return f"{bits!r} is no number of bits that the explorer has: give a whole number from 2 to 8."
    bits = int(bits)

    def sqnr(bits: int) -> float:
        return _predicted("digits", Recipe(activation=TensorSpec("histogram", bits=bits))).output_sqnr_db

    if sqnr(bits) < LEAST:
        return f"With {bits} bits it is {sqnr(bits):.1f} dB, below {LEAST:.0f} dB: it takes more."
    if bits > 2 and sqnr(bits - 1) >= LEAST:
        return f"With {bits} bits it is {sqnr(bits):.1f} dB, and fewer bits still give {LEAST:.0f} dB."
    return None
