"""Batches of model inputs: a tensor, a tuple of tensors or a dict of tensors."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from qexplore.errors import QexploreError
from qexplore.workload import Batch


def copied(batch: Batch) -> Batch:
    """The batch with tensors of its own, which a model that works in place may change."""
    if isinstance(batch, torch.Tensor):
        return batch.clone()
    if isinstance(batch, Mapping):
        return {name: tensor.clone() for name, tensor in batch.items()}
    return tuple(tensor.clone() for tensor in batch)


def call(model: nn.Module, batch: Batch) -> Any:
    """`model` run on a copy of the batch: a tensor as the one argument, a tuple by position, a dict by name."""
    return call_on(model, copied(batch))


def call_on(model: nn.Module, batch: Batch) -> Any:
    """The same on the batch itself, where even a copy would count, as in timing."""
    if isinstance(batch, torch.Tensor):
        return model(batch)
    return model(**batch) if isinstance(batch, Mapping) else model(*batch)


def positional(model: nn.Module, batch: Batch) -> tuple[Any, ...]:
    """A copy of the batch as positional arguments of `model.forward`, in its order.

    Raises:
        TypeError: the model takes other arguments.
    """
    signature = inspect.signature(model.forward)
    batch = copied(batch)
    if isinstance(batch, Mapping):
        bound = signature.bind(**batch)
    else:
        bound = signature.bind(*([batch] if isinstance(batch, torch.Tensor) else batch))
        return bound.args
    bound.apply_defaults()
    return tuple(bound.arguments.values())


def checked(batches: Iterable[Batch], workload: str) -> Iterator[Batch]:
    """The calibration batches one by one, refusing what is no batch, and an empty calibration.

    Raises:
        QexploreError: a batch holds something else than tensors, or there is no batch at all.
    """
    position = -1
    for position, batch in enumerate(batches):
        entries = list(batch.values() if isinstance(batch, Mapping) else [batch] if _is_leaf(batch) else batch)
        for entry in entries:
            if not isinstance(entry, torch.Tensor):
                raise QexploreError(
                    f"Calibration batch {position} of workload {workload!r} holds a {type(entry).__name__}; "
                    "give a tensor, a tuple of tensors or a dict of tensors."
                )
        if not entries or any(entry.numel() == 0 for entry in entries):
            raise QexploreError(
                f"Calibration batch {position} of workload {workload!r} is empty; leave it out or fill it."
            )
        yield batch
    if position < 0:
        raise QexploreError(f"Calibration of workload {workload!r} has no batches; give at least one.")


def batch_size(batch: Batch) -> int:
    """Length of the first dimension of the batch's first tensor (1 for a scalar)."""
    first = batch
    if isinstance(batch, Mapping):
        first = next(iter(batch.values()))
    elif not isinstance(batch, torch.Tensor):
        first = batch[0]
    return first.shape[0] if isinstance(first, torch.Tensor) and first.dim() else 1


def first_tensor(output: Any) -> torch.Tensor | None:
    """The first tensor in a model's output (tensor, tuple, list or dict, nested), or None."""
    if isinstance(output, torch.Tensor):
        return output
    entries = output.values() if isinstance(output, Mapping) else output if isinstance(output, list | tuple) else ()
    return next((tensor for entry in entries if (tensor := first_tensor(entry)) is not None), None)


def _is_leaf(batch: object) -> bool:
    return isinstance(batch, torch.Tensor) or not isinstance(batch, list | tuple)
