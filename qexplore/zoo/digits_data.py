"""The handwritten digits of scikit-learn as 32x32 images, and the measure and fine-tuning both digit demos share."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn
from torch.nn import functional

from qexplore.workload import Progress
from qexplore.zoo.loops import Pairs, evaluating, fit, shuffled

BATCH = 32
TEST_IMAGES = 447
FINE_TUNE_RATE = 5e-4


@cache
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(training images, labels, test images, labels): 1350 and 447 images [N, 1, 32, 32], mean 0, deviation 1.

    Source: `sklearn.datasets.load_digits` (UCI optical recognition of handwritten digits), 8x8 upsampled bilinearly.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1)
    images = functional.interpolate(images, size=32, mode="bilinear", align_corners=False)
    labels = torch.tensor(data.target, dtype=torch.int64)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    images = (images - images[train].mean()) / images[train].std()
    return images[train], labels[train], images[test], labels[test]


def calibration() -> list[torch.Tensor]:
    """8 batches of 32 training images, [32, 1, 32, 32] each."""
    return list(digits()[0][: 8 * BATCH].split(BATCH))


def accuracy(model: nn.Module) -> float:
    """Share of the 447 test images that get the right label."""
    _, _, images, labels = digits()
    with evaluating(model):
        guesses = torch.cat([model(batch).argmax(1) for batch in images.split(64)])
    return (guesses == labels).sum().item() / len(labels)


def fine_tune(model: nn.Module, epochs: int, progress: Progress, rate: float = FINE_TUNE_RATE) -> None:
    """Train `model` in place at a small learning rate; the same batches in the same order at every call.

    BatchNorm keeps its statistics: a channel whose weights all round to zero would else have a variance of zero, and
    the folded weights, divided by its root, would grow without bound.
    """
    images, labels, _, _ = digits()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    fit(
        model,
        lambda: augmented(images, labels, generator),
        smoothed,
        optimizer,
        epochs,
        progress,
        keep_statistics=True,
    )


def pretrain(model: nn.Module, epochs: int, progress: Progress, peak: float = 3e-3) -> nn.Module:
    """Train `model` from scratch on images moved by up to 3 pixels."""
    images, labels, _, _ = digits()
    generator = torch.Generator().manual_seed(0)
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps)
    fit(model, lambda: augmented(images, labels, generator), smoothed, optimizer, epochs, progress, schedule)
    return model.eval()


def smoothed(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in nats with a twentieth of the target's share spread over all classes."""
    return functional.cross_entropy(outputs, targets, label_smoothing=0.05)


def augmented(images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator) -> Pairs:
    """One epoch of batches in random order, the images moved."""
    return ((moved(x, generator), y) for x, y in shuffled(images, labels, BATCH, generator))


def moved(images: torch.Tensor, generator: torch.Generator, pixels: int = 3) -> torch.Tensor:
    """The images, each shifted by up to `pixels` in both directions, the border repeated."""
    size = images.shape[-1]
    padded = functional.pad(images, [pixels] * 4, mode="replicate")
    shifts = torch.randint(2 * pixels + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, y : y + size, x : x + size] for image, (y, x) in zip(padded, shifts, strict=True)])
