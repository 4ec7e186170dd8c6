"""The checklist for a model of one's own names each mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

import qexplore as qx
from qexplore.analysis.checklist import FEW_SAMPLES, checklist


@pytest.fixture
def mine() -> qx.Workload:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)).eval()
    data = torch.randn(FEW_SAMPLES, 6)

    def evaluate(model: nn.Module) -> float:
        training = model.training
        model.eval()
        with torch.no_grad():
            value = model(data).mean().item()
        model.train(training)
        return value

    return qx.Workload("mine", model, list(data.split(16)), evaluate, train=lambda model, epochs, progress: None)


def test_a_workload_without_fault_passes(mine: qx.Workload) -> None:
    found = checklist(mine)
    assert found.fine.all(), found.found[~found.fine].tolist()
    assert "64 samples in 4 batches" in found.found["calibration: samples"]


def leaves_training(mine: qx.Workload) -> qx.Workload:
    def evaluate(model: nn.Module) -> float:
        value = mine.evaluate(model)
        model.train()
        return value

    return replace(mine, evaluate=evaluate)


def never_evaluating(mine: qx.Workload) -> qx.Workload:
    data = torch.randn(8, 6) + 3
    return replace(mine, evaluate=lambda model: model(data).mean().item())


def by_chance(mine: qx.Workload) -> qx.Workload:
    return replace(mine, evaluate=lambda model: model.eval()(torch.randn(8, 6)).mean().item())


def in_words(mine: qx.Workload) -> qx.Workload:
    return replace(mine, evaluate=lambda model: "97 %")  # type: ignore[arg-type,return-value]


def labels(mine: qx.Workload) -> qx.Workload:
    return replace(mine, calibration=[(batch, torch.zeros(16)) for batch in mine.calibration])


def missing_values(mine: qx.Workload) -> qx.Workload:
    return replace(mine, calibration=[torch.full((64, 6), torch.nan)] * 2)


@pytest.mark.parametrize(
    ("spoil", "point", "words"),
    [
        (lambda mine: replace(mine, train=None), "QAT", "no train function"),
        (lambda mine: replace(mine, calibration=list(mine.calibration)[:2]), "calibration: samples", "are few"),
        (lambda mine: replace(mine, calibration=list(mine.calibration)[:1]), "calibration: samples", "several smaller"),
        (labels, "calibration: batches", "does not take calibration batch 0"),
        (missing_values, "calibration: values", "NaN or infinite"),
        (in_words, "evaluate: number", "finite number"),
        (by_chance, "evaluate: number", "the same data every time"),
        (leaves_training, "evaluate: model unchanged", "train mode"),
        (never_evaluating, "evaluate: eval mode", r"call model.eval()"),
    ],
)
def test_a_mistake_is_named(
    mine: qx.Workload, spoil: Callable[[qx.Workload], qx.Workload], point: str, words: str
) -> None:
    found = checklist(spoil(mine)).loc[point]
    assert not found.fine and words in found.found


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


def test_a_model_with_a_branch_is_left_to_dynamic_mode(mine: qx.Workload) -> None:
    found = checklist(replace(mine, model=Branching()))
    assert found.fine["dynamic mode"] and not found.fine["static mode"] and not found.fine["QAT"]


def test_nothing_of_the_workload_is_changed(mine: qx.Workload) -> None:
    before: Iterator[tuple[str, torch.Tensor]] = iter([(k, v.clone()) for k, v in mine.model.state_dict().items()])
    checklist(never_evaluating(mine))
    assert all(torch.equal(mine.model.state_dict()[name], value) for name, value in before)


def test_models_that_are_one_layer_have_nan_or_depend_on_the_mode_by_hand_are_judged_rightly() -> None:
    lstm = nn.LSTM(8, 4, batch_first=True).eval()
    batches = [torch.randn(16, 5, 8) for _ in range(4)]
    assert checklist(qx.Workload("lstm", lstm, batches, lambda model: 1.0)).fine["evaluate: model unchanged"]

    linear = nn.Sequential(nn.Linear(8, 3)).eval()
    nn.init.constant_(linear[0].bias, float("nan"))
    found = checklist(qx.Workload("nan", linear, [torch.randn(16, 8)] * 4, lambda model: 1.0))
    assert found.fine["evaluate: model unchanged"] and not found.fine["calibration: values"]

    class Dropping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(self.fc(x), 0.5, self.training)

    x = torch.randn(16, 8)
    evaluate = lambda model: float(model(x).detach().sum())  # noqa: E731
    assert not checklist(qx.Workload("dropping", Dropping().eval(), [x] * 4, evaluate)).fine["evaluate: eval mode"]
