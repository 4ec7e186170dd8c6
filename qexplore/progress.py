"""How long work says where it is, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable

from torch import nn
from torch.utils.hooks import RemovableHandle

from qexplore.errors import Cancelled

Report = Callable[[str, float], object]
Cancel = threading.Event | None


def no_report(message: str, fraction: float) -> None:
    """The progress callback of somebody who does not listen."""


def stop_if(cancel: Cancel) -> None:
    """Raise `Cancelled` once the event is set."""
    if cancel is not None and cancel.is_set():
        raise Cancelled("Cancelled; nothing was changed.")


def part(report: Report, start: float, end: float) -> Report:
    """A callback for one part of the work, whose 0 to 1 is the whole's `start` to `end`."""
    return lambda message, fraction: report(message, start + (end - start) * min(max(fraction, 0.0), 1.0))


def cancellable(model: nn.Module, cancel: Cancel) -> RemovableHandle:
    """Let Cancel act at every forward pass of `model` (one of our copies), whoever calls it.

    Returns:
        the hook's handle, to remove it with.
    """
    return model.register_forward_pre_hook(lambda module, args: stop_if(cancel))
