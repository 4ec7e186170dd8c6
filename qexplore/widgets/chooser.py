"""A workload chooser with the explorer of the chosen one below it."""

from __future__ import annotations

import html
from typing import Any

import ipywidgets as widgets

from qexplore.widgets.explorer import Explorer
from qexplore.workload import WORKLOADS, workload, workloads


class Chooser(widgets.VBox):
    """Choose a demo workload, explore it. Each keeps its runs while another one is open.

    Attributes:
        explorer: the explorer that is shown.
    """

    def __init__(self) -> None:
        names = workloads()
        self._explorers: dict[str, Explorer] = {}
        self.choice = widgets.Dropdown(description="Workload", options=names, value=names[0])
        self._about = widgets.HTML()
        self._place = widgets.VBox()
        self.choice.observe(lambda _: self._show(), names="value")
        super().__init__([widgets.HBox([self.choice, self._about]), self._place])
        self.children[0].layout.flex_flow = "row wrap"
        self._show()

    @property
    def explorer(self) -> Explorer:
        """The explorer of the chosen workload."""
        return self._explorers[self.choice.value]

    def _show(self, _: Any = None) -> None:
        name = self.choice.value
        self._about.value = f"Loading {html.escape(name)} …"
        self._place.children = ()
        if name not in self._explorers:
            self._explorers[name] = Explorer(workload(name))
        self._place.children = (self._explorers[name],)
        self._about.value = html.escape(description(name))


def description(name: str) -> str:
    """The first line of what the demo workload `name` says of itself."""
    return (WORKLOADS[name].__doc__ or "").strip().splitlines()[0]
