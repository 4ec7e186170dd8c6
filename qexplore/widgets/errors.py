"""The error panel: one plain sentence, the traceback folded below it."""

from __future__ import annotations

import html
import traceback

import ipywidgets as widgets

from qexplore.errors import QexploreError


class ErrorPanel(widgets.VBox):
    """Hidden until an error is shown; the results beside it stay as they are."""

    def __init__(self) -> None:
        self._text = widgets.HTML()
        self._dismiss = widgets.Button(description="Dismiss", tooltip="Hide this message")
        self._dismiss.on_click(lambda _: self.clear())
        super().__init__([self._text, self._dismiss])
        self.add_class("qx-error")
        self.clear()

    def show(self, error: BaseException, has_result: bool, heading: str = "Not done.") -> None:
        """Show what is wrong; `has_result` says whether an earlier result is on the screen."""
        sentence = str(error) if isinstance(error, QexploreError) else f"{type(error).__name__}: {error}"
        details = "".join(traceback.format_exception(error))
        stays = " The last result stays below." if has_result else ""
        self._text.value = (
            f'<div role="alert"><b>{heading}</b> {html.escape(sentence)}{stays}</div>'
            f"<details><summary>Details</summary><pre>{html.escape(details)}</pre></details>"
        )
        self.layout.display = "flex"

    def clear(self) -> None:
        """Hide the panel."""
        self._text.value = ""
        self.layout.display = "none"

    @property
    def message(self) -> str:
        """The shown HTML; empty when nothing is wrong."""
        return str(self._text.value)
