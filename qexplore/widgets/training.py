"""Quantization-aware training with live curves: it starts when it is made, and a later cell takes its result."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import ipywidgets as widgets

from qexplore.analysis import Run, quantize
from qexplore.analysis.checks import check_arguments
from qexplore.calibrate import Calibration
from qexplore.errors import Cancelled, QexploreError
from qexplore.plots.live_training import live_training
from qexplore.recipe import Recipe
from qexplore.widgets.errors import ErrorPanel
from qexplore.widgets.figure import LiveFigure
from qexplore.widgets.style import STYLE
from qexplore.widgets.task import Task
from qexplore.workload import Workload

REDRAW_SECONDS = 0.3
WAIT_SECONDS = 0.2  # between looks, so that the kernel can be interrupted on every system


class Training(widgets.VBox):
    """Trains in a worker thread and shows loss and metric while it does.

    Attributes:
        losses, metrics: (epochs done, value), a row for every step and for every epoch so far.
        run: the result; None before the end.
        error: what stopped it; None where nothing did.
        task: the worker.
    """

    def __init__(self, workload: Workload, recipe: Recipe, calibration: Calibration | None) -> None:
        check_arguments("train_live", (workload, Workload), (recipe, Recipe))
        if recipe.mode != "qat":
            raise QexploreError(f"train_live got a recipe of mode {recipe.mode!r}; give one of mode 'qat'.")
        self._workload, self._recipe = workload, recipe
        self.losses: list[tuple[float, float]] = []
        self.metrics: list[tuple[float, float]] = []
        self.run: Run | None = None
        self.error: BaseException | None = None
        self._drawn = 0.0
        self.task = Task(self._progressed, self._done, self._failed, self._busy)
        self.cancel_button = widgets.Button(description="Cancel", tooltip="Stop the training at its next step")
        self.cancel_button.on_click(lambda _: self.task.cancel())
        self.progress = widgets.FloatProgress(min=0.0, max=1.0, description="Progress", bar_style="info")
        self.status = widgets.HTML("Starting.").add_class("qx-status")
        self.error_panel, self.figure = ErrorPanel(), LiveFigure()
        actions = widgets.HBox([self.cancel_button, self.progress])
        actions.layout.flex_flow = "row wrap"
        shown = widgets.VBox([actions, self.status, self.error_panel, self.figure]).add_class("qx-results")
        super().__init__([widgets.HTML(STYLE), widgets.Box([shown]).add_class("qx-columns")])
        self.add_class("qx-explorer")
        self._draw()
        self.task.start(
            lambda progress, cancel: quantize(workload, recipe, calibration, progress, cancel, watch=self._watch)
        )

    async def finished(self) -> Run:
        """`await` the run in a notebook; the kernel answers widgets meanwhile, so curves are drawn and Cancel acts.

        Raises:
            Cancelled: the training was cancelled.
            QexploreError: it failed; the message says why.
        """
        try:
            while self.task.busy:
                await asyncio.sleep(WAIT_SECONDS)
        except (KeyboardInterrupt, asyncio.CancelledError):  # the kernel was interrupted
            self.task.cancel()
            raise
        return self.result()

    def result(self) -> Run:
        """The run, for scripts: waits for the end of the training, and the kernel answers no widget meanwhile.

        Raises:
            Cancelled: the training was cancelled.
            QexploreError: it failed; the message says why.
        """
        try:
            while self.task.busy:
                self.task.wait(WAIT_SECONDS)
        except KeyboardInterrupt:
            self.task.cancel()
            raise
        if self.run is None:
            raise self.error or QexploreError("The training has no result.")
        return self.run

    def _watch(self, epoch: float, **figures: float) -> None:
        for name, kept in (("loss", self.losses), ("metric", self.metrics)):
            if name in figures:
                kept.append((epoch, figures[name]))
        if "metric" in figures or time.monotonic() - self._drawn > REDRAW_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        metrics: dict[str, Any] = {} if self.run is None else self.run.metrics
        self.figure.draw(
            live_training(
                self.losses,
                self.metrics,
                self._recipe.epochs,
                self._workload.metric,
                metrics.get("float"),
                metrics.get("int8"),
            )
        )

    def _progressed(self, message: str, fraction: float) -> None:
        self.progress.value, self.status.value = fraction, message

    def _done(self, run: Run) -> None:
        self.run = run
        self._draw()
        self.progress.bar_style, self.progress.value = "success", 1.0
        self.status.value = f"Trained, converted and measured in {run.seconds:.1f} s on engine {run.engine}."

    def _failed(self, error: BaseException) -> None:
        self.error = error
        self.progress.bar_style, self.status.value = "warning", "Stopped. Run the cell again to start anew."
        if not isinstance(error, Cancelled):
            self.error_panel.show(error, False)

    def _busy(self, busy: bool) -> None:
        self.cancel_button.disabled = not busy


def train_live(workload: Workload, recipe: Recipe, calibration: Calibration | None = None) -> Training:
    """Start quantizing with a recipe of mode "qat"; display what this gives to watch the training.

    Args:
        calibration: from `qx.calibrate(workload)`, to save its pass.

    Raises:
        QexploreError: the recipe is of another mode.
    """
    return Training(workload, recipe, calibration)
