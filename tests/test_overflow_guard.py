"""The overflow guard and the engine that "auto" comes to: depthwise kernels that saturate on any CPU are found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from qexplore import LayerRule, Recipe, TensorSpec, Workload, calibrate, predict, quantize
from qexplore.analysis import why
from qexplore.engines import ENGINES, resolve_engine, resolve_guard
from qexplore.engines.engine import grouped_saturates, saturates, supported_engines
from tests.conftest import normal, seeded_model

pytestmark = [pytest.mark.usefixtures("quick_timing"), pytest.mark.filterwarnings("ignore")]

HERE = supported_engines()
X86 = pytest.mark.skipif("fbgemm" not in HERE, reason="FBGEMM is for x86 CPUs")
VNNI = pytest.mark.skipif("onednn" not in HERE or saturates("onednn"), reason="the CPU has no VNNI")
AFFINE = TensorSpec("minmax", per_channel=True)


class Depthwise(nn.Module):
    """A depthwise convolution with large positive weights, on what is positive itself, between other layers."""

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 5)
        nn.init.normal_(self.stem.weight, std=0.03)
        nn.init.uniform_(self.stem.bias, 1.2, 1.4)
        nn.init.uniform_(self.depthwise.weight, 0.8, 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.depthwise(torch.relu(self.stem(x))))
        return self.fc(self.pool(x).flatten(1))


@pytest.fixture
def depthwise(make: Callable[..., Workload]) -> Workload:
    return make(seeded_model(Depthwise), *[normal(8, 3, 8, 8, seed=seed) for seed in range(3)])


def simulated_db(run: object) -> float:
    return float(run.layers.simulated_sqnr_db.iloc[-1])  # type: ignore[attr-defined]


@X86
@pytest.mark.parametrize("engine", ["auto", "x86", "fbgemm"])
@pytest.mark.parametrize("weight", [TensorSpec(symmetric=True, per_channel=True), AFFINE], ids=["symmetric", "affine"])
def test_the_int8_output_is_that_of_the_simulation(depthwise: Workload, engine: str, weight: TensorSpec) -> None:
    run = quantize(depthwise, Recipe(engine=engine, weight=weight))
    assert run.metrics["sqnr_db"] == pytest.approx(simulated_db(run), abs=1)
    assert (run.layers.codes_off.dropna() == 0).all()


@X86
@pytest.mark.parametrize("engine", ["x86", "fbgemm"])
def test_without_a_guard_the_depthwise_layer_saturates(depthwise: Workload, engine: str) -> None:
    run = quantize(depthwise, Recipe(engine=engine, overflow_guard="none"))
    assert run.layers.why["depthwise"] == why.OVERFLOW_16
    assert run.metrics["sqnr_db"] < simulated_db(run) - 6


@X86
@pytest.mark.parametrize(
    ("settings", "guard"),
    [
        ({}, "weights"),
        ({"overflow_guard": "none"}, "none"),
        ({"overflow_guard": "activations"}, "activations"),
        ({"mode": "dynamic"}, "none"),
        ({"activation": TensorSpec(bits=6)}, "none"),
    ],
    ids=["auto", "declined", "asked-for", "dynamic", "simulated"],
)
def test_the_guard_in_force(settings: dict, guard: str) -> None:
    assert resolve_guard(Recipe(**settings), ENGINES["x86"], Depthwise()) == guard


@X86
@VNNI
def test_no_guard_where_no_kernel_of_the_model_needs_one() -> None:
    kept = Recipe(rules=[LayerRule("depthwise", keep_float=True)])
    assert resolve_guard(kept, ENGINES["x86"], Depthwise()) == "none"
    assert resolve_guard(Recipe(), ENGINES["x86"], Depthwise(64)) == "none"  # "x86" takes oneDNN's kernel up to 100
    assert (
        resolve_guard(Recipe(weight=AFFINE), ENGINES["x86"], Depthwise(64)) == "weights"
    )  # but not for affine weights
    assert resolve_guard(Recipe(), ENGINES["fbgemm"], Depthwise(64)) == "weights"
    assert resolve_guard(Recipe(), ENGINES["onednn"], Depthwise()) == "none"


@X86
@VNNI
def test_auto_takes_the_engine_that_needs_no_guard() -> None:
    def chosen(model: nn.Module, **settings: object) -> str:
        return resolve_engine(Recipe(**settings), model).name  # type: ignore[arg-type]

    assert chosen(Depthwise(64)) == "x86"
    assert chosen(Depthwise()) == chosen(Depthwise(), overflow_guard="none") == "onednn"
    assert chosen(Depthwise(), overflow_guard="weights") == "x86"
    assert chosen(Depthwise(), mode="dynamic") == chosen(Depthwise(), activation=TensorSpec(bits=4)) == "x86"
    assert chosen(Depthwise(), weight=AFFINE) == "x86"
    assert chosen(Depthwise(), rules=[LayerRule("fc", weight=AFFINE)]) == "x86"


def test_predicted_and_real_guard_and_engine_agree(depthwise: Workload) -> None:
    calibration = calibrate(depthwise)
    for recipe in (Recipe(), Recipe(weight=AFFINE), Recipe(engine=HERE[-1])):
        prediction, run = predict(calibration, recipe), quantize(depthwise, recipe, calibration)
        assert (prediction.engine, prediction.overflow_guard) == (run.engine, run.overflow_guard)


@pytest.mark.parametrize("engine", HERE)
@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("Conv1d", (128, 128, (3,), (1,), "same", (2,), 128)),
        ("Conv2d", (128, 256, (5, 3), (2, 1), (2, 0), (1, 1), 128)),
        ("Conv2d", (16, 16, (2, 2), (1, 1), "valid", (3, 3), 16)),
        ("Conv3d", (8, 8, (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 8)),
    ],
)
def test_any_shape_can_be_tried(engine: str, kind: str, shape: tuple) -> None:
    assert grouped_saturates(engine, kind, shape, True) in (True, False)
    assert torch.backends.quantized.engine in HERE


@pytest.mark.skipif("qnnpack" not in HERE, reason="this PyTorch has no QNNPACK")
@pytest.mark.parametrize(("channels", "kernel", "stride"), [(4, 3, 1), (8, 2, 2), (16, 2, 2), (8, 3, 2)])
def test_auto_takes_an_engine_that_is_right_on_transposed_convolutions(
    make: Callable[..., Workload], channels: int, kernel: int, stride: int
) -> None:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(8, channels, kernel, stride)]
    workload = make(seeded_model(nn.Sequential, *layers), normal(4, 3, 8, 8))
    run = quantize(workload, Recipe(activation=TensorSpec("minmax"), weight=TensorSpec(symmetric=True)))
    worst = (run.layers.sqnr_db - run.layers.simulated_sqnr_db).abs().max()
    assert worst < 1.0
