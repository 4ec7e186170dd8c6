"""Residual convolutional network on handwritten digits: the demo for static quantization."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from qexplore.workload import WORKLOADS, Progress, Workload
from qexplore.zoo.digits_data import accuracy, calibration, fine_tune
from qexplore.zoo.digits_data import pretrain as pretrain_on_digits
from qexplore.zoo.files import load_weights

NAME = "digits"


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """Images [N, 1, 32, 32] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU())
        self.layer1 = nn.Sequential(Block(64, 64), Block(64, 64))
        self.layer2 = nn.Sequential(Block(64, 128, stride=2), Block(128, 128))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer2(self.layer1(self.stem(x)))
        return self.fc(self.flatten(self.pool(x)))


def pretrain(progress: Progress, epochs: int = 12) -> nn.Module:
    """The model trained from scratch; the caller seeds torch."""
    return pretrain_on_digits(ResNet(), epochs, progress)


@WORKLOADS.register(NAME)
def digits() -> Workload:
    """Residual CNN on handwritten digits: int8 costs next to nothing (static, QAT)."""
    return Workload(NAME, load_weights(ResNet(), NAME), calibration(), accuracy, train=partial(fine_tune, rate=1e-4))
