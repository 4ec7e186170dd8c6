"""The explorer: a recipe's controls on the left, what the recipe does on the right."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ipywidgets as widgets

from qexplore.analysis import Prediction, Run, predict, quantize
from qexplore.analysis.checks import inspect
from qexplore.analysis.fixes import Fix
from qexplore.calibrate import Calibration, calibrate
from qexplore.calibrate.observers import OBSERVERS
from qexplore.engines.fx import warm_up
from qexplore.errors import Cancelled, QexploreError
from qexplore.exclusive import exclusive
from qexplore.plots.words import recipe_words
from qexplore.progress import Cancel, Report, no_report, part
from qexplore.recipe import Recipe
from qexplore.widgets.controls import Controls
from qexplore.widgets.errors import ErrorPanel
from qexplore.widgets.html import headline, help_text, predicted_line, runs_table
from qexplore.widgets.results import Results
from qexplore.widgets.sources import Found, Sources, found
from qexplore.widgets.style import STYLE
from qexplore.widgets.task import Task
from qexplore.workload import Workload

NOT_PREDICTED = '<div class="qx-predicted">The figures below are for the settings before.</div>'


class Explorer(widgets.VBox):
    """Pick settings, quantize for real, look at the result.

    Args:
        recipe: what the controls show at first; the default recipe where None.

    Attributes:
        workload: what is quantized.
        runs: all runs so far, oldest first.
        run: the run that is shown; None before the first.
        prediction: what is predicted for the controls' recipe; None before the calibration has ended.
        task: the worker; `wait()` waits for it in a script.
    """

    def __init__(self, workload: Workload, recipe: Recipe | None = None) -> None:
        if not isinstance(workload, Workload):
            raise QexploreError(f"explore got {workload!r}; give a qx.Workload, such as qx.workload('digits').")
        self.workload = workload
        self.runs: list[Run] = []
        self.run: Run | None = None
        self.prediction: Prediction | None = None
        self._calibration: Calibration | None = None
        self._predicting = threading.RLock()
        self._functions: list[tuple[object, ...]] = []
        self.task = Task(self._progressed, lambda show: show(), self._failed, self._busy)
        self.error_panel = ErrorPanel()
        self.controls = Controls(self._changed)
        self.quantize_button = widgets.Button(description="Quantize", button_style="primary")
        self.quantize_button.on_click(lambda _: self.quantize())
        self.cancel_button = widgets.Button(description="Cancel", disabled=True)
        self.cancel_button.on_click(lambda _: self.task.cancel())
        self.progress = widgets.FloatProgress(min=0.0, max=1.0, description="Progress")
        self.status = widgets.HTML("Ready.").add_class("qx-status")
        self.headline = widgets.HTML()
        self.predicted = widgets.HTML()
        self.sources = Sources(self.diagnose, self._fixed, self._tensor, self._failed)
        self.results = Results(self._failed, self.sources, self._sources_opened)
        self.table = widgets.HTML(runs_table([]))
        self.shown = widgets.Dropdown(description="Shown run", options=[]).add_class("qx-shown")
        self.shown.layout.display = "none"
        self.shown.observe(self._chosen, names="value")
        self.reuse_button = widgets.Button(
            description="Use its recipe", tooltip="Set the controls to this run's recipe"
        )
        self.reuse_button.layout.display = "none"
        self.reuse_button.on_click(lambda _: self._reuse())
        actions = widgets.HBox([self.quantize_button, self.cancel_button, self.progress])
        actions.layout.flex_flow = "row wrap"
        picker = widgets.HBox([self.shown, self.reuse_button])
        picker.layout.flex_flow = "row wrap"
        right = widgets.VBox(
            [actions, self.status, self.error_panel, self.headline, self.predicted, self.results, picker, self.table]
        ).add_class("qx-results")
        columns = widgets.Box([self.controls, right]).add_class("qx-columns")
        super().__init__([widgets.HTML(STYLE), columns, widgets.HTML(help_text()).add_class("qx-help")])
        self.add_class("qx-explorer")
        if recipe is not None:
            self.controls.show(recipe)
        self._changed()
        self._inspection = threading.Thread(target=self._inspect, daemon=True, name="qexplore inspection")
        self._inspection.start()

    @property
    def recipe(self) -> Recipe:
        """The recipe that the controls show."""
        return self.controls.recipe()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the model has been looked at and no work is going on, for scripts and tests."""
        self._inspection.join(seconds)
        self.task.wait(seconds)

    def quantize(self) -> None:
        """Quantize with the recipe shown, in the worker thread."""

        def work(recipe: Recipe, calibration: Calibration, progress: Report, cancel: Cancel) -> Callable[[], None]:
            run = quantize(self.workload, recipe, calibration, progress=progress, cancel=cancel)
            return partial(self._done, run, predict(calibration, recipe))

        self._start(work)

    def diagnose(self) -> None:
        """Find out where the error of the recipe shown comes from, in the worker thread."""

        def work(recipe: Recipe, calibration: Calibration, progress: Report, cancel: Cancel) -> Callable[[], None]:
            run = next((run for run in reversed(self.runs) if run.recipe == recipe), None)
            return partial(self._diagnosed, found(calibration, recipe, run, part(progress, 0.1, 1.0), cancel))

        self._start(work)

    def _start(self, work: Callable[[Recipe, Calibration, Report, Cancel], Callable[[], None]]) -> None:
        """Do some work for the recipe shown in the worker thread, then call what it gives."""
        self.error_panel.clear()
        try:
            recipe = self.recipe
        except Exception as error:
            self._failed(error)
            return
        self.task.start(
            lambda progress, cancel: work(recipe, self._calibrated(part(progress, 0.0, 0.1), cancel), progress, cancel)
        )

    def _inspect(self) -> None:
        """Off the kernel's own thread, find out the model's layers and modes, have torch import what it needs, and
        calibrate, so that every control can act at once."""
        try:
            with exclusive():
                self.controls.know(inspect(self.workload))
                warm_up()
                self._calibrated()
            self._predict()
        except Exception as error:
            self._failed(error)

    def _calibrated(self, report: Report = no_report, cancel: Cancel = None) -> Calibration:
        """The calibration, made by whoever comes first; the other one waits for it."""
        with exclusive(report, cancel):
            if self._calibration is None:
                self._calibration = calibrate(self.workload, progress=report, cancel=cancel)
            return self._calibration

    def _changed(self) -> None:
        problem = self.controls.mode_problem
        self.quantize_button.disabled = problem is not None or self.task.busy
        self.quantize_button.tooltip = problem or "Quantize for real and measure"
        if self._calibration is not None and not self.task.busy:
            self._predict()

    def _predict(self) -> None:
        """Predict for the controls' recipe and redraw; where it has been run, show that run."""
        with self._predicting:  # the background thread predicts too: the last recipe wins
            try:
                self._show_recipe(self.recipe)
            except Exception as error:
                self.prediction = None
                self.predicted.value = NOT_PREDICTED if self.results.prediction is not None else ""
                self.error_panel.show(error, bool(self.runs), "Not predicted.")
            else:
                self.error_panel.clear()

    def _show_recipe(self, recipe: Recipe) -> None:
        assert self._calibration is not None
        self.prediction = predict(self._calibration, recipe)
        self.sources.stale(recipe)
        same = ((i, run) for i, run in enumerate(self.runs) if run.recipe == recipe)
        position = next((i for i, _ in same if self._functions[i] == _functions(recipe)), None)
        if position is None:
            self.predicted.value = predicted_line(self.prediction, is_run=False)
            self.results.show_prediction(self.prediction)
        else:
            self._choose(position)
            self._show(self.runs[position], self.prediction)

    def _busy(self, busy: bool) -> None:
        self.cancel_button.disabled = not busy
        self.controls.busy(busy)
        self.sources.disable(busy)
        self.quantize_button.disabled = busy or self.controls.mode_problem is not None
        if busy:
            self.progress.bar_style, self.progress.value = "info", 0.0

    def _progressed(self, message: str, fraction: float) -> None:
        self.progress.value = fraction
        self.status.value = message

    def _sources_opened(self) -> None:
        """Find the causes when their tab is opened for the first time."""
        if self.sources.found is None and self._calibration is not None and not self.task.busy:
            self.diagnose()

    def _diagnosed(self, found: Found) -> None:
        self.progress.bar_style, self.progress.value = "success", 1.0
        self.status.value = f"{len(found.diagnosis.findings)} causes found."
        self.sources.show(found)

    def _fixed(self, fix: Fix) -> None:
        try:
            self.controls.show(fix.recipe)
        except QexploreError as error:
            self._failed(error)

    def _tensor(self, kind: str, layer: str) -> None:
        if self.prediction is None:
            return
        outputs = self.prediction.layers.output
        name = outputs.get(layer, layer) if kind == "activation" else layer
        self.results.show_tensor("Activations" if kind == "activation" else "Weights", (kind, name))

    def _done(self, run: Run, prediction: Prediction) -> None:
        self.prediction = prediction
        self.runs.append(run)
        self._functions.append(_functions(run.recipe))
        self.progress.bar_style, self.progress.value = "success", 1.0
        self.status.value = f"Run {len(self.runs)} took {run.seconds:.1f} s on engine {run.engine}."
        self.table.value = runs_table(self.runs)
        options = [(f"{i}: {'; '.join(recipe_words(r.recipe))}", i - 1) for i, r in enumerate(self.runs, 1)]
        self._choose(len(self.runs) - 1, options)
        for widget in (self.shown, self.reuse_button):
            widget.layout.display = None
        self._show(run, self.prediction)
        self.sources.measured(run)

    def _failed(self, error: BaseException) -> None:
        self.progress.bar_style = "warning"
        if isinstance(error, Cancelled):
            self.status.value = "Cancelled; nothing was changed."
            return
        self.status.value = "Not done."
        self.error_panel.show(error, bool(self.runs))

    def _chosen(self, change: Any) -> None:
        if change["new"] is None:
            return
        run = self.runs[change["new"]]
        self.error_panel.clear()
        prediction = None
        try:
            assert self._calibration is not None
            if self._functions[change["new"]] == _functions(run.recipe):
                prediction = predict(self._calibration, run.recipe)
        except Exception as error:
            self.error_panel.show(error, True, "Not predicted.")
        self._show(run, prediction)
        self.status.value = f"Showing run {change['new'] + 1}."

    def _choose(self, position: int, options: Sequence[tuple[str, int]] | None = None) -> None:
        """Set the drop-down of runs, without acting on it."""
        self.shown.unobserve(self._chosen, names="value")
        if options is not None:
            self.shown.options = options
        self.shown.value = position
        self.shown.observe(self._chosen, names="value")

    def _show(self, run: Run, prediction: Prediction | None) -> None:
        self.run = run
        self.headline.value = headline(run, 1 + next(i for i, other in enumerate(self.runs) if other is run))
        self.predicted.value = "" if prediction is None else predicted_line(prediction, is_run=True)
        self.results.show_run(run, self.runs, prediction)

    def _reuse(self) -> None:
        if self.run is not None:
            try:
                self.controls.show(self.run.recipe)
            except QexploreError as error:
                self._failed(error)


def _functions(recipe: Recipe) -> tuple[object, ...]:
    """The observers' functions that a recipe stands for now: one of somebody's own may be registered anew."""
    return tuple(OBSERVERS[spec.observer].choose for spec in recipe.specs() if spec.observer in OBSERVERS)
