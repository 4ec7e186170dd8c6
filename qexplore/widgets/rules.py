"""Rules for single layers: pick a layer or type a pattern, pick what is different there, add."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets as widgets

from qexplore.recipe import LayerRule, TensorSpec

SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "keep float": {},
    "weights per channel": {"weight": {"per_channel": True}},
    "weights per tensor": {"weight": {"per_channel": False}},
    **{f"weights {bits} bits": {"weight": {"bits": bits}} for bits in (8, 6, 4, 3, 2)},
    **{f"activations {bits} bits": {"activation": {"bits": bits}} for bits in (8, 6, 4, 3, 2)},
}


class Rules(widgets.VBox):
    """The list of rules with a row to add one.

    Args:
        on_change: called after the list has changed.

    Attributes:
        pattern: where a layer's name or a pattern is typed; its options are offered for completion.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._entries: list[tuple[str, str] | LayerRule] = []
        self.pattern = widgets.Combobox(
            description="Layer or pattern", placeholder="layer1.* or one layer", ensure_option=False
        )
        self.setting = widgets.Dropdown(description="There", options=list(SETTINGS))
        self.add = widgets.Button(description="Add rule", tooltip="Use this setting for these layers")
        self.add.on_click(lambda _: self._add())
        self._list = widgets.VBox()
        super().__init__([self.pattern, self.setting, self.add, self._list])

    def rules(self, weight: TensorSpec, activation: TensorSpec) -> list[LayerRule]:
        """The rules; what a setting does not mention is as in the given specs."""
        made = []
        for entry in self._entries:
            if isinstance(entry, LayerRule):
                made.append(entry)
                continue
            pattern, setting = entry
            changes = SETTINGS[setting]
            made.append(
                LayerRule(
                    pattern,
                    keep_float=not changes,
                    weight=dataclasses.replace(weight, **changes["weight"]) if "weight" in changes else None,
                    activation=(
                        dataclasses.replace(activation, **changes["activation"]) if "activation" in changes else None
                    ),
                )
            )
        return made

    def show(self, rules: Iterable[LayerRule]) -> None:
        """Replace the list by the rules of a recipe."""
        self._entries = list(rules)
        self._redraw()

    def disable(self, disabled: bool) -> None:
        """Disable or enable everything in it."""
        for control in (self.pattern, self.setting, self.add, *(row.children[1] for row in self._list.children)):
            control.disabled = disabled

    def _add(self) -> None:
        pattern = self.pattern.value.strip()
        if pattern:
            self._entries.append((pattern, self.setting.value))
            self.pattern.value = ""
            self._redraw()
            self._on_change()

    def _remove(self, position: int) -> None:
        del self._entries[position]
        self._redraw()
        self._on_change()

    def _redraw(self) -> None:
        rows = []
        for position, entry in enumerate(self._entries):
            text = _described(entry)
            remove = widgets.Button(description="Remove", tooltip=f"Remove the rule {text}")
            remove.on_click(lambda _, position=position: self._remove(position))
            rows.append(widgets.HBox([widgets.Label(text), remove]).add_class("qx-rule"))
        self._list.children = rows


def _described(entry: tuple[str, str] | LayerRule) -> str:
    if not isinstance(entry, LayerRule):
        return f"{entry[0]}: {entry[1]}"
    parts = ["keep float"] if entry.keep_float else []
    for kind in ("weight", "activation"):
        spec = getattr(entry, kind)
        if spec is not None:
            parts.append(f"{kind}s {spec.bits} bits, {spec.observer}{', per channel' if spec.per_channel else ''}")
    return f"{entry.pattern}: {'; '.join(parts)}"
