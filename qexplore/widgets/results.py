"""The tabs of pictures for one run; only the tab that is open is drawn."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from qexplore.analysis import Run
from qexplore.plots import PLOTS, Plot
from qexplore.widgets.figure import live_figure, redraw
from qexplore.widgets.html import layers_table

TABLE = "Table"


class Results(widgets.Tab):
    """A tab for each registered plot and one for the table of layers; the same widgets for every run."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._views = {title: FigureView(PLOTS[title]) for title in PLOTS} | {TABLE: TableView()}
        super().__init__([widgets.VBox() for _ in self._views], titles=tuple(self._views), selected_index=0)
        self.add_class("qx-tabs")
        self.observe(lambda _: self._draw(), names="selected_index")

    def show(self, run: Run) -> None:
        """Show another run in the open tab; the others follow when they are opened."""
        self._run = run
        self._draw()

    def open_tab(self, title: str) -> None:
        """Open the tab of this title."""
        self.selected_index = list(self._views).index(title)

    def _draw(self) -> None:
        if self._run is None or self.selected_index is None:
            return
        view = list(self._views.values())[self.selected_index]
        view.show(self._run)
        # A figure in a hidden tab takes a wrong size, so a tab holds its figure only while it is open.
        for position, place in enumerate(self.children):
            place.children = view.children if position == self.selected_index else ()


class FigureView:
    """One figure and, where it shows a single tensor, the choice of the tensor."""

    def __init__(self, plot: Plot) -> None:
        self._plot = plot
        self._run: Run | None = None
        self.figure = live_figure()
        self.tensor = widgets.Dropdown(description="Tensor")
        self.tensor.observe(lambda _: self._draw(), names="value")
        self.children: tuple[Any, ...] = (self.tensor, self.figure) if plot.tensors else (self.figure,)

    def show(self, run: Run) -> None:
        """Draw the run, with the tensor chosen before where it has one of that name."""
        if run is self._run:
            return
        self._run = None
        if self._plot.tensors:
            names = run.tensors.name[run.tensors.kind == self._plot.tensors].tolist()
            before = self.tensor.value
            self.tensor.options = names
            self.tensor.value = before if before in names else (names[0] if names else None)
        self._run = run
        self._draw()

    def _draw(self) -> None:
        if self._run is None or (self._plot.tensors and self.tensor.value is None):
            return
        arguments = (self._run, self.tensor.value) if self._plot.tensors else (self._run,)
        redraw(self.figure, self._plot(*arguments))


class TableView:
    """The table of layers."""

    def __init__(self) -> None:
        self._html = widgets.HTML()
        self.children: tuple[Any, ...] = (self._html,)

    def show(self, run: Run) -> None:
        """Show the run's layers."""
        self._html.value = layers_table(run)
