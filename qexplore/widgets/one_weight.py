"""One weight to train by hand: sliders for start, target, learning rate and bits, and the gradient that is used."""

from __future__ import annotations

from typing import Any

import ipywidgets as widgets

from qexplore.numerics.mapping import AffineMapping
from qexplore.numerics.one_weight import FORWARDS, Descent, descend
from qexplore.plots.one_weight import one_weight as draw
from qexplore.widgets.figure import LiveFigure
from qexplore.widgets.style import STYLE


class OneWeight(widgets.VBox):
    """Trains one weight anew whenever a control moves. The levels reach from -1 to one step below 1.

    Attributes:
        by_name: the controls: "start", "target", "rate", "bits", "gradient".
        descent: how the weight went with the settings shown.
    """

    def __init__(self, start: float, target: float, rate: float, bits: int, gradient: str) -> None:
        self.by_name: dict[str, Any] = {
            "start": _slider(start, -2.0, 2.0, "Start"),
            "target": _slider(target, -1.5, 1.5, "Target"),
            "rate": _slider(rate, 0.01, 1.5, "Rate", "The learning rate"),
            "bits": widgets.IntSlider(value=bits, min=2, max=5, description="Bits"),
            "gradient": widgets.Dropdown(value=gradient, options=list(FORWARDS), description="Gradient"),
        }
        self.figure = LiveFigure()
        controls = widgets.VBox(list(self.by_name.values())).add_class("qx-controls")
        right = widgets.VBox([self.figure]).add_class("qx-results")
        super().__init__([widgets.HTML(STYLE), widgets.Box([controls, right]).add_class("qx-columns")])
        self.add_class("qx-explorer").add_class("qx-playground")
        for control in self.by_name.values():
            control.observe(lambda _: self._train(), names="value")
        self._train()

    def _train(self) -> None:
        values = {name: control.value for name, control in self.by_name.items()}
        self.descent: Descent = descend(
            grid(values["bits"]),
            values["start"],
            values["target"],
            values["rate"],
            forward=FORWARDS[values["gradient"]],
        )
        self.figure.draw(draw(self.descent))


def one_weight(
    start: float = -0.9,
    target: float = 0.6,
    rate: float = 0.05,
    bits: int = 3,
    gradient: str = "straight-through",
) -> OneWeight:
    """One weight trained towards a target with fake-quantize in the loop, as a widget to display in a notebook."""
    return OneWeight(start, target, rate, bits, gradient)


def grid(bits: int) -> AffineMapping:
    """Signed codes with levels from -1 to one step below 1."""
    return AffineMapping.by_hand(2.0 ** (1 - bits), 0, bits, signed=True)


def _slider(value: float, low: float, high: float, name: str, tooltip: str = "") -> widgets.FloatSlider:
    return widgets.FloatSlider(value=value, min=low, max=high, step=0.01, description=name, tooltip=tooltip)
