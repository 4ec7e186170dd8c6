"""What every demo shares: one training loop, and evaluation that leaves no trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from qexplore.workload import Progress

Pairs = Iterable[tuple[torch.Tensor, torch.Tensor]]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients; afterwards each module has the training flag it had."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def shuffled(inputs: torch.Tensor, targets: torch.Tensor, batch: int, generator: torch.Generator) -> Pairs:
    """One epoch of (inputs, targets) batches in random order; an incomplete last batch is left out."""
    order = torch.randperm(len(inputs), generator=generator)
    for index in order[: len(order) // batch * batch].split(batch):
        yield inputs[index], targets[index]


def fit(
    model: nn.Module,
    epoch: Callable[[], Pairs],
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    progress: Progress,
    schedule: torch.optim.lr_scheduler.LRScheduler | None = None,
    clip: float = float("inf"),
    keep_statistics: bool = False,
) -> None:
    """Train `model` in place.

    Args:
        epoch: gives the batches of one epoch, called once per epoch.
        loss: of (outputs, targets), a scalar to lower.
        progress: called after every batch with the epoch, the share of all batches done, and `loss=`.
        schedule: stepped after every batch.
        clip: largest norm of the gradient.
        keep_statistics: whether BatchNorm keeps its running statistics instead of following the batches.
    """
    was_training = model.training
    model.train()
    if keep_statistics:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    try:
        for number in range(epochs):
            batches = list(epoch())
            for index, (inputs, targets) in enumerate(batches):
                optimizer.zero_grad()
                value = loss(model(inputs), targets)
                value.backward()
                nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                if schedule is not None:
                    schedule.step()
                done = (number + (index + 1) / len(batches)) / epochs
                progress(f"epoch {number + 1} of {epochs}", done, loss=value.item())
    finally:
        model.train(was_training)
