"""The registry of figures that show one run, from which the explorer makes its tabs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import plotly.graph_objects as go

from qexplore.registry import Registry

Draw = TypeVar("Draw", bound=Callable[..., go.Figure])


@dataclass(frozen=True)
class Plot:
    """A figure of a run.

    Attributes:
        draw: `draw(run)`, or `draw(run, name)` where `tensors` is set. For every run it gives as many traces,
            shapes and annotations, of the same types in the same order, so a FigureWidget can be updated in place.
        tensors: the kind of tensor it shows, "activation" or "weight"; None where it shows the whole run.
    """

    draw: Callable[..., go.Figure]
    tensors: str | None = None

    def __call__(self, *arguments: Any) -> go.Figure:
        return self.draw(*arguments)


PLOTS: Registry[Plot] = Registry("plot")


def tab(title: str, tensors: str | None = None) -> Callable[[Draw], Draw]:
    """Decorator: make a figure of a run a tab of the explorer under `title`."""

    def enter(draw: Draw) -> Draw:
        PLOTS.register(title)(Plot(draw, tensors))
        return draw

    return enter
