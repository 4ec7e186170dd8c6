"""Fully convolutional network that removes noise from photographs: the demo judged by the eye and in dB."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import nn
from torch.nn import functional

from qexplore.workload import WORKLOADS, Progress, Workload
from qexplore.zoo.files import load_weights
from qexplore.zoo.loops import Pairs, evaluating, fit

NAME = "denoise"
SIGMA = 25 / 255  # deviation of the noise where white is 1
STEPS_PER_EPOCH = 40


class Denoiser(nn.Module):
    """Noisy RGB images [N, 3, H, W], white = 1, to clean ones of the same shape (after DnCNN, arXiv 1608.03981)."""

    def __init__(self, channels: int = 32, depth: int = 5) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
        self.noise = nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # The network estimates the noise; the image itself bypasses its 8-bit layers.
        return x - self.noise(x)


@cache
def photograph(file: str) -> torch.Tensor:
    """A sample photograph of scikit-learn, [1, 3, 427, 640], white = 1."""
    from sklearn.datasets import load_sample_image

    return torch.tensor(load_sample_image(file), dtype=torch.float32).permute(2, 0, 1).unsqueeze(0) / 255


def noisy(clean: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The images with Gaussian noise of deviation `SIGMA` added."""
    return clean + SIGMA * torch.randn(clean.shape, generator=generator)


@cache
def photographs() -> tuple[torch.Tensor, torch.Tensor]:
    """The held-out photograph (flower.jpg), (clean, noisy), [1, 3, 427, 640] each, white = 1."""
    clean = photograph("flower.jpg")
    return clean, noisy(clean, torch.Generator().manual_seed(0))


def crops(generator: torch.Generator, batch: int, size: int, steps: int, vary: bool = False) -> Pairs:
    """Random square crops of the training photograph (china.jpg): (noisy, clean), [batch, 3, size, size].

    Args:
        vary: mirror the crops, shuffle their colours, invert and darken them, so that one bright photograph teaches
            how to treat dark ones too.
    """
    image = photograph("china.jpg")[0]
    _, height, width = image.shape
    for _ in range(steps):
        tops = torch.randint(height - size + 1, (batch,), generator=generator).tolist()
        lefts = torch.randint(width - size + 1, (batch,), generator=generator).tolist()
        cut = [image[:, y : y + size, x : x + size] for y, x in zip(tops, lefts, strict=True)]
        clean = torch.stack([varied(crop, generator) for crop in cut] if vary else cut)
        yield noisy(clean, generator), clean


def varied(crop: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The crop [3, H, W] with random colours and brightness, perhaps mirrored."""
    mirror, invert = torch.randint(2, (2,), generator=generator).tolist()
    darken = 0.2 + 0.8 * torch.rand(3, 1, 1, generator=generator)
    crop = crop[torch.randperm(3, generator=generator)].flip([2] if mirror else [])
    return darken * (1 - crop if invert else crop)


def psnr(model: nn.Module) -> float:
    """Peak signal-to-noise ratio in dB on the whole held-out photograph, outputs clamped to black and white."""
    clean, dirty = photographs()
    with evaluating(model):
        error = functional.mse_loss(model(dirty).clamp(0, 1), clean).item()
    return -10 * math.log10(error)


def fine_tune(model: nn.Module, epochs: int, progress: Progress) -> None:
    """Train `model` in place at a small learning rate; the same crops in the same order at every call."""
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    fit(
        model,
        lambda: crops(generator, 16, 48, STEPS_PER_EPOCH // 2, vary=True),
        functional.mse_loss,
        optimizer,
        epochs,
        progress,
        keep_statistics=True,
    )


def pretrain(progress: Progress, epochs: int = 35) -> nn.Module:
    """The model trained from scratch; the caller seeds torch."""
    model = Denoiser()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * STEPS_PER_EPOCH)
    fit(
        model,
        lambda: crops(generator, 16, 48, STEPS_PER_EPOCH, vary=True),
        functional.mse_loss,
        optimizer,
        epochs,
        progress,
        schedule,
    )
    return model.eval()


@WORKLOADS.register(NAME)
def denoise() -> Workload:
    """CNN that removes noise from a photograph: see and measure in dB what int8 does (static, QAT)."""
    calibration = [dirty for dirty, _ in crops(torch.Generator().manual_seed(1), batch=4, size=128, steps=8)]
    model = load_weights(Denoiser(), NAME)
    return Workload(NAME, model, calibration, psnr, metric="PSNR (dB)", train=fine_tune, picture=photographs()[1])
