"""The pictures of one run behind a bar of tabs, all drawn into one figure."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from qexplore.analysis import Run
from qexplore.plots import PLOTS, runs_overview
from qexplore.widgets.figure import LiveFigure
from qexplore.widgets.html import layers_table

TABLE, RUNS = "Table", "Runs"
TITLES = (*PLOTS, TABLE, RUNS)


class Results(widgets.VBox):
    """A tab for each registered plot, one for the table of layers and one for all runs together.

    Attributes:
        bar: the tabs; `open_tab(title)` opens one.
        tensor: which tensor is shown, in tabs that show one.
        figure: the figure, the same one in all tabs.
    """

    def __init__(self) -> None:
        self._run: Run | None = None
        self._runs: list[Run] = []
        self.bar = widgets.Tab([widgets.Box() for _ in TITLES], titles=TITLES, selected_index=0).add_class("qx-tabs")
        self.tensor = widgets.Dropdown(description="Tensor")
        self._table = widgets.HTML()
        self.figure = LiveFigure()
        super().__init__([self.bar, widgets.VBox([self.tensor, self.figure, self._table]).add_class("qx-panel")])
        self.bar.observe(self._changed, names="selected_index")
        self.tensor.observe(self._changed, names="value")
        self.layout.display = "none"

    @property
    def title(self) -> str:
        """The title of the open tab."""
        return TITLES[self.bar.selected_index or 0]

    def open_tab(self, title: str) -> None:
        """Open the tab of this title."""
        self.bar.selected_index = TITLES.index(title)

    def show(self, run: Run, runs: list[Run]) -> None:
        """Show a run, and all runs beside each other, in the open tab; the others follow when they are opened."""
        self._run, self._runs = run, runs
        self.layout.display = None
        self._draw()

    def _changed(self, change: Any) -> None:
        self._draw()

    def _draw(self) -> None:
        run, self._run = self._run, None  # setting the tensor's options below must not draw a second time
        if run is None:
            return
        plot = PLOTS[self.title] if self.title not in (TABLE, RUNS) else None
        kind = plot.tensors if plot else None
        if kind:
            names = run.tensors.name[run.tensors.kind == kind].tolist()
            before = self.tensor.value
            if list(self.tensor.options) != names:
                self.tensor.options = names
                self.tensor.value = before if before in names else (names[0] if names else None)
        figure = None
        if plot:
            figure = plot(run, self.tensor.value or "") if kind else plot(run)
        elif self.title == RUNS:
            figure = runs_overview(self._runs)
        if figure is not None:
            self.figure.draw(figure)
        else:
            self._table.value = layers_table(run)
        self.tensor.layout.display = None if kind else "none"
        self.figure.layout.display = None if figure is not None else "none"
        self._table.layout.display = "none" if figure is not None else None
        self._run = run
