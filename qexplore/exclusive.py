"""One piece of torch work at a time in this process.

While torch.fx traces a model it replaces `nn.Module.__call__` for every thread, so a model that runs meanwhile in
another thread fails; tracing and running therefore never overlap.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qexplore.progress import Cancel, Report, no_report, stop_if

_LOCK = threading.RLock()


@contextmanager
def exclusive(report: Report = no_report, cancel: Cancel = None) -> Iterator[None]:
    """Hold the process's torch work for the block; wait for other work first, unless cancelled meanwhile."""
    if not _LOCK.acquire(timeout=0.1):
        report("Waiting for other work to end", 0.0)
        while not _LOCK.acquire(timeout=0.1):
            stop_if(cancel)
    try:
        yield
    finally:
        _LOCK.release()
