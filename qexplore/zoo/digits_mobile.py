"""Depthwise-separable network on handwritten digits whose channels have uneven ranges.

As in MobileNet (Krishnamoorthi 2018, arXiv 1806.08342), one scale per weight tensor ruins it; one per channel keeps
it, and quantization-aware training mends it.
"""

from __future__ import annotations

import torch
from torch import nn

from qexplore.workload import WORKLOADS, Progress, Workload
from qexplore.zoo.digits_data import accuracy, calibration, fine_tune
from qexplore.zoo.digits_data import pretrain as pretrain_on_digits
from qexplore.zoo.files import load_weights

NAME = "digits_mobile"
RATIO, SHARE = 72.0, 0.1


class Separable(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolution: [N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu1(self.bn1(self.depthwise(x)))
        return self.relu2(self.bn2(self.pointwise(x)))


class MobileNet(nn.Module):
    """Images [N, 1, 32, 32] to logits [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 32, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        blocks = [Separable(32, 64), Separable(64, 128, stride=2), Separable(128, 128), Separable(128, 128)]
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.flatten(self.pool(self.blocks(self.relu(self.bn(self.conv(x)))))))


def rescale(model: MobileNet, r: float = RATIO, share: float = SHARE) -> MobileNet:
    """Make channel ranges of `model` uneven, in place, without changing what it computes.

    ReLU(a / r) = ReLU(a) / r, so a channel entering a depthwise convolution can be r times smaller where that
    convolution's filter is r times larger.

    Args:
        r: the ratio, above 1.
        share: of each depthwise layer's channels (at least one), those that add least to the layer behind.
    """
    blocks = [block for block in model.blocks if isinstance(block, Separable)]
    feeding = [model.bn, *(block.bn2 for block in blocks[:-1])]
    with torch.no_grad():
        for norm, block in zip(feeding, blocks, strict=True):
            weight = block.depthwise.weight
            chosen = importance(block).argsort()[: max(1, round(share * len(weight)))]
            norm.weight[chosen] /= r
            norm.bias[chosen] /= r
            weight[chosen] *= r
    return model


def importance(block: Separable) -> torch.Tensor:
    """How much each depthwise channel [C] of a block can move the layer behind: its deviation times its weights."""
    return block.bn1.weight.abs() * block.pointwise.weight.flatten(1).norm(dim=0)


def pretrain(progress: Progress, epochs: int = 20) -> nn.Module:
    """The model trained from scratch, its channels still even; the caller seeds torch."""
    return pretrain_on_digits(MobileNet(), epochs, progress)


@WORKLOADS.register(NAME)
def digits_mobile() -> Workload:
    """Depthwise network with uneven channels: per-tensor weights ruin it, per-channel weights and QAT mend it."""
    return Workload(NAME, rescale(load_weights(MobileNet(), NAME)), calibration(), accuracy, train=fine_tune)
