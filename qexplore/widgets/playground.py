"""The playground: one tensor under one affine mapping, everything live."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import ipywidgets as widgets

from qexplore.errors import QexploreError
from qexplore.numerics.samples import LARGEST
from qexplore.plots.playground import playground
from qexplore.widgets.controls import SCHEMES
from qexplore.widgets.errors import ErrorPanel
from qexplore.widgets.figure import LiveFigure
from qexplore.widgets.playground_setting import Setting
from qexplore.widgets.playground_tensors import LAYER, Tensors
from qexplore.widgets.playground_words import about, facts, worked
from qexplore.widgets.style import STYLE

CODES = {"unsigned": False, "signed": True}
ROOM = 1.25  # the sliders reach so much further than the values
# Positions of the sliders for the clip range. They are whole numbers with fixed bounds, because the browser snaps a
# slider's value to its step whenever value or bounds change, and sends that back as if a person had moved it.
STEPS = 250
GROUPS = {
    "Tensor": ("tensor", "layer"),
    "Codes": ("bits", "symmetric", "signed"),
    "Clip range": ("low_slider", "high_slider", "whole"),
    "The same by hand": ("scale", "zero_point"),
    "One number": ("x",),
}


class Playground(widgets.VBox):
    """Choose a tensor, move range, bits and scheme, and see what rounding and clipping do.

    Args:
        tensor: one's own, a torch.Tensor or anything torch.as_tensor takes; None for the samples only.
        name: what to call it.

    Attributes:
        by_name: the controls; each shows `setting` and asks for another one.
        setting: what they add up to.
        shown: the tensor that is shown.
        x: the number that is worked through.

    Raises:
        QexploreError: the tensor is empty, not numeric, or has NaN, infinite or huge values.
    """

    def __init__(self, tensor: Any = None, name: str = "your tensor") -> None:
        self._tensors = Tensors(tensor, name)
        self._showing = False
        self.setting, self.x = Setting(0.0, 0.0), 0.0
        self.error_panel = ErrorPanel()
        self.by_name = _make(self._tensors.kinds)
        self.figure = LiveFigure()
        self.facts, self.worked = widgets.HTML(), widgets.HTML()
        self._notes = {
            "layer": widgets.HTML().add_class("qx-note"),
            "zero_point": widgets.HTML("Symmetric: 0.0 has the middle code.").add_class("qx-note"),
        }
        column: list[widgets.Widget] = []
        for title, names in GROUPS.items():
            column.append(widgets.HTML(f"<b>{title}</b>"))
            for key in names:
                control, end = self.by_name[key], key.removesuffix("_slider")
                column.append(
                    control if end == key else widgets.HBox([control, self.by_name[end]]).add_class("qx-clip")
                )
                column += [self._notes[key]] if key in self._notes else []
        controls = widgets.VBox([*column, self.worked]).add_class("qx-controls")
        right = widgets.VBox([self.error_panel, self.facts, self.figure]).add_class("qx-results")
        super().__init__([widgets.HTML(STYLE), widgets.Box([controls, right]).add_class("qx-columns")])
        self.add_class("qx-explorer").add_class("qx-playground")
        self._load(self._tensors.kinds[0][1], None)
        self._draw()
        for key, control in self.by_name.items():
            if isinstance(control, widgets.Button):
                control.on_click(partial(self._moved, key))
            else:
                control.observe(partial(self._moved, key), names="value")

    def _moved(self, name: str, change: Any) -> None:
        """Do what a control asks for; after an error everything stays as it was."""
        if self._showing:
            return
        self.error_panel.clear()
        try:
            self._take(name, self.by_name[name])
            self._draw()
        except Exception as error:
            self.error_panel.show(error, True)
            self._show()

    def _take(self, name: str, control: Any) -> None:
        if name == "tensor":
            self._load(control.value, None)
        elif name == "layer":
            self._load(LAYER, control.value)
        elif name == "whole":
            values = self.shown.values
            self.setting = self.setting.whole(values.lo, values.hi)
        elif name == "x":
            if not abs(control.value) < LARGEST:
                raise QexploreError(f"x is {control.value:g}: give a number below {LARGEST:g}.")
            self.x = control.value
        elif name.endswith("_slider"):
            self.setting = self.setting.moved(name.removesuffix("_slider"), control.value / STEPS * self._reach)
        else:
            self.setting = self.setting.moved(name, control.value)

    def _load(self, kind: str, layer: str | None) -> None:
        """Take another tensor, with its whole range and one of its values for x."""
        if kind == LAYER and layer is None:
            self._notes["layer"].value = "Loading the models …"
            layer = self._tensors.layers()[0]
        self.shown = self._tensors.get(kind, layer)
        self._kind, self._layer, values = kind, layer, self.shown.values
        self.setting = self.setting.whole(values.lo, values.hi)
        self._reach = ROOM * max(-values.lo, values.hi) or 1.0
        self.x = float(f"{0.3 * (values.hi if values.hi > 0 else values.lo):.2g}")

    def _draw(self) -> None:
        """Show tensor and setting: in figure, facts and controls."""
        mapping, shown = self.setting.mapping, self.shown
        self.figure.draw(playground(mapping, shown.name, shown.counts, shown.edges, self.x))
        self.facts.value = facts(mapping, shown.values)
        self.worked.value = worked(mapping, self.x)
        self._show()

    def _show(self) -> None:
        """Let every control show the setting, without being asked back."""
        setting, mapping = self.setting, self.setting.mapping
        low, high = setting.range
        self._showing = True
        if self._kind == LAYER:
            self.by_name["layer"].options = self._tensors.layers()
        for name, size in {"low": self._reach, "high": self._reach, "scale": mapping.scale, "x": self._reach}.items():
            self.by_name[name].step = 10.0 ** (math.floor(math.log10(size)) - 1)  # what an arrow key adds
        shown = {
            "tensor": self._kind,
            "layer": self._layer,
            "bits": setting.bits,
            "symmetric": setting.symmetric,
            "signed": setting.signed,
            "low_slider": max(round(low / self._reach * STEPS), -STEPS),
            "low": _short(low),
            "high_slider": min(round(high / self._reach * STEPS), STEPS),
            "high": _short(high),
            "scale": _short(mapping.scale),
            "zero_point": mapping.zero_point,
            "x": self.x,
        }
        for name, value in shown.items():
            self.by_name[name].value = value
        self._showing = False
        self.by_name["layer"].layout.display = None if self._kind == LAYER else "none"
        self.by_name["zero_point"].disabled = setting.symmetric
        self._notes["zero_point"].layout.display = None if setting.symmetric else "none"
        self._notes["layer"].value = about(self.shown.values)


def _short(value: float) -> float:
    """A number in as many digits as a field has room for."""
    return float(f"{value:.6g}")


def _make(kinds: list[tuple[str, str]]) -> dict[str, widgets.Widget]:
    """The controls by name."""
    return {
        "tensor": widgets.Dropdown(options=kinds, description="Tensor"),
        "layer": widgets.Dropdown(options=[], description="Layer"),
        "bits": widgets.IntSlider(min=2, max=8, value=8, description="Bits"),
        "symmetric": widgets.Dropdown(options=SCHEMES, description="Scheme"),
        "signed": widgets.Dropdown(options=CODES, description="Codes"),
        "low_slider": widgets.IntSlider(min=-STEPS, max=0, readout=False, description="Clip below"),
        "low": widgets.FloatText(description="Clip below this value"),
        "high_slider": widgets.IntSlider(min=0, max=STEPS, readout=False, description="Clip above"),
        "high": widgets.FloatText(description="Clip above this value"),
        "whole": widgets.Button(description="Whole range", tooltip="Set the clip range to all values of the tensor"),
        "scale": widgets.FloatText(description="Scale"),
        "zero_point": widgets.IntText(description="Zero point"),
        "x": widgets.FloatText(description="Value x"),
    }
