"""The pictures of a run or a prediction behind a bar of tabs, all drawn into one figure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import plotly.graph_objects as go

from qexplore.analysis import Prediction, Run
from qexplore.plots import PLOTS, Plot, runs_overview
from qexplore.plots.tabs import Shown
from qexplore.plots.theme import figure
from qexplore.widgets.figure import LiveFigure
from qexplore.widgets.html import layers_table

TABLE, RUNS, SOURCES = "Table", "Runs", "Error sources"
TITLES = (*list(PLOTS)[:1], SOURCES, *list(PLOTS)[1:], TABLE, RUNS)
NO_RUN = "This is measured: press Quantize to see it."
NO_PREDICTION = "There is no prediction for this recipe."


class Results(widgets.VBox):
    """A tab for each registered plot, one for where the error comes from, one for the table of layers and one for all
    runs together.

    Args:
        on_error: called with an exception that a figure raised.
        sources: what the tab "Error sources" shows; `on_sources` is called when that tab is opened.

    Attributes:
        bar: the tabs; `open_tab(title)` opens one.
        tensor: which tensor is shown, in tabs that show one.
        figure: the figure, the same one in all tabs.
        run, prediction: what is shown: the last run, and the prediction for the recipe in question.
        live: whether the prediction is for other settings than the run's, and so stands in place of it.
    """

    def __init__(
        self,
        on_error: Callable[[BaseException], object],
        sources: widgets.Widget,
        on_sources: Callable[[], None],
    ) -> None:
        self._sources, self._on_sources = sources, on_sources
        self.run: Run | None = None
        self.prediction: Prediction | None = None
        self.live = True
        self._runs: list[Run] = []
        self._drawing = False
        self._lock = threading.RLock()
        self._on_error = on_error
        self.bar = widgets.Tab([widgets.Box() for _ in TITLES], titles=TITLES, selected_index=0).add_class("qx-tabs")
        self.tensor = widgets.Dropdown(description="Tensor")
        self._table = widgets.HTML()
        self.figure = LiveFigure()
        super().__init__(
            [self.bar, widgets.VBox([self.tensor, self.figure, self._table, sources]).add_class("qx-panel")]
        )
        self.bar.observe(self._opened, names="selected_index")
        self.tensor.observe(self._changed, names="value")
        self.layout.display = "none"

    @property
    def title(self) -> str:
        """The title of the open tab."""
        return TITLES[self.bar.selected_index or 0]

    def open_tab(self, title: str) -> None:
        """Open the tab of this title."""
        self.bar.selected_index = TITLES.index(title)

    def show_run(self, run: Run, runs: list[Run], prediction: Prediction | None) -> None:
        """Show a run, the prediction for its recipe beside it, in the open tab; the others follow when opened."""
        self.run, self._runs, self.prediction, self.live = run, runs, prediction, False
        self._draw()

    def show_prediction(self, prediction: Prediction) -> None:
        """Show what is predicted for settings that have not been run; tabs with measured figures keep the last run."""
        self.prediction, self.live = prediction, True
        self._draw()

    @property
    def _shown(self) -> Shown | None:
        return self.prediction if self.live or self.run is None else self.run

    def show_tensor(self, title: str, pair: tuple[str, str]) -> None:
        """Open a tab that shows one tensor, at the tensor (kind, name) if it is there."""
        self.open_tab(title)
        if pair in [value for _, value in self.tensor.options]:
            self.tensor.value = pair

    def _opened(self, change: Any) -> None:
        self._changed(change)
        if self.title == SOURCES:
            self._on_sources()

    def _changed(self, change: Any) -> None:
        try:
            self._draw()
        except Exception as error:
            self._on_error(error)

    def _draw(self) -> None:
        with self._lock:  # the explorer's background thread draws too
            if self._drawing or self._shown is None:  # setting the tensor's options must not draw a second time
                return
            self._drawing = True
            try:
                self._draw_tab()
            finally:
                self._drawing = False

    def _draw_tab(self) -> None:
        self.layout.display = None
        plot = PLOTS[self.title] if self.title not in (TABLE, RUNS, SOURCES) else None
        self._offer_tensors(plot)
        self._sources.layout.display = None if self.title == SOURCES else "none"
        if self.title == SOURCES:
            self.figure.layout.display = self._table.layout.display = "none"
            return
        made = self._figure(plot)
        if made is not None:
            self.figure.draw(made)
        elif self.run is not None:
            self._table.value = layers_table(self.run, None if self.live else self.prediction)
        self.figure.layout.display = None if made is not None else "none"
        self._table.layout.display = "none" if made is not None else None

    def _offer_tensors(self, plot: Plot | None) -> None:
        kinds = plot.tensors if plot else ()
        self.tensor.layout.display = None if kinds else "none"
        shown = self.prediction if plot and plot.of == "prediction" else self._shown
        if not kinds or shown is None:
            return
        pairs = [(row.kind, row.name) for row in shown.tensors.itertuples(index=False) if row.kind in kinds]
        options = [(f"weight of {name}" if kind == "weight" else name, (kind, name)) for kind, name in pairs]
        if list(self.tensor.options) != options:
            before = self.tensor.value
            self.tensor.options = options
            self.tensor.value = before if before in pairs else (pairs[0] if pairs else None)

    def _figure(self, plot: Plot | None) -> go.Figure | None:
        """The figure of the open tab; None where it is the table of a run."""
        if plot is None and self.run is None:
            return figure([], self.title, sentence=NO_RUN)
        if plot is None:
            return runs_overview(self._runs) if self.title == RUNS else None
        shown = {"run": self.run, "prediction": self.prediction, "either": self._shown}[plot.of]
        if shown is None:
            return figure([], self.title, sentence=NO_RUN if plot.of == "run" else NO_PREDICTION)
        kind, name = self.tensor.value or ("", "")
        which = {0: (), 1: (name,), 2: (kind, name)}[len(plot.tensors)]
        return plot(shown, *which, **({"predicted": self.prediction} if plot.beside else {}))
