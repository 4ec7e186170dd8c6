"""The registry of figures that show a run or a prediction, from which the explorer makes its tabs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import plotly.graph_objects as go

from qexplore.analysis import Prediction, Run
from qexplore.registry import Registry

Draw = TypeVar("Draw", bound=Callable[..., go.Figure])


Shown = Run | Prediction
BOTH = ("activation", "weight")


@dataclass(frozen=True)
class Plot:
    """A figure of a run or of a prediction.

    Attributes:
        draw: `draw(shown)`, with one kind of `tensors` `draw(shown, name)`, with two `draw(shown, kind, name)`.
        tensors: the kinds of tensor it can show; empty where it shows the whole model.
        of: what it is drawn from: "run", "prediction", or "either".
        beside: whether it takes the prediction for the same recipe as `predicted` beside a run.
    """

    draw: Callable[..., go.Figure]
    tensors: tuple[str, ...] = ()
    of: str = "run"
    beside: bool = False

    def __call__(self, *arguments: Any, **settings: Any) -> go.Figure:
        return self.draw(*arguments, **settings)


PLOTS: Registry[Plot] = Registry("plot")


def tab(title: str, tensors: tuple[str, ...] = (), of: str = "run", beside: bool = False) -> Callable[[Draw], Draw]:
    """Decorator: make a figure a tab of the explorer under `title` (see `Plot`)."""

    def enter(draw: Draw) -> Draw:
        PLOTS.register(title)(Plot(draw, tensors, of, beside))
        return draw

    return enter
