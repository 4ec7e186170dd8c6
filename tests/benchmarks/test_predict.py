"""What a prediction costs: the first of a structure, the first with an observer, and once more."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

import qexplore as qx
from qexplore.calibrate.observers import OBSERVERS
from qexplore.engines.fx import warm_up
from qexplore.engines.observers import per_tensor_only


def milliseconds(calibration: qx.Calibration, recipe: qx.Recipe) -> float:
    started = time.perf_counter()
    prediction = qx.predict(calibration, recipe)
    assert len(prediction.tensors)
    return (time.perf_counter() - started) * 1e3


@pytest.mark.parametrize("name", ["digits", "digits_mobile", "pydoc_lstm", "denoise"])
def test_predict(name: str) -> None:
    warm_up()
    calibration = qx.calibrate(qx.workload(name))
    base = qx.Recipe(mode="dynamic" if name == "pydoc_lstm" else "static")
    print(f"\n{name}: first of the structure {milliseconds(calibration, base):.0f} ms")
    for observer in OBSERVERS:
        recipe = replace(base, activation=qx.TensorSpec(observer, bits=7))
        if not per_tensor_only(observer):
            recipe = replace(recipe, weight=replace(base.weight, observer=observer))
        first = milliseconds(calibration, recipe)
        again = sorted(milliseconds(calibration, recipe) for _ in range(5))[2]
        print(f"  {observer:15s} activations and weights: first {first:.0f} ms, again {again:.0f} ms")
