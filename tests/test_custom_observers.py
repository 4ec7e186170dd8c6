"""An observer of one's own: in predictions, static, dynamic and QAT runs, their simulation, recipes and messages."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import qexplore as qx
from qexplore import Option, QexploreError, Recipe, TensorSpec, TensorStats, Workload
from qexplore.calibrate.observers import OBSERVERS

MIDDLE = "middle_share"
WEIGHT = TensorSpec(symmetric=True, per_channel=True)
pytestmark = pytest.mark.usefixtures("quick_timing", "own_observers")


@pytest.fixture
def middle() -> str:
    """An observer that keeps the middle share of the values."""

    @qx.observer(MIDDLE, share=Option(99.0, 50.0, 100.0, "%", "Share of the values kept."))
    def choose(stats: TensorStats, spec: TensorSpec, share: float) -> tuple[float, float]:
        """The middle share of the values."""
        values, weights = stats.sample
        order = values.argsort()
        below = weights[order].cumsum(0) / weights.sum()
        tail = (1 - share / 100) / 2
        lo, hi = (values[order][int((below < edge).sum().clamp(max=len(values) - 1))] for edge in (tail, 1 - tail))
        return float(lo), float(hi)

    return MIDDLE


@pytest.mark.parametrize("bits", [8, 5])
def test_it_works_in_static_mode_as_predicted(conv: Workload, middle: str, bits: int) -> None:
    spec = TensorSpec(middle, bits, options={"share": 97.0})
    recipe = Recipe(activation=spec, weight=replace(WEIGHT, observer=middle))
    calibration = qx.calibrate(conv)
    run, prediction = qx.quantize(conv, recipe, calibration), qx.predict(calibration, recipe)
    for ours, theirs in zip(prediction.tensors.itertuples(), run.tensors.itertuples(), strict=True):
        assert (ours.name, ours.observer, ours.zero_point) == (theirs.name, middle, theirs.zero_point)
        assert np.allclose(ours.scale, theirs.scale, rtol=1e-4)
        assert ours.sqnr_db == pytest.approx(theirs.sqnr_db, abs=0.3)
    assert (run.tensors[run.tensors.kind == "activation"].clipped > 0.01).any()
    assert (run.model is None) == (bits == 5)


def test_it_works_for_weights_in_dynamic_mode(lstm: Workload, middle: str) -> None:
    recipe = Recipe(mode="dynamic", weight=TensorSpec(middle, symmetric=True))
    calibration = qx.calibrate(lstm)
    run, prediction = qx.quantize(lstm, recipe, calibration), qx.predict(calibration, recipe)
    weights = run.tensors[run.tensors.kind == "weight"]
    assert set(weights.observer) == {middle} and run.model is not None
    assert np.allclose(weights.scale.tolist(), prediction.tensors[prediction.tensors.kind == "weight"].scale.tolist())


def test_it_works_in_qat(conv: Workload, middle: str) -> None:
    recipe = Recipe(mode="qat", activation=TensorSpec(middle), weight=replace(WEIGHT, observer=middle), epochs=1)
    run = qx.quantize(conv, recipe)
    assert run.model is not None and set(run.tensors.observer) == {middle}
    assert math.isfinite(run.quantized_metric) and len(run.history) == 2


def test_a_recipe_reloads_where_it_is_registered_and_says_what_is_missing_where_not(
    conv: Workload, middle: str
) -> None:
    text = Recipe(activation=TensorSpec(middle, options={"share": 98.0})).to_json()
    recipe = Recipe.from_json(text)
    assert recipe.activation.observer == middle and dict(recipe.activation.options) == {"share": 98.0}
    calibration = qx.calibrate(conv)
    assert qx.predict(calibration, recipe).tensors.observer[0] == middle
    del OBSERVERS._entries[middle]
    for use in (lambda: qx.predict(calibration, recipe), lambda: qx.quantize(conv, recipe, calibration)):
        with pytest.raises(QexploreError, match=f"(?s)no observer named '{middle}'.*@qx.observer"):
            use()


def test_a_new_kernel_without_it_names_it(middle: str) -> None:
    text = Recipe(activation=TensorSpec(middle)).to_json()
    code = "import sys, qexplore as qx\nw = qx.workload('denoise')\n"
    code += "qx.predict(qx.calibrate(w), qx.Recipe.from_json(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, text], capture_output=True, text=True, check=False)
    assert done.returncode and f"no observer named '{middle}'" in done.stderr


def broken(kind: str) -> Callable[..., object]:
    def choose(stats: TensorStats, spec: TensorSpec) -> object:
        if kind == "raises":
            raise ZeroDivisionError("by zero")
        return {"none": None, "one": 3.0, "turned": (2.0, 1.0), "nan": (math.nan, 1.0), "words": ("a", "b")}[kind]

    return choose


@pytest.mark.parametrize("place", ["activation", "weight", "weight per channel"])
@pytest.mark.parametrize("kind", ["raises", "none", "one", "turned", "nan", "words"])
def test_a_mistake_names_the_observer_and_the_layer(conv: Workload, kind: str, place: str) -> None:
    qx.observer("broken")(broken(kind))
    spec = TensorSpec("broken", symmetric=place != "activation", per_channel=place.endswith("channel"))
    recipe = Recipe(activation=spec) if place == "activation" else Recipe(activation=TensorSpec(), weight=spec)
    layer = "input" if place == "activation" else "stem"
    calibration = qx.calibrate(conv)
    with pytest.raises(QexploreError, match=f"'broken'.*'{layer}"):
        qx.predict(calibration, recipe)
    with pytest.raises(QexploreError, match=f"'broken'.*'{layer}"):
        qx.quantize(conv, recipe, calibration)


@pytest.mark.parametrize("place", ["activation", "weight"])
def test_a_mistake_in_qat_names_the_layer(conv: Workload, place: str) -> None:
    qx.observer("broken")(broken("turned"))
    with pytest.raises(QexploreError, match=r"'broken'.*'(input|stem|block)"):
        qx.quantize(conv, Recipe(mode="qat", epochs=1, **{place: TensorSpec("broken")}))


def test_a_mistake_in_dynamic_mode_names_the_layer(lstm: Workload) -> None:
    qx.observer("broken")(broken("nan"))
    with pytest.raises(QexploreError, match=r"'broken'.*'lstm"):
        qx.quantize(lstm, Recipe(mode="dynamic", weight=TensorSpec("broken", symmetric=True)))


def test_error_curve_goes_on_without_a_broken_one(conv: Workload) -> None:
    qx.observer("broken")(broken("raises"))
    stats = TensorStats.of(torch.linspace(-1, 1, 100))
    curve = qx.error_curve(stats, TensorSpec())
    assert "broken" in curve.failed and "broken" not in curve.choices.index and "minmax" in curve.choices.index


def test_registering_again_counts_at_once(conv: Workload) -> None:
    calibration = qx.calibrate(conv)
    recipe = Recipe(activation=TensorSpec("mine"))
    scales = []
    for reach in (1.0, 2.0):
        qx.observer("mine")(lambda stats, spec, reach=reach: (-reach, reach))
        scales.append(qx.predict(calibration, recipe).tensors.scale[0])
    assert scales[1] == pytest.approx(2 * scales[0])
