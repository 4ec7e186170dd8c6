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

BATCHES, BATCH, ROUNDS = 4, 8, 5


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size but for its stride, and its BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class BasicBlock(nn.Module):
    """ResNet's block of two 3x3 convolutions."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv_bn(inputs, outputs, 3, stride), nn.ReLU(inplace=True), *conv_bn(outputs, outputs, 3)
        )
        same = inputs == outputs and stride == 1
        self.short = None if same else nn.Sequential(*conv_bn(inputs, outputs, 1, stride))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(x) + (x if self.short is None else self.short(x)))


class InvertedResidual(nn.Module):
    """MobileNet-V2's block: widen, filter each channel, narrow."""

    def __init__(self, inputs: int, outputs: int, stride: int, widen: int) -> None:
        super().__init__()
        wide = inputs * widen
        self.body = nn.Sequential(
            *([*conv_bn(inputs, wide, 1), nn.ReLU6(inplace=True)] if widen > 1 else []),
            *conv_bn(wide, wide, 3, stride, groups=wide),
            nn.ReLU6(inplace=True),
            *conv_bn(wide, outputs, 1),
        )
        self.same = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.same else self.body(x)


def resnet18() -> nn.Module:
    """ResNet-18's shapes."""
    widths = [64, 64, 128, 256, 512]
    blocks = [
        BasicBlock(inputs if first else outputs, outputs, stride if first else 1)
        for inputs, outputs, stride in zip(widths, widths[1:], [1, 2, 2, 2], strict=False)
        for first in (True, False)
    ]
    stem = [*conv_bn(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def mobilenet_v2() -> nn.Module:
    """MobileNet-V2's shapes."""
    layers = [*conv_bn(3, 32, 3, 2), nn.ReLU6(inplace=True)]
    inputs = 32
    for widen, outputs, repeats, stride in [
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    ]:  # fmt: skip
        for position in range(repeats):
            layers.append(InvertedResidual(inputs, outputs, 1 if position else stride, widen))
            inputs = outputs
    layers += [*conv_bn(320, 1280, 1), nn.ReLU6(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(1280, 1000))


def with_statistics(model: nn.Module, batch: torch.Tensor) -> nn.Module:
    """`model` in eval mode, its BatchNorms with the statistics of `batch`."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(batch)
    return model.eval()


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
