"""The error ledger: its parts add up, are those of a calculation by hand, and say what is out of the ordinary."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore import LayerRule, QexploreError, Recipe, TensorSpec, Workload
from qexplore.analysis.ledger import IDEAL_RATIO, Ledger, error_ledger
from qexplore.analysis.local_errors import PARTS
from qexplore.engines import QuantizedTensor
from qexplore.numerics.affine import fake_quantize
from tests.conftest import as_workload, normal, seeded_model

DEMOS = ("digits", "digits_mobile", "pydoc_lstm", "denoise")
CLIPPING = TensorSpec("percentile", options={"percentile": 80})
CLIPPING_WEIGHTS = TensorSpec("percentile", symmetric=True, per_channel=True, options={"percentile": 80})


class Plain(nn.Module):
    """Images [N, 3, 4, 4] to 10 logits through normally distributed weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.act1 = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        self.conv3, self.act3 = nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        self.fc = nn.Linear(256, 10)
        for layer in (self.conv1, self.conv2, self.conv3, self.fc):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, std=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.fc(self.act3(self.conv3(x)).flatten(1))


def plain_images() -> list[torch.Tensor]:
    return [normal(32, 3, 4, 4, seed=seed) for seed in range(3)]


@pytest.fixture
def plain() -> Workload:
    return as_workload(seeded_model(Plain), *plain_images())


@pytest.fixture(scope="module")
def calibrated() -> Callable[[str], qx.Calibration]:
    return functools.cache(lambda name: qx.calibrate(qx.workload(name)))


def at_bits(bits: int, observer: str = "histogram", per_channel: bool = True, mode: str = "static") -> Recipe:
    return Recipe(mode, TensorSpec(observer, bits), TensorSpec(bits=bits, symmetric=True, per_channel=per_channel))


def check_sums(ledger: Ledger) -> None:
    """The parts and what they have in common are the whole, and no larger than Cauchy and Schwarz allow."""
    for prefix, cross, whole in (("", "cross", "local_mse"), ("output_", "output_cross", "output_mse")):
        parts = ledger.layers[[prefix + name for name in PARTS]]
        total = ledger.layers[whole]
        np.testing.assert_allclose(parts.sum(axis=1) + ledger.layers[cross], total, rtol=1e-9)
        assert (parts >= 0).all(axis=None)
        # (sum of roots)^2 is the largest square of a sum of vectors of these lengths; a part may also oppose the rest.
        most = np.sqrt(parts).sum(axis=1) ** 2
        assert (total <= most * (1 + 1e-6)).all()
        assert (ledger.layers[cross].abs() <= (most - parts.sum(axis=1)) * (1 + 1e-6) + 1e-12 * total).all()
    assert ledger.layers.share.sum() == pytest.approx(1)


@pytest.mark.parametrize("name", DEMOS)
@pytest.mark.parametrize("bits", [8, 4])
def test_parts_add_up(calibrated: Callable[[str], qx.Calibration], name: str, bits: int) -> None:
    mode = "dynamic" if name == "pydoc_lstm" else "static"
    ledger = error_ledger(calibrated(name), at_bits(bits, mode=mode), samples=64)
    print(f"{name}, {bits} bits: |cross| up to {(ledger.layers.cross.abs() / ledger.layers.local_mse).max():.4f}")
    check_sums(ledger)


@pytest.mark.parametrize("name", ["digits", "digits_mobile"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_parts_have_little_in_common_at_8_bits(
    calibrated: Callable[[str], qx.Calibration], name: str, per_channel: bool
) -> None:
    layers = error_ledger(calibrated(name), at_bits(8, per_channel=per_channel)).layers
    most = (layers.cross.abs() / layers.local_mse).max()
    print(f"{name}, per channel {per_channel}: |cross| up to {most:.4f} of local_mse")
    assert most <= 0.1  # measured: 0.011 and 0.013 per channel, 0.004 and 0.063 per tensor


def clipped(x: torch.Tensor, t: QuantizedTensor) -> torch.Tensor:
    """`x` with the values more than half a step beyond the grid moved onto its edge."""
    shape = (-1, *[1] * (x.dim() - 1)) if t.axis == 0 else (-1,)
    low, high = (((code - t.zero_point) * t.scale).reshape(shape) for code in (t.quant_min, t.quant_max))
    edge = torch.maximum(torch.minimum(x, high), low)
    return torch.where((x - edge).abs() > 0.501 * t.scale.reshape(shape), edge, x)


def rounded(x: torch.Tensor, t: QuantizedTensor) -> torch.Tensor:
    return fake_quantize(x, t.scale, t.zero_point, t.quant_min, t.quant_max, t.axis)


@pytest.mark.parametrize("weight", [CLIPPING_WEIGHTS, TensorSpec("minmax", symmetric=True)], ids=["clipped", "plain"])
def test_parts_are_those_of_a_calculation_by_hand(weight: TensorSpec) -> None:
    model, x = seeded_model(lambda: nn.Sequential(nn.Linear(12, 7), nn.Linear(7, 4))), normal(64, 12)
    ledger = error_ledger(qx.calibrate(as_workload(model, x)), Recipe(activation=CLIPPING, weight=weight))
    t, u = (ledger.prediction.quantized[key] for key in (("activation", "input"), ("weight", "0")))
    w = model[0].weight.detach()
    steps = [(x, w), (clipped(x, t), w), (rounded(x, t), w), (rounded(x, t), clipped(w, u))]
    outputs = [(a.double() @ b.double().T) for a, b in [*steps, (rounded(x, t), rounded(w, u))]]
    row, errors = ledger.layers.loc["0"], [after - before for before, after in pairwise(outputs)]
    for name, error in zip(PARTS, errors, strict=True):
        assert row[name] == pytest.approx(float(error.square().mean()), rel=1e-4)
        assert (row[name] > 0) == (weight is CLIPPING_WEIGHTS or name != "weight_clipping")
    whole = outputs[-1] - outputs[0]
    assert row.local_mse == pytest.approx(float(whole.square().mean()), rel=1e-4)
    assert row.cross == pytest.approx(float(whole.square().mean() - sum(e.square().mean() for e in errors)), rel=1e-2)
    signal = (outputs[0] + model[0].bias.detach()).square().mean()
    assert row.local_sqnr_db == pytest.approx(10 * math.log10(signal / whole.square().mean()), abs=1e-3)
    through = (whole @ model[1].weight.detach().double().T).square().mean()
    assert row.output_mse == pytest.approx(float(through), rel=0.25)  # by four draws of signs for each of 64 samples


def test_nothing_is_clipped_by_min_max_ranges(plain: Workload) -> None:
    layers = error_ledger(qx.calibrate(plain), at_bits(8, "minmax")).layers
    assert (layers[["activation_clipping", "weight_clipping"]] == 0).all(axis=None)
    assert (layers[["output_activation_clipping", "output_weight_clipping"]] == 0).all(axis=None)
    assert (layers.activation_rounding > 0).all()


def test_ratios_are_those_of_rounding_alone() -> None:
    model = seeded_model(lambda: nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 256)))
    for linear in model:
        nn.init.normal_(linear.weight, std=0.06, generator=torch.Generator().manual_seed(0))
    layers = error_ledger(qx.calibrate(as_workload(model, normal(256, 256))), at_bits(8, "minmax")).layers
    assert abs(IDEAL_RATIO - 0.2887) < 1e-4
    assert layers.activation_ratio.tolist() == pytest.approx([IDEAL_RATIO] * 2, rel=0.01)
    assert layers.weight_ratio.tolist() == pytest.approx([IDEAL_RATIO] * 2, rel=0.01)
    clipped = error_ledger(qx.calibrate(as_workload(model, normal(256, 256))), Recipe(activation=CLIPPING)).layers
    assert (clipped.activation_ratio > 2 * IDEAL_RATIO).all()


@pytest.mark.parametrize("bits", [8, 6, 4])
@pytest.mark.parametrize("observer", ["histogram", "mse"])
def test_a_plain_net_is_nothing_out_of_the_ordinary(plain: Workload, bits: int, observer: str) -> None:
    layers = error_ledger(qx.calibrate(plain), at_bits(bits, observer)).layers
    print(layers[["local_sqnr_db", "normal_db"]])
    assert not layers.unusual.any()


@pytest.mark.parametrize("bits", [8, 6])
@pytest.mark.parametrize(
    ("settings", "spoiled"),
    [({"activation": CLIPPING}, "conv2"), ({"weight": CLIPPING_WEIGHTS}, "conv1")],
    ids=["range", "weights"],
)
def test_a_spoiled_layer_is(plain: Workload, bits: int, settings: dict, spoiled: str) -> None:
    rule = LayerRule("conv1", **{kind: replace(spec, bits=bits) for kind, spec in settings.items()})
    layers = error_ledger(qx.calibrate(plain), replace(at_bits(bits), rules=(rule,))).layers
    assert layers.unusual[spoiled] and layers.output_mse.idxmax() == spoiled
    kind = "activation" if "activation" in settings else "weight"
    assert layers[f"{kind}_clipping"][spoiled] > 0.9 * layers.local_mse[spoiled]
    assert not layers.unusual.drop(spoiled)["conv3":].any()


def test_what_is_normal_for_few_bits_is_not_out_of_the_ordinary(plain: Workload) -> None:
    rule = LayerRule("conv2", weight=TensorSpec("mse", 3, symmetric=True, per_channel=True))
    layers = error_ledger(qx.calibrate(plain), replace(at_bits(8), rules=(rule,))).layers
    assert layers.normal_db["conv2"] < 16 < layers.normal_db["conv3"] and not layers.unusual.any()
    assert layers.output_mse.idxmax() == "conv2"


def test_what_adds_up_at_the_last_layer_is_the_output_s(calibrated: Callable[[str], qx.Calibration]) -> None:
    for name in ("digits", "digits_mobile"):
        ledger = error_ledger(calibrated(name), at_bits(8))
        assert ledger.layers.accumulated_sqnr_db.iloc[-1] == ledger.sqnr_db


def test_accumulated_is_that_of_the_simulation(plain: Workload, quick_timing: None) -> None:
    calibration, recipe = qx.calibrate(plain), at_bits(8)
    ledger, run = error_ledger(calibration, recipe), qx.quantize(plain, recipe, calibration)
    accumulated = ledger.layers.accumulated_sqnr_db
    for name in ("conv1", "conv2", "conv3"):  # in the run with the output rounded too
        assert accumulated[name] >= run.layers.simulated_sqnr_db[name] - 0.2
    assert ledger.sqnr_db == pytest.approx(run.layers.simulated_sqnr_db["fc"], abs=0.2)


def test_the_sum_to_first_order_is_the_measured_one(plain: Workload) -> None:
    ledger = error_ledger(qx.calibrate(plain), at_bits(8))
    assert ledger.total_mse == pytest.approx(ledger.output_mse, rel=0.3)


def test_another_recipe_needs_no_backward(plain: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration = qx.calibrate(plain)
    first = error_ledger(calibration, at_bits(8))

    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("a backward pass was run")

    monkeypatch.setattr(torch.autograd, "grad", refuse)
    second = error_ledger(calibration, at_bits(5))
    assert second.output_mse > 10 * first.output_mse
    monkeypatch.undo()
    fresh = error_ledger(qx.calibrate(plain), at_bits(5))
    assert fresh.layers.equals(second.layers)


def test_what_does_not_fit_is_refused(plain: Workload, untraceable: nn.Module) -> None:
    with pytest.raises(QexploreError, match=r"give a qx\.Recipe"):
        error_ledger(qx.calibrate(plain), "static")  # type: ignore[arg-type]
    with pytest.raises(QexploreError, match=r"give a qx\.Calibration"):
        error_ledger(plain, Recipe())  # type: ignore[arg-type]
    with pytest.raises(QexploreError, match="needs its graph"):
        error_ledger(qx.calibrate(as_workload(untraceable, normal(4, 6))), Recipe("dynamic"))


def test_a_layer_may_be_called_output(make: Callable[..., Workload]) -> None:
    class Named(nn.Module):
        def __init__(self, last: str) -> None:
            super().__init__()
            self.first, self.name = nn.Linear(8, 8), last
            setattr(self, last, nn.Linear(8, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return getattr(self, self.name)(torch.relu(self.first(x)))

    one, two = (
        qx.error_ledger(qx.calibrate(make(seeded_model(Named, name), normal(32, 8))), qx.Recipe())
        for name in ("output", "last")
    )
    assert one.sqnr_db == pytest.approx(two.sqnr_db)
    assert one.layers.accumulated_sqnr_db.tolist() == pytest.approx(two.layers.accumulated_sqnr_db.tolist())
