"""Bits for each layer: targets are met as predicted and measured, and a mix beats the same bits for all layers."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from typing import Any

import pytest
import torch

import qexplore as qx
from qexplore.analysis.bit_search import Choices, descent, within_bytes, within_mse
from qexplore.analysis.linearize import SAMPLES
from qexplore.analysis.mixed_precision import mixed_precision
from qexplore.analysis.sensitivity import linearized, switches_of, whole_error
from qexplore.plots.trade_off import trade_off
from qexplore.progress import no_report

INT8 = qx.Recipe(activation=qx.TensorSpec(observer="minmax"))


def with_bits(recipe: qx.Recipe, bits: int) -> qx.Recipe:
    return replace(recipe, weight=replace(recipe.weight, bits=bits))


def measured(calibration: qx.Calibration, recipe: qx.Recipe, samples: int = SAMPLES) -> float:
    prediction = qx.predict(calibration, recipe)
    return whole_error(switches_of(prediction), linearized(prediction, samples, no_report, None))[0]


def weight_bits(calibration: qx.Calibration, recipe: qx.Recipe) -> dict[str, int]:
    quantized = qx.predict(calibration, recipe).quantized.values()
    return {t.layer: t.bits for t in quantized if t.kind == "weight"}


def table(mse: list[list[float]], sizes: list[list[float]]) -> Choices:
    names = tuple("abcdefgh"[: len(mse)])
    bits = tuple(range(8, 8 - len(mse[0]), -1))
    return Choices(names, bits, torch.tensor(mse).double(), torch.tensor(sizes).double(), 0.0, 0)


@pytest.fixture
def calibration(conv: qx.Workload) -> qx.Calibration:
    return qx.calibrate(conv)


@pytest.mark.parametrize(("name", "gain"), [("digits", 3.0), ("digits_mobile", 1.5)])
def test_a_mix_beats_uniform_bits_of_the_same_size(name: str, gain: float) -> None:
    calibration = qx.calibrate(qx.workload(name))
    uniform = with_bits(INT8, 4)
    size = qx.predict(calibration, uniform).size["int8_bytes"]
    found = mixed_precision(calibration, INT8, max_bytes=size, samples=64)
    assert found.size == qx.predict(calibration, found.recipe).size["int8_bytes"] <= size
    assert found.output_mse == pytest.approx(measured(calibration, found.recipe, 64))
    assert found.output_mse * gain < measured(calibration, uniform, 64)
    assert found.predicted_mse == pytest.approx(found.output_mse, rel=0.5)


def test_the_recipe_has_the_bits_of_the_table(calibration: qx.Calibration) -> None:
    size = qx.predict(calibration, with_bits(INT8, 5)).size["int8_bytes"]
    found = mixed_precision(calibration, INT8, max_bytes=size)
    assert weight_bits(calibration, found.recipe) == found.layers.bits.to_dict()
    assert {rule.pattern for rule in found.recipe.rules} == set(found.layers.index[found.layers.bits != 8])
    assert found.layers.bits.nunique() > 1
    assert f"{found.size:,} bytes" in found.words and f"{found.output_mse:.3g} measured" in found.words


def test_the_curve_goes_from_the_most_bits_to_the_fewest(calibration: qx.Calibration) -> None:
    found = mixed_precision(calibration, INT8, max_bytes=1e9)
    assert found.recipe == INT8
    ends = found.uniform.loc[[8, 2]]
    assert found.curve.iloc[[0, -1]].bytes.tolist() == ends.bytes.tolist()
    assert found.curve.iloc[[0, -1]].output_mse.tolist() == pytest.approx(ends.output_mse.tolist())
    assert found.curve.bytes.is_monotonic_decreasing and set(found.curve.layer[1:]) == set(found.layers.index)
    for bits, row in found.uniform.iterrows():
        assert row.bytes == qx.predict(calibration, with_bits(INT8, bits)).size["int8_bytes"]
        assert (found.curve.output_mse[found.curve.bytes <= row.bytes].iloc[0] <= row.output_mse) or bits in (8, 2)


def test_each_step_is_the_best_mix_of_its_size() -> None:
    generator = torch.Generator().manual_seed(3)
    for _ in range(5):
        mse = torch.rand(3, 4, generator=generator).cumsum(1)
        sizes = torch.randint(1, 9, (3, 4), generator=generator).flip(1).cumsum(1).flip(1)
        choices = table(mse.tolist(), sizes.tolist())
        for picked in descent(choices):
            fitting = [
                p for p in itertools.product(range(4), repeat=3) if choices.bytes_of(p) <= choices.bytes_of(picked)
            ]
            assert choices.mse_of(picked) == pytest.approx(min(map(choices.mse_of, fitting)))


def test_a_step_may_jump_over_bits_and_bytes_left_over_are_given_back() -> None:
    jump = table([[0, 10, 11]], [[30, 20, 10]])
    assert list(descent(jump)) == [(0,), (2,)]
    assert within_bytes(jump, 25) == (1,)
    assert within_bytes(jump, 9) is None
    two = table([[0, 1], [0, 5]], [[10, 9], [100, 10]])
    assert within_mse(two, 4) == (1, 0)
    assert within_mse(two, 5.5) == (0, 1)


def test_a_measured_error_meets_the_target(calibration: qx.Calibration) -> None:
    most = measured(calibration, with_bits(INT8, 4))
    found = mixed_precision(calibration, INT8, max_output_mse=most)
    assert measured(calibration, found.recipe) <= most
    assert found.size < qx.predict(calibration, with_bits(INT8, 5)).size["int8_bytes"]


def test_layers_stay_float_where_8_bits_do_not_do(calibration: qx.Calibration) -> None:
    most = measured(calibration, INT8) * 0.85
    with pytest.raises(qx.QexploreError, match="add 32 to bits"):
        mixed_precision(calibration, INT8, max_output_mse=most)
    found = mixed_precision(calibration, INT8, max_output_mse=most, bits=(32, 8))
    assert measured(calibration, found.recipe) <= most
    kept = [rule.pattern for rule in found.recipe.rules if rule.keep_float]
    assert kept == list(found.layers.index[found.layers.bits == 32]) != []
    assert found.size == qx.predict(calibration, found.recipe).size["int8_bytes"]
    with pytest.raises(qx.QexploreError, match="every layer float"):
        mixed_precision(calibration, INT8, max_bytes=1e9, bits=(32, 8))


def test_rules_of_the_recipe_are_kept(calibration: qx.Calibration) -> None:
    own = qx.LayerRule("fc", weight=qx.TensorSpec(bits=7, symmetric=True))
    narrow = qx.LayerRule("block.*", activation=qx.TensorSpec(bits=6))
    recipe = replace(INT8, rules=(own, narrow))
    size = qx.predict(calibration, with_bits(recipe, 4)).size["int8_bytes"]
    found = mixed_precision(calibration, recipe, max_bytes=size)
    assert "fc" not in found.layers.index and weight_bits(calibration, found.recipe)["fc"] == 7
    assert found.recipe.rules[:2] == (own, narrow) and len(found.recipe.rules) > 2
    for layer in found.layers.index:
        specs, before = found.recipe.specs_for(layer), recipe.specs_for(layer)
        assert specs is not None and before is not None and specs[0] == before[0]


def test_dynamic_mode_chooses_for_layers_with_several_weights(lstm: qx.Workload) -> None:
    calibration, recipe = qx.calibrate(lstm), qx.Recipe(mode="dynamic")
    size = qx.predict(calibration, with_bits(recipe, 5)).size["int8_bytes"]
    found = mixed_precision(calibration, recipe, max_bytes=size)
    assert set(found.layers.index) == {"lstm", "out"}
    assert found.size == qx.predict(calibration, found.recipe).size["int8_bytes"] <= size


def test_it_is_deterministic_and_leaves_the_random_state(calibration: qx.Calibration, conv: qx.Workload) -> None:
    state = torch.random.get_rng_state()
    one = mixed_precision(calibration, INT8, max_bytes=7500)
    two = mixed_precision(qx.calibrate(conv), INT8, max_bytes=7500)
    assert torch.equal(state, torch.random.get_rng_state())
    assert one.recipe == two.recipe and one.output_mse == two.output_mse and one.curve.equals(two.curve)


def test_a_size_out_of_reach_is_refused_with_the_least(calibration: qx.Calibration) -> None:
    least = qx.predict(calibration, with_bits(INT8, 2)).size["int8_bytes"]
    with pytest.raises(qx.QexploreError, match=f"fewest bits leave {least} bytes"):
        mixed_precision(calibration, INT8, max_bytes=least - 1)
    assert mixed_precision(calibration, INT8, max_bytes=least).size == least


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one target"),
        ({"max_bytes": 1e4, "max_output_mse": 1.0}, "one target"),
        ({"max_bytes": 0}, "max_bytes is 0"),
        ({"max_output_mse": float("nan")}, "max_output_mse is nan"),
        ({"max_bytes": True}, "max_bytes is True"),
        ({"max_bytes": 1e4, "bits": ()}, "bits is"),
        ({"max_bytes": 1e4, "bits": (9,)}, "bits is"),
        ({"max_bytes": 1e4, "bits": (32,)}, "32 alone"),
        ({"max_bytes": 1e4, "samples": 0}, "samples is 0"),
    ],
)
def test_bad_arguments_are_refused(calibration: qx.Calibration, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(qx.QexploreError, match=message):
        mixed_precision(calibration, INT8, **settings)


def test_other_kinds_and_nothing_to_choose_are_refused(calibration: qx.Calibration, conv: qx.Workload) -> None:
    with pytest.raises(qx.QexploreError, match="calibration"):
        mixed_precision(conv, INT8, max_bytes=1e4)  # type: ignore[arg-type]
    fixed = replace(INT8, rules=(qx.LayerRule("*", weight=qx.TensorSpec(bits=4)),))
    with pytest.raises(qx.QexploreError, match="No layer's bits are left"):
        mixed_precision(calibration, fixed, max_bytes=1e4)


def test_cancel_stops_it_and_progress_rises(calibration: qx.Calibration) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(qx.Cancelled):
        mixed_precision(calibration, INT8, max_bytes=1e4, cancel=cancel)
    seen: list[float] = []
    mixed_precision(calibration, INT8, max_bytes=7500, progress=lambda message, share: seen.append(share))
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_the_plot_shows_the_walk_the_same_bits_and_the_choice(calibration: qx.Calibration) -> None:
    found = mixed_precision(calibration, INT8, max_bytes=7500)
    walk, same, chosen = trade_off(found).data
    assert list(walk.x) == list(found.curve.bytes / 1024) and list(walk.y) == list(found.curve.output_mse)
    assert list(same.y) == list(found.uniform.output_mse) and same.customdata[0] == "all layers: 8 bits"
    assert list(chosen.x) == [found.size / 1024] and list(chosen.y) == [found.output_mse]
