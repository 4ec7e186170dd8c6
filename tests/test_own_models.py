"""Models and data that people bring: each was once quantized wrongly, or refused in words that do not help."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import qexplore as qx
from qexplore.numerics.errors import sqnr_db

MINMAX = qx.TensorSpec("minmax")
STATIC = qx.Recipe(activation=MINMAX)
FOUR_BITS = qx.TensorSpec("minmax", bits=4, symmetric=True)


def workload(model: nn.Module, *batches: Any) -> qx.Workload:
    return qx.Workload("mine", model.eval(), list(batches), lambda candidate: 1.0)


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_labels_in_the_batches_are_named(mode: str) -> None:
    data = DataLoader(TensorDataset(normal(8, 6), torch.zeros(8)), batch_size=4)
    given = qx.Workload("mine", nn.Sequential(nn.Linear(6, 3)), data, lambda candidate: 1.0)
    with pytest.raises(qx.QexploreError, match=r"calibration batch 0.*without labels\.$"):
        qx.quantize(given, qx.Recipe(mode=mode))


def test_a_shuffling_data_loader_leaves_the_random_state() -> None:
    data, model = DataLoader(normal(8, 6), batch_size=4, shuffle=True), nn.Sequential(nn.Linear(6, 3))
    before = torch.get_rng_state()
    qx.calibrate(qx.Workload("mine", model, data, lambda candidate: 1.0))
    assert torch.equal(torch.get_rng_state(), before)


def test_padding_is_simulated_as_it_is_computed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), nn.ReLU())
    x = normal(4, 3, 8, 8)
    run = qx.quantize(workload(model, x), STATIC)
    with torch.no_grad():
        assert sqnr_db(run.model(x), run.simulated(x)) > 40


def test_a_tied_weight_stays_float_where_a_rule_keeps_it() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
    model[1].weight = model[0].weight
    recipe = qx.Recipe(mode="dynamic", weight=FOUR_BITS, rules=[qx.LayerRule("1", keep_float=True)])
    run = qx.quantize(workload(model, normal(4, 6)), recipe)
    assert torch.equal(run.simulated[1].weight, model[0].weight)


def test_dynamic_mode_lists_every_activation_it_quantizes() -> None:
    run = qx.quantize(
        workload(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 3)), normal(4, 6)), qx.Recipe(mode="dynamic")
    )
    assert run.tensors.name[run.tensors.kind == "activation"].tolist() == ["input", "0"]


def test_four_bits_save_at_most_eightfold() -> None:
    recipe = qx.Recipe(activation=MINMAX, weight=FOUR_BITS)
    assert qx.quantize(workload(nn.Sequential(nn.Linear(512, 512)), normal(4, 512)), recipe).size["ratio"] < 8


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.relu(self.layer(x)))


def test_a_layer_called_twice_is_refused_by_name() -> None:
    with pytest.raises(qx.QexploreError, match=r"'layer'.*more than once"):
        qx.quantize(workload(Twice(), normal(4, 6)), STATIC)
    qx.quantize(workload(Twice(), normal(4, 6)), qx.Recipe(mode="dynamic"))


def test_a_layer_whose_int8_kernel_is_wrong_is_refused() -> None:
    given = workload(nn.Sequential(nn.Conv2d(3, 3, 3), nn.PReLU()), normal(2, 3, 8, 8))
    with pytest.raises(qx.QexploreError, match=r"Layer '1' is a PReLU.*keep it float"):
        qx.quantize(given, STATIC)
    kept = qx.Recipe(activation=MINMAX, rules=[qx.LayerRule("1", keep_float=True)])
    assert qx.quantize(given, kept).metrics["sqnr_db"] > 20


def test_a_layer_without_per_channel_weights_is_named() -> None:
    given = workload(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ConvTranspose2d(3, 4, 3)), normal(2, 3, 8, 8))
    with pytest.raises(qx.QexploreError, match=r"Layer '1'.*per tensor only"):
        qx.quantize(given, STATIC)
    rule = qx.LayerRule("1", weight=qx.TensorSpec(symmetric=True))
    assert qx.quantize(given, qx.Recipe(activation=MINMAX, rules=[rule])).metrics["sqnr_db"] > 20


def test_histogram_weights_per_channel_are_refused_in_one_sentence() -> None:
    weight = qx.TensorSpec("histogram", symmetric=True, per_channel=True)
    with pytest.raises(qx.QexploreError, match=r"^Observer 'histogram' works per tensor only"):
        qx.quantize(workload(nn.Sequential(nn.Linear(6, 3)), normal(4, 6)), qx.Recipe(weight=weight))


@pytest.mark.parametrize("squash", [nn.Sigmoid(), nn.Tanh()], ids=["sigmoid", "tanh"])
def test_operations_with_a_fixed_range_are_simulated_with_it(squash: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(6, 16), squash, nn.Linear(16, 3))
    x = normal(64, 6)
    run = qx.quantize(workload(model, x), STATIC)
    fixed = run.tensors[run.tensors.name == "1"].iloc[0]
    assert fixed.observer == "fixed" and fixed.scale == pytest.approx(
        1 / (256 if isinstance(squash, nn.Sigmoid) else 128)
    )
    with torch.no_grad():
        assert sqnr_db(run.model(x), run.simulated(x)) > 40


def test_a_transformer_layer_in_dynamic_mode() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    x = normal(2, 5, 16)
    run = qx.quantize(workload(nn.Sequential(layer), x), qx.Recipe(mode="dynamic"))
    assert {"0.linear1", "0.linear2"} <= set(run.layers.index)
    with torch.no_grad():
        assert sqnr_db(layer(x), run.model(x)) > 25


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.input(x)


def test_a_module_named_input_keeps_its_name() -> None:
    run = qx.quantize(workload(Named(), normal(4, 6)), STATIC)
    assert run.layers.index.tolist() == ["input"] and run.layers.quantized.all()


@pytest.mark.parametrize("arguments", [("digits", qx.Recipe()), (None, qx.Recipe())], ids=["name", "none"])
def test_what_is_no_workload_is_refused(arguments: tuple[Any, qx.Recipe]) -> None:
    with pytest.raises(qx.QexploreError, match=r"give a qx\.Workload"):
        qx.quantize(*arguments)
