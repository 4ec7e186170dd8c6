"""Well-known networks with many layers, untrained: for shapes, costs and ranks."""

from __future__ import annotations

import torch
from torch import nn


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
