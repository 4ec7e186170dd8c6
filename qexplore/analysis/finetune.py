"""Quantization-aware training: the workload's own training, one epoch at a time, on a fake-quantized model."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import pandas as pd
import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from qexplore.engines.qat import for_evaluation, freeze
from qexplore.errors import Cancelled, QexploreError
from qexplore.progress import Cancel, Report, part, stop_if
from qexplore.workload import Workload

FREE_SHARE = 1 / 3


class Watch(Protocol):
    """What is told the figures of a training as it goes on: `loss` after a step, `metric` after an epoch.

    Args:
        epoch: epochs done so far, parts of one included; 0 before training.
    """

    def __call__(self, epoch: float, **figures: float) -> object: ...


def no_watch(epoch: float, **figures: float) -> None:
    """The `Watch` of somebody who does not look."""


def finetune(
    workload: Workload,
    module: nn.Module,
    epochs: int,
    evaluate: Callable[[nn.Module], float],
    report: Report,
    cancel: Cancel,
    watch: Watch = no_watch,
) -> pd.DataFrame:
    """Train a QAT-prepared `module` in place with the workload's `train`.

    Ranges and BatchNorm statistics move in the first third of the epochs (at least one) and are frozen after it.

    Args:
        evaluate: measures a model with the workload's metric.
        watch: called from the thread that trains.

    Returns:
        one row per epoch, the first (epoch 0) before training: "epoch", "loss" (mean of what `train` reported, NaN
        without a report) and "metric" of the fake-quantized model.

    Raises:
        QexploreError: `train` failed, or the training diverged to NaN.
    """
    rows = [{"epoch": 0, "loss": math.nan, "metric": evaluate(for_evaluation(module))}]
    watch(0, metric=rows[0]["metric"])
    trained_freely = max(1, round(epochs * FREE_SHARE))
    hooks: list[RemovableHandle] = []
    for epoch in range(epochs):
        if epoch == trained_freely:
            hooks = freeze(module)
        within = part(report, epoch / epochs, (epoch + 0.9) / epochs)
        progress = _Listener(f"Training, epoch {epoch + 1} of {epochs}", within, cancel, epoch, watch)
        progress()
        module.train()
        _train(workload, module, progress)
        if not all(bool(torch.isfinite(p).all()) for p in module.parameters()):
            raise QexploreError(f"Training of {workload.name!r} diverged to NaN in epoch {epoch + 1}; lower its rate.")
        report(f"Evaluating epoch {epoch + 1} of {epochs}", (epoch + 0.9) / epochs)
        losses = progress.losses
        loss = sum(losses) / len(losses) if losses else math.nan
        rows.append({"epoch": epoch + 1, "loss": loss, "metric": evaluate(for_evaluation(module))})
        watch(epoch + 1, metric=rows[-1]["metric"])
    for hook in hooks:
        hook.remove()
    module.eval()
    return pd.DataFrame(rows)


class _Listener:
    """The progress callback that `train` gets: keeps its losses, passes all on, and lets Cancel act."""

    def __init__(self, title: str, report: Report, cancel: Cancel, epoch: int, watch: Watch) -> None:
        self.title, self.report, self.cancel, self.epoch, self.watch = title, report, cancel, epoch, watch
        self.losses: list[float] = []
        self.done = 0.0

    def __call__(self, message: object = "", fraction: object = 0.0, **figures: float) -> None:
        stop_if(self.cancel)
        if "loss" in figures:
            self.losses.append(float(figures["loss"]))
        loss = f", loss {self.losses[-1]:.3g}" if self.losses else ""
        if isinstance(fraction, int | float):
            self.done = max(self.done, float(fraction))
        if "loss" in figures:
            self.watch(self.epoch + min(self.done, 1.0), loss=self.losses[-1])
        self.report(f"{self.title}{loss}", self.done)


def _train(workload: Workload, module: nn.Module, progress: Callable[..., None]) -> None:
    assert workload.train is not None
    try:
        with torch.enable_grad():
            workload.train(module, 1, progress)
    except (Cancelled, QexploreError):
        raise
    except Exception as error:
        raise QexploreError(f"train of workload {workload.name!r} failed: {error}.") from error
