"""Predictions: equal to what the quantized model really has where they can be, close where they are estimates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore import LayerRule, QexploreError, Recipe, TensorSpec, Workload
from qexplore.batches import call
from qexplore.calibrate import Calibration
from qexplore.calibrate.graph import float_copy, trace
from qexplore.calibrate.observers import OBSERVERS
from qexplore.engines import Conversion, resolve_engine, resolve_guard
from qexplore.engines.dynamic import convert_dynamic
from qexplore.engines.fx import convert, prepare
from qexplore.numerics.errors import ErrorMeter

DEMOS = ["digits", "digits_mobile", "pydoc_lstm", "denoise"]
WEIGHT = TensorSpec(symmetric=True, per_channel=True)


@pytest.fixture(scope="module")
def calibrated() -> Callable[[str], Calibration]:
    kept: dict[str, Calibration] = {}

    def get(name: str) -> Calibration:
        if name not in kept:
            kept[name] = qx.calibrate(qx.workload(name))
        return kept[name]

    return get


def mode_of(name: str) -> str:
    return "dynamic" if name == "pydoc_lstm" else "static"


def converted(calibration: Calibration, recipe: Recipe) -> Conversion:
    """What `quantize` converts to, without measuring it."""
    workload = calibration.workload
    model = float_copy(workload.model)
    engine = resolve_engine(recipe, model)
    if recipe.mode == "dynamic":
        return convert_dynamic(model, recipe, engine, calibration)
    batches = list(workload.calibration)
    prepared = prepare(model, trace(model), recipe, engine, resolve_guard(recipe, engine, model), batches[0])
    with torch.no_grad():
        for batch in batches:
            call(prepared.module, batch)
    return convert(prepared)


def assert_same_mapping(prediction: qx.Prediction, conversion: Conversion) -> None:
    """Equal tensors and layers; scales equal but for the rounding of folding BatchNorm, zero points equal."""
    real = {(t.kind, t.name): t for t in conversion.tensors}
    assert list(prediction.quantized) == list(real)
    assert [(layer.name, layer.kind, layer.output, layer.quantized) for layer in conversion.layers] == [
        (row.Index, row.kind, row.output, row.quantized) for row in prediction.layers.itertuples()
    ]
    for key, ours in prediction.quantized.items():
        theirs = real[key]
        for field in ("layer", "quant_min", "quant_max", "bits", "axis", "observer", "at_run_time"):
            assert getattr(ours, field) == getattr(theirs, field), (key, field)
        torch.testing.assert_close(ours.scale, theirs.scale.float(), rtol=2e-6, atol=0, msg=str(key))
        assert torch.equal(ours.zero_point.long(), theirs.zero_point.long()), key


@pytest.mark.parametrize("fuse", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("observer", ["minmax", "moving_average"])
@pytest.mark.parametrize("name", DEMOS)
def test_scale_and_zero_point_are_those_of_the_quantized_model(
    calibrated: Callable[[str], Calibration], name: str, observer: str, fuse: bool
) -> None:
    calibration = calibrated(name)
    weight = replace(WEIGHT, observer=observer)
    recipe = Recipe(mode=mode_of(name), activation=TensorSpec(observer), weight=weight, fuse=fuse)
    assert_same_mapping(qx.predict(calibration, recipe), converted(calibration, recipe))


@pytest.mark.parametrize("name", DEMOS)
def test_sqnr_is_that_of_quantizing_the_actual_values(calibrated: Callable[[str], Calibration], name: str) -> None:
    """Every tensor, 3 to 8 bits, whole and clipped ranges: within 0.3 dB."""
    calibration = calibrated(name)
    specs = [(bits, observer) for bits in range(3, 9) for observer in ("minmax", "mse")]
    predictions = {
        key: qx.predict(
            calibration,
            Recipe(mode=mode_of(name), activation=TensorSpec(key[1], key[0]), weight=replace(WEIGHT, bits=key[0])),
        )
        for key in specs
    }
    meters = {(key, tensor): ErrorMeter() for key, p in predictions.items() for tensor in p.quantized}
    conversion = converted(calibration, predictions[8, "minmax"].recipe)

    def take(tensor: str, x: torch.Tensor) -> None:
        if tensor.startswith("tensor:"):
            for key, prediction in predictions.items():
                mapping = prediction.quantized["activation", tensor[7:]]
                meters[key, ("activation", tensor[7:])].add(x, mapping.fake_quantize(x))

    with torch.no_grad():
        for batch in calibration.workload.calibration:
            conversion.probes["float"].run(batch, take)
    worst = 0.0
    for key, prediction in predictions.items():
        for row in prediction.tensors.itertuples():
            weight = prediction.quantized[row.kind, row.name].weight
            meter = meters[key, (row.kind, row.name)]
            if weight is not None:
                meter.add(weight, prediction.quantized[row.kind, row.name].fake_quantize(weight))
            worst = max(worst, abs(row.sqnr_db - meter.sqnr_db))
            assert row.sqnr_db == pytest.approx(meter.sqnr_db, abs=0.3), (key, row.kind, row.name)
    print(f"\n{name}: predicted SQNR at most {worst:.3f} dB off")


@pytest.mark.usefixtures("quick_timing")
@pytest.mark.parametrize("name", DEMOS)
def test_error_of_layers_is_close_to_the_measured_one(calibrated: Callable[[str], Calibration], name: str) -> None:
    """First-order propagation of noise: in the mean within 3 dB of the simulation, never more than 9 dB off."""
    calibration = calibrated(name)
    recipe = Recipe(mode=mode_of(name), activation=TensorSpec(), weight=WEIGHT)
    run = qx.quantize(calibration.workload, recipe, calibration)
    prediction = qx.predict(calibration, recipe)
    difference = (prediction.layers.sqnr_db - run.layers.simulated_sqnr_db).abs()
    print(f"\n{name}: layers {difference.mean():.1f} dB off in the mean, {difference.max():.1f} dB at most")
    assert difference.mean() < 3 and difference.max() < 9
    assert abs(prediction.output_sqnr_db - run.metrics["sqnr_db"]) < 5


@pytest.mark.usefixtures("quick_timing")
@pytest.mark.parametrize("size", [0.25, 0.6], ids=["8-bits", "4-bits"])
def test_predicted_size_is_that_of_the_file(calibrated: Callable[[str], Calibration], size: float) -> None:
    calibration = calibrated("digits")
    bits = 8 if size == 0.25 else 4
    prediction = qx.predict(calibration, Recipe(weight=replace(WEIGHT, bits=bits)))
    run = qx.quantize(calibration.workload, Recipe(weight=replace(WEIGHT, bits=bits)), calibration)
    assert prediction.size["int8_bytes"] == pytest.approx(run.size["int8_bytes"], rel=0.05)
    assert prediction.size["float_bytes"] == run.size["float_bytes"]


def test_rules_and_float_layers_are_predicted_as_they_are_quantized(conv: Workload) -> None:
    calibration = qx.calibrate(conv)
    rules = (
        LayerRule("block.conv2", keep_float=True),
        LayerRule("stem", activation=TensorSpec("moving_average", bits=6)),
        LayerRule("fc", weight=TensorSpec(bits=4, symmetric=True)),
    )
    for fuse in (True, False):
        recipe = Recipe(activation=TensorSpec(), weight=WEIGHT, rules=rules, fuse=fuse)
        assert_same_mapping(qx.predict(calibration, recipe), converted(calibration, recipe))


class Joined(nn.Module):
    """Branches that are concatenated and pooled, so that tensors share an observer, and a sigmoid of fixed range."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3, padding=1)
        self.two = nn.Conv2d(3, 4, 1)
        self.pool = nn.MaxPool2d(2)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 4)
        self.gate = nn.Sigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([self.one(x).relu(), self.two(x)], 1)
        y = self.mean(self.pool(y)).flatten(1)
        return self.gate(self.fc(y)) * y[:, :4]


@pytest.mark.parametrize("observer", ["minmax", "moving_average"])
@pytest.mark.parametrize("guard", ["none", "activations", "weights"])
def test_shared_observers_fixed_ranges_and_guards(observer: str, guard: str) -> None:
    torch.manual_seed(0)
    batches = [torch.randn(4, 3, 8, 8) * (1 + i) for i in range(3)]
    workload = Workload("joined", Joined(), calibration=batches, evaluate=lambda m: 1.0)
    calibration = qx.calibrate(workload)
    recipe = Recipe(activation=TensorSpec(observer), weight=WEIGHT, overflow_guard=guard)
    prediction, conversion = qx.predict(calibration, recipe), converted(calibration, recipe)
    assert_same_mapping(prediction, conversion)
    assert "fixed" in set(prediction.tensors.observer)


def test_an_untraceable_model_is_predicted_in_dynamic_mode(
    untraceable: nn.Module, make: Callable[..., Workload]
) -> None:
    calibration = qx.calibrate(make(untraceable, torch.randn(4, 6), torch.randn(4, 6)))
    recipe = Recipe(mode="dynamic")
    prediction = qx.predict(calibration, recipe)
    assert_same_mapping(prediction, converted(calibration, recipe))
    assert math.isnan(prediction.output_sqnr_db)
    with pytest.raises(QexploreError, match="cannot trace"):
        qx.predict(calibration, Recipe())


def test_parts_of_the_error_add_up_and_clipping_is_seen(calibrated: Callable[[str], Calibration]) -> None:
    recipe = Recipe(activation=TensorSpec("percentile", options={"percentile": 95}), weight=WEIGHT)
    table = qx.predict(calibrated("digits"), recipe).tensors
    assert np.allclose(table.mse, table.rounding_mse + table.clipping_mse)
    clipped = table[table.kind == "activation"]
    assert (clipped.clipped > 0.02).any() and (clipped.clipping_mse > clipped.rounding_mse).any()
    assert table.codes_used.between(0, 1).all()


def test_a_prediction_runs_no_model(conv: Workload) -> None:
    calibration = qx.calibrate(conv)
    qx.predict(calibration, Recipe())
    for module in calibration.cache["model"][0].modules():
        module.register_forward_pre_hook(lambda m, args: pytest.fail("the model was run"))
    for bits in (8, 5):
        for observer in OBSERVERS:
            qx.predict(calibration, Recipe(activation=TensorSpec(observer, bits)))


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe(activation=TensorSpec("nonsense")), "no observer named 'nonsense'"),
        (Recipe(activation=TensorSpec(options={"share": 1})), "'minmax' has no options"),
        (Recipe(activation=TensorSpec("percentile", options={"percentile": 101})), "to 100 %"),
        (Recipe(rules=(LayerRule("nowhere", keep_float=True),)), "'nowhere' matches no layer"),
        (Recipe(weight=TensorSpec("histogram", per_channel=True)), "works per tensor only"),
        (Recipe(engine="cuda"), "no engine named 'cuda'"),
    ],
    ids=["observer", "option", "option-range", "rule", "per-channel", "engine"],
)
def test_recipes_that_do_not_fit_are_refused(conv: Workload, recipe: Recipe, message: str) -> None:
    with pytest.raises(QexploreError, match=message):
        qx.predict(qx.calibrate(conv), recipe)


def test_a_saved_calibration_predicts_the_same(conv: Workload, tmp_path: Path) -> None:
    calibration = qx.calibrate(conv)
    loaded = qx.load_calibration(calibration.save(tmp_path / "calibration"), conv)
    for observer in OBSERVERS:
        recipe = Recipe(activation=TensorSpec(observer, bits=5))
        one, two = qx.predict(calibration, recipe), qx.predict(loaded, recipe)
        assert one.tensors.equals(two.tensors) and one.layers.equals(two.layers)
    with pytest.raises(QexploreError, match="belongs to workload"):
        qx.load_calibration(tmp_path / "calibration", replace(conv, name="other"))
    (tmp_path / "nonsense").write_text("{}")
    with pytest.raises(QexploreError, match="no saved calibration"):
        qx.load_calibration(tmp_path / "nonsense", conv)
    with pytest.raises(QexploreError, match="Cannot read"):
        qx.load_calibration(tmp_path / "missing", conv)


def test_error_curve_has_every_observer_on_it(calibrated: Callable[[str], Calibration]) -> None:
    stats = next(iter(calibrated("digits").stats.values()))
    curve = qx.error_curve(stats, TensorSpec("minmax", bits=4))
    assert list(curve.choices.index) == list(OBSERVERS) and not curve.failed
    assert (np.diff(curve.clip) > 0).all()
    assert curve.clipping[0] > curve.clipping[-1] == 0
    assert curve.rounding[0] < curve.rounding[-1]
    best = (curve.rounding + curve.clipping).min()
    assert curve.choices.mse["mse"] == pytest.approx(best, rel=0.1)
    assert curve.choices.mse.min() == curve.choices.mse["mse"]


def test_what_quantize_refuses_is_refused_here_too(conv: Workload) -> None:
    calibration = qx.calibrate(conv)
    everything = Recipe(rules=(LayerRule("*", keep_float=True),))
    within = Recipe(rules=(LayerRule("block.bn1", weight=TensorSpec(bits=3)),))
    for recipe, message in ((everything, "nothing to quantize"), (within, "names a part of layer 'block.conv1'")):
        for use in (qx.predict, lambda c, r: qx.quantize(conv, r, c)):
            with pytest.raises(QexploreError, match=message):
                use(calibration, recipe)


def test_half_a_step_outside_is_no_clipping(conv: Workload) -> None:
    prediction = qx.predict(qx.calibrate(conv), Recipe(weight=WEIGHT))
    weights = prediction.tensors[prediction.tensors.kind == "weight"]
    assert (weights.clipped == 0).all() and (weights.clipping_mse == 0).all()


def test_training_is_not_needed_for_a_prediction(conv: Workload) -> None:
    calibration = qx.calibrate(replace(conv, train=None))
    assert len(qx.predict(calibration, Recipe(mode="qat")).tensors)


@pytest.mark.usefixtures("own_observers")
def test_an_observer_that_changes_its_statistics_harms_nobody(conv: Workload) -> None:
    calibration, recipe = qx.calibrate(conv), Recipe(activation=TensorSpec(bits=7))

    @qx.observer("vandal")
    def vandal(stats: qx.TensorStats, spec: TensorSpec) -> tuple[float, float]:
        stats.sample[0].abs_()
        stats.batch_lo.fill_(-100)
        return -1.0, 1.0

    qx.predict(calibration, Recipe(activation=TensorSpec("vandal")))
    assert qx.predict(calibration, recipe).tensors.equals(qx.predict(qx.calibrate(conv), recipe).tensors)


def test_a_saved_calibration_of_other_weights_is_refused(conv: Workload, tmp_path: Path) -> None:
    path = qx.calibrate(conv).save(tmp_path / "calibration")
    with torch.no_grad():
        next(conv.model.parameters()).mul_(2)
    with pytest.raises(QexploreError, match="other weights"):
        qx.load_calibration(path, conv)


class Several(nn.Module):
    """One operation between two layers, under a misleading name."""

    def __init__(self, operation: Callable[[torch.Tensor], torch.Tensor] | nn.Module) -> None:
        super().__init__()
        self.first, self.add, self.last = nn.Linear(32, 32), operation, nn.Linear(32, 32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.add(self.first(x)))


@pytest.mark.usefixtures("quick_timing")
@pytest.mark.parametrize(
    "operation",
    [
        nn.LayerNorm(32),
        nn.Sigmoid(),
        nn.Tanh(),
        nn.Hardtanh(),
        nn.LeakyReLU(),
        nn.ReLU6(),
        lambda x: x + x,
        lambda x: x * x,
    ],
    ids=["layer_norm", "sigmoid", "tanh", "hardtanh", "leaky_relu", "relu6", "doubled", "squared"],
)
def test_noise_through_common_operations(operation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    torch.manual_seed(0)
    model = Several(operation)
    nn.init.constant_(model.first.bias, 0.7)
    batches = [torch.randn(256, 32) for _ in range(4)]
    workload = Workload("several", model, calibration=batches, evaluate=lambda m: 1.0)
    calibration = qx.calibrate(workload)
    recipe = Recipe(activation=TensorSpec(bits=6), weight=WEIGHT)
    run = qx.quantize(workload, recipe, calibration)
    difference = qx.predict(calibration, recipe).layers.sqnr_db - run.layers.simulated_sqnr_db
    assert difference.abs().max() < 2.5, difference
