"""A workload: a float model with the data and the measure that quantization is judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from qexplore.errors import QexploreError
from qexplore.registry import Registry

Batch = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]


class Progress(Protocol):
    """What long work calls to say where it is: a message, the share done (0 to 1), and figures such as loss."""

    def __call__(self, message: str, fraction: float, **figures: float) -> None: ...


@dataclass(frozen=True)
class Workload:
    """A float model with calibration data, a metric and, for QAT, a way to train.

    Args:
        name: shown in the explorer and kept in saved runs.
        model: the float model. It is copied before any use and never modified.
        calibration: re-iterable of input batches: a tensor, a tuple of tensors (positional arguments) or
            a dict of tensors (keyword arguments). Its first batch is also the one that is timed.
        evaluate: `evaluate(model) -> float`, the metric on held-out data.
        metric: what `evaluate` returns, for titles ("accuracy", "bits per character", "PSNR (dB)").
        train: `train(model, epochs, progress)` fine-tunes `model` in place; needed for QAT only. qexplore calls it
            once per epoch; it may call `progress(message, fraction, loss=...)`, which also lets Cancel act.
        higher_is_better: whether a larger metric is a better one.
        picture: for a model that maps images to images, a batch [N, 1 or 3, H, W] to look at; by default the
            first calibration batch.
    """

    name: str
    model: nn.Module
    calibration: Iterable[Batch]
    evaluate: Callable[[nn.Module], float]
    metric: str = "accuracy"
    train: Callable[[nn.Module, int, Progress], Any] | None = None
    higher_is_better: bool = True
    picture: Batch | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise QexploreError(
                f"model of workload {self.name!r} is a {type(self.model).__name__}; give a torch.nn.Module."
            )
        if not isinstance(self.calibration, Iterable):
            raise QexploreError(
                f"calibration of workload {self.name!r} is a {type(self.calibration).__name__}; give a list of batches."
            )
        if isinstance(self.calibration, Iterator):
            raise QexploreError(
                f"calibration of workload {self.name!r} can be read only once; give a list or another re-iterable."
            )
        for argument in ("evaluate", "train"):
            value = getattr(self, argument)
            if not callable(value) and not (argument == "train" and value is None):
                raise QexploreError(f"{argument} of workload {self.name!r} is not callable; give a function.")


WORKLOADS: Registry[Callable[[], Workload]] = Registry("workload")


def workloads() -> list[str]:
    """Names of the demo workloads, each usable with `workload(name)`."""
    from qexplore import zoo  # noqa: F401  (registers the demos)

    return list(WORKLOADS)


def workload(name: str) -> Workload:
    """The demo workload `name`: a trained model and its data, all offline.

    Raises:
        QexploreError: there is no such demo; the message names those there are.
    """
    workloads()
    return WORKLOADS[name]()
