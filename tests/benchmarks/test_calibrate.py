"""Cost of `calibrate` against the float forward pass, beside torch's own observers; `make bench` prints the ratios."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from statistics import median

import pytest
import torch
from torch import nn
from torch.ao.quantization import HistogramObserver, QConfig, QConfigMapping, default_weight_observer
from torch.ao.quantization.quantize_fx import prepare_fx

import qexplore as qx
from tests.models import mobilenet_v2, resnet18, with_statistics

BATCHES, BATCH, ROUNDS = 4, 8, 5


def run_all(model: nn.Module, batches: list[torch.Tensor]) -> None:
    """One pass over all batches."""
    with torch.no_grad():
        for batch in batches:
            model(batch)


def with_torch_observers(model: nn.Module, batch: torch.Tensor) -> nn.Module:
    """`model` prepared by torch with a HistogramObserver for each activation."""
    qconfig = QConfig(
        activation=HistogramObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=127),
        weight=default_weight_observer,
    )
    return prepare_fx(copy.deepcopy(model), QConfigMapping().set_global(qconfig), (batch,))


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("build", [resnet18, mobilenet_v2])
def test_calibrate(build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    batches = [torch.randn(BATCH, 3, 224, 224) for _ in range(BATCHES)]
    model = with_statistics(build(), batches[0])
    workload = qx.Workload(build.__name__, model, calibration=batches, evaluate=lambda model: 0.0)
    prepared = with_torch_observers(model, batches[0])
    work = {
        "float": lambda: run_all(model, batches),
        "strided": lambda: qx.calibrate(workload),
        "exact": lambda: qx.calibrate(workload, exact=True),
        "torch's HistogramObserver": lambda: run_all(observers, batches),
    }
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(ROUNDS):
        observers = copy.deepcopy(prepared)
        for name, once in work.items():
            times[name].append(seconds(once))
    ratios = {name: median(t / f for t, f in zip(times[name], times["float"], strict=True)) for name in work}
    listed = "; ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items() if name != "float")
    print(f"\n{build.__name__}, float {median(times['float']) / BATCHES * 1e3:.0f} ms a batch of {BATCH}; {listed}")
    stats = qx.calibrate(workload, exact=True).stats
    assert all(s.nonfinite == 0 and s.count == int(s.buckets.sum()) for s in stats.values())
