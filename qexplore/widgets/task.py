"""Long work in one worker thread, so that the kernel goes on answering and Cancel acts at once."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from qexplore.errors import Cancelled
from qexplore.progress import Report

REPORT_SECONDS = 0.25
OMP_PAUSE_HARD = 2


def release_openmp() -> None:
    """Give back the OpenMP threads of the calling thread; it gets new ones when it needs them.

    With more of them than cores, libgomp lets all sleep at once when idle, and torch in the worker thread takes
    almost twice as long (measured: 49 ms against 27 ms).
    """
    for path in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        with suppress(OSError, AttributeError):
            ctypes.CDLL(str(path)).omp_pause_resource_all(OMP_PAUSE_HARD)


class Task:
    """Runs one piece of work at a time.

    Args:
        on_progress: called with (message, fraction), at most four times a second, from the worker thread.
        on_done: called with the result.
        on_error: called with the exception; a `Cancelled` where it was cancelled.
        on_busy: called with True when work starts and False when it has ended, however it ended.
    """

    def __init__(
        self,
        on_progress: Report,
        on_done: Callable[[Any], None],
        on_error: Callable[[BaseException], None],
        on_busy: Callable[[bool], None],
    ) -> None:
        self._on_progress, self._on_done, self._on_error, self._on_busy = on_progress, on_done, on_error, on_busy
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None
        self._reported = 0.0

    @property
    def busy(self) -> bool:
        """Whether work is going on."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, work: Callable[[Report, threading.Event], Any]) -> bool:
        """Start `work(progress, cancel)`; False, and nothing done, while other work is going on."""
        if self.busy:
            return False
        self._cancel = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(work, self._cancel), daemon=True, name="qexplore")
        self._on_busy(True)
        release_openmp()
        self._thread.start()
        return True

    def cancel(self) -> None:
        """Ask the work to stop at its next step."""
        self._cancel.set()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the work has ended, for scripts and tests."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _report(self, message: str, fraction: float) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS or fraction >= 1:
            self._reported = now
            self._on_progress(message, fraction)

    def _run(self, work: Callable[[Report, threading.Event], Any], cancel: threading.Event) -> None:
        try:
            result = work(self._report, cancel)
            if cancel.is_set():
                raise Cancelled("Cancelled; nothing was changed.")
            self._on_done(result)
        except BaseException as error:
            self._on_error(error)
        finally:
            self._on_busy(False)
