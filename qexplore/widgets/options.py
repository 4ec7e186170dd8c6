"""Controls for the options of the chosen observer, made from what the observer says of them."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from qexplore.calibrate.observers import OBSERVERS, Option
from qexplore.recipe import OptionValue


class Options(widgets.VBox):
    """One control per option of an observer; hidden where it has none.

    Args:
        on_change: called after any of them has moved.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._declared: dict[str, Option] = {}
        self.by_name: dict[str, widgets.Widget] = {}
        super().__init__()

    def show(self, observer: str, values: Mapping[str, OptionValue] | None = None) -> None:
        """Make the controls of `observer`, at the given values or their defaults."""
        declared = OBSERVERS[observer].options if observer in OBSERVERS else {}
        if declared != self._declared:
            self._declared = declared
            self.by_name = {name: _control(name, option) for name, option in declared.items()}
            for control in self.by_name.values():
                control.observe(self._changed, names="value")
            notes = [widgets.HTML(_note(option)).add_class("qx-note") for option in declared.values()]
            pairs = zip(self.by_name.values(), notes, strict=True)
            self.children = [widget for pair in pairs for widget in pair]
        for name, value in (values or {}).items():
            if name in self.by_name:
                self.by_name[name].value = value
        self.layout.display = None if declared else "none"

    def values(self) -> dict[str, OptionValue]:
        """The options that are not at their default."""
        current = {name: control.value for name, control in self.by_name.items()}
        return {name: value for name, value in current.items() if value != self._declared[name].default}

    def disable(self, disabled: bool) -> None:
        """Disable or enable all of them."""
        for control in self.by_name.values():
            control.disabled = disabled

    def _changed(self, change: Any) -> None:
        self._on_change()


def _control(name: str, option: Option) -> widgets.Widget:
    label = name.replace("_", " ").capitalize()
    if isinstance(option.default, str):
        return widgets.Dropdown(description=label, options=option.choices, value=option.default, tooltip=option.text)
    settings = {"description": label, "value": option.default, "tooltip": option.text}
    if isinstance(option.default, int):
        low, high = (int(max(min(edge, 2.0**53), -(2.0**53))) for edge in (option.low, option.high))
        return widgets.BoundedIntText(min=low, max=high, **settings)
    low_float, high_float = (max(min(edge, 1e300), -1e300) for edge in (option.low, option.high))
    return widgets.BoundedFloatText(min=low_float, max=high_float, step=_step(option.default), **settings)


def _step(value: float) -> float:
    """About a hundredth of the value, as a power of ten."""
    return 10.0 ** (math.floor(math.log10(abs(value) or 1.0)) - 2)


def _note(option: Option) -> str:
    text = " ".join(part for part in (option.text, f"In {option.unit}." if option.unit else "") if part)
    return html.escape(text)
